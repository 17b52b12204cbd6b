"""Operators that compute a standard one with more around it: fused, quantised, or under a runtime's own domain.

Law: the standard form has the labels and the shape of the original, and is zero where the original's real value is.
What lies around it (scales, zero points, activations) acts on each element alone and has rules of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from onnxprune.shapes.values import attribute

# Operator -> the standard operator inside it, and which of its inputs that reads.
FORMS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "BiasGelu": ("Sum", (0, 1)),
    "ConvInteger": ("Conv", (0, 1)),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "FastGelu": ("Sum", (0, 1)),
    "MatMulInteger": ("MatMul", (0, 1)),
    "MatMulIntegerToFloat": ("MatMul", (0, 1)),
    "QGemm": ("Gemm", (0, 3, 6)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearConcat": ("Concat", ()),
    "QLinearConv": ("Conv", (0, 3, 8)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearLeakyRelu": ("LeakyRelu", (0,)),
    "QLinearMatMul": ("MatMul", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearSigmoid": ("Sigmoid", (0,)),
    "QLinearWhere": ("Where", (0, 1, 4)),
    "QuickGelu": ("Relu", (0,)),
    "ScaledSiLU": ("Relu", (0,)),
}


def standard(node: onnx.NodeProto) -> onnx.NodeProto | None:
    """A node as the standard operator inside it, with that operator's inputs and attributes; None if it has no form."""
    if node.op_type not in FORMS:
        return None
    kind, positions = FORMS[node.op_type]
    positions = positions or tuple(range(2, len(node.input), 3))  # QLinearConcat: tensor, scale, zero point, ...
    inputs = [node.input[i] if i < len(node.input) else "" for i in positions]
    while inputs and not inputs[-1]:
        inputs.pop()
    plain = onnx.helper.make_node(kind, inputs, node.output, name=node.name)
    known = onnx.defs.get_schema(kind).attributes
    plain.attribute.extend(a for a in node.attribute if a.name in known)
    return plain


def channels_last(node: onnx.NodeProto) -> bool:
    """Whether a runtime's operator has its channels on the last axis, which no standard operator does."""
    return bool(attribute(node, "channels_last", 0)) or node.op_type.startswith("Nhwc")
