"""Greedy scores: weights that read a removed channel do not count, layer after layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune import pipeline
from onnxprune.importance import Evidence, score
from onnxprune.plan import Limits, Plan, Target, plan
from tests import graphs
from tests.contract import stored

# Sums of a few float32 weights in float64 differ from each other only by the order of summation.
EXACT = 1e-12


def test_when_nothing_goes_it_is_l1() -> None:
    for build in graphs.ALL.values():
        dependencies = graphs.traced(build())
        np.testing.assert_array_equal(score(dependencies, "l1-greedy").values, score(dependencies).values)


def by_hand(ratio: float) -> list[list[int]]:
    """What three convolutions in a row lose: each ranked on what is left of its inputs, ceil(c r) of c go."""
    weights = graphs.traced(graphs.chain()).model.weights
    left, gone = np.arange(3), []
    for name in ("c1.w", "c2.w", "c3.w"):
        filters = weights[name][:, left].astype(np.float64)
        order = np.argsort(np.abs(filters).sum(axis=(1, 2, 3)), kind="stable")
        gone.append(sorted(order[: int(np.ceil(len(order) * ratio))].tolist()))
        left = np.setdiff1d(np.arange(len(order)), gone[-1])
    return gone


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_layer_after_layer_by_hand(ratio: float) -> None:
    dependencies = graphs.traced(graphs.chain())
    first = plan(dependencies, score(dependencies, "l1-greedy"), Target(ratio=ratio))
    scores = score(dependencies, "l1-greedy", Evidence(removed=first.removed(dependencies)))
    found = plan(dependencies, scores, Target(ratio=ratio))
    assert [list(g.removed) for g in found.groups] == by_hand(ratio)


def test_greedy_is_not_independent() -> None:
    """The layers of the case above are such that the two differ, or it would prove nothing."""
    dependencies = graphs.traced(graphs.chain())
    independent = plan(dependencies, score(dependencies), Target(ratio=0.5))
    assert [list(g.removed) for g in independent.groups] != by_hand(0.5)


def test_grouped_convolutions_read_within_their_group() -> None:
    dependencies = graphs.traced(graphs.grouped())
    reduce = dependencies.unit[next(s.ids for s in dependencies.sources if s.tensor == "reduce.w")]
    groups = dependencies.unit[next(s.ids for s in dependencies.sources if s.tensor == "groups.w")]
    weight = dependencies.model.weights["groups.w"].astype(np.float64).copy()
    removed = reduce[[1, 4, 11]]  # one input of each group: 1 of the first, 0 of the second, 3 of the third
    weight[0:4, 1] = weight[4:8, 0] = weight[8:12, 3] = 0
    found = score(dependencies, "l1-greedy", Evidence(removed=removed)).values[groups]
    np.testing.assert_allclose(found, np.abs(weight).sum(axis=(1, 2, 3)), rtol=EXACT)


def test_prune_and_apply_score_by_the_plan(tmp_path: Path) -> None:
    path = stored(graphs.chain(), tmp_path)
    options = pipeline.Options(criterion="l1-greedy", align=1, time=False)
    done = pipeline.prune(path, tmp_path / "a.onnx", Target(ratio=0.5), Limits(), options)
    assert [list(g.removed) for g in done.plan.groups] == by_hand(0.5)
    done.plan.save(tmp_path / "plan.json")
    again = pipeline.apply(path, Plan.load(tmp_path / "plan.json"), tmp_path / "b.onnx", options)
    assert again.report.to_dict()["importance_kept"] == done.report.to_dict()["importance_kept"]


def test_apply_ranks_at_random_with_the_seed_of_the_plan(tmp_path: Path) -> None:
    path = stored(graphs.chain(), tmp_path)
    options = pipeline.Options(criterion="random", align=1, time=False, seed=5)
    done = pipeline.prune(path, tmp_path / "a.onnx", Target(ratio=0.5), Limits(), options)
    again = pipeline.apply(path, done.plan, tmp_path / "b.onnx", pipeline.Options(align=1, time=False))
    assert again.report.to_dict()["importance_kept"] == done.report.to_dict()["importance_kept"]
