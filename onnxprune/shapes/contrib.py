"""Output shapes of onnxruntime's own operators, for which onnx has no schema. Law: as in `partial`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx
from onnx import TensorProto

from onnxprune.model import STRAY, Dim, Shape
from onnxprune.shapes.partial import Known
from onnxprune.shapes.values import attribute

Shapes = Sequence[Shape | None]
# Operators whose outputs have the element type of another input than the first.
TYPED: Mapping[str, int] = {
    "DequantizeLinear": 1,
    "EmbedLayerNormalization": 2,
    "MatMulIntegerToFloat": 2,
    "QAttention": 3,
    "QEmbedLayerNormalization": 8,
    "QLinearConcat": 2,
    "QLinearWhere": 1,
    "QuantizeLinear": 2,
}


def element_input(node: onnx.NodeProto) -> int:
    """The number of the input whose element type the outputs have."""
    if node.op_type == "QGemm" and len(node.input) < 8:
        return 1  # without a scale to write integers with, it writes real numbers
    return TYPED.get(node.op_type, 0)


def like_first(inference: Known, node: onnx.NodeProto) -> Shapes:
    """The shape of the first input."""
    return [inference.shape(node.input[0])]


def normalised(inference: Known, node: onnx.NodeProto) -> Shapes:
    """Outputs of a layer normalisation: the result, statistics over its last axes, and the sum before it."""
    x = inference.shape(node.input[0])
    if x is None:
        return []
    first = attribute(node, "axis", -1) % len(x)
    statistics = (*x[:first], *(1 for _ in x[first:]))
    return [x, statistics, statistics, x]


def embedded(inference: Known, node: onnx.NodeProto) -> Shapes:
    """(batch, sequence) of word ids -> (batch, sequence, hidden), the mask's lengths, and the sum before the norm."""
    words, table = inference.shape(node.input[0]), inference.shape(node.input[2])
    if words is None or table is None:
        return []
    return [(*words, table[-1]), words[:1], (*words, table[-1])]


def attended(inference: Known, node: onnx.NodeProto) -> Shapes:
    """Attention and QAttention: (batch, sequence, input) -> (batch, sequence, hidden size of the values)."""
    x, weights = inference.shape(node.input[0]), inference.shape(node.input[1])
    sizes = attribute(node, "qkv_hidden_sizes", [])
    merged = weights[1] if weights is not None and len(weights) == 2 else None
    if x is None or len(x) != 3 or not (sizes or isinstance(merged, int)):
        return []
    hidden: Dim = sizes[2] if sizes else int(str(merged)) // 3
    return [(*x[:2], hidden)]


def multi_headed(inference: Known, node: onnx.NodeProto) -> Shapes:
    """MultiHeadAttention: the query's batch and sequence, and the values' hidden size."""
    names = [*node.input[:3], *[""] * (3 - len(node.input[:3]))]
    query, value = inference.shape(names[0]), inference.shape(names[2])
    if query is None or value is None or len(query) != 3:
        return []
    hidden = value[2] if len(value) == 3 else product(value[1], value[3])
    return [(*query[:2], hidden)]


def product(a: Dim, b: Dim) -> Dim:
    """The product of two known sizes."""
    return a * b if isinstance(a, int) and isinstance(b, int) else None


