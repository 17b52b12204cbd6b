"""Operators that only move elements. Law: the labels are moved by the numpy function of the same name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from onnxprune.labels import Axes, Axis, Ids
from onnxprune.model import Shape
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import CannotTrace, Op
from onnxprune.rules.registry import resize, rule
from onnxprune.shapes import slice_parts, slice_range


@rule("Transpose")
def transpose(op: Op) -> Sequence[Axes]:
    """numpy.transpose."""
    x = op.input(0)
    return [op.permuted(x, op.attr("perm", list(reversed(range(len(x))))))]


@rule("Concat")
def concat(op: Op) -> Sequence[Axes]:
    """numpy.concatenate along `axis`; the other axes are tied."""
    operands = [op.input(i) for i in range(op.arity)]
    rank = len(operands[0])
    axis = op.attr("axis", 1) % rank
    out = list(operands[0])
    for axes in operands[1:]:
        out = [out[k] if k == axis else op.join(out[k], axes[k]) for k in range(rank)]
    out[axis] = concatenated(op, operands, axis)
    return [tuple(rows_kept(op, tuple(out), k, axis) for k in range(rank))]


def rows_kept(op: Op, axes: Axes, k: int, axis: int) -> Axis:
    """Rows over the concatenated axis are counted anew there, so they become plain."""
    return op.plain(axes, k) if k != axis and axis in axes[k].by else axes[k]


def concatenated(op: Op, operands: Sequence[Axes], axis: int) -> Axis:
    """The labels along the concatenated axis. Frozen parts get fresh frozen ids, so that the others stay free."""
    if all(axes[axis].ids is None for axes in operands):
        return operands[0][axis]
    bys = {axes[axis].by for axes in operands}
    parts: list[Ids] = []
    for i, axes in enumerate(operands):
        if axes[axis].ids is None:
            parts.append(frozen_part(op, axes[axis], op.shape(i)[axis], i, axis))
        else:
            parts.append(axes[axis].ids if len(bys) == 1 else op.plain(axes, axis).ids)  # type: ignore[arg-type]
    return Axis(np.concatenate(parts, axis=-1), bys.pop() if len(bys) == 1 else ())


def frozen_part(op: Op, axis: Axis, size: object, i: int, k: int) -> Ids:
    """Fresh ids, frozen for the reason the axis was frozen for."""
    if not isinstance(size, int):
        raise CannotTrace("Concat of an axis of unknown size")
    ids = op.ties.fresh(size)
    if axis.cause >= 0:
        op.ties.freeze(ids, axis.cause)
    else:
        op.freeze_ids(ids, "concatenated from an axis of fixed size", op.name_in(i), k)
    return ids


@rule("Split")
def split(op: Op) -> Sequence[Axes]:
    """numpy.split along `axis`."""
    x = op.input(0)
    axis = op.attr("axis", 0) % len(x)
    if x[axis].ids is None:
        return [x] * op.outputs
    sizes = [op.out_shape(j)[axis] for j in range(op.outputs)]
    if not all(isinstance(s, int) for s in sizes):
        raise CannotTrace("Split into parts of unknown size")
    ends = np.cumsum([int(s) for s in sizes if isinstance(s, int)])
    starts = ends - np.array(sizes, dtype=np.int64)
    return [cut(op, x, axis, np.arange(a, b)) for a, b in zip(starts, ends, strict=True)]


def cut(op: Op, axes: Axes, axis: int, index: Ids) -> Axes:
    """Axes after taking a part of one; if that axis is in rows, every row must keep as many there as the others."""
    out = op.picked(axes, axis, index)
    if out[axis].ids is not None and axes[axis].by:
        op.rows(out[axis].ids)  # type: ignore[arg-type]
    return out


@resize("Split")
def resize_split(edit: Edit) -> None:
    """The stored sizes become the numbers kept in each part."""
    axes = edit.axes(edit.node.input[0])
    axis = int(str(edit.attr("axis", 0))) % len(axes)
    if axes[axis].ids is None or not edit.changed(edit.node.input[0]):
        return
    sizes = [edit.size(edit.axes(o)[axis], edit.shape(o)[axis]) for o in edit.node.output]
    if edit.opset >= 13:
        while len(edit.node.input) < 2:
            edit.node.input.append("")
        edit.drop_attr("num_outputs")
        edit.set_input(1, np.array(sizes, dtype=np.int64))
    else:
        edit.set_attr("split", sizes)


@rule("Slice")
def slice_(op: Op) -> Sequence[Axes]:
    """Basic slicing. On an axis that can shrink, the bounds become the counts kept before them."""
    x = out = op.input(0)
    values = [op.value(i) if op.has(i) else None for i in range(op.arity)]
    try:
        parts = list(zip(*slice_parts(op.node, values), strict=True))  # type: ignore[arg-type]
    except ValueError:
        parts = []
        for k in reversed(range(len(x))):
            if op.out_shape()[k] != op.shape(0)[k] or op.shape(0)[k] is None:
                op.fix(x, k, op.name_in(0), "Slice bounds are computed while the model runs")
        return [unsliced(op, x)]
    for start, end, axis, step in parts:
        k = axis % len(x)
        if out[k].ids is not None:
            out = cut(op, out, k, np.arange(out[k].ids.shape[-1])[slice_range(start, end, step)])  # type: ignore[union-attr]
        elif isinstance(op.shape(0)[k], int) and op.out_shape()[k] != op.shape(0)[k]:
            out = op.picked(out, k, np.arange(op.shape(0)[k])[slice_range(start, end, step)])  # type: ignore[arg-type]
        elif op.out_shape()[k] != op.shape(0)[k]:
            out = tuple(op.without_rows(out, j, (k,)) for j in range(len(out)))
    return [out]


def unsliced(op: Op, axes: Axes) -> Axes:
    """Axes whose size the slice did not change keep their labels."""
    changed = [k for k in range(len(axes)) if op.out_shape()[k] != op.shape(0)[k] or op.shape(0)[k] is None]
    return tuple(Axis() if k in changed else op.without_rows(axes, k, changed) for k in range(len(axes)))


@resize("Slice")
def resize_slice(edit: Edit) -> None:
    """Bounds on a shrunken axis become counts; a slice with steps becomes a Gather of the positions that stayed."""
    name = edit.node.input[0]
    axes = edit.axes(name)
    values = [edit.value(i) for i in range(len(edit.node.input))]
    starts, ends, where, steps = slice_parts(edit.node, values)
    for t, (start, end, axis, step) in enumerate(list(zip(starts, ends, where, steps, strict=True))):
        k = axis % len(axes)
        if axes[k].ids is None:
            continue
        index = np.arange(axes[k].ids.shape[-1])[slice_range(start, end, step)]  # type: ignore[union-attr]
        at = edit.positions(axes[k], index.tolist())
        stride = at[1] - at[0] if len(at) > 1 else 1
        if any(b - a != stride for a, b in pairwise(at)) or stride == 0:
            raise NotImplementedError("Slice with steps over a pruned axis")
        starts[t], steps[t] = at[0], stride
        ends[t] = at[-1] + (1 if stride > 0 else -1)
        if ends[t] < 0:
            ends[t] = -(2**31)
    write_slice(edit, starts, ends, where, steps)


def write_slice(edit: Edit, starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> None:
    """Store slice bounds as inputs or, before operator set 10, as attributes."""
    if len(edit.node.input) == 1:
        for key, bounds in (("starts", starts), ("ends", ends), ("axes", axes)):
            edit.set_attr(key, bounds)
        return
    while len(edit.node.input) < 5:
        edit.node.input.append("")
    for i, bounds in enumerate((starts, ends, axes, steps), 1):
        edit.set_input(i, np.array(bounds, dtype=np.int64))


@rule("Pad")
def pad(op: Op) -> Sequence[Axes]:
    """numpy.pad. Padded channels are new indices: they go with whatever they are later added to."""
    x = op.input(0)
    pads = op.exact(1, "padding") if op.opset >= 11 else list(op.attr("pads", op.attr("paddings", [])))
    axes = op.exact(3, "axes") if op.has(3) else list(range(len(x)))
    out = list(x)
    for t, axis in enumerate(axes):
        before, after, k = pads[t], pads[t + len(axes)], axis % len(x)
        if (before or after) and x[k].ids is not None:
            out[k] = padded(op, x, k, before, after)
            if before < 0 or after < 0 or out[k].ids is None:
                out = [op.without_rows(tuple(out), j, (k,)) if j != k else a for j, a in enumerate(out)]
    return [tuple(op.without_rows(tuple(out), j, changed_axes(x, tuple(out))) for j in range(len(out)))]


def changed_axes(before: Axes, after: Axes) -> list[int]:
    """Axes that carry other labels than they did."""
    return [k for k in range(len(before)) if before[k] is not after[k]]


def padded(op: Op, x: Axes, k: int, before: int, after: int) -> Axis:
    """Axis `k` with fresh ids for constant padding; other modes copy neighbours, which freezes."""
    axis = op.plain(x, k)
    if axis.ids is None or op.attr("mode", "constant") != "constant" or before < 0 or after < 0:
        return op.fix(x, k, op.name_in(0), f"Pad (mode {op.attr('mode', 'constant')}) copies or cuts along this axis")
    return Axis(np.concatenate([op.ties.fresh(before), axis.ids, op.ties.fresh(after)]))


@resize("Pad")
def resize_pad(edit: Edit) -> None:
    """Padding on a shrunken axis becomes the number of padded indices that stayed."""
    axes, out = edit.axes(edit.node.input[0]), edit.axes(edit.node.output[0])
    key = "pads" if edit.attr("pads") is not None else "paddings"
    stored = edit.value(1) if edit.opset >= 11 else np.array(edit.attr(key))
    chosen = edit.value(3) if len(edit.node.input) > 3 else None
    pads = [int(p) for p in stored.tolist()]  # type: ignore[union-attr]
    where = [int(a) for a in chosen.tolist()] if chosen is not None else list(range(len(axes)))
    for t, axis in enumerate(where):
        k = axis % len(axes)
        ids = out[k].ids
        if ids is None or not (pads[t] or pads[t + len(where)]):
            continue
        kept = edit.keep[ids].reshape(-1)
        pads[t], pads[t + len(where)] = (
            int(kept[: pads[t]].sum()),
            int(kept[len(kept) - pads[t + len(where)] :].sum()),
        )
    if edit.opset >= 11:
        edit.set_input(1, np.array(pads, dtype=np.int64))
    else:
        edit.set_attr(key, pads)


@rule("Crop")
def crop(op: Op) -> Sequence[Axes]:
    """The experimental Crop of early files: cuts the two spatial axes."""
    x = op.input(0)
    op.fix_rest(x, (0, 1), op.name_in(0), "Crop cuts this axis")
    return [(x[0], op.plain(x, 1), *(Axis() for _ in x[2:]))]


@rule("Squeeze")
def squeeze(op: Op) -> Sequence[Axes]:
    """numpy.squeeze."""
    x, shape = op.input(0), op.shape(0)
    given = op.exact(1, "axes") if op.has(1) else op.attr("axes", [k for k, d in enumerate(shape) if d == 1])
    return [op.dropped(x, [k % len(x) for k in given], 0)]


@rule("Unsqueeze")
def unsqueeze(op: Op) -> Sequence[Axes]:
    """numpy.expand_dims."""
    given = op.exact(1, "axes") if op.has(1) else op.attr("axes", [])
    rank = len(op.input(0)) + len(given)
    return [op.inserted(op.input(0), [k % rank for k in given])]


@rule("Reshape", "Flatten")
def reshape(op: Op) -> Sequence[Axes]:
    """numpy.reshape: runs of axes with equal products are flattened and cut again, labels and all."""
    x, before, after = op.input(0), op.shape(0), op.out_shape()
    out: list[Axis] = [Axis()] * len(after)
    runs = segments(before, after)
    one_to_one = {ins[0]: outs[0] for ins, outs in runs if len(ins) == len(outs) == 1}
    for ins, outs in runs:
        if len(ins) == len(outs) == 1:
            axis = x[ins[0]]
            inside = all(b in one_to_one for b in axis.by)
            out[outs[0]] = axis.moved(one_to_one) if inside else op.plain(x, ins[0])
        else:
            reshape_run(op, x, ins, outs, out)
    return [tuple(out)]


def reshape_run(op: Op, x: Axes, ins: list[int], outs: list[int], out: list[Axis]) -> None:
    """Move the labels of one run of axes."""
    before, after = op.shape(0), op.out_shape()
    flat = op.merged(x, ins, before, op.name_in(0))
    if flat is None:
        return
    sizes = [d for k in outs if isinstance(d := after[k], int)]
    if len(sizes) != len(outs):
        op.freeze_ids(flat, "reshaped into an axis of unknown size", op.name_in(0), ins[0])
    elif len(outs) == 1:
        out[outs[0]] = Axis(flat)
    elif outs:
        for k, axis in zip(outs, op.split(flat, sizes, outs[0]), strict=True):
            out[k] = axis


def segments(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Pair runs of input axes with runs of output axes that hold the same elements.

    Runs are taken from the left, then from the right, while sizes are known; what is left in the middle is one run.
    """
    left = leading_runs(list(range(len(before))), list(range(len(after))), before, after)
    i = sum(len(ins) for ins, _ in left)
    j = sum(len(outs) for _, outs in left)
    rest_in, rest_out = list(range(i, len(before)))[::-1], list(range(j, len(after)))[::-1]
    right = leading_runs(rest_in, rest_out, before, after)
    m = sum(len(ins) for ins, _ in right)
    n = sum(len(outs) for _, outs in right)
    middle = (rest_in[m:][::-1], rest_out[n:][::-1])
    tail = [(ins[::-1], outs[::-1]) for ins, outs in right]
    return left + ([middle] if middle[0] or middle[1] else []) + tail


