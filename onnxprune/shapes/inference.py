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

from onnxprune.model import SMALL, Array, Dim, Model, Shape, captured
from onnxprune.shapes.partial import PARTIAL_SHAPES, volume
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
ALIASES = {  # operators with the shapes of others: fused ones, and what onnx infers the type of alone before opset 16
    ("com.microsoft", "FusedConv"): "Conv",
    ("", "GreaterOrEqual"): "Greater",
    ("", "LessOrEqual"): "Less",
}


def shape_of(info: TypeProto) -> Shape | None:
    """The dimensions in a tensor type, or None when it has no known rank."""
    if not info.HasField("tensor_type") or not info.tensor_type.HasField("shape"):
        return None
    return tuple(dimension(d) for d in info.tensor_type.shape.dim)


def dimension(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    """One dimension. Some exporters write -1 for a size that is open."""
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param or None


def is_dimension(entry: object) -> bool:
    """Whether an entry of a computed shape can be a size: odd inputs may give fractions, or less than 0."""
    return entry is None or isinstance(entry, str) or (isinstance(entry, int) and entry >= 0)


def tensor_type(kind: int, shape: Shape | None) -> TypeProto:
    """A tensor type for the given element type and dimensions."""
    return onnx.helper.make_tensor_type_proto(kind, shape)


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
        self.hints = {i.name: i.type for i in [*graph.value_info, *graph.output]}
        self.types: dict[str, TypeProto] = {}
        self.values: dict[str, Array] = {}
        self.misfits: dict[str, str] = {}
        self.unnamed = 0
        for info in graph.input:
            self.types[info.name] = self.named(info.type)
        self.exact: set[str] = set()
        self.weights: set[str] = set()
        for tensor in graph.initializer:
            self.add_weight(tensor, model.weights.get(tensor.name))

    def add_weight(self, tensor: onnx.TensorProto, weight: Array | None) -> None:
        """Take note of an initializer, as described by `tensor`."""
        self.types[tensor.name] = tensor_type(tensor.data_type, tuple(tensor.dims))
        if weight is not None:
            self.weights.add(tensor.name)
        if weight is not None and weight.size <= SMALL:
            self.values[tensor.name] = weight

    def shape(self, name: str) -> Shape | None:
        """Dimensions of a tensor, or None."""
        return shape_of(self.types[name]) if name in self.types else None

    def visit(self, node: onnx.NodeProto) -> None:
        """Infer the types and, for small integer arithmetic, the values of a node's outputs."""
        self.infer_types(node)
        value = self.infer_value(node)
        if value is not None and value.size <= SMALL and node.output:
            self.values[node.output[0]] = value
            if value.dtype != object:
                self.exact.add(node.output[0])

    def infer_types(self, node: onnx.NodeProto) -> None:
        """Ask onnx for the output types; fall back on what the file says."""
        found = self.ask_onnx(node)
        for name in filter(None, node.output):
            inferred, hint = found.get(name), self.hints.get(name)
            self.types[name] = better(inferred, hint)
        special = PARTIAL_SHAPES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if special and (shape := special(self, node)) is not None and all(map(is_dimension, shape)):
            kind = self.types[node.output[0]].tensor_type.elem_type or self.element(node)
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

    def element(self, node: onnx.NodeProto) -> int:
        """The element type of a node's first input."""
        return int(self.types[node.input[0]].tensor_type.elem_type) if node.input[0] in self.types else 1

    def ask_onnx(self, node: onnx.NodeProto) -> Mapping[str, TypeProto]:
        """onnx's inference for this one node; nothing where the operator or its inputs are unknown."""
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (domain, node.op_type) in ALIASES:
            node, domain = standard_form(node, ALIASES[domain, node.op_type]), ""
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opsets.get(domain, 1), domain)
            inputs = set(node.input) | captured(node)
            types = {n: self.types[n] for n in inputs if n in self.types and n}
            data = {n: as_tensor(self.values[n], n) for n in node.input if known(self.values.get(n))}
            found: Mapping[str, TypeProto] = onnx.shape_inference.infer_node_outputs(schema, node, types, data)
        except REFUSALS as error:
            why = " ".join(str(error).split())
            known_inputs = all(self.shape(n) is not None for n in node.input if n)
            if isinstance(error, MISFITS) and node.output and known_inputs and "unsupported type" not in why:
                self.misfits[node.output[0]] = why  # types are another matter: runtimes take more than the standard
            return {}
        return found

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


def standard_form(node: onnx.NodeProto, kind: str) -> onnx.NodeProto:
    """An operator as the standard one whose shapes it has."""
    plain = onnx.helper.make_node(kind, node.input[:3], node.output)
    plain.attribute.extend(a for a in node.attribute if not a.name.startswith("activation"))
    return plain


def better(inferred: TypeProto | None, hint: TypeProto | None) -> TypeProto:
    """The inferred type, or the file's own where inference found no rank."""
    if inferred is not None and shape_of(inferred) is not None:
        return inferred
    return hint if hint is not None else inferred if inferred is not None else TypeProto()
