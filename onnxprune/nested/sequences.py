"""Lists of tensors whose members are known by name. Law: a member is read where it was put, as if there were no list.

Exporters write `torch.split`, `chunk` and list comprehensions with sequences. Labels pass through tensors alone, so a
read of a known member becomes a read of the tensor itself; the sequence then has no reader left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx.helper import make_node

from onnxprune.graph import canonical
from onnxprune.model import Array, Dim, Shape
from onnxprune.nested.names import Names
from onnxprune.shapes import attribute

MEMBERS_LIMIT = 256  # members: longer lists are loops over data, not architecture
Members = list[str]
Nodes = list[onnx.NodeProto]


class Sequences:
    """The sequences met so far.

    Attributes:
        members: Sequence name -> its tensors, in order.
        optional: Optional name -> what it holds.
    """

    def __init__(
        self,
        shape: Callable[[str], Shape | None],
        exact: Callable[[str], Array | None],
        constant: Callable[[str, Array], str],
        names: Names,
        opset: int,
    ) -> None:
        self.shape, self.exact, self.constant, self.names, self.opset = shape, exact, constant, names, opset
        self.members: dict[str, Members] = {}
        self.optional: dict[str, str] = {}

    def plain(self, node: onnx.NodeProto) -> Nodes | None:
        """Nodes on tensors that compute what a node on sequences does; None where that is unknown."""
        if canonical(node.domain) != "" or node.op_type not in MEANINGS:
            return None
        meaning = MEANINGS[node.op_type]
        return meaning(self, node)

    def position(self, node: onnx.NodeProto, i: int, default: int | None = None) -> int | None:
        """The known value of a position input; negative ones count from the end."""
        if len(node.input) <= i or not node.input[i]:
            return default
        value = self.exact(node.input[i])
        return None if value is None else int(value.ravel()[0])

    def vector(self, base: str, values: Sequence[int]) -> str:
        """A new constant vector; its name."""
        return self.constant(base, np.array(values, dtype=np.int64))

    def unsqueeze(self, source: str, axis: int) -> tuple[onnx.NodeProto, str]:
        """A node that inserts an axis of size 1, and the name of its output."""
        name = self.names.fresh(f"{source}_unsqueezed")
        if self.opset < 13:
            return make_node("Unsqueeze", [source], [name], name=name, axes=[axis]), name
        return make_node("Unsqueeze", [source, self.vector(f"{name}_axes", [axis])], [name], name=name), name

    def squeeze(self, source: str, target: str, axis: int) -> onnx.NodeProto:
        """A node that removes an axis of size 1."""
        if self.opset < 13:
            return make_node("Squeeze", [source], [target], name=target, axes=[axis])
        return make_node("Squeeze", [source, self.vector(f"{target}_axes", [axis])], [target], name=target)

    def stack(self, parts: Sequence[str], output: str, name: str, axis: int) -> Nodes:
        """Nodes that join tensors along a new axis."""
        wide = [self.unsqueeze(part, axis) for part in parts]
        return [n for n, _ in wide] + [make_node("Concat", [n for _, n in wide], [output], name=name, axis=axis)]


def construct(known: Sequences, node: onnx.NodeProto) -> None:
    """SequenceEmpty and SequenceConstruct: the inputs are the members."""
    known.members[node.output[0]] = list(node.input)


def insert(known: Sequences, node: onnx.NodeProto) -> None:
    """SequenceInsert, at the end unless it says where."""
    held = known.members.get(node.input[0])
    at = None if held is None else known.position(node, 2, len(held))
    if held is not None and at is not None and -len(held) <= at <= len(held):
        at = at + len(held) if at < 0 else at
        known.members[node.output[0]] = [*held[:at], node.input[1], *held[at:]]


def erase(known: Sequences, node: onnx.NodeProto) -> None:
    """SequenceErase, the last unless it says which."""
    held = known.members.get(node.input[0])
    at = None if held is None else known.position(node, 1, -1)
    if held and at is not None and -len(held) <= at < len(held):
        at %= len(held)
        known.members[node.output[0]] = held[:at] + held[at + 1 :]


def identity(known: Sequences, node: onnx.NodeProto) -> None:
    """Identity: the same list."""
    if node.input[0] in known.members:
        known.members[node.output[0]] = known.members[node.input[0]]


def split(known: Sequences, node: onnx.NodeProto) -> Nodes | None:
    """SplitToSequence becomes Split, beside the sequence of its parts."""
    shape, axis = known.shape(node.input[0]), attribute(node, "axis", 0)
    given = len(node.input) > 1 and bool(node.input[1])
    if shape is None or node.output[0] in known.members:
        return None
    sizes = part_sizes(shape[axis % len(shape)], known.exact(node.input[1]) if given else np.array(1))
    if sizes is None or not 0 < len(sizes) <= MEMBERS_LIMIT:
        return None
    base = node.output[0]
    parts = [known.names.fresh(f"{base}_{k}") for k in range(len(sizes))]
    if known.opset < 13:
        nodes = [make_node("Split", node.input[:1], parts, name=node.name, axis=axis, split=sizes)]
    else:
        inputs = [node.input[0], known.vector(f"{base}_sizes", sizes)]
        nodes = [make_node("Split", inputs, parts, name=node.name, axis=axis)]
    if not given and not attribute(node, "keepdims", 1):
        narrow = [known.names.fresh(f"{part}_squeezed") for part in parts]
        nodes += [known.squeeze(a, b, axis) for a, b in zip(parts, narrow, strict=True)]
        parts = narrow
    return [*nodes, make_node("SequenceConstruct", parts, [base], name=known.names.fresh(f"{base}_list"))]


def part_sizes(size: Dim, given: Array | None) -> list[int] | None:
    """The sizes of the parts: as listed, or equal ones of the given length with what is left at the end."""
    if given is None or not isinstance(size, int):
        return None
    if given.ndim:
        return [int(s) for s in given.tolist()]
    step = int(given)
    return [min(step, size - start) for start in range(0, size, step)] if step > 0 else None


def member(known: Sequences, node: onnx.NodeProto) -> Nodes | None:
    """SequenceAt of a known position."""
    held, at = known.members.get(node.input[0]), known.position(node, 1)
    if held is None or at is None or not -len(held) <= at < len(held):
        return None
    return [make_node("Identity", [held[at]], [node.output[0]], name=node.name)]


def joined(known: Sequences, node: onnx.NodeProto) -> Nodes | None:
    """ConcatFromSequence becomes Concat."""
    held, axis = known.members.get(node.input[0]), attribute(node, "axis")
    if not held:
        return None
    if attribute(node, "new_axis", 0):
        return known.stack(held, node.output[0], node.name, axis)
    return [make_node("Concat", held, [node.output[0]], name=node.name, axis=axis)]


def length(known: Sequences, node: onnx.NodeProto) -> Nodes | None:
    """SequenceLength of a known list."""
    held = known.members.get(node.input[0])
    if held is None:
        return None
    count = known.constant(f"{node.output[0]}_known", np.array(len(held), dtype=np.int64))
    return [make_node("Identity", [count], [node.output[0]], name=node.name)]


def wrap(known: Sequences, node: onnx.NodeProto) -> None:
    """Optional holds its input, if it has one."""
    if node.input:
        known.optional[node.output[0]] = node.input[0]


def unwrap(known: Sequences, node: onnx.NodeProto) -> Nodes | None:
    """OptionalGetElement is a name for what an optional holds, or for its input if that is none."""
    held = known.optional.get(node.input[0], node.input[0])
    if held in known.members:
        known.members[node.output[0]] = known.members[held]
        return None
    return None if known.shape(held) is None else [make_node("Identity", [held], [node.output[0]], name=node.name)]


def present(known: Sequences, node: onnx.NodeProto) -> Nodes | None:
    """OptionalHasElement is true of what is known to be there."""
    if not node.input or not (node.input[0] in known.optional or known.shape(node.input[0]) is not None):
        return None
    value = known.constant(f"{node.output[0]}_known", np.array(True))
    return [make_node("Identity", [value], [node.output[0]], name=node.name)]


MEANINGS: dict[str, Callable[[Sequences, onnx.NodeProto], Nodes | None]] = {
    "SequenceEmpty": construct,
    "SequenceConstruct": construct,
    "SequenceInsert": insert,
    "SequenceErase": erase,
    "Identity": identity,
    "SplitToSequence": split,
    "SequenceAt": member,
    "ConcatFromSequence": joined,
    "SequenceLength": length,
    "Optional": wrap,
    "OptionalGetElement": unwrap,
    "OptionalHasElement": present,
}
