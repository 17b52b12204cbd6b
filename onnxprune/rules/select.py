"""Operators that pick indices of an axis. Law: the labels are picked with them, and stored bounds count what stayed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from onnxprune.labels import Axes, Axis, Ids
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.registry import resize, rule
from onnxprune.shapes import slice_parts, slice_range

END = 2**31 - 1  # 'to the end', whatever the size


def cut(op: Op, axes: Axes, k: int, index: Ids) -> Axes:
    """Axes after picking `index` along axis `k`.

    One stored index serves all rows of an axis in rows. A run of neighbours starts at the same place in every row if
    all rows lose as many before it, and has one length if all lose as many inside; other picks tie the rows.
    """
    ids = axes[k].ids
    if ids is not None and axes[k].by and index.size:
        first, stop = int(index[0]), int(index[0]) + index.size
        if np.array_equal(index, np.arange(first, stop)):
            parents = row_ids(axes, k)
            op.rows(ids[..., :first], parents)
            op.rows(ids[..., first:stop], parents)
        else:
            axes = (*axes[:k], op.plain(axes, k), *axes[k + 1 :])
    return op.picked(axes, k, index)


def row_ids(axes: Axes, k: int) -> Ids | None:
    """The ids that stand for the whole rows of axis `k`, if there are any."""
    ids, parents = axes[k].ids, axes[axes[k].by[-1]].ids
    return parents if ids is not None and parents is not None and parents.shape == ids.shape[:-1] else None


@rule("Split")
def split(op: Op) -> Sequence[Axes]:
    """numpy.split along `axis`."""
    x = op.input(0)
    axis = op.attr("axis", 0) % len(x)
    sizes = [op.out_shape(j)[axis] for j in range(op.outputs)]
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) < len(sizes):
        if x[axis].ids is not None:
            raise CannotTrace("Split into parts of unknown size")
        return [tuple(op.without_rows(x, k, (axis,)) for k in range(len(x)))] * op.outputs
    return [cut(op, x, axis, np.arange(end - size, end)) for size, end in zip(known, np.cumsum(known), strict=True)]


@resize("Split")
def resize_split(edit: Edit) -> None:
    """The stored sizes become the numbers kept in each part."""
    axes = edit.axes(edit.node.input[0])
    axis = edit.attr("axis", 0) % len(axes)
    if axes[axis].ids is None or edit.kept(axes[axis]).all():
        return
    sizes = [edit.size(edit.axes(o)[axis], edit.shape(o)[axis]) for o in edit.node.output]
    if edit.opset >= 13:
        edit.drop_attr("num_outputs")
        edit.set_input(1, np.array(sizes, dtype=np.int64))
    else:
        edit.set_attr("split", sizes)


@rule("Slice")
def slice_(op: Op) -> Sequence[Axes]:
    """Basic slicing. On an axis that can shrink, the bounds become the counts kept before them."""
    x = op.input(0)
    try:
        parts = slice_parts(op.node, [op.value(i) if op.has(i) else None for i in range(op.arity)])
    except ValueError:
        return [slice_unknown(op, x)]
    for start, end, axis, step in zip(*parts, strict=True):
        x = slice_axis(op, x, axis % len(x), slice_range(start, end, step))
    return [x]


def slice_axis(op: Op, x: Axes, k: int, bounds: slice) -> Axes:
    """Axes after slicing axis `k`; an axis of unknown size is frozen, and what is in rows over it becomes plain."""
    size = op.shape(0)[k]
    if not isinstance(size, int):
        return tuple(op.without_rows(x, j, (k,)) for j in range(len(x)))
    index = np.arange(size)[bounds]
    return x if np.array_equal(index, np.arange(size)) else cut(op, x, k, index)


def slice_unknown(op: Op, x: Axes) -> Axes:
    """Axes after a slice whose bounds are computed: those whose size it may have changed freeze."""
    before, after = op.shape(0), op.out_shape()
    changed = [k for k in range(len(x)) if before[k] is None or after[k] != before[k]]
    for k in reversed(changed):
        op.fix(x, k, op.name_in(0), "Slice bounds are computed while the model runs")
    return tuple(Axis() if k in changed else op.without_rows(x, k, changed) for k in range(len(x)))


@resize("Slice")
def resize_slice(edit: Edit) -> None:
    """Bounds on a shrunken axis become counts; a slice whose steps became uneven becomes a Gather."""
    axes = edit.axes(edit.node.input[0])
    values = [edit.value(i) for i in range(len(edit.node.input))]
    try:
        starts, ends, where, steps = slice_parts(edit.node, values)
    except ValueError:
        return  # computed bounds: what they may cut was frozen, and the other axes have none
    for t, axis in enumerate(where):
        k = axis % len(axes)
        ids = axes[k].ids
        if ids is None or edit.kept(axes[k]).all():
            continue
        index = np.arange(ids.shape[-1])[slice_range(starts[t], ends[t], steps[t])]
        at = edit.positions(axes[k], index.tolist())
        starts[t], ends[t], steps[t] = bounds_of(at) or gathered(edit, k, at)
    write_slice(edit, starts, ends, where, steps)


def bounds_of(at: Sequence[int]) -> tuple[int, int, int] | None:
    """The start, end and step that pick the positions `at`; None if no slice does."""
    strides = {b - a for a, b in pairwise(at)} or {1}
    if not at or len(strides) > 1:
        return None
    stride = strides.pop()
    end = at[-1] + (1 if stride > 0 else -1)
    return at[0], end if end >= 0 else -END, stride  # -1 would count from the end


def gathered(edit: Edit, k: int, at: Sequence[int]) -> tuple[int, int, int]:
    """Pick positions of axis `k` before this node; the slice bounds that then take all of them."""
    source, name = edit.node.input[0], edit.fresh(f"{edit.node.output[0]}_picked_{k}")
    index = edit.constant(name, np.array(at, dtype=np.int64))
    edit.insert("Gather", [source, index], name, axis=k)
    edit.node.input[0] = name
    return 0, END, 1


def write_slice(edit: Edit, starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> None:
    """Store slice bounds as inputs or, before operator set 10, as attributes."""
    if edit.opset < 10:
        for key, bounds in (("starts", starts), ("ends", ends), ("axes", axes)):
            edit.set_attr(key, bounds)
        return
    for i, bounds in enumerate((starts, ends, axes, steps), 1):
        edit.set_input(i, np.array(bounds, dtype=np.int64))


@rule("Gather")
def gather(op: Op) -> Sequence[Axes]:
    """numpy.take. Constant indices on an axis that can shrink are renumbered; computed ones freeze it."""
    x, index = op.input(0), op.value(1)
    axis, rank = op.attr("axis", 0) % len(x), len(op.shape(1))
    size = op.shape(0)[axis]
    if index is None or index.dtype == object or not isinstance(size, int):
        op.fix(x, axis, op.name_in(0), "Gather's indices are computed while the model runs")
        return [replaced(op, tuple(op.without_rows(x, k, (axis,)) for k in range(len(x))), axis, rank)]
    at = index.astype(np.int64) % size
    if rank == 1 or (rank and at.size == max(at.shape) > 1):  # a list, perhaps with axes of size 1 beside it
        beside = [axis + d for d in range(rank) if d != int(np.argmax(at.shape))]
        return [op.inserted(cut(op, x, axis, at.ravel()), beside)]
    if rank == 0:
        return [single(op, x, axis, int(at))]
    return [rearranged(op, x, axis, at)]


def single(op: Op, x: Axes, k: int, at: int) -> Axes:
    """Axes after one index was taken from axis `k`: that one stays, for no empty axis would be left behind."""
    ids = x[k].ids
    if x[k].by:
        op.fix(x, k, op.name_in(0), "Gather takes single indices from this axis")
    elif ids is not None:
        op.freeze_ids(ids[[at]], "Gather takes this single index", op.name_in(0), k)
    return replaced(op, tuple(one_row(a, k, at) for a in x), k, 0)


def rearranged(op: Op, x: Axes, k: int, at: Ids) -> Axes:
    """Axes after a table of indices was taken from axis `k`: it becomes several axes, in rows."""
    picked, left = op.plain(x, k), tuple(op.without_rows(x, j, (k,)) for j in range(len(x)))
    out = list(replaced(op, left, k, at.ndim))
    if picked.ids is not None and at.size:
        out[k : k + at.ndim] = op.split(picked.ids[at].ravel(), at.shape, k)
    return tuple(out)


def replaced(op: Op, axes: Axes, k: int, rank: int) -> Axes:
    """Axes with `rank` frozen ones in the place of axis `k`."""
    kept = op.permuted(axes, [j for j in range(len(axes)) if j != k])
    return op.inserted(kept, range(k, k + rank))


def one_row(axis: Axis, k: int, at: int) -> Axis:
    """An axis after one index was taken from axis `k`: of its rows over that axis, one is left."""
    if axis.ids is None or k not in axis.by:
        return axis
    depth = axis.by.index(k)
    return Axis(np.take(axis.ids, at, axis=depth), axis.by[:depth] + axis.by[depth + 1 :])


@resize("Gather")
def resize_gather(edit: Edit) -> None:
    """Indices are renumbered; those of removed positions go."""
    axes = edit.axes(edit.node.input[0])
    k, index = edit.attr("axis", 0) % len(axes), edit.value(1)
    axis = axes[k]
    if axis.ids is None or index is None or edit.kept(axis).all():
        return
    dense = (index.astype(np.int64) % axis.ids.shape[-1]).ravel().tolist()
    table = [d for d in edit.pruned_shape(edit.node.output[0])[k : k + index.ndim] if isinstance(d, int)]
    edit.set_input(1, np.array(edit.positions(axis, dense), dtype=index.dtype).reshape(table))
