"""Operators that cut and merge axes. Law: numpy.reshape moves the labels; a field over several axes is kept as rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.labels import Axes, Axis, Ids, in_order, leaf_of, spread, varies
from onnxprune.model import Dim, Shape
from onnxprune.rules.edit import Edit, Mask
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.registry import resize, rule

MANY = 2**20  # rows over every pixel of an image are not worth their memory: tied, they keep the same positions


@rule("Reshape", "Flatten")
def reshape(op: Op) -> Sequence[Axes]:
    """numpy.reshape: runs of axes with equal products are flattened and cut again, labels and all."""
    x, before, after = op.input(0), op.shape(0), op.out_shape()
    old, new = ([d for d in shape if isinstance(d, int)] for shape in (before, after))
    if len(old) == len(before) and len(new) == len(after) and math.prod(old) != math.prod(new):
        raise CannotTrace(f"{op.kind} makes {math.prod(new)} indices of {math.prod(old)}")
    out: list[Axis] = [Axis()] * len(after)
    runs = segments(before, after)
    one_to_one = {ins[0]: outs[0] for ins, outs in runs if len(ins) == len(outs) == 1}
    for ins, outs in runs:
        if len(ins) == len(outs) == 1:
            axis = x[ins[0]]
            inside = all(b in one_to_one for b in axis.by)
            out[outs[0]] = axis.moved(one_to_one) if inside else carried(op, x, ins[0], runs)
        else:
            reshape_run(op, x, ins, outs, out)
    return [tuple(out)]


def carried(op: Op, x: Axes, k: int, runs: Sequence[tuple[list[int], list[int]]]) -> Axis:
    """Axis `k` itself is unchanged, but the axes its rows run over are cut or merged: so are the rows."""
    axis, before, after = x[k], op.shape(0), op.out_shape()
    over = [run for run in runs if set(run[0]) & set(axis.by)]
    members, homes = [m for ins, _ in over for m in ins], [h for _, outs in over for h in outs]
    old: list[int] = []
    new: list[int] = []
    for ins, outs in over:
        sizes = known_sizes(x, ins, before)
        cut = None if sizes is None else divided(math.prod(sizes), [after[h] for h in outs])
        if sizes is None or cut is None:
            return op.plain(x, k)
        old, new = old + sizes, new + cut
    if axis.ids is None:
        return axis
    ids = np.transpose(axis.ids, [*np.argsort(axis.by), axis.ids.ndim - 1])
    ids = np.expand_dims(ids, [d for d, m in enumerate(members) if m not in axis.by])
    if math.prod(new) * ids.shape[-1] > MANY:
        return op.plain(x, k)
    full = np.broadcast_to(ids, (*old, ids.shape[-1])).reshape(*new, ids.shape[-1])
    moving = [d for d in varies(full) if d < len(homes)]
    core = full[tuple(slice(None) if d in moving else 0 for d in range(len(homes)))]
    return Axis(core, tuple(homes[d] for d in moving))


def reshape_run(op: Op, x: Axes, ins: list[int], outs: list[int], out: list[Axis]) -> None:
    """Move the labels of one run of axes."""
    before, after = op.shape(0), op.out_shape()
    given = known_sizes(x, ins, before)
    sizes = None if given is None else divided(math.prod(given), [after[k] for k in outs])
    if given is None or sizes is None:
        if (axis := innermost(op, x, ins, outs)) is not None:
            out[outs[-1]] = axis
            return
        for k in reversed(ins):
            op.fix(x, k, op.name_in(0), "merged with an axis of unknown size")
        return
    flat = op.merged(x, ins, given, op.name_in(0), dealt=len(outs) == 1)
    if flat is None:
        return
    if len(outs) == 1:
        out[outs[0]] = Axis(flat)
    elif outs:
        for k, axis in zip(outs, op.split(flat, sizes, outs[0]), strict=True):
            out[k] = axis
        home = out[outs[0]].ids
        if not isinstance(after[outs[0]], int) and home is not None:  # heads, merged with a batch of unknown size
            out[outs[0]] = op.freeze_ids(home, "merged with an axis of unknown size", op.node.output[0], outs[0])


def known_sizes(x: Axes, members: Sequence[int], shape: Shape) -> list[int] | None:
    """The sizes of neighbouring axes, as far as labels run along them; None where that cannot be said.

    A leading axis of unknown size is a batch, or a batch merged with heads: what the labels of other axes say along it
    repeats, and one repetition counts.
    """
    sizes = [d for k in members if isinstance(d := shape[k], int)]
    if len(sizes) == len(members):
        return sizes
    first = members[0]
    repeats = {a.ids.shape[a.by.index(first)] for a in x if a.ids is not None and first in a.by} or {1}
    unknown_first = len(sizes) == len(members) - 1 and not isinstance(shape[first], int)
    return [repeats.pop(), *sizes] if unknown_first and len(repeats) == 1 else None


def divided(total: int, dims: Sequence[Dim]) -> list[int] | None:
    """Sizes that multiply to `total`, the first of several may be unknown; None where there are none."""
    rest = [d for d in dims[1:] if isinstance(d, int)]
    first = dims[0] if dims else None
    if len(rest) < len(dims) - 1 or not (isinstance(first, int) or rest):
        return None
    lead = first if isinstance(first, int) else total // max(1, math.prod(rest))
    return [lead, *rest] if lead * math.prod(rest) == total else None


def innermost(op: Op, x: Axes, ins: list[int], outs: list[int]) -> Axis | None:
    """The last axis of a run of unknown size, where its old or its new size divides the other; None where neither does.

    Whatever stands before it, index i of the shorter one is every index of the longer one that leaves the rest i.
    """
    if not ins or not outs or x[ins[-1]].ids is None:
        return None
    old, new = op.shape(0)[ins[-1]], op.out_shape()[outs[-1]]
    if not isinstance(old, int) or not isinstance(new, int) or min(old, new) < 2 or (old % new and new % old):
        return None
    last = op.plain(x, ins[-1]).ids
    assert last is not None
    for k in reversed(ins[:-1]):
        op.fix(x, k, op.name_in(0), "merged with an axis of unknown size")
    return Axis(op.collapse(last.reshape(-1, new)) if new < old else np.tile(last, new // old))


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


@resize("Reshape", "Flatten")
def resize_reshape(edit: Edit) -> None:
    """The target's entries for shrunken axes become their new sizes; what rows keep is dealt out in order again."""
    name = edit.node.output[0]
    if not edit.changed(name) and not edit.changed(edit.node.input[0]):
        return
    after, dense = edit.pruned_shape(name), edit.shape(name)
    if len(edit.node.input) > 1:
        target = target_of(edit, after)
        if target is None:
            edit.patch_sizes(1, dense, after)
        else:
            edit.set_input(1, target)
    elif edit.node.op_type == "Reshape":
        stored = zip(after, edit.attr("shape"), strict=True)
        edit.set_attr("shape", [size if isinstance(size, int) else entry for size, entry in stored])
    deal_out(edit)


