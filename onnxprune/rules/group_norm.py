"""GroupNormalization. Law: a group shares its statistics, so its channels go together or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.labels import Axes, Axis
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import Op
from onnxprune.rules.registry import resize, rule
from onnxprune.rules.zeros import keeps_zero


@rule("GroupNormalization")
def group_normalization(op: Op) -> Sequence[Axes]:
    """Whole groups pass, with their scale and shift (one of each for a group before operator set 21)."""
    x, groups = op.input(0), op.attr("num_groups", 1)
    op.fix_rest(x, (0, 1), op.name_in(0), f"{op.kind} normalises over this axis")
    channels, parameters = op.plain(x, 1), [op.plain(op.input(i), 0) for i in (1, 2)]
    if channels.ids is None:
        for axis in parameters:
            op.join(channels, axis)
        return [(op.plain(x, 0), channels, *(Axis() for _ in x[2:]))]
    rows = channels.ids.reshape(groups, -1)
    op.ties.tie(rows, rows[:, :1])
    for axis in parameters:
        op.join(Axis(rows[:, 0]) if op.opset < 21 else channels, axis)
    op.records.zero[op.node.output[0]] = all(keeps_zero(op, op.name_in(i)) for i in (0, 2))
    return [(op.plain(x, 0), channels, *(Axis() for _ in x[2:]))]


@resize("GroupNormalization")
def resize_groups(edit: Edit) -> None:
    """`num_groups` becomes the number of groups still alive."""
    channels = edit.axes(edit.node.input[0])[1]
    if channels.ids is not None:
        alive = edit.kept(channels).reshape(edit.attr("num_groups", 1), -1).any(axis=1)
        edit.set_attr("num_groups", int(alive.sum()))


@rule("MeanVarianceNormalization")
def mean_variance(op: Op) -> Sequence[Axes]:
    """Freezes the axes it takes mean and variance over."""
    x = op.input(0)
    mixed = [k % len(x) for k in op.attr("axes", [0, 2, 3])]
    for k in sorted(mixed, reverse=True):
        op.fix(x, k, op.name_in(0), f"{op.kind} normalises over this axis")
    op.records.zero[op.node.output[0]] = keeps_zero(op, op.name_in(0))
    return [tuple(Axis() if k in mixed else op.without_rows(x, k, mixed) for k in range(len(x)))]
