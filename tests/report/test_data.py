"""Laws of the JSON: other programs rely on it, so its keys are fixed, and from it the pruned weights can be rebuilt."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxprune.importance import score
from onnxprune.plan import Limits, Plan
from onnxprune.plan.levels import choosers_of, levels_of
from onnxprune.profile import removed_by
from onnxprune.report.data import Frozen, make_report
from onnxprune.rewrite import removal
from onnxprune.trace import Dependencies
from tests.graphs import ALL, residual, traced
from tests.report.runs import Run, equal, odd, oddities, run

KEYS = set(
    "schema onnxprune model output before after removed removed_per_group copies frozen verified latency accuracy "
    "settings groups environment isolated edges verdict gains fit importance_kept recovery data metric dead".split()
)
BUILDS = {**ALL, "oddities": oddities}


@pytest.fixture(params=BUILDS)
def done(request: pytest.FixtureRequest) -> Run:
    return run(BUILDS[request.param]())


def as_json(done: Run) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(done.report.to_dict()))
    return read


def test_json_round_trip(done: Run) -> None:
    assert as_json(done) == done.report.to_dict()


def test_the_keys_are_the_contract() -> None:
    read = as_json(odd())
    assert set(read) == KEYS and read["schema"] == "onnxprune/report/1"
    assert set(read["before"]) == set(read["after"]) == {"params", "macs", "bytes"}
    assert set(read["verified"]) == {"ok", "kind", "max_abs", "max_rel"}
    assert {"before_ms", "after_ms", "speedup", "ci95", "control"} <= set(read["latency"])
    assert {"provider", "threads", "batch", "significant", "verdict", "before_p90_ms"} <= set(read["latency"])
    assert all(set(entry) == {"tensor", "axis", "node", "reason"} for entry in read["frozen"])
    assert read["environment"]["cpu"] == "A processor" and "environment" not in read["latency"]


def test_latency_is_null_when_it_was_not_measured() -> None:
    assert as_json(run(oddities()))["latency"] is None


def rebuild(name: str, dense: NDArray[Any], report: dict[str, Any]) -> NDArray[Any]:
    """A pruned weight from the dense one and the report alone."""
    for axis, gone in report["removed"].get(name, {}).items():
        dense = np.delete(dense, gone, axis=int(axis))
    for axis, lists in report["removed_per_group"].get(name, {}).items():
        blocks = np.split(dense, len(lists), axis=0)
        dense = np.concatenate([np.delete(b, gone, axis=int(axis)) for b, gone in zip(blocks, lists, strict=True)])
    return dense


def test_removed_is_complete_and_true(done: Run) -> None:
    read = as_json(done)
    assert read["removed"]
    for name, dense in done.dependencies.model.weights.items():
        rebuilt = rebuild(name, dense, read)
        if name in done.pruned.weights:
            assert np.array_equal(rebuilt, done.pruned.weights[name]), name
        named = name in read["removed"] or name in read["removed_per_group"]
        assert named == (rebuilt.shape != dense.shape), name


def test_sizes_add_up(done: Run) -> None:
    read, model = as_json(done), done.dependencies.model
    assert read["before"]["params"] == model.params and read["after"]["params"] == done.pruned.params
    rebuilt = [rebuild(name, dense, read) for name, dense in model.weights.items()]
    assert read["after"]["bytes"] == sum(w.nbytes for w in rebuilt)


def test_removed_uses_the_names_of_the_file() -> None:
    proto = oddities()
    read = as_json(run(proto))
    known = {t.name for t in proto.graph.initializer}
    known |= {n.output[0] for n in proto.graph.node if n.op_type == "Constant"}
    assert set(read["removed"]) | set(read["removed_per_group"]) <= known
    assert "held" in read["removed"]


def test_groups_of_a_convolution_that_lost_different_inputs_stand_apart() -> None:
    read = as_json(run(oddities(), ratio=0.25))
    assert read["removed_per_group"] == {"groups.w": {"1": [[0], [1]]}}
    assert "1" not in read["removed"].get("groups.w", {})


def test_every_filter_axis_is_in_a_group_or_frozen(done: Run) -> None:
    frozen = [(f.tensor, f.axis) for f in done.report.frozen]
    assert len(frozen) == len(set(frozen))
    whole = {f"{f.tensor}:{f.axis}" for f in done.report.frozen if f.whole}
    grouped = {source for g in done.report.groups for source in g.sources}
    assert whole | grouped == {f"{s.tensor}:{s.axis}" for s in done.dependencies.sources} and not whole & grouped


def test_frozen_says_where_why_and_how_much() -> None:
    found = {f["tensor"]: f for f in as_json(odd())["frozen"]}
    assert found["held"]["reason"].startswith("2 of 6 channels: ") and found["held"]["node"] == "part"
    assert found["normed.w"]["node"] == "norm" and "LayerNormalization" in found["normed.w"]["reason"]
    assert found["fc.w"]["node"] == "y" and found["fc.w"]["reason"] == "the model's output"


def test_a_reason_for_all_indices_is_told_without_a_count() -> None:
    assert Frozen("w", 0, "n", "why", 4, 4).text == "why"
    assert Frozen("w", 0, "n", "why", 3, 4).text == "3 of 4 channels: why"


def test_groups_tell_channels_and_work(done: Run) -> None:
    for entry, group in zip(done.report.groups, done.plan.groups, strict=True):
        assert (entry.name, entry.sources) == (group.name, group.sources)
        assert entry.channels_after == entry.channels_before - len(group.removed)
        assert 0 < entry.macs_after <= entry.macs_before


def test_work_of_all_groups_is_the_model_less_what_is_held(done: Run) -> None:
    held = {f.tensor for f in done.report.frozen if f.whole}
    nodes = {s.node for s in done.dependencies.sources if s.tensor in held}
    rest = sum(macs_of(done.dependencies, node) for node in nodes)
    assert sum(g.macs_before for g in done.report.groups) + rest == done.report.before.macs


def macs_of(dependencies: Dependencies, node: str) -> int:
    return round(sum(p.factor * np.prod([i.size for i in p.axes]) for p in dependencies.products if p.node == node))


def test_the_importance_kept_is_that_of_the_fit() -> None:
    """The same figure from the report's groups as from the search that chose the widths."""
    dependencies = traced(residual())
    scores = score(dependencies)
    levels = levels_of(choosers_of(dependencies, scores, Limits(), finer=False))
    chosen = [len(options) // 2 for options in levels]
    removed = removed_by(dependencies, levels, chosen)
    shares = [options[c].kept for options, c in zip(levels, chosen, strict=True)]
    layers = [len(g.sources) for g in dependencies.groups]
    wanted = float(np.exp(np.average(np.log(shares), weights=layers)))
    made = make_report(dependencies, Plan("", {}, ()), removed, removal(dependencies, removed), equal(), scores=scores)
    assert made.kept == pytest.approx(wanted, rel=1e-6)
    assert replace(made, groups=tuple(replace(g, importance=None) for g in made.groups)).kept is None
