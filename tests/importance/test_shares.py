"""Law of shares: of a layer, the share of its scores that stays; of a group, the mean that no layer dominates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxprune.importance import kept_share, score
from onnxprune.importance.norms import filters, l1_norm, l2_norm
from onnxprune.importance.shares import layer_share
from tests import graphs

NORMS = {"l1": l1_norm, "l2": l2_norm}


@pytest.mark.parametrize("criterion", NORMS)
@pytest.mark.parametrize("name", graphs.ALL)
def test_a_group_keeps_the_geometric_mean_of_what_its_layers_keep(name: str, criterion: str) -> None:
    dependencies, rng = graphs.traced(graphs.ALL[name]()), np.random.default_rng(0)
    scores = score(dependencies, criterion)
    for group in dependencies.groups:
        keep = dependencies.keep(group.units[rng.random(group.units.size) < 0.4])
        shares = []
        for source in group.sources:
            found = NORMS[criterion](filters(dependencies, source))
            shares.append(found[keep[source.ids].ravel()].sum() / found.sum())
            assert layer_share(dependencies, scores, source, keep) == pytest.approx(shares[-1])
        assert kept_share(dependencies, scores, group, keep) == pytest.approx(np.prod(shares) ** (1 / len(shares)))


def test_a_loud_layer_does_not_hide_what_a_quiet_one_loses() -> None:
    dependencies = graphs.traced(graphs.residual())
    scores = score(dependencies)
    group = max(dependencies.groups, key=lambda g: len(g.sources))
    keep = dependencies.keep(group.units[: group.units.size // 2])
    louder = {s: v * (1000.0 if s is group.sources[0] else 1.0) for s, v in scores.filters.items()}
    loud = replace(scores, filters=louder)
    assert len(group.sources) > 1
    assert kept_share(dependencies, loud, group, keep) == pytest.approx(kept_share(dependencies, scores, group, keep))


def test_without_filters_of_their_own_layers_have_the_scores_of_their_units() -> None:
    dependencies = graphs.traced(graphs.chain())
    scores = replace(score(dependencies), filters={})
    group = dependencies.groups[0]
    removed = np.argsort(scores.values[group.units])[:3]
    left = 1 - scores.values[group.units[removed]].sum() / scores.values[group.units].sum()
    assert kept_share(dependencies, scores, group, dependencies.keep(group.units[removed])) == pytest.approx(left)


def test_where_all_scores_are_zero_filters_are_counted_and_a_layer_that_loses_all_keeps_nothing() -> None:
    dependencies = graphs.traced(graphs.chain())
    group, (source, *_) = dependencies.groups[0], dependencies.groups[0].sources
    nothing = replace(score(dependencies), filters={source: np.zeros(source.ids.size)})
    keep = dependencies.keep(group.units[:4])
    assert kept_share(dependencies, nothing, group, keep) == pytest.approx(1 - 4 / group.units.size)
    first = replace(nothing, filters={source: np.eye(source.ids.size)[0]})
    assert kept_share(dependencies, first, group, dependencies.keep(group.units[:1])) == 0.0
