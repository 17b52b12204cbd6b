"""What `onnxprune inspect` knows. Law: every axis of every tensor is either in a group or has a reason."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import onnx

from onnxprune.cost import Cost, cost, dense_mask
from onnxprune.dead import dead_units
from onnxprune.errors import ModelError
from onnxprune.graph import every_node
from onnxprune.labels import Axis, Ids
from onnxprune.model import Dim, Model
from onnxprune.plan.document import describe
from onnxprune.report import words
from onnxprune.report.data import UNPRODUCED, Frozen, frozen_axes, group_macs, macs_by_node, nodes_of, plain
from onnxprune.rules import find
from onnxprune.trace import Dependencies, Group

SCHEMA = "onnxprune/inspect/1"
NEAREST = 3
NO_CHANNELS = "not an axis of channels"
NUMBERS = "read for its numbers (sizes, bounds), not as data"


@dataclass(frozen=True)
class GroupSummary:
    """One group of coupled channels.

    Attributes:
        name: Its first source's tensor.
        sources: The weight axes whose filters go together, as `tensor:axis`.
        nodes: The node that reads each source.
        channels: Units in the group.
        rows: (rows, width) of each family of rows that must lose equal numbers.
        macs: Multiply-accumulates of the sources' nodes, for one sample.
    """

    name: str
    sources: tuple[str, ...]
    nodes: tuple[str, ...]
    channels: int
    rows: tuple[tuple[int, int], ...]
    macs: int


@dataclass(frozen=True)
class Inspection:
    """A model as onnxprune sees it.

    Attributes:
        model: The file, or the graph's name.
        opsets: Operator set domain -> version.
        inputs: Name -> type and dimensions, e.g. 'float [N, 3, 32, 32]'.
        outputs: The same of the outputs.
        nodes: Nodes after normalisation.
        cost: Parameters, multiply-accumulates, bytes.
        groups: What can be pruned.
        frozen: Filter axes that must stay.
        unknown: Operators without a rule, which freeze what they touch -> their number of nodes.
        open_sizes: Whether an input leaves more open than its batch; costs count such sizes as 1.
        dead: Units that no output depends on, by cause.
        through: The nodes that pruning would change because they mix channels -> operator; empty unless asked for.
    """

    model: str
    opsets: dict[str, int]
    inputs: dict[str, str]
    outputs: dict[str, str]
    nodes: int
    cost: Cost
    groups: tuple[GroupSummary, ...]
    frozen: tuple[Frozen, ...]
    unknown: dict[str, int]
    open_sizes: bool
    dead: dict[str, int]
    through: dict[str, str]

    def to_dict(self) -> dict[str, object]:
        """As JSON types; `through` only where there is any."""
        held = {"schema": SCHEMA, **asdict(self), "frozen": [f.to_dict() for f in self.frozen]}
        return {key: plain(value) for key, value in held.items() if key != "through" or value}


@dataclass(frozen=True)
class Reason:
    """Why indices of an axis must stay: the reason, where it was met, and how many indices it holds (0: no labels)."""

    reason: str
    node: str
    tensor: str
    axis: int
    held: int


@dataclass(frozen=True)
class AxisView:
    """One axis of one tensor.

    Attributes:
        axis: Its number.
        size: Its dimension: a number, a symbol, or None.
        groups: Group name -> indices of this axis that belong to it.
        frozen: Reasons for the others; an axis that can shrink freely has none.
    """

    axis: int
    size: Dim
    groups: dict[str, int]
    frozen: tuple[Reason, ...]


@dataclass(frozen=True)
class TensorView:
    """One tensor; `role` is 'weight', 'input', 'output' or 'activation'; `axes` is None where the rank is unknown."""

    tensor: str
    role: str
    axes: tuple[AxisView, ...] | None


@dataclass(frozen=True)
class Why:
    """The answer to `inspect --why NAME`.

    Attributes:
        name: What was asked for.
        operator: Of a node; '' for a tensor.
        rule: The operator's rule in one line; '' where it has none and freezes what it touches.
        tensors: The tensor itself, with the copies its readers have if it is shared, or everything the node reads and
            writes.
    """

    name: str
    operator: str
    rule: str
    tensors: tuple[TensorView, ...]

    def to_dict(self) -> dict[str, object]:
        """As JSON types."""
        return {key: plain(value) for key, value in {"schema": SCHEMA, **asdict(self)}.items()}


def inspect_dict(dependencies: Dependencies, name: str | None = None) -> dict[str, object]:
    """The JSON form of `inspect`, or of `inspect --why NAME`.

    Raises:
        ModelError: Nothing has that name.
    """
    return inspection(dependencies).to_dict() if name is None else why(dependencies, name).to_dict()


def inspection(dependencies: Dependencies) -> Inspection:
    """Summarise a traced model."""
    model = dependencies.model
    graph = model.proto.graph
    work = macs_by_node(dependencies, dense_mask(dependencies))
    return Inspection(
        model=str(model.path or graph.name or "model"),
        opsets={domain or "ai.onnx": number for domain, number in model.opsets.items()},
        inputs={i.name: kind(i) for i in model.inputs},
        outputs={o.name: kind(o) for o in graph.output},
        nodes=sum(1 for _ in every_node(graph)),
        cost=cost(dependencies),
        groups=tuple(summary(g, group_macs(g, work)) for g in dependencies.groups),
        frozen=frozen_axes(dependencies),
        unknown=dict(Counter(operator(n) for n in every_node(graph) if find(n) is None).most_common()),
        open_sizes=any(d.dim_value < 1 for i in model.inputs for d in i.type.tensor_type.shape.dim[1:]),
        dead=dict(dead_units(dependencies).counts),
        through={n.name or n.output[0]: operator(n) for n in dependencies.approximate()},
    )


def operator(node: onnx.NodeProto) -> str:
    """An operator's name, with its domain unless that is ONNX's own."""
    return words.qualified(node.domain, node.op_type)


def summary(group: Group, macs: int) -> GroupSummary:
    """One group's figures."""
    rows = tuple(r.shape for r in group.rows)
    return GroupSummary(group.name, describe(group.sources), nodes_of(group), int(group.units.size), rows, macs)


