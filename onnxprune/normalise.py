"""Bring a graph into the form the tracer reads. Law: it computes what it computed, and every name is kept.

Functions are inlined; constants, those of bodies included, become initializers; an If whose condition is known becomes
its branch, and a Loop that gathers a list of known length is written out; fused layers are taken apart; arithmetic on
static sizes is folded; nodes nobody reads are dropped, and so are initial states of zero, which the layers of a file
tend to share; shapes are inferred with a symbolic batch. BatchNormalization stays, and so does every operation on
weights: labels pass through those, and the report can name the initializer of the file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, numpy_helper
from onnx_graphsurgeon.logger import G_LOGGER

from onnxprune.errors import ModelError
from onnxprune.graph import captured, every_node, reads, replace_nodes, subgraphs
from onnxprune.model import Array, Model, bare
from onnxprune.nested import Names, Sequences, branch, inline_functions, lift_weights, turns, unrolled
from onnxprune.shapes import Inference, attribute, disagrees, shape_of
from onnxprune.unfuse import unfuse

G_LOGGER.severity = G_LOGGER.ERROR  # its warnings speak of export, which is not used

RECURRENT, INITIAL_STATES = ("LSTM", "GRU", "RNN"), (5, 6)
MOVES = frozenset("Cast Concat Expand Gather Identity Reshape Slice Split Squeeze Tile Transpose Unsqueeze".split())


def normalise(model: Model) -> Model:
    """Normalise a loaded model.

    Returns:
        A new Model with `shapes` and `values` filled; the weights are shared with the argument.

    Raises:
        ModelError: The nodes form a cycle or read tensors that nothing produces.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    weights = dict(model.weights)
    where = str(model.path or "model")
    proto = inline_functions(proto)
    names = Names(proto.graph)
    if lift_weights(proto.graph, weights, names, where):
        proto.ir_version = max(proto.ir_version, 4)  # the first whose initializers need not be inputs
    sort_nodes(proto.graph, where)
    staged = Model(proto, weights, model.path, model.external)
    folder = Folder(staged, weights, names, where)
    unfuse(proto, weights, names, folder.constant)
    folder.fold(proto.graph)
    drop_zero_states(staged)
    staged = drop_dead(staged)
    shapes = {n: s for n, t in folder.inference.types.items() if (s := shape_of(t)) is not None}
    return replace(staged, shapes=shapes, values=folder.inference.values, misfits=folder.inference.misfits)


def sort_nodes(graph: onnx.GraphProto, where: str) -> None:
    """Check that every node reads only what came before it (the checker demands order, so this finds cycles).

    Raises:
        ModelError: It does not.
    """
    seen = {i.name for i in graph.input} | {t.name for t in graph.initializer} | {""}
    seen |= {t.values.name for t in graph.sparse_initializer}
    for node in graph.node:
        for name in node.input:
            if name not in seen:
                what = f"node '{node.name or node.output[0]}' reads '{name}', which nothing before it produces"
                raise ModelError(what, where=where, remedy="the graph is cyclic or unsorted; export it again")
        seen.update(node.output)


