"""Operators that read or write at indices held in a tensor. Law: an axis that indices point into keeps its size.

Where the indices are constants and point along one axis alone, they are renumbered instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.labels import Axes, Axis
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.reduce import mixing
from onnxprune.rules.registry import resize, rule
from onnxprune.rules.select import cut
from onnxprune.rules.signature import axes

axes("NonZero", "* -> *", family="scatter")
axes("Unique", "* -> *, *, *, *", family="scatter")


def pointed(op: Op) -> str:
    """Why an axis that indices point into stays whole."""
    return f"the indices of {op.kind} point into this axis"


def all_plain(op: Op, x: Axes) -> Axes:
    """Every axis with ids of its own."""
    return tuple(op.plain(x, k) for k in range(len(x)))


@rule("GatherElements")
def gather_elements(op: Op) -> Sequence[Axes]:
    """numpy.take_along_axis: data and indices are tied on every axis but the one that is gathered from."""
    before, after = op.shape(0), op.shape(1)
    axis = op.attr("axis", 0) % len(before)
    short = [k for k in range(len(before)) if k != axis and before[k] != after[k]]
    data = all_plain(op, mixing(op, 0, [axis, *short], pointed(op)))
    index = all_plain(op, mixing(op, 1, short, "GatherElements reads only the beginning of this axis"))
    return [tuple(index[k] if k in (axis, *short) else op.join(data[k], index[k]) for k in range(len(data)))]


@rule("ScatterElements", "Scatter")
def scatter_elements(op: Op) -> Sequence[Axes]:
    """numpy.put_along_axis: data, indices and updates are tied on every axis but the one that is scattered to."""
    shapes = [op.shape(i) for i in range(3)]
    axis = op.attr("axis", 0) % len(shapes[0])
    fixed = [k for k in range(len(shapes[0])) if k == axis or len({shape[k] for shape in shapes}) > 1]
    data, index, updates = (all_plain(op, mixing(op, i, fixed, pointed(op))) for i in range(3))
    tied = zip(data, index, updates, strict=True)
    return [tuple(d if k in fixed else op.join(op.join(d, n), u) for k, (d, n, u) in enumerate(tied))]


@rule("TensorScatter")
def tensor_scatter(op: Op) -> Sequence[Axes]:
    """Writes updates into a cache along `axis`; the other axes of cache and updates are tied."""
    axis = op.attr("axis", -2) % len(op.input(0))
    cache, updates = (all_plain(op, mixing(op, i, [axis], "TensorScatter writes along this axis")) for i in (0, 1))
    out = [a if k == axis else op.join(a, b) for k, (a, b) in enumerate(zip(cache, updates, strict=True))]
    if op.has(2):
        out[0] = op.join(out[0], op.input(2)[0])
    return [tuple(out)]


@rule("GatherND")
def gather_nd(op: Op) -> Sequence[Axes]:
    """batch..., indexed..., rest x batch..., at..., depth -> batch..., at..., rest."""
    batch, rank = op.attr("batch_dims", 0), len(op.shape(1))
    data = mixing(op, 0, range(batch, batch + depth(op)), pointed(op))
    index = all_plain(op, mixing(op, 1, [rank - 1], "GatherND reads this axis as one index"))
    data = all_plain(op, data)
    shared = [op.join(data[k], index[k]) for k in range(batch)]
    return [(*shared, *index[batch:-1], *data[batch + depth(op) :])]


def depth(op: Op) -> int:
    """How many axes each index of GatherND or ScatterND names."""
    size = op.shape(1)[-1]
    if not isinstance(size, int):
        raise CannotTrace(f"the number of axes that {op.kind} indexes is unknown")
    return size


@rule("ScatterND")
def scatter_nd(op: Op) -> Sequence[Axes]:
    """indexed..., rest; at..., depth; at..., rest -> indexed..., rest. Constant indices are renumbered."""
    rank, named, at = len(op.shape(1)), depth(op), op.value(1)
    listed = at is not None and at.dtype != object and (rank, named) == (2, 1)
    data = all_plain(op, mixing(op, 0, [] if listed else range(named), pointed(op)))
    op.fix_rest(op.input(1), (), op.name_in(1), "ScatterND reads it as indices")
    updates = all_plain(op, mixing(op, 2, [] if listed else range(rank - 1), pointed(op)))
    if listed and at is not None and data[0].ids is not None:
        op.join(Axis(data[0].ids[at.ravel()]), updates[0])
    elif listed:
        op.join(Axis(), updates[0])
    rest = [op.join(a, b) for a, b in zip(data[named:], updates[rank - 1 :], strict=True)]
    return [(*data[:named], *rest)]


@resize("ScatterND")
def resize_scatter_nd(edit: Edit) -> None:
    """Indices into a shrunken axis are renumbered; those of removed positions go."""
    first, at = edit.axes(edit.node.input[0])[0], edit.value(1)
    if first.ids is not None and at is not None and not edit.kept(first).all():
        dense = (at.ravel().astype(np.int64) % first.ids.size).tolist()
        edit.set_input(1, np.array(edit.positions(first, dense), dtype=at.dtype)[:, None])


@rule("OneHot")
def one_hot(op: Op) -> Sequence[Axes]:
    """Indices pass; the axis of the classes is new and keeps its size."""
    x = op.input(0)
    for i in (1, 2):
        op.fix_rest(op.input(i), (), op.name_in(i), "OneHot reads all of it")
    return [op.inserted(x, [op.attr("axis", -1) % (len(x) + 1)])]


@rule("Compress")
def compress(op: Op) -> Sequence[Axes]:
    """numpy.compress. A constant condition is shortened with its axis; a computed one freezes it."""
    x, condition = op.input(0), op.value(1)
    axis: int | None = op.attr("axis", None)
    op.fix_rest(op.input(1), (), op.name_in(1), "Compress reads it as a condition")
    if axis is None:
        op.fix_rest(x, (), op.name_in(0), "Compress flattens its input")
        return [op.frozen_like(op.out_shape(), "Compress makes this axis")]
    k = axis % len(x)
    if condition is None or x[k].ids is None:
        return [mixing(op, 0, [k], "the condition of Compress is computed while the model runs")]
    return [cut(op, x, k, np.flatnonzero(condition))]


@resize("Compress")
def resize_compress(edit: Edit) -> None:
    """The condition loses the entries of removed indices."""
    condition, axis = edit.value(1), edit.attr("axis")
    axes_ = edit.axes(edit.node.input[0])
    if condition is None or axis is None or axes_[axis % len(axes_)].ids is None:
        return
    kept = edit.kept(axes_[axis % len(axes_)])
    edit.set_input(1, condition[kept[: condition.size]])
