"""The gate. Law: what was timed and is not measurably faster is not written, unless forced; side files always are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnxprune import Options, Plan, Target, gate, pipeline
from onnxprune import prune as prune_file
from onnxprune.bench import Comparison
from onnxprune.errors import NoSpeedup
from onnxprune.gains import Gains, Pair, Side, judge
from onnxprune.runtime import Kernel
from tests import graphs
from tests.contract import check_removed, check_report, onnxprune, snapshot, stored


def comparison(speedup: float, low: float, high: float, control: float = 1.0) -> Comparison:
    spans = (2.0, 2.0 / speedup, 2.1, 2.1 / speedup)
    return Comparison(*spans, speedup, (low, high), control, (control, control), "CPUExecutionProvider", 1, 1, 30, 9)


FASTER, SAME, SLOWER = comparison(1.5, 1.4, 1.6), comparison(1.02, 0.98, 1.04), comparison(0.8, 0.7, 0.9)


def kernel(op: str, ms: float) -> Kernel:
    return Kernel("k", op, "r2", (ms,), ((1, 61, 8, 8),), ((1, 61, 8, 8),), "CPUExecutionProvider")


def gains(*_: object, **__: object) -> Gains:
    """A layer that left the fast layout."""
    before, after = kernel("com.microsoft.nchwc.Conv", 1.0), kernel("com.microsoft.FusedConv", 1.4)
    one, two = Side((before,), (), 64, 64, 1, 100.0), Side((after,), (), 61, 61, 1, 90.0)
    return judge([before], [after], [Pair("r2", "c2", one, two)], 8, 5)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return stored(graphs.residual(), tmp_path)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Comparison], None]:
    def plant(found: Comparison) -> None:
        monkeypatch.setattr(pipeline.inputs, "bench", lambda *_, **__: found)
        monkeypatch.setattr(gate, "explain", gains)

    return plant


def arguments(model: Path, *options: object) -> list[object]:
    plan, report = model.with_name("plan.json"), model.with_name("report.json")
    return [
        "prune",
        model,
        "-o",
        model.with_name("small.onnx"),
        "--align",
        "1",
        "--plan-out",
        plan,
        "--report",
        report,
        *options,
    ]


@pytest.mark.parametrize(
    ("found", "expected"),
    [(FASTER, True), (SAME, False), (SLOWER, False), (comparison(1.5, 1.4, 1.6, control=1.5), False)],
)
def test_only_an_interval_above_1_and_above_the_noise_is_faster(found: Comparison, expected: bool) -> None:
    assert (found.verdict == "faster") == expected


@pytest.mark.parametrize(("found", "word"), [(SAME, "not measurably faster"), (SLOWER, "slower")])
def test_what_is_not_faster_is_refused_and_the_side_files_say_why(
    found: Comparison, word: str, model: Path, timed: Callable[[Comparison], None]
) -> None:
    timed(found)
    result = onnxprune(*arguments(model))
    assert (result.code, result.out) == (1, "") and result.err.count("\n") == 1
    assert f"{word} ({found.speedup:.2f}x, 95% interval {found.ci95[0]:.2f} to {found.ci95[1]:.2f})" in result.err
    for part in ("'c2': com.microsoft.FusedConv in place of", "61 channels", "--align 8", "--force"):
        assert part in result.err
    assert snapshot(model.parent).keys() == {"model.onnx", "plan.json", "report.json"}
    report = json.loads(model.with_name("report.json").read_text())
    check_report(report, timed=True)
    assert report["output"] == "" and report["verdict"] == f"{word}; not written"
    assert report["gains"]["failed"] == ["r2"] and report["gains"]["layers"][0]["reasons"]
    assert any(group.removed for group in Plan.load(model.with_name("plan.json")).groups)


def test_a_refused_run_leaves_the_old_output(model: Path, timed: Callable[[Comparison], None]) -> None:
    timed(SAME)
    model.with_name("small.onnx").write_text("the old one")
    assert onnxprune(*arguments(model, "--overwrite")).code == 1
    assert model.with_name("small.onnx").read_text() == "the old one"


def test_force_writes_it_and_the_report_says_so(model: Path, timed: Callable[[Comparison], None]) -> None:
    timed(SAME)
    result = onnxprune(*arguments(model, "--force"))
    assert result.code == 0 and not result.err
    for part in ("not measurably faster; written because that was forced", "Layers that failed to gain", "--align 8"):
        assert part in result.words
    report = json.loads(model.with_name("report.json").read_text())
    check_removed(report, model, model.with_name("small.onnx"))
    assert report["output"] and report["verdict"].endswith("forced")


def test_what_is_faster_is_written_and_profiled_only_for_a_report(
    model: Path, timed: Callable[[Comparison], None]
) -> None:
    timed(FASTER)
    found = onnxprune("prune", model, "-o", model.with_name("small.onnx"), "--align", "1", "--json")
    assert found.code == 0 and found.json["verdict"] == "faster" and found.json["gains"] is None
    assert onnxprune(*arguments(model, "--overwrite")).code == 0
    assert json.loads(model.with_name("report.json").read_text())["gains"]["operators"]


def test_markdown_has_the_verdict_and_the_reasons(model: Path, timed: Callable[[Comparison], None]) -> None:
    timed(SLOWER)
    report = model.with_name("report.md")
    assert onnxprune("prune", model, "-o", model.with_name("s.onnx"), "--align", "1", "--report", report).code == 1
    text = report.read_text(encoding="utf-8")
    assert (
        "**Verdict:** slower; not written" in text and "| `c2` | 1.000 ms | 1.400 ms |" in text and "--align 8" in text
    )


def test_nothing_is_gated_that_is_not_timed(model: Path, timed: Callable[[Comparison], None]) -> None:
    timed(SLOWER)
    found = onnxprune(*arguments(model, "--no-bench", "--json"))
    assert found.code == 0 and found.json["verdict"] == "not timed" and model.with_name("small.onnx").exists()


def test_apply_is_gated_too(model: Path, timed: Callable[[Comparison], None]) -> None:
    timed(SAME)
    assert onnxprune(*arguments(model)).code == 1
    again = ["apply", model, model.with_name("plan.json"), "-o", model.with_name("again.onnx")]
    refused = onnxprune(*again)
    assert refused.code == 1 and "--force" in refused.err and not model.with_name("again.onnx").exists()
    assert onnxprune(*again, "--force").code == 0 and model.with_name("again.onnx").exists()


def test_the_api_raises_and_hands_over_what_was_found(model: Path, timed: Callable[[Comparison], None]) -> None:
    timed(SAME)
    seen: list[Any] = []
    with pytest.raises(NoSpeedup, match="not measurably faster"):
        prune_file(model, model.with_name("s.onnx"), Target(ratio=0.3), options=Options(align=1), receive=seen.append)
    assert len(seen) == 1 and seen[0].report.gains.failed and not model.with_name("s.onnx").exists()
