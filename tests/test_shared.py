"""Real models as people published them. Law: each is pruned and verified, or one line says what stands in the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.runtime import random_feeds, run, session
from tests.conftest import find_shared
from tests.contract import check_masked, check_removed, check_report, onnxprune, prune, snapshot

pytestmark = pytest.mark.shared

SHARED = find_shared()
PATHS = [p for kind in ("cifar10", "wild") for p in sorted(SHARED.glob(f"{kind}/*.onnx"))] if SHARED else []
FILES = {f"{path.parent.name}/{path.name}": path for path in PATHS}
CIFAR = [name for name in FILES if name.startswith("cifar10/")]

# Nothing here can be pruned: file -> what the message must name.
NOTHING = {
    "wild/dtln__model_1.onnx": "the model's input",
    "wild/silero__silero_vad.onnx": "If",
    "wild/qonnx__espcn_nn_resize_quant_model.onnx": "onnx.brevitas.Quant",
}
TOP1 = {"resnet20": 0.9170, "resnet56": 0.9334}


@pytest.mark.parametrize("name", FILES)
def test_is_pruned_and_verified_or_says_why_not(name: str, tmp_path: Path) -> None:
    model, small = FILES[name], tmp_path / "small.onnx"
    found = onnxprune(*prune(model, "--ratio", "0.3", "--json", out=small))
    if name in NOTHING:
        assert (found.code, found.out) == (1, "") and found.err.count("\n") == 1 and not snapshot(tmp_path)
        assert found.err.startswith("onnxprune: nothing can be pruned: ") and NOTHING[name] in found.err
        return
    assert found.code == 0, found.err
    check_report(found.json)
    check_removed(found.json, model, small)
    assert found.json["verified"]["kind"] == "exact"
    assert found.json["after"]["params"] < found.json["before"]["params"]
    onnx.checker.check_model(onnx.load(small))
    outputs = run(session(small), random_feeds(model, batch=1, seed=1))
    assert [o.name for o in onnx.load(model).graph.output] == list(outputs)


def pixels(folder: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10 test images as the networks take them, and their labels."""
    with np.load(folder / "cifar10" / "cifar10_test.npz") as data:
        x, labels = data["x"][:count], data["y"][:count]
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    scaled = ((x / 255 - mean) / deviation).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(scaled, dtype=np.float32), labels


@pytest.mark.parametrize("name", CIFAR)
def test_masking_what_the_report_lists_gives_the_pruned_model(name: str, shared: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    found = onnxprune(*prune(FILES[name], "--ratio", "0.3", "--json", out=small))
    check_masked(found.json, FILES[name], small, {"input": pixels(shared, 8)[0]})


@pytest.mark.parametrize("name", CIFAR)
def test_a_plan_is_replayed_to_the_byte(name: str, tmp_path: Path) -> None:
    small, again, plan = (tmp_path / n for n in ("small.onnx", "again.onnx", "plan.json"))
    assert onnxprune(*prune(FILES[name], "--macs", "0.5", "--plan-out", plan, out=small)).code == 0
    assert onnxprune("apply", FILES[name], plan, "-o", again, "--no-bench").code == 0
    assert small.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("family", TOP1)
def test_every_export_style_gives_the_same_logits(family: str, shared: Path) -> None:
    images, _ = pixels(shared, 32)
    logits = [run(session(FILES[n]), {"input": images})["logits"] for n in CIFAR if family in n]
    for other in logits[1:]:
        np.testing.assert_allclose(other, logits[0], rtol=0, atol=1e-4 * np.abs(logits[0]).max())


@pytest.mark.parametrize("family", TOP1)
def test_top_1_of_the_unpruned_networks(family: str, shared: Path) -> None:
    images, labels = pixels(shared, 10_000)
    opened = session(FILES[f"cifar10/{family}_legacy_bnfold.onnx"], threads=2)
    parts = [run(opened, {"input": images[i : i + 250]})["logits"].argmax(axis=1) for i in range(0, 10_000, 250)]
    assert (np.concatenate(parts) == labels).mean() == pytest.approx(TOP1[family], abs=2e-4)
