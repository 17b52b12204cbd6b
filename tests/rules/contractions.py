"""Which operands of which operators are summed over, told from the standard and not from the package."""

from __future__ import annotations

import onnx

# Which operand and which of its axes a contraction sums over.
CONTRACTED = {
    **dict.fromkeys(("Conv", "FusedConv", "ConvInteger", "DeformConv"), 1),
    **{"ConvTranspose": 0, "MatMul": -2, "MatMulInteger": -2},
}
RECURRENT = ("LSTM", "GRU", "RNN")


def contracts(node: onnx.NodeProto) -> bool:
    """Whether a node is a contraction."""
    return node.op_type in {*CONTRACTED, *RECURRENT, "Attention", "Einsum", "Gemm"}


def contracted_axes(node: onnx.NodeProto, i: int, rank: int) -> list[int]:
    """The axes of operand `i` that are summed over with another operand, where this one is to hold the zeros."""
    if node.op_type == "Einsum":
        return [axis % rank for axis in summed_letters(node, i)]
    if node.op_type in RECURRENT:
        return [2] if i in (1, 2) else []
    if node.op_type == "Attention":
        return [rank - 1] if i in (1, 4) else []
    if node.op_type == "Gemm":
        return [int(any(a.name == "transB" and a.i for a in node.attribute))] if i == 1 else []
    axis = CONTRACTED.get(node.op_type)
    return [] if axis is None or i != 1 else [0 if rank == 1 else axis % rank]


def summed_letters(node: onnx.NodeProto, i: int) -> list[int]:
    """The axes of an Einsum's operand that its output lacks; behind an ellipsis they are counted from the end."""
    equation = next(a.s.decode() for a in node.attribute if a.name == "equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    term = left.split(",")[i]
    lost = [c for c in term if c not in "." and (c not in right if arrow else left.count(c) > 1)]
    dots = term.find("...")
    return [term.index(c) - (len(term) if dots >= 0 and term.index(c) > dots else 0) for c in lost] if i else []
