"""One namespace for a model with bodies. Law: a weight inside a body is a weight like any other.

Initializers and Constant nodes of bodies move to the main graph, from which bodies may read; tensors that stay in a
body get names of their own where two bodies use the same one. From then on one table serves for the labels, shapes and
values of the whole model. A weight keeps its name in the file whenever that is unique.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnxprune.graph import own_names, replace_nodes, subgraphs
from onnxprune.model import Array, take_data
from onnxprune.nested.names import Names, rename_graph
from onnxprune.nested.sparse import dense_tensor, expand_sparse

NUMBERS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


def lift_weights(graph: onnx.GraphProto, weights: dict[str, Array], names: Names, where: str) -> bool:
    """Make every constant of the model an initializer of the main graph, and every name unique (in place).

    Returns:
        Whether some came from bodies.

    Raises:
        ModelError: A stored tensor is damaged.
    """
    lifter = Lifter(graph, weights, names, where)
    expand_sparse(graph, weights, where)
    lifter.lift_constants(graph)
    before = len(weights)
    for node in graph.node:
        for body in subgraphs(node):
            lifter.settle(body, {})
    return len(weights) > before


class Lifter:
    """Moves weights into the main graph."""

    def __init__(self, graph: onnx.GraphProto, weights: dict[str, Array], names: Names, where: str) -> None:
        self.graph, self.weights, self.names, self.where = graph, weights, names, where

    def settle(self, body: onnx.GraphProto, outer: dict[str, str]) -> None:
        """Rename one body and lift its weights; then those inside it. `outer`: the renamings around it."""
        names = outer | {name: self.names.settle(name) for name in dict.fromkeys(own_names(body))}
        rename_graph(body, names)
        self.lift_initializers(body)
        self.lift_constants(body)
        for node in body.node:
            for inner in subgraphs(node):
                self.settle(inner, names)

    def lift_initializers(self, body: onnx.GraphProto) -> None:
        """Move a body's initializers; text stays. An input of the same name was listed for it and goes with it."""
        dense = [t for s in body.sparse_initializer if (t := dense_tensor(s, self.where)) is not None]
        lifted = [t for t in body.initializer if t.data_type != TensorProto.STRING] + dense
        moved = {t.name for t in lifted}
        for tensor in lifted:
            body.node.extend(self.lift(tensor, body))
        for i in reversed([i for i, t in enumerate(body.initializer) if t.name in moved]):
            del body.initializer[i]
        for i in reversed([i for i, info in enumerate(body.input) if info.name in moved]):
            del body.input[i]
        for i in reversed([i for i, s in enumerate(body.sparse_initializer) if s.values.name in moved]):
            del body.sparse_initializer[i]

    def lift_constants(self, graph: onnx.GraphProto) -> None:
        """Turn the Constant nodes of one graph into initializers named after their outputs."""
        kept, found = [], False
        for node in graph.node:
            tensor = constant_tensor(node, self.where) if node.op_type == "Constant" else None
            if tensor is None:
                kept.append(node)
                continue
            found, tensor.name = True, node.output[0]
            kept += self.lift(tensor, graph)
        if found:
            replace_nodes(graph, kept)

    def lift(self, tensor: TensorProto, body: onnx.GraphProto) -> list[onnx.NodeProto]:
        """Move one weight. What a body gives out must be made inside it, so that may take a node that copies it."""
        self.weights[tensor.name] = take_data(tensor, self.where)
        self.graph.initializer.append(tensor)
        given = [o for o in body.output if o.name == tensor.name] if body is not self.graph else []
        for output in given:
            output.name = self.names.fresh(f"{tensor.name}_out")
        return [onnx.helper.make_node("Identity", [tensor.name], [o.name], name=o.name) for o in given]


def constant_tensor(node: onnx.NodeProto, where: str) -> TensorProto | None:
    """The value of a Constant node as a tensor; None for text and large sparse tensors, which stay nodes."""
    for a in node.attribute:
        if a.name == "value":
            tensor = TensorProto()
            tensor.CopyFrom(a.t)
            return None if tensor.data_type == TensorProto.STRING else tensor
        if a.name == "sparse_value":
            return dense_tensor(a.sparse_tensor, where)
        if a.name in NUMBERS:
            return numpy_helper.from_array(np.array(onnx.helper.get_attribute_value(a), dtype=NUMBERS[a.name]))
    return None
