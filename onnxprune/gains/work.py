"""How much a node computes, read from shapes. Law: unknown stays unknown; open sizes count as 1 in both models."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from onnxprune.model import Model
from onnxprune.shapes import attribute

Dims = tuple[int, ...]

# Operator -> the place of its weight among the inputs.
CONVOLUTIONS = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "FusedConv": 1, "QLinearConv": 3}
PRODUCTS = {"Gemm": 1, "MatMul": 1, "MatMulInteger": 1, "FusedMatMul": 1, "QLinearMatMul": 3}
RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True)
class Contraction:
    """A convolution or matrix product.

    Attributes:
        macs: Multiply-accumulates.
        into: Channels it reads, of all groups.
        out: Channels it writes.
        groups: Groups.
    """

    macs: float
    into: int
    out: int
    groups: int = 1


def dims_of(model: Model, name: str) -> Dims | None:
    """Sizes of a tensor, with 1 for what the model leaves open; None where even the rank is not known."""
    shape = model.weights[name].shape if name in model.weights else model.shapes.get(name)
    return None if shape is None else tuple(d if isinstance(d, int) else 1 for d in shape)


def contraction(node: onnx.NodeProto, model: Model) -> Contraction | None:
    """What a node multiplies; None for one that is no convolution or matrix product, or of unknown shapes."""
    kind = node.op_type
    place = CONVOLUTIONS.get(kind, PRODUCTS.get(kind, 1 if kind in RECURRENT else len(node.input)))
    if place >= len(node.input):
        return None
    weight, data, result = (dims_of(model, n) for n in (node.input[place], node.input[0], node.output[0]))
    if weight is None or data is None or result is None or len(weight) < 2:
        return None
    if kind in CONVOLUTIONS:
        groups = int(attribute(node, "group", 1))
        turned = kind == "ConvTranspose"
        into, out = (weight[0], weight[1] * groups) if turned else (weight[1] * groups, weight[0])
        positions = math.prod((data if turned else result)[2:])
        return Contraction(float(math.prod(weight) * positions), into, out, groups)
    if kind in RECURRENT:
        hidden = result[-1]  # the recurrent weight is as many rows of the hidden width
        return Contraction(float(data[0] * math.prod(weight[:-1]) * (weight[-1] + hidden)), weight[-1], hidden)
    turned = kind == "Gemm" and bool(attribute(node, "transB", 0))
    into, out = (weight[-1], weight[-2]) if turned else (weight[-2], weight[-1])
    return Contraction(float(math.prod(result) * into), into, out)


def elements(nodes: Iterable[onnx.NodeProto], model: Model) -> float | None:
    """Elements that nodes read and write, weights aside; None where a shape is not known."""
    total = 0
    for node in nodes:
        for name in (*node.input, *node.output):
            if not name or name in model.weights:
                continue
            dims = dims_of(model, name)
            if dims is None:
                return None
            total += math.prod(dims)
    return float(total) if total else None
