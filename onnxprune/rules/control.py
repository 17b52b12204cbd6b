"""Operators that read sizes or make tensors. Law: sizes read while the model runs stay the dense ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxprune.labels import Axes, Axis
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.registry import resize, rule


@rule("Shape")
def shape(op: Op) -> Sequence[Axes]:
    """Reads sizes; whatever is computed from them sees the dense ones."""
    return [tuple(Axis() for _ in op.out_shape())]


@resize("Shape")
def resize_shape(edit: Edit) -> None:
    """Put the dense sizes back, so that arithmetic on them does not change; readers that store sizes correct them."""
    name = edit.node.input[0]
    if edit.changed(name):
        edit.patch_output(edit.pruned_shape(name), edit.shape(name))


@rule("ConstantOfShape")
def constant_of_shape(op: Op) -> Sequence[Axes]:
    """Holds one value, so its axes take on the labels of whatever they are combined with."""
    return [tuple(op.filled(size) for size in op.out_shape())]


@resize("ConstantOfShape")
def resize_constant_of_shape(edit: Edit) -> None:
    """The stored sizes follow the output's."""
    name = edit.node.output[0]
    if edit.changed(name):
        edit.patch_sizes(0, edit.shape(name), edit.pruned_shape(name), leave=())


WINDOWS = ("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix")


@rule("Range", "RandomNormal", "RandomUniform", "Constant", "EyeLike", *WINDOWS)
def constant(op: Op) -> Sequence[Axes]:
    """Makes a tensor out of sizes: its axes keep the size they are given."""
    for i in range(op.arity):
        if op.has(i):
            op.fix_rest(op.input(i), (), op.name_in(i), f"{op.kind} reads all of it")
    return [op.frozen_like(op.out_shape(j), f"{op.kind} makes this axis", j) for j in range(op.outputs)]


@rule("Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike")
def random(op: Op) -> Sequence[Axes]:
    """Draws numbers in the order of its elements, so that each depends on how many came before: all freezes."""
    raise CannotTrace(f"{op.kind} draws a random number for each element, in their order")


@rule("Size")
def size(op: Op) -> Sequence[Axes]:
    """Counts the elements; whatever is computed from that sees the dense number."""
    return [()]


@resize("Size")
def resize_size(edit: Edit) -> None:
    """Scale the count back to the dense one."""
    name, out = edit.node.input[0], edit.node.output[0]
    sizes = zip(edit.shape(name), edit.pruned_shape(name), strict=True)
    lost = [(dense, now) for dense, now in sizes if dense != now]
    factors = [edit.constant(f"{out}_size", np.array(math.prod(side), np.int64)) for side in zip(*lost, strict=True)]
    edit.node.output[0], each = edit.fresh(f"{out}_pruned"), edit.fresh(f"{out}_each")
    edit.append("Div", [edit.node.output[0], factors[1]], each)
    edit.append("Mul", [each, factors[0]], out)
