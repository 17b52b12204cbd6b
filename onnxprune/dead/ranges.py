"""What a tensor can hold, index by index. Law: no input takes a value out of its range, whatever rounding does.

A range has an array of bounds that broadcasts to the tensor: an axis along which nothing is told apart has length 1, as
has one of unknown size. Bounds are widened outwards by what rounding can move, relative to the positive and the
negative terms of a sum each, so that a sum of numbers below zero stays below zero, and zeros stay zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from onnxprune.model import Array

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
WIDE = 2**22  # elements up to which an array is widened to float64
SLACK = 16  # roundings that a bound may have behind it where it enters an operator, on top of the operator's own terms


@dataclass(frozen=True, eq=False)
class Range:
    """Bounds of a tensor; four arrays of one shape.

    Attributes:
        low: At least this; -inf where nothing is known.
        high: At most this.
        value: What it holds for every input; NaN where that depends on the input.
        finite: Whether it is never NaN or infinite, as long as inputs are finite and no sum or product overflows.
    """

    low: Floats
    high: Floats
    value: Floats
    finite: Mask

    @property
    def zero(self) -> Mask:
        """Where it is exactly zero for every input."""
        return np.asarray((self.low == 0) & (self.high == 0) & self.finite)

    @property
    def constant(self) -> Mask:
        """Where it is the same number for every input."""
        return ~np.isnan(self.value) & self.finite

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the bounds."""
        return self.low.shape

    def moved(self, function: Callable[[Array], Array]) -> Range:
        """The range after its elements were moved about."""
        low = function(self.low)
        if self.high is self.low and self.value is self.low:
            return Range(low, low, low, function(self.finite))
        return Range(low, function(self.high), function(self.value), function(self.finite))

    def lifted(self, rank: int) -> Range:
        """With leading axes of length 1 up to a rank."""
        return self if self.low.ndim >= rank else self.moved(lambda a: a.reshape((1,) * (rank - a.ndim) + a.shape))

    def stretched(self, shape: Sequence[int]) -> Range:
        """Broadcast to a shape."""
        return self if self.shape == tuple(shape) else self.moved(lambda a: np.broadcast_to(a, tuple(shape)))

    def over(self, axes: Sequence[int]) -> Range:
        """What holds for all indices of some axes, which become of length 1."""
        axes = tuple(k for k in axes if self.shape[k] > 1)
        if not axes or not self.low.size:
            return self
        low, high = self.low.min(axis=axes, keepdims=True), self.high.max(axis=axes, keepdims=True)
        first = self.value[tuple(slice(0, 1) if k in axes else slice(None) for k in range(self.low.ndim))]
        same = (self.value == first).all(axis=axes, keepdims=True)  # false of NaN
        return ranged(low, high, np.where(same, first, np.nan), np.asarray(self.finite.all(axis=axes, keepdims=True)))

    def but(self, axes: Sequence[int]) -> Range:
        """What holds for all indices of all other axes."""
        return self.over([k for k in range(self.low.ndim) if k not in axes])


def ranged(low: Array, high: Array, value: Array, finite: Array) -> Range:
    """A range from arrays that broadcast; what may be infinite has no bounds, and what has one bound is constant."""
    low, high, value, finite = np.broadcast_arrays(low, high, value, finite)
    known = finite & ~np.isnan(low) & ~np.isnan(high)
    low, high = np.where(known, low, -np.inf), np.where(known, high, np.inf)
    value = np.where(known & (low == high), low, np.where(known & np.isfinite(value), value, np.nan))
    return Range(low, high, value, np.array(finite))


def exactly(array: Array) -> Range:
    """The range of a stored tensor. Large ones are neither copied nor widened."""
    if array.size <= WIDE or array.dtype.name not in ("float32", "float64"):
        with np.errstate(invalid="ignore"):  # a NaN that signals
            array = array.astype(np.float32 if array.size > WIDE else np.float64)
    if not array.size or (np.isfinite(array.min()) and np.isfinite(array.max())):
        return Range(array, array, array, np.broadcast_to(np.array(True), array.shape))
    return ranged(array, array, array, np.isfinite(array))


