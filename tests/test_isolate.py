"""Isolation. Law: whatever is wrong with some groups, the others are delivered, and what is delivered is verified.

Faults are planted in the resize halves of rules and in the rewriter; each hurts the groups it names and no other.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune import Options, Target, isolate, pipeline
from onnxprune import prune as prune_file
from onnxprune.data import Feeds
from onnxprune.errors import DataError, PlanError, VerificationError
from onnxprune.importance import score
from onnxprune.labels import Ids
from onnxprune.model import Model
from onnxprune.plan import plan
from onnxprune.rewrite import rewrite
from onnxprune.rules.edit import Edit
from onnxprune.rules.registry import RESIZES
from onnxprune.runtime import random_feeds
from onnxprune.trace import Dependencies
from tests import graphs
from tests.contract import check_masked, check_removed, check_report, onnxprune, prune, stored

Patch = pytest.MonkeyPatch
QUICK = Options(align=1, time=False)
rewriting = importlib.import_module("onnxprune.rewrite")  # the package exports a function of that name


def ladder(rungs: int) -> onnx.ModelProto:
    """Convolutions in a row, `c0.w`, `c1.w`, ..., each a group; later ones are wider, and so lose more."""
    net = graphs.Net()
    h, width = "x", 3
    for i in range(rungs):
        h = net.op("Relu", [net.conv(h, f"c{i}", 6 + 2 * i, width)], f"r{i}")
        width = 6 + 2 * i
    net.head(h, width)
    return net.model(["N", 3, 4, 4], ["N", 5])


def touched(dependencies: Dependencies, removed: Ids) -> set[str]:
    """The groups that lose channels."""
    return {g.name for g in dependencies.groups if np.isin(g.units, removed).any()}


def corrupt(patch: Patch, *culprits: Sequence[str]) -> list[set[str]]:
    """Take the wrong channels of a weight when all the groups of a culprit shrink; the parts that are tried."""
    tried: list[set[str]] = []

    def wrong(dependencies: Dependencies, removed: Ids) -> Model:
        pruned, part = rewrite(dependencies, removed), touched(dependencies, removed)
        tried.append(part)
        hit = [c[0] for c in culprits if part >= set(c)]
        rolled = {name: np.roll(pruned.weights[name], 1, axis=0) for name in hit}
        return replace(pruned, weights={**pruned.weights, **rolled})

    patch.setattr(isolate, "rewrite", wrong)
    return tried


class Case:
    """A traced model, a plan at a ratio, and inputs."""

    def __init__(self, proto: onnx.ModelProto, ratio: float = 0.5) -> None:
        self.dependencies = graphs.traced(proto)
        self.plan = plan(self.dependencies, score(self.dependencies), Target(ratio=ratio))
        self.batches: list[Feeds] = [random_feeds(graphs.loaded(proto), batch=2)]

    def isolate(self, **options: object) -> isolate.Verified:
        return isolate.isolate(self.dependencies, self.plan, self.batches, **options)  # type: ignore[arg-type]

    def check(self, found: isolate.Verified, culprits: set[str]) -> None:
        """These groups are whole, with their reason; the others lost what was planned; the whole of it verified."""
        assert set(found.isolated) == culprits and found.equivalence.ok
        for before, after in zip(self.plan.groups, found.plan.groups, strict=True):
            if before.name in culprits:
                assert after.removed == () and after.note == found.isolated[before.name]
            else:
                assert after == before
        assert np.array_equal(found.plan.removed(self.dependencies), found.removed)
        right = rewrite(self.dependencies, found.removed).weights
        assert all(np.array_equal(found.model.weights[name], array) for name, array in right.items())


# --- finding the culprits --------------------------------------------------------------------------------------------


def test_a_plan_that_verifies_is_tried_once(monkeypatch: Patch) -> None:
    case, tried = Case(graphs.residual()), corrupt(monkeypatch)
    case.check(case.isolate(), set())
    assert len(tried) == 1


@pytest.mark.parametrize("culprit", range(8))
def test_one_culprit_is_found_in_a_logarithm_of_trials(culprit: int, monkeypatch: Patch) -> None:
    case, name = Case(ladder(8)), f"c{culprit}.w"
    tried = corrupt(monkeypatch, [name])
    found = case.isolate()
    case.check(found, {name})
    assert found.isolated[name].endswith(f"first at tensor 'c{culprit}', written by Conv 'c{culprit}'")
    assert found.isolated[name].startswith("failed verification: the pruned model differs")
    assert len(tried) <= 2 + 2 * math.log2(8)
    assert tried[1] == set() and all(part not in tried[:i] for i, part in enumerate(tried))


@pytest.mark.parametrize("culprits", [(0, 1), (0, 7), (3, 4), (1, 2, 6), (0, 2, 4, 6)])
def test_independent_culprits_are_all_found(culprits: tuple[int, ...], monkeypatch: Patch) -> None:
    case, names = Case(ladder(8)), {f"c{i}.w" for i in culprits}
    tried = corrupt(monkeypatch, *([name] for name in names))
    case.check(case.isolate(), names)
    assert len(tried) <= 2 + 2 * len(culprits) * math.log2(8)


@pytest.mark.parametrize("pair", [(0, 1), (2, 7), (5, 3)])
def test_of_a_pair_that_fails_only_together_the_one_that_removes_less_is_left_whole(
    pair: tuple[int, int], monkeypatch: Patch
) -> None:
    case = Case(ladder(8))
    corrupt(monkeypatch, [f"c{i}.w" for i in pair])
    case.check(case.isolate(), {f"c{min(pair)}.w"})


def test_a_pair_and_a_single_culprit_together(monkeypatch: Patch) -> None:
    case = Case(ladder(8))
    corrupt(monkeypatch, ["c1.w", "c6.w"], ["c4.w"])
    case.check(case.isolate(), {"c1.w", "c4.w"})


def test_trials_are_bounded_and_what_was_not_tried_stays_whole(monkeypatch: Patch) -> None:
    monkeypatch.setattr(isolate, "TRIALS", 8)
    case = Case(ladder(8))
    tried = corrupt(monkeypatch, ["c0.w"], ["c7.w"])
    found = case.isolate()
    assert len(tried) == 8 and {"c0.w", "c7.w"} <= set(found.isolated) and touched(case.dependencies, found.removed)
    assert isolate.UNTRIED in found.isolated.values()
    case.check(found, set(found.isolated))


# --- failures that are no group's ------------------------------------------------------------------------------------


def test_when_every_group_fails_the_failure_of_the_plan_is_raised(monkeypatch: Patch) -> None:
    case = Case(ladder(4))
    corrupt(monkeypatch, *([f"c{i}.w"] for i in range(4)))
    with pytest.raises(VerificationError, match=r"first at tensor 'c0'.*nothing was written"):
        case.isolate()


def test_what_fails_without_a_plan_is_not_bisected(monkeypatch: Patch) -> None:
    case, tried = Case(ladder(8)), corrupt(monkeypatch, ["c3.w"], [])
    monkeypatch.setattr(isolate, "rewrite", broken_always(tried))
    with pytest.raises(VerificationError, match="internal error, IndexError: always"):
        case.isolate()
    assert len(tried) == 2


def broken_always(tried: list[set[str]]) -> Callable[[Dependencies, Ids], Model]:
    def broken(dependencies: Dependencies, removed: Ids) -> Model:
        tried.append(touched(dependencies, removed))
        raise IndexError("always")

    return broken


def test_a_plan_that_cannot_be_carried_out_is_not_bisected(monkeypatch: Patch) -> None:
    case, tried = Case(ladder(4)), corrupt(monkeypatch)
    emptied = replace(case.plan.groups[1], removed=tuple(range(case.plan.groups[1].channels)))
    case.plan = replace(case.plan, groups=(case.plan.groups[0], emptied, *case.plan.groups[2:]))
    with pytest.raises(PlanError, match="would leave an axis empty"):
        case.isolate()
    assert not tried


def test_a_model_that_cannot_run_or_be_normalised_is_not_bisected(tmp_path: Path, monkeypatch: Patch) -> None:
    tried, model = corrupt(monkeypatch), stored(graphs.chain(), tmp_path)
    normalised = pipeline.run.normalise

    def wrong(model: Model) -> Model:
        other = normalised(model)
        return replace(other, weights={**other.weights, "c2.w": other.weights["c2.w"] * np.float32(1.01)})

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.run, "normalise", wrong)
        with pytest.raises(VerificationError, match="normalised model differs from the original"):
            prune_file(model, tmp_path / "small.onnx", options=QUICK)
    np.savez(tmp_path / "x.npz", x=np.full((2, 3, 8, 8), 3.4e38, np.float32))
    with pytest.raises(DataError, match="NaN or infinite"):
        prune_file(model, tmp_path / "small.onnx", options=replace(QUICK, data=tmp_path / "x.npz"))
    assert not tried


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_want_of_memory_and_interrupts_are_no_failures(error: type[BaseException], monkeypatch: Patch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(isolate, "verify", stopped)
    with pytest.raises(error):
        Case(ladder(2)).isolate()


# --- faults in rules -------------------------------------------------------------------------------------------------


def forget(kind: str) -> Callable[[Patch], None]:
    """An operator without the half of its rule that corrects stored sizes."""
    return lambda patch: patch.delitem(RESIZES, ("", kind))


def crash(kind: str, node: str) -> Callable[[Patch], None]:
    """A resize half that fails on one node."""
    return at(kind, node, lambda edit: {}["group"])


def at(kind: str, node: str, fault: Callable[[Edit], object]) -> Callable[[Patch], None]:
    """A resize half that does something else on one node."""

    def plant(patch: Patch) -> None:
        usual = RESIZES.get(("", kind), lambda edit: None)
        patch.setitem(RESIZES, ("", kind), lambda e: fault(e) if e.node.name == node else usual(e))

    return plant


def swap_slices(patch: Patch) -> None:
    """The first two kept filters of one weight in each other's place."""
    taken = rewriting.take

    def swapped(array: np.ndarray, axes: object, keep: object) -> np.ndarray:
        out = taken(array, axes, keep)
        hit = array.shape == (16, 16, 3, 3) and out.shape[0] < 16
        return np.concatenate([out[1::-1], out[2:]]) if hit else out

    patch.setattr(rewriting, "take", swapped)


