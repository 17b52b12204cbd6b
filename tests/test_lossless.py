"""`prune --dead`. Law: what is written gives the original's outputs, and where nothing is dead nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune import align, gate, pipeline
from onnxprune.bench import Comparison
from onnxprune.dead import find
from onnxprune.pipeline import plans
from tests import graphs
from tests.contract import check_removed, check_report, infer, onnxprune, prune, refused, snapshot, stored
from tests.dead.plants import PLANTED
from tests.test_gate import FASTER, SAME, SLOWER, gains

ROUNDING = 1e-5  # of sums of a few hundred float32 terms of size about 1, taken in another order
PLAIN = [name for name, plant in PLANTED.items() if plant().dead and "constant" not in plant().dead.values()]
FOLDED = [name for name, plant in PLANTED.items() if "constant" in plant().dead.values()]


def outputs(model: Path, seed: int = 0) -> np.ndarray:
    """The outputs on random inputs, from onnxruntime itself."""
    shape = [d.dim_value or 3 for d in onnx.load(model).graph.input[0].type.tensor_type.shape.dim]
    found = infer(model, {"x": np.random.default_rng(seed).normal(size=shape).astype(np.float32)})  # type: ignore[arg-type]
    return found["y"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return stored(PLANTED["unread"]().proto, tmp_path)


@pytest.mark.parametrize("name", [*PLAIN, *FOLDED])
def test_alone_it_changes_no_output_and_says_why(name: str, tmp_path: Path) -> None:
    planted = PLANTED[name]()
    model, small = stored(planted.proto, tmp_path), tmp_path / "small.onnx"
    found = onnxprune(*prune(model, "--dead", "--json"))
    assert found.code == 0, found.err
    report, told = found.json, found.json["dead"]
    check_report(report)
    if name in PLAIN:
        check_removed(report, model, small)
    names = {t.name for t in planted.proto.graph.initializer}
    assert set(report["removed"]) <= names and report["recovery"] is None
    assert told["lossless"]["ok"] and told["lossless"]["max_rel"] < ROUNDING
    causes = [cause for group in told["groups"] for cause, n in group["causes"].items() for _ in range(n)]
    assert set(causes) == set(planted.dead.values()) and len(causes) == told["dead"] >= told["removed"] > 0
    assert report["settings"]["dead"] is True and "ratio" not in report["settings"]
    for seed in range(3):
        wanted = outputs(model, seed)
        assert np.abs(outputs(small, seed) - wanted).max() <= ROUNDING * (1 + np.abs(wanted).max())


@pytest.mark.parametrize("name", [name for name in FOLDED if name != "fused"])  # that came later
def test_constants_are_moved_in_files_of_every_age(name: str, tmp_path: Path) -> None:
    proto = PLANTED[name]().proto
    proto.ir_version, proto.opset_import[0].version = 3, 8
    for t in proto.graph.initializer:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    model = stored(proto, tmp_path)
    found = onnxprune(*prune(model, "--dead"))
    assert found.code == 0, found.err
    assert np.allclose(outputs(model), outputs(tmp_path / "small.onnx"), atol=ROUNDING)


def test_terminal_and_markdown_say_that_it_is_lossless(model: Path) -> None:
    note = model.with_name("r.md")
    found = onnxprune(*prune(model, "--dead", "--report", note))
    assert "3 of 3 removed (3 unread)" in found.words and "same outputs as the original" in found.words
    assert "dead: 2 unread" in found.words
    assert "**Lossless:** same outputs as the original" in note.read_text()


def test_nothing_dead_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    model = stored(graphs.residual(), tmp_path)
    refused(prune(model, "--dead"), "no unit is dead.*give a target", tmp_path)
    model = stored(PLANTED["sigmoids"]().proto, tmp_path)
    refused(prune(model, "--dead"), "1 are constant, but no bias can take them over", tmp_path)


def test_dead_units_that_all_have_to_stay_are_an_error(tmp_path: Path) -> None:
    model = stored(PLANTED["zero_filters"]().proto, tmp_path)
    refused(prune(model, "--dead", "--align", "4"), "removes nothing.*2 of 2 stay", tmp_path)


def test_recovery_has_nothing_to_do(model: Path, tmp_path: Path) -> None:
    refused(prune(model, "--dead", "--recover"), "nothing to recover", tmp_path)


def test_samples_serve_verification_alone(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(96, 3, 8, 8)).astype(np.float32))
    found = onnxprune(*prune(model, "--dead", "--data", tmp_path / "x.npz", "--json"))
    assert found.code == 0 and found.json["recovery"] is None and found.json["dead"]["lossless"]["batches"] > 0


def test_weights_that_are_no_numbers_are_refused(model: Path, tmp_path: Path) -> None:
    proto = onnx.load(model)
    weight = next(t for t in proto.graph.initializer if t.name == "c3.w")
    array = onnx.numpy_helper.to_array(weight).copy()
    array[0, 0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    refused(prune(stored(proto, tmp_path), "--dead"), "NaN weights", tmp_path)


@pytest.mark.parametrize("target", [("--ratio", "0.4"), ("--macs", "0.5"), ("--ratio", "0.4", "--allocate", "global")])
def test_with_a_target_the_dead_go_first_and_count(target: tuple[str, ...], model: Path) -> None:
    without = onnxprune(*prune(model, *target, "--json", "--overwrite")).json
    found = onnxprune(*prune(model, *target, "--dead", "--json", "--overwrite")).json
    gone = {name: set(axes.get("0", [])) for name, axes in found["removed"].items()}
    assert {3, 4} <= gone["c1.w"] and 5 in gone["c2.w"]
    assert found["dead"]["removed"] == found["dead"]["dead"] == 3 and found["dead"]["lossless"] is None
    if "--macs" in target:
        assert found["after"]["macs"] <= 0.5 * found["before"]["macs"]
    elif "global" not in target:
        assert [g["channels_after"] for g in found["groups"]] == [g["channels_after"] for g in without["groups"]]
    assert found["importance_kept"] >= without["importance_kept"]


def test_a_small_target_takes_all_the_dead_all_the_same(model: Path) -> None:
    found = onnxprune(*prune(model, "--ratio", "0.01", "--dead", "--json"))
    assert found.code == 0 and found.json["dead"]["removed"] == 3


@pytest.mark.parametrize("name", ["unread", "multiplied", "constant_without_bias"])
def test_its_plan_replays(name: str, tmp_path: Path) -> None:
    model, plan = stored(PLANTED[name]().proto, tmp_path), tmp_path / "plan.json"
    first = onnxprune(*prune(model, "--dead", "--plan-out", plan))
    again = tmp_path / "again.onnx"
    second = onnxprune("apply", model, plan, "-o", again, "--no-bench", "--json")
    assert first.code == second.code == 0, second.err
    assert second.json["dead"]["lossless"]["ok"]
    assert again.read_bytes() == (tmp_path / "small.onnx").read_bytes()


def test_a_plan_that_was_edited_to_remove_more_is_not_called_lossless(model: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    onnxprune(*prune(model, "--dead", "--plan-out", plan))
    edited = json.loads(plan.read_text())
    edited["groups"][0]["removed"].append(0)
    plan.write_text(json.dumps(edited))
    found = onnxprune("apply", model, plan, "-o", tmp_path / "again.onnx", "--no-bench", "--json")
    assert found.code == 0 and found.json["dead"]["lossless"] is None


def test_units_wrongly_called_dead_are_caught(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = find.alive

    def wrong(*arguments: object, **more: object) -> np.ndarray:
        state = right(*arguments, **more)  # type: ignore[arg-type]
        state[0] = False
        return state

    monkeypatch.setattr(find, "alive", wrong)
    refused(prune(model, "--dead"), "without its dead units differs from the original", tmp_path)


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Comparison]], None]:
    """Let timings come out as listed, on a machine with steps of 4."""

    def plant(found: list[Comparison]) -> None:
        left: Iterator[Comparison] = iter(found)
        monkeypatch.setattr(pipeline.inputs, "bench", lambda *_, **__: next(left))
        monkeypatch.setattr(gate, "explain", gains)
        monkeypatch.setattr(plans, "width_step", lambda **_: align.Step(4, (), (), "cache"))

    return plant


def sparse(folder: Path) -> Path:
    """Five of eight filters dead: all of them leave 3, at a step of 4 one stays."""
    net = graphs.Net(3)
    h = net.op("Relu", [net.conv("x", "c1", 8, 3, 3)], "r1")
    h = net.op("Relu", [net.conv(h, "c2", 8, 8, 3)], "r2")
    net.head(h, 8)
    net.weights["c1.w"][:5], net.weights["c1.b"][:5] = 0, 0
    return stored(net.model(["N", 3, 8, 8], ["N", 5]), folder)


def timed(model: Path, *options: object) -> list[object]:
    return ["prune", model, "-o", model.with_name("small.onnx"), "--dead", "--json", *options]


@pytest.mark.parametrize(("found", "left"), [([FASTER], 3), ([SAME], 3), ([SLOWER, FASTER], 4), ([SLOWER, SAME], 4)])
def test_widths_are_rounded_only_where_that_is_not_slower(
    found: list[Comparison], left: int, tmp_path: Path, timings: Callable[[list[Comparison]], None]
) -> None:
    timings(found)
    done = onnxprune(*timed(sparse(tmp_path)))
    assert done.code == 0, done.err
    assert next(g["channels_after"] for g in done.json["groups"] if g["name"] == "c1.w") == left
    assert (tmp_path / "small.onnx").exists()
    assert done.json["verdict"].endswith("it is lossless") == (found[-1] is SAME)


def test_what_is_slower_either_way_is_not_written(tmp_path: Path, timings: Callable[[list[Comparison]], None]) -> None:
    timings([SLOWER, SLOWER])
    model = sparse(tmp_path)
    before = snapshot(tmp_path)
    done = onnxprune(*timed(model))
    assert done.code == 1 and "slower" in done.err and snapshot(tmp_path) == before
    timings([SLOWER])
    assert onnxprune(*timed(model, "--force")).code == 0


def test_inspect_counts_them(model: Path) -> None:
    assert "3: 3 unread; 'prune --dead' removes them without loss" in onnxprune("inspect", model).words
    assert onnxprune("inspect", model, "--json").json["dead"] == {"unread": 3}
    whole = stored(graphs.residual(), model.parent, "whole.onnx")
    assert "dead units none" in onnxprune("inspect", whole).words
