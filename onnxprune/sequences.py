"""Write out sequences of tensors. Law: where a sequence's elements are known before the model runs, it has no say.

Exporters use sequences for `split`, `chunk` and lists. Where every position is a constant, reading an element is a name
for it, splitting is Split and joining is Concat; the nodes that made the sequence are left without readers. What stays
a sequence freezes what goes into it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper

from onnxprune.model import Array
from onnxprune.shapes import Inference, attribute

Nodes = list[onnx.NodeProto]
Constant = Callable[[str, Array], str]


@dataclass
class Sequences:
    """What the sequences met so far hold.

    Attributes:
        inference: Shapes and values so far.
        fresh: Gives a name that nothing has, like the one it is asked for.
        constant: Stores a constant under a name like the one given; the name it has.
        elements: Sequence name -> names of its elements.
        optional: Optional name -> name of what it holds.
    """

    inference: Inference
    fresh: Callable[[str], str]
    constant: Constant
    elements: dict[str, list[str]] = field(default_factory=dict)
    optional: dict[str, str] = field(default_factory=dict)

    def unroll(self, node: onnx.NodeProto) -> Nodes:
        """The nodes to put in the place of `node`: itself, unless it reads a known sequence or splits into one."""
        write_out = WRITE_OUT.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        found = write_out(self, node) if write_out else None
        return [node] if found is None else found

    def position(self, node: onnx.NodeProto, i: int, default: int | None) -> int | None:
        """The constant position that input `i` names; `default` where the input is left out."""
        if len(node.input) <= i or not node.input[i]:
            return default
        value = self.inference.values.get(node.input[i])
        return None if value is None or value.dtype == object else int(value.ravel()[0])

    def axes_node(self, kind: str, x: str, out: str, axis: int) -> onnx.NodeProto:
        """Squeeze or Unsqueeze of one axis, in the form of the model's operator set."""
        if self.inference.opsets.get("", 1) < 13:
            return helper.make_node(kind, [x], [out], name=out, axes=[axis])
        return helper.make_node(kind, [x, self.constant(f"{out}_axis", np.array([axis], np.int64))], [out], name=out)


def construct(sequences: Sequences, node: onnx.NodeProto) -> None:
    """SequenceConstruct and SequenceEmpty hold their inputs."""
    sequences.elements[node.output[0]] = list(node.input)


def wrap(sequences: Sequences, node: onnx.NodeProto) -> None:
    """Optional holds its input, if it has one."""
    if node.input:
        sequences.optional[node.output[0]] = node.input[0]


def unwrap(sequences: Sequences, node: onnx.NodeProto) -> Nodes | None:
    """OptionalGetElement is a name for what an optional holds, or for its input if that is none."""
    held = sequences.optional.get(node.input[0], node.input[0])
    if held in sequences.elements:
        sequences.elements[node.output[0]] = sequences.elements[held]
        return None
    if sequences.inference.shape(held) is None:
        return None
    return [helper.make_node("Identity", [held], list(node.output), name=node.name)]


def insert(sequences: Sequences, node: onnx.NodeProto) -> None:
    """SequenceInsert puts one more element in."""
    held = sequences.elements.get(node.input[0])
    at = sequences.position(node, 2, None if held is None else len(held))
    if held is not None and at is not None:
        at += len(held) if at < 0 else 0
        sequences.elements[node.output[0]] = [*held[:at], node.input[1], *held[at:]]


def erase(sequences: Sequences, node: onnx.NodeProto) -> None:
    """SequenceErase takes one element out."""
    held, at = sequences.elements.get(node.input[0]), sequences.position(node, 1, -1)
    if held and at is not None:
        sequences.elements[node.output[0]] = [name for k, name in enumerate(held) if k != at % len(held)]


def element(sequences: Sequences, node: onnx.NodeProto) -> Nodes | None:
    """SequenceAt is a name for an element."""
    held, at = sequences.elements.get(node.input[0]), sequences.position(node, 1, None)
    if not held or at is None or not -len(held) <= at < len(held):
        return None
    return [helper.make_node("Identity", [held[at]], list(node.output), name=node.name)]


