"""Laws of the ranking: the level is the share of all units that is gone, and scores decide, whatever the group."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.importance import Scores, score
from onnxprune.plan import across
from tests import graphs


@pytest.mark.parametrize("name", graphs.ALL)
@pytest.mark.parametrize("level", [0.0, 0.1, 0.5, 1.0])
def test_the_level_is_the_share_of_all_units_that_is_gone(name: str, level: float) -> None:
    """To within one bundle of units that go together: at most a row of each family, three here."""
    dependencies = graphs.traced(graphs.ALL[name]())
    ranking = across(dependencies, score(dependencies))
    gone = sum(ranking.share(g, level).sum() for g in range(len(dependencies.groups)))
    count = sum(g.units.size for g in dependencies.groups)
    assert level * count - 1e-9 <= gone <= level * count + 3 or (level == 1.0 and gone >= 0.9 * count)


def test_scores_that_compare_are_taken_as_they_are() -> None:
    dependencies = graphs.traced(graphs.chain())
    values = np.full(dependencies.unit_count, 2.0)
    values[dependencies.groups[1].units] = 1.0
    as_they_are, scaled = [0.0, 1.0, 0.0], None
    for kind, expected in (({"comparable": True}, as_they_are), ({"additive": True}, as_they_are), ({}, scaled)):
        ranking = across(dependencies, Scores("made", values, **kind))
        level = dependencies.groups[1].units.size / dependencies.unit_count
        shares = [ranking.share(g, level).mean() for g in range(3)]
        if expected:
            assert shares == expected
        else:  # divided by their mean all are alike, and go alike
            assert max(shares) - min(shares) < 0.1


def test_a_unit_that_scores_less_goes_earlier() -> None:
    dependencies = graphs.traced(graphs.residual())
    scores = Scores("made", np.random.default_rng(0).random(dependencies.unit_count), comparable=True)
    ranking = across(dependencies, scores)
    before = np.concatenate([ranking.before[g] for g in range(len(dependencies.groups))])
    values = np.concatenate([scores.values[g.units] for g in dependencies.groups])
    assert np.array_equal(np.argsort(before), np.argsort(values))
