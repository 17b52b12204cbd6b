"""Laws of what is drawn: importance adds up, and edges are what the graphs were built with."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.importance import score
from onnxprune.report.coupling import POINTS, Edge, edges, importance
from tests.graphs import ALL, chain, residual, traced


def ends(found: tuple[Edge, ...]) -> set[tuple[str, str, bool]]:
    return {(e.feeds, e.into, e.held) for e in found}


def test_a_chain_is_a_chain() -> None:
    found = edges(traced(chain()))
    assert ends(found) == {("c1.w", "c2.w", False), ("c2.w", "c3.w", False), ("c3.w", "fc.w", True)}
    assert [e.layers for e in found] == [("c2.w",), ("c3.w",), ("fc.w",)]


def test_a_residual_stage_and_its_inner_layers_feed_each_other() -> None:
    found = ends(edges(traced(residual())))
    assert {("stem.w", "a1.w", False), ("a1.w", "stem.w", False)} <= found
    assert {("stem.w", "b1.w", False), ("b1.w", "b2.w", False), ("b2.w", "fc.w", True)} <= found


@pytest.mark.parametrize("build", ALL)
def test_edges_name_groups_and_no_group_feeds_itself(build: str) -> None:
    dependencies = traced(ALL[build]())
    names = {g.name for g in dependencies.groups}
    for e in edges(dependencies):
        assert e.feeds in names and (e.into in names) != e.held and (e.held or e.feeds != e.into) and e.layers


@pytest.mark.parametrize("build", ALL)
def test_importance_is_the_scores_of_the_group(build: str) -> None:
    dependencies = traced(ALL[build]())
    values = score(dependencies).values
    rng = np.random.default_rng(0)
    gone = rng.random(values.size) < 0.4
    for group in dependencies.groups:
        found = importance(group.units, values, gone, 0.5)
        assert list(found.scores) == sorted(found.scores) and len(found.scores) == group.units.size
        assert found.share == 0.5
        assert sum(found.kept) == int((~gone[group.units]).sum())


def test_large_groups_are_sampled_ends_included() -> None:
    scores = np.random.default_rng(0).random(1000)
    found = importance(np.arange(1000), scores, scores < 0.5, 0.5)
    assert len(found.scores) == len(found.kept) == POINTS
    assert found.scores[0] == pytest.approx(scores.min(), rel=1e-5)
    assert found.scores[-1] == pytest.approx(scores.max(), rel=1e-5)
    assert found.kept == tuple(s >= 0.5 for s in found.scores)
