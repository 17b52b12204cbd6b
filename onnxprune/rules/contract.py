"""Convolutions and matrix products. Law: the contracted axes of both operands are tied.

The output axes of their weights are sources, whose indices are the filters that get ranked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxprune.labels import Axes, Axis, Ids
from onnxprune.model import Dim
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import Op
from onnxprune.rules.pointwise import aligned
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.registry import resize, rule
from onnxprune.rules.zeros import contracted
from onnxprune.shapes import channels_last


@rule("Conv")
def conv(op: Op) -> Sequence[Axes]:
    """n c ..., o c/g ..., o -> n o ...: filters are sources; grouped ones lose equal numbers from every group."""
    return convolve(op, out_axis=0, in_axis=1)


@rule("CausalConvWithState")
def causal_conv(op: Op) -> Sequence[Axes]:
    """n c l, c 1 k, c, n c s -> n c l, n c s: a depthwise convolution over time that hands on its last inputs."""
    for i, free in enumerate(((0, 1), (0,), (0,), (0, 1))):
        if op.has(i):
            op.fix_rest(op.input(i), free, op.name_in(i), "CausalConvWithState slides over this axis")
    batch, channels = op.plain(op.input(0), 0), op.plain(op.input(0), 1)
    for i, k in ((1, 0), (2, 0), (3, 1)):
        channels = op.join(channels, op.plain(op.input(i), k)) if op.has(i) else channels
    return [(batch, channels, Axis())] * op.outputs


@rule("ConvTranspose")
def conv_transpose(op: Op) -> Sequence[Axes]:
    """n c ..., c o/g ..., o -> n o ...: as Conv, with the weight's first two axes exchanged."""
    return convolve(op, out_axis=1, in_axis=0)


def convolve(op: Op, out_axis: int, in_axis: int, bias: int = 2) -> Sequence[Axes]:
    """Convolutions, which differ in where the weight keeps its channels and which input is the bias."""
    groups = op.attr("group", 1)
    x, shape = op.input(0), op.out_shape()
    op.fix_rest(x, (0, 1), op.name_in(0), f"{op.kind} slides over this axis")
    channels = op.plain(x, 1)
    if groups == 1:
        weight = op.input(1)
        into, out = contracted(op, channels, op.plain(weight, in_axis)), op.plain(weight, out_axis)
        product: list[Axis | Dim] = [op.extent(into, op.shape(1)[in_axis]), op.extent(out, op.shape(1)[out_axis])]
        op.cost(taps(op, shape), product)
    else:
        channels, out = grouped(op, channels, groups, out_axis, in_axis, taps(op, shape))
        weight = op.input(1)
    op.fix_rest(weight, (0, 1), op.name_in(1), "kernel taps")
    op.source(out)
    if op.has(bias):
        out = op.join(out, op.plain(op.input(bias), 0))
    return [(op.plain(x, 0), out, *(Axis() for _ in shape[2:]))]


def taps(op: Op, shape: Sequence[Dim]) -> float:
    """Multiplications per pair of channels: output positions (input positions when transposed) x kernel taps."""
    positions = op.shape(0)[2:] if op.kind == "ConvTranspose" else shape[2:]
    return float(math.prod(d for d in (*positions, *op.shape(1)[2:]) if isinstance(d, int)))


def grouped(op: Op, channels: Axis, groups: int, out_axis: int, in_axis: int, factor: float) -> tuple[Axis, Axis]:
    """Labels of a grouped convolution's input and output channels.

    The second weight axis counts within a group. A group of one input or one output channel can only go whole, which
    leaves that axis as it is, and is what ties the channels of a depthwise convolution.
    """
    dims = op.shape(1)
    if not isinstance(dims[0], int) or not isinstance(dims[1], int) or groups < 1 or dims[0] % groups:
        raise CannotTrace("the weight's shape is unknown")
    first = op.plain(op.input(1), 0)
    if first.ids is None:
        raise CannotTrace(f"the grouped weight '{op.name_in(1)}' is not an initializer of its own")
    outer = first.ids.reshape(groups, -1)
    whole = 1 in (dims[1], outer.shape[1])
    inner = op.ties.fresh(groups * dims[1]).reshape(groups, -1) if whole else inner_ids(op, groups)
    if whole:
        op.source(first)  # a transposed depthwise weight has its filters on the axis that counts groups
    blocks = {out_axis: outer if out_axis == 0 else inner, in_axis: outer if in_axis == 0 else inner}
    into, out = op.join(channels, Axis(blocks[in_axis].ravel())), Axis(blocks[out_axis].ravel())
    couple(op, outer, inner)
    op.cost(factor, [op.extent(Axis(blocks[in_axis].ravel()), 1), op.extent(out, 1)], blocks[in_axis])
    return into, out


