"""Operators that run bodies. Law: labels enter a body with what it reads, and one size serves every turn and branch.

Nodes inside a body are traced by the rules of their own operators; these rules tie what goes in and what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx

from onnxprune.graph import subgraphs
from onnxprune.labels import Axes, Axis
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.registry import rule
from onnxprune.rules.zeros import keeps_zero

Labels = Axes | None


def meet(op: Op, names: tuple[str, str], sides: tuple[Labels, Labels], reason: str) -> Labels:
    """Tie two tensors of which either may be what an output holds; axes that differ in size stay."""
    a, b = sides
    if a is None or b is None or len(a) != len(b):
        for name, axes in zip(names, sides, strict=True):
            for k, axis in enumerate(axes or ()):
                if axis.ids is not None:
                    op.freeze_ids(axis.ids, reason, name, k)
        return None
    return tuple(meet_axis(op, names, (a, b), k, reason) for k in range(len(a)))


def meet_axis(op: Op, names: tuple[str, str], sides: tuple[Axes, Axes], k: int, reason: str) -> Axis:
    """Tie axis `k` of two tensors, or keep both at their sizes where these differ."""
    a, b = (axes[k] for axes in sides)
    if a.ids is not None and b.ids is not None and a.ids.shape[-1] != b.ids.shape[-1]:
        for name, axes in zip(names, sides, strict=True):
            op.fix(axes, k, name, reason)
        return op.blocked(reason, axis=k)
    return op.join(a, b)


def scalar(op: Op, name: str) -> None:
    """Keep what a condition or trip count is read from."""
    op.fix_rest(op.labels(name) or (), (), name, f"{op.kind} reads it to decide what to run")


def still(op: Op, name: str) -> Axes:
    """Frozen labels for what a body is told of its own run: the turn, the condition."""
    return tuple(Axis() for _ in op.model.shapes.get(name) or ())


def output(op: Op, j: int, axes: Labels) -> Labels:
    """The labels of output `j`; frozen where they are unknown and its shape is not."""
    if axes is not None or j >= op.outputs:
        return axes
    shape = op.model.shapes.get(op.node.output[j])
    return None if shape is None else op.frozen_like(shape, f"{op.kind} makes it of tensors of other ranks", j)


@rule("If")
def choose(op: Op) -> Sequence[Labels]:
    """Both branches are traced; an output is tied to what either branch gives."""
    scalar(op, op.name_in(0))
    bodies = list(subgraphs(op.node))
    ends = [op.walk(body, []) for body in bodies]
    found = []
    for j in range(op.outputs):
        names = (bodies[0].output[j].name, bodies[1].output[j].name)
        both = meet(op, names, (ends[0][j], ends[1][j]), "the branches of If give other sizes")
        op.records.zero[op.node.output[j]] = all(keeps_zero(op, name) for name in names)
        found.append(output(op, j, both))
    return found


@rule("Loop")
def loop(op: Op) -> Sequence[Labels]:
    """The body is traced once; a state is tied to its start and to what each turn leaves; stacked outputs pass."""
    body, states = next(subgraphs(op.node)), list(op.node.input[2:])
    for i in (0, 1):
        if op.has(i):
            scalar(op, op.name_in(i))
    given = [start(op, name, body.input[i + 2].name) for i, name in enumerate(states)]
    work = len(op.records.products)
    ends = op.walk(body, [*(still(op, info.name) for info in body.input[:2]), *given])
    count = op.value(0)
    repeat(op, work, 1 if count is None or count.dtype == object else max(1, int(count.ravel()[0])))
    scalar(op, body.output[0].name)
    carried = [carry(op, body, j, 1, states[j], given[j], ends[1 + j]) for j in range(len(states))]
    return [*carried, *(stack(op, j, body.output[1 + j].name, ends[1 + j], 0) for j in range(len(states), op.outputs))]


@rule("Scan")
def scan(op: Op) -> Sequence[Labels]:
    """The body is traced once; states are tied as in Loop; of scanned inputs and outputs all other axes pass."""
    if op.opset < 9:
        raise CannotTrace("Scan before operator set 9 scans each sample of a batch")
    body, scanned = next(subgraphs(op.node)), op.attr("num_scan_inputs", 0)
    states = list(op.node.input[: op.arity - scanned])
    given = [start(op, name, body.input[i].name) for i, name in enumerate(states)]
    into = op.attr("scan_input_axes", [0] * scanned)
    slices = [unstack(op, len(states) + i, body.input[len(states) + i].name, axis) for i, axis in enumerate(into)]
    work = len(op.records.products)
    ends = op.walk(body, [*given, *slices])
    length = op.shape(len(states))[into[0]] if op.labels(op.name_in(len(states))) is not None else None
    repeat(op, work, length if isinstance(length, int) else 1)
    outs = op.attr("scan_output_axes", [0] * (len(ends) - len(states)))
    carried = [carry(op, body, j, 0, states[j], given[j], ends[j]) for j in range(len(states))]
    made = range(len(states), len(ends))
    stacks = [stack(op, j, body.output[j].name, ends[j], axis) for j, axis in zip(made, outs, strict=True)]
    return [*carried, *stacks]


def repeat(op: Op, first: int, times: int) -> None:
    """Count the work of a body as often as it runs."""
    products = op.records.products
    products[first:] = [replace(p, factor=p.factor * times) for p in products[first:]]


def start(op: Op, name: str, inside: str) -> Labels:
    """The labels a state has inside the body: those it starts with, but for axes that a turn may resize."""
    axes, shape = op.labels(name), op.model.shapes.get(inside)
    if axes is None or shape is None or len(shape) != len(axes):
        for k, axis in enumerate(axes or ()):
            if axis.ids is not None:
                op.freeze_ids(axis.ids, f"{op.kind} may change its rank", name, k)
        return None
    moving = [k for k, size in enumerate(shape) if not isinstance(size, int)]
    for k in reversed(moving):
        op.fix(axes, k, name, f"{op.kind} may change the size of this axis")
    return tuple(Axis() if k in moving else op.without_rows(axes, k, moving) for k in range(len(axes)))


def carry(op: Op, body: onnx.GraphProto, j: int, first: int, begin: str, given: Labels, end: Labels) -> Labels:
    """Tie what state `j` starts with to what a turn leaves of it; the labels of its last value."""
    left = body.output[first + j].name
    both = meet(op, (begin, left), (given, end), f"{op.kind} carries it from turn to turn")
    if j < op.outputs and op.node.output[j]:
        op.records.zero[op.node.output[j]] = keeps_zero(op, begin) and keeps_zero(op, left)
    return output(op, j, both)


def unstack(op: Op, i: int, inside: str, axis: int) -> Labels:
    """The labels of one slice of a scanned input."""
    axes = op.labels(op.name_in(i))
    op.records.zero[inside] = keeps_zero(op, op.name_in(i))
    return None if axes is None else op.dropped(axes, (axis % len(axes),), i)


def stack(op: Op, j: int, name: str, axes: Labels, axis: int) -> Labels:
    """The labels of slices joined along a new axis; `name`: one of them."""
    if j < op.outputs and op.node.output[j]:
        op.records.zero[op.node.output[j]] = keeps_zero(op, name)
    return output(op, j, None if axes is None else op.inserted(axes, (axis % (len(axes) + 1),)))
