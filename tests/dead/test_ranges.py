"""Ranges by hand. Law: bounds hold what they say, zeros and signs survive every step, and nothing is claimed of NaN."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.dead.ranges import (
    Range,
    between,
    exactly,
    hull,
    product,
    ranged,
    reciprocal,
    total,
    unbounded,
    with_zero,
)
from onnxprune.dead.walk import Walk
from onnxprune.runtime import capture
from tests import graphs

EPS = 1.2e-7  # of float32

RESIZED = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")


def spans(x: Range) -> tuple[float, float]:
    return float(x.low.min()), float(x.high.max())


def at(low: float, high: float) -> Range:
    return between(low, high, np.array(True))


def test_a_stored_tensor_holds_what_it_holds_and_is_not_copied() -> None:
    weight = np.array([0.0, -2.5], np.float64)
    found = exactly(weight)
    assert found.low is found.high and found.zero.tolist() == [True, False] and found.constant.all()
    assert not exactly(np.array([1.0, np.inf])).finite.all()


def test_zero_times_anything_finite_is_zero_and_times_infinity_it_is_not() -> None:
    nothing = exactly(np.zeros(()))
    assert product(nothing, unbounded(), EPS).zero and not product(nothing, unbounded(False), EPS).zero
    assert not product(nothing, unbounded(False), EPS).constant


@pytest.mark.parametrize("terms", [1, 10, 1000])
def test_sums_of_one_sign_keep_it_and_mixed_ones_need_room(terms: int) -> None:
    below = total([at(-np.inf, 0.0)] + [at(-3.0, -1e-30)] * terms, EPS)
    assert below.high <= 0
    mixed = total([exactly(np.array(1.0)), exactly(np.array(-1.0 - 1e-9))], EPS)
    assert mixed.high > 0 > mixed.low  # rounding may leave either sign
    assert total([exactly(np.array(1.0)), exactly(np.array(-1.1))], EPS).high < 0


def test_constants_are_followed_exactly_while_bounds_widen() -> None:
    found = total([exactly(np.array(0.1)), exactly(np.array(0.2))], EPS)
    assert found.value == 0.1 + 0.2 and found.low < found.value < found.high
    assert np.isnan(total([exactly(np.array(0.1)), at(0, 1)], EPS).value)


def test_a_reciprocal_of_what_may_be_zero_is_anything() -> None:
    assert spans(reciprocal(at(-1, 1), EPS)) == (-np.inf, np.inf) and not reciprocal(at(0, 1), EPS).finite
    low, high = spans(reciprocal(at(2, 4), EPS))
    assert low <= 0.25 <= 0.5 <= high < 0.51


def test_hulls_and_padding() -> None:
    assert spans(hull([at(1, 2), at(-1, 0)])) == (-1, 2)
    assert spans(with_zero(at(1, 2))) == (0, 2) and not with_zero(exactly(np.array(0.4))).constant
    assert with_zero(exactly(np.zeros(()))).zero


def test_over_an_axis_a_constant_stays_only_if_it_is_one_number() -> None:
    found = exactly(np.array([[1.0, 1.0], [1.0, 2.0]])).over([1])
    assert found.value[0, 0] == 1.0 and np.isnan(found.value[1, 0]) and spans(found) == (1, 2)


def test_what_may_be_infinite_has_no_bounds() -> None:
    found = ranged(np.array(0.0), np.array(0.0), np.array(0.0), np.array(False))
    assert not found.zero and not found.constant and spans(found) == (-np.inf, np.inf)


CASTS = {f"to {kind}": ("Cast", {"to": kind}) for kind in (2, 3, 6, 7, 9, 10, 12, 16)}
MODES = {f"linear, {how}": ("Resize", {"mode": "linear", "coordinate_transformation_mode": how}) for how in RESIZED}


@pytest.mark.parametrize("case", CASTS | MODES)
def test_rounding_and_casting_take_nothing_out_of_its_range(case: str) -> None:
    """Three constant channels and one that depends on the input, through an operator; then back to float32."""
    kind, attributes = (CASTS | MODES)[case]
    net = graphs.Net(7)
    h = net.conv("x", "a", 4, 3)
    net.weights["a.w"][:3], net.weights["a.b"] = 0, np.array([0, 0.7, -1.3, 0], np.float32)
    bounds = [net.constant("low", -1.5, np.float32), net.constant("high", 2.25, np.float32)]
    h = net.op("Clip", [h, *bounds], "c")
    more = ["", net.constant("scales", [1, 1, 1.7, 0.6], np.float32)] if kind == "Resize" else []
    h = net.op("Cast", [net.op(kind, [h, *more], "z", **attributes)], "back", to=1)
    net.op("ReduceSum", [h], "y", keepdims=0)
    dependencies = graphs.traced(net.model(["N", 3, 8, 8], [], opset=18))
    name = "back" if kind == "Cast" else "z"
    found = Walk(dependencies).known[name]
    for times in (0.01, 1, 100):
        x = {"x": np.random.default_rng(0).normal(size=(32, 3, 8, 8)).astype(np.float32) * np.float32(times)}
        held = capture(dependencies.model, x, [name])[name].astype(np.float64)
        assert (held >= found.low).all() and (held <= found.high).all()
        assert np.allclose(held, np.where(found.constant, found.value, held), rtol=1e-6, atol=0)
