"""Laws of rounds: what comes of them is a plan of the original model that meets the target, as every other is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.cost import cost
from onnxprune.importance import score
from onnxprune.pipeline import Options
from onnxprune.pipeline.steps import SteppedPlans, origins, retraced
from onnxprune.plan import Limits, Plan, Sharing, Target, across, plan, uniform
from onnxprune.progress import silent
from onnxprune.rewrite import rewrite
from onnxprune.runtime import random_feeds
from onnxprune.trace import Dependencies
from tests import graphs
from tests.contract import check_removed, onnxprune, prune, stored

PLAIN = ("chain", "residual", "gated", "dense", "mlp", "flattened")


def stepped(
    dependencies: Dependencies, target: Target, steps: int, sharing: Sharing | None = None, **more: object
) -> Plan:
    def rescore(found: Dependencies) -> object:
        return score(found)

    samples = [dict(random_feeds(dependencies.model, batch=8, seed=seed)) for seed in range(8)]
    how = Limits(**more), Options(steps=steps), sharing, samples, rescore, silent, True  # type: ignore[arg-type]
    return SteppedPlans(dependencies, score(dependencies), target, *how)(())  # type: ignore[arg-type]


def share(dependencies: Dependencies, found: Plan) -> float:
    keep = dependencies.keep(found.removed(dependencies))
    return cost(dependencies, keep).macs / cost(dependencies).macs


@pytest.mark.parametrize("name", graphs.ALL)
def test_what_is_left_is_found_in_the_original(name: str) -> None:
    """Cutting twice is cutting both at once: the second cut, told in units of the original, gives the same weights."""
    dependencies = graphs.traced(graphs.ALL[name]())
    first = plan(dependencies, score(dependencies), Target(ratio=0.3)).removed(dependencies)
    smaller = retraced(rewrite(dependencies, first), dependencies)
    second = plan(smaller, score(smaller), Target(ratio=0.4)).removed(smaller)
    units = origins(dependencies, first, smaller)
    gone = units[1][np.isin(units[0], second)]
    assert second.size and not np.isin(gone, first).any()
    twice, once = rewrite(smaller, second), rewrite(dependencies, np.union1d(first, gone))
    for source in dependencies.sources:
        np.testing.assert_array_equal(twice.weights[source.tensor], once.weights[source.tensor])


@pytest.mark.parametrize("name", graphs.ALL)
@pytest.mark.parametrize("steps", [2, 3])
def test_the_target_is_met_in_the_original(name: str, steps: int) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    found = stepped(dependencies, Target(macs=0.5), steps)
    assert share(dependencies, found) <= 0.5 + 1e-9 and found.settings["steps"] == steps
    assert found.settings["macs"] == 0.5 and [g.name for g in found.groups] == [g.name for g in dependencies.groups]
    rewrite(dependencies, found.removed(dependencies))


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7])
def test_a_ratio_leaves_the_widths_that_it_leaves_at_once(name: str, ratio: float) -> None:
    """Rounding up in every round would take one more channel of each group in every round."""
    dependencies = graphs.traced(graphs.ALL[name]())
    at_once = plan(dependencies, score(dependencies), Target(ratio=ratio))
    for steps in (2, 3, 4):
        found = stepped(dependencies, Target(ratio=ratio), steps)
        assert [len(g.removed) for g in found.groups] == [len(g.removed) for g in at_once.groups]


@pytest.mark.parametrize("kind", ["global", "uniform"])
def test_allocations_hold_in_every_round(kind: str) -> None:
    dependencies = graphs.traced(graphs.chain())
    sharing = across(dependencies, score(dependencies)) if kind == "global" else uniform(dependencies)
    for target in (Target(macs=0.4), Target(ratio=0.4), Target(params=0.4)):
        found = stepped(dependencies, target, 3, sharing)
        assert found.settings["allocate"] == kind
        lost = [len(g.removed) / g.channels for g in found.groups]
        assert kind == "global" or max(lost) - min(lost) < 0.1  # a channel of 12 or of 16


def test_what_is_skipped_stays_whole_in_every_round() -> None:
    dependencies = graphs.traced(graphs.chain())
    found = stepped(dependencies, Target(macs=0.6), 3, skip=("c2.w",))
    assert [len(g.removed) for g in found.groups if g.name == "c2.w"] == [0]


def test_the_command_verifies_and_replays_what_comes_of_rounds(tmp_path: Path) -> None:
    model, plan_file, data = stored(graphs.chain(), tmp_path), tmp_path / "p.json", tmp_path / "x.npz"
    dependencies = graphs.traced(graphs.chain())
    np.savez(data, **random_feeds(dependencies.model, batch=64, seed=1))
    options = ["--macs", "0.5", "--steps", "3", "--data", data, "--plan-out", plan_file, "--json"]
    found = onnxprune(*prune(model, *options))
    assert found.code == 0, found.err
    assert found.json["verified"]["ok"] and found.json["settings"]["steps"] == 3 and found.json["recovery"]
    check_removed(found.json, model, tmp_path / "small.onnx")
    again = onnxprune("apply", model, plan_file, "-o", tmp_path / "again.onnx", "--data", data, "--no-bench", "--json")
    assert again.code == 0 and again.json["removed"] == found.json["removed"]
