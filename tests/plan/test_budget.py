"""Laws of a budget: the work is kept, and little more is lost than by the best of all combinations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxprune.cost import cost
from onnxprune.errors import PlanError
from onnxprune.importance import Scores
from onnxprune.plan import Limits, Target, plan
from onnxprune.trace import Dependencies
from tests import graphs

GAP = 1.1  # times the least error there is; the search is not exhaustive


def scores(dependencies: Dependencies, seed: int) -> Scores:
    rng = np.random.default_rng(seed)
    return Scores("errors", rng.exponential(size=dependencies.unit_count) ** 2, additive=True)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("name", ["chain", "residual", "gated", "dense", "mlp", "flattened"])
def test_the_work_is_within_the_budget(name: str, share: float) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    chosen = plan(dependencies, scores(dependencies, 0), Target(macs=share), Limits(max_ratio=1.0))
    keep = dependencies.keep(chosen.removed(dependencies))
    assert cost(dependencies, keep).macs <= share * cost(dependencies).macs * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_errors_sum_to_nearly_the_least_there_is(seed: int) -> None:
    dependencies = graphs.traced(graphs.chain(width=8))
    found, share = scores(dependencies, seed), 0.5
    chosen = plan(dependencies, found, Target(macs=share), Limits(max_ratio=1.0)).removed(dependencies)
    orders = [g.units[np.argsort(found.values[g.units], kind="stable")] for g in dependencies.groups]
    best = np.inf
    for counts in itertools.product(*(range(g.units.size) for g in dependencies.groups)):
        removed = np.concatenate([order[:n] for order, n in zip(orders, counts, strict=True)])
        if cost(dependencies, dependencies.keep(removed)).macs <= share * cost(dependencies).macs:
            best = min(best, float(found.values[removed].sum()))
    assert found.values[chosen].sum() <= best * GAP


def test_limits_hold_and_what_cannot_be_met_is_an_error() -> None:
    dependencies = graphs.traced(graphs.chain())
    found = scores(dependencies, 0)
    chosen = plan(dependencies, found, Target(macs=0.6), Limits(skip=("c1.w",), max_ratio=1.0))
    assert chosen.groups[0].removed == () and any(g.removed for g in chosen.groups)
    with pytest.raises(PlanError, match="cannot be met"):
        plan(dependencies, found, Target(macs=0.05), Limits(max_ratio=0.2))


@pytest.mark.parametrize("seed", range(4))
def test_narrow_layers_may_stop_at_parts_of_a_step_if_that_is_allowed(seed: int) -> None:
    dependencies = graphs.traced(graphs.chain(width=16))
    found = scores(dependencies, seed)
    coarse, fine = (
        plan(dependencies, found, Target(macs=0.5), Limits(align=8, max_ratio=1.0, finer=finer))
        for finer in (False, True)
    )
    lost = [float(found.values[p.removed(dependencies)].sum()) for p in (coarse, fine)]
    assert lost[1] < lost[0]
    for group in coarse.groups:
        assert not group.removed or (group.channels - len(group.removed)) % 8 == 0
    for group in fine.groups:
        assert not group.removed or (group.channels - len(group.removed)) % 2 == 0
