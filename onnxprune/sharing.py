"""Give each reader of a shared parameter its own. Law: copies are one array until cut; cut alike, they are one again.

Exporters store parameters of equal value once (biases of zeros, gains of ones), which would couple layers that have
nothing to do with each other. Another copy of a vector costs next to nothing, so vectors are never shared here; nor
are tables that data meets element by element, such as position biases. A weight that data is multiplied with, or looked
up in, stays shared: a siamese tower, a head applied to several levels, tied embeddings, an unrolled cell. Copies of it
could lose different channels, and together take more room than the one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.labels import Axes
from onnxprune.model import Model, captured
from onnxprune.names import namer
from onnxprune.normalise import replace_nodes

ELEMENTWISE = frozenset("Add Div Max Mean Min Mul Pow PRelu Sub Sum Where".split())
INDICES = frozenset({"int64", "uint64", "bool", "object"})  # sizes, positions, conditions: never cut
RANDOM = ("Random", "Bernoulli", "Multinomial", "Dropout")


@dataclass(frozen=True, eq=False)
class Reading:
    """One input slot that reads a parameter.

    Attributes:
        name: What the file calls the parameter there: the initializer, or the Identity that hands it out.
        node: The node, of the graph being changed.
        slot: Number of its input.
        reader: The node that the parameter is for, where `node` only prepares it.
    """

    name: str
    node: onnx.NodeProto
    slot: int
    reader: str


@dataclass
class Untying:
    """A graph in which shared parameters are being told apart.

    Attributes:
        model: The normalised model; its graph is a copy that is changed.
        nodes: Its nodes.
        after: Node number -> nodes to put after it; None: it goes.
        readings: Tensor -> where it is read.
        fixed: Tensors computed from initializers alone.
        pinned: Tensors whose name something besides a node's input relies on.
        copies: Copy -> what it is a copy of.
    """

    model: Model
    nodes: list[onnx.NodeProto]
    after: dict[int, list[onnx.NodeProto] | None] = field(default_factory=dict)
    readings: dict[str, list[Reading]] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.model.proto.graph
        self.fresh = namer(graph)
        fed = {i.name for i in graph.input} if self.model.proto.ir_version >= 4 else set()  # a caller may replace these
        self.fixed = set(self.model.weights) - fed
        self.pinned = {o.name for o in graph.output}.union(*map(captured, self.nodes))
        for node in self.nodes:
            if computes(node) and all(n in self.fixed for n in node.input if n):
                self.fixed.update(node.output)
            for slot, name in enumerate(node.input):
                self.readings.setdefault(name, []).append(Reading(name, node, slot, label(node)))
        self.multiplied = multiplied(self.nodes, self.fixed) | self.pinned

    def slim(self, name: str) -> bool:
        """Whether a tensor is computed from initializers alone and has exactly one axis longer than 1."""
        shape = self.model.shapes.get(name, ())
        known = name in self.fixed and all(isinstance(d, int) for d in shape)
        return known and sum(d != 1 for d in shape) == 1

    def is_index(self, name: str) -> bool:
        """Whether an initializer holds sizes or positions."""
        weight = self.model.weights.get(name)
        return weight is not None and weight.dtype.name in INDICES

    def copyable(self, name: str) -> bool:
        """Whether each reader of an initializer may have a copy."""
        weight = self.model.weights.get(name)
        if weight is None or name not in self.fixed or self.is_index(name) or weight.size < 2:
            return False
        return self.slim(name) or name not in self.multiplied

    def shared(self, name: str) -> bool:
        """Whether a tensor has several readers."""
        return len(self.readings.get(name, ())) + (name in self.pinned) > 1

    def resolve_identities(self) -> None:
        """Where an Identity hands out a shared initializer, its readers read the initializer."""
        origin: dict[str, str] = {}
        for i, node in enumerate(self.nodes):
            if node.op_type != "Identity" or node.output[0] in self.pinned:
                continue
            source, target = origin.get(node.input[0], node.input[0]), node.output[0]
            if self.copyable(source) and (self.shared(source) or self.shared(target)):
                self.after[i], origin[target] = None, source
                others = [r for r in self.readings[source] if r.node is not node]
                self.readings[source] = others + self.readings.pop(target, [])

    def repeat_nodes(self) -> None:
        """Where a vector computed from parameters has several readers, each gets a node of its own."""
        for i in reversed(range(len(self.nodes))):
            node = self.nodes[i]
            if i not in self.after and self.repeatable(node) and self.shared(node.output[0]):
                own = 0 if node.output[0] in self.pinned else 1
                self.after[i] = [self.repeat(node, r) for r in self.readings[node.output[0]][own:]]

    def repeatable(self, node: onnx.NodeProto) -> bool:
        """Whether a node turns parameters into one vector, and nothing larger is computed twice with it."""
        parameters = [n for n in node.input if n and not self.is_index(n)]
        return len(node.output) == 1 and bool(parameters) and all(map(self.slim, [*parameters, *node.output]))

    def repeat(self, node: onnx.NodeProto, reading: Reading) -> onnx.NodeProto:
        """A copy of a node for one reader."""
        copy, name = onnx.NodeProto(), self.fresh(f"{node.output[0]}@{reading.reader}")
        copy.CopyFrom(node)
        copy.name = copy.output[0] = name
        self.copies[name] = node.output[0]
        reading.node.input[reading.slot] = name
        for slot, source in enumerate(node.input):
            self.readings[source].append(Reading(source, copy, slot, reading.reader))
        return copy

    def repeat_weights(self) -> None:
        """Each reader of a shared initializer gets a copy; the first keeps the initializer itself."""
        for name in [n for n in self.model.weights if self.shared(n) and self.copyable(n)]:
            taken = {name} if name in self.pinned else set()
            for k, reading in enumerate(self.readings[name]):
                copy = name if k == 0 else reading.name
                if copy in taken:
                    copy = self.fresh(f"{reading.name}@{reading.reader}")
                taken.add(copy)
                reading.node.input[reading.slot] = copy
                if copy != name:
                    self.copies[copy] = name

    def left(self) -> list[onnx.NodeProto]:
        """The nodes of the changed graph."""
        found = []
        for i, node in enumerate(self.nodes):
            new = self.after.get(i, [])
            found += [] if new is None else [node, *new]
        return found


def untie(model: Model) -> Model:
    """Give each reader of a shared parameter its own, where that costs next to nothing.

    Args:
        model: A result of `normalise`.

    Returns:
        The model with `copies` filled; the copies' arrays are the originals'. The model itself if nothing is shared.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    untying = Untying(replace(model, proto=proto), list(proto.graph.node))
    untying.resolve_identities()
    untying.repeat_nodes()
    untying.repeat_weights()
    if not untying.copies:
        return model
    replace_nodes(proto.graph, untying.left())
    return with_copies(replace(model, proto=proto), untying.copies)


