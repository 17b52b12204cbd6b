"""Laws of divergence: equal outputs diverge by 0, figures are those computed by hand, and no NaN is hidden."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnxprune.sensitivity.divergence import Sums, kind_of, losses

LOGITS = np.array([[2.0, 0.0], [0.0, 0.0]], np.float32)
EQUAL = {
    "kl of logits": LOGITS,
    "kl of probabilities": np.array([[0.25, 0.75], [1.0, 0.0]], np.float32),
    "relative l2": np.ones((2, 3, 4), np.float32),
    "share unequal": np.array([1, 2, 3]),
}


@pytest.mark.parametrize("kind", EQUAL)
def test_equal_outputs_diverge_by_nothing_and_kinds_are_told_apart(kind: str) -> None:
    array = EQUAL[kind]
    assert kind_of([array, array]) == kind
    sums = Sums(kind)  # type: ignore[arg-type]
    sums.add(array, array.copy())
    assert sums.value == 0


def test_probabilities_in_float16_still_sum_to_one() -> None:
    table = np.random.default_rng(0).dirichlet(np.ones(1000), 4).astype(np.float16)
    assert kind_of([table]) == "kl of probabilities"


def test_one_batch_of_logits_makes_the_output_one_of_logits() -> None:
    assert kind_of([EQUAL["kl of probabilities"], LOGITS]) == "kl of logits"


def test_kl_of_probabilities_by_hand() -> None:
    """KL((1/2, 1/2) || (1/4, 3/4)) = 1/2 ln 2 + 1/2 ln 2/3 = 1/2 ln 4/3; the second row adds nothing."""
    sums = Sums("kl of probabilities")
    sums.add(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0.25, 0.75], [1.0, 0.0]]))
    assert sums.value == pytest.approx(0.25 * math.log(4 / 3), abs=1e-12)  # float64 sums


def test_kl_of_logits_is_that_of_their_softmax() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 6, 5))
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (a, b))
    sums = Sums("kl of logits")
    for rows in (slice(0, 2), slice(2, 6)):
        sums.add(a[rows] + 100, b[rows])  # a shift of a row's logits changes nothing
    assert sums.value == pytest.approx((p * np.log(p / q)).sum() / 6, rel=1e-10)  # float64 sums


def test_a_class_that_became_impossible_costs_a_finite_number() -> None:
    sums = Sums("kl of probabilities")
    sums.add(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]]))
    assert 40 < sums.value < 44  # half of ln(0.5 / 1e-38)


def test_relative_error_and_unequal_elements_by_hand() -> None:
    sums = Sums("relative l2")
    sums.add(np.array([3.0]), np.array([3.0]))
    sums.add(np.array([4.0]), np.array([1.0]))
    assert sums.value == pytest.approx(3 / 5)
    whole = Sums("share unequal")
    whole.add(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 4]))
    assert whole.value == 0.25


@pytest.mark.parametrize("kind", ["kl of logits", "kl of probabilities", "relative l2"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_diverges_infinitely(kind: str, value: float) -> None:
    sums, broken = Sums(kind), LOGITS.copy()  # type: ignore[arg-type]
    broken[0, 0] = value
    sums.add(LOGITS, broken)
    assert sums.value == math.inf


def test_where_the_dense_model_is_no_number_nothing_is_asked() -> None:
    dense = np.array([[np.nan, 1.0], [2.0, 0.0]])
    for kind in ("kl of logits", "relative l2"):
        sums = Sums(kind)  # type: ignore[arg-type]
        sums.add(dense, np.where(np.isnan(dense), 7.0, dense))
        assert sums.value == 0


def test_another_shape_and_a_scale_of_zero() -> None:
    sums = Sums("relative l2")
    sums.add(np.zeros(3), np.ones(4))
    assert sums.value == math.inf
    zero = Sums("relative l2")
    zero.add(np.zeros(3), np.ones(3))
    assert zero.value == math.inf


def test_losses_are_of_second_order() -> None:
    kinds = {"a": "kl of logits", "b": "relative l2"}
    assert losses(kinds, {"a": 0.5, "b": 0.5}) == 0.75
