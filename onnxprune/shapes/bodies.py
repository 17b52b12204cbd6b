"""Types inside the bodies of If, Loop and Scan. Law: what is stated holds in every turn and whichever branch is taken.

A state that a body carries from turn to turn keeps only the dimensions that no turn changes; a size that arises inside
a body may be another one in each turn, so outside it is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import onnx
from onnx import TensorProto, TypeProto

from onnxprune.graph import canonical, every_node, subgraphs
from onnxprune.model import Array, Dim, Shape
from onnxprune.shapes.values import attribute

TURNS = 8  # walks over a body before a state's shape is given up
SINCE = {"If": 1, "Loop": 1, "Scan": 9}  # operator set; the first Scan took a batch


class Walk(Protocol):
    """What is known so far, and how to learn more; see `inference.Inference`."""

    types: dict[str, TypeProto]
    values: dict[str, Array]
    exact: set[str]
    unnamed: int

    def visit(self, node: onnx.NodeProto) -> None:
        """Infer a node's outputs."""

    def named(self, info: TypeProto) -> TypeProto:
        """The type with a symbol for each unknown dimension."""

    def exact_value(self, name: str) -> Array | None:
        """The fully known value of a tensor."""


def shape_of(info: TypeProto) -> Shape | None:
    """The dimensions in a tensor type, or None when it has no known rank."""
    if not info.HasField("tensor_type") or not info.tensor_type.HasField("shape"):
        return None
    return tuple(dimension(d) for d in info.tensor_type.shape.dim)


