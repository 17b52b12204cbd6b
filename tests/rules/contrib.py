"""What the laws must know of quantised and fused operators, written down apart from the package's own tables.

A contraction is only indifferent to what stands in a removed index if one of its sides holds zero there, which for
integers is their zero point; and an operator that takes the range of all values wants zeros in every removed index.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.model import Array, Model

RUNTIME = "com.microsoft"
# Operator -> integers, their zero point, the axis that a vector of zero points runs along.
INTEGERS = {
    "ConvInteger": [(1, 3, 0)],
    "DequantizeLinear": [(0, 2, None)],
    "DynamicQuantizeMatMul": [(1, 3, 1)],
    "MatMulInteger": [(1, 3, -1)],
    "MatMulIntegerToFloat": [(1, 5, -1)],
    "QAttention": [(1, 7, 1)],
    "QGemm": [(3, 5, 1)],
    "QLinearAdd": [(0, 2, 0), (3, 5, 0)],
    "QLinearConv": [(3, 5, 0)],
    "QLinearMatMul": [(0, 2, -2), (3, 5, -1)],
    "QLinearMul": [(0, 2, 0), (3, 5, 0)],
}
# Operator -> the operand that is to hold the zeros, and the axis of it that is summed over.
SUMMED = {
    "ConvInteger": (1, 1),
    "DynamicQuantizeMatMul": (1, 0),
    "FusedConv": (1, 1),
    "MatMulInteger": (1, -2),
    "MatMulIntegerToFloat": (1, 0),
    "MultiHeadAttention": (1, 2),
    "QAttention": (1, 0),
    "QLinearConv": (3, 1),
    "QLinearMatMul": (3, -2),
}
RANGED = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul")


def attribute(node: onnx.NodeProto, name: str) -> int:
    """An integer attribute, 0 if it is absent."""
    return next((a.i for a in node.attribute if a.name == name), 0)


def contracts(node: onnx.NodeProto) -> bool:
    """Whether a node of this module is a contraction."""
    merged = node.domain == RUNTIME and node.op_type == "Attention"
    return merged or node.op_type in {*SUMMED, "QGemm", "FusedGemm", "FusedMatMul", "TransposeMatMul"}


def factors(node: onnx.NodeProto) -> tuple[int, ...]:
    """The numbers of the inputs that a contraction multiplies."""
    return (0, 3) if node.op_type in ("QGemm", "QLinearConv", "QLinearMatMul") else (0, 1)


def summed_axes(node: onnx.NodeProto, i: int, rank: int) -> list[int]:
    """The axes of operand `i` that are summed over, where this one is to hold the zeros."""
    if node.op_type in ("QGemm", "FusedGemm"):
        return [attribute(node, "transB")] if i == (3 if node.op_type == "QGemm" else 1) else []
    if node.op_type in ("FusedMatMul", "TransposeMatMul"):
        first = 0 if attribute(node, "transBatchB") else rank - 2
        return [rank - 1 if attribute(node, "transB") else first] if i == 1 else []
    if node.domain == RUNTIME and node.op_type == "Attention":
        return [0] if i == 1 else []
    operand, axis = SUMMED.get(node.op_type, (-1, 0))
    return [axis % rank] if i == operand else []


def at_zero(node: onnx.NodeProto, i: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where removed entries of input `i` are to be zero, beside the axes that are summed over."""
    where = np.zeros(shape, dtype=bool)
    biased = i == 3 and node.op_type == "MultiHeadAttention"
    merged = biased or (i in (1, 2, 7) and node.op_type in ("Attention", "QAttention"))
    if node.op_type in RANGED and i == 0:
        where[...] = True
    elif node.domain == RUNTIME and merged and shape:
        sizes = next((list(a.ints) for a in node.attribute if a.name == "qkv_hidden_sizes"), [shape[-1] // 3] * 3)
        where[..., sizes[0] : sizes[0] + sizes[1]] = True  # the keys: queries may hold anything
    return where


def zero_of(node: onnx.NodeProto, i: int, values: Mapping[str, Array]) -> Array:
    """The value that stands for zero in input `i`, broadcastable to it; bodies read nothing quantised."""
    if i >= len(node.input):
        return np.zeros(())
    shape = np.shape(values[node.input[i]])
    for stored, zero, axis in INTEGERS.get(node.op_type, []):
        if stored != i or len(node.input) <= zero or not node.input[zero]:
            continue
        value = np.asarray(values[node.input[zero]])
        if axis is None:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        if node.op_type == "QGemm" and i == 3:
            axis = 1 - attribute(node, "transB")
        if value.ndim > 1:  # in blocks
            return np.repeat(value, shape[axis] // value.shape[axis], axis=axis)
        return value.reshape([shape[d] if value.size > 1 and d == axis % len(shape) else 1 for d in range(len(shape))])
    return np.zeros(())


def zero_points(model: Model) -> dict[str, Array]:
    """Stored integers -> the value that stands for zero, broadcastable to them."""
    return {
        node.input[i]: zero_of(node, i, model.weights)
        for node in model.proto.graph.node
        for i, zero, _ in INTEGERS.get(node.op_type, [])
        if len(node.input) > zero and {node.input[i], node.input[zero]} <= set(model.weights)
    }
