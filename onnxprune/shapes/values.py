"""Arithmetic on sizes. Law: an entry is stated only where it is known; symbols are moved, never computed with.

A half-known value is an object array whose entries are numbers, symbols, or None for a result of arithmetic on symbols.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.model import SMALL, Array

Evaluate = Callable[[onnx.NodeProto, list[Array]], Array]


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The Python value of a node's attribute, or `default`."""
    for a in node.attribute:
        if a.name == name:
            return onnx.helper.get_attribute_value(a)
    return default


def known(value: Array | None) -> bool:
    """Whether every entry of a value is known."""
    return value is not None and value.dtype != object


def as_tensor(value: Array, name: str) -> onnx.TensorProto:
    """A TensorProto holding a known value."""
    return numpy_helper.from_array(np.asarray(value, order="C"), name)


def pack(entries: Sequence[object] | Array) -> Array:
    """An array of known entries as numbers; with unknown ones among them, as objects."""
    array = entries if isinstance(entries, np.ndarray) else np.array(entries, dtype=object)
    half_known = array.dtype == object and any(e is None or isinstance(e, str) for e in array.ravel())
    return array if half_known or array.dtype != object else array.astype(np.int64)


def lift(function: Callable[[object, object], object], neutral: int) -> Evaluate:
    """An elementwise binary function, unknown where an operand is; exact inputs are left to numpy's own types.

    Beside its neutral number a symbol stays what it is, and times 0 it is 0: pruned models correct sizes so.
    """
    commutes = function in (operator.add, operator.mul)

    def each(a: object, b: object) -> object:
        if known_entry(a) and known_entry(b):
            return function(a, b)
        if function is operator.mul and 0 in (a, b):
            return 0
        if known_entry(b) and b == neutral:
            return a
        return b if commutes and known_entry(a) and a == neutral else None

    wide = np.frompyfunc(each, 2, 1)

    def evaluate(node: onnx.NodeProto, inputs: list[Array]) -> Array:
        out = np.asarray(wide(*inputs), dtype=object)
        kind = np.result_type(*(i.dtype for i in inputs)) if known(inputs[0]) and known(inputs[1]) else None
        return out.astype(kind) if kind is not None else out

    return evaluate


def known_entry(entry: object) -> bool:
    """Whether an entry of a half-known value is a number."""
    return entry is not None and not isinstance(entry, str)


def quotient(a: Any, b: Any) -> Any:
    """Integer division towards zero, as ONNX divides integers; true division for floats."""
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    size = abs(a) // abs(b)
    return size if (a < 0) == (b < 0) else -size


def gather(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Gather on a small value."""
    taken = np.take(inputs[0], inputs[1].astype(np.int64), axis=attribute(node, "axis", 0))
    return np.asarray(taken, dtype=inputs[0].dtype)  # a single symbol would become an array of characters


def axes_of(node: onnx.NodeProto, inputs: list[Array]) -> tuple[int, ...] | None:
    """The `axes` of Squeeze, Unsqueeze and reductions: an attribute or the second input, by operator set."""
    axes = inputs[1].tolist() if len(inputs) > 1 else attribute(node, "axes")
    return None if axes is None else tuple(axes)


def unsqueeze(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Unsqueeze on a small value."""
    return np.expand_dims(inputs[0], axes_of(node, inputs) or ())


def squeeze(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Squeeze on a small value."""
    return np.asarray(np.squeeze(inputs[0], axis=axes_of(node, inputs)))


def concat(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Concat on small values."""
    return np.concatenate(inputs, axis=attribute(node, "axis", 0))


def slicing(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Slice on a small value (attributes before operator set 10, inputs since)."""
    starts, ends, axes, steps = slice_parts(node, inputs)
    index: list[slice] = [slice(None)] * inputs[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice_range(start, end, step)
    return inputs[0][tuple(index)]


def slice_range(start: int, end: int, step: int) -> slice:
    """A Python slice with ONNX's meaning: 'before the beginning' for a backward slice is None, not -1."""
    return slice(start, None if step < 0 and end < -(2**30) else end, step)


def slice_parts(
    node: onnx.NodeProto, inputs: Sequence[Array | None]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """starts, ends, axes, steps of a Slice node.

    Raises:
        ValueError: One of them is not a known constant, or they do not fit together.
    """
    if len(inputs) > 1:
        given = [*inputs[1:5], *[None] * (5 - len(inputs))]
        if any(v is not None and v.dtype == object for v in given) or given[0] is None or given[1] is None:
            raise ValueError("slice bounds are computed")
        parts = [None if v is None else [int(x) for x in v.ravel().tolist()] for v in given]
    else:
        parts = [attribute(node, n) for n in ("starts", "ends", "axes")] + [None]
    starts, ends = list(parts[0] or []), list(parts[1] or [])
    axes = list(parts[2]) if parts[2] is not None else list(range(len(starts)))
    steps = list(parts[3]) if parts[3] is not None else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ValueError("slice bounds of different numbers, or a step of 0")
    return starts, ends, axes, steps


def cast(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Cast on a small value; half-known values are sizes and stay integers."""
    if inputs[0].dtype == object:
        return inputs[0]
    return inputs[0].astype(onnx.helper.tensor_dtype_to_np_dtype(attribute(node, "to")))


def fill_constant(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """ConstantOfShape with a small known shape."""
    if inputs[0].dtype == object or np.prod(inputs[0]) > SMALL:
        raise ValueError("size unknown or large")
    value = attribute(node, "value")
    one = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.zeros(1, np.float32)
    return np.full(tuple(inputs[0].tolist()), one.ravel()[0])


def reshape_value(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Reshape on a small value."""
    return inputs[0].reshape(tuple(inputs[1].tolist()))


def tile(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Tile on a small value."""
    if inputs[1].shape != (inputs[0].ndim,) or math.prod(max(1, r) for r in inputs[1].tolist()) > SMALL:
        raise ValueError("repeats of another rank, or many")
    return np.tile(inputs[0], inputs[1].tolist())


def product(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """ReduceProd on a small value."""
    axes = axes_of(node, inputs)
    if inputs[0].dtype == object:
        raise ValueError("half known")
    return np.asarray(np.prod(inputs[0], axis=axes, keepdims=bool(attribute(node, "keepdims", 1))))


VALUES: dict[str, Evaluate] = {
    "Identity": lambda node, inputs: inputs[0],
    "Gather": gather,
    "Unsqueeze": unsqueeze,
    "Squeeze": squeeze,
    "Concat": concat,
    "Slice": slicing,
    "Cast": cast,
    "Tile": tile,
    "Reshape": reshape_value,
    "ConstantOfShape": fill_constant,
    "ReduceProd": product,
    "Add": lift(operator.add, 0),
    "Sub": lift(operator.sub, 0),
    "Mul": lift(operator.mul, 1),
    "Div": lift(quotient, 1),
    "Floor": lambda node, inputs: inputs[0] if inputs[0].dtype == object else np.floor(inputs[0]),
    "Ceil": lambda node, inputs: inputs[0] if inputs[0].dtype == object else np.ceil(inputs[0]),
}
VALUE_FROM_WEIGHT = frozenset(VALUES) | {"Range", "Equal", "Where", "Min", "Max", "Neg", "Mod", "Expand"}
