"""Laws of the allocation by redundancy: each step is from the layer that is most redundant then, and all are taken."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.cost import cost
from onnxprune.importance import Evidence, score
from onnxprune.plan import Target, plan
from onnxprune.plan.redundancy import STEPS, curve, merged, redundancy
from onnxprune.trace import Dependencies
from tests import graphs


def copies(width: int, different: int) -> Dependencies:
    """Two Gemms of the same width: one has `different` filters, again and again, the other only different ones."""
    net = graphs.Net(0)
    basis = np.eye(width, dtype=np.float32)
    net.weights["twice.w"] = basis[np.arange(width) % different] * np.linspace(1, 2, width, dtype=np.float32)[:, None]
    net.weights["once.w"] = basis * np.linspace(1, 2, width, dtype=np.float32)[:, None]
    h = net.op("Relu", [net.op("Gemm", ["x", "twice.w"], "h", transB=1)], "r")
    h = net.op("Gemm", [h, "once.w"], "g", transB=1)
    net.op("MatMul", [h, net.weight("out.w", width, 2)], "y")
    return graphs.traced(net.model(["N", width], ["N", 2]))


def test_the_layer_of_copies_goes_first() -> None:
    dependencies = copies(16, 4)
    names = [g.name for g in dependencies.groups]
    for ratio in (0.1, 0.2, 0.3):  # of all; the copies are 12 of 32
        found = plan(dependencies, score(dependencies), Target(ratio=ratio), allocation=redundancy(dependencies))
        lost = {name: len(g.removed) for name, g in zip(names, found.groups, strict=True)}
        assert lost["once.w"] == 0 and lost["twice.w"] == np.ceil(32 * ratio)


@pytest.mark.parametrize("criterion", ["l1", "random"])
@pytest.mark.parametrize("name", graphs.ALL)
def test_any_criterion_meets_targets_along_it(name: str, criterion: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    scores = score(dependencies, criterion, Evidence(seed=1))
    found = plan(dependencies, scores, Target(macs=0.7), allocation=redundancy(dependencies, scores))
    left = cost(dependencies, dependencies.keep(found.removed(dependencies))).macs / cost(dependencies).macs
    assert left <= 0.7 + 1e-9 and found.settings["allocate"] == "redundancy"


def test_steps_are_merged_lowest_score_first() -> None:
    """The second group starts out as the more redundant; after one step of it the first one is."""
    curves = [[(0, 0.5), (2, 0.7)], [(0, 0.4), (1, 0.6), (2, 0.9)]]
    levels, ratios = merged([4, 4], curves)
    np.testing.assert_array_equal(levels, [0, 1 / 8, 3 / 8, 4 / 8, 1])
    np.testing.assert_array_equal(ratios, [[0, 0, 0.5, 0.5, 1], [0, 0.25, 0.25, 0.5, 1]])


def test_a_graph_is_built_again_without_what_went() -> None:
    """Three equal filters and two others: 3 different of 5, then 3 of 4, then 3 of 3, and then there are too few."""
    apart = np.full((5, 5), np.sqrt(2)) - np.sqrt(2) * np.eye(5)
    apart[:3, :3] = 0
    assert curve(apart, 0.1) == [(0, 3 / 5), (1, 3 / 4), (2, 1.0), (3, 2 - 2 / 3)]


def test_no_group_falls_below_its_different_filters_while_another_is_above() -> None:
    """Filters unlike all others go first here: the graph that is left only gets more redundant, down to one filter."""
    apart = np.full((8, 8), np.sqrt(2)) * (1 - np.eye(8))
    apart[5:, 5:] = 0  # 5 different ones, then 3 equal ones: 6 in all
    other = np.full((8, 8), np.sqrt(2)) * (1 - np.eye(8))
    other[6:, 6:] = 0  # 7 different filters
    levels, ratios = merged([8, 8], [curve(apart, 0.1), curve(other, 0.1)])
    gone = ratios * 8
    first = np.flatnonzero(gone[0] > 8 - 6)[0]
    assert gone[1, first] >= 8 - 7 and (np.diff(levels) > 0).all()


@pytest.mark.parametrize("size", [1, 2, 31, 100])
def test_groups_have_few_steps_and_keep_a_channel(size: int) -> None:
    found = curve(1.0 - np.eye(size), 0.5)
    assert len(found) <= STEPS and found[0][0] == 0 and found[-1][0] < size