def inner_ids(op: Op, groups: int) -> Ids:
    """Ids of the weight's within-group axis, for every group. Shape (groups, width).

    Only an initializer that nothing else reads can lose different positions in every group.
    """
    blocks = op.weight_blocks(1, 1, groups, 0)
    if blocks is not None:
        return blocks
    inner = op.plain(op.input(1), 1).ids
    if inner is None:
        raise CannotTrace(f"the grouped weight '{op.name_in(1)}' cannot change its width")
    return np.broadcast_to(inner, (groups, inner.size))


def couple(op: Op, outer: Ids, inner: Ids) -> None:
    """Say what the groups of a convolution may lose: equal numbers from each, or whole groups.

    Groups one channel wide only go whole. The inner axis counts within a group: all groups lose the same positions of
    it where that leaves a choice, so that one list of indices tells what the weight lost.
    """
    if inner.shape[1] == 1 or outer.shape[1] == 1:
        op.ties.tie(outer, inner[:, :1])
        op.ties.tie(inner, inner[:, :1])
        return
    whole = op.ties.fresh(outer.shape[0])
    op.rows(inner, whole, same=True)
    op.rows(outer, whole)


@resize("Conv", "ConvTranspose", "DeformConv")
def resize_group(edit: Edit) -> None:
    """`group` becomes the number of groups still alive."""
    groups = int(str(edit.attr("group", 1)))
    channels = edit.axes(edit.node.input[0])[-1 if channels_last(edit.node) else 1]
    if groups > 1 and channels.ids is not None:
        alive = edit.keep[channels.ids].reshape(-1, edit.keep[channels.ids].shape[-1])[0].reshape(groups, -1)
        edit.set_attr("group", int(alive.any(axis=1).sum()))


@rule("Gemm")
def gemm(op: Op) -> Sequence[Axes]:
    """n k, k m, m -> n m (either operand may be stored transposed)."""
    a, b = op.input(0), op.input(1)
    shape_a, shape_b = op.shape(0), op.shape(1)
    if op.attr("transA", 0):
        a, shape_a = op.permuted(a, (1, 0)), shape_a[::-1]
    if op.attr("transB", 0):
        b, shape_b = op.permuted(b, (1, 0)), shape_b[::-1]
    inner = contracted(op, op.plain(a, 1), op.plain(b, 0))
    rows, out = op.plain(a, 0), op.plain(b, 1)
    op.cost(1.0, [op.extent(rows, shape_a[0]), op.extent(inner, shape_a[1]), op.extent(out, shape_b[1])])
    op.source(out)
    if is_weight(op, 0):
        op.source(rows)
    result: Axes = (rows, out)
    if op.has(2):
        result = add_bias(op, result)
    return [result]


def add_bias(op: Op, out: Axes) -> Axes:
    """Join Gemm's third operand, which broadcasts to the output."""
    bias, dims = aligned(op, 2, len(out))
    joined = []
    for k, dense in enumerate(dims):
        if dense == 1 and op.out_shape()[k] != 1:
            op.fix(bias, k, op.name_in(2), "Gemm stretches this single index")
            joined.append(out[k])
        else:
            joined.append(op.join(out[k], bias[k]))
    return tuple(joined)