def dimension(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    """One dimension. Some exporters write -1 for a size that is open."""
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param or None


def is_dimension(entry: object) -> bool:
    """Whether an entry of a computed shape can be a size: odd inputs may give fractions, or less than 0."""
    return entry is None or isinstance(entry, str) or (isinstance(entry, int) and entry >= 0)


def tensor_type(kind: int, shape: Shape | None) -> TypeProto:
    """A tensor type for the given element type and dimensions."""
    return onnx.helper.make_tensor_type_proto(kind, shape)


def bodied(node: onnx.NodeProto, opset: int) -> bool:
    """Whether a node runs bodies in a way that is known here."""
    since = SINCE.get(node.op_type)
    return since is not None and opset >= since and canonical(node.domain) == ""


def disagrees(node: onnx.NodeProto) -> bool:
    """Whether a node that runs bodies and its bodies disagree on the number of inputs or outputs."""
    bodies = list(subgraphs(node))
    if node.op_type == "If":
        return len(bodies) != 2 or any(b.input or len(b.output) < len(node.output) for b in bodies)
    first, told_of = (1, 2) if node.op_type == "Loop" else (0, 0)
    states = len(node.input) - told_of - attribute(node, "num_scan_inputs", 0)
    if len(bodies) != 1 or states < 0:
        return True
    given, made = len(bodies[0].input), len(bodies[0].output) - first
    return given != len(node.input) or made < max(states, len(node.output))


def enter(walk: Walk, node: onnx.NodeProto) -> None:
    """Learn the types of what a node's bodies are fed."""
    if node.op_type == "If":
        return
    body = next(subgraphs(node))
    if node.op_type == "Loop":
        for info, kind in zip(body.input, (TensorProto.INT64, TensorProto.BOOL), strict=False):
            walk.types[info.name] = tensor_type(kind, told(info))
        walk.values[body.input[1].name] = np.ones(told(body.input[1]), bool)  # a body runs only where it holds
        carry(walk, body, node.input[2:], 2, 1)
        return
    states = len(node.input) - attribute(node, "num_scan_inputs", 0)
    axes = attribute(node, "scan_input_axes") or [0] * (len(node.input) - states)
    for info, name, axis in zip(body.input[states:], node.input[states:], axes, strict=False):
        walk.types[info.name] = without(walk.types.get(name, TypeProto()), axis)
    carry(walk, body, node.input[:states], 0, 0)


def told(info: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The shape in which a Loop tells its body the turn or the condition: a scalar, or what the body declares."""
    shape = shape_of(info.type) or ()
    return tuple(1 for _ in shape)


def carry(walk: Walk, body: onnx.GraphProto, starts: Sequence[str], first_in: int, first_out: int) -> None:
    """Find types of the carried states that a turn of the body keeps, and leave the body inferred with them."""
    inside = [i.name for i in body.input[first_in : first_in + len(starts)]]
    after = [o.name for o in body.output[first_out : first_out + len(starts)]]
    types, mark = [walk.types.get(name, TypeProto()) for name in starts], walk.unnamed
    for turn in range(TURNS + 1):
        if turn == TURNS:
            types = [tensor_type(t.tensor_type.elem_type, None) if t.HasField("tensor_type") else t for t in types]
        types = [walk.named(t) for t in types]
        walk.types.update(zip(inside, types, strict=True))
        for node in body.node:
            walk.visit(node)
        wider = [meet(t, walk.types.get(name, TypeProto()), mark) for t, name in zip(types, after, strict=True)]
        if all(w == t for w, t in zip(wider, types, strict=True)):
            return
        types = wider
        forget(walk, body)


def forget(walk: Walk, body: onnx.GraphProto) -> None:
    """Drop what was concluded inside a body from types that do not last."""
    for name in [o for node in every_node(body) for o in node.output]:
        walk.types.pop(name, None)
        walk.values.pop(name, None)
        walk.exact.discard(name)


def results(walk: Walk, node: onnx.NodeProto, mark: int) -> dict[str, TypeProto]:
    """Types of a node's outputs, once its bodies are inferred. `mark`: number of symbols before that."""
    bodies = list(subgraphs(node))
    ends = [[walk.types.get(o.name, TypeProto()) for o in body.output] for body in bodies]
    if node.op_type == "If":
        found = [meet(*pair) for pair in zip(*ends, strict=False)] if len(ends) == 2 else []
    elif node.op_type == "Loop":
        starts = [walk.types.get(n, TypeProto()) for n in node.input[2:]]
        found = [meet(a, b) for a, b in zip(starts, ends[0][1:], strict=False)]
        found += [stacked(t, trips(walk, node), 0) for t in ends[0][1 + len(starts) :]]
    else:
        found = scanned(walk, node, ends[0])
    return dict(zip(node.output, [outside(t, mark) for t in found], strict=False))


def scanned(walk: Walk, node: onnx.NodeProto, ends: Sequence[TypeProto]) -> list[TypeProto]:
    """The output types of a Scan."""
    states = len(node.input) - attribute(node, "num_scan_inputs", 0)
    starts = [walk.types.get(n, TypeProto()) for n in node.input[:states]]
    into = attribute(node, "scan_input_axes") or [0]
    fed = shape_of(walk.types.get(node.input[states], TypeProto()))
    length = None if fed is None else fed[into[0] % len(fed)]
    axes = attribute(node, "scan_output_axes") or [0] * (len(ends) - states)
    stacks = [stacked(t, length, axis) for t, axis in zip(ends[states:], axes, strict=False)]
    return [meet(a, b) for a, b in zip(starts, ends, strict=False)] + stacks


def trips(walk: Walk, node: onnx.NodeProto) -> int | None:
    """How often a Loop turns, if that is known."""
    count = walk.exact_value(node.input[0]) if node.input[0] else None
    start = walk.exact_value(node.input[1]) if node.input[1] else np.array(True)
    goes_on = walk.exact_value(next(subgraphs(node)).output[0].name)
    if count is None or start is None or goes_on is None or not (start.all() and goes_on.all()):
        return None
    return max(0, int(count.ravel()[0]))


def meet(a: TypeProto, b: TypeProto, mark: int | None = None) -> TypeProto:
    """What two types have in common: dimensions that differ become unknown, and so does a rank that differs.

    With `mark`, symbols of `a` after that number stand for any size already.
    """
    if a == b:
        return a
    x, y = shape_of(a), shape_of(b)
    if x is None or y is None or len(x) != len(y):
        tensors = a.HasField("tensor_type") and b.HasField("tensor_type")
        return tensor_type(a.tensor_type.elem_type, None) if tensors else TypeProto()
    same = [p == q or (mark is not None and arose(p, mark)) for p, q in zip(x, y, strict=True)]
    return tensor_type(a.tensor_type.elem_type, tuple(p if s else None for p, s in zip(x, same, strict=True)))


def arose(size: Dim, mark: int) -> bool:
    """Whether a size is a symbol after symbol number `mark`."""
    return isinstance(size, str) and size.startswith("?") and int(size[1:]) > mark


def without(info: TypeProto, axis: int) -> TypeProto:
    """The type of one slice along an axis."""
    shape = shape_of(info)
    if not shape:
        return tensor_type(info.tensor_type.elem_type, None)
    axis %= len(shape)
    return tensor_type(info.tensor_type.elem_type, shape[:axis] + shape[axis + 1 :])


def stacked(info: TypeProto, size: Dim, axis: int) -> TypeProto:
    """The type of slices joined along a new axis."""
    shape = shape_of(info)
    if shape is None:
        return tensor_type(info.tensor_type.elem_type, None)
    axis %= len(shape) + 1
    return tensor_type(info.tensor_type.elem_type, (*shape[:axis], size, *shape[axis:]))


def outside(info: TypeProto, mark: int) -> TypeProto:
    """A type without the symbols that arose inside a body, after symbol number `mark`."""
    shape = shape_of(info)
    if shape is None:
        return info
    return tensor_type(info.tensor_type.elem_type, tuple(None if arose(d, mark) else d for d in shape))
