"""Ranges through operators that work element by element. Law: of each, only what its definition says for every input.

Runtimes approximate exponentials: what comes out is off by a few roundings, relative, and of the sigmoid by 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce

import numpy as np
from onnx import helper

from onnxprune.dead.ranges import (
    Range,
    between,
    exactly,
    hull,
    monotone,
    negative,
    product,
    ranged,
    reciprocal,
    total,
    unbounded,
    widened,
)
from onnxprune.dead.site import Site, ranges
from onnxprune.model import Array

SIGMOID = 1e-6  # absolute error of the runtime's approximation, several times over
HOTTEST = {"float16": 10.0}  # exponents up to which an exponential stays finite; 80 in wider types
ROUNDING = {1: 1.2e-7, 10: 9.8e-4, 11: 2.2e-16, 16: 7.9e-3}  # of the float types that may be cast to, relative
NARROW = (10, 16)
INTEGERS = (2, 3, 4, 5, 6, 7, 12, 13)  # types that may be cast to, too
FALLING = 0.5  # GELU, Mish, SiLU fall to -0.17, -0.31, -0.28 before they rise
SELU = (1.6732632423543772, 1.0507009873554805)


def elu(alpha: float) -> Callable[[Array], Array]:
    """x above zero, alpha (e^x - 1) below."""
    return lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def erf(x: Array) -> Array:
    """The error function."""
    from scipy.special import erf as exact

    return np.asarray(exact(x))


SMOOTH: dict[str, Callable[[Array], Array]] = {
    "Asinh": np.arcsinh,
    "Atan": np.arctan,
    "Erf": erf,
    "Softplus": lambda x: np.logaddexp(0.0, x),
    "Softsign": lambda x: np.where(np.isinf(x), np.sign(x), x / (1 + np.abs(x))),
    "Tanh": np.tanh,
}


@ranges("Identity", "CastLike")
def same(site: Site) -> Sequence[Range]:
    """What goes in comes out."""
    return [site.input(0)]


@ranges("Dropout")
def dropout(site: Site) -> Sequence[Range]:
    """What goes in comes out; a mask is zero or one. One that drops at random is frozen."""
    return [site.input(0), between(0, 1, np.array(True))]


@ranges("Cast")
def cast(site: Site) -> Sequence[Range]:
    """To another float type rounded; to integers cut off, where all that may come in fits them."""
    x, kind = site.input(0), site.op.attr("to", 1)
    if kind == 9:
        return [between(0, 1, np.array(True))]
    if kind not in (*ROUNDING, *INTEGERS):
        return [unbounded(False)]
    if kind in ROUNDING:
        return [x if x.high is x.low and kind not in NARROW else rounded(x, kind)]
    ends = np.iinfo(helper.tensor_dtype_to_np_dtype(kind))
    fits = (x.low >= ends.min) & (x.high <= ends.max)  # what others become is up to the machine
    low, high = np.where(fits, np.floor(x.low), -np.inf), np.where(fits, np.ceil(x.high), np.inf)
    return [ranged(low, high, np.array(np.nan), x.finite)]


def rounded(x: Range, kind: int) -> Range:
    """In another float type; a constant becomes the nearest number of that type."""
    made = widened(x, ROUNDING[kind])
    with np.errstate(over="ignore", invalid="ignore"):
        value = x.value.astype(helper.tensor_dtype_to_np_dtype(kind)).astype(np.float64)
    return Range(made.low, made.high, np.where(np.isfinite(value), value, np.nan), made.finite)


@ranges("Relu")
def relu(site: Site) -> Sequence[Range]:
    """Zero where its input never is above it."""
    return [rectified(site.input(0))]


def rectified(x: Range) -> Range:
    """max(x, 0)."""
    return monotone(x, lambda a: np.maximum(a, 0.0), 0.0)


@ranges(*SMOOTH)
def smooth(site: Site) -> Sequence[Range]:
    """A function that rises, through zero or above it."""
    return [monotone(site.input(0), SMOOTH[site.op.kind], site.eps)]


@ranges("Sigmoid")
def sigmoid(site: Site) -> Sequence[Range]:
    """Between zero and one, which runtimes make sure of."""
    made = monotone(site.input(0), lambda a: 0.5 * (1 + np.tanh(a / 2)), site.eps, SIGMOID)
    return [ranged(np.maximum(made.low, 0.0), np.minimum(made.high, 1.0), made.value, made.finite)]


@ranges("HardSigmoid")
def hard_sigmoid(site: Site) -> Sequence[Range]:
    """max(0, min(1, alpha x + beta))."""
    return [hard(site, site.op.attr("alpha", 0.2), site.op.attr("beta", 0.5))]


def hard(site: Site, alpha: float, beta: float) -> Range:
    """The hard sigmoid of input 0."""
    line = total([product(site.input(0), exactly(np.array(alpha)), site.eps), exactly(np.array(beta))], site.eps)
    return monotone(line, lambda a: np.clip(a, 0.0, 1.0), 0.0)


@ranges("HardSwish")
def hard_swish(site: Site) -> Sequence[Range]:
    """x max(0, min(1, x / 6 + 0.5))."""
    x = site.input(0)
    made = product(x, hard(site, 1 / 6, 0.5), site.eps)
    return [ranged(np.maximum(made.low, -FALLING), made.high, made.value, made.finite)]


@ranges("Gelu", "Mish", "Swish")
def dipping(site: Site) -> Sequence[Range]:
    """At most x above zero, a little below zero elsewhere, zero at zero."""
    x = site.input(0)
    low, high = np.where(x.zero, 0.0, -FALLING), np.maximum(x.high, 0.0)
    if site.op.kind == "Swish" and site.op.attr("alpha", 1.0) != 1.0:
        low, high = np.where(x.zero, 0.0, -np.inf), np.where(x.zero, 0.0, np.inf)
    return [ranged(low, high, np.array(np.nan), x.finite)]


@ranges("Elu", "Celu", "Selu")
def exponential_unit(site: Site) -> Sequence[Range]:
    """x above zero, an exponential below."""
    alpha, scale = site.op.attr("alpha", SELU[0] if site.op.kind == "Selu" else 1.0), 1.0
    if site.op.kind == "Selu":
        scale = site.op.attr("gamma", SELU[1])
    if alpha <= 0 or scale < 0 or site.op.kind == "Celu":
        return [unbounded(site.input(0).finite)] if alpha != 1.0 else [monotone(site.input(0), elu(1.0), site.eps)]
    return [monotone(site.input(0), lambda a: scale * elu(alpha)(a), site.eps)]


@ranges("LeakyRelu")
def leaky(site: Site) -> Sequence[Range]:
    """x above zero, alpha x below."""
    return [sloped(site.input(0), exactly(np.array(site.op.attr("alpha", 0.01))), site.eps)]


@ranges("PRelu")
def parametric(site: Site) -> Sequence[Range]:
    """x above zero, slope x below; a slope for each channel."""
    x, slope = aligned(site)
    return [sloped(x, slope, site.eps)]


def sloped(x: Range, slope: Range, eps: float) -> Range:
    """max(x, 0) + slope min(x, 0)."""
    below = negative(rectified(negative(x)))
    made = total([rectified(x), product(below, slope, eps)], eps)
    return ranged(made.low, made.high, made.value, x.finite & slope.finite)


@ranges("Clip")
def clip(site: Site) -> Sequence[Range]:
    """Between two bounds."""
    x, least, most = site.input(0), site.scalar(1, "min", -np.inf), site.scalar(2, "max", np.inf)
    if least is None or most is None:
        return [unbounded(x.finite)]
    return [monotone(x, partial(bounded, least, most), 0.0)]


def bounded(least: float, most: float, x: Array) -> Array:
    """x between two bounds; the upper one wins where they cross."""
    return np.asarray(np.minimum(np.maximum(x, least), most))


@ranges("Neg")
def neg(site: Site) -> Sequence[Range]:
    """-x."""
    return [negative(site.input(0))]


@ranges("Abs")
def magnitude(site: Site) -> Sequence[Range]:
    """|x|."""
    x = site.input(0)
    return [ranged(np.maximum(np.maximum(x.low, -x.high), 0.0), np.maximum(-x.low, x.high), np.abs(x.value), x.finite)]


@ranges("Sqrt")
def root(site: Site) -> Sequence[Range]:
    """The square root of what is never below zero."""
    x = site.input(0)
    return [monotone(ranged(x.low, x.high, x.value, x.finite & (x.low >= 0)), np.sqrt, site.eps)]


@ranges("Exp")
def exponential(site: Site) -> Sequence[Range]:
    """Above zero; infinite where x may be large."""
    x, most = site.input(0), HOTTEST["float16"] if site.eps > 1e-4 else 80.0
    return [monotone(ranged(x.low, x.high, x.value, x.finite & (x.high <= most)), np.exp, site.eps)]


@ranges("Log")
def logarithm(site: Site) -> Sequence[Range]:
    """Of what is always above zero."""
    x = site.input(0)
    made = monotone(ranged(x.low, x.high, x.value, x.finite & (x.low > 0)), np.log, site.eps)
    return [widened(made, site.eps, SIGMOID)]


@ranges("Floor", "Ceil", "Round", "Sign")
def stepped(site: Site) -> Sequence[Range]:
    """Steps that rise; a constant near an edge may fall to either side."""
    x, sign = site.input(0), site.op.kind == "Sign"
    down, up = (np.sign, np.sign) if sign else (np.floor, np.ceil)
    return [ranged(down(x.low), up(x.high), np.array(np.nan), x.finite)]


@ranges("Sin", "Cos")
def wave(site: Site) -> Sequence[Range]:
    """Between -1 and 1."""
    x = site.input(0)
    zero = x.zero & (site.op.kind == "Sin")
    return [ranged(np.where(zero, 0.0, -1.0), np.where(zero, 0.0, 1.0), np.array(np.nan), x.finite)]


@ranges("And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor")
def truth(site: Site) -> Sequence[Range]:
    """False or true."""
    return [between(0, 1, np.array(True))]


def aligned(site: Site) -> list[Range]:
    """The operands as they are broadcast; before operator set 7 the second's first axis is named."""
    parts, op = site.present, site.op
    rank = max(p.low.ndim for p in parts)
    if op.opset < 7 and len(parts) == 2 and parts[1].low.ndim < rank:
        single = op.kind == "PRelu" and parts[1].low.ndim == 1
        start = 1 if single else op.attr("axis", rank - parts[1].low.ndim) if op.attr("broadcast", 0) else None
        if start is not None:
            tail = rank - start % rank - parts[1].low.ndim
            parts = [parts[0], parts[1].moved(lambda a: a.reshape(a.shape + (1,) * tail))]
    return [p.lifted(rank) for p in parts]


