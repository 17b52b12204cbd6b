"""Runs with samples: filters are ranked on them, weights refitted to them, and the report says how near that came."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune import runtime
from onnxprune.importance import CRITERIA
from tests import graphs
from tests.contract import onnxprune


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    model, data = tmp_path / "m.onnx", tmp_path / "x.npz"
    onnx.save(graphs.residual(), model)
    np.savez(data, x=np.random.default_rng(0).normal(size=(96, 3, 8, 8)).astype(np.float32))
    return model, data, tmp_path / "small.onnx"


def prune(files: tuple[Path, Path, Path], *more: str) -> list[str]:
    model, data, small = files
    return ["prune", str(model), "-o", str(small), "--no-bench", "--align", "1", "--data", str(data), "--json", *more]


def off(files: tuple[Path, Path, Path]) -> float:
    """Relative error on inputs that no fit has seen."""
    model, _, small = files
    x = {"x": np.random.default_rng(9).normal(size=(64, 3, 8, 8)).astype(np.float32)}
    wanted, found = (runtime.run(str(path), x)["y"] for path in (model, small))
    return float(np.linalg.norm(wanted - found) / np.linalg.norm(wanted))


def test_with_samples_filters_are_ranked_and_weights_refitted_by_default(files: tuple[Path, Path, Path]) -> None:
    found = onnxprune(*prune(files, "--macs", "0.5"))
    assert found.code == 0, found.err
    recovery = found.json["recovery"]
    assert found.json["settings"]["criterion"] == "reconstruction" and found.json["verified"]["ok"]
    assert recovery["samples"] == 96 and 0 < recovery["held_out"] < 96
    assert all(layer["after"] <= layer["before"] for layer in recovery["layers"])
    sides = recovery["fidelity"]
    assert sides["after"]["relative_l2"] < sides["before"]["relative_l2"]
    refitted = off(files)
    plain = onnxprune(*prune(files, "--macs", "0.5", "--criterion", "l1", "--no-recover", "--overwrite"))
    assert plain.json["recovery"] is None and refitted < off(files)


def test_few_samples_serve_verification_alone(files: tuple[Path, Path, Path]) -> None:
    np.savez(files[1], x=np.zeros((4, 3, 8, 8), np.float32) + 0.5)
    found = onnxprune(*prune(files, "--ratio", "0.3"))
    assert found.code == 0 and found.json["recovery"] is None and found.json["settings"]["criterion"] == "l1"
    assert "warning: 4 samples are too few" in found.err and "served verification alone" in found.err
    told = onnxprune(*prune(files, "--ratio", "0.3", "--no-recover", "--overwrite"))
    assert told.code == 0 and not told.err
    refused = onnxprune(*prune(files, "--ratio", "0.3", "--recover", "--overwrite"))
    assert refused.code == 1 and "too few" in refused.err


@pytest.mark.parametrize("criterion", [name for name, entry in CRITERIA.items() if entry.needs == "samples"])
def test_every_criterion_of_samples_makes_a_plan(files: tuple[Path, Path, Path], criterion: str) -> None:
    found = onnxprune(*prune(files, "--macs", "0.5", "--criterion", criterion, "--no-recover"))
    assert found.code == 0, found.err
    assert found.json["settings"]["criterion"] == criterion and found.json["verified"]["ok"]


@pytest.mark.parametrize("criterion", [name for name, entry in CRITERIA.items() if entry.needs == "gradients"])
def test_every_criterion_of_gradients_makes_a_plan_without_samples(
    files: tuple[Path, Path, Path], criterion: str
) -> None:
    model, _, small = files
    rng, gradients = np.random.default_rng(1), model.with_name("g.npz")
    tensors = onnx.load(model).graph.initializer
    np.savez(gradients, **{t.name: rng.normal(size=(4, *t.dims)).astype(np.float32) for t in tensors})
    asked = ["prune", str(model), "-o", str(small), "--no-bench", "--align", "1", "--json", "--macs", "0.5"]
    found = onnxprune(*asked, "--criterion", criterion, "--gradients", str(gradients))
    assert found.code == 0, found.err
    assert found.json["settings"]["criterion"] == criterion and found.json["verified"]["ok"]
    refused = onnxprune(*asked, "--gradients", str(gradients), "--overwrite")
    assert refused.code == 1 and "'auto' does not look at gradients; " in refused.err


@pytest.mark.parametrize("option", [("--recovery", "ridge"), ("--criterion", "reconstruction")])
def test_what_needs_samples_says_so(files: tuple[Path, Path, Path], option: tuple[str, ...]) -> None:
    model, _, small = files
    found = onnxprune("prune", model, "-o", small, "--no-bench", *option)
    assert found.code == 1 and "--data" in found.err and not small.exists()


def test_a_plan_is_applied_with_the_same_recovery(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    plan = tmp_path / "p.json"
    onnxprune(*prune(files, "--macs", "0.5", "--plan-out", str(plan)))
    again = tmp_path / "again.onnx"
    found = onnxprune("apply", files[0], plan, "-o", again, "--data", files[1], "--no-bench", "--json")
    assert found.code == 0 and json.loads(found.out)["recovery"]["samples"] == 96
    assert again.read_bytes() == files[2].read_bytes()


def test_the_number_of_samples_is_a_limit(files: tuple[Path, Path, Path]) -> None:
    found = onnxprune(*prune(files, "--ratio", "0.5", "--samples", "64"))
    assert found.code == 0 and found.json["recovery"]["samples"] == 64


def test_without_samples_filters_are_merged_when_that_is_asked_for(files: tuple[Path, Path, Path]) -> None:
    model, _, small = files
    found = onnxprune("prune", model, "-o", small, "--no-bench", "--align", "1", "--recover", "--json")
    assert found.code == 0, found.err
    recovery = found.json["recovery"]
    assert recovery["method"] == "merge" and recovery["samples"] == 0
    assert any(layer["method"] == "merge" for layer in recovery["layers"])
    told = onnxprune("prune", model, "-o", small, "--no-bench", "--align", "1", "--recover", "--overwrite")
    assert "similar filters" in told.out
    plain = onnxprune("prune", model, "-o", small, "--no-bench", "--align", "1", "--overwrite", "--json")
    assert plain.json["recovery"] is None


@pytest.mark.parametrize("method", ["ridge", "statistics", "bias", "merge"])
def test_every_method_can_be_asked_for(files: tuple[Path, Path, Path], method: str) -> None:
    found = onnxprune(*prune(files, "--macs", "0.5", "--recovery", method))
    assert found.code == 0, found.err
    recovery = found.json["recovery"]
    assert recovery["method"] == method and {layer["method"] for layer in recovery["layers"]} & {method, "statistics"}
    sides = recovery["fidelity"]
    assert recovery["note"] or sides["after"]["relative_l2"] <= sides["before"]["relative_l2"]


def test_an_unknown_method_and_memory_that_is_no_number_are_refused(files: tuple[Path, Path, Path]) -> None:
    unknown = onnxprune(*prune(files, "--recovery", "rigde"))
    assert unknown.code == 1 and "did you mean 'ridge'" in unknown.err and not files[2].exists()
    assert onnxprune(*prune(files, "--memory", "nan")).code == 2


def test_memory_is_a_limit_not_another_result(files: tuple[Path, Path, Path]) -> None:
    onnxprune(*prune(files, "--macs", "0.5"))
    plenty = files[2].read_bytes()
    found = onnxprune(*prune(files, "--macs", "0.5", "--memory", "0.0005", "--overwrite"))
    assert found.code == 0 and len(plenty) == len(files[2].read_bytes())
