"""Calibration arrays. Law: what reaches the model fits its inputs, or an error says which array does not."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from onnxprune.errors import DataError
from onnxprune.model import Array, Model

Feeds = Mapping[str, Array]


def load_npz(model: Model, path: Path) -> Feeds:
    """Read an `.npz` whose arrays are named after the model's inputs; further arrays (labels) are ignored.

    Raises:
        DataError: The file cannot be read, lacks an input, or an array has another type or shape than its input.
    """
    arrays, names = read_arrays(path, [info.name for info in model.inputs])
    feeds = {}
    for info in model.inputs:
        if info.name not in arrays:
            what = f"has no array for the model's input '{info.name}' (it has: {', '.join(names) or 'none'})"
            raise DataError(what, where=str(path), remedy=f"numpy.savez(..., **{{'{info.name}': x}})")
        feeds[info.name] = check_array(info, arrays[info.name], path)
    return feeds


def read_arrays(path: Path, wanted: Sequence[str]) -> tuple[dict[str, Array], list[str]]:
    """Those of the wanted arrays that an archive has, and the names of all it has; only the wanted are read."""
    remedy = "write it with numpy.savez"
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise DataError("is not an .npz archive", where=str(path), remedy=remedy)
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name] for name in wanted if name in held.files}, list(held.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"cannot be read ({reason})", where=str(path), remedy=remedy) from error


def check_array(info: onnx.ValueInfoProto, array: Array, path: Path) -> Array:
    """An array that fits an input, or an error."""
    kind = info.type.tensor_type
    wanted = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    dims = [d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim]
    if array.dtype != wanted:
        what = f"array '{info.name}' is {array.dtype}, the model's input is {wanted}"
        raise DataError(what, where=str(path), remedy=f"convert it with .astype('{wanted}')")
    fits = array.ndim == len(dims) and all(d in (None, n) for d, n in zip(dims[1:], array.shape[1:], strict=True))
    if not fits or array.size == 0 or (dims and dims[0] and array.shape[0] % dims[0]):
        expected = " x ".join("any" if d is None else str(d) for d in dims)
        shape = " x ".join(map(str, array.shape)) or "()"
        what = f"array '{info.name}' has shape {shape}, the model's input takes {expected}"
        raise DataError(what, where=str(path), remedy="the first axis counts samples; the others must match")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"array '{info.name}' holds NaN or infinity", where=str(path), remedy="clean the data")
    return array


def batches(model: Model, feeds: Feeds, *, size: int = 8, limit: int = 16) -> Iterator[Feeds]:
    """Cut samples into batches the model takes: its own batch size if fixed, else `size`.

    Args:
        model: Its inputs' first axes say whether the batch is fixed.
        feeds: Input name -> samples along the first axis; without a common number of samples, one batch.
        size: Samples per batch where the model leaves that open.
        limit: Samples to use at most, rounded up to a whole batch.
    """
    firsts = [i.type.tensor_type.shape.dim[0].dim_value for i in model.inputs if i.type.tensor_type.shape.dim]
    counts = {a.shape[0] for a in feeds.values() if a.ndim}
    fixed = {d for d in firsts if d > 0}
    step = fixed.pop() if len(fixed) == 1 else size
    if len(counts) != 1 or fixed:
        yield feeds
        return
    total = counts.pop()
    for start in range(0, min(total, limit), step):
        yield {name: a[start : start + step] if a.ndim else a for name, a in feeds.items()}
