"""Reductions and resampling. Law: an axis that is summed over, searched or resampled keeps its size."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.labels import Axes, Axis
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import Op
from onnxprune.rules.registry import resize, rule

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
    hold = op.fix if op.kind in ("ArgMax", "ArgMin") else op.mixes  # positions are counted anew on a smaller axis
    for k in sorted(gone, reverse=True):
        hold(x, k, op.name_in(0), reason)
    if dropped:
        return [op.without(x, gone)]
    left = tuple(op.without_rows(x, k, gone) for k in range(len(x)))
    return [tuple(Axis() if k in gone else left[k] for k in range(len(x)))]


@rule("Resize", "Upsample")
def resample(op: Op) -> Sequence[Axes]:
    """Freezes the axes whose size it changes; the others pass."""
    x, before, after = op.input(0), op.shape(0), op.out_shape()
    free = [k for k in range(len(x)) if k in (0, 1) and untouched(op, before[k], after[k], k)]
    op.fix_rest(x, free, op.name_in(0), f"{op.kind} resamples this axis")
    return [tuple(op.plain(x, k) if k in free else Axis() for k in range(len(x)))]


def untouched(op: Op, before: object, after: object, k: int) -> bool:
    """Whether an axis keeps its size: equal known sizes, or a known scale of 1."""
    if before == after and before is not None:
        return True
    scales = op.value(2 if op.kind == "Resize" and op.opset >= 11 else 1)
    return k == 0 or (scales is not None and scales.size > k and scales.ravel()[k] == 1)


@resize("Resize", "Upsample")
def resize_sizes(edit: Edit) -> None:
    """A stored output size follows a shrunken channel axis."""
    name = edit.node.output[0]
    if len(edit.node.input) > 3 and edit.node.input[3] and edit.changed(name):
        dense, after = edit.shape(name), edit.pruned_shape(name)
        axes = edit.attr("axes", range(len(dense)))
        edit.patch_sizes(3, tuple(dense[k] for k in axes), tuple(after[k] for k in axes))


@rule("CumSum")
def cumulative(op: Op) -> Sequence[Axes]:
    """Freezes the axis it sums along."""
    x = op.input(0)
    k = op.exact(1, "axis")[0] % len(x)
    op.fix(x, k, op.name_in(0), "CumSum sums along this axis")
    return [tuple(Axis() if j == k else op.without_rows(x, j, (k,)) for j in range(len(x)))]
