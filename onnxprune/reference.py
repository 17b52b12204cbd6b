"""What the pruned model equals where it was pruned through normalisations. Law: a mixing node sees only what stays.

A node that mixes channels with each other computes something else from fewer of them, so there the masked model proves
nothing. In the reference each such node reads the kept indices of its inputs, with its parameters cut, and zeros are
laid beside its results; all else is the masked model. That must equal the pruned model as exactly as ever. Activations
are cut by standard operators in the graph, so a wrong label shows as it does elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from onnxprune.labels import Axes, Ids
from onnxprune.model import Array, Model, Shape, bare
from onnxprune.names import namer
from onnxprune.normalise import drop_dead, replace_nodes
from onnxprune.rewrite import pruned_size, take, touched, version
from onnxprune.rules import find_resize
from onnxprune.rules.edit import Edit
from onnxprune.trace import Dependencies, Mask


def unreachable(dependencies: Dependencies, keep: Mask) -> tuple[str, ...]:
    """The mixing nodes for which no reference can be made: their stored sizes take more than attributes to correct."""
    nodes = dependencies.approximate(keep)
    return tuple(n.name or n.output[0] for n in nodes if corrected(dependencies, keep, n) is None)


def corrected(dependencies: Dependencies, keep: Mask, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """A node with its stored sizes as the pruned model has them; None where inputs or nodes around it change, too."""
    model, copy = dependencies.model, onnx.NodeProto()
    copy.CopyFrom(node)
    if (correct := find_resize(node)) is None:
        return copy
    facts = (dependencies.labels.get, model.shapes.get, model.values.get)
    edit = Edit(copy, keep, *facts, dict(model.weights), str, version(model, node))
    correct(edit)
    same = list(copy.input) == list(node.input) and list(copy.output) == list(node.output)
    return copy if same and not edit.before and not edit.after else None


def restricted(dependencies: Dependencies, keep: Mask, dense: Model) -> Model:
    """A dense model in which every node that mixes removed channels with others works on the kept ones only.

    Args:
        dependencies: The traced model.
        keep: Boolean per id.
        dense: The traced graph, with whatever weights; it is returned itself where no node mixes what is removed.
    """
    chosen = {node.output[0] for node in dependencies.approximate(keep)}
    if not chosen:
        return dense
    proto = onnx.ModelProto()
    proto.CopyFrom(dense.proto)
    around = Surroundings(dependencies, keep, namer(proto.graph), dict(dense.weights))
    for node in proto.graph.node:
        if node.output and node.output[0] in chosen:
            around.restrict(node)
        else:
            around.nodes.append(node)
    replace_nodes(proto.graph, around.nodes)
    proto.graph.initializer.extend(bare(n, w) for n, w in around.weights.items() if n not in dense.weights)
    return drop_dead(replace(dense, proto=proto, weights=around.weights))  # of cut parameters, the dense ones


@dataclass(frozen=True, eq=False)
class Cut:
    """One axis that loses indices.

    Attributes:
        axis: Its number.
        by: The axes its rows run over, as in `Axis`.
        stays: Which indices stay, in every row that does. Shape (rows, size); one row where `by` is empty.
        rows: The sizes of the `by` axes once they are cut.
    """

    axis: int
    by: tuple[int, ...]
    stays: Mask
    rows: tuple[int, ...]

    @property
    def picks(self) -> Ids:
        """Where the kept indices stand, over all rows."""
        return np.flatnonzero(self.stays)

    @property
    def returns(self) -> Ids:
        """For every dense index, over all rows, its place among the kept ones; one past their end if it went."""
        flat = self.stays.ravel()
        return np.where(flat, np.cumsum(flat) - 1, flat.sum()).astype(np.int64)


def cuts(axes: Axes, shape: Shape, keep: Mask) -> list[Cut]:
    """The cuts that take a tensor to what stays of it, in an order in which rows are cut before their members."""
    found = []
    for k, axis in enumerate(axes):
        if axis.ids is None or keep[axis.ids].all():
            continue
        stays = keep[axis.ids]
        known = [d if isinstance(d, int) else n for d, n in zip((shape[b] for b in axis.by), stays.shape, strict=False)]
        for t, size in enumerate(known):
            stays = np.repeat(stays, size // stays.shape[t], axis=t)
        members = stays.reshape(-1, stays.shape[-1])
        rows = tuple(int(pruned_size(axes[b], n, keep) or 0) for b, n in zip(axis.by, known, strict=True))
        found.append(Cut(k, axis.by, members[members.any(axis=1)], rows))
    return sorted(found, key=lambda cut: len(cut.by))


@dataclass(eq=False)
class Surroundings:
    """The nodes of the reference, and its weights, in the making."""

    dependencies: Dependencies
    keep: Mask
    fresh: Callable[[str], str]
    weights: dict[str, Array]
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def restrict(self, node: onnx.NodeProto) -> None:
        """Put a node between nodes that take what stays and nodes that lay zeros beside its results."""
        node = corrected(self.dependencies, self.keep, node) or node
        node.input[:] = [self.kept(name) for name in node.input]
        self.nodes.append(node)
        for j, name in enumerate(node.output):
            if planned := self.planned(name):
                node.output[j] = self.fresh(f"{name}_kept")
                self.widen(node.output[j], name, planned)

    def planned(self, name: str) -> list[Cut]:
        """How a tensor is cut."""
        axes = self.dependencies.labels.get(name) or ()
        return cuts(axes, self.dependencies.model.shapes.get(name, (None,) * len(axes)), self.keep)

    def kept(self, name: str) -> str:
        """A tensor's kept indices: a new weight, or the end of a row of nodes."""
        weight, axes = self.dependencies.model.weights.get(name), self.dependencies.labels.get(name)
        if weight is not None:
            lost = axes is not None and touched(axes, self.keep)
            return self.constant(name, take(weight, axes, self.keep)) if lost and axes else name
        source = name
        for cut in self.planned(name):
            name = self.along(name, source, cut, cut.picks, int(cut.stays.sum(axis=1).max()))
        return name

    def widen(self, name: str, target: str, planned: Sequence[Cut]) -> None:
        """Bring a tensor back to its dense size under its dense name, with zeros for what was cut."""
        for cut in reversed(planned):
            name = self.along(name, target, cut, cut.returns, cut.stays.shape[1], pad=True)
        self.nodes.append(onnx.helper.make_node("Identity", [name], [target], name=self.fresh(f"{target}_dense")))

    def along(self, x: str, base: str, cut: Cut, index: Ids, width: int, *, pad: bool = False) -> str:
        """Gather `index` along an axis, which rows share: those are flattened into it meanwhile.

        With `pad`, one zero is laid behind the axis first.
        """
        rank = len(self.dependencies.labels[base])
        around = [k for k in range(rank) if k != cut.axis and k not in cut.by]
        order = [*around, *cut.by, cut.axis] if cut.by else list(range(rank))
        axis = len(around) if cut.by else cut.axis
        if cut.by:
            x = self.add("Transpose", base, x, perm=order)
            x = self.reshaped(x, base, [*[0] * axis, -1])
        if pad:
            x = self.padded(x, base, axis + 1 if cut.by else rank, axis)
        x = self.add("Gather", base, x, self.constant(f"{base}_at", index), axis=axis)
        if cut.by:
            x = self.reshaped(x, base, [*[0] * axis, *cut.rows, width])
            x = self.add("Transpose", base, x, perm=np.argsort(order).tolist())
        return x

    def reshaped(self, x: str, base: str, dims: Sequence[int]) -> str:
        """A Reshape; before operator set 5 it stores its target as an attribute."""
        if self.opset < 5:
            return self.add("Reshape", base, x, shape=list(dims))
        return self.add("Reshape", base, x, self.constant(f"{base}_dims", np.array(dims, dtype=np.int64)))

    def padded(self, x: str, base: str, rank: int, axis: int) -> str:
        """One zero behind the end of an axis."""
        pads = [int(k == rank + axis) for k in range(2 * rank)]
        if self.opset < 11:
            return self.add("Pad", base, x, **{"pads" if self.opset > 1 else "paddings": pads})
        return self.add("Pad", base, x, self.constant(f"{base}_pads", np.array(pads, dtype=np.int64)))

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return self.dependencies.model.opsets.get("", 1)

    def constant(self, base: str, value: Array) -> str:
        """A new weight; its name."""
        name = self.fresh(f"{base}_kept")
        self.weights[name] = value
        return name

    def add(self, kind: str, base: str, *inputs: str, **attributes: Any) -> str:
        """A new node; the name of its output."""
        name = self.fresh(f"{base}_{kind.lower()}")
        self.nodes.append(onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name
