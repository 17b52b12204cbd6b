"""Laws of the control experiments: random follows its seed, largest is l1 turned round."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.importance import Evidence, score
from onnxprune.plan import Target, across, plan
from tests import graphs


@pytest.mark.parametrize("everywhere", [False, True])
def test_random_follows_its_seed_and_the_plan_tells_it(everywhere: bool) -> None:
    dependencies = graphs.traced(graphs.chain())
    first, same, other = (score(dependencies, "random", Evidence(seed=seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.values, same.values)
    assert not np.array_equal(first.values, other.values)
    ranked = [(s, across(dependencies, s) if everywhere else None) for s in (first, same, other)]
    plans = [plan(dependencies, s, Target(ratio=0.4), allocation=sharing) for s, sharing in ranked]
    assert plans[0] == plans[1] and plans[0].groups != plans[2].groups and plans[0].settings["seed"] == 3


def test_random_looks_at_no_weight() -> None:
    units = [score(graphs.traced(graphs.chain(seed=seed)), "random").values for seed in (0, 1)]
    np.testing.assert_array_equal(*units)


@pytest.mark.parametrize("name", ["chain", "residual", "mlp"])
def test_largest_removes_the_largest(name: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    norms = score(dependencies, "l1").values
    found = plan(dependencies, score(dependencies, "largest"), Target(ratio=0.4))
    for group, entry in zip(dependencies.groups, found.groups, strict=True):
        own, gone = norms[group.units], np.isin(np.arange(group.units.size), entry.removed)
        assert gone.any() and own[gone].min() >= own[~gone].max()
