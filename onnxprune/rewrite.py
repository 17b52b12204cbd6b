"""Make the pruned and the masked model. Law: one traversal over the labels; only the leaf function differs.

`take` slices an array to the kept indices, `zero` writes zeros over the removed ones. Both models come from the same
labels, which is why `verify` compares them by running both, and why the tests also check non-interference, which does
not depend on this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.errors import PlanError
from onnxprune.graph import every_graph, every_node, replace_nodes, subgraphs
from onnxprune.labels import Axes, Axis, zero
from onnxprune.model import Array, Model, Shape, bare
from onnxprune.nested import Names
from onnxprune.normalise import drop_dead
from onnxprune.rules import find_resize
from onnxprune.rules.edit import Edit
from onnxprune.rules.integers import parameters
from onnxprune.sharing import stored
from onnxprune.trace import Dependencies, Mask

UNDEFINED_AT_ZERO = {"Div": 1, "Reciprocal": 0, "Log": 0, "Pow": 0}  # operator -> the operand that must not be zeroed
NORMS = ("Reduce", "LpNormalization")  # of a weight: it is about to be divided by its own norm
Leaf = Callable[[Array, Axes, Mask], Array]


@dataclass(frozen=True, eq=False)
class Removal:
    """What became smaller.

    Attributes:
        indices: Initializer -> axis -> removed indices, ascending.
        per_block: Initializer -> axis -> removed indices for each block of the axis that divides it (the input
            channels of a grouped convolution, where groups lost different positions).
        copies: For every reader of a shared initializer that lost other indices than the first: its copy -> the
            initializer. Copies of one that lost the same are stored once, under the first one's name.
    """

    indices: Mapping[str, Mapping[int, list[int]]]
    per_block: Mapping[str, Mapping[int, list[list[int]]]]
    copies: Mapping[str, str] = field(default_factory=dict)


def take(array: Array, axes: Axes, keep: Mask) -> Array:
    """The kept indices of every axis, as a new array. Shape: the pruned one."""
    blocked = [k for k, a in enumerate(axes) if a.ids is not None and a.by]
    for k, axis in enumerate(axes):
        if axis.ids is not None and not axis.by and not keep[axis.ids].all():
            if any(k in axes[b].by for b in blocked):
                continue
            array = np.compress(keep[axis.ids], array, axis=k)
    for k in blocked:
        array = take_blocks(array, axes, k, keep)
    return array


def take_blocks(array: Array, axes: Axes, k: int, keep: Mask) -> Array:
    """Slice axis `k`, whose ids differ between blocks of another axis, and that other axis with it."""
    axis, own = axes[k], axes[k].by[0]
    assert axis.ids is not None and len(axis.by) == 1
    outer = axes[own].ids
    kept_outer = np.ones(array.shape[own], dtype=bool) if outer is None else keep[outer]
    parts = []
    for block, rows in enumerate(np.split(np.arange(array.shape[own]), axis.ids.shape[0])):
        inner = keep[axis.ids[block]]
        rows = rows[kept_outer[rows]]
        if rows.size and inner.any():
            parts.append(np.compress(inner, np.take(array, rows, axis=own), axis=k))
    return np.concatenate(parts, axis=own)


def touched(axes: Axes, keep: Mask) -> bool:
    """Whether any index of a tensor is removed."""
    return any(a.ids is not None and not keep[a.ids].all() for a in axes)


def apply_leaf(dependencies: Dependencies, keep: Mask, leaf: Leaf, spared: frozenset[str]) -> dict[str, Array]:
    """All weights, with `leaf` applied to those that lose indices. The untouched ones are shared, not copied."""
    weights = dict(dependencies.model.weights)
    for name, array in dependencies.model.weights.items():
        axes = dependencies.labels.get(name)
        if axes is not None and name not in spared and touched(axes, keep):
            weights[name] = leaf(array, axes, keep)
            weights[name].flags.writeable = False
    return weights


def severed(dependencies: Dependencies, removed: Array) -> Model:
    """The dense model with only the readers of removed channels zeroed: those compute on, but nothing reads them.

    For graphs in which a channel of zeros is divided by its own zero norm, and `masked` is not a number.
    """
    keep = dependencies.keep(np.asarray(removed, dtype=np.int64))
    filters = {(s.tensor, s.axis) for s in dependencies.sources}
    weights = dict(dependencies.model.weights)
    for name in {tensor for tensor, _ in filters}:
        axes = tuple(Axis() if (name, k) in filters else a for k, a in enumerate(dependencies.labels[name]))
        if touched(axes, keep):
            weights[name] = zero(weights[name], axes, keep)
    return replace(dependencies.model, weights=weights)


def masked(dependencies: Dependencies, removed: Array) -> Model:
    """The dense model with the removed indices zeroed.

    Divisors and the like are spared: zero over zero is not a number, and what they act on is cut off by its reader.
    Integers become the one that stands for zero; their scales and zero points stay.
    """
    keep = dependencies.keep(np.asarray(removed, dtype=np.int64))
    nodes = list(every_node(dependencies.model.proto.graph))
    spared = {n.input[UNDEFINED_AT_ZERO[n.op_type]] for n in nodes if n.op_type in UNDEFINED_AT_ZERO}
    spared |= {name for n in nodes if n.op_type.startswith(NORMS) for name in n.input[:1]}
    spared |= set(parameters(dependencies.model))
    weights = apply_leaf(dependencies, keep, zero, frozenset(spared))
    for name, meaning in dependencies.meanings.items():
        stored, axes = dependencies.model.weights[name], dependencies.labels.get(name)
        if meaning.zero.any() and axes is not None and touched(axes, keep):
            origin = meaning.zero.astype(np.int64)
            weights[name] = (zero(stored.astype(np.int64) - origin, axes, keep) + origin).astype(stored.dtype)
    return replace(dependencies.model, weights=weights)


def rewrite(dependencies: Dependencies, removed: Array) -> Model:
    """The physically smaller model.

    Args:
        dependencies: A traced model.
        removed: Unit numbers to remove.

    Raises:
        PlanError: Some axis would be left without an index, or the rows of a group would become uneven.
    """
    removed = np.asarray(removed, dtype=np.int64)
    check_axes(dependencies, dependencies.gone(removed))
    keep = dependencies.keep(removed)
    proto = onnx.ModelProto()
    proto.CopyFrom(dependencies.model.proto)
    weights = apply_leaf(dependencies, keep, take, frozenset())
    correct_nodes(dependencies, keep, proto.graph, weights, Names(proto.graph).fresh)
    rejoin(dependencies, keep, proto)
    del proto.graph.initializer[:]
    described = {t.name: t for t in dependencies.model.proto.graph.initializer}
    for name, array in weights.items():
        tensor = bare(name, array)
        if name in described:
            tensor.doc_string = described[name].doc_string
            tensor.metadata_props.extend(described[name].metadata_props)
        proto.graph.initializer.append(tensor)
    keep_strings(dependencies.model.proto, proto, weights)
    shapes = {name: pruned_shape(dependencies, name, keep) for name in dependencies.model.shapes}
    correct_infos(proto, shapes)
    if proto.ir_version < 4:
        write_as_nodes(proto, weights)
    return drop_dead(replace(dependencies.model, proto=proto, weights=weights, shapes=shapes, values={}, copies={}))


def rejoin(dependencies: Dependencies, keep: Mask, proto: onnx.ModelProto) -> None:
    """Let the readers of copies that were cut alike read the same tensor again."""
    holders = stored(dependencies.model.copies, dependencies.labels, keep)
    for node in proto.graph.node:
        node.input[:] = [holders.get(name, name) for name in node.input]


def write_as_nodes(proto: onnx.ModelProto, weights: dict[str, Array]) -> None:
    """Before IR version 4 every initializer must be an input of the graph, so new constants become nodes instead."""
    inputs = {i.name for i in proto.graph.input}
    new = [name for name in weights if name not in inputs]
    stored = [t for t in proto.graph.initializer if t.name in inputs]
    nodes = [
        onnx.helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(weights.pop(name), name))
        for name in new
    ]
    replace_nodes(proto.graph, [*nodes, *proto.graph.node])
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(stored)


def keep_strings(dense: onnx.ModelProto, proto: onnx.ModelProto, weights: Mapping[str, Array]) -> None:
    """Initializers that are not numbers stay as they were."""
    proto.graph.initializer.extend(t for t in dense.graph.initializer if t.name not in weights)


def check_axes(dependencies: Dependencies, gone: Mask) -> None:
    """Refuse a removal that empties an axis or unbalances rows. `gone` is per unit."""
    for axis in dependencies.axes:
        if gone[axis].all():
            group = next(g for g in dependencies.groups if np.isin(axis, g.units).any())
            what = f"removing these channels of '{group.name}' would leave an axis empty"
            raise PlanError(what, remedy="keep at least one channel of every layer")
    for group in dependencies.groups:
        for rows in group.rows:
            counts = (~gone[rows.members]).sum(axis=1)[~gone[rows.parents]]
            if counts.size == 0 or counts.min() != counts.max() or counts.min() == 0:
                what = (
                    f"the rows of '{group.name}' would keep {counts.min(initial=0)} to {counts.max(initial=0)} channels"
                )
                raise PlanError(what, remedy="leave equally many in every row, and at least one")


def correct_nodes(
    dependencies: Dependencies,
    keep: Mask,
    graph: onnx.GraphProto,
    weights: dict[str, Array],
    fresh: Callable[[str], str],
) -> None:
    """Let the resize half of each rule correct the sizes its node stores, in a graph and in the bodies within it."""
    model = dependencies.model
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for body in subgraphs(node):
            correct_nodes(dependencies, keep, body, weights, fresh)
        correct = find_resize(node)
        if correct is None:
            nodes.append(node)
            continue
        facts = (dependencies.labels.get, model.shapes.get, model.known)
        edit = Edit(node, keep, *facts, weights, fresh, version(model, node))
        if any(edit.changed(name) for name in (*node.input, *node.output)):
            correct(edit)
        nodes += [*edit.before, node, *edit.after]
    replace_nodes(graph, nodes)


def version(model: Model, node: onnx.NodeProto) -> int:
    """The operator set version a node belongs to."""
    return model.opsets.get("" if node.domain == "ai.onnx" else node.domain, 1)


def pruned_shape(dependencies: Dependencies, name: str, keep: Mask) -> Shape:
    """Dimensions of a tensor after pruning."""
    dense, axes = dependencies.model.shapes[name], dependencies.labels.get(name)
    if axes is None:
        return dense
    return tuple(pruned_size(a, d, keep) for a, d in zip(axes, dense, strict=True))


def pruned_size(axis: Axis, dense: int | str | None, keep: Mask) -> int | str | None:
    """Size of one axis after pruning; of an axis in rows, what one living row keeps."""
    if axis.ids is None or keep[axis.ids].all():
        return dense
    return int(keep[axis.ids].sum(axis=-1).max())


def correct_infos(proto: onnx.ModelProto, shapes: Mapping[str, Shape]) -> None:
    """Make the recorded dimensions of inputs, outputs and intermediate tensors true again."""
    for info in (i for g in every_graph(proto.graph) for i in (*g.value_info, *g.input, *g.output)):
        dims = info.type.tensor_type.shape.dim
        for dim, size in zip(dims, shapes.get(info.name, ()), strict=False):
            if isinstance(size, int) and dim.HasField("dim_value"):
                dim.dim_value = size


def removal(dependencies: Dependencies, removed: Array) -> Removal:
    """Which indices of which initializers a removal takes away."""
    keep = dependencies.keep(np.asarray(removed, dtype=np.int64))
    model = dependencies.model
    indices: dict[str, dict[int, list[int]]] = {}
    per_block: dict[str, dict[int, list[list[int]]]] = {}
    holders = stored(model.copies, dependencies.labels, keep)
    rejoined = {copy for copy, name in model.copies.items() if holders[copy] == name}
    for name in [n for n in model.weights if n not in rejoined]:
        for k, axis in enumerate(dependencies.labels.get(name, ())):
            if axis.ids is None or keep[axis.ids].all():
                continue
            rows = keep[axis.ids].reshape(-1, axis.ids.shape[-1])
            rows = rows[rows.any(axis=1)]
            if rows.all():  # whole blocks went, with the axis that counts them; what is left of this one is whole
                continue
            if (rows == rows[0]).all():
                indices.setdefault(name, {})[k] = np.flatnonzero(~rows[0]).tolist()
            else:
                per_block.setdefault(name, {})[k] = [np.flatnonzero(~r).tolist() for r in rows]
    copies = {c: n for c, n in model.copies.items() if c in model.weights and c not in rejoined}
    return Removal(indices, per_block, copies)
