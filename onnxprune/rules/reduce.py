"""Reductions and resampling. Law: an axis that is summed over, searched or resampled keeps its size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.labels import Axes, Axis
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import Op
from onnxprune.rules.registry import resize, rule
from onnxprune.rules.signature import axes

REDUCE = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)


@rule(*REDUCE.split(), "ArgMax", "ArgMin")
def reduce(op: Op) -> Sequence[Axes]:
    """Freezes the axes it reduces over."""
    x = op.input(0)
    given = op.exact(1, "axes") if op.has(1) else op.attr("axes", None)
    if op.kind in ("ArgMax", "ArgMin"):
        given = [op.attr("axis", 0)]
    if given is None or given == []:
        given = [] if op.attr("noop_with_empty_axes", 0) else list(range(len(x)))
    gone = [k % max(len(x), 1) for k in given]
    dropped = not op.attr("keepdims", 1)
    reason = f"{op.kind} removes this axis" if dropped else f"{op.kind} reduces over this axis"
    through = op.kind not in ("ArgMax", "ArgMin")  # positions are counted anew on a smaller axis
    left = mixing(op, 0, gone, reason, through=through)
    return [op.without(x, gone) if dropped else tuple(Axis() if k in gone else a for k, a in enumerate(left))]


def mixing(op: Op, i: int, mixed: Sequence[int], reason: str, *, through: bool = False) -> Axes:
    """Axes of input `i` after an operator that mixes some of them: those keep their size, the others pass.

    Args:
        op: The node.
        i: Number of the input.
        mixed: The axes it mixes.
        reason: Why they stay.
        through: Whether a trace through normalisations lets them pass, too.
    """
    x, hold = op.input(i), op.mixes if through else op.fix
    fixed = {k: hold(x, k, op.name_in(i), reason) for k in sorted(mixed, reverse=True)}
    return tuple(fixed[k] if k in fixed else op.without_rows(x, k, list(mixed)) for k in range(len(x)))


axes("Trilu", "... _ _, * -> ... _ _", family="reduce")
axes("Det", "... _ _ -> ...", family="reduce")


@rule("Resize", "Upsample")
def resample(op: Op) -> Sequence[Axes]:
    """Freezes the axes whose size it changes; the others pass."""
    x, before, after = op.input(0), op.shape(0), op.out_shape()
    free = [k for k in range(len(x)) if untouched(op, before[k], after[k], k)]
    op.fix_rest(x, free, op.name_in(0), f"{op.kind} resamples this axis")
    return [tuple(op.plain(x, k) if k in free else Axis() for k in range(len(x)))]


def untouched(op: Op, before: object, after: object, k: int) -> bool:
    """Whether an axis passes as it is: a known scale of 1 or, where target sizes are given, equal sizes."""
    rank = len(op.shape(0))
    chosen = [a % rank for a in op.attr("axes", list(range(rank)))]
    if k not in chosen:
        return True
    at, count = chosen.index(k), len(chosen)
    if op.attr("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        region = op.value(1)
        if region is None or region.size != 2 * count or (region[at], region[at + count]) != (0, 1):
            return False
    scales = op.value(2 if op.kind == "Resize" and op.opset >= 11 else 1)
    scales = np.array(op.attr("scales", [])) if scales is None else scales
    return bool(scales.ravel()[at] == 1) if scales.size == count else before == after and before is not None


@resize("Resize", "Upsample")
def resize_sizes(edit: Edit) -> None:
    """A stored output size follows a shrunken channel axis."""
    name = edit.node.output[0]
    if len(edit.node.input) > 3 and edit.node.input[3] and edit.changed(name):
        dense, after = edit.shape(name), edit.pruned_shape(name)
        axes = edit.attr("axes", range(len(dense)))
        edit.patch_sizes(3, tuple(dense[k] for k in axes), tuple(after[k] for k in axes))


@rule("CumSum", "CumProd")
def cumulative(op: Op) -> Sequence[Axes]:
    """Freezes the axis it accumulates along."""
    k = op.exact(1, "axis")[0] % len(op.input(0))
    return [mixing(op, 0, [k], f"{op.kind} accumulates along this axis")]


@rule("TopK")
def top(op: Op) -> Sequence[Axes]:
    """Freezes the axis it searches; values and indices have the axes of the input."""
    x = op.input(0)
    return [mixing(op, 0, [op.attr("axis", -1) % len(x)], "TopK searches this axis")] * op.outputs


@rule("ReverseSequence")
def reverse_sequence(op: Op) -> Sequence[Axes]:
    """Freezes the time axis, whose beginning is reversed; there is a length for each index of the batch axis."""
    x = mixing(op, 0, [op.attr("time_axis", 0)], "ReverseSequence reverses part of this axis")
    batch = op.attr("batch_axis", 1)
    joined = op.join(op.plain(x, batch), op.plain(op.input(1), 0))
    return [tuple(joined if k == batch else op.without_rows(x, k, (batch,)) for k in range(len(x)))]
