"""Where a layer's shift can be written. Law: no other layer reads what is written, and nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.calibrate.anchors import by_channel, normalisation
from onnxprune.calibrate.contraction import CONVOLUTIONS
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
        new: Whether the layer has yet to be given it.
    """

    tensor: str
    array: Array
    factor: NDArray[np.float64] | float
    new: bool = False

    def shifted(self, shift: Array) -> Array:
        """The vector that shifts the output by `shift` (channels,) more."""
        return np.asarray(self.array + np.reshape(self.factor * shift, self.array.shape), dtype=self.array.dtype)


def place_of(node: onnx.NodeProto, channels: int, model: Model, readers: Readers) -> Place | None:
    """Where the shift goes: the layer's own bias, the normalisation behind it, a new bias, or an added constant."""
    own = node.input[2] if node.op_type != "MatMul" and len(node.input) > 2 else ""
    beta = float(attribute(node, "beta", 1.0)) if node.op_type == "Gemm" else 1.0
    if not beta:
        return None
    if own:
        held = model.weights.get(own)
        if held is None or held.shape[-1:] != (channels,) or held.size != channels:
            return None
        return Place(own, held, 1 / beta) if alone(own, readers) else None
    follows = readers.get(node.output[0], ())
    after = follows[0] if len(follows) == 1 else None
    if after is not None and (found := normalised(node, after, channels, model, readers)) is not None:
        return found
    if node.op_type != "MatMul":
        weight, name = model.weights[node.input[1]], f"{node.output[0]}/bias"
        while name in model.weights or name in readers:
            name += "_"
        return Place(name, np.zeros(channels, dtype=weight.dtype), 1 / beta, new=True)
    return added(node.output[0], after, channels, model, readers)


def normalised(
    node: onnx.NodeProto, after: onnx.NodeProto, channels: int, model: Model, readers: Readers
) -> Place | None:
    """The shift of the BatchNormalization behind a layer, if it normalises the layer's channels."""
    images = node.op_type in CONVOLUTIONS or len(model.shapes.get(node.output[0], ())) == 2
    if after.op_type != "BatchNormalization" or after.input[0] != node.output[0] or not images:
        return None
    factor, beta = normalisation(after, model), model.weights.get(after.input[2])
    if factor is None or beta is None or beta.size != channels or not alone(after.input[2], readers):
        return None
    return Place(after.input[2], beta, factor)


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
    if not place.new:
        return
    if len(node.input) > 2:
        node.input[2] = place.tensor
    else:
        node.input.append(place.tensor)
    graph.initializer.append(bare(place.tensor, place.array))
