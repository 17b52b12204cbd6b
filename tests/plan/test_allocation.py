"""Laws of an allocation: it is a curve per group, targets are met along it, and the uniform one changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.cost import cost
from onnxprune.errors import PlanError
from onnxprune.importance import Scores, score
from onnxprune.plan import Allocation, Limits, Target, plan
from onnxprune.plan.allocation import uniform
from onnxprune.trace import Dependencies
from tests import graphs

NAMES = ("chain", "residual", "mlp")


def shares(dependencies: Dependencies, allocation: Allocation | None, target: Target) -> list[float]:
    found = plan(dependencies, score(dependencies), target, allocation=allocation)
    return [len(entry.removed) / entry.channels for entry in found.groups]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("macs", [0.4, 0.7])
def test_the_uniform_one_is_what_is_done_without(name: str, macs: float) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    target = Target(macs=macs)
    assert shares(dependencies, uniform(dependencies), target) == shares(dependencies, None, target)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_targets_are_met_along_the_curves(name: str, seed: int) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    curves = np.sort(np.random.default_rng(seed).uniform(0, 1, (len(dependencies.groups), 5)), axis=1)
    curves[:, 0], curves[:, -1] = 0.0, 1.0
    allocation = Allocation("sensitivity", np.linspace(0, 1, 5), curves)
    found = plan(dependencies, score(dependencies), Target(macs=0.6), allocation=allocation)
    left = cost(dependencies, dependencies.keep(found.removed(dependencies))).macs / cost(dependencies).macs
    assert left <= 0.6 + 1e-9 and found.settings["allocate"] == "sensitivity"


def test_a_group_whose_curve_is_flat_stays_whole() -> None:
    dependencies = graphs.traced(graphs.chain())
    ratios = np.tile([0.0, 1.0], (len(dependencies.groups), 1))
    ratios[0] = 0.0
    found = shares(dependencies, Allocation("sensitivity", np.array([0.0, 1.0]), ratios), Target(ratio=0.3))
    assert found[0] == 0 and max(found) > 0


def test_scores_that_are_errors_follow_it_too() -> None:
    dependencies = graphs.traced(graphs.chain())
    values = score(dependencies).values
    target, same = Target(macs=0.5), uniform(dependencies)
    one = plan(dependencies, Scores("made", values, additive=True), target, allocation=same)
    assert one.groups == plan(dependencies, Scores("made", values), target, allocation=same).groups


@pytest.mark.parametrize(
    ("levels", "ratios"),
    [
        ([0, 1], [[0.5, 0.2]]),
        ([0, 0.5], [[0, 1]]),
        ([0, 1], [[0, 1.5]]),
        ([0.1, 1], [[0, 1]]),
        ([0, 0, 1], [[0, 0, 1]]),
    ],
)
def test_curves_that_fall_or_lie_elsewhere_are_refused(levels: list[float], ratios: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="rise from 0 to 1"):
        Allocation("made", np.array(levels, float), np.array(ratios, float))


@pytest.mark.parametrize("seed", range(5))
def test_what_is_left_of_the_curves_takes_the_rest_of_what_they_take_at_once(seed: int) -> None:
    """Of a group that has lost more than its curve asks for, nothing more goes."""
    rng = np.random.default_rng(seed)
    curves = np.sort(rng.uniform(0, 1, (3, 4)), axis=1)
    whole, lost = Allocation("made", np.linspace(0, 1, 4), curves), rng.uniform(0, 0.9, 3)
    rest = whole.beyond(lost)
    for level in rng.uniform(0, 1, 50):
        for g in range(3):
            in_all = lost[g] + (1 - lost[g]) * rest.ratio(g, level)
            assert in_all == pytest.approx(max(whole.ratio(g, level), lost[g]), abs=1e-12)  # float64 interpolation


def test_an_allocation_may_leave_a_part_of_every_group_unless_told_otherwise() -> None:
    dependencies = graphs.traced(graphs.chain())
    ratios = np.tile([0.0, 1.0], (len(dependencies.groups), 1))
    allocation = Allocation("made", np.array([0.0, 1.0]), ratios, ceiling=0.5)
    for limits, most in ((None, 0.5), (Limits(max_ratio=0.75), 0.75)):
        found = plan(dependencies, score(dependencies), Target(ratio=most - 0.05), limits, allocation)
        assert max(len(g.removed) / g.channels for g in found.groups) <= most
    with pytest.raises(PlanError, match="cannot be met"):
        plan(dependencies, score(dependencies), Target(ratio=0.6), None, allocation)
