"""Sums over channels: what comes out, and which channels matter. Law: a term is nothing only if it is exactly zero.

A term of a convolution or a matrix product is a weight times a channel. It is nothing where the weight is zero and the
channel is never infinite, or where the channel is zero for every input. Weights are read in blocks and summed in
float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.dead.ranges import (
    Mask,
    Range,
    exactly,
    outward,
    product,
    ranged,
    total,
    unbounded,
    with_zero,
)
from onnxprune.dead.site import Site, ranges
from onnxprune.model import Array

BLOCK = 2**20  # weights looked at together
CONTRACTIONS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, eq=False)
class Linear:
    """A contraction of one operand with known weights.

    Attributes:
        x: Range of each channel it reads, wherever that is looked at. Shape (groups, inputs).
        weight: The weights. Shape (groups, outputs, inputs, taps); outputs and inputs are counted within a group.
        all_taps: Whether every output is the sum over all taps; else some may be missing (padding, strides).
        axes: The axis of `x` that is contracted, counted from the end, and the output's axis of the weights.
        operand: Which input is `x`.
    """

    x: Range
    weight: Array
    all_taps: bool
    axes: tuple[int, int]
    operand: int

    @cached_property
    def seen(self) -> Range:
        """What each channel can be where it is read: with the zeros that padding puts there."""
        return self.x if self.all_taps else with_zero(self.x)

    def blocks(self) -> Iterator[tuple[slice, slice, Array]]:
        """The weights in blocks of groups and outputs, with the places of each block."""
        groups, outs, ins, taps = self.weight.shape
        rows = max(1, BLOCK // max(1, ins * taps))
        several = max(1, rows // max(1, outs))
        for g in range(0, groups, several):
            for o in range(0, outs, rows):
                places = slice(g, g + several), slice(o, o + rows)
                yield *places, self.weight[places]

    def matters(self) -> Mask:
        """Whether an input's term may be other than zero. Broadcasts to (groups, outputs, inputs)."""
        finite = bool(np.isfinite(self.weight.min(initial=0)) and np.isfinite(self.weight.max(initial=0)))
        lively = ~np.asarray(self.x.zero & finite)[:, None, :]
        if self.weight.all():
            return lively
        parts = np.empty(self.weight.shape[:3], dtype=bool)
        for g, o, block in self.blocks():
            parts[g, o] = (block != 0).any(axis=-1)
        return np.asarray(lively & (parts | ~np.asarray(self.x.finite)[:, None, :]))

    def sums(self, eps: float) -> Range:
        """What the outputs can be, without bias. Shape (groups, outputs)."""
        parts = [Range(*(np.empty(self.weight.shape[:2], dtype=t) for t in (float, float, float, bool)))]
        for g, o, block in self.blocks():
            found = sums_of(block, self.seen.moved(lambda a, g=g: a[g]), eps)  # type: ignore[misc]
            for name in ("low", "high", "value", "finite"):
                getattr(parts[0], name)[g, o] = getattr(found, name)
        return parts[0]


def sums_of(weight: Array, x: Range, eps: float) -> Range:
    """Bounds of sum(weight x) over inputs and taps. Shapes (g, o, i, taps) and (g, i) -> (g, o)."""
    up, down = (np.maximum(w, 0).sum(axis=-1, dtype=np.float64) for w in (weight, -weight))
    low, high = (np.where(np.isfinite(a), a, 0.0) for a in (x.low, x.high))
    sides = [np.maximum(a, 0.0) for a in (low, -low, high, -high)]
    known = np.where(x.constant, np.nan_to_num(x.value), 0.0)
    columns = np.stack([*sides, np.isneginf(x.low), np.isposinf(x.high), known, ~x.constant], axis=-1)
    above, below = np.moveaxis(up @ columns, -1, 0), np.moveaxis(down @ columns, -1, 0)
    terms = weight.shape[2] * weight.shape[3]
    least = outward(above[0] + below[3], above[1] + below[2], terms, eps)[0]
    most = outward(above[2] + below[1], above[3] + below[0], terms, eps)[1]
    bottomless, topless = above[4] + below[5] > 0, above[5] + below[4] > 0
    value = np.where(above[7] + below[7] > 0, np.nan, above[6] - below[6])
    finite = np.isfinite(up + down).all(axis=-1) & x.finite.all(axis=-1, keepdims=True)
    return ranged(np.where(bottomless, -np.inf, least), np.where(topless, np.inf, most), value, finite)


