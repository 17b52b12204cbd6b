"""Bring a graph into the form the tracer reads. Law: it computes what it computed, and every name is kept.

Constant nodes become initializers; arithmetic on static sizes is folded; nodes nobody reads are dropped, and so are
initial states of zero, which the layers of a file tend to share; shapes are inferred with a symbolic batch.
BatchNormalization stays, and so does every operation on weights: labels pass through those, and the report can name the
initializer of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, numpy_helper
from onnx_graphsurgeon.logger import G_LOGGER

from onnxprune.errors import ModelError
from onnxprune.model import Array, Model, bare, captured, take_data
from onnxprune.names import namer
from onnxprune.sequences import Sequences
from onnxprune.shapes import Inference, attribute, shape_of

MOVES = frozenset("Cast Flatten Identity Reshape Squeeze Transpose Unsqueeze".split())
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
    lift_constants(proto.graph, weights, where)
    sort_nodes(proto.graph, where)
    staged = Model(proto, weights, model.path, model.external)
    inference = fold_sizes(staged, weights)
    drop_zero_states(staged)
    staged = drop_dead(staged)
    shapes = {n: s for n, t in inference.types.items() if (s := shape_of(t)) is not None}
    return replace(staged, shapes=shapes, values=inference.values, misfits=inference.misfits)


def lift_constants(graph: onnx.GraphProto, weights: dict[str, Array], where: str) -> None:
    """Turn the Constant nodes of the main graph into initializers named after their outputs."""
    kept = []
    for node in graph.node:
        tensor = constant_tensor(node) if node.op_type == "Constant" else None
        if tensor is None or tensor.data_type == TensorProto.STRING:
            kept.append(node)
            continue
        tensor.name = node.output[0]
        weights[tensor.name] = take_data(tensor, where)
        graph.initializer.append(tensor)
    replace_nodes(graph, kept)


def constant_tensor(node: onnx.NodeProto) -> TensorProto | None:
    """The value of a Constant node as a tensor; None for strings and sparse tensors, which stay nodes."""
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for a in node.attribute:
        if a.name == "value":
            tensor = TensorProto()
            tensor.CopyFrom(a.t)
            return tensor
        if a.name in kinds:
            return numpy_helper.from_array(np.array(onnx.helper.get_attribute_value(a), dtype=kinds[a.name]))
    return None


def replace_nodes(graph: onnx.GraphProto, kept: list[onnx.NodeProto]) -> None:
    """Leave only `kept` in the graph, in that order."""
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in kept]
    del graph.node[:]
    graph.node.extend(copies)


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


def fold_sizes(model: Model, weights: dict[str, Array]) -> Inference:
    """Infer all shapes, and turn nodes whose integer result is known into initializers (in place)."""
    inference, kept = Inference(model), []
    graph = model.proto.graph
    outputs = {o.name for o in graph.output}
    for node in written_out(graph, weights, inference):
        inference.visit(node)
        name = node.output[0] if node.output else ""
        value = None if name in outputs or len(node.output) != 1 else constant_value(node, inference)
        if value is None:
            kept.append(node)
            continue
        weights[name] = value
        graph.initializer.append(bare(name, value))
    replace_nodes(graph, kept)
    return inference


def written_out(graph: onnx.GraphProto, weights: dict[str, Array], inference: Inference) -> Iterator[onnx.NodeProto]:
    """The nodes in order, known sequences written out; each must be visited by `inference` before the next is asked."""
    fresh = namer(graph)

    def constant(base: str, value: Array) -> str:
        name = fresh(base)
        weights[name] = value
        graph.initializer.append(bare(name, value))
        inference.add_weight(graph.initializer[-1], value)
        return name

    sequences = Sequences(inference, fresh, constant)
    for node in list(graph.node):
        yield from sequences.unroll(node)


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
    makers = {name: node for node in model.proto.graph.node for name in node.output}
    for node in model.proto.graph.node:
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

    onnx-graphsurgeon decides what is alive (it follows nested bodies too); the nodes themselves are kept as they were
    in the file, because a round trip through its own classes loses metadata, doc strings and rarer attribute types.
    """
    graph = model.proto.graph
    alive = living_nodes(graph)
    if len(alive) < len(graph.node):
        replace_nodes(graph, [n for i, n in enumerate(graph.node) if i in alive])
    read = {name for node in graph.node for name in (*node.input, *captured(node))}
    read |= {o.name for o in graph.output} | {i.name for i in graph.input}
    dead = [i for i, t in enumerate(graph.initializer) if t.name not in read]
    for i in reversed(dead):
        del graph.initializer[i]
    held = {t.name for t in graph.initializer}
    return replace(model, weights={n: w for n, w in model.weights.items() if n in held})


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
