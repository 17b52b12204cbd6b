"""Targets in time on the command line. Law: a plan is delivered only where its time was measured, or forced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onnxprune import pipeline
from onnxprune.errors import PlanError
from onnxprune.fit import Fitted
from onnxprune.normalise import normalise
from onnxprune.pipeline import plans
from onnxprune.trace import trace
from tests import graphs
from tests.contract import onnxprune, refused, stored
from tests.fit.test_search import wide
from tests.planted import Machine
from tests.test_isolate import corrupt


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model on disk, and a made-up machine to time it on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    machine = Machine().install(monkeypatch, trace(normalise(graphs.loaded(wide(4, 32)))))
    monkeypatch.setattr(pipeline.inputs, "bench", machine.bench)
    (tmp_path / "work").mkdir()
    return stored(wide(4, 32), tmp_path / "work")


def timed(model: Path, *options: object) -> list[object]:
    return ["prune", model, "-o", model.with_name("small.onnx"), "--align", 8, *options]


@pytest.mark.parametrize("options", [(), ("--no-bench",)])
def test_a_speedup_is_met_and_reported(model: Path, options: tuple[str, ...]) -> None:
    found = onnxprune(*timed(model, "--speedup", 2, "--json", *options))
    assert found.code == 0, found
    assert found.json["latency"]["speedup"] >= 2 * 0.97 and model.with_name("small.onnx").exists()


def test_a_latency_is_met(model: Path) -> None:
    dense = onnxprune(*timed(model, "--speedup", 1.5, "--json")).json["latency"]["before_ms"]
    found = onnxprune(*timed(model, "--latency-ms", dense / 2, "--json", "--overwrite"))
    assert found.code == 0 and found.json["latency"]["after_ms"] <= dense / 2 * 1.031  # 3% slower at most: 1 / 0.97


def test_out_of_reach_is_an_error_that_says_how_far_one_can_go(model: Path) -> None:
    pattern = r"1000.00x \(.* ms\) is out of reach: at most .*x \(.* ms\) was measured; .*--best-effort; nothing was"
    refused(timed(model, "--speedup", 1000), pattern, model.parent)
    found = onnxprune(*timed(model, "--speedup", 1000, "--best-effort", "--json"))
    assert found.code == 0 and found.json["latency"]["speedup"] > 2


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (("--speedup", 1), "--speedup 1.0 is not above 1"),
        (("--latency-ms", 0), "--latency-ms 0.0 is not a time"),
        (("--speedup", 2, "--latency-ms", 1), "contradict each other"),
        (("--speedup", 2, "--skip", "stranger"), "matches no prunable layer"),
        (("--speedup", 2, "--skip", "*"), "out of reach"),
        (("--speedup", 2, "--skip", "*", "--best-effort"), "the plan removes nothing"),
    ],
)
def test_impossible_targets_are_refused(model: Path, options: tuple[object, ...], pattern: str) -> None:
    refused(timed(model, *options), pattern, model.parent)


@pytest.mark.parametrize("options", [("--speedup", "fast"), ("--speedup", 2, "--batch", 0)])
def test_wrong_usage_is_code_2(model: Path, options: tuple[object, ...]) -> None:
    assert onnxprune(*timed(model, *options)).code == 2


@pytest.mark.parametrize("options", [(), ("--no-bench",)])
def test_the_others_meet_the_time_where_a_group_fails(
    model: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    corrupt(monkeypatch, ["c1.w"])
    found = onnxprune(*timed(model, "--speedup", 1.5, "--json", *options))
    assert found.code == 0 and [e["group"] for e in found.json["isolated"]] == ["c1.w"]
    assert found.json["latency"]["speedup"] >= 1.5 * 0.97
    assert found.json["fit"]["reached"] and found.json["fit"]["trials"]


def test_what_is_left_of_a_plan_is_timed_where_no_new_one_meets_the_time(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrupt(monkeypatch, ["c1.w"])
    meet, calls = plans.meet, iter([False, True])

    def once(*args: Any, **kwargs: Any) -> Fitted:
        if next(calls):
            raise PlanError("planted")
        return meet(*args, **kwargs)

    monkeypatch.setattr(plans, "meet", once)
    found = onnxprune(*timed(model, "--speedup", 1.5, "--json", "--no-bench"))
    assert found.code == 0 and [e["group"] for e in found.json["isolated"]] == ["c1.w"]
    assert found.json["fit"] is None and 1 < found.json["latency"]["speedup"] < 1.5 * 0.97


def test_a_profile_is_printed_and_written(model: Path) -> None:
    table = model.with_name("table.json")
    found = onnxprune("profile", model, "--align", 8, "-o", table)
    assert found.code == 0 and "width step 8" in found.words and "17 models measured" in found.words
    assert json.loads(table.read_text())["schema"] == "onnxprune/profile/1"
    again = onnxprune("profile", model, "--align", 8, "--json")
    assert again.json["groups"] == json.loads(table.read_text())["groups"]


def test_a_profile_never_overwrites_its_model(model: Path) -> None:
    refused(["profile", model, "-o", model], "would overwrite another file of this run", model.parent)
    refused(["profile", model, "--ep", "quantum", "--align", 8], "has no provider 'quantum'", model.parent)
