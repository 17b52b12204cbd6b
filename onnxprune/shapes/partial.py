"""Output shapes that onnx's own inference cannot state. Law: a size is given only when it holds for every input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import onnx

from onnxprune.model import Array, Dim, Shape
from onnxprune.shapes.values import attribute


class Known(Protocol):
    """What has been inferred so far.

    Attributes:
        values: Tensor name -> known or half-known value.
    """

    values: dict[str, Array]

    def shape(self, name: str) -> Shape | None:
        """Dimensions of a tensor, or None."""


def reshaped(inference: Known, node: onnx.NodeProto) -> Shape | None:
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
    """Fill in one unknown dimension, the -1 if there is one, from what the others leave of the total size."""
    unknown = out.index(-1) if -1 in out else out.index(None) if None in out else None
    if source is None or unknown is None:
        return
    left, right = list(source), [d for k, d in enumerate(out) if k != unknown]
    for d in list(right):
        if d in left and isinstance(d, str):
            left.remove(d)
            right.remove(d)
    symbols = [d for d in left + right if not isinstance(d, int)]
    sizes = volume([d for d in left if isinstance(d, int)]), volume([d for d in right if isinstance(d, int)])
    if not symbols and sizes[1] > 0:
        out[unknown] = sizes[0] // sizes[1]
    elif symbols == [d for d in left if isinstance(d, str)][:1] and sizes[0] == sizes[1] > 0:
        out[unknown] = symbols[0]


def volume(dims: Sequence[Dim]) -> int:
    """Number of elements of known dimensions."""
    return math.prod(int(d) for d in dims if d is not None)


def expanded(inference: Known, node: onnx.NodeProto) -> Shape | None:
    """The output shape of an Expand whose target may be half known."""
    source, target = inference.shape(node.input[0]), inference.values.get(node.input[1])
    if source is None or target is None or target.ndim != 1:
        return None
    rank = max(len(source), target.size)
    a = [1] * (rank - len(source)) + list(source)
    b = [1] * (rank - target.size) + target.tolist()
    return tuple(stretched(x, y) for x, y in zip(a, b, strict=True))


def stretched(x: Dim, y: Dim) -> Dim:
    """The size two dimensions broadcast to, where that does not depend on whether an unknown one is 1."""
    if x == 1 or y == 1:
        return y if x == 1 else x
    if isinstance(x, int) or x == y:
        return x
    return y if isinstance(y, int) else None


def filled(inference: Known, node: onnx.NodeProto) -> Shape | None:
    """The output shape of a ConstantOfShape whose shape may be half known."""
    value = inference.values.get(node.input[0])
    return None if value is None or value.ndim != 1 else tuple(value.tolist())


def resampled(inference: Known, node: onnx.NodeProto) -> Shape | None:
    """The output shape of a Resize whose target sizes are half known."""
    source = inference.shape(node.input[0])
    sizes = inference.values.get(node.input[3]) if len(node.input) > 3 else None
    if source is None or sizes is None or sizes.shape != (len(source),) or attribute(node, "axes"):
        return None
    policy = attribute(node, "keep_aspect_ratio_policy", b"stretch")
    return tuple(sizes.tolist()) if policy == b"stretch" else None


def sliced(inference: Known, node: onnx.NodeProto) -> Shape | None:
    """The output shape of a Slice whose bounds are computed: the axes it does not name keep their sizes."""
    source = inference.shape(node.input[0])
    bounds = [inference.values.get(name) for name in node.input[1:]]
    if source is None or len(bounds) < 3 or all(b is not None and b.dtype != object for b in bounds):
        return None
    axes = bounds[2]
    if axes is None or axes.dtype == object:
        return None
    cut = {int(k) % max(len(source), 1) for k in axes.ravel()}
    return tuple(None if k in cut else d for k, d in enumerate(source))


def like_input(inference: Known, node: onnx.NodeProto) -> Shape | None:
    """The shape of the first input."""
    return inference.shape(node.input[0])


def cropped(inference: Known, node: onnx.NodeProto) -> Shape | None:
    """The output shape of the experimental Crop (border: left, top, right, bottom)."""
    shape, border = inference.shape(node.input[0]), attribute(node, "border")
    if shape is None or len(shape) != 4 or attribute(node, "scale"):
        return None
    left, top, right, bottom = border
    cut = (top + bottom, left + right)
    return (*shape[:2], *(d - c if isinstance(d, int) else None for d, c in zip(shape[2:], cut, strict=True)))


PARTIAL_SHAPES: Mapping[str, Callable[[Known, onnx.NodeProto], Shape | None]] = {
    "Reshape": reshaped,
    "Expand": expanded,
    "ConstantOfShape": filled,
    "Resize": resampled,
    "Slice": sliced,
    "ImageScaler": like_input,
    "Affine": like_input,
    "CausalConvWithState": like_input,
    "GroupNormalization": like_input,
    "MeanVarianceNormalization": like_input,
    "RotaryEmbedding": like_input,
    "Crop": cropped,
}
