"""Runs in which some groups fail. Law: the target is met by the others if they can, and every report names what failed.

The faults are those of test_isolate.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnxprune import Limits, Plan, Target, apply, isolate, pipeline
from onnxprune import prune as prune_file
from onnxprune.labels import Ids
from onnxprune.model import Model
from onnxprune.rewrite import rewrite
from onnxprune.trace import Dependencies
from onnxprune.verify import verify
from tests import graphs
from tests.contract import check_report, onnxprune, prune, refused, snapshot, stored
from tests.test_isolate import QUICK, Patch, corrupt, ladder

# --- the target ------------------------------------------------------------------------------------------------------


def shrunk(done: pipeline.Pruned) -> float:
    """Share of the multiply-accumulates that is left."""
    return done.report.after.macs / done.report.before.macs


def test_the_other_groups_meet_the_target_where_they_can(tmp_path: Path, monkeypatch: Patch) -> None:
    model = stored(ladder(6), tmp_path)
    right = prune_file(model, tmp_path / "right.onnx", Target(macs=0.5), options=QUICK)
    corrupt(monkeypatch, ["c4.w"])
    done = prune_file(model, tmp_path / "small.onnx", Target(macs=0.5), Limits(skip=("c0.w",)), QUICK)
    assert set(done.report.isolated) == {"c4.w"} and shrunk(done) <= 0.5
    assert done.plan.settings == {**right.plan.settings, "skip": ("c0.w",)}  # nothing but what was asked for
    notes = {g.name: g.note for g in done.plan.groups}
    assert notes["c4.w"] == done.report.isolated["c4.w"] and notes["c0.w"] == "kept whole as asked"


def test_a_target_out_of_reach_without_them_is_missed_and_the_rest_delivered(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    model, limits = stored(ladder(6), tmp_path), Limits(max_ratio=0.6)
    right = prune_file(model, tmp_path / "right.onnx", Target(macs=0.2), limits, QUICK)
    corrupt(monkeypatch, ["c5.w"])
    done = prune_file(model, tmp_path / "small.onnx", Target(macs=0.2), limits, QUICK)
    assert set(done.report.isolated) == {"c5.w"} and shrunk(done) > 0.2
    assert [g.removed for g in done.plan.groups[:5]] == [g.removed for g in right.plan.groups[:5]]


def test_a_new_plan_that_fails_too_gives_way_to_what_was_verified(tmp_path: Path, monkeypatch: Patch) -> None:
    model = stored(ladder(6), tmp_path)
    right = prune_file(model, tmp_path / "right.onnx", Target(macs=0.5), options=QUICK)
    planned = sum(len(g.removed) for g in right.plan.groups if g.name == "c1.w")

    def wrong(dependencies: Dependencies, removed: Ids) -> Model:
        units = {g.name: g.units for g in dependencies.groups}
        if np.isin(units["c4.w"], removed).any() or np.isin(units["c1.w"], removed).sum() > planned:
            raise ValueError("planted")
        return rewrite(dependencies, removed)

    monkeypatch.setattr(isolate, "rewrite", wrong)
    done = prune_file(model, tmp_path / "small.onnx", Target(macs=0.5), options=QUICK)
    assert set(done.report.isolated) == {"c4.w"} and shrunk(done) > 0.5
    assert {g.name: g.removed for g in done.plan.groups} == {g.name: g.removed for g in right.plan.groups} | {
        "c4.w": ()
    }


# --- what the user sees ----------------------------------------------------------------------------------------------


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: Patch) -> Path:
    """A model on disk in which `b1.w` cannot be pruned, for a fault of the rewriter."""
    corrupt(monkeypatch, ["b1.w"])
    return stored(graphs.residual(), tmp_path)


def test_every_report_names_what_was_left_whole(faulty: Path) -> None:
    reports = [faulty.with_name(name) for name in ("report.json", "report.md")]
    for report in reports:
        found = onnxprune(*prune(faulty, "--report", report, "--overwrite"))
        assert found.code == 0
        assert "1 group failed verification and stayed whole: 'b1.w'" in found.words and "note 1: failed" in found.words
        assert found.err == "onnxprune: warning: 1 group failed verification and stayed whole: 'b1.w'\n"
    assert "**Left whole:** `b1.w`: failed verification: the pruned model differs" in reports[1].read_text("utf-8")
    held = json.loads(reports[0].read_text())
    check_report(held)
    assert [entry["group"] for entry in held["isolated"]] == ["b1.w"]
    reason = held["isolated"][0]["reason"]
    assert {"tensor": "b1.w", "axis": 0, "node": "b1", "reason": reason} in held["frozen"]
    assert [g["note"] for g in held["groups"] if g["name"] == "b1.w"] == [reason]


def test_without_faults_nothing_is_isolated(tmp_path: Path) -> None:
    found = onnxprune(*prune(stored(graphs.residual(), tmp_path), "--json", "--strict"))
    assert (found.code, found.err, found.json["isolated"]) == (0, "", [])


def test_json_stays_alone_on_standard_output(faulty: Path) -> None:
    found = onnxprune(*prune(faulty, "--json"))
    assert found.code == 0 and found.json["isolated"] and found.err.count("\n") == 1


def test_strict_writes_nothing_and_names_the_groups(faulty: Path, monkeypatch: Patch) -> None:
    files = "--plan-out", faulty.with_name("p.json"), "--report", faulty.with_name("r.json")
    pattern = (
        "not all groups can be pruned: 'b1.w' .failed verification: .*'b1'.*; nothing was written; without --strict"
    )
    refused(prune(faulty, *files, "--strict"), pattern, faulty.parent)
    with monkeypatch.context() as patch:
        patch.setattr(isolate, "rewrite", rewrite)
        assert onnxprune(*prune(faulty, "--plan-out", faulty.with_name("p.json"))).code == 0
    again = ["apply", faulty, faulty.with_name("p.json"), "-o", faulty.with_name("again.onnx"), "--no-bench"]
    refused([*again, "--strict"], pattern, faulty.parent)
    found = onnxprune(*again, "--json")
    assert found.code == 0 and [entry["group"] for entry in found.json["isolated"]] == ["b1.w"]


def test_a_plan_carries_the_reason_and_does_not_bring_the_group_back(faulty: Path, monkeypatch: Patch) -> None:
    file, small = faulty.with_name("p.json"), faulty.with_name("small.onnx")
    first = onnxprune(*prune(faulty, "--plan-out", file, "--json"))
    entry = next(g for g in Plan.load(file).groups if g.name == "b1.w")
    assert entry.removed == () and entry.note == first.json["isolated"][0]["reason"]
    monkeypatch.setattr(isolate, "rewrite", rewrite)  # the fault is gone
    again = faulty.with_name("again.onnx")
    done = apply(faulty, Plan.load(file), again, QUICK)
    assert not done.report.isolated and again.read_bytes() == small.read_bytes()


def test_progress_counts_the_trials(faulty: Path) -> None:
    seen: list[str] = []
    output = faulty.with_name("small.onnx")
    prune_file(faulty, output, Target(ratio=0.3), options=QUICK, observe=lambda stage, _: seen.append(stage))
    assert seen[4:8] == ["rewrite", "verify", "rewrite (trial 1)", "verify (trial 1)"] and seen[-1] == "save"


def test_an_interrupt_while_groups_are_tried_leaves_nothing(faulty: Path, monkeypatch: Patch) -> None:
    before, calls = snapshot(faulty.parent), iter(range(9))

    def interrupted(*args: object, **options: object) -> object:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return verify(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(isolate, "verify", interrupted)
    found = onnxprune(*prune(faulty, "--plan-out", faulty.with_name("p.json")))
    assert found.code == 130 and "interrupted" in found.err and snapshot(faulty.parent) == before