def with_copies(model: Model, copies: Mapping[str, str]) -> Model:
    """The model, which names `copies` already, with what it knows of the originals said of them, too."""
    weights, graph = dict(model.weights), model.proto.graph
    described = {t.name: t for t in graph.initializer}
    for copy, name in copies.items():
        if name in weights:
            weights[copy] = weights[name]
            tensor = graph.initializer.add()
            tensor.CopyFrom(described[name])
            tensor.name = copy
    shapes = {c: model.shapes[n] for c, n in copies.items() if n in model.shapes}
    values = {c: model.values[n] for c, n in copies.items() if n in model.values}
    shapes, values = {**model.shapes, **shapes}, {**model.values, **values}
    return replace(model, weights=weights, shapes=shapes, values=values, copies={**model.copies, **copies})


def label(node: onnx.NodeProto) -> str:
    """What a node is called: its name, or its first output's."""
    return node.name or (node.output[0] if node.output else node.op_type)


def computes(node: onnx.NodeProto) -> bool:
    """Whether a node gives the same outputs for the same inputs, and has inputs at all."""
    return any(node.input) and not captured(node) and not node.op_type.startswith(RANDOM)


def multiplied(nodes: Iterable[onnx.NodeProto], fixed: set[str]) -> set[str]:
    """Of the tensors computed from initializers alone, those that data meets otherwise than element by element."""
    found: set[str] = set()
    for node in reversed(list(nodes)):
        prepares = all(o in fixed for o in node.output)
        if any(o in found for o in node.output) if prepares else node.op_type not in ELEMENTWISE:
            found.update(n for n in node.input if n in fixed)
    return found


def stored(copies: Mapping[str, str], labels: Mapping[str, Axes], keep: NDArray[np.bool_]) -> dict[str, str]:
    """Copy -> the tensor that holds it after pruning: those of one original that lost the same indices are one.

    Args:
        copies: Copy -> original.
        labels: Tensor -> labels.
        keep: Boolean per id.
    """
    holders = {(name, cut(labels.get(name, ()), keep)): name for name in copies.values()}
    return {copy: holders.setdefault((name, cut(labels.get(copy, ()), keep)), copy) for copy, name in copies.items()}


def cut(axes: Axes, keep: NDArray[np.bool_]) -> tuple[tuple[int, bytes], ...]:
    """What a tensor loses, in a form that can be compared: per axis that loses anything, the indices that stay."""
    live = [(k, keep[axis.ids]) for k, axis in enumerate(axes) if axis.ids is not None]
    return tuple((k, np.packbits(kept).tobytes()) for k, kept in live if not kept.all())
