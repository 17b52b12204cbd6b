"""Operators that move whole axes, or lay tensors side by side. Law: numpy's function of that name moves the labels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from onnxprune.labels import Axes, Axis, Ids
from onnxprune.model import Dim
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.registry import resize, rule


@rule("Transpose")
def transpose(op: Op) -> Sequence[Axes]:
    """numpy.transpose."""
    x = op.input(0)
    order = op.attr("perm", list(reversed(range(len(x)))))
    if sorted(order) != list(range(len(x))):
        raise CannotTrace(f"Transpose by {order} of a tensor with {len(x)} axes")
    return [op.permuted(x, order)]


@rule("Concat")
def concat(op: Op) -> Sequence[Axes]:
    """numpy.concatenate along `axis`; the other axes are tied, or run in rows over it where slices are stacked."""
    operands = [op.input(i) for i in range(op.arity)]
    rank = len(operands[0])
    axis = op.attr("axis", 1) % rank
    sizes = [op.shape(i)[axis] for i in range(op.arity)]
    out = [Axis() if k == axis else beside(op, [axes[k] for axes in operands], sizes, axis) for k in range(rank)]
    out[axis] = concatenated(op, operands, axis)
    return [tuple(out)]


def beside(op: Op, found: Sequence[Axis], sizes: Sequence[Dim], axis: int) -> Axis:
    """An axis beside the concatenated one, from that of every operand: tied, or in rows that lose equal numbers."""
    slices = [rows_over(own, size, axis) for own, size in zip(found, sizes, strict=True)]
    rows = [ids for ids in slices if ids is not None]
    if len(rows) < len(found):
        joined = reduce(op.join, found)  # rows over the concatenated axis are counted anew there, so they become plain
        return Axis(op.collapse(joined.ids)) if joined.ids is not None and axis in joined.by else joined
    ids = np.concatenate(rows)
    if (ids == ids[0]).all():
        return Axis(ids[0])
    op.rows(ids)
    return Axis(ids, (axis,))


def rows_over(own: Axis, size: Dim, axis: int) -> Ids | None:
    """The ids of an axis for each index of another: of the one there is, or of those it has rows for; else None."""
    if own.ids is None or (own.by and (own.by != (axis,) or own.ids.shape[0] != size)):
        return None
    return own.ids if own.by else own.ids[None] if size == 1 else None


def concatenated(op: Op, operands: Sequence[Axes], axis: int) -> Axis:
    """The labels along the concatenated axis. Frozen parts get fresh frozen ids, so that the others stay free."""
    if all(axes[axis].ids is None for axes in operands):
        return operands[0][axis]
    alike = len({axes[axis].by for axes in operands}) == 1
    parts: list[Ids] = []
    for i, axes in enumerate(operands):
        part = axes[axis] if alike else op.plain(axes, axis)
        parts.append(frozen_part(op, part, op.shape(i)[axis], i, axis) if part.ids is None else part.ids)
    return Axis(np.concatenate(parts, axis=-1), operands[0][axis].by if alike else ())


def frozen_part(op: Op, axis: Axis, size: Dim, i: int, k: int) -> Ids:
    """Fresh ids, frozen for the reason the axis was frozen for."""
    if not isinstance(size, int):
        raise CannotTrace("Concat of an axis of unknown size")
    ids = op.ties.fresh(size)
    if axis.cause >= 0:
        op.ties.freeze(ids, axis.cause)
    else:
        op.freeze_ids(ids, "concatenated from an axis of fixed size", op.name_in(i), k)
    return ids


@rule("Pad")
def pad(op: Op) -> Sequence[Axes]:
    """numpy.pad. Padded channels are new indices: they go with whatever they are later added to."""
    x = op.input(0)
    pads = stored_pads(op)
    axes = [k % len(x) for k in op.exact(3, "axes")] if op.has(3) else list(range(len(x)))
    around = {k: (pads[t], pads[t + len(axes)]) for t, k in enumerate(axes) if pads[t] != 0 or pads[t + len(axes)] != 0}
    changed = list(around)
    return [
        tuple(padded(op, x, k, *around[k]) if k in around else op.without_rows(x, k, changed) for k in range(len(x)))
    ]


def stored_pads(op: Op) -> list[int | None]:
    """The number of padded indices before and after each axis, None where it is computed while the model runs."""
    if op.opset < 11:
        return op.attr("pads", op.attr("paddings", [0]))
    pads = op.value(1)
    if pads is None:
        raise CannotTrace("padding of Pad is computed while the model runs")
    return [n if isinstance(n, int) else None for n in pads.ravel().tolist()]


def padded(op: Op, x: Axes, k: int, before: int | None, after: int | None) -> Axis:
    """Axis `k` with fresh ids for constant padding; other modes copy neighbours, which freezes."""
    mode, ids = op.attr("mode", "constant"), x[k].ids
    if before is None or after is None:
        return op.fix(x, k, op.name_in(0), "the padding of this axis is computed while the model runs")
    if ids is None or mode != "constant" or before < 0 or after < 0:
        return op.fix(x, k, op.name_in(0), f"Pad (mode {mode}) copies or cuts along this axis")
    return Axis(np.concatenate([op.ties.fresh(before), op.collapse(ids), op.ties.fresh(after)]))


@resize("Pad")
def resize_pad(edit: Edit) -> None:
    """Padding on a shrunken axis becomes the number of padded indices that stayed."""
    out = edit.axes(edit.node.output[0])
    key = "pads" if edit.attr("pads") is not None else "paddings"
    stored, chosen = edit.value(1) if edit.opset >= 11 else edit.attr(key), edit.value(3)
    dense = [] if stored is None else np.array(stored).ravel().tolist()
    pads, where = list(dense), list(range(len(out))) if chosen is None else [int(k) % len(out) for k in chosen]
    for t, k in enumerate(where):
        before, after, ids = pads[t], pads[t + len(where)], out[k].ids
        if ids is not None and (before or after):
            kept = edit.keep[ids]
            pads[t], pads[t + len(where)] = int(kept[:before].sum()), int(kept[len(kept) - after :].sum())
    if edit.opset < 11:
        edit.set_attr(key, [int(n) for n in pads])
    else:
        change = np.array([a != b for a, b in zip(dense, pads, strict=True)])
        edit.write_entries(1, change, np.array([n if c else 0 for n, c in zip(pads, change, strict=True)], np.int64))


@rule("Crop")
def crop(op: Op) -> Sequence[Axes]:
    """The experimental Crop of early files: cuts the two spatial axes."""
    x = op.input(0)
    op.fix_rest(x, (0, 1), op.name_in(0), "Crop cuts this axis")
    return [(op.plain(x, 0), op.plain(x, 1), *(Axis() for _ in x[2:]))]


@rule("Squeeze")
def squeeze(op: Op) -> Sequence[Axes]:
    """numpy.squeeze."""
    x, shape = op.input(0), op.shape(0)
    if op.has(1):
        given = op.exact(1, "axes")
    elif not (given := op.attr("axes", [])):
        given = [k for k, size in enumerate(shape) if size == 1]
        if not all(isinstance(size, int) for size in shape):
            raise CannotTrace("Squeeze names no axes, and some sizes are known only while the model runs")
    return [op.dropped(x, [k % len(x) for k in given], 0)]


@resize("Squeeze")
def resize_squeeze(edit: Edit) -> None:
    """Without named axes it would also drop an axis that shrank to one index, so they are named."""
    if (edit.opset >= 13 and edit.value(1) is not None) or edit.attr("axes"):
        return
    single = [k for k, size in enumerate(edit.shape(edit.node.input[0])) if size == 1]
    if edit.opset >= 13:
        edit.set_input(1, np.array(single, dtype=np.int64))
    else:
        edit.set_attr("axes", single)


@rule("Unsqueeze")
def unsqueeze(op: Op) -> Sequence[Axes]:
    """numpy.expand_dims."""
    given = op.exact(1, "axes") if op.has(1) else op.attr("axes", [])
    rank = len(op.input(0)) + len(given)
    return [op.inserted(op.input(0), [k % rank for k in given])]


@rule("Expand")
def expand(op: Op) -> Sequence[Axes]:
    """numpy.broadcast_to. A stretched axis holds one value, so it gets new labels of whatever it is combined with."""
    x, after = op.input(0), op.out_shape()
    lead = len(after) - len(x)
    moved = tuple(a.moved({k: k + lead for k in range(len(x))}) for a in x)
    out = [Axis()] * lead + list(moved)
    for k, dense in enumerate(op.shape(0)):
        if dense == 1 and after[k + lead] != 1:
            op.fix(x, k, op.name_in(0), "Expand stretches this single index")
            out[k + lead] = op.filled(after[k + lead])
    return [tuple(op.filled(after[k]) if k < lead else axis for k, axis in enumerate(out))]


@resize("Expand")
def resize_expand(edit: Edit) -> None:
    """The target's entries for shrunken axes become their new sizes; 1 stands for 'as the input'."""
    name = edit.node.output[0]
    if edit.changed(name):
        edit.patch_sizes(1, edit.shape(name), edit.pruned_shape(name), leave=(-1, 1))


@rule("Tile")
def tile(op: Op) -> Sequence[Axes]:
    """numpy.tile: a repeated axis carries its labels once for every copy; repeated an unknown number of times, none."""
    x, known = op.input(0), op.value(1)
    if known is None:
        raise CannotTrace(f"repeats of {op.kind} is computed while the model runs")
    repeats = [v if isinstance(v, int) else None for v in known.ravel().tolist()]
    changed = [k for k, times in enumerate(repeats) if times != 1]
    for k in reversed([k for k in changed if repeats[k] is None]):
        op.fix(x, k, op.name_in(0), f"{op.kind} repeats this axis as often as is computed while the model runs")
    return [tuple(tiled(op.without_rows(x, k, changed), repeats[k]) for k in range(len(x)))]


def tiled(axis: Axis, times: int | None) -> Axis:
    """The labels of an axis, `times` times over."""
    if times is None:
        return Axis()
    return axis if axis.ids is None or times == 1 else Axis(np.tile(axis.ids, times), axis.by)
