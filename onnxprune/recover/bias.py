"""Where a layer's shift can be written. Law: no other layer reads what is written, and nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.calibrate.anchors import by_channel
from onnxprune.model import Array, Model, bare
from onnxprune.shapes import attribute

Readers = Mapping[str, Sequence[onnx.NodeProto | None]]


@dataclass(frozen=True, eq=False)
class Place:
    """A vector that shifts a layer's channels.

    Attributes:
        tensor: Its name.
        array: Its value.
        factor: What a shift of the layer's output comes to in it, per channel.
    """

    tensor: str
    array: Array
    factor: NDArray[np.float64] | float

    def shifted(self, shift: Array) -> Array:
        """The vector that shifts the output by `shift` (channels,) more."""
        return np.asarray(self.array + np.reshape(self.factor * shift, self.array.shape), dtype=self.array.dtype)


def place_of(node: onnx.NodeProto, channels: int, model: Model, readers: Readers) -> Place | None:
    """Where the shift goes: the layer's own bias, the normalisation behind it, a new bias, or an added constant."""
    own = node.input[2] if node.op_type != "MatMul" and len(node.input) > 2 else ""
    if own:
        beta = float(attribute(node, "beta", 1.0)) if node.op_type == "Gemm" else 1.0
        held = model.weights.get(own)
        if held is None or held.shape[-1:] != (channels,) or held.size != channels or not beta:
            return None
        return Place(own, held, 1 / beta) if alone(own, readers) else None
    follows = readers.get(node.output[0], ())
    after = follows[0] if len(follows) == 1 else None
    if after is not None and after.op_type == "BatchNormalization":
        gamma, beta_, _, variance = (model.weights.get(i) for i in after.input[1:5])
        if gamma is not None and beta_ is not None and variance is not None and alone(after.input[2], readers):
            factor = gamma / np.sqrt(variance.astype(np.float64) + float(attribute(after, "epsilon", 1e-5)))
            return Place(after.input[2], beta_, np.asarray(factor, dtype=np.float64))
    if node.op_type != "MatMul":
        weight = model.weights[node.input[1]]
        return Place(f"{node.output[0]}/bias", np.zeros(channels, dtype=weight.dtype), 1.0)
    return added(node.output[0], after, channels, model, readers)


def alone(name: str, readers: Readers) -> bool:
    """Whether a tensor has one reader."""
    return len(readers.get(name, ())) == 1


def added(name: str, after: onnx.NodeProto | None, channels: int, model: Model, readers: Readers) -> Place | None:
    """The constant that a node adds to a matrix product."""
    if after is None or after.op_type != "Add":
        return None
    other = after.input[1] if after.input[0] == name else after.input[0]
    held = model.weights.get(other)
    if held is None or held.size != channels or by_channel(held, channels, -1, model.shapes.get(name)) is None:
        return None
    return Place(other, held, 1.0) if alone(other, readers) else None


def attach(node: onnx.NodeProto, place: Place, graph: onnx.GraphProto) -> None:
    """Give a layer the new bias that a place stands for, if it is new."""
    if node.op_type == "MatMul" or place.tensor in node.input or place.tensor != f"{node.output[0]}/bias":
        return
    if len(node.input) > 2:
        node.input[2] = place.tensor
    else:
        node.input.append(place.tensor)
    graph.initializer.append(bare(place.tensor, place.array))
