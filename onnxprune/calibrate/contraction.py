"""Layers that are linear in their weights, as matrices. Law: at every site, outputs = inputs x weights + bias.

A *site* is one place of the output: a sample and a position in the image for convolutions, one row for matrix products.
There a layer of `groups` groups multiplies `inputs` (groups, K) by `matrix` (groups, K, M).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.model import Array, Model
from onnxprune.shapes import attribute

Floats = NDArray[np.float64]
Sites = tuple[NDArray[np.int64], ...]
Index = tuple[Any, ...]
CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True, eq=False)
class Contraction:
    """A Conv, ConvTranspose, Gemm or MatMul with a stored weight.

    Attributes:
        node: The node.
        weight: Its weight.
        groups: Groups of the convolution; 1 otherwise.
    """

    node: onnx.NodeProto
    weight: Array
    groups: int

    @property
    def convolves(self) -> bool:
        """Whether outputs are images, channels on axis 1; otherwise channels are on the last axis."""
        return self.node.op_type in CONVOLUTIONS

    @property
    def kernel(self) -> tuple[int, ...]:
        """Spatial size of the filters."""
        return self.weight.shape[2:] if self.convolves else ()

    @property
    def axis(self) -> int:
        """The axis of the output's channels."""
        return 1 if self.convolves else -1

    @property
    def shape(self) -> tuple[int, int, int]:
        """That of `matrix`: groups, inputs of one group at one site (channels x kernel), its outputs."""
        first, second = self.weight.shape[:2]
        if self.node.op_type == "Conv":
            return self.groups, self.weight[0].size, first // self.groups
        if self.node.op_type == "ConvTranspose":
            return self.groups, first // self.groups * self.taps, second
        return (1, second, first) if attribute(self.node, "transB", 0) else (1, first, second)

    @property
    def columns(self) -> int:
        """Inputs of one group at one site."""
        return self.shape[1]

    @property
    def taps(self) -> int:
        """Inputs that each channel has at one site."""
        return math.prod(self.kernel)

    @property
    def channels(self) -> int:
        """Outputs of all groups."""
        return self.groups * self.shape[2]

    @property
    def weighed(self) -> float:
        """What a weight counts in an output on average: alpha of a Gemm, the places a transposed convolution fills."""
        if self.node.op_type == "Gemm":
            return float(attribute(self.node, "alpha", 1.0))
        strides = attribute(self.node, "strides", [1]) if self.node.op_type == "ConvTranspose" else [1]
        return 1.0 / math.prod(strides)

    def share(self, output: Array, batches: int, enough: float) -> float:
        """The share of the sites of so many batches with outputs like this that comes to `enough` sites."""
        return min(1.0, float(enough / max(1.0, output.size / output.shape[self.axis] * batches)))

    @property
    def matrix(self) -> Floats:
        """The weights. Shape (groups, K, M); K runs over channels first, then over the kernel."""
        w, kind = self.weight.astype(np.float64), self.node.op_type
        if kind == "Conv":
            return w.reshape(self.groups, w.shape[0] // self.groups, -1).transpose(0, 2, 1)
        if kind == "ConvTranspose":
            split = w.reshape(self.groups, w.shape[0] // self.groups, w.shape[1], -1)
            return split.transpose(0, 1, 3, 2).reshape(self.groups, -1, w.shape[1])
        return w.T[None] if attribute(self.node, "transB", 0) else w[None]

    def tensor(self, matrix: Floats) -> Array:
        """The weight that has this matrix; the inverse of `matrix`."""
        kind, shape = self.node.op_type, self.weight.shape
        if kind == "Conv":
            found = matrix.transpose(0, 2, 1).reshape(shape)
        elif kind == "ConvTranspose":
            split = matrix.reshape(self.groups, shape[0] // self.groups, -1, shape[1])
            found = split.transpose(0, 1, 3, 2).reshape(shape)
        else:
            found = matrix[0].T if attribute(self.node, "transB", 0) else matrix[0]
        return np.ascontiguousarray(found, dtype=self.weight.dtype)

    def sites(self, shape: Sequence[int], share: float, rng: np.random.Generator) -> Sites:
        """A share of the sites of an output of this shape, drawn without repetition."""
        places = (shape[0], *shape[2:]) if self.convolves else tuple(shape[:-1])
        count = int(np.prod(places))
        chosen = max(1, round(count * share))
        every = np.arange(count) if chosen >= count else np.sort(rng.choice(count, chosen, replace=False))
        return tuple(np.asarray(axis) for axis in np.unravel_index(every, places))

    def outputs(self, y: Array, sites: Sites) -> Floats:
        """A tensor of the output's shape at sites. Shape (sites, channels)."""
        place: Index = (sites[0], slice(None), *sites[1:]) if self.convolves else sites
        return np.asarray(y[place], dtype=np.float64)

    def inputs(self, x: Array, sites: Sites) -> Floats:
        """What the layer multiplies at sites. Shape (sites, groups, K)."""
        if not self.convolves:
            x = x.T if attribute(self.node, "transA", 0) else x
            scale = float(attribute(self.node, "alpha", 1.0)) if self.node.op_type == "Gemm" else 1.0
            return np.asarray(x[sites], dtype=np.float64)[:, None] * scale
        place: Index = (sites[0], slice(None), *sites[1:])
        return np.asarray(self.windows(x)[place], dtype=np.float64).reshape(len(sites[0]), self.groups, -1)

    def windows(self, x: Array) -> Array:
        """A view of what every output sees. Shape (samples, channels, *output, *kernel)."""
        kernel = np.array(self.kernel)
        dims = kernel.size
        dilations = np.array(attribute(self.node, "dilations", [1] * dims))
        strides = np.array(attribute(self.node, "strides", [1] * dims))
        span = dilations * (kernel - 1)
        backwards = self.node.op_type == "ConvTranspose"
        pads = padding(self.node, np.array(x.shape[2:]), kernel, strides, dilations)
        if backwards:
            x, pads = spread_out(x, strides), np.tile(span, 2) - pads
            pads[dims:] += np.array(attribute(self.node, "output_padding", [0] * dims))
            strides = np.ones(dims, dtype=np.int64)
        x = cropped(np.pad(x, [(0, 0), (0, 0), *zip(pads[:dims].clip(0), pads[dims:].clip(0), strict=True)]), pads)
        views = np.lib.stride_tricks.sliding_window_view(x, tuple(span + 1), axis=tuple(range(2, 2 + dims)))
        taps = [slice(None, None, -d if backwards else d) for d in dilations.tolist()]
        return views[(slice(None), slice(None), *(slice(None, None, s) for s in strides.tolist()), *taps)]


def spread_out(x: Array, strides: NDArray[np.int64]) -> Array:
    """The image with zeros between its values, as a transposed convolution sees it."""
    size = (np.array(x.shape[2:]) - 1) * strides + 1
    found = np.zeros((*x.shape[:2], *size.tolist()), dtype=x.dtype)
    found[(slice(None), slice(None), *(slice(None, None, s) for s in strides.tolist()))] = x
    return found


def cropped(x: Array, pads: NDArray[np.int64]) -> Array:
    """The image without what negative padding takes away."""
    dims = pads.size // 2
    ends = [slice(max(0, -a), n - max(0, -b)) for a, b, n in zip(pads[:dims], pads[dims:], x.shape[2:], strict=True)]
    return x[(slice(None), slice(None), *ends)]


def padding(
    node: onnx.NodeProto,
    size: NDArray[np.int64],
    kernel: NDArray[np.int64],
    strides: NDArray[np.int64],
    dilations: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Padding at the beginnings and the ends of the spatial axes, `auto_pad` resolved. Shape (2 x axes,)."""
    auto, dims = attribute(node, "auto_pad", b"NOTSET"), kernel.size
    auto = auto.decode() if isinstance(auto, bytes) else auto
    if auto in ("NOTSET", "VALID"):
        return np.array(attribute(node, "pads", [0] * 2 * dims) if auto == "NOTSET" else [0] * 2 * dims)
    if node.op_type == "ConvTranspose":
        more = np.array(attribute(node, "output_padding", [0] * dims))
        total = (dilations * (kernel - 1) + 1 - strides + more).clip(0)
    else:
        total = ((-(-size // strides) - 1) * strides + dilations * (kernel - 1) + 1 - size).clip(0)
    small = total // 2
    return np.concatenate([small, total - small] if auto == "SAME_UPPER" else [total - small, small])


def contraction_of(node: onnx.NodeProto, model: Model) -> Contraction | str:
    """A node as a matrix product with a stored weight, or why it is none."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in (*CONVOLUTIONS, "Gemm", "MatMul"):
        return "no linear layer"
    weight = model.weights.get(node.input[1])
    if weight is None or node.input[0] in model.weights:
        return "its weight is not stored, or is the first operand"
    if weight.dtype not in (np.float32, np.float64, np.float16):
        return f"its weight is {weight.dtype}"
    if node.op_type == "MatMul" and weight.ndim != 2:
        return "its weight is a batch of matrices"
    if len(model.shapes.get(node.input[0], (0, 0))) < 2:
        return "its input is a vector"
    if attribute(node, "output_shape", None):
        return "its padding follows from a given output shape"
    groups = int(attribute(node, "group", 1)) if node.op_type in CONVOLUTIONS else 1
    return Contraction(node, weight, groups)
