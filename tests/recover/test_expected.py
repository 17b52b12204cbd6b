"""Laws of what is expected: moments of a cut-off normal are what samples show, and what is not known is NaN."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.recover.expected import Normal, expected
from onnxprune.recover.merge import made_by, produced
from onnxprune.trace import Dependencies
from tests import graphs

DRAWN = 0.01  # three standard errors of a mean of 200,000 draws with a deviation of at most 1.5


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (1.0, 0.5), (-2.0, 1.5), (0.7, 1e-9)])
def test_a_rectified_normal_has_the_moments_that_draws_show(mean: float, deviation: float) -> None:
    drawn = np.maximum(np.random.default_rng(0).normal(mean, deviation, 200_000), 0)
    found = Normal(np.array([mean]), np.array([deviation**2])).rectified()
    assert found.mean[0] == pytest.approx(drawn.mean(), abs=DRAWN)
    assert found.variance[0] == pytest.approx(drawn.var(), abs=2 * DRAWN)


def test_half_a_normal_by_hand() -> None:
    found = Normal(np.zeros(1), np.ones(1)).rectified()
    assert found.mean[0] == pytest.approx(1 / np.sqrt(2 * np.pi))
    assert found.variance[0] == pytest.approx(0.5 - 1 / (2 * np.pi))


def at(dependencies: Dependencies, tensor: str) -> Normal:
    return expected(dependencies, tensor, produced(dependencies.model), made_by(dependencies.model))


def test_behind_batch_normalization_it_is_its_shift_and_scale() -> None:
    dependencies = graphs.traced(graphs.residual())
    units = dependencies.unit[dependencies.labels["a1.bn.shift"][0].ids]
    found, weights = at(dependencies, "a1.bn"), dependencies.model.weights
    assert np.allclose(found.mean[units], weights["a1.bn.shift"])
    assert np.allclose(found.variance[units], weights["a1.bn.scale"].astype(np.float64) ** 2)
    assert (at(dependencies, "a1.r").mean[units] > np.maximum(found.mean[units], 0)).all()


def test_without_it_nothing_is_known() -> None:
    dependencies = graphs.traced(graphs.mlp())
    assert np.isnan(at(dependencies, "r1").mean).all()


def test_a_sum_has_the_sum_of_means() -> None:
    dependencies = graphs.traced(graphs.residual())
    units = dependencies.unit[dependencies.labels["b2.bn.shift"][0].ids]
    weights = dependencies.model.weights
    assert np.allclose(at(dependencies, "b.add").mean[units], weights["b2.bn.shift"] + weights["bs.bn.shift"])
