"""Law of a tally: mean and spread of all rows together, whatever the batches they came in."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.calibrate import Tally


@pytest.mark.parametrize("cuts", [[], [1], [3, 3, 10], [5, 12, 19]])
def test_batches_are_as_one(cuts: list[int]) -> None:
    rows = np.random.default_rng(0).normal(3, 2, size=(20, 4, 3))
    found = Tally.empty(4, 3)
    for part in np.split(rows, cuts):
        found.add(part)
    assert found.count == 20
    # Two orders of summation of 20 float64 numbers.
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.variance, rows.var(axis=0), rtol=1e-12)


def test_a_large_mean_costs_no_digits() -> None:
    rows, found = 1e9 + np.array([[0.0], [1.0], [2.0], [3.0]]), Tally.empty(1)
    found.add(rows[:3])
    found.add(rows[3:])
    assert found.variance == pytest.approx(1.25, rel=1e-6)  # 1e9 has 7 digits behind the point left


def test_nothing_seen_is_no_spread() -> None:
    found = Tally.empty(2)
    found.add(np.zeros((0, 2)))
    assert found.count == 0 and found.variance.tolist() == [0, 0]