def leading_runs(ins: list[int], outs: list[int], before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Runs with equal products, taken in the given order until a size is unknown."""
    runs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(ins) and j < len(outs):
        a, b = before[ins[i]], after[outs[j]]
        if a == b and a is not None:
            runs.append(([ins[i]], [outs[j]]))
            i, j = i + 1, j + 1
            continue
        found = equal_run(ins[i:], outs[j:], before, after)
        if found is None:
            break
        runs.append((ins[i : i + found[0]], outs[j : j + found[1]]))
        i, j = i + found[0], j + found[1]
    return runs


def equal_run(ins: list[int], outs: list[int], before: Shape, after: Shape) -> tuple[int, int] | None:
    """How many axes of either side make the shortest run of equal product; None if a size in it is unknown."""
    m = n = 1
    a, b = before[ins[0]], after[outs[0]]
    while isinstance(a, int) and isinstance(b, int):
        if a == b:
            return m, n
        if a < b:
            if m == len(ins) or not isinstance(step := before[ins[m]], int):
                return None
            a, m = a * step, m + 1
        else:
            if n == len(outs) or not isinstance(step := after[outs[n]], int):
                return None
            b, n = b * step, n + 1
    return None


@resize("Reshape")
def resize_reshape(edit: Edit) -> None:
    """The target's entries for shrunken axes become their new sizes."""
    name = edit.node.output[0]
    if not edit.changed(name) and not edit.changed(edit.node.input[0]):
        return
    after, dense = edit.pruned_shape(name), edit.shape(name)
    if len(edit.node.input) < 2:
        edit.set_attr("shape", [after[k] if isinstance(after[k], int) else s for k, s in enumerate(edit.attr("shape"))])  # type: ignore[arg-type, call-overload]
        return
    edit.patch_sizes(1, dense, after)


@resize("Expand")
def resize_expand(edit: Edit) -> None:
    """The target's entries for shrunken axes become their new sizes; 1 stands for 'as the input'."""
    name = edit.node.output[0]
    if edit.changed(name):
        edit.patch_sizes(1, edit.shape(name), edit.pruned_shape(name), leave=(-1, 1))


@rule("Gather")
def gather(op: Op) -> Sequence[Axes]:
    """numpy.take. Constant indices on an axis that can shrink are renumbered; computed ones freeze it."""
    x, index = op.input(0), op.value(1)
    axis = op.attr("axis", 0) % len(x)
    inserted = len(op.shape(1))
    known = index is not None and index.dtype != object
    if x[axis].ids is None or not known:
        return [gather_frozen(op, x, axis, inserted, index if known else None)]
    flat = np.asarray(index, dtype=np.int64) % x[axis].ids.shape[-1]  # type: ignore[union-attr]
    if inserted == 1:
        return [cut(op, x, axis, flat)]
    op.fix(x, axis, op.name_in(0), "Gather takes single indices from this axis")
    return [gather_frozen(op, x, axis, inserted, flat)]


def gather_frozen(op: Op, x: Axes, axis: int, inserted: int, index: object) -> Axes:
    """Gather along an axis that keeps its size; rows over it are taken along when the indices are known."""
    if x[axis].ids is not None:
        op.fix(x, axis, op.name_in(0), "Gather's indices are computed while the model runs")
    flat = None if index is None else np.asarray(index, dtype=np.int64)
    if flat is not None and flat.ndim == 0:
        size = op.shape(0)[axis]
        at = int(flat) % size if isinstance(size, int) else int(flat)
        axes = tuple(scalar_row(op, x, k, axis, at) for k in range(len(x)))
        return op.permuted(axes, [k for k in range(len(x)) if k != axis])
    axes = tuple(op.without_rows(x, k, (axis,)) for k in range(len(x)))
    if inserted == 0:
        return op.permuted(axes, [k for k in range(len(x)) if k != axis])
    where = {k: k if k < axis else k + inserted - 1 for k in range(len(x))}
    out: list[Axis] = [Axis()] * (len(x) + inserted - 1)
    for k, a in enumerate(axes):
        if k != axis:
            out[where[k]] = a.moved(where)
    return tuple(out)


def scalar_row(op: Op, x: Axes, k: int, axis: int, at: int) -> Axis:
    """Axis `k` after one index was taken from `axis`: of its rows over that axis, one is left."""
    a = x[k]
    if k == axis or a.ids is None or axis not in a.by:
        return a
    d = a.by.index(axis)
    return Axis(np.take(a.ids, at, axis=d), a.by[:d] + a.by[d + 1 :])


@resize("Gather")
def resize_gather(edit: Edit) -> None:
    """Indices are renumbered; those of removed positions go."""
    axes = edit.axes(edit.node.input[0])
    axis = axes[int(str(edit.attr("axis", 0))) % len(axes)]
    index = edit.value(1)
    if axis.ids is None or index is None or edit.keep[axis.ids].all():
        return
    dense = [int(i) % axis.ids.shape[-1] for i in index.tolist()]
    edit.set_input(1, np.array(edit.positions(axis, dense), dtype=index.dtype))


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


@rule("Tile")
def tile(op: Op) -> Sequence[Axes]:
    """numpy.tile: a repeated axis carries its labels once for every copy."""
    x, repeats = op.input(0), op.exact(1, "repeats")
    out = list(x)
    for k, times in enumerate(repeats):
        if times != 1 and x[k].ids is not None:
            out[k] = Axis(np.tile(x[k].ids, times), x[k].by)  # type: ignore[arg-type]
        if times != 1:
            out = [op.without_rows(tuple(out), j, (k,)) if j != k else a for j, a in enumerate(out)]
    return [tuple(out)]


@rule("DepthToSpace")
def depth_to_space(op: Op) -> Sequence[Axes]:
    """The block positions of one output channel are tied: they go together."""
    x, block = op.input(0), op.attr("blocksize", 1)
    channels = op.plain(x, 1)
    op.fix_rest(x, (0, 1), op.name_in(0), "DepthToSpace interleaves this axis")
    if channels.ids is None:
        return [(x[0], channels, Axis(), Axis())]
    blocks = channels.ids.reshape(block * block, -1)
    if op.attr("mode", "DCR") == "CRD":
        blocks = channels.ids.reshape(-1, block * block).T
    return [(x[0], Axis(op.collapse(blocks)), Axis(), Axis())]


@rule("SpaceToDepth")
def space_to_depth(op: Op) -> Sequence[Axes]:
    """Every channel appears once for each block position."""
    x, block = op.input(0), op.attr("blocksize", 1)
    channels = op.plain(x, 1)
    op.fix_rest(x, (0, 1), op.name_in(0), "SpaceToDepth interleaves this axis")
    out = channels if channels.ids is None else Axis(np.tile(channels.ids, block * block))
    return [(x[0], out, Axis(), Axis())]
