"""Quantised tensors. Law: the standard operator's labels, and one scale and zero point for each kept index.

An operator that takes integers with scales and zero points is the standard one (`shapes.standard`) on real values.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.labels import Axes, Axis
from onnxprune.rules.contract import resize_group
from onnxprune.rules.integers import operands, own_axis
from onnxprune.rules.norm import softmax_axes
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.reduce import mixing
from onnxprune.rules.registry import resize, rule, trace_standard
from onnxprune.rules.zeros import keeps_zero
from onnxprune.shapes import channels_last

RUNTIME = "com.microsoft"
BIASES = {"DynamicQuantizeMatMul": 4, "MatMulIntegerToFloat": 6}  # real numbers, added to the output's last axis

resize("QLinearConv")(resize_group)
resize("QLinearConv", domain=RUNTIME)(resize_group)
resize("ConvInteger")(resize_group)


@rule("QLinearConcat", "QLinearConv", "QLinearAdd", "QLinearMul", "QLinearWhere", "QGemm", domain=RUNTIME)
@rule("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearSigmoid", domain=RUNTIME)
@rule("MatMulIntegerToFloat", domain=RUNTIME)
@rule("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
def quantised(op: Op) -> Sequence[Axes]:
    """The standard operator on what the integers stand for; vectors of scales lose what their axis loses."""
    (out,) = trace_channels_last(op) if channels_last(op.node) else trace_standard(op)
    for operand in operands(op.node):
        axes = op.input(operand.stored)
        for i in (operand.scale, operand.zero):
            if i is not None and axes:
                per_index(op, axes, own_axis(op.node, operand) % len(axes), i)
    bias = BIASES.get(op.kind, op.arity)
    return [(*out[:-1], op.join(out[-1], op.plain(op.input(bias), 0)))] if op.has(bias) else [out]


def trace_channels_last(op: Op) -> Sequence[Axes]:
    """As `trace_standard`, of an operator whose images have their channels last; its weights are as ever."""
    x, y = op.name_in(0), op.node.output[0]
    rank = len(op.shape(0))
    order = [0, rank - 1, *range(1, rank - 1)]
    shapes = {name: tuple(op.known_shape(name)[k] for k in order) for name in (x, y)}
    (out,) = trace_standard(op.seen_as(op.node, shapes, {x: op.permuted(op.input(0), order)}))
    return [op.permuted(out, [0, *range(2, rank), 1])]


def per_index(op: Op, axes: Axes, k: int, i: int) -> Axis:
    """Axis `k` joined with input `i`, which holds one scale or zero point for all of it or one for each index."""
    if not op.has(i) or all(size == 1 for size in op.shape(i)):
        return axes[k]
    if len(op.shape(i)) > 1:
        raise CannotTrace(f"the scales or zero points '{op.name_in(i)}' differ between matrices")
    return op.join(op.plain(axes, k), op.plain(op.input(i), 0))


@rule("DequantizeLinear", "QuantizeLinear")
@rule("DequantizeLinear", "QuantizeLinear", domain=RUNTIME)
def quantize(op: Op) -> Sequence[Axes]:
    """x, scale, zero point: one scale for all, one for each index of an axis, or one for each block of neighbours."""
    x, out = op.input(0), list(op.input(0))
    k = op.attr("axis", 1) % max(len(x), 1)
    if op.attr("block_size", 0):
        out[k] = op.fix(x, k, op.name_in(0), "neighbouring indices share a scale")
    for i in range(1, op.arity):
        if not op.has(i):
            continue
        if op.attr("block_size", 0) and len(op.shape(i)) == len(x):
            op.fix(op.input(i), k, op.name_in(i), "neighbouring indices share a scale")
            out = [a if j == k else op.join(a, op.plain(op.input(i), j)) for j, a in enumerate(out)]
        elif out:
            out[k] = per_index(op, tuple(out), k, i)
    return [tuple(out)]


@rule("QLinearSoftmax", domain=RUNTIME)
def quantised_softmax(op: Op) -> Sequence[Axes]:
    """Freezes the axes it normalises over: integers are never traced through, as zero need not stand for zero."""
    return [mixing(op, 0, softmax_axes(op), f"{op.kind} normalises over this axis")]


@rule("DynamicQuantizeLinear")
def quantize_dynamically(op: Op) -> Sequence[Axes]:
    """One scale for all, from the smallest and largest value, which a channel must not change by going."""
    return [range_kept(op), (), ()]


@rule("DynamicQuantizeMatMul", domain=RUNTIME)
def multiply_dynamically(op: Op) -> Sequence[Axes | None]:
    """DynamicQuantizeLinear, then MatMulIntegerToFloat."""
    range_kept(op)
    return quantised(op)


def range_kept(op: Op) -> Axes:
    """The labels of input 0, whose range sets a scale; frozen unless what is removed is zero where its weights are.

    Then masking writes zeros there. The operator takes its range over the values and zero, whether a zero is among
    them or not, so the range is that of the kept values alone, and the pruned model's scale and zero point are equal
    to the masked one's. A channel that is not zero (after a cosine: one) could hold the largest value.
    """
    x = op.input(0)
    if keeps_zero(op, op.name_in(0)):
        return x
    reason = f"{op.kind} takes the range over all values, and this channel's are not zero where its weights are"
    return tuple(op.fix(x, k, op.name_in(0), reason) for k in reversed(range(len(x))))[::-1]
