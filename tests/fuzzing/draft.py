"""A model on its way to being broken. Law: the same number gives the same files, on every machine.

A mutation is a function of a `Draft`, registered by `@mutation`; one that finds nothing to break raises `Inapplicable`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import onnx
from onnx import helper, numpy_helper

T = TypeVar("T")

HUGE = (1025, 70_000, 2**31 - 1, 2**31, 2**40, 10**12, 2**62, 2**63 - 1)
ODD = (0, -1, -2, -7, -(2**31), -(2**63), 1, 2, 3, 5)


class Inapplicable(Exception):
    """The model has nothing that this mutation could break."""


@dataclass
class Draft:
    """A model being broken.

    Attributes:
        proto: The model.
        rng: Where every choice comes from.
        files: Further files beside the model.
        patches: Byte strings to exchange in the serialised model, for what protobuf refuses to hold.
        tail: Bytes to append to the serialised model.
    """

    proto: onnx.ModelProto
    rng: np.random.Generator
    files: dict[str, bytes] = field(default_factory=dict)
    patches: list[tuple[bytes, bytes]] = field(default_factory=list)
    tail: bytes = b""

    @property
    def graph(self) -> onnx.GraphProto:
        return self.proto.graph

    def pick(self, options: Sequence[T]) -> T:
        """One of several."""
        if not len(options):
            raise Inapplicable
        return options[int(self.rng.integers(len(options)))]

    def node(self, *kinds: str) -> onnx.NodeProto:
        """A node, of one of the given kinds if any are given."""
        return self.pick([n for n in self.graph.node if not kinds or n.op_type in kinds])

    def reader(self) -> tuple[onnx.NodeProto, int]:
        """A node and the number of one of its inputs."""
        node = self.pick([n for n in self.graph.node if n.input])
        return node, int(self.rng.integers(len(node.input)))

    def tensor(self) -> onnx.TensorProto:
        """An initializer."""
        return self.pick(self.graph.initializer)

    def integers(self) -> onnx.TensorProto:
        """A stored tensor of int64: sizes, axes, pads."""
        held = [a.t for n in self.graph.node for a in n.attribute if a.name == "value"]
        found = [t for t in [*self.graph.initializer, *held] if t.data_type == onnx.TensorProto.INT64]
        return self.pick([t for t in found if np.prod(t.dims) > 0])

    def names(self) -> list[str]:
        """Every tensor name of the main graph."""
        made = [o for n in self.graph.node for o in n.output if o]
        return [i.name for i in self.graph.input] + [t.name for t in self.graph.initializer] + made

    def number(self) -> int:
        """An absurd integer."""
        return int(self.pick(HUGE if self.rng.random() < 0.5 else ODD))

    def constant(self, value: object, dtype: type = np.int64) -> str:
        """Store a new initializer; its name."""
        name = f"fuzz{len(self.graph.initializer)}_{len(self.graph.node)}"
        self.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def insert(self, kind: str, extra: Sequence[str] = (), **attributes: object) -> onnx.NodeProto:
        """Put a node between a tensor and one of its readers."""
        at = int(self.rng.integers(len(self.graph.node) or 1))
        if not len(self.graph.node) or not self.graph.node[at].input:
            raise Inapplicable
        source, name = self.graph.node[at].input[0], f"fuzzed{len(self.graph.node)}"
        self.graph.node[at].input[0] = name
        self.graph.node.insert(at, helper.make_node(kind, [source, *extra], [name], name=name, **attributes))
        return self.graph.node[at]

    def serialised(self) -> bytes:
        """The model file."""
        data = self.proto.SerializeToString()
        for old, new in self.patches:
            data = data.replace(old, new)
        return data + self.tail


Mutation = Callable[[Draft], None]
MUTATIONS: dict[str, Mutation] = {}


def mutation(function: Mutation) -> Mutation:
    """Register a mutation under its name."""
    assert function.__name__ not in MUTATIONS
    MUTATIONS[function.__name__] = function
    return function
