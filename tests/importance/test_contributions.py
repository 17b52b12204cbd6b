"""Laws of selection by contributions: LASSO and ThiNet on matrices of inner products worked out by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxprune.importance import score
from onnxprune.importance.contributions import regularised, summed_least
from onnxprune.importance.path import Path
from tests import graphs
from tests.importance.evidence import samples

Floats = NDArray[np.float64]
EXACT = 1e-9  # rounding of small systems of equations


def gram(seed: int, units: int, rank: int = 40) -> Floats:
    """Inner products of random contributions, of different size and correlated."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(units, rank)) * rng.uniform(0.2, 2, (units, 1)) + 0.3 * rng.normal(size=(1, rank))
    return z @ z.T


@pytest.mark.parametrize("name", graphs.ALL)
@pytest.mark.parametrize("criterion", ["lasso", "thinet"])
def test_every_unit_has_a_finite_score_and_the_same_samples_give_the_same(name: str, criterion: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    one, other = (score(dependencies, criterion, samples(dependencies)).values for _ in range(2))
    assert np.isfinite(one).all() and (one >= 0).all() and np.array_equal(one, other)
    assert all(one[group.units].sum() > 0 for group in dependencies.groups)


def test_lasso_drops_uncorrelated_channels_at_their_energy() -> None:
    """beta_i = max(0, 1 - lambda / E_ii), by hand."""
    energy = np.array([4.0, 0.5, 9.0, 1.0])
    assert regularised([np.diag(energy)], 4) == pytest.approx(energy, rel=EXACT)


def test_lasso_drops_the_smaller_of_two_correlated_channels_where_the_equations_say() -> None:
    """E = [[4, 1], [1, 1]]: alone, beta_0 = (5 - l) / 4; unit 1 joins where 2 - beta_0 = l, which is l = 1."""
    found = regularised([np.array([[4.0, 1.0], [1.0, 1.0]])], 2)
    assert found == pytest.approx([5.0, 1.0], rel=EXACT)


def test_lasso_needs_one_of_two_equal_channels() -> None:
    z = np.random.default_rng(0).normal(size=(3, 50))
    inner = np.concatenate([z, z[:1]]) @ np.concatenate([z, z[:1]]).T
    found = regularised([inner], 4)
    assert min(found[0], found[3]) == 0 and max(found[0], found[3]) > found[1:3].max()


def solved(inner: Floats, penalty: float) -> Floats:
    """The coefficients at one penalty, by plain coordinate descent."""
    beta, whole = np.zeros(len(inner)), inner.sum(axis=1)
    for _ in range(500):
        for i in range(len(inner)):
            left = whole[i] - inner[i] @ beta + inner[i, i] * beta[i]
            beta[i] = np.sign(left) * max(abs(left) - penalty, 0.0) / inner[i, i]
    return beta


@pytest.mark.parametrize("seed", range(3))
def test_lasso_scores_are_where_coefficients_become_and_stay_zero(seed: int) -> None:
    inner = gram(seed, 7)
    found = regularised([inner], 7)
    assert (found > 0).all()
    for i, penalty in enumerate(found):
        assert solved(inner, penalty * 0.999)[i] != 0
        for above in np.geomspace(penalty * 1.001, found.max(), 3):
            assert abs(solved(inner, above)[i]) < 1e-9  # what coordinate descent has not yet taken to 0


@pytest.mark.parametrize("rank", [40, 9])
def test_the_path_meets_the_conditions_of_the_optimum_at_every_event(rank: int) -> None:
    """With 9 contributions of their own among 30 that cancel and repeat each other, too; some leave and come back."""
    inner = gram(2, 30, rank)
    path, left = Path.of(inner), 0
    for _ in range(60):
        step, unit, enters = path.event()
        if step >= path.penalty * (1 - EXACT):
            break
        path.go(step)
        left += not enters
        path.enter(unit) if enters else path.leave(unit)
        residual = inner.sum(axis=1) - inner[:, path.active] @ path.beta
        scale = float(np.abs(inner).max())
        np.testing.assert_allclose(path.left, residual, atol=1e-7 * scale)  # what 60 steps add up to in rounding
        assert (np.abs(residual) <= path.penalty + 1e-7 * scale).all()
        np.testing.assert_allclose(residual[path.active], path.penalty * path.sign, atol=1e-7 * scale)
    assert path.active.size >= min(rank, 30) - 1


def test_a_coefficient_that_passes_zero_leaves() -> None:
    """Among random contributions, more than their rank, it happens; else the test above would not see it."""
    assert sum(leavings(gram(seed, 12, 13)) for seed in range(10)) > 0


def leavings(inner: Floats) -> int:
    """How often a coefficient leaves on the way."""
    path, count = Path.of(inner), 0
    for _ in range(100):
        step, unit, enters = path.event()
        if step >= path.penalty * (1 - EXACT):
            return count
        path.go(step)
        count += not enters
        path.enter(unit) if enters else path.leave(unit)
    return count


@pytest.mark.parametrize("seed", range(4))
def test_thinet_takes_the_channel_that_adds_least_to_the_sum_of_what_is_gone(seed: int) -> None:
    inner = gram(seed, 7)
    order = np.argsort(summed_least([inner / 2, inner / 2], 7), kind="stable").tolist()
    gone: list[int] = []
    for unit in order:
        energy = {i: inner[np.ix_([*gone, i], [*gone, i])].sum() for i in range(7) if i not in gone}
        assert energy[unit] == pytest.approx(min(energy.values()))
        gone.append(unit)


def test_thinet_takes_contributions_that_cancel() -> None:
    """z = (3), (-3), (1): 1 goes first; then (1, -3) sums to 4, (1, 3) to 16; and all together to 1."""
    z = np.array([[3.0], [-3.0], [1.0]])
    found = summed_least([z @ z.T], 3)
    assert np.argsort(found).tolist() == [2, 1, 0]
    assert found == pytest.approx([4.0, 4.0, 1.0]) and len(set(found.tolist())) == 3


def test_what_nothing_reads_goes_first() -> None:
    inner = gram(5, 6)
    inner[2], inner[:, 2] = 0.0, 0.0
    assert regularised([inner], 6).argmin() == summed_least([inner], 6).argmin() == 2


def test_groups_that_nothing_reads_at_all_have_scores_of_zero() -> None:
    assert not regularised([np.zeros((3, 3))], 3).any() and summed_least([np.zeros((3, 3))], 3).max() < 1e-300


def test_both_find_good_halves() -> None:
    """Of all halves of eight channels to remove, those found by ThiNet are among the best by its own measure."""
    inner = gram(1, 8)
    best = sorted(inner[np.ix_(s, s)].sum() for s in map(list, combinations(range(8), 4)))
    gone = np.argsort(summed_least([inner], 8))[:4]
    assert inner[np.ix_(gone, gone)].sum() <= best[len(best) // 10]
