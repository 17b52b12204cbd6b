"""Where a layer's output is judged. Law: up to there, every channel is scaled and shifted, and nothing else.

A convolution is followed by its BatchNormalization, and at the end of a block by the addition of the shortcut. There a
reconstruction can make up for what the shortcut lost, too (He et al. 2017, arXiv 1707.06168, section 3.2.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.graph import inputs_of
from onnxprune.model import Array, Model
from onnxprune.shapes import attribute

Floats = NDArray[np.float64]
PASSES = ("Identity", "Dropout")


@dataclass(frozen=True, eq=False)
class Anchor:
    """A tensor in which a layer's output is scaled and shifted by channel, with another branch added at most.

    Attributes:
        tensor: Its name.
        slope: What a channel is multiplied by on the way. Shape (channels,).
    """

    tensor: str
    slope: Floats


def readers_of(model: Model) -> dict[str, list[onnx.NodeProto | None]]:
    """Tensor -> the nodes that read it; None stands for the caller, who reads the model's outputs."""
    found: dict[str, list[onnx.NodeProto | None]] = {o.name: [None] for o in model.proto.graph.output}
    for node in model.proto.graph.node:
        for name in set(inputs_of(node)):
            found.setdefault(name, []).append(node)
    return found


def anchor_of(
    name: str, channels: int, axis: int, model: Model, readers: Mapping[str, Sequence[onnx.NodeProto | None]]
) -> Anchor:
    """The last tensor behind a layer's output that serves.

    Args:
        name: The output.
        channels: How many channels it has.
        axis: Which axis they are: 1 for images, -1 for matrices.
        model: The graph.
        readers: `readers_of` it.
    """
    slope = np.ones(channels)
    while len(found := readers.get(name, ())) == 1 and (node := found[0]) is not None:
        if node.op_type in PASSES and node.input[0] == name and node.output[0] in readers:
            name = node.output[0]
        elif (factor := scaling(node, name, channels, axis, model)) is not None:
            name, slope = node.output[0], slope * factor
        else:
            joined = node.op_type in ("Add", "Sum") and same_shape(node, model) and len(node.input) == 2
            return Anchor(node.output[0] if joined else name, slope)
    return Anchor(name, slope)


def scaling(node: onnx.NodeProto, name: str, channels: int, axis: int, model: Model) -> Floats | None:
    """What a node multiplies each channel of tensor `name` by, if that and a shift is all it does."""
    if node.op_type == "BatchNormalization" and node.input[0] == name and axis == 1:
        return normalisation(node, model)
    if node.op_type not in ("Mul", "Div", "Add", "Sub") or node.input[0] == node.input[1]:
        return None
    other = model.weights.get(node.input[1] if node.input[0] == name else node.input[0])
    if other is None or (vector := by_channel(other, channels, axis, model.shapes.get(name))) is None:
        return None
    if node.op_type in ("Add", "Sub"):
        return -np.ones(channels) if node.op_type == "Sub" and node.input[1] == name else np.ones(channels)
    if node.op_type == "Mul":
        return vector
    return None if node.input[1] == name or (vector == 0).any() else 1 / vector


def normalisation(node: onnx.NodeProto, model: Model) -> Floats | None:
    """What a BatchNormalization multiplies each channel by; None where it is not stored, or differs by batch."""
    held = [model.weights.get(i) for i in node.input[1:5]]
    if any(a is None for a in held) or attribute(node, "training_mode", 0):
        return None
    gamma, _, _, variance = (np.asarray(a, dtype=np.float64) for a in held)
    return np.asarray(gamma / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5))))


def by_channel(array: Array, channels: int, axis: int, shape: Sequence[object] | None) -> Floats | None:
    """A parameter as one number for each channel; None where it differs along another axis."""
    if array.size == 1 and array.ndim <= len(shape or ()):
        return np.full(channels, float(array.ravel()[0]))
    if shape is None or array.size != channels or array.ndim > len(shape):
        return None
    full = (1,) * (len(shape) - array.ndim) + array.shape
    return array.astype(np.float64).ravel() if full[axis] == channels else None


def same_shape(node: onnx.NodeProto, model: Model) -> bool:
    """Whether two activations of the same shape are added."""
    if any(name in model.weights for name in node.input) or len(set(node.input)) < len(node.input):
        return False
    shapes = [model.shapes.get(name) for name in node.input]
    return shapes[0] is not None and len(shapes[0]) > 1 and shapes[0] == shapes[-1]
