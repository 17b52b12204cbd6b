"""Laws of an allocation: it is a curve per group, targets are met along it, and the uniform one changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.cost import cost
from onnxprune.importance import Scores, score
from onnxprune.plan import Allocation, Target, plan
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
