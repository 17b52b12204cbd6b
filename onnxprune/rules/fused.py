"""Operators that onnxruntime's optimisers fuse. Law: the labels of the operators they were made from."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.labels import Axes, Axis
from onnxprune.rules.contract import multiply
from onnxprune.rules.norm import scaled, trailing_norm
from onnxprune.rules.op import Op
from onnxprune.rules.pointwise import unary
from onnxprune.rules.registry import rule, trace_standard
from onnxprune.rules.signature import axes
from onnxprune.shapes import operand_order

RUNTIME = "com.microsoft"

axes("NhwcMaxPool", "n * c -> n * c", family="fused", domain=RUNTIME)
axes("GridSample", "n c *, n * -> n c *", family="fused", domain=RUNTIME)
rule("Gelu", domain=RUNTIME)(unary)
rule("SimplifiedLayerNormalization")(trailing_norm)  # onnxruntime's own, written without a domain


@rule("BiasGelu", "FastGelu", "QuickGelu", domain=RUNTIME)
def fused(op: Op) -> Sequence[Axes]:
    """The standard operator inside it, plus an activation."""
    return trace_standard(op)


@rule("FusedMatMul", "TransposeMatMul", domain=RUNTIME)
def transposed_product(op: Op) -> Sequence[Axes]:
    """MatMul of operands that may be stored transposed, times alpha."""
    a, b = (operand_order(op.node, i, len(op.shape(i))) for i in (0, 1))
    shape_a, shape_b = ([op.shape(i)[k] for k in order] for i, order in ((0, a), (1, b)))
    return [multiply(op, op.permuted(op.input(0), a), shape_a, op.permuted(op.input(1), b), shape_b)]


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=RUNTIME)
def skip_norm(op: Op) -> Sequence[Axes]:
    """input + skip + bias, normalised over the last axis, which is frozen or traced through; the sum is output 3."""
    x, reason, last = op.input(0), f"{op.kind} normalises over this axis", len(op.input(0)) - 1
    mixed = op.mixes(x, last, op.name_in(0), reason)
    lead = tuple(op.without_rows(x, k, (last,)) for k in range(last))
    y = summed(op, (*lead, mixed), reason)
    for i in filter(op.has, range(2, op.arity)):
        y = scaled(op, y, i, last, reason)
    if y[last].ids is None:
        y = (*y[:last], op.blocked(reason, 0, last))
    statistics = (*y[:last], Axis())
    return [y, statistics, statistics, y][: op.outputs]


def summed(op: Op, x: Axes, reason: str) -> Axes:
    """The sum of an input, whose last axis is normalised over, and the skip, which may be stretched to it."""
    skip, last, hidden = op.input(1), len(x) - 1, len(op.input(1)) - 1
    if x[last].ids is None:
        op.fix(skip, hidden, op.name_in(1), reason)
    else:
        x = (*x[:last], op.join(x[last], op.plain(skip, hidden)))
    if op.shape(1) != op.shape(0):
        op.fix_rest(skip, (hidden,), op.name_in(1), f"{op.kind} stretches it")
        return x
    return (*(op.join(a, op.plain(skip, k)) for k, a in enumerate(x[:last])), x[last])


@rule("EmbedLayerNormalization", "QEmbedLayerNormalization", domain=RUNTIME)
def embed_norm(op: Op) -> Sequence[Axes]:
    """Rows of word, position and segment tables, summed and normalised over the hidden axis.

    That axis is frozen, or traced through; integers always freeze, for there zero is another number in every table.
    """
    reason, integers = f"{op.kind} normalises over this axis", op.kind == "QEmbedLayerNormalization"
    mixed = (op.fix if integers else op.mixes)(op.input(2), 1, op.name_in(2), reason)
    y: Axes = (Axis(), Axis(), mixed)
    for i in filter(op.has, (2, 3, 4, 5, 6)):
        y = scaled(op, y, i, 3 - len(op.input(i)), reason)
    y = y if mixed.ids is not None else op.frozen_like(op.out_shape(), reason)
    return [y, (Axis(),), y][: op.outputs]  # the second counts what the mask lets pass, the third is the sum


@rule("Inverse", "Trilu", domain=RUNTIME)
def matrix_wise(op: Op) -> Sequence[Axes]:
    """Acts on whole matrices: the last two axes keep their size."""
    x, last = op.input(0), (len(op.input(0)) - 2, len(op.input(0)) - 1)
    for k in reversed(last):
        op.fix(x, k, op.name_in(0), f"{op.kind} acts on whole matrices")
    return [(*(op.without_rows(x, k, last) for k in range(len(x) - 2)), Axis(), Axis())]


@rule("ExpandDims", domain=RUNTIME)
def expand_dims(op: Op) -> Sequence[Axes]:
    """numpy.expand_dims."""
    x = op.input(0)
    return [op.inserted(x, [k % (len(x) + 1) for k in op.exact(1, "axis")])]


@rule("CropAndResize", domain=RUNTIME)
def crop_and_resize(op: Op) -> Sequence[Axes]:
    """Boxes cut from images: n c h w -> boxes c height width."""
    x = op.input(0)
    op.fix_rest(x, (1,), op.name_in(0), "CropAndResize cuts boxes along this axis")
    return [(Axis(), op.plain(x, 1), Axis(), Axis())]