FAULTS: dict[str, tuple[Callable[[], onnx.ModelProto], Callable[[Patch], None], set[str], str]] = {
    "slices in the wrong order": (graphs.chain, swap_slices, {"c2.w"}, "first at tensor 'c2'"),
    "no group attribute": (graphs.gated, forget("Conv"), {"expand.w"}, "onnxruntime cannot run the model"),
    "no size": (graphs.flattened, forget("Reshape"), {"c1.w"}, "onnxruntime|shape inference"),
    "an exception": (graphs.flattened, crash("Reshape", "flat"), {"c1.w"}, "internal error, KeyError: 'group'"),
    "an exception in a depthwise block": (graphs.gated, crash("Conv", "depth"), {"expand.w"}, "internal error"),
    "a tensor that nothing writes": (
        graphs.residual,
        at("Conv", "b1", lambda edit: edit.node.input.__setitem__(0, "nothing")),
        {"b1.w", "stem.w"},
        "fails onnx's checker",
    ),
    "an attribute that does not exist": (
        graphs.chain,
        at("LeakyRelu", "r3", lambda edit: edit.set_attr("slope", 2)),
        {"c3.w"},
        "checker|onnxruntime",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_a_rule_costs_only_the_groups_it_hurts(name: str, monkeypatch: Patch, tmp_path: Path) -> None:
    build, plant, culprits, pattern = FAULTS[name]
    plant(monkeypatch)
    model, small = stored(build(), tmp_path), tmp_path / "small.onnx"
    found = onnxprune(*prune(model, "--ratio", "0.5", "--json"))
    assert found.code == 0, found.err
    report = found.json
    check_report(report)
    check_removed(report, model, small)
    check_masked(report, model, small, {"x": np.random.default_rng(3).normal(size=(4, 3, 8, 8)).astype(np.float32)})
    assert {entry["group"] for entry in report["isolated"]} == culprits
    assert all(re.search(pattern, entry["reason"]) for entry in report["isolated"]), report["isolated"]
    kept = {g["name"] for g in report["groups"] if g["channels_after"] == g["channels_before"]}
    assert kept == culprits


def test_debugging_shows_the_exception_of_a_rule(monkeypatch: Patch) -> None:
    case = Case(graphs.flattened())
    crash("Reshape", "flat")(monkeypatch)
    monkeypatch.setenv("ONNXPRUNE_DEBUG", "1")
    with pytest.raises(KeyError, match="group"):
        case.isolate()
