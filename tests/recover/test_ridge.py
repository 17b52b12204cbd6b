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


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("sites", [12, 40])
def test_heavy_tails_and_few_sites_do_no_harm_where_it_is_judged(seed: int, sites: int) -> None:
    """More inputs than sites, and noise without a variance: what is delivered is no worse on sites held out."""
    rng = np.random.default_rng(seed)
    x, r = rng.standard_t(1.5, (sites, 1, 30)), rng.standard_t(1.1, (sites, 2))
    half = sites // 2
    fit, held, weight = moments(x[:half], r[:half]), moments(x[half:], r[half:]), np.ones((1, 2))
    found = best_update(fit, held, weight)
    if found is None:
        return
    assert found.after < found.before
    for matrix in (found.matrix, found.part):
        assert (weight * held.change(matrix)).sum() <= (found.after - found.before) * (1 - 1e-9)  # rounding


def test_a_penalty_that_sites_held_out_enlarge_does_not_undo_what_they_approved() -> None:
    """One huge input among them, which explains nothing, makes the penalty on all weights grow."""
    b = np.array([1.0, -1, 2, -2, 1, -1, 2, -2])
    a = np.array([0.0, 0, 0, 0, 0, 0, 0, 1e5])
    x, r = np.stack([a, b], axis=1)[:, None], b[:, None] * (a == 0)[:, None]
    fit, held = moments(x[:4], r[:4]), moments(x[4:], r[4:] + np.where(a[4:, None] > 0, b[4:, None], 0))
    found = best_update(fit, held, np.ones((1, 1)))
    assert found is not None and found.after < 0.01 * found.before  # the second input is what is missing
    assert found.matrix is found.part
    assert held.change(solved(fit + held, found.ridge)).sum() > 0.5 * (found.after - found.before)
