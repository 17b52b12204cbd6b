"""Laws of the fit: it is the least-squares one, it never does harm where it is judged, and no shift means none."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.calibrate import Moments
from onnxprune.recover.ridge import RIDGES, best_update, solved


def moments(x: np.ndarray, residual: np.ndarray) -> Moments:
    found = Moments.empty(x.shape[1], x.shape[2], residual.shape[1] // x.shape[1])
    for part, missing in zip(np.array_split(x, 3), np.array_split(residual, 3), strict=True):
        found.add(part, missing, missing)
    return found


@pytest.mark.parametrize("groups", [1, 3])
def test_without_a_penalty_it_is_least_squares(groups: int) -> None:
    rng = np.random.default_rng(0)
    x, r = rng.normal(size=(200, groups, 4)) + 1, rng.normal(size=(200, groups * 2))
    update = solved(moments(x, r), 0.0)
    for g in range(groups):
        wanted = np.linalg.lstsq(np.column_stack([x[:, g], np.ones(200)]), r[:, 2 * g : 2 * g + 2], rcond=None)[0]
        assert np.allclose(update[g], wanted, atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_the_error_it_tells_is_the_one_there_is_and_no_larger_than_before(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(120, 1, 6))
    r = x[:, 0] @ rng.normal(size=(6, 3)) * 0.3 + rng.normal(size=(120, 3)) + 1
    fit, held, weight = moments(x[:80], r[:80]), moments(x[80:], r[80:]), rng.uniform(0.1, 2, (1, 3))
    found = best_update(fit, held, weight)
    assert found is not None and found.ridge in RIDGES and found.after < found.before
    assert found.before == pytest.approx((weight[0] * r[80:] ** 2).sum())
    update = solved(fit, found.ridge)[0]
    left = r[80:] - x[80:, 0] @ update[:-1] - update[-1]
    assert found.after == pytest.approx((weight[0] * left**2).sum())


def test_noise_that_nothing_explains_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 1, 30))
    train, rest = moments(x[:20], rng.normal(size=(20, 1)) * 3), moments(x[20:], np.zeros((20, 1)))
    assert best_update(train, rest, np.ones((1, 1))) is None


def test_a_layer_that_cannot_be_shifted_is_not() -> None:
    rng = np.random.default_rng(2)
    x, r = rng.normal(size=(100, 1, 3)) + 2, rng.normal(size=(100, 2)) + 5
    update = solved(moments(x, r), 0.0, intercept=False)[0]
    assert not update[-1].any()
    assert np.allclose(update[:-1], np.linalg.lstsq(x[:, 0], r, rcond=None)[0], atol=1e-8)
