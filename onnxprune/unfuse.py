"""Nodes that onnxruntime's optimiser has fused, as standard operators. Law: they compute the same, by the same names.

A file that was saved behind the optimiser holds convolutions and products with an activation inside. Apart again, their
weights are seen by everything that looks at layers: scores, recovery, dead units. The runtime fuses them anew when it
opens the file. What has no standard form stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.graph import replace_nodes, subgraphs
from onnxprune.model import Array
from onnxprune.nested import Names
from onnxprune.shapes import attribute

RUNTIME, OWN = "com.microsoft", "activation_"
STANDARD = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
PARAMETERS: dict[str, tuple[str, ...]] = {  # of each activation, in the order in which FusedConv has them
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
INPUTS = 11  # from this opset on, Clip takes its bounds as inputs
Constant = Callable[[str, Array], str]
Step = tuple[str, list[str], dict[str, Any]]  # an operator, its further inputs, its attributes


def unfuse(model: onnx.ModelProto, weights: Mapping[str, Array], names: Names, constant: Constant) -> None:
    """Take fused nodes apart, bodies included (in place).

    Args:
        model: Its graph.
        weights: Its initializers.
        names: Those in use.
        constant: Stores a new initializer, under a name like the one given, and gives its name.
    """
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset:
        of_graph(model.graph, Parts(weights, names, opset, constant))


def of_graph(graph: onnx.GraphProto, parts: Parts) -> None:
    """The same for one graph and its bodies."""
    found: list[onnx.NodeProto] = []
    for node in graph.node:
        for body in subgraphs(node):
            of_graph(body, parts)
        found += parts.of(node) if standard(node) else [node]
    if any(standard(node) for node in graph.node):
        replace_nodes(graph, found)


def standard(node: onnx.NodeProto) -> bool:
    """Whether a node is a fused one whose parts are standard operators."""
    if node.domain != RUNTIME or node.op_type not in STANDARD:
        return False
    activation = named(node)
    if not activation or node.op_type == "FusedGemm":
        return True
    return activation in PARAMETERS and len(listed(node)) == len(PARAMETERS[activation])


def named(node: onnx.NodeProto) -> str:
    """The activation; '' where there is none."""
    found = attribute(node, "activation", b"")
    return str(found.decode() if isinstance(found, bytes) else found)


def listed(node: onnx.NodeProto) -> list[float]:
    """The parameters of a FusedConv's activation."""
    return list(attribute(node, "activation_params", []))


def parameters(node: onnx.NodeProto) -> dict[str, float]:
    """The activation's parameters by name; FusedGemm has them as attributes of its own."""
    if node.op_type == "FusedConv":
        return dict(zip(PARAMETERS[named(node)], listed(node), strict=True))
    return {a.name.removeprefix(OWN): a.f for a in node.attribute if a.name.startswith(OWN)}


class Parts:
    """Makes standard nodes of fused ones.

    Attributes:
        weights: Initializers.
        names: Those in use.
        opset: Of the standard operators.
        constant: Stores a new initializer.
    """

    def __init__(self, weights: Mapping[str, Array], names: Names, opset: int, constant: Constant) -> None:
        self.weights, self.names, self.opset, self.constant = weights, names, opset, constant

    def of(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The layer, its summand and its activation; the last has the node's output."""
        layer, rest = onnx.NodeProto(), list[Step]()
        layer.CopyFrom(node)
        layer.op_type, layer.domain = STANDARD[node.op_type], ""
        kept = [a for a in node.attribute if not a.name.startswith("activation")]
        del layer.attribute[:], layer.input[3:]
        layer.attribute.extend(kept)
        while layer.input and not layer.input[-1]:
            del layer.input[-1]
        if len(node.input) > 3 and node.input[3]:
            rest.append(("Add", [node.input[3]], {}))
        if named(node):
            rest.append(self.activation(node))
        return list(self.chained(node, layer, rest))

    def chained(self, node: onnx.NodeProto, layer: onnx.NodeProto, rest: Sequence[Step]) -> Iterator[onnx.NodeProto]:
        """The layer, and one node behind another."""
        made = [layer]
        for kind, inputs, attributes in rest:
            between = self.names.fresh(f"{node.output[0]}/{made[-1].op_type}")
            made[-1].output[0] = between
            title = self.names.fresh(f"{node.name}/{kind}") if node.name else ""
            made.append(helper.make_node(kind, [between, *inputs], [node.output[0]], title, **attributes))
        yield from made

    def activation(self, node: onnx.NodeProto) -> Step:
        """An activation's operator, further inputs and attributes."""
        kind, values = named(node), parameters(node)
        if kind == "Clip" and self.opset >= INPUTS:
            dtype = self.weights[node.input[1]].dtype if node.input[1] in self.weights else np.dtype(np.float32)
            ends = [self.constant(f"{node.output[0]}/{n}", np.array(v, dtype)) for n, v in values.items()]
            return kind, ends, {}
        return kind, [], values
