"""Operators that cut and merge axes. Law: numpy.reshape moves the labels; a field over several axes is kept as rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxprune.labels import LONGEST, Axes, Axis, varies
from onnxprune.model import Shape
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import CannotTrace, Op
from onnxprune.rules.registry import resize, rule


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
            out[outs[0]] = axis.moved(one_to_one) if inside else carried(op, x, ins[0], runs)
        else:
            reshape_run(op, x, ins, outs, out)
    return [tuple(out)]


def carried(op: Op, x: Axes, k: int, runs: Sequence[tuple[list[int], list[int]]]) -> Axis:
    """Axis `k` itself is unchanged, but the axes its rows run over are cut or merged: so are the rows."""
    axis, before, after = x[k], op.shape(0), op.out_shape()
    over = [run for run in runs if set(run[0]) & set(axis.by)]
    members, homes = [m for ins, _ in over for m in ins], [h for _, outs in over for h in outs]
    old, new = (
        [d for m in members if isinstance(d := before[m], int)],
        [d for h in homes if isinstance(d := after[h], int)],
    )
    size = math.prod(old) * (0 if axis.ids is None else axis.ids.shape[-1])
    if axis.ids is None or len(old) != len(members) or len(new) != len(homes) or size > LONGEST:
        return op.plain(x, k)
    ids = np.transpose(axis.ids, [*np.argsort(axis.by), axis.ids.ndim - 1])
    ids = np.expand_dims(ids, [d for d, m in enumerate(members) if m not in axis.by])
    full = np.broadcast_to(ids, (*old, ids.shape[-1])).reshape(*new, ids.shape[-1])
    moving = [d for d in varies(full) if d < len(homes)]
    core = full[tuple(slice(None) if d in moving else 0 for d in range(len(homes)))]
    return Axis(core, tuple(homes[d] for d in moving))


def reshape_run(op: Op, x: Axes, ins: list[int], outs: list[int], out: list[Axis]) -> None:
    """Move the labels of one run of axes."""
    before, after = op.shape(0), op.out_shape()
    flat = op.merged(x, ins, before, op.name_in(0))
    if flat is None:
        return
    sizes = [d for k in outs if isinstance(d := after[k], int)]
    if len(sizes) != len(outs):
        op.freeze_ids(flat, "reshaped into an axis of unknown size", op.name_in(0), ins[0])
    elif math.prod(sizes) != flat.size:
        raise CannotTrace(f"{op.kind} makes {math.prod(sizes)} indices of {flat.size}")
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
        stored = zip(after, edit.attr("shape"), strict=True)
        edit.set_attr("shape", [size if isinstance(size, int) else entry for size, entry in stored])
        return
    edit.patch_sizes(1, dense, after)


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
