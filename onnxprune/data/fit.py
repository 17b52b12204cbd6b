"""Whether an array fits an input. Law: what reaches the model has its type and shape and is finite, or is refused.

Text is kept as an array of `str` objects, the form onnxruntime takes; numpy's own text types become that.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxprune.errors import DataError
from onnxprune.model import Array, is_float

SEQUENCE = "give the model's inputs as tensors: export it without"


def dims_of(info: onnx.ValueInfoProto) -> list[int | None] | None:
    """The sizes of an input's axes, None for an open one; None where even their number is open."""
    if not info.type.tensor_type.HasField("shape"):
        return None
    return [d.dim_value if d.dim_value > 0 else None for d in info.type.tensor_type.shape.dim]


def rank_of(info: onnx.ValueInfoProto) -> int | None:
    """The number of an input's axes; None where it is open."""
    dims = dims_of(info)
    return None if dims is None else len(dims)


def check_array(info: onnx.ValueInfoProto, array: Array, where: str) -> Array:
    """An array that fits an input, its first axis counting samples.

    Args:
        info: The input.
        array: What is to be fed; a multiple of the input's own batch where that is fixed.
        where: The file it comes from.

    Raises:
        DataError: Another type or shape, no elements, or NaN or infinity among them.
    """
    if info.type.WhichOneof("value") != "tensor_type":
        raise DataError(
            f"the model's input '{info.name}' is no tensor", where=where, remedy=f"{SEQUENCE} lists or maps"
        )
    array = check_type(info, array, where)
    check_shape(info, array, where)
    check_finite(info, array, where)
    return array


def check_shape(info: onnx.ValueInfoProto, array: Array, where: str, *, whole: bool = True) -> None:
    """Refuse a shape that the input does not take; `whole`: the first axis, too, where the model's batch is fixed."""
    dims = dims_of(info)
    fits = dims is None or array.ndim == len(dims)
    if dims and fits:
        fits = all(d in (None, n) for d, n in zip(dims[1:], array.shape[1:], strict=True))
        fits = fits and not (whole and dims[0] and array.shape[0] % dims[0])
    if not fits or array.size == 0:
        expected = "any shape" if dims is None else " x ".join("any" if d is None else str(d) for d in dims) or "()"
        shape = " x ".join(map(str, array.shape)) or "()"
        none = bool(array.ndim) and not len(array)
        takes = "which is no sample" if none else f"the model's input takes {expected}"
        what = f"array '{info.name}' has shape {shape}, {takes}"
        raise DataError(what, where=where, remedy="the first axis counts samples; the others must match")


def check_finite(info: onnx.ValueInfoProto, array: Array, where: str) -> None:
    """Refuse what is not finite."""
    if is_float(array) and not np.isfinite(array).all():
        raise DataError(f"array '{info.name}' holds NaN or infinity", where=where, remedy="clean the data")


def as_batch(info: onnx.ValueInfoProto, array: Array) -> Array:
    """An array that is one sample, told by its number of axes, as a batch of one; any other as it is."""
    rank = rank_of(info)
    return array[None] if rank and array.ndim == rank - 1 else array


def check_type(info: onnx.ValueInfoProto, array: Array, where: str) -> Array:
    """The array in the input's type: numpy stores text in types of its own, and what it lacks (bfloat16) as bytes."""
    kind = info.type.tensor_type.elem_type
    if kind == TensorProto.STRING:
        return texts(info, array, where)
    wanted = helper.tensor_dtype_to_np_dtype(kind)
    if array.dtype.kind == "V" and wanted.isbuiltin != 1 and array.dtype.itemsize == wanted.itemsize:
        return array.view(wanted)
    if array.dtype != wanted:
        what = f"array '{info.name}' is {array.dtype}, the model's input is {wanted}"
        raise DataError(what, where=where, remedy=f"convert it with .astype('{wanted}')")
    return array


def texts(info: onnx.ValueInfoProto, array: Array, where: str) -> Array:
    """Text as `str` objects."""
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    found = array.astype(object)
    if array.dtype.kind not in "UOT" or not all(isinstance(text, str) for text in found.ravel()):
        what = f"array '{info.name}' is {array.dtype}, the model's input is text"
        raise DataError(what, where=where, remedy="convert it with .astype(str)")
    return found
