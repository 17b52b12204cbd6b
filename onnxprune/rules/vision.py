"""Operators on images and regions. Law: channels pass; positions in the image keep their number."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.labels import Axes, Axis
from onnxprune.rules.contract import convolve
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.registry import resize, rule
from onnxprune.rules.signature import axes

axes("GridSample", "n c *, n * -> n c *", family="vision")
axes("AffineGrid", "*, * -> *", family="vision")
axes("RoiAlign", "_ c _ _, r _, r -> r c _ _", family="vision")
axes("MaxRoiPool", "_ c _ _, r _ -> r c _ _", family="vision")
axes("NonMaxSuppression", "*, *, *, *, * -> *", family="vision")


@rule("MaxUnpool")
def max_unpool(op: Op) -> Sequence[Axes]:
    """Freezes: its indices count the elements of the whole dense tensor, channels included."""
    reason = "the indices of MaxUnpool count the elements of all channels"
    for i in range(op.arity):
        if op.has(i):
            op.fix_rest(op.input(i), (), op.name_in(i), reason)
    return [op.frozen_like(op.out_shape(), reason)]


@rule("Col2Im")
def col_to_im(op: Op) -> Sequence[Axes]:
    """n (c taps) l -> n c ...: the taps of one channel lie side by side and go together."""
    x, taps = op.input(0), 1
    for size in op.exact(2, "the block's shape"):
        taps *= size
    op.fix_rest(x, (0, 1), op.name_in(0), "Col2Im sums the blocks at these positions")
    columns = op.plain(x, 1)
    channels = columns if columns.ids is None else Axis(op.collapse(columns.ids.reshape(-1, taps).T))
    return [(op.plain(x, 0), channels, *(Axis() for _ in op.out_shape()[2:]))]


@rule("DeformConv")
def deform_conv(op: Op) -> Sequence[Axes]:
    """As Conv. Offsets and mask count kernel taps for each group of channels that they move alike."""
    moved = op.attr("offset_group", 1)
    if moved > 1 and op.attr("group", 1) > 1:
        raise CannotTrace("DeformConv both moves and convolves its channels in groups")
    for i in (2, 4):
        if op.has(i):
            op.fix_rest(op.input(i), (0,), op.name_in(i), "DeformConv reads an offset or weight for each kernel tap")
    channels = op.plain(op.input(0), 1)
    if moved > 1 and channels.ids is not None:
        op.rows(channels.ids.reshape(moved, -1))
    return convolve(op, out_axis=0, in_axis=1, bias=3)


@rule("CenterCropPad")
def center_crop_pad(op: Op) -> Sequence[Axes]:
    """Freezes the axes that it cuts or pads; the others pass."""
    x, before, after = op.input(0), op.shape(0), op.out_shape()
    named = [k % len(x) for k in op.attr("axes", list(range(len(x))))]
    same = [k for k in range(len(x)) if k not in named or before[k] == after[k]]
    op.fix_rest(x, same, op.name_in(0), "CenterCropPad cuts or pads this axis")
    return [tuple(op.plain(x, k) if k in same else Axis() for k in range(len(x)))]


@resize("CenterCropPad")
def resize_center_crop_pad(edit: Edit) -> None:
    """A stored size follows a shrunken axis."""
    name = edit.node.output[0]
    dense, after = edit.shape(name), edit.pruned_shape(name)
    named = [k % len(dense) for k in edit.attr("axes", range(len(dense)))]
    edit.patch_sizes(1, tuple(dense[k] for k in named), tuple(after[k] for k in named), leave=())