@ranges("Add", "Sum")
def add(site: Site) -> Sequence[Range]:
    """The sum."""
    return [total(aligned(site), site.eps)]


@ranges("Sub")
def subtract(site: Site) -> Sequence[Range]:
    """The difference."""
    a, b = aligned(site)
    return [total([a, negative(b)], site.eps)]


@ranges("Mean")
def mean(site: Site) -> Sequence[Range]:
    """The sum over the number of operands."""
    parts = aligned(site)
    return [product(total(parts, site.eps), exactly(np.array(1 / len(parts))), site.eps)]


@ranges("Mul")
def multiply(site: Site) -> Sequence[Range]:
    """The product; of a tensor with itself, a square."""
    a, b = aligned(site)
    if site.op.name_in(0) == site.op.name_in(1):
        return [square(a, site.eps)]
    return [product(a, b, site.eps)]


def square(x: Range, eps: float) -> Range:
    """x x, never below zero."""
    made = product(x, x, eps)
    return ranged(np.maximum(made.low, 0.0), made.high, made.value, made.finite)


@ranges("Div")
def divide(site: Site) -> Sequence[Range]:
    """The quotient, where the divisor is never zero."""
    a, b = aligned(site)
    return [product(a, reciprocal(b, site.eps), site.eps)]


@ranges("Reciprocal")
def invert(site: Site) -> Sequence[Range]:
    """1 / x."""
    return [reciprocal(site.input(0), site.eps)]


