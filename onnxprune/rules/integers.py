"""What stored integers stand for. Law: real value = scale x (stored - zero point).

A removed weight is masked with the integer that stands for zero, and scales and zero points are left alone: they say
how to read the numbers and hold none themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.graph import every_node
from onnxprune.model import Array, Model
from onnxprune.shapes import attribute


@dataclass(frozen=True)
class Operand:
    """One quantised input: where its integers, scale and zero point stand, and the axis that vectors of them run along.

    Attributes:
        stored, scale, zero: Numbers of inputs. Without a scale the result is still an integer.
        axis: Axis of `stored`; None: the node's `axis` attribute.
    """

    stored: int
    scale: int | None
    zero: int
    axis: int | None = -1


FIRST, SECOND = Operand(0, 1, 2, -2), Operand(3, 4, 5)
OPERANDS: Mapping[str, tuple[Operand, ...]] = {
    "ConvInteger": (Operand(0, None, 2, 1), Operand(1, None, 3, 0)),
    "DequantizeLinear": (Operand(0, 1, 2, None),),
    "DynamicQuantizeMatMul": (Operand(1, 2, 3),),
    "MatMulInteger": (Operand(0, None, 2, -2), Operand(1, None, 3)),
    "MatMulIntegerToFloat": (Operand(0, 2, 4, -2), Operand(1, 3, 5)),
    "QAttention": (Operand(0, 3, 6), Operand(1, 4, 7)),
    "QGemm": (FIRST, SECOND),
    "QLinearAdd": (FIRST, SECOND),
    "QLinearConv": (FIRST, Operand(3, 4, 5, 0)),
    "QLinearMatMul": (FIRST, SECOND),
    "QLinearMul": (FIRST, SECOND),
    "QLinearWhere": (Operand(1, 2, 3), Operand(4, 5, 6)),
    "QuantizeLinear": (Operand(0, 1, 2, None),),  # reads real numbers; listed for its scale and zero point
}
# What only moves entries: integers keep their meaning if that is the same for all of them.
MOVES = frozenset("Expand Flatten Gather Identity Reshape Slice Squeeze Tile Transpose Unsqueeze".split())


@dataclass(frozen=True, eq=False)
class Meaning:
    """How to read an array of integers; both parts broadcast to it."""

    scale: Array
    zero: Array


def operands(node: onnx.NodeProto) -> tuple[Operand, ...]:
    """The quantised inputs of a node."""
    if node.op_type == "QLinearConcat":
        return tuple(Operand(i, i + 1, i + 2) for i in range(2, len(node.input), 3))
    return OPERANDS.get(node.op_type, ())


def named(node: onnx.NodeProto, i: int | None) -> str:
    """The tensor at input `i`; empty where there is none."""
    return node.input[i] if i is not None and i < len(node.input) else ""


def parameters(model: Model) -> Iterator[str]:
    """Names of all scales and zero points."""
    for node in every_node(model.proto.graph):
        for operand in operands(node):
            yield from filter(None, (named(node, operand.scale), named(node, operand.zero)))


def meanings(model: Model) -> dict[str, Meaning]:
    """What the integers of every initializer stand for, where a node that reads it says so, through movements too."""
    found: dict[str, Meaning] = {}
    for node in reversed(list(every_node(model.proto.graph))):
        for operand in operands(node):
            meaning = read(model, node, operand)
            if meaning is not None:
                found.setdefault(named(node, operand.stored), meaning)
        later = found.get(node.output[0]) if node.op_type in MOVES and node.output else None
        if later is not None and later.scale.size == later.zero.size == 1:
            found.setdefault(node.input[0], later)
    return {n: m for n, m in found.items() if n in model.weights}


def read(model: Model, node: onnx.NodeProto, operand: Operand) -> Meaning | None:
    """The meaning one node gives to its integers; None where scale or zero point are computed while the model runs."""
    shape = model.shapes.get(named(node, operand.stored))
    parts = []
    for i, missing in ((operand.scale, 1.0), (operand.zero, 0.0)):
        value = model.weights.get(named(node, i), np.array(missing) if not named(node, i) else None)
        if value is None or shape is None:
            return None
        parts.append(along(value.astype(np.float64), shape, own_axis(node, operand), block_size(node)))
    return Meaning(*parts)


def along(value: Array, shape: tuple[object, ...], axis: int, block: int) -> Array:
    """Scales or zero points, shaped to broadcast to the integers: one, one for each index of an axis, or in blocks."""
    if value.size == 1 or not shape:
        return value.reshape(())
    axis %= len(shape)
    if value.ndim == 1:
        return value.reshape([-1 if k == axis else 1 for k in range(len(shape))])
    if block and isinstance(size := shape[axis], int):
        return np.take(np.repeat(value, block, axis=axis), np.arange(size), axis=axis)
    return value


def own_axis(node: onnx.NodeProto, operand: Operand) -> int:
    """The axis that vectors of scales run along."""
    if node.op_type == "QGemm" and operand is SECOND and attribute(node, "transB", 0):
        return 0
    return int(attribute(node, "axis", 1)) if operand.axis is None else operand.axis


def block_size(node: onnx.NodeProto) -> int:
    """Neighbouring indices that share a scale; 0: each scale holds for a whole index."""
    return int(attribute(node, "block_size", 0))


def real(stored: Array, meaning: Meaning | None) -> Array:
    """The numbers an array stands for, as floats. Shape: that of `stored`."""
    wide = stored.astype(np.float32)
    return wide if meaning is None else np.asarray((wide - meaning.zero) * meaning.scale, dtype=np.float32)