def split(sequences: Sequences, node: onnx.NodeProto) -> Nodes | None:
    """SplitToSequence is Split where the sizes of its parts are known."""
    sizes = part_sizes(sequences, node)
    if sizes is None:
        return None
    axis, squeezes = attribute(node, "axis", 0), len(node.input) < 2 and not attribute(node, "keepdims", 1)
    names = [sequences.fresh(f"{node.output[0]}_{k}") for k in range(len(sizes))]
    parts = [sequences.fresh(f"{name}_kept") for name in names] if squeezes else names
    made = [helper.make_node("Split", node.input[:1], parts, name=node.name, axis=axis)]
    if sequences.inference.opsets.get("", 1) >= 13:
        made[0].input.append(sequences.constant(f"{names[0]}_sizes", np.array(sizes, np.int64)))
    else:
        made[0].attribute.append(helper.make_attribute("split", sizes))
    if squeezes:
        made += [sequences.axes_node("Squeeze", p, n, axis) for p, n in zip(parts, names, strict=True)]
    sequences.elements[node.output[0]] = names
    return [*made, node]


def part_sizes(sequences: Sequences, node: onnx.NodeProto) -> list[int] | None:
    """The sizes that SplitToSequence cuts its axis into, if they are known."""
    shape = sequences.inference.shape(node.input[0])
    whole = None if shape is None else shape[attribute(node, "axis", 0)]
    given = sequences.inference.values.get(node.input[1]) if len(node.input) > 1 and node.input[1] else np.array(1)
    if given is None or given.dtype == object:
        return None
    if given.ndim:
        return [int(size) for size in given]
    if not isinstance(whole, int):
        return None
    step = int(given)
    return [min(step, whole - start) for start in range(0, whole, step)]


def join(sequences: Sequences, node: onnx.NodeProto) -> Nodes | None:
    """ConcatFromSequence is Concat, of elements with an axis more where it stacks them."""
    held, axis = sequences.elements.get(node.input[0]), attribute(node, "axis")
    if not held:
        return None
    if not attribute(node, "new_axis", 0):
        return [helper.make_node("Concat", held, list(node.output), name=node.name, axis=axis)]
    names = [sequences.fresh(f"{node.output[0]}_{k}") for k in range(len(held))]
    stacked = [sequences.axes_node("Unsqueeze", x, name, axis) for x, name in zip(held, names, strict=True)]
    return [*stacked, helper.make_node("Concat", names, list(node.output), name=node.name, axis=axis)]


def length(sequences: Sequences, node: onnx.NodeProto) -> Nodes | None:
    """SequenceLength is a constant."""
    held = sequences.elements.get(node.input[0])
    if held is None:
        return None
    value = sequences.constant(f"{node.output[0]}_known", np.array(len(held), np.int64))
    return [helper.make_node("Identity", [value], list(node.output), name=node.name)]


def has_element(sequences: Sequences, node: onnx.NodeProto) -> Nodes | None:
    """OptionalHasElement is true of what is known to be there."""
    if not node.input or not (node.input[0] in sequences.optional or sequences.inference.shape(node.input[0])):
        return None
    value = sequences.constant(f"{node.output[0]}_known", np.array(True))
    return [helper.make_node("Identity", [value], list(node.output), name=node.name)]


WRITE_OUT: dict[str, Callable[[Sequences, onnx.NodeProto], Nodes | None]] = {
    "SequenceConstruct": construct,
    "SequenceEmpty": construct,
    "Optional": wrap,
    "SequenceInsert": insert,
    "SequenceErase": erase,
    "SequenceAt": element,
    "OptionalGetElement": unwrap,
    "OptionalHasElement": has_element,
    "SplitToSequence": split,
    "ConcatFromSequence": join,
    "SequenceLength": length,
}
