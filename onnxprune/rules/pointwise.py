"""Operators that act on each element alone. Law: an output index is the input indices it is computed from, tied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.labels import Axes, Axis
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.registry import rule

UNARY = """Abs Acos Acosh Asin Asinh Atan Atanh BitCast BitwiseNot Cast Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu
HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign
Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu""".split()
BROADCAST = """Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max
Mean Min Mod Mul Or Pow PRelu Sub Sum SwiGLU Where Xor""".split()


@rule(*UNARY)
def unary(op: Op) -> Sequence[Axes]:
    """One input, element by element."""
    return [op.input(0)]


@rule("ImageScaler", "Affine")
def legacy_scale(op: Op) -> Sequence[Axes]:
    """The experimental image scalers of early files: elementwise, but a bias list counts channels, so those stay."""
    x = op.input(0)
    op.fix_rest(x, (0,), op.name_in(0), f"{op.kind} stores a value for each channel")
    return [(op.plain(x, 0), *(Axis() for _ in x[1:]))]


@rule("Dropout")
def dropout(op: Op) -> Sequence[Axes]:
    """Element by element while it passes everything; one that drops at random freezes."""
    training = op.value(2) if op.has(2) else np.array(False)
    ratio = op.value(1) if op.has(1) else np.array(0.5)
    if (training is None or training.any()) and (ratio is None or ratio.any()):
        raise CannotTrace("Dropout in training mode draws a random number for each element, in their order")
    return [op.input(0)] * op.outputs


@rule("Clip", "CastLike")
def first_input(op: Op) -> Sequence[Axes]:
    """The first input, element by element; further inputs are scalars or only lend a type."""
    return [op.input(0)] * op.outputs


@rule(*BROADCAST)
def broadcast(op: Op) -> Sequence[Axes]:
    """Any number of inputs, element by element, broadcast as numpy does."""
    rank = len(op.out_shape())
    out: Axes | None = None
    shape: tuple[object, ...] = ()
    for i in range(op.arity):
        axes, dims = aligned(op, i, rank)
        out, shape = (axes, dims) if out is None else overlay(op, out, shape, axes, dims, i)
    if out is None:
        raise CannotTrace(f"{op.kind} has no inputs")
    return [out]


def aligned(op: Op, i: int, rank: int) -> tuple[Axes, tuple[object, ...]]:
    """Labels and dimensions of an input with leading axes of size 1 added up to `rank`."""
    axes, dims = op.input(i), tuple(op.shape(i))
    start = rank - len(dims)
    if op.opset < 7 and i == 1 and op.kind == "PRelu" and len(dims) == 1 and rank > 1:
        start = 1
    elif op.opset < 7 and i == 1 and op.attr("broadcast", 0):
        start = op.attr("axis", start)
    lead, tail = start, rank - start - len(dims)
    if lead < 0 or tail < 0:
        raise CannotTrace(f"{op.kind} cannot line up {len(dims)} axes with {rank}")
    where = {k: k + lead for k in range(len(dims))}
    moved = tuple(a.moved(where) for a in axes)
    return (Axis(),) * lead + moved + (Axis(),) * tail, (1,) * lead + dims + (1,) * tail


def overlay(
    op: Op, a: Axes, dims_a: tuple[object, ...], b: Axes, dims_b: tuple[object, ...], i: int
) -> tuple[Axes, tuple[object, ...]]:
    """Combine two aligned operands axis by axis; a size of 1 stretches."""
    out, dims = [], []
    for k, (m, n) in enumerate(zip(dims_a, dims_b, strict=True)):
        if n == 1 and m != 1:
            op.fix(b, k, op.name_in(i), f"{op.kind} stretches this single index")
            out.append(a[k])
        elif m == 1 and n != 1:
            op.fix(a, k, op.name_in(0), f"{op.kind} stretches this single index")
            out.append(b[k])
        else:
            out.append(op.join(a[k], b[k]))
        dims.append(n if m == 1 else m)
    return rows_resolved(op, tuple(out), a, b), tuple(dims)


def rows_resolved(op: Op, out: Axes, a: Axes, b: Axes) -> Axes:
    """Axes in rows must find, in the output, as many rows as they were written for."""
    for k, axis in enumerate(out):
        if axis.ids is None or not axis.by:
            continue
        for depth, row_axis in enumerate(axis.by):
            owner = out[row_axis].ids
            if owner is not None and owner.shape[-1] != axis.ids.shape[depth]:
                out = (*out[:k], op.plain(out, k), *out[k + 1 :])
                break
    return out