@ranges("Pow")
def power(site: Site) -> Sequence[Range]:
    """Squares, and powers of what is above zero by one known number."""
    x, exponent = aligned(site)
    by = float(exponent.value.ravel()[0]) if exponent.value.size == 1 else np.nan
    if by == 2:
        return [square(x, site.eps)]
    if np.isnan(by):
        return [unbounded(False)]
    above = ranged(x.low, x.high, x.value, x.finite & (x.low > 0))
    made = monotone(above, lambda a: np.asarray(a ** abs(by)), site.eps)
    return [made if by >= 0 else reciprocal(made, site.eps)]


@ranges("Max", "Min")
def extreme(site: Site) -> Sequence[Range]:
    """The largest, or the smallest."""
    pick, parts = np.maximum if site.op.kind == "Max" else np.minimum, aligned(site)
    low, high, value = (reduce(pick, [getattr(p, part) for p in parts]) for part in ("low", "high", "value"))
    return [ranged(low, high, value, reduce(np.logical_and, [p.finite for p in parts]))]


@ranges("Where")
def choose(site: Site) -> Sequence[Range]:
    """Either of two."""
    _, a, b = aligned(site)
    return [hull([a, b])]


@ranges("QuantizeLinear")
def quantize(site: Site) -> Sequence[Range]:
    """A multiple of the scale, on from the zero point, cut off at the ends of the type."""
    x, scale, zero = on_axis(site)
    divided = product(x, reciprocal(scale, site.eps), site.eps)
    steps = ranged(np.floor(divided.low), np.ceil(divided.high), np.array(np.nan), divided.finite)
    made = total([steps, zero], 0.0)
    least, most = ends(site)
    return [monotone(made, lambda a: np.clip(a, least, most), 0.0)]