def grouped_query(inference: Known, node: onnx.NodeProto) -> Shapes:
    """GroupQueryAttention: the shape of the query, or of its part of a packed projection."""
    query, heads, shared = inference.shape(node.input[0]), attribute(node, "num_heads"), attribute(node, "kv_num_heads")
    if query is None or len(query) != 3:
        return []
    if len(node.input) > 1 and node.input[1]:
        return [query]
    packed = query[2]
    return [(*query[:2], packed * heads // (heads + 2 * shared) if isinstance(packed, int) else None)]


def multiplied(inference: Known, node: onnx.NodeProto) -> Shapes:
    """FusedMatMul: numpy.matmul, either operand transposed in its last two axes or with its batch moved in."""
    a, b = inference.shape(node.input[0]), inference.shape(node.input[1])
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return []
    a, b = (tuple(x[k] for k in operand_order(node, i, len(x))) for i, x in enumerate((a, b)))
    longer, shorter = (a[:-2], b[:-2]) if len(a) >= len(b) else (b[:-2], a[:-2])
    shorter = (1,) * (len(longer) - len(shorter)) + shorter
    batch = tuple(y if x == 1 else x if y in (1, x) else None for x, y in zip(longer, shorter, strict=True))
    return [(*batch, a[-2], b[-1])]


def operand_order(node: onnx.NodeProto, i: int, rank: int) -> list[int]:
    """The axes of FusedMatMul's operand `i` in the order numpy.matmul wants them.

    `transBatch` says that the operand is stored as (rows, batch..., columns).
    """
    side, order = "AB"[i], list(range(rank))
    if attribute(node, f"transBatch{side}", 0):
        order = [*order[1:-1], order[0], order[-1]]
    return [*order[:-2], order[-1], order[-2]] if attribute(node, f"trans{side}", 0) else order


def sampled(inference: Known, node: onnx.NodeProto) -> Shapes:
    """GridSample: n c h w and a grid of n height width 2 -> n c height width."""
    x, grid = inference.shape(node.input[0]), inference.shape(node.input[1])
    return [] if x is None or grid is None else [(*x[:2], *grid[1:-1])]


def cropped(inference: Known, node: onnx.NodeProto) -> Shapes:
    """CropAndResize: n c h w -> boxes c height width."""
    x, boxes = inference.shape(node.input[0]), inference.shape(node.input[1])
    size = inference.values.get(node.input[3])
    return [] if x is None or boxes is None or size is None else [(boxes[0], x[1], *size.tolist())]


def pooled(inference: Known, node: onnx.NodeProto) -> Shapes:
    """NhwcMaxPool: the channels, which are last, stay."""
    x = inference.shape(node.input[0])
    return [] if x is None else [(x[0], *(None for _ in x[1:-1]), x[-1])]


def expanded(inference: Known, node: onnx.NodeProto) -> Shapes:
    """ExpandDims: an axis of size 1 more."""
    x, axis = inference.shape(node.input[0]), inference.values.get(node.input[1])
    if x is None or axis is None or axis.dtype == object:
        return []
    at = int(axis.ravel()[0]) % (len(x) + 1)
    return [(*x[:at], 1, *x[at:])]


CONTRIB: Mapping[str, Callable[[Known, onnx.NodeProto], Shapes]] = {
    "Attention": attended,
    "CropAndResize": cropped,
    "DequantizeLinear": like_first,
    "EmbedLayerNormalization": embedded,
    "ExpandDims": expanded,
    "FusedMatMul": multiplied,
    "Gelu": like_first,
    "GridSample": sampled,
    "GroupQueryAttention": grouped_query,
    "Inverse": like_first,
    "LayerNormalization": normalised,
    "MultiHeadAttention": multi_headed,
    "NhwcMaxPool": pooled,
    "QAttention": attended,
    "QEmbedLayerNormalization": embedded,
    "QLinearSoftmax": like_first,
    "QuantizeLinear": like_first,
    "RotaryEmbedding": like_first,
    "SimplifiedLayerNormalization": normalised,
    "SkipLayerNormalization": normalised,
    "SkipSimplifiedLayerNormalization": normalised,
    "TransposeMatMul": multiplied,
    "Trilu": like_first,
}
RUNTIME = "com.microsoft"


def contrib_types(
    inference: Known, node: onnx.NodeProto, element: Callable[[str], int]
) -> dict[str, tuple[int, Shape]]:
    """Element type and dimensions of a node's outputs, where this module knows them. `element`: type of a tensor."""
    if node.op_type not in CONTRIB or not (node.domain == RUNTIME or node.op_type in STRAY):
        return {}
    kind = element(node.input[element_input(node)]) or TensorProto.FLOAT
    found = zip(node.output, CONTRIB[node.op_type](inference, node), strict=False)
    return {name: (kind, shape) for name, shape in found if name and shape is not None}
