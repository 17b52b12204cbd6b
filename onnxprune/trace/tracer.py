"""Walk over the nodes. Law: what no rule describes freezes, with the node and the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx

from onnxprune.errors import debugging, described
from onnxprune.graph import captured, reads, subgraphs
from onnxprune.labels import Axes, Axis, Freeze, Ids, Ties, fits
from onnxprune.model import Model
from onnxprune.normalise import normalise
from onnxprune.rules import CannotTrace, Op, find
from onnxprune.rules.fit import can_label, refuse_unfit
from onnxprune.rules.records import Records
from onnxprune.rules.zeros import note_mixed, note_zeros
from onnxprune.sharing import untie
from onnxprune.trace.dependencies import Dependencies
from onnxprune.trace.units import Walked, collect


@dataclass
class Tracer:
    """The state of one walk over the nodes."""

    model: Model
    ties: Ties = field(default_factory=Ties)
    labels: dict[str, Axes | None] = field(default_factory=dict)
    records: Records = field(default_factory=Records)
    opened: dict[str, Axes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.readers = Counter(reads(self.model.proto.graph))
        for info in self.model.inputs:
            shape = self.model.shapes.get(info.name)
            if shape is not None:
                self.labels[info.name] = tuple(
                    Axis(cause=self.reason("the model's input", "", info.name, k)) for k in range(len(shape))
                )

    def reason(self, text: str, node: str, tensor: str, axis: int) -> int:
        """Record a reason; its number."""
        self.ties.freezes.append(Freeze(text, node, tensor, axis))
        return len(self.ties.freezes) - 1

    def find(self, name: str) -> Axes | None:
        """The labels of a tensor; an initializer is opened at its first use."""
        if name not in self.labels:
            self.labels[name] = self.open(name)
        return self.labels[name]

    def open(self, name: str) -> Axes | None:
        """Fresh ids for every axis of an initializer; frozen axes for what cannot be sliced."""
        weight = self.model.weights.get(name)
        if weight is None or not can_label(weight.shape):
            shape = self.model.shapes.get(name) if weight is None else weight.shape
            reason = "not a dense initializer" if weight is None else "no axis, or one too long to label"
            cause = self.reason(reason, "", name, -1)
            return None if shape is None else tuple(Axis(cause=cause) for _ in shape)
        self.opened[name] = tuple(Axis(self.ties.fresh(size)) for size in weight.shape)
        return self.opened[name]

    def open_blocks(self, name: str, k: int, blocks: int, own: int) -> Ids | None:
        """Give axis `k` of an initializer ids for each block of axis `own`, if this node alone reads it."""
        axes = self.find(name)
        if name not in self.opened or self.readers[name] != 1 or axes is None:
            return None
        size = self.model.weights[name].shape[k]
        ids = self.ties.fresh(blocks * size).reshape(blocks, size)
        axes = tuple(Axis(ids, (own,)) if j == k else axis for j, axis in enumerate(axes))
        self.labels[name] = self.opened[name] = axes
        return ids

    def visit(self, node: onnx.NodeProto) -> None:
        """Carry labels through one node; a rule that fails in an unforeseen way freezes it like one that refuses."""
        op = Op(node, self.model, self.ties, self.records, self.find)
        op.open_blocks, op.enter = self.open_blocks, self.enter
        rule = find(node)
        try:
            note_zeros(op)
            if rule is None:
                raise CannotTrace(self.unknown(node))
            refuse_unfit(op)
            outputs = rule.trace(op)
            note_mixed(op, outputs)
            for name, axes in zip(node.output, outputs, strict=False):
                shape = self.model.shapes.get(name)
                if axes is not None and shape is not None and not fits(axes, shape):
                    raise ValueError(f"wrong labels for '{name}'")  # every later stage counts on them
        except CannotTrace as refusal:
            self.records.mixed.pop(node.output[0] if node.output else "", None)
            self.give_up(op, str(refusal))
            return
        except Exception as error:
            if debugging():
                raise
            self.records.mixed.pop(node.output[0] if node.output else "", None)
            self.give_up(op, f"internal error in the rule for {node.op_type}: {described(error)}")
            return
        self.labels.update((name, axes) for name, axes in zip(node.output, outputs, strict=False) if name)
        for name in node.output[len(outputs) :]:
            self.hold(name, op, "an output its rule does not describe")

    def enter(self, body: onnx.GraphProto, given: Sequence[Axes | None]) -> list[Axes | None]:
        """Carry labels through a body, from those of its inputs to those of its outputs."""
        self.labels.update(zip((i.name for i in body.input), given, strict=False))
        for node in body.node:
            self.visit(node)
        return [self.find(o.name) for o in body.output]

    def unknown(self, node: onnx.NodeProto) -> str:
        """Why a node has no rule."""
        name = ".".join(filter(None, (node.domain, node.op_type)))
        if any((f.domain, f.name) == (node.domain, node.op_type) for f in self.model.proto.functions):
            return f"no rule for '{name}', a function of the model that cannot be inlined"
        return f"no rule for operator {name}"

    def give_up(self, op: Op, reason: str) -> None:
        """Freeze everything a node touches, and what its bodies are fed and give out."""
        ends = [info.name for body in subgraphs(op.node) for info in (*body.input, *body.output)]
        for name in {*op.node.input, *captured(op.node), *ends} - {""}:
            self.freeze_all(name, reason, op.name)
        for name in op.node.output:
            self.hold(name, op, reason)

    def hold(self, name: str, op: Op, reason: str) -> None:
        """Give a node's output frozen labels, or none where its rank is unknown."""
        shape = self.model.shapes.get(name)
        cause = self.reason(reason, op.name, name, -1)
        self.labels[name] = None if shape is None else tuple(Axis(cause=cause) for _ in shape)

    def freeze_all(self, name: str, reason: str, node: str) -> None:
        """Freeze every axis of a tensor."""
        for k, axis in enumerate(self.find(name) or ()):
            if axis.ids is not None:
                self.ties.freeze(axis.ids, self.reason(reason, node, name, k))


def trace(model: Model, *, free_groups: bool = False, through_norms: bool = False) -> Dependencies:
    """Trace a normalised model.

    Args:
        model: A result of `normalise`; any other model is normalised first.
        free_groups: Let the groups of every convolution lose different input channels. There is more to choose from
            then, but what such a weight lost cannot be told by one list of indices (see `Removal.per_block`). Without
            it, that is done only where the same positions in every group would leave nothing to choose.
        through_norms: Let channels go that are normalised, or summed, over. What such a node computes from fewer
            channels is not what it computed: the pruned model is an approximation (see `Dependencies.approximate`).
    """
    model = untie(model if model.shapes else normalise(model))
    tracer = Tracer(model, records=Records(through=through_norms))
    for node in model.proto.graph.node:
        tracer.visit(node)
    for info in model.proto.graph.output:
        tracer.freeze_all(info.name, "the model's output", "")
    labels = {n: a for n, a in tracer.labels.items() if a is not None}
    return collect(Walked(model, labels, tracer.opened, tracer.ties, tracer.records), free_groups=free_groups)
