"""Shapes and known values of every tensor, in one pass over the nodes.

Law: a dimension or value is stated only when it holds for every input the model accepts; unknown ones are None or a
symbol. Each node is inferred by onnx's own function for its operator; what that cannot do with half-known shapes
(a Reshape to `[batch, -1]`, arithmetic on sizes) is done here on object arrays, in which None is an unknown entry.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TypeProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxprune.model import SMALL, Array, Dim, Model, Shape, captured

Evaluate = Callable[[onnx.NodeProto, list[Array]], Array]


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The Python value of a node's attribute, or `default`."""
    for a in node.attribute:
        if a.name == name:
            return onnx.helper.get_attribute_value(a)
    return default


def shape_of(info: TypeProto) -> Shape | None:
    """The dimensions in a tensor type, or None when it has no known rank."""
    if not info.HasField("tensor_type") or not info.tensor_type.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in info.tensor_type.shape.dim)


def tensor_type(kind: int, shape: Shape | None) -> TypeProto:
    """A tensor type for the given element type and dimensions."""
    return onnx.helper.make_tensor_type_proto(kind, shape)


class Inference:
    """One pass of inference; read `types` and `values` when it is done.

    Attributes:
        types: Tensor name -> TypeProto.
        values: Tensor name -> array: int64, bool or float when fully known, object with None entries when half known.
    """

    def __init__(self, model: Model) -> None:
        self.opsets = model.opsets
        graph = model.proto.graph
        self.hints = {i.name: i.type for i in [*graph.value_info, *graph.output]}
        self.types: dict[str, TypeProto] = {i.name: i.type for i in graph.input}
        self.values: dict[str, Array] = {}
        self.exact: set[str] = set()
        for tensor in graph.initializer:
            self.types[tensor.name] = tensor_type(tensor.data_type, tuple(tensor.dims))
            weight = model.weights.get(tensor.name)
            if weight is not None and weight.size <= SMALL:
                self.values[tensor.name] = weight
        self.weights = set(model.weights)

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
        if special and (shape := special(self, node)) is not None:
            kind = self.types[node.output[0]].tensor_type.elem_type or self.element(node)
            self.types[node.output[0]] = tensor_type(kind, shape)

    def element(self, node: onnx.NodeProto) -> int:
        """The element type of a node's first input."""
        return int(self.types[node.input[0]].tensor_type.elem_type) if node.input[0] in self.types else 1

    def ask_onnx(self, node: onnx.NodeProto) -> Mapping[str, TypeProto]:
        """onnx's inference for this one node; nothing where the operator or its inputs are unknown."""
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (domain, node.op_type) in ALIASES:
            node, domain = standard_form(node), ""
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opsets.get(domain, 1), domain)
            inputs = set(node.input) | captured(node)
            types = {n: self.types[n] for n in inputs if n in self.types and n}
            data = {n: as_tensor(self.values[n], n) for n in node.input if known(self.values.get(n))}
            found: Mapping[str, TypeProto] = onnx.shape_inference.infer_node_outputs(schema, node, types, data)
        except (onnx.shape_inference.InferenceError, onnx.defs.SchemaError, RuntimeError, KeyError, ValueError):
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
        return pack([d if isinstance(d, int) else None for d in shape[start:end]])

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
        except (TypeError, ValueError, IndexError, ZeroDivisionError, NotImplementedError, RuntimeError, KeyError):
            return None
        return None

    def reference(self, node: onnx.NodeProto, inputs: list[Array]) -> Array | None:
        """Evaluate a small integer node that has no entry in `VALUES` with onnx's reference implementation."""
        kind = self.types[node.output[0]].tensor_type.elem_type if node.output[0] in self.types else 0
        if kind not in (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL):
            return None
        sizes = [d for d in self.shape(node.output[0]) or (None,) if isinstance(d, int)]
        if len(sizes) != len(self.shape(node.output[0]) or (None,)) or volume(sizes) > SMALL:
            return None
        names = [n for n in node.input if n]
        result: Any = ReferenceEvaluator(node, opsets=self.opsets).run(None, dict(zip(names, inputs, strict=True)))
        return np.asarray(result[0])


def standard_form(node: onnx.NodeProto) -> onnx.NodeProto:
    """A runtime's fused operator as the standard operator whose shapes it has."""
    plain = onnx.helper.make_node(ALIASES[node.domain, node.op_type], node.input[:3], node.output)
    plain.attribute.extend(a for a in node.attribute if not a.name.startswith("activation"))
    return plain


def better(inferred: TypeProto | None, hint: TypeProto | None) -> TypeProto:
    """The inferred type, or the file's own where inference found no rank."""
    if inferred is not None and shape_of(inferred) is not None:
        return inferred
    return hint if hint is not None else inferred if inferred is not None else TypeProto()


def known(value: Array | None) -> bool:
    """Whether every entry of a value is known."""
    return value is not None and value.dtype != object


def as_tensor(value: Array, name: str) -> onnx.TensorProto:
    """A TensorProto holding a known value."""
    return numpy_helper.from_array(np.asarray(value, order="C"), name)


