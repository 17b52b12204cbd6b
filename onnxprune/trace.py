"""Find which channels depend on which. Law: what no rule describes freezes, with the node and the reason.

`trace` labels every index of every axis (see `labels`), lets each node's rule move and tie the labels, and reads the
result off as units (indices that go together), groups (units ranked together) and reasons for what must stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.labels import Axes, Axis, Freeze, Ids, Ties, components
from onnxprune.model import Model, captured
from onnxprune.normalise import normalise
from onnxprune.rules import CannotTrace, Op, Product, Rows, find
from onnxprune.rules.fit import can_label, refuse_unfit
from onnxprune.rules.op import Records
from onnxprune.rules.zeros import note_zeros

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Source:
    """A weight axis that produces channels.

    Attributes:
        tensor: Initializer name.
        axis: Its filter axis.
        node: The node that reads it.
        ids: Labels of the axis, in its own order (shape (blocks, width) where the axis counts within blocks).
    """

    tensor: str
    axis: int
    node: str
    ids: Ids


@dataclass(frozen=True, eq=False)
class Group:
    """Units whose sources are coupled; they are ranked against each other.

    Attributes:
        name: The first source's tensor (with its axis where another group begins with the same tensor).
        sources: The weight axes whose filters are removed together.
        units: Unit numbers, in the order of the sources' indices; a plan's positions index this array.
        rows: Families of rows over units that must lose equal numbers: arrays (rows, width) of unit numbers, -1 where
            the index cannot be removed.
    """

    name: str
    sources: tuple[Source, ...]
    units: Ids
    rows: tuple[Ids, ...]


@dataclass(frozen=True, eq=False)
class Dependencies:
    """Everything the later stages need to know about a graph.

    Attributes:
        model: The normalised model.
        labels: Tensor name -> labels.
        unit: Per id, its unit number, or -1 where it cannot be removed. Shape (ids,).
        cause: Per id, the index into `freezes` of why it cannot be removed, or -1. Shape (ids,).
        freezes: Reasons.
        groups: What can be pruned.
        held: Sources of which no index can be removed, with the reason.
        sources: All sources.
        products: The contractions' costs.
        axes: Distinct unit arrays of all tensor axes, each of which must keep an index.
    """

    model: Model
    labels: Mapping[str, Axes]
    unit: Ids
    cause: Ids
    freezes: Sequence[Freeze]
    groups: Sequence[Group]
    held: Sequence[tuple[Source, Freeze]]
    sources: Sequence[Source]
    products: Sequence[Product]
    axes: Sequence[Ids]

    @cached_property
    def unit_count(self) -> int:
        """Number of removable units in the graph."""
        return int(self.unit.max(initial=-1)) + 1

    def keep(self, removed: Ids) -> Mask:
        """Boolean array over ids for a set of removed unit numbers: True = kept."""
        gone = np.zeros(self.unit_count + 1, dtype=bool)
        gone[removed] = True
        gone[-1] = False
        kept: Mask = ~gone[self.unit]
        return kept

    def why(self, name: str) -> list[Freeze]:
        """The distinct reasons that hold some axis of a tensor, in order of axis."""
        found = []
        for k, axis in enumerate(self.labels.get(name, ())):
            causes = {axis.cause} if axis.ids is None else set(np.unique(self.cause[axis.ids]).tolist())
            found += [(k, self.freezes[c]) for c in sorted(causes) if c >= 0]
        return [f for _, f in found]


@dataclass
class Tracer:
    """The state of one walk over the nodes."""

    model: Model
    ties: Ties = field(default_factory=Ties)
    labels: dict[str, Axes | None] = field(default_factory=dict)
    records: Records = field(default_factory=Records)
    opened: dict[str, Axes] = field(default_factory=dict)
    free: frozenset[str] | None = frozenset()
    shared: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        graph = self.model.proto.graph
        self.readers = Counter(n for node in graph.node for n in [*node.input, *captured(node)])
        self.readers.update(o.name for o in graph.output)
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
        if self.free is not None and name not in self.free:
            self.shared.append((name, k))
            return None
        size = self.model.weights[name].shape[k]
        ids = self.ties.fresh(blocks * size).reshape(blocks, size)
        axes = tuple(Axis(ids, (own,)) if j == k else axis for j, axis in enumerate(axes))
        self.labels[name] = self.opened[name] = axes
        return ids

    def visit(self, node: onnx.NodeProto) -> None:
        """Carry labels through one node."""
        op = Op(node, self.model, self.ties, self.records, self.find)
        op.open_blocks = self.open_blocks
        note_zeros(op)
        rule = find(node)
        try:
            if rule is None or captured(node):
                raise CannotTrace(f"no rule for operator {'.'.join(filter(None, (node.domain, node.op_type)))}")
            refuse_unfit(op)
            outputs = rule.trace(op)
        except CannotTrace as refusal:
            self.give_up(op, str(refusal))
            return
        self.labels.update(zip(node.output, outputs, strict=False))
        for name in node.output[len(outputs) :]:
            self.hold(name, op, "an output its rule does not describe")

    def give_up(self, op: Op, reason: str) -> None:
        """Freeze everything a node touches."""
        for name in {*op.node.input, *captured(op.node)} - {""}:
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


def trace(model: Model, *, free_groups: bool = False) -> Dependencies:
    """Trace a normalised model.

    Args:
        model: A result of `normalise`; any other model is normalised first.
        free_groups: Let the groups of every convolution lose different input channels. There is more to choose from
            then, but what such a weight lost cannot be told by one list of indices (see `Removal.per_block`). Without
            it, that is done only where the same positions in every group would leave nothing to choose.
    """
    model = model if model.shapes else normalise(model)
    tracer = walk(model, None if free_groups else frozenset())
    if crowded := crowded_weights(tracer):
        tracer = walk(model, crowded)
    return collect(tracer)


def walk(model: Model, free: frozenset[str] | None) -> Tracer:
    """Visit every node. `free`: weights whose convolution groups may keep different positions (None: all)."""
    tracer = Tracer(model, free=free)
    for node in model.proto.graph.node:
        tracer.visit(node)
    for info in model.proto.graph.output:
        tracer.freeze_all(info.name, "the model's output", "")
    return tracer


def crowded_weights(tracer: Tracer) -> frozenset[str]:
    """Grouped weights for which 'the same positions in every group' ties positions to each other, too.

    A channel shuffle between two grouped convolutions deals the positions of one to the groups of the other, so that
    keeping the same positions in both leaves little or nothing to choose. There the groups are left free.
    """
    roots = tracer.ties.components() if tracer.shared else None
    crowded = set()
    for name, k in tracer.shared:
        ids = tracer.opened[name][k].ids
        if roots is not None and ids is not None and np.unique(roots[ids]).size < ids.size:
            crowded.add(name)
    return frozenset(crowded)


def collect(tracer: Tracer) -> Dependencies:
    """Solve the ties and read off units and groups."""
    ties, labels = tracer.ties, {n: a for n, a in tracer.labels.items() if a is not None}
    roots = ties.components()
    rows = whole_rows_apart(tracer, roots)
    sources = find_sources(tracer)
    produced = np.zeros(ties.count, dtype=bool)
    for source in sources:
        produced[roots[source.ids]] = True
    cause = ties.causes(roots)
    free = produced[roots] & (cause < 0)
    unit = np.full(ties.count, -1, dtype=np.int64)
    unit[free] = np.unique(roots[free], return_inverse=True)[1]
    return Dependencies(
        model=tracer.model,
        labels=labels,
        unit=unit,
        cause=cause,
        freezes=ties.freezes,
        groups=find_groups(sources, rows, unit),
        held=[(s, held_reason(s, cause, ties.freezes)) for s in sources if (unit[s.ids] < 0).all()],
        sources=sources,
        products=tracer.records.products,
        axes=distinct_axes(labels, unit),
    )


def whole_rows_apart(tracer: Tracer, roots: Ids) -> list[Rows]:
    """The rows that lose equal numbers. Rows whose members are all tied to their parent only go whole: no constraint.

    Where members go singly, a row itself stays, so its parent ids freeze.
    """
    equal = []
    for rows in tracer.records.rows:
        if rows.parents is not None and (roots[rows.ids] == roots[rows.parents][:, None]).all():
            continue
        if rows.parents is not None:
            cause = tracer.reason("every row keeps some of its members", rows.node, "", -1)
            tracer.ties.freeze(rows.parents, cause)
        equal.append(rows)
    return equal


def find_sources(tracer: Tracer) -> list[Source]:
    """Initializer axes that contractions named as sources."""
    reader: dict[int, str] = {}
    produced = np.zeros(tracer.ties.count, dtype=bool)
    for ids, node in tracer.records.sources:
        produced[ids] = True
        reader.setdefault(int(ids.ravel()[0]), node)
    found = []
    for name, axes in tracer.opened.items():
        for k, axis in enumerate(axes):
            if axis.ids is not None and axis.ids.size and produced[axis.ids].any():
                found.append(Source(name, k, reader.get(int(axis.ids.ravel()[0]), name), axis.ids))
    return found


def held_reason(source: Source, cause: Ids, freezes: Sequence[Freeze]) -> Freeze:
    """Why a source keeps every filter: the reason met most often among its indices."""
    return main_reason(source, cause, freezes) or Freeze("nothing to remove", source.node, source.tensor, source.axis)


def main_reason(source: Source, cause: Ids, freezes: Sequence[Freeze]) -> Freeze | None:
    """The reason met most often among the indices of a source that must stay; None if none has one."""
    causes = cause[source.ids]
    causes = causes[causes >= 0]
    return freezes[int(np.bincount(causes).argmax())] if causes.size else None


def find_groups(sources: Sequence[Source], rows: Sequence[Rows], unit: Ids) -> list[Group]:
    """Units that share a source, or a family of rows, belong to one group."""
    count = int(unit.max(initial=-1)) + 1
    families = [unit[r.ids] for r in rows]
    chains = [u[u >= 0] for u in [unit[s.ids].ravel() for s in sources] + [f.ravel() for f in families]]
    pairs = [(c[:-1], c[1:]) for c in chains if c.size > 1]
    if not count:
        return []
    label = components(count, *(np.concatenate(p) for p in zip(*pairs, strict=True))) if pairs else np.arange(count)
    members: dict[int, list[Source]] = {}
    for source, chain in zip(sources, chains, strict=False):
        if chain.size:
            members.setdefault(int(label[chain[0]]), []).append(source)
    of_rows: dict[int, list[Ids]] = {}
    for family in families:
        live = family[family >= 0]
        if live.size:
            of_rows.setdefault(int(label[live[0]]), []).append(family)
    names = Counter(found[0].tensor for found in members.values())
    groups = []
    for key, found in members.items():
        first = found[0]
        name = first.tensor if names[first.tensor] == 1 else f"{first.tensor}:{first.axis}"
        groups.append(make_group(name, found, of_rows.get(key, []), unit))
    return groups


def make_group(name: str, sources: Sequence[Source], rows: Sequence[Ids], unit: Ids) -> Group:
    """One group, its units in the order of the sources' indices."""
    every = np.concatenate([unit[s.ids].ravel() for s in sources])
    every = every[every >= 0]
    _, first = np.unique(every, return_index=True)
    distinct = {(f.shape, f.tobytes()): f for f in rows}
    return Group(name, tuple(sources), every[np.sort(first)], tuple(distinct.values()))


def distinct_axes(labels: Mapping[str, Axes], unit: Ids) -> list[Ids]:
    """The distinct unit arrays of all axes that can shrink; equal label arrays are looked at once."""
    seen: set[int] = set()
    found: dict[bytes, Ids] = {}
    for axes in labels.values():
        for axis in axes:
            if axis.ids is None or not axis.ids.size or id(axis.ids) in seen:
                continue
            seen.add(id(axis.ids))
            units = unit[axis.ids]
            if not axis.by and (units >= 0).all():  # rows have constraints of their own
                found.setdefault(units.tobytes(), units)
    return list(found.values())
