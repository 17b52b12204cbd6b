"""Shapes and known values of every tensor, in one pass over the nodes.

Law: a dimension or value is stated only when it holds for every input the model accepts; unknown ones are a symbol, and
equal symbols are equal sizes. Each node is inferred by onnx's own function for its operator; what that cannot do with
half-known shapes (a Reshape to `[batch, -1]`, arithmetic on sizes) is done in `values` and `partial`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TypeProto
from onnx.reference import ReferenceEvaluator

from onnxprune.graph import captured, every_graph, subgraphs
from onnxprune.model import SMALL, Array, Dim, Model, Shape
from onnxprune.shapes import bodies
from onnxprune.shapes.bodies import is_dimension, shape_of, tensor_type
from onnxprune.shapes.contrib import RUNTIME, contrib_types, element_input
from onnxprune.shapes.partial import PARTIAL_SHAPES, volume
from onnxprune.shapes.standard import channels_last, standard
from onnxprune.shapes.values import VALUE_FROM_WEIGHT, VALUES, as_tensor, attribute, known, pack

REFUSALS = (  # of onnx, where an operator or its inputs are unknown or do not fit
    onnx.shape_inference.InferenceError,
    onnx.checker.ValidationError,
    onnx.defs.SchemaError,
    RuntimeError,
    KeyError,
    ValueError,
)
MISFITS = (onnx.shape_inference.InferenceError, onnx.checker.ValidationError)
UNKNOWN = (TypeError, ValueError, IndexError, ArithmeticError, NotImplementedError, RuntimeError, KeyError)
ALIASES = {"GreaterOrEqual": "Greater", "LessOrEqual": "Less"}  # before opset 16 onnx infers the type of these alone


class Inference:
    """One pass of inference; read `types` and `values` when it is done.

    Attributes:
        types: Tensor name -> TypeProto.
        values: Tensor name -> array: int64, bool or float when fully known, object with None entries when half known.
        misfits: First output of a node whose inputs do not fit its operator -> what onnx says about it.
    """

    def __init__(self, model: Model) -> None:
        self.opsets = model.opsets
        graph = model.proto.graph
        self.hints = {i.name: i.type for g in every_graph(graph) for i in [*g.value_info, *g.output]}
        self.types: dict[str, TypeProto] = {}
        self.values: dict[str, Array] = {}
        self.misfits: dict[str, str] = {}
        self.unnamed = 0
        for info in graph.input:
            self.types[info.name] = self.named(info.type)
        self.exact: set[str] = set()
        self.weights: set[str] = set()
        for tensor in graph.initializer:
            self.types[tensor.name] = tensor_type(tensor.data_type, tuple(tensor.dims))
            weight = model.weights.get(tensor.name)
            if weight is not None and weight.size <= SMALL:
                self.values[tensor.name] = weight
        for sparse in graph.sparse_initializer:
            self.types[sparse.values.name] = tensor_type(sparse.values.data_type, tuple(sparse.dims))
        self.weights = set(model.weights)

    def shape(self, name: str) -> Shape | None:
        """Dimensions of a tensor, or None."""
        return shape_of(self.types[name]) if name in self.types else None

    def exact_value(self, name: str) -> Array | None:
        """The fully known value of a tensor, or None."""
        value = self.values.get(name)
        return value if known(value) else None

    def learn(self, name: str, value: Array) -> None:
        """Take note of a constant."""
        self.types[name] = tensor_type(onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        self.values[name] = value

    def runs(self, node: onnx.NodeProto) -> bool:
        """Whether a node runs bodies, between whose `enter` and `leave` they are to be visited."""
        return bodies.bodied(node, self.opsets.get("", 1))

    def enter(self, node: onnx.NodeProto) -> int:
        """Infer what the bodies of a node are fed; a mark for `leave`."""
        mark = self.unnamed
        bodies.enter(self, node)
        return mark

    def leave(self, node: onnx.NodeProto, mark: int) -> None:
        """Infer the outputs of a node whose bodies have been visited."""
        found = bodies.results(self, node, mark)
        for name in filter(None, node.output):
            self.types[name] = self.named(better(found.get(name), self.hints.get(name)))

    def visit(self, node: onnx.NodeProto) -> None:
        """Infer the types and, for small integer arithmetic, the values of a node's outputs."""
        if self.runs(node):
            mark = self.enter(node)
            for inner in [n for body in subgraphs(node) for n in body.node if node.op_type == "If"]:
                self.visit(inner)  # `enter` has walked the bodies of the others
            self.leave(node, mark)
            return
        self.infer_types(node)
        value = self.infer_value(node)
        if value is not None and value.size <= SMALL and node.output:
            self.values[node.output[0]] = value
            if value.dtype != object:
                self.exact.add(node.output[0])

    def infer_types(self, node: onnx.NodeProto) -> None:
        """Ask onnx for the output types; fall back on what the file says."""
        known_types = contrib_types(self, node, self.element)
        found = {n: tensor_type(*t) for n, t in known_types.items()} or self.ask_onnx(node)
        for name in filter(None, node.output):
            inferred, hint = found.get(name), self.hints.get(name)
            self.types[name] = better(inferred, hint)
        special = PARTIAL_SHAPES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if special and (shape := special(self, node)) is not None and all(map(is_dimension, shape)):
            kind = self.types[node.output[0]].tensor_type.elem_type or self.element(node.input[0])
            self.types[node.output[0]] = tensor_type(kind, shape)
        for name in filter(None, node.output):
            self.types[name] = self.named(self.types[name])

    def named(self, info: TypeProto) -> TypeProto:
        """The same type, with a symbol of its own for each dimension that has neither size nor name."""
        shape = shape_of(info)
        if shape is None or None not in shape:
            return info
        dims: list[Dim] = []
        for d in shape:
            self.unnamed += d is None
            dims.append(f"?{self.unnamed}" if d is None else d)
        return tensor_type(info.tensor_type.elem_type, tuple(dims))

    def element(self, name: str) -> int:
        """The element type of a tensor, FLOAT where it is unknown."""
        return int(self.types[name].tensor_type.elem_type) if name in self.types else 1

    def ask_onnx(self, node: onnx.NodeProto, real: bool = False) -> Mapping[str, TypeProto]:
        """onnx's inference for this one node; nothing where the operator or its inputs are unknown.

        Args:
            node: The node.
            real: Read integers as the real numbers they stand for.
        """
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain == RUNTIME and (plain := standard(node)) is not None:
            return self.retyped(
                node, self.ask_turned(plain) if channels_last(node) else self.ask_onnx(plain, real=True)
            )
        if domain == "" and node.op_type in ALIASES:
            node = onnx.helper.make_node(ALIASES[node.op_type], node.input, node.output)
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opsets.get(domain, 1), domain)
            inputs = set(node.input) | captured(node)
            types = {n: self.types[n] for n in inputs if n in self.types and n}
            types = {n: as_real(t) for n, t in types.items()} if real else types
            data = {n: as_tensor(self.values[n], n) for n in node.input if known(self.values.get(n))}
            found: Mapping[str, TypeProto] = onnx.shape_inference.infer_node_outputs(schema, node, types, data)
        except REFUSALS as error:
            why = " ".join(str(error).split())
            known_inputs = all(self.shape(n) is not None for n in node.input if n)
            if isinstance(error, MISFITS) and node.output and known_inputs and "unsupported type" not in why:
                self.misfits[node.output[0]] = why  # types are another matter: runtimes take more than the standard
            return {}
        return found

    def ask_turned(self, plain: onnx.NodeProto) -> Mapping[str, TypeProto]:
        """onnx's inference for an operator whose images have their channels on the last axis instead of the second."""
        x = self.types[plain.input[0]]
        self.types[plain.input[0]] = moved(x, -1, 1)
        found = self.ask_onnx(plain, real=True)
        self.types[plain.input[0]] = x
        return {n: moved(t, 1, -1) for n, t in found.items()}

    def retyped(self, node: onnx.NodeProto, found: Mapping[str, TypeProto]) -> Mapping[str, TypeProto]:
        """What was inferred for a node's standard form, with the element type that the node itself writes."""
        kind = self.element(node.input[element_input(node)])
        return {n: tensor_type(kind, shape_of(t)) for n, t in found.items()}

    def infer_value(self, node: onnx.NodeProto) -> Array | None:
        """The value of the first output, if the node is arithmetic on sizes."""
        if node.op_type == "Shape" and node.domain in ("", "ai.onnx"):
            return self.sizes(node)
        inputs = [self.values.get(n) for n in node.input if n]
        if not inputs or any(i is None for i in inputs) or any(n in self.weights for n in node.input[:1]):
            return None if node.op_type not in VALUE_FROM_WEIGHT else self.partial(node)
        return self.partial(node)

    def sizes(self, node: onnx.NodeProto) -> Array | None:
        """The value of a Shape node."""
        shape = self.shape(node.input[0])
        if shape is None:
            return None
        start, end = attribute(node, "start", 0), attribute(node, "end", len(shape))
        return pack(shape[start:end])

    def partial(self, node: onnx.NodeProto) -> Array | None:
        """Evaluate a node on known or half-known values; None when that cannot be done."""
        inputs = [self.values[n] for n in node.input if n in self.values]
        if len(inputs) != len([n for n in node.input if n]) or captured(node):
            return None
        evaluate = VALUES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        try:
            if evaluate:
                return pack(evaluate(node, inputs))
            if all(i.dtype != object for i in inputs) and len(node.output) == 1:
                return self.reference(node, inputs)
        except UNKNOWN:
            return None
        return None

    def reference(self, node: onnx.NodeProto, inputs: list[Array]) -> Array | None:
        """Evaluate a small integer node that has no entry in `VALUES` with onnx's reference implementation."""
        kind = self.types[node.output[0]].tensor_type.elem_type if node.output[0] in self.types else 0
        if kind not in (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL):
            return None
        shape = self.shape(node.output[0])
        sizes = [d for d in shape or () if isinstance(d, int)]
        if shape is None or len(sizes) != len(shape) or volume(sizes) > SMALL:
            return None
        names = [n for n in node.input if n]
        result: Any = ReferenceEvaluator(node, opsets=self.opsets).run(None, dict(zip(names, inputs, strict=True)))
        return np.asarray(result[0])


def moved(info: TypeProto, old: int, new: int) -> TypeProto:
    """A tensor type with one axis moved from `old` to `new`."""
    shape = shape_of(info)
    if shape is None or len(shape) < 3:
        return info
    order = list(range(len(shape)))
    order.insert(new % len(order), order.pop(old))
    return tensor_type(info.tensor_type.elem_type, tuple(shape[k] for k in order))


def as_real(info: TypeProto) -> TypeProto:
    """A tensor type with floats for the integers that operators compute with."""
    kinds = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT32)
    return tensor_type(onnx.TensorProto.FLOAT, shape_of(info)) if info.tensor_type.elem_type in kinds else info


def better(inferred: TypeProto | None, hint: TypeProto | None) -> TypeProto:
    """The inferred type, or the file's own where inference found no rank."""
    if inferred is not None and shape_of(inferred) is not None:
        return inferred
    return hint if hint is not None else inferred if inferred is not None else TypeProto()
