"""Where the constant terms of a contraction can go. Law: a constant is moved only where it is the same at every place.

At the border of a padded convolution some taps read zeros, so there a constant channel is not a constant term.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.dead.contraction import Linear
from onnxprune.model import Array, Model, is_float
from onnxprune.shapes import attribute

SLOTS = dict.fromkeys(("Conv", "Gemm"), 2)


@dataclass(frozen=True, eq=False)
class Bias:
    """An input slot whose vector is added to each output.

    Attributes:
        writes: First output of the node that reads it.
        slot: Number of its input.
        name: The initializer there; '' for none.
        scale: What the vector is multiplied with, over what the weights are.
    """

    writes: str
    slot: int
    name: str
    scale: float = 1.0


def bias_of(model: Model, count: Counter[str], node: onnx.NodeProto, found: Linear) -> Bias | None:
    """Where the constant terms of a node can go; None where they differ from place to place, or have no place.

    `count` tells how many read each tensor.
    """
    weight = node.input[1]
    alone = weight in model.weights and count[weight] == 1 and weight not in shared(model)
    sound = bool(np.isfinite(model.weights[weight]).all()) if alone and is_float(model.weights[weight]) else False
    if not sound or found.operand != 0 or not found.all_taps:
        return None
    place = behind(model, node, count) if node.op_type == "MatMul" else beside(node)
    if place is None or (place.name and not fits(model, place.name, found.weight.shape[0] * found.weight.shape[1])):
        return None
    return place


def shared(model: Model) -> set[str]:
    """Weights that are stored once with others."""
    return {*model.copies, *model.copies.values()}


def beside(node: onnx.NodeProto) -> Bias | None:
    """The node's own bias, or the empty slot for one."""
    slot = SLOTS.get(node.op_type)
    if slot is None:
        return None
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    name = node.input[slot] if len(node.input) > slot else ""
    return Bias(node.output[0], slot, name, beta / alpha) if alpha and beta else None


def behind(model: Model, node: onnx.NodeProto, count: Counter[str]) -> Bias | None:
    """The vector that an Add, and nothing else, adds to a product."""
    y = node.output[0]
    adds = [n for n in model.proto.graph.node if y in n.input and n.op_type == "Add" and not n.domain]
    if count[y] != 1 or len(adds) != 1:
        return None
    slot = 1 - list(adds[0].input).index(y)
    name = adds[0].input[slot]
    wide = model.shapes.get(y), model.shapes.get(adds[0].output[0])
    return Bias(adds[0].output[0], slot, name) if name in model.weights and wide[0] == wide[1] else None


def fits(model: Model, name: str, width: int) -> bool:
    """Whether a tensor is a stored vector along the last axis, or one number for all of it."""
    stored: Array | None = model.weights.get(name)
    return stored is not None and (stored.size == 1 or stored.shape == (1,) * (stored.ndim - 1) + (width,))