class Folder:
    """Walks a model's graphs, bodies included: infers all shapes and replaces what is known beforehand (in place)."""

    def __init__(self, model: Model, weights: dict[str, Array], names: Names, where: str) -> None:
        self.weights, self.names, self.where = weights, names, where
        self.graph, self.inference = model.proto.graph, Inference(model)
        known = (self.inference.shape, self.inference.exact_value, self.constant)
        self.sequences = Sequences(*known, names, model.opsets.get("", 1))

    def constant(self, base: str, value: Array) -> str:
        """Store a new constant; its name."""
        name = self.names.fresh(base)
        self.store(name, value)
        self.inference.learn(name, value)
        return name

    def store(self, name: str, value: Array) -> None:
        """Store an initializer."""
        value.flags.writeable = False
        self.weights[name] = value
        self.graph.initializer.append(bare(name, value))

    def fold(self, graph: onnx.GraphProto) -> None:
        """Turn nodes whose integer result is known into initializers, and known bodies and sequences into nodes."""
        outputs, kept = {o.name for o in graph.output}, []
        queue = deque(graph.node)
        while queue:
            node = queue.popleft()
            plain = self.plain(node)
            if plain is not None:
                queue.extendleft(reversed(plain))
                continue
            name = node.output[0] if len(node.output) == 1 else ""
            value = constant_value(node, self.inference) if name and name not in outputs else None
            if value is None:
                kept.append(node)
            else:
                self.store(name, value)
        replace_nodes(graph, kept)

    def plain(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """Nodes that take the place of this one; None where it stays, and its outputs are inferred."""
        if not self.inference.runs(node):
            plain = self.sequences.plain(node)
            if plain is None:
                self.inference.visit(node)
            return plain
        if disagrees(node):
            what = (
                f"{node.op_type} '{node.name or node.output[0]}' and its body differ in the number of inputs or outputs"
            )
            raise ModelError(what, where=self.where, remedy="export the model again")
        condition = self.inference.exact_value(node.input[0]) if node.op_type == "If" else None
        taken = None if condition is None else branch(node, condition, self.sequences)
        if taken is not None:
            return taken
        mark = self.inference.enter(node)
        if node.op_type == "Loop" and (times := turns(node, self.inference, self.sequences)):
            return unrolled(node, times, self.sequences)
        for body in subgraphs(node):
            self.fold(body)
        self.inference.leave(node, mark)
        return None


def constant_value(node: onnx.NodeProto, inference: Inference) -> Array | None:
    """What a node computes, if that is known and worth folding; read-only.

    A large float tensor made by ConstantOfShape stands for weights that were left out of the file to keep it small. It
    becomes an initializer like any other, without taking memory until it is cut or run.
    """
    name = node.output[0]
    if name in inference.exact:
        value = np.array(inference.values[name])
        value.flags.writeable = False
        return value if foldable(node, inference) else None
    shape = inference.values.get(node.input[0]) if node.op_type == "ConstantOfShape" else None
    if shape is None or shape.dtype != np.int64 or shape.ndim != 1 or shape.min(initial=1) < 1:
        return None
    if not 0 < int(np.prod(shape, dtype=np.float64)) < 2**31:
        return None
    stored = attribute(node, "value")
    one = np.zeros(1, np.float32) if stored is None else numpy_helper.to_array(stored)
    return np.broadcast_to(one.ravel()[0], tuple(shape.tolist())) if one.dtype.kind == "f" else None


def foldable(node: onnx.NodeProto, inference: Inference) -> bool:
    """Only arithmetic on sizes is folded: its result is an integer, a truth value, or a scale computed from sizes."""
    if inference.values[node.output[0]].dtype.kind in "iub":
        return True
    weights = [name for name in node.input if name in inference.weights]
    sizes = [inference.values[name].size if name in inference.values else np.inf for name in weights]
    source = inference.values.get(node.input[0])
    moved = node.op_type in MOVES and source is not None and source.dtype.kind not in "iub"
    if max(sizes, default=0) > (1 if moved else 8):
        inference.weights.add(node.output[0])  # parameters, by another name
        return False
    return True


def drop_zero_states(model: Model) -> None:
    """Leave out initial states of recurrent layers that are zero, which is what their absence says (in place)."""
    makers = {name: node for node in every_node(model.proto.graph) for name in node.output}
    for node in every_node(model.proto.graph):
        for i in INITIAL_STATES if node.op_type in RECURRENT and node.domain in ("", "ai.onnx") else ():
            if i < len(node.input) and is_zero(node.input[i], model.weights, makers):
                node.input[i] = ""


def is_zero(name: str, weights: Mapping[str, Array], makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether a tensor holds zeros alone, told by what made it."""
    if name in weights:
        return not weights[name].any()
    node = makers.get(name)
    if node is None:
        return False
    if node.op_type == "ConstantOfShape":
        value = attribute(node, "value")
        return value is None or not numpy_helper.to_array(value).any()
    parts = node.input if node.op_type == "Concat" else node.input[:1]
    return node.op_type in MOVES and all(is_zero(part, weights, makers) for part in parts)


def drop_dead(model: Model) -> Model:
    """Drop nodes and initializers that no graph output depends on. Inputs stay, for callers feed them by name.

    onnx-graphsurgeon decides what is alive in the main graph; the nodes themselves are kept as they were in the file,
    because a round trip through its own classes loses metadata, doc strings and rarer attribute types.
    """
    graph = model.proto.graph
    for node in graph.node:
        for body in subgraphs(node):
            prune_body(body)
    alive = living_nodes(graph)
    if len(alive) < len(graph.node):
        replace_nodes(graph, [n for i, n in enumerate(graph.node) if i in alive])
    read = {*reads(graph), *(i.name for i in graph.input)}
    dead = [i for i, t in enumerate(graph.initializer) if t.name not in read]
    for i in reversed(dead):
        del graph.initializer[i]
    held = {t.name for t in graph.initializer}
    return replace(model, weights={n: w for n, w in model.weights.items() if n in held})


def prune_body(body: onnx.GraphProto) -> None:
    """Drop the nodes of a body, and of the bodies in it, that its outputs do not depend on."""
    needed, kept = {o.name for o in body.output}, []
    for node in reversed(body.node):
        if needed.isdisjoint(node.output):
            continue
        for inner in subgraphs(node):
            prune_body(inner)
        needed.update(node.input, captured(node))
        kept.append(node)
    if len(kept) < len(body.node):
        replace_nodes(body, reversed(kept))


def living_nodes(graph: onnx.GraphProto) -> set[int]:
    """Indices of the nodes that some graph output needs, found on a copy in which nodes are named by index."""
    probe = onnx.GraphProto()
    probe.CopyFrom(graph)
    del probe.initializer[:], probe.sparse_initializer[:], probe.value_info[:]
    for info in (*probe.input, *probe.output):
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.elem_type = TensorProto.FLOAT  # it stumbles over types it does not know
    for i, node in enumerate(probe.node):
        node.name = str(i)
    surgeon = gs.import_onnx(onnx.helper.make_model(probe))
    surgeon.cleanup(remove_unused_graph_inputs=False)
    return {int(node.name) for node in surgeon.nodes}