def unbounded(finite: Array | bool = True) -> Range:
    """Any number, and with `finite` off also infinities and NaN."""
    found = np.asarray(finite)
    return ranged(np.array(-np.inf), np.array(np.inf), np.array(np.nan), found)


def between(low: float, high: float, finite: Array) -> Range:
    """Any number between two."""
    return ranged(np.array(low), np.array(high), np.array(np.nan), finite)


def hull(parts: Sequence[Range]) -> Range:
    """What holds for any of several tensors."""
    low = reduce(np.minimum, [p.low for p in parts])
    high = reduce(np.maximum, [p.high for p in parts])
    first = parts[0].value
    same = reduce(np.logical_and, [p.value == first for p in parts])
    finite = reduce(np.logical_and, [p.finite for p in parts])
    return ranged(low, high, np.where(same, first, np.nan), finite)


def with_zero(x: Range) -> Range:
    """What holds where a zero may stand in the place of some elements."""
    return hull([x, exactly(np.zeros(()))])


def widened(x: Range, eps: float, absolute: float = 0.0) -> Range:
    """With room for the rounding of one operator: relative, so that no sign changes, or absolute."""
    below, above = (np.where(np.isfinite(a), np.abs(a), 0.0) * eps * SLACK + absolute for a in (x.low, x.high))
    low, high = x.low - below, x.high + above
    return ranged(low, high, x.value, x.finite)


def monotone(x: Range, function: Callable[[Array], Array], eps: float, absolute: float = 0.0) -> Range:
    """A function that never falls, element by element."""
    with np.errstate(all="ignore"):
        made = ranged(function(x.low), function(x.high), function(x.value), x.finite)
    return widened(made, eps, absolute)


def negative(x: Range) -> Range:
    """-x."""
    return ranged(-x.high, -x.low, -x.value, x.finite)


def outward(positive: Array, negatives: Array, terms: float, eps: float) -> tuple[Floats, Floats]:
    """Least and greatest that a sum can come out as, from its positive and its negative terms (as magnitudes)."""
    slack = (terms + SLACK) * eps
    inner, outer = max(0.0, 1 - slack), 1 + slack
    with np.errstate(invalid="ignore"):
        return positive * inner - negatives * outer, positive * outer - negatives * inner


def total(parts: Sequence[Range], eps: float) -> Range:
    """The sum of tensors."""
    lows = [p.low for p in parts]
    highs = [p.high for p in parts]
    with np.errstate(invalid="ignore"):
        low = outward(signed(lows, 1), signed(lows, -1), len(parts), eps)[0]
        high = outward(signed(highs, 1), signed(highs, -1), len(parts), eps)[1]
        value = sum(p.value for p in parts)
    low = np.where(reduce(np.logical_or, [np.isneginf(a) for a in lows]), -np.inf, low)
    high = np.where(reduce(np.logical_or, [np.isposinf(a) for a in highs]), np.inf, high)
    return ranged(low, high, np.asarray(value), reduce(np.logical_and, [p.finite for p in parts]))


def signed(parts: Sequence[Array], sign: int) -> Floats:
    """The sum of the positive (1) or the negative (-1) terms, as a magnitude."""
    return np.asarray(sum(np.maximum(sign * a, 0.0) for a in parts))


def product(a: Range, b: Range, eps: float) -> Range:
    """The product of two tensors; zero times what is finite is zero."""
    with np.errstate(invalid="ignore"):
        corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
        corners = [np.where(np.isnan(c), 0.0, c) for c in corners]  # 0 x inf: a bound that is never reached
        value = a.value * b.value
    low, high = reduce(np.minimum, corners), reduce(np.maximum, corners)
    return widened(ranged(low, high, value, a.finite & b.finite), eps)


def reciprocal(x: Range, eps: float) -> Range:
    """1 / x; nothing is known where x may be zero."""
    apart = (x.low > 0) | (x.high < 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        made = ranged(1 / x.high, 1 / x.low, 1 / x.value, x.finite & apart)
    return widened(made, eps)
