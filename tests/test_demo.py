"""The demo. Law: it needs nothing but the bundled files, and every figure it shows was measured on them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune import cli, pipeline
from onnxprune.align import Step
from onnxprune.bench import Comparison, bench
from onnxprune.demo import CALIBRATION, HELD_OUT, MODEL, WRITTEN, run_demo
from onnxprune.errors import ModelError, OutputError
from tests import graphs
from tests.contract import check_masked, check_removed, check_report, infer, onnxprune, snapshot


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for as short as the rules allow, and do not measure the machine's width step."""
    monkeypatch.setattr(pipeline.inputs, "bench", partial(bench, budget_s=0.01))
    monkeypatch.setattr(pipeline.plans, "width_step", lambda **_: Step(4, (4, 8), (1.0, 2.0), "measured"))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like models/, with a small network whose own answers are the labels; timed as faster."""

    def faster(*args: Any, **options: Any) -> Comparison:
        return replace(bench(*args, **options, budget_s=0.01), speedup=2.0, ci95=(1.9, 2.1), control=1.0)

    monkeypatch.setattr(pipeline.inputs, "bench", faster)
    folder, proto = tmp_path / "models", graphs.residual()
    folder.mkdir()
    names = {"x": "input", "y": "logits"}
    for node in proto.graph.node:
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]
    for info in (*proto.graph.input, *proto.graph.output):
        info.name = names[info.name]
    onnx.save(proto, folder / MODEL)
    images = np.random.default_rng(1).normal(size=(60, 3, 8, 8)).astype(np.float32)
    labels = infer(proto, {"input": images})["logits"].argmax(axis=1)
    np.savez(folder / CALIBRATION, input=images[:16])
    np.savez(folder / HELD_OUT, input=images[16:], labels=labels[16:])
    return folder


def test_the_demo_prunes_verifies_times_and_measures_accuracy(stand_in: Path, tmp_path: Path) -> None:
    before, folder = snapshot(stand_in), tmp_path / "new" / "results"
    done = run_demo(stand_in, folder)
    report = done.report.to_dict()
    check_report(report, timed=True)
    check_removed(report, stand_in / MODEL, folder / MODEL)
    with np.load(stand_in / HELD_OUT) as held:
        found = infer(folder / MODEL, {"input": held["input"]})["logits"].argmax(axis=1)
        right = float((found == held["labels"]).mean())
    assert report["accuracy"] == {"before": 1.0, "after": pytest.approx(right)}
    assert snapshot(folder).keys() == set(WRITTEN) and snapshot(stand_in) == before
    assert json.loads((folder / "report.json").read_text()) == report
    assert "100" in (folder / "report.md").read_text(encoding="utf-8")


def test_the_demo_can_be_run_again_and_its_plan_replayed(stand_in: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    run_demo(stand_in, folder)
    first = (folder / MODEL).read_bytes()
    run_demo(stand_in, folder)
    assert (folder / MODEL).read_bytes() == first
    again = tmp_path / "again.onnx"
    more = ("--data", stand_in / CALIBRATION, "--no-bench")
    assert onnxprune("apply", stand_in / MODEL, folder / "plan.json", "-o", again, *more).code == 0
    assert again.read_bytes() == first


@pytest.mark.parametrize("name", [MODEL, CALIBRATION, HELD_OUT])
def test_a_missing_file_is_named(name: str, stand_in: Path, tmp_path: Path) -> None:
    (stand_in / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        run_demo(stand_in, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_results_do_not_replace_a_file_or_the_model_itself(stand_in: Path, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match="the folder cannot be made"):
        run_demo(stand_in, stand_in / MODEL)
    with pytest.raises(OutputError, match="the output is the input itself"):
        run_demo(stand_in, stand_in)
    assert snapshot(tmp_path) == before


def test_the_bundled_model_is_small_and_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = cli.model_folder()
    assert sum((bundled / name).stat().st_size for name in (MODEL, CALIBRATION, HELD_OUT)) < 3_000_000
    monkeypatch.chdir(tmp_path)
    before = snapshot(bundled)
    found = onnxprune("demo")
    assert found.code == 0 and not found.err
    for word in ("accuracy", "verified", "latency", *(f"onnxprune-demo/{name}" for name in WRITTEN)):
        assert word in found.out.replace("\n", "").replace("\\", "/") or word in found.words
    folder = tmp_path / "onnxprune-demo"
    report = json.loads((folder / "report.json").read_text())
    check_report(report, timed=True)
    check_removed(report, bundled / MODEL, folder / MODEL)
    cut = onnxprune("apply", bundled / MODEL, folder / "plan.json", "-o", folder / "cut.onnx", "--no-bench", "--json")
    with np.load(bundled / CALIBRATION) as data:
        check_masked(cut.json, bundled / MODEL, folder / "cut.onnx", {"input": data["input"][:8]})
    assert report["accuracy"]["after"] > report["accuracy"]["before"] - 0.005 and report["recovery"]["layers"]
    assert report["accuracy"]["before"] > 0.98 and report["after"]["macs"] < 0.75 * report["before"]["macs"]
    assert snapshot(bundled) == before


def test_the_bundled_model_exercises_the_mechanism() -> None:
    graph = onnx.load(cli.model_folder() / MODEL).graph
    kinds = {node.op_type for node in graph.node}
    assert {"Conv", "BatchNormalization", "Add", "Mul", "Gemm"} <= kinds
    groups = [a.i for node in graph.node if node.op_type == "Conv" for a in node.attribute if a.name == "group"]
    assert max(groups) > 1, "no depthwise convolution"