def linear(site: Site) -> Linear | None:
    """A node as a contraction with known weights; None where it is none, or both operands depend on the input."""
    if site.op.kind in ("Conv", "ConvTranspose"):
        return convolution(site)
    return matrix_product(site) if site.op.kind in ("Gemm", "MatMul") else None


def stored(x: Range) -> Array | None:
    """The numbers of a tensor that does not depend on the input."""
    if x.value is not x.low and np.isnan(x.value).any():
        return None
    return x.value if x.value is x.low or bool(x.finite.all()) else None


def convolution(site: Site) -> Linear | None:
    """Conv and ConvTranspose. Padding puts zeros beside a channel; transposed, each place is reached by some taps."""
    x, op = site.input(0), site.op
    weight, groups = stored(site.input(1)), op.attr("group", 1)
    if weight is None or not weight.size:
        return None
    transposed = op.kind == "ConvTranspose"
    w = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], math.prod(weight.shape[2:]))
    w = w.transpose(0, 2, 1, 3) if transposed else w
    per = x.but([1]).moved(lambda a: a.reshape(-1)).stretched((groups * w.shape[2],))
    per = per.moved(lambda a: a.reshape(groups, w.shape[2]))
    return Linear(per, w, not transposed and unpadded(site), (1 - x.low.ndim, 1 - x.low.ndim), 0)


def unpadded(site: Site) -> bool:
    """Whether a convolution never reads beside its input."""
    return site.op.attr("auto_pad", "NOTSET") in ("NOTSET", "VALID") and not any(site.op.attr("pads", [0]))


def matrix_product(site: Site) -> Linear | None:
    """Gemm and MatMul with one matrix that is known."""
    for operand in (0, 1):
        weight = stored(site.input(1 - operand))
        x = site.input(operand)
        if weight is None or weight.ndim != 2 or x.low.ndim < 2:
            continue
        turned = [bool(site.op.attr(name, 0)) if site.op.kind == "Gemm" else False for name in ("transA", "transB")]
        inner = -1 if (operand == 0) != turned[operand] else -2
        own = (-2 if operand == 0 else -1) if not turned[1 - operand] else (-1 if operand == 0 else -2)
        w = np.moveaxis(weight, own, -1)  # (outputs, inputs)
        per = x.but([x.low.ndim + inner]).moved(lambda a: a.reshape(-1)).stretched((w.shape[1],))
        return Linear(
            per.moved(lambda a: a[None]), w[None, :, :, None], True, (inner, -1 if operand == 0 else -2), operand
        )
    return None


@ranges("Conv", "ConvTranspose")
def convolve(site: Site) -> Sequence[Range]:
    """Bounds from the signs of the weights and what each channel can be."""
    found = linear(site)
    if found is None:
        return [unbounded(site.finite)]
    made = found.sums(site.eps).moved(lambda a: a.reshape(-1))
    if site.given(2):
        made = total([made, site.input(2)], site.eps)
    return [made.moved(lambda a: a.reshape((1, -1) + (1,) * (site.input(0).low.ndim - 2)))]


@ranges("MatMul")
def matmul(site: Site) -> Sequence[Range]:
    """The same for matrices; of two that depend on the input, it is known which rows and columns are zero."""
    a, b = site.input(0), site.input(1)
    if min(a.low.ndim, b.low.ndim) < 2:
        return [unbounded(site.finite)]
    rank = len(site.op.out_shape())
    if (found := linear(site)) is not None:
        return [placed(found, site, rank)]
    rows, columns = a.over([a.low.ndim - 1]).lifted(rank), b.over([b.low.ndim - 2]).lifted(rank)
    zero, finite = rows.zero | columns.zero, rows.finite & columns.finite
    return [ranged(np.where(zero, 0.0, -np.inf), np.where(zero, 0.0, np.inf), np.array(np.nan), finite)]


def placed(found: Linear, site: Site, rank: int) -> Range:
    """The sums along the axis of the output that the weights make."""
    tail = (1,) if found.axes[1] == -2 else ()
    return found.sums(site.eps).moved(lambda a: a.reshape((1,) * (rank - 1 - len(tail)) + (-1, *tail)))


@ranges("Gemm")
def gemm(site: Site) -> Sequence[Range]:
    """alpha a b + beta c."""
    found = linear(site)
    if found is None:
        return [unbounded(site.finite)]
    made = product(placed(found, site, 2), exactly(np.array(site.op.attr("alpha", 1.0))), site.eps)
    if site.given(2):
        made = total([made, product(site.input(2), exactly(np.array(site.op.attr("beta", 1.0))), site.eps)], site.eps)
    return [made]