def kind(info: onnx.ValueInfoProto) -> str:
    """Type and dimensions of a graph input or output."""
    tensor = info.type.tensor_type
    if not info.type.HasField("tensor_type"):
        return str(info.type.WhichOneof("value") or "unknown")
    dims = [str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim]
    shape = f"[{', '.join(dims)}]" if tensor.HasField("shape") else "of unknown rank"
    return f"{onnx.TensorProto.DataType.Name(tensor.elem_type).lower()} {shape}"


def why(dependencies: Dependencies, name: str) -> Why:
    """Explain one tensor, or everything a node touches.

    Raises:
        ModelError: Nothing has that name.
    """
    model, owners = dependencies.model, dependencies.owner
    tensors = tensor_names(model)
    nodes = [n for n in every_node(model.proto.graph) if n.name and n.name == name]
    if name in tensors and not nodes:
        every = [name, *(copy for copy, original in model.copies.items() if original == name)]
        return Why(name, "", "", tuple(tensor_view(dependencies, t, tensors[t], owners) for t in every))
    if not nodes:
        known = list(tensors) + [n.name for n in every_node(model.proto.graph) if n.name]
        where = str(model.path or "model")
        raise ModelError(f"no tensor or node is called '{name}'", where=where, remedy=suggestion(name, known))
    touched = dict.fromkeys(t for n in nodes for t in [*n.input, *n.output] if t)
    rule = find(nodes[0])
    views = tuple(tensor_view(dependencies, t, tensors[t], owners) for t in touched)
    return Why(name, operator(nodes[0]), rule.summary if rule else "", views)


def tensor_names(model: Model) -> dict[str, str]:
    """Every tensor's role."""
    graph = model.proto.graph
    found = {name: "activation" for node in every_node(graph) for name in [*node.input, *node.output] if name}
    found |= dict.fromkeys((t.name for t in graph.initializer), "weight")
    found |= dict.fromkeys((i.name for i in model.inputs), "input")
    return found | dict.fromkeys((o.name for o in graph.output), "output")


def suggestion(name: str, known: Sequence[str]) -> str:
    """The names nearest to one that does not exist."""
    inside = [k for k in known if name and name.lower() in k.lower()]
    near = difflib.get_close_matches(name, known, n=NEAREST, cutoff=0.6)
    found = list(dict.fromkeys([*near, *inside]))[:NEAREST] or list(known)[:NEAREST]
    verb = "did you mean" if near or inside else "names look like"
    return f"{verb} {', '.join(repr(f) for f in found)}" + ("?" if near or inside else "")


def tensor_view(dependencies: Dependencies, name: str, role: str, owners: Ids) -> TensorView:
    """Every axis of one tensor."""
    model, labels = dependencies.model, dependencies.labels.get(name)
    weight = model.weights.get(name)
    shape = model.shapes.get(name) if weight is None else weight.shape
    if shape is None:
        return TensorView(name, role, None)
    if labels is None:
        numbers = (Reason(NUMBERS, "", "", -1, 0),)
        return TensorView(name, role, tuple(AxisView(k, dim, {}, numbers) for k, dim in enumerate(shape)))
    pairs = enumerate(zip(labels, shape, strict=True))
    return TensorView(name, role, tuple(axis_view(dependencies, k, axis, dim, owners) for k, (axis, dim) in pairs))


def axis_view(dependencies: Dependencies, k: int, axis: Axis, size: Dim, owners: Ids) -> AxisView:
    """Which groups one axis belongs to, and why the rest of it stays."""
    if axis.ids is None:
        return AxisView(k, size, {}, (reason(dependencies, axis.cause, 0, NO_CHANNELS),))
    units = dependencies.unit[axis.ids].ravel()
    groups, sizes = np.unique(owners[units[units >= 0]], return_counts=True)
    causes, held = np.unique(dependencies.cause[axis.ids].ravel()[units < 0], return_counts=True)
    return AxisView(
        k,
        size,
        {dependencies.groups[g].name: n for g, n in zip(groups.tolist(), sizes.tolist(), strict=True)},
        tuple(reason(dependencies, c, n) for c, n in zip(causes.tolist(), held.tolist(), strict=True)),
    )


def reason(dependencies: Dependencies, cause: int, held: int, otherwise: str = UNPRODUCED) -> Reason:
    """One recorded reason, or the absence of one."""
    if cause < 0:
        return Reason(otherwise, "", "", -1, held)
    freeze = dependencies.freezes[cause]
    return Reason(freeze.reason, freeze.node, freeze.tensor, freeze.axis, held)


__all__ = ["Inspection", "Why", "inspect_dict", "inspection", "why"]
