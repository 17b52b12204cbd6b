"""Ranges through normalisations, poolings and reductions. Law: an average lies between its terms, zeros included.

Where padding counts as zeros, zero is one of the terms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.dead.moves import positions
from onnxprune.dead.ranges import (
    Range,
    between,
    exactly,
    product,
    ranged,
    reciprocal,
    total,
    unbounded,
    widened,
    with_zero,
)
from onnxprune.dead.site import Site, ranges
from onnxprune.model import Array

EPSILON = 1e-5
FINITE = """Acos Asin GRU Hardmax LSTM LayerNormalization LpNormalization LogSoftmax MeanVarianceNormalization
RMSNormalization RNN""".split()


@ranges("BatchNormalization")
def batch_normalization(site: Site) -> Sequence[Range]:
    """scale (x - mean) / sqrt(var + epsilon) + shift; where the scale is zero, the shift alone."""
    x = site.input(0)
    scale, shift, mean, var = (per_channel(site.input(i), x.low.ndim) for i in range(1, 5))
    spread = total([var, exactly(np.array(site.op.attr("epsilon", EPSILON)))], site.eps)
    if site.op.attr("training_mode", 0) or site.op.outputs > 1 or not bool((spread.low > 0).all()):
        return [unbounded(False)] * site.op.outputs
    factor = product(scale, reciprocal(rooted(spread), site.eps), site.eps)
    away = product(ranged(-mean.high, -mean.low, -mean.value, mean.finite), factor, site.eps)
    return [total([product(x, factor, site.eps), away, shift], site.eps)]


def rooted(x: Range) -> Range:
    """The square root of what is above zero."""
    return ranged(np.sqrt(x.low), np.sqrt(x.high), np.sqrt(x.value), x.finite)


def per_channel(x: Range, rank: int) -> Range:
    """A vector laid along axis 1."""
    return x.moved(lambda a: a.reshape((-1,) + (1,) * (rank - 2)))


@ranges("InstanceNormalization")
def instance_normalization(site: Site) -> Sequence[Range]:
    """Any number times the scale, plus the shift."""
    x = positions(site.input(0))
    scale, shift = (per_channel(site.input(i), x.low.ndim) for i in (1, 2))
    return [total([product(unbounded(x.finite), scale, site.eps), shift], site.eps)]


@ranges("LRN")
def local_response(site: Site) -> Sequence[Range]:
    """The sign of its input."""
    x = site.input(0)
    found = x.over(range(x.low.ndim))
    low, high = np.where(x.low >= 0, 0.0, -np.inf), np.where(x.high <= 0, 0.0, np.inf)
    return [ranged(low, high, np.array(np.nan), found.finite)]


@ranges("Softmax")
def softmax(site: Site) -> Sequence[Range]:
    """Between zero and one."""
    return [between(0, 1 + site.eps * 16, np.array(site.finite))]


@ranges(*FINITE)
def normalised(site: Site) -> Sequence[Range]:
    """Any number."""
    return [unbounded(site.finite)] * site.op.outputs


@ranges("AveragePool")
def average_pool(site: Site) -> Sequence[Range]:
    """Between the elements of a channel, and zero where padding is counted."""
    x, op = positions(site.input(0)), site.op
    counted = op.attr("count_include_pad", 0) and (any(op.attr("pads", [0])) or op.attr("auto_pad", "NOTSET")[0] == "S")
    return [averaged(with_zero(x) if counted or op.attr("ceil_mode", 0) else x, site.eps)]


def averaged(x: Range, eps: float) -> Range:
    """What an average of any number of elements in a range can be: they are summed one by one."""
    return widened(x, eps * 64)


@ranges("GlobalAveragePool")
def global_average(site: Site) -> Sequence[Range]:
    """Between the elements of a channel."""
    return [averaged(positions(site.input(0)), site.eps)]


@ranges("LpPool", "GlobalLpPool")
def norm_pool(site: Site) -> Sequence[Range]:
    """Not below zero, and zero where all elements are."""
    return [magnitudes(positions(site.input(0)))]


def magnitudes(x: Range) -> Range:
    """A norm."""
    return ranged(np.zeros(()), np.where(x.zero, 0.0, np.inf), np.array(np.nan), x.finite)


@ranges("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
def reduce(site: Site) -> Sequence[Range]:
    """Over some axes: between the elements, with their sign, or not below zero."""
    x, axes = site.input(0), reduced_axes(site)
    if axes is None:
        return [unbounded(site.finite)]
    found, kind = x.over(axes), site.op.kind
    if kind == "ReduceMean":
        found = averaged(found, site.eps)
    elif kind == "ReduceSum":
        found = summed(found)
    elif kind not in ("ReduceMax", "ReduceMin"):
        found = magnitudes(found)
    return [found if site.op.attr("keepdims", 1) else found.moved(lambda a: dropped(a, axes))]


def dropped(array: Array, axes: Sequence[int]) -> Array:
    """Without axes of length 1."""
    return np.squeeze(array, tuple(axes))


def summed(x: Range) -> Range:
    """The sum of an unknown number of elements."""
    low, high = np.where(x.low >= 0, 0.0, -np.inf), np.where(x.high <= 0, 0.0, np.inf)
    return ranged(low, high, np.array(np.nan), x.finite)


def reduced_axes(site: Site) -> list[int] | None:
    """The axes a node reduces over; None if they are computed."""
    op, rank = site.op, site.input(0).low.ndim
    if op.has(1):
        value = op.value(1)
        if value is None or value.dtype == object:
            return None
        given = [int(k) for k in value.ravel().tolist()]
    else:
        given = list(op.attr("axes", []) or [])
    if not given and op.attr("noop_with_empty_axes", 0):
        return None
    return [k % rank for k in given] or list(range(rank))
