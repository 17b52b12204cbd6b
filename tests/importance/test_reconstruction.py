"""Law of optimal selection: scores of removed units sum to the error that is left when all readers are refitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxprune.importance import Evidence, reconstruction
from onnxprune.importance.readers import inverted
from onnxprune.importance.reconstruction import Reader, Surgeon, eliminated
from onnxprune.labels import Ids
from onnxprune.runtime import random_feeds
from onnxprune.trace import Dependencies
from tests import graphs

FEEDS = [0, 1, 2, 3]


def batches(dependencies: Dependencies) -> list[dict[str, np.ndarray]]:
    return [dict(random_feeds(dependencies.model, batch=16, seed=seed)) for seed in FEEDS]


def reader(seed: int, units: int, each: int, outputs: int = 3) -> Reader:
    """A random layer that reads `each` inputs of every unit."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, units * each)) @ rng.normal(size=(units * each, units * each))
    columns = np.arange(units * each).reshape(units, each)
    return Reader(inverted(x.T @ x), rng.normal(size=(units * each, outputs)), columns)


def left(found: Reader, gone: Ids) -> float:
    """The penalised error when these units are gone and the others refitted, solved from scratch."""
    matrix = np.linalg.inv(found.inverse)
    stays = np.setdiff1d(np.arange(len(matrix)), found.columns[gone].ravel())
    fitted = np.zeros_like(found.matrix)
    fitted[stays] = np.linalg.solve(matrix[np.ix_(stays, stays)], matrix[stays] @ found.matrix)
    change = found.matrix - fitted
    return float((change * (matrix @ change)).sum())


@pytest.mark.parametrize("each", [1, 4])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_scores_sum_to_the_error_of_all_readers(seed: int, count: int, each: int) -> None:
    found = [reader(seed + 10 * i, 6, each) for i in range(count)]
    values = eliminated(found, 6)
    order = np.argsort(values, kind="stable")
    assert (np.diff(values[order]) >= 0).all()
    for n in range(1, 6):
        error = sum(left(r, order[:n]) for r in found)
        assert values[order[:n]].sum() >= error * (
            1 - 1e-6
        )  # never less than it costs; more where a later one was cheap
    first = min(range(6), key=lambda u: sum(left(r, np.array([u])) for r in found))
    assert order[0] == first and values[first] == pytest.approx(sum(left(r, order[:1]) for r in found), rel=1e-6)


def test_a_unit_that_another_repeats_costs_nothing_and_one_that_nothing_reads_neither() -> None:
    found = reader(0, 6, 1)
    gram = np.linalg.inv(found.inverse)
    gram[5], gram[:, 5] = gram[0], gram[:, 0]  # the last repeats the first
    gram[5, 5] = gram[0, 0]
    unread = found.matrix.copy()
    unread[3] = 0.0
    values = eliminated([replace(found, inverse=inverted(gram), matrix=unread)], 6)
    assert min(values[0], values[5]) < 0.05 * np.median(values) and values[3] < 1e-9 < max(values[0], values[5])


@pytest.mark.parametrize("name", graphs.ALL)
def test_every_unit_has_a_score_and_the_same_samples_give_the_same(name: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    one, other = (reconstruction(dependencies, Evidence(batches(dependencies))) for _ in range(2))
    assert one.additive and np.array_equal(one.values, other.values)
    for group in dependencies.groups:
        assert (one.values[group.units] >= 0).all() and one.values[group.units].sum() > 0


@pytest.mark.parametrize("each", [1, 4])
def test_units_that_go_together_cost_what_they_cost_one_by_one(each: int) -> None:
    found, gone = reader(3, 8, each), np.array([5, 2, 7])
    together, alone = Surgeon.of(found), Surgeon.of(found)
    costs = together.remove(gone)
    assert np.allclose(costs, [float(alone.remove(np.array([u]))[0]) for u in gone])
    assert np.allclose(together.inverse, alone.inverse) and np.allclose(together.matrix, alone.matrix)
    assert costs.sum() == pytest.approx(left(found, gone))


def test_a_unit_that_a_product_does_not_read_costs_it_nothing() -> None:
    found = reader(4, 6, 2)
    narrow = replace(found, columns=np.where(np.arange(6)[:, None] < 4, found.columns, -1))
    assert (Surgeon.of(narrow).costs(np.arange(6)) == Surgeon.of(found).costs(np.arange(6)) * (np.arange(6) < 4)).all()