def pack(entries: Sequence[object] | Array) -> Array:
    """An array of known entries as numbers; with unknown ones among them, as objects."""
    array = entries if isinstance(entries, np.ndarray) else np.array(entries, dtype=object)
    if array.dtype != object:
        return array
    if any(e is None for e in array.ravel()):
        return array
    return array.astype(np.int64)


def lift(function: Callable[[object, object], object]) -> Evaluate:
    """An elementwise binary function in which None stays None; exact inputs are left to numpy's own types."""

    def each(a: object, b: object) -> object:
        return None if a is None or b is None else function(a, b)

    wide = np.frompyfunc(each, 2, 1)

    def evaluate(node: onnx.NodeProto, inputs: list[Array]) -> Array:
        out = np.asarray(wide(*inputs), dtype=object)
        kind = np.result_type(*(i.dtype for i in inputs)) if known(inputs[0]) and known(inputs[1]) else None
        return out.astype(kind) if kind is not None else out

    return evaluate


def quotient(a: Any, b: Any) -> Any:
    """Integer division towards zero, as ONNX divides integers; true division for floats."""
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    return int(a / b) if abs(a) < 2**52 else a // b


def gather(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Gather on a small value."""
    return np.asarray(np.take(inputs[0], inputs[1].astype(np.int64), axis=attribute(node, "axis", 0)))


def axes_of(node: onnx.NodeProto, inputs: list[Array]) -> tuple[int, ...] | None:
    """The `axes` of Squeeze, Unsqueeze and reductions: an attribute or the second input, by operator set."""
    axes = inputs[1].tolist() if len(inputs) > 1 else attribute(node, "axes")
    return None if axes is None else tuple(axes)


def unsqueeze(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Unsqueeze on a small value."""
    return np.expand_dims(inputs[0], axes_of(node, inputs) or ())


def squeeze(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Squeeze on a small value."""
    return np.asarray(np.squeeze(inputs[0], axis=axes_of(node, inputs)))


def concat(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Concat on small values."""
    return np.concatenate(inputs, axis=attribute(node, "axis", 0))


def slicing(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Slice on a small value (attributes before operator set 10, inputs since)."""
    starts, ends, axes, steps = slice_parts(node, inputs)
    index: list[slice] = [slice(None)] * inputs[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice_range(start, end, step)
    return inputs[0][tuple(index)]


def slice_range(start: int, end: int, step: int) -> slice:
    """A Python slice with ONNX's meaning: 'before the beginning' for a backward slice is None, not -1."""
    return slice(start, None if step < 0 and end < -(2**30) else end, step)


def slice_parts(
    node: onnx.NodeProto, inputs: Sequence[Array | None]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """starts, ends, axes, steps of a Slice node.

    Raises:
        ValueError: One of them is not a known constant.
    """
    if len(inputs) > 1:
        given = [None if v is None else v for v in (*inputs[1:5], *[None] * (5 - len(inputs)))]
        if any(v is not None and v.dtype == object for v in given) or given[0] is None or given[1] is None:
            raise ValueError("slice bounds are computed")
        parts = [None if v is None else [int(x) for x in v.ravel().tolist()] for v in given]
    else:
        parts = [attribute(node, n) for n in ("starts", "ends", "axes")] + [None]
    starts, ends = list(parts[0] or []), list(parts[1] or [])
    axes = list(parts[2]) if parts[2] is not None else list(range(len(starts)))
    steps = list(parts[3]) if parts[3] is not None else [1] * len(starts)
    return starts, ends, axes, steps


def cast(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Cast on a small value; half-known values are sizes and stay integers."""
    if inputs[0].dtype == object:
        return inputs[0]
    return inputs[0].astype(onnx.helper.tensor_dtype_to_np_dtype(attribute(node, "to")))


def fill_constant(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """ConstantOfShape with a small known shape."""
    if inputs[0].dtype == object or np.prod(inputs[0]) > SMALL:
        raise ValueError("size unknown or large")
    value = attribute(node, "value")
    one = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.zeros(1, np.float32)
    return np.full(tuple(inputs[0].tolist()), one.ravel()[0])


def reshape_value(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """Reshape on a small value."""
    return inputs[0].reshape(tuple(inputs[1].tolist()))


def product(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """ReduceProd on a small value."""
    axes = axes_of(node, inputs)
    if inputs[0].dtype == object:
        raise ValueError("half known")
    return np.asarray(np.prod(inputs[0], axis=axes, keepdims=bool(attribute(node, "keepdims", 1))))


VALUES: dict[str, Evaluate] = {
    "Identity": lambda node, inputs: inputs[0],
    "Gather": gather,
    "Unsqueeze": unsqueeze,
    "Squeeze": squeeze,
    "Concat": concat,
    "Slice": slicing,
    "Cast": cast,
    "Reshape": reshape_value,
    "ConstantOfShape": fill_constant,
    "ReduceProd": product,
    "Add": lift(operator.add),
    "Sub": lift(operator.sub),
    "Mul": lift(operator.mul),
    "Div": lift(quotient),
    "Floor": lambda node, inputs: inputs[0] if inputs[0].dtype == object else np.floor(inputs[0]),
    "Ceil": lambda node, inputs: inputs[0] if inputs[0].dtype == object else np.ceil(inputs[0]),
}
VALUE_FROM_WEIGHT = frozenset(VALUES) | {"Range", "Equal", "Where", "Min", "Max", "Neg", "Mod", "Expand"}


def reshaped(inference: Inference, node: onnx.NodeProto) -> Shape | None:
    """The output shape of a Reshape whose target may be half known."""
    source = inference.shape(node.input[0])
    target = inference.values.get(node.input[1]) if len(node.input) > 1 else np.array(attribute(node, "shape"))
    if target is None or target.ndim != 1:
        return None
    keep_zero = bool(attribute(node, "allowzero", 0))
    out: list[Dim] = []
    for i, entry in enumerate(target.tolist()):
        copies = entry == 0 and not keep_zero and source is not None and i < len(source)
        out.append(source[i] if copies and source is not None else entry)  # 0 copies the input's dimension
    match_unknown(out, source)
    return tuple(None if d == -1 else d for d in out)


def match_unknown(out: list[Dim], source: Shape | None) -> None:
    """Fill in -1 from the total size; give an unknown leading dimension the symbol it was read from."""
    if source is None:
        return
    if out and source and out[0] is None and isinstance(source[0], str):
        rest_in, rest_out = source[1:], out[1:]
        ints = [d for d in (*rest_in, *rest_out) if isinstance(d, int) and d >= 0]
        if len(ints) == len(rest_in) + len(rest_out) and volume(rest_in) == volume(rest_out):
            out[0] = source[0]
        elif -1 in out and len(ints) == len(rest_in) + len(rest_out) - 1:
            out[0] = source[0]  # [batch, -1]: the size that is left belongs to the other dimensions
    if -1 not in out:
        return
    left, right = list(source), [d for d in out if d != -1]
    for d in list(right):
        if d in left and not isinstance(d, int):
            left.remove(d)
            right.remove(d)
    if all(isinstance(d, int) for d in left + right) and volume(right) > 0:
        out[out.index(-1)] = volume(left) // volume(right)
    elif len(left) == 1 and not right:
        out[out.index(-1)] = left[0]


def volume(dims: Sequence[Dim]) -> int:
    """Number of elements of known dimensions."""
    return int(np.prod([int(d) for d in dims if d is not None], dtype=np.int64))


def expanded(inference: Inference, node: onnx.NodeProto) -> Shape | None:
    """The output shape of an Expand whose target may be half known."""
    source, target = inference.shape(node.input[0]), inference.values.get(node.input[1])
    if source is None or target is None or target.ndim != 1:
        return None
    rank = max(len(source), target.size)
    a = [1] * (rank - len(source)) + list(source)
    b = [1] * (rank - target.size) + target.tolist()
    return tuple(y if x == 1 else x if y == 1 or y is None else y for x, y in zip(a, b, strict=True))


def filled(inference: Inference, node: onnx.NodeProto) -> Shape | None:
    """The output shape of a ConstantOfShape whose shape may be half known."""
    value = inference.values.get(node.input[0])
    return None if value is None or value.ndim != 1 else tuple(value.tolist())


def resampled(inference: Inference, node: onnx.NodeProto) -> Shape | None:
    """The output shape of a Resize whose target sizes are half known."""
    source = inference.shape(node.input[0])
    sizes = inference.values.get(node.input[3]) if len(node.input) > 3 else None
    if source is None or sizes is None or sizes.shape != (len(source),) or attribute(node, "axes"):
        return None
    policy = attribute(node, "keep_aspect_ratio_policy", b"stretch")
    return tuple(sizes.tolist()) if policy == b"stretch" else None


def like_input(inference: Inference, node: onnx.NodeProto) -> Shape | None:
    """The shape of the first input."""
    return inference.shape(node.input[0])


def cropped(inference: Inference, node: onnx.NodeProto) -> Shape | None:
    """The output shape of the experimental Crop (border: left, top, right, bottom)."""
    shape, border = inference.shape(node.input[0]), attribute(node, "border")
    if shape is None or len(shape) != 4 or attribute(node, "scale"):
        return None
    left, top, right, bottom = border
    cut = (top + bottom, left + right)
    return (*shape[:2], *(d - c if isinstance(d, int) else None for d, c in zip(shape[2:], cut, strict=True)))


ALIASES = {("com.microsoft", "FusedConv"): "Conv"}
PARTIAL_SHAPES: MutableMapping[str, Callable[[Inference, onnx.NodeProto], Shape | None]] = {
    "Reshape": reshaped,
    "Expand": expanded,
    "ConstantOfShape": filled,
    "Resize": resampled,
    "ImageScaler": like_input,
    "Affine": like_input,
    "Crop": cropped,
}