def ends(site: Site) -> tuple[float, float]:
    """The least and greatest integer that QuantizeLinear writes."""
    stored = site.op.model.weights.get(site.op.name_in(2)) if site.op.has(2) else np.zeros(1, np.uint8)
    if stored is None or stored.dtype.name not in ("int8", "uint8", "int16", "uint16"):
        return -np.inf, np.inf
    info = np.iinfo(stored.dtype)
    return float(info.min), float(info.max)


@ranges("DequantizeLinear")
def dequantize(site: Site) -> Sequence[Range]:
    """(x - zero point) x scale."""
    x, scale, zero = on_axis(site)
    if all(p.high is p.low for p in (x, scale, zero)) and bool(scale.finite.all()):
        return [exactly((x.low - zero.low) * scale.low)]
    return [product(total([x, negative(zero)], 0.0), scale, site.eps)]


def on_axis(site: Site) -> tuple[Range, Range, Range]:
    """Data, scales and zero points, laid along their axis; unknown where neighbours share a scale."""
    x, scale = site.input(0), site.input(1)
    zero = site.input(2) if site.given(2) else exactly(np.zeros(()))
    if site.op.attr("block_size", 0):
        return x, unbounded(False), zero
    tail = x.low.ndim - 1 - site.op.attr("axis", 1) % max(x.low.ndim, 1)

    def along(part: Range) -> Range:
        return part if part.low.size == 1 else part.moved(lambda a: a.reshape(a.shape + (1,) * tail))

    return x, *((p.moved(lambda a: a.reshape(())) if p.low.size == 1 else along(p)) for p in (scale, zero))  # type: ignore[return-value]