@rule("MatMul")
def matmul(op: Op) -> Sequence[Axes]:
    """... n k, ... k m -> ... n m, as numpy.matmul does (one-dimensional operands too)."""
    vectors = [len(op.shape(i)) == 1 for i in (0, 1)]
    result = multiply(op, *matrix(op, 0, vectors[0]), *matrix(op, 1, vectors[1]))
    gone = [len(result) - 2 + i for i, vector in enumerate(vectors) if vector]
    return [tuple(axis for k, axis in enumerate(result) if k not in gone)]


def multiply(op: Op, a: Axes, shape_a: Sequence[Dim], b: Axes, shape_b: Sequence[Dim]) -> Axes:
    """The product of two stacks of matrices, which need not be stored in that order."""
    rank = max(len(a), len(b))
    a, b = lead(a, rank), lead(b, rank)
    shape_a, shape_b = ((*(1,) * (rank - len(shape)), *shape) for shape in (shape_a, shape_b))
    inner = contracted(op, drop_foreign(op, a, rank - 1, rank - 2), drop_foreign(op, b, rank - 2, rank - 1))
    batch = [stretch(op, a, b, shape_a, shape_b, k) for k in range(rank - 2)]
    rows, out = drop_foreign(op, a, rank - 2, rank - 1), drop_foreign(op, b, rank - 1, rank - 2)
    count(op, a, b, shape_a, shape_b, inner, batch)
    op.source(out)
    if is_weight(op, 0):
        op.source(rows)
    return (*batch, rows, out)


def is_weight(op: Op, i: int) -> bool:
    """Whether an operand is an initializer."""
    return op.name_in(i) in op.model.weights


def matrix(op: Op, i: int, vector: bool) -> tuple[Axes, tuple[Dim, ...]]:
    """An operand as a matrix: a vector gets a frozen axis of size 1 beside it."""
    axes, dims = op.input(i), tuple(op.shape(i))
    if not vector:
        return axes, dims
    return ((Axis(), axes[0]), (1, dims[0])) if i == 0 else ((axes[0], Axis()), (dims[0], 1))


def lead(axes: Axes, rank: int) -> Axes:
    """Axes with frozen leading axes added up to `rank`."""
    shift = rank - len(axes)
    return (Axis(),) * shift + tuple(a.moved({k: k + shift for k in range(len(axes))}) for a in axes)


def drop_foreign(op: Op, axes: Axes, k: int, other: int) -> Axis:
    """Axis `k`, with no rows over the other matrix axis, which the product treats apart."""
    return op.plain(axes, k) if other in axes[k].by else axes[k]


def stretch(op: Op, a: Axes, b: Axes, shape_a: Sequence[Dim], shape_b: Sequence[Dim], k: int) -> Axis:
    """The output's batch axis `k`: joined, or stretched from size 1."""
    if shape_a[k] == 1 and shape_b[k] != 1:
        op.fix(a, k, op.name_in(0), "MatMul stretches this single index")
        return drop_foreign(op, b, k, len(b) - 1)
    if shape_b[k] == 1 and shape_a[k] != 1:
        op.fix(b, k, op.name_in(1), "MatMul stretches this single index")
        return drop_foreign(op, a, k, len(a) - 1)
    return op.join(op.without_rows(a, k, (len(a) - 2, len(a) - 1)), op.without_rows(b, k, (len(b) - 2, len(b) - 1)))


def count(
    op: Op, a: Axes, b: Axes, shape_a: Sequence[Dim], shape_b: Sequence[Dim], inner: Axis, batch: Sequence[Axis]
) -> None:
    """Note the cost of a matrix product. An axis in rows over the batch already counts those rows."""
    parts = [(a[-2], shape_a[-2]), (b[-1], shape_b[-1]), (inner, shape_a[-1])]
    sizes: list[Axis | Dim] = [op.extent(axis, dim) for axis, dim in parts]
    covered = {k for axis, _ in parts if axis.ids is not None for k in axis.by}
    for k, axis in enumerate(batch):
        if k not in covered:
            dim = shape_b[k] if shape_a[k] == 1 else shape_a[k]
            sizes.append(op.extent(axis, dim))
    op.cost(1.0, sizes)