def target_of(edit: Edit, after: Shape) -> NDArray[np.int64] | None:
    """A stored target in place of one that is computed in every run; None if that may differ from run to run.

    Where all entries but one are known, the number of elements leaves that one no choice, wherever it comes from.
    """
    known = edit.value(1)
    if known is None or known.dtype != object or edit.attr("allowzero", 0) or 0 in after:
        return None
    sizes = [d if isinstance(d, int) and e is not None else -1 for d, e in zip(after, known.tolist(), strict=True)]
    return np.array(sizes, dtype=np.int64) if sizes.count(-1) == 1 else None


def deal_out(edit: Edit) -> None:
    """Bring what was flattened across rows into the order of its labels.

    A channel shuffle deals the first, second, third ... index that every row keeps. Where rows keep different
    positions, that is not the order of the dense model.
    """
    x, before = edit.axes(edit.node.input[0]), edit.shape(edit.node.input[0])
    for ins, outs in segments(before, edit.shape(edit.node.output[0])):
        live = [k for k in ins if x[k].ids is not None]
        if len(outs) != 1 or not live or in_order(x[leaf_of(x, live)], leaf_of(x, live)):
            continue
        if not set(x[leaf_of(x, live)].by) <= set(ins):  # merged without its rows, which keep the same positions then
            continue
        leaf, sizes = leaf_of(x, live), [d for k in ins if isinstance(d := before[k], int)]
        kept = edit.keep[spread(x[leaf], leaf, ins, sizes)]
        order = np.argsort(dealt_order(kept, ins.index(leaf)))
        if not np.array_equal(order, np.arange(order.size)):
            edit.pick_output(order, outs[0])


def dealt_order(kept: Mask, leaf: int) -> Ids:
    """Dense flat positions of the kept entries, in the order in which flattening the cut array gives them.

    Args:
        kept: Which entries of the dense array stay; equally many along `leaf`, whatever the other indices.
        leaf: The axis that was cut.
    """
    rows = np.moveaxis(kept, leaf, -1)
    flat = np.moveaxis(np.arange(kept.size).reshape(kept.shape), leaf, -1)
    return np.moveaxis(flat[rows].reshape(*rows.shape[:-1], -1), -1, leaf).ravel()


@rule("DepthToSpace")
def depth_to_space(op: Op) -> Sequence[Axes]:
    """The block positions of one output channel are tied: they go together."""
    x, block = op.input(0), op.attr("blocksize", 1)
    channels = op.plain(x, 1)
    op.fix_rest(x, (0, 1), op.name_in(0), "DepthToSpace interleaves this axis")
    if channels.ids is None:
        return [(op.plain(x, 0), channels, Axis(), Axis())]
    if block < 1 or channels.ids.size % (block * block):
        raise CannotTrace(f"{channels.ids.size} channels are no whole number of blocks of {block} x {block}")
    blocks = channels.ids.reshape(block * block, -1)
    if op.attr("mode", "DCR") == "CRD":
        blocks = channels.ids.reshape(-1, block * block).T
    return [(op.plain(x, 0), Axis(op.collapse(blocks)), Axis(), Axis())]


@rule("SpaceToDepth")
def space_to_depth(op: Op) -> Sequence[Axes]:
    """Every channel appears once for each block position."""
    x, block = op.input(0), op.attr("blocksize", 1)
    channels = op.plain(x, 1)
    op.fix_rest(x, (0, 1), op.name_in(0), "SpaceToDepth interleaves this axis")
    out = channels if channels.ids is None else Axis(np.tile(channels.ids, block * block))
    return [(op.plain(x, 0), out, Axis(), Axis())]
