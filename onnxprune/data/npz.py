"""Samples in an `.npz`. Law: arrays go by the inputs' names; what else the archive holds is not even read."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onnxprune.data.fit import check_array
from onnxprune.data.samples import Feeds, Samples, count_of, taken
from onnxprune.errors import DataError
from onnxprune.model import Array, Model


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
        feeds[info.name] = check_array(info, arrays[info.name], str(path))
    return feeds


def read_npz(model: Model, path: Path, limit: int, seed: int) -> Samples:
    """As many samples of an archive as are wanted, spread over all of them, in their order."""
    held = load_npz(model, path)
    feeds = taken(model, held, limit, seed)
    return Samples((feeds,), {"samples": count_of(feeds) or 1, "of": count_of(held) or 1})


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
        remedy = "check the path" if isinstance(error, FileNotFoundError) else remedy
        raise DataError(f"cannot be read ({reason})", where=str(path), remedy=remedy) from error
