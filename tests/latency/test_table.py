"""Laws of the table: weights that made the times are found again, none is negative, wider is never cheaper."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from onnxprune.importance import score
from onnxprune.latency import Regions, Terms, fit_table, terms_of
from onnxprune.latency.table import LIMIT, Sample, fit_region
from onnxprune.latency.terms import KINDS
from onnxprune.plan import Limits
from onnxprune.plan.levels import choosers_of, levels_of
from onnxprune.profile import removed_by
from onnxprune.profile.measure import design
from onnxprune.trace import Dependencies
from tests import graphs
from tests.latency.test_terms import split


@cache
def measured() -> tuple[Dependencies, Regions, Terms, tuple[np.ndarray, ...]]:
    """A graph, its terms, and the widths of the models that a profile measures."""
    dependencies = graphs.traced(graphs.chain(width=48))
    regions = split(dependencies)
    terms = terms_of(dependencies, regions, 4)
    choosers = choosers_of(dependencies, score(dependencies), Limits(align=2), finer=False)
    levels = levels_of(choosers)
    plans = [removed_by(dependencies, levels, chosen) for chosen in design(levels)]
    return dependencies, regions, terms, (terms.dense, *(terms.measure(dependencies.keep(p)) for p in plans))


def planted(seed: int, noise: float = 0.0) -> list[Sample]:
    """Times made by known weights."""
    _, _, terms, widths = measured()
    rng = np.random.default_rng(seed)
    scale = np.maximum(np.max([terms.features(w) for w in widths], axis=0), 1)
    weights = rng.uniform(0, 1, scale.shape) * (rng.random(scale.shape) < 0.5) / scale
    weights[:, 0] += 0.1
    times = [(terms.features(w) * weights).sum(axis=1) for w in widths]
    return [Sample(w, t * np.exp(noise * rng.normal(size=t.size))) for w, t in zip(widths, times, strict=True)]


@pytest.mark.parametrize("seed", range(6))
def test_times_made_by_weights_are_met(seed: int) -> None:
    _, regions, terms, _ = measured()
    samples = planted(seed)
    table = fit_table(regions, terms, samples)
    assert table.error < 1e-6  # nnls solves to about the rounding of its normal equations
    for sample in samples:
        assert float(table.price.total(sample.widths)) == pytest.approx(sample.ms.sum(), rel=1e-6)


def test_weights_are_found_again_where_the_work_tells_them_apart() -> None:
    rng = np.random.default_rng(0)
    work, weights = rng.uniform(1, 9, (20, len(KINDS))), np.array([0.3, 0, 2, 0, 0.1, 0, 1, 0, 4])
    np.testing.assert_allclose(fit_region(work, work @ weights), weights, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_no_weight_is_negative_whatever_the_times(seed: int) -> None:
    _, regions, terms, widths = measured()
    rng = np.random.default_rng(seed)
    samples = [Sample(w, rng.uniform(0, 1, len(regions.names) + 1)) for w in widths]
    table = fit_table(regions, terms, samples, samples[-1])
    assert (table.weights >= 0).all() and (table.correction > 0).all() and np.isfinite(table.weights).all()
    assert (table.price.ms >= 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_of_whole_steps_more_are_never_cheaper(seed: int) -> None:
    """Between them another kernel may take over."""
    dependencies, regions, terms, _ = measured()
    price = fit_table(regions, terms, planted(seed, noise=0.3)).price
    for group in dependencies.groups:
        keeps = [dependencies.keep(group.units[:n]) for n in range(0, group.units.size, terms.step)]
        times = [float(price.total(terms.measure(keep))) for keep in keeps]
        assert (np.diff(times) <= 1e-12).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_last_sample_is_met_exactly_region_by_region(seed: int) -> None:
    _, regions, terms, _ = measured()
    samples = planted(seed)
    last = Sample(samples[5].widths, samples[5].ms * np.linspace(0.5, 1.8, samples[5].ms.size))
    table = fit_table(regions, terms, [*samples, last], last)
    found = (terms.features(last.widths) * table.weights).sum(axis=1) * table.correction
    np.testing.assert_allclose(found, last.ms, rtol=1e-9)
    assert float(table.price.total(last.widths)) == pytest.approx(last.ms.sum(), rel=1e-9)


def test_a_kernel_that_moved_to_another_region_is_no_correction() -> None:
    _, regions, terms, _ = measured()
    samples = planted(0)
    moved = samples[3].ms.copy()
    moved[0], moved[1] = moved[0] * LIMIT * 1.1, 0.0
    table = fit_table(regions, terms, samples, Sample(samples[3].widths, moved))
    assert table.correction[0] == table.correction[1] == 1.0


def test_a_region_without_time_costs_nothing() -> None:
    assert not fit_region(np.ones((5, len(KINDS))), np.zeros(5)).any()


def test_one_sample_is_enough_for_a_table() -> None:
    _, regions, terms, _ = measured()
    dense = planted(1)[0]
    assert float(fit_table(regions, terms, [dense]).price.total(dense.widths)) == pytest.approx(dense.ms.sum())
