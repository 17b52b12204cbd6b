"""GroupNormalization. Law: a group shares its statistics, so its channels go together or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.labels import Axes, Axis, Ids
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import Op
from onnxprune.rules.registry import resize, rule
from onnxprune.rules.zeros import keeps_zero


@rule("GroupNormalization")
def group_normalization(op: Op) -> Sequence[Axes]:
    """Whole groups pass, with their scale and shift; traced through, every group may lose equal numbers of channels."""
    x, groups, reason = op.input(0), op.attr("num_groups", 1), f"{op.kind} normalises over this axis"
    op.fix_rest(x, (0, 1), op.name_in(0), reason)
    through = op.records.through and op.mixes(x, 1, op.name_in(0), reason).ids is not None
    channels, parameters = op.plain(x, 1), [op.plain(op.input(i), 0) for i in (1, 2)]
    if channels.ids is not None:
        couple(op, channels.ids.reshape(groups, -1), parameters, through)
    for axis in parameters if channels.ids is None or op.opset >= 21 else ():
        op.join(channels, axis)
    op.records.zero[op.node.output[0]] = all(keeps_zero(op, op.name_in(i)) for i in (0, 2))
    return [(op.plain(x, 0), channels, *(Axis() for _ in x[2:]))]


def couple(op: Op, rows: Ids, parameters: Sequence[Axis], through: bool) -> None:
    """Say what the groups may lose. Before operator set 21 there is one scale and shift for a group."""
    if through:
        op.rows(rows)
        return
    op.ties.tie(rows, rows[:, :1])
    for axis in parameters if op.opset < 21 else ():
        op.join(Axis(rows[:, 0]), axis)


@resize("GroupNormalization")
def resize_groups(edit: Edit) -> None:
    """`num_groups` becomes the number of groups still alive."""
    channels = edit.axes(edit.node.input[0])[1]
    if channels.ids is not None:
        alive = edit.kept(channels).reshape(edit.attr("num_groups", 1), -1).any(axis=1)
        edit.set_attr("num_groups", int(alive.sum()))
