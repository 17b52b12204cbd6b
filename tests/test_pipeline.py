"""The stages in order. Law: what the report says is what the two files show, and an output exists only if verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune import Limits, Options, Plan, Target, apply, isolate, pipeline, rewrite
from onnxprune import prune as prune_file
from onnxprune.align import Step
from onnxprune.errors import DataError, ModelError, OutputError, PlanError, UnprunableError, VerificationError
from onnxprune.importance import score
from onnxprune.model import Model
from onnxprune.trace import Dependencies
from tests import graphs
from tests.contract import (
    as_constants,
    check_masked,
    check_removed,
    check_report,
    held,
    onnxprune,
    prune,
    refused,
    snapshot,
    stored,
)

QUICK = Options(align=1, time=False)
Removed = np.ndarray


def samples(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    shape = [d.dim_value or 4 for d in proto.graph.input[0].type.tensor_type.shape.dim]
    return {"x": np.random.default_rng(3).normal(size=shape).astype(np.float32)}


def as_inputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The form of IR version 3: every initializer is listed as an input too."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.ir_version = 3
    copy.opset_import[0].version = 8
    for t in copy.graph.initializer:
        copy.graph.input.append(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    return copy


def whole(proto: onnx.ModelProto) -> onnx.ModelProto:
    return proto


@pytest.mark.parametrize("form", [whole, as_constants])
@pytest.mark.parametrize("name", graphs.ALL)
def test_the_report_is_what_the_files_show(
    name: str, form: Callable[[onnx.ModelProto], onnx.ModelProto], tmp_path: Path
) -> None:
    proto = form(graphs.ALL[name]())
    model, small = stored(proto, tmp_path), tmp_path / "small.onnx"
    before = snapshot(tmp_path)
    report = prune_file(model, small, Target(ratio=0.3), options=QUICK).report.to_dict()
    check_report(report)
    check_removed(report, model, small)
    check_masked(report, model, small, samples(proto))
    assert report["before"]["params"] == floats(model) and report["after"]["params"] == floats(small)
    assert report["after"]["macs"] < report["before"]["macs"]
    assert snapshot(tmp_path) == before | {"small.onnx": snapshot(tmp_path)["small.onnx"]}


def floats(path: Path) -> int:
    """The usual count of parameters, from the file."""
    return sum(int(np.prod(t.dims)) for t in held(onnx.load(path)).values() if t.data_type == onnx.TensorProto.FLOAT)


def test_weights_listed_as_inputs_stay_so(tmp_path: Path) -> None:
    model, small = stored(as_inputs(graphs.residual()), tmp_path), tmp_path / "small.onnx"
    report = prune_file(model, small, Target(ratio=0.3), options=QUICK).report.to_dict()
    check_removed(report, model, small)
    check_masked(report, model, small, samples(graphs.residual()))
    dense, pruned = onnx.load(model), onnx.load(small)
    assert [i.name for i in pruned.graph.input] == [i.name for i in dense.graph.input] and pruned.ir_version == 3
    sizes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in pruned.graph.input}
    assert all(sizes[t.name] == list(t.dims) for t in pruned.graph.initializer)


@pytest.mark.parametrize("name", graphs.ALL)
def test_apply_repeats_a_plan_to_the_byte(name: str, tmp_path: Path) -> None:
    model, plan, small = stored(graphs.ALL[name](), tmp_path), tmp_path / "plan.json", tmp_path / "small.onnx"
    first = onnxprune(*prune(model, "--plan-out", plan, "--json"))
    again = onnxprune("apply", model, plan, "-o", tmp_path / "again.onnx", "--no-bench", "--json")
    assert first.code == again.code == 0
    assert small.read_bytes() == (tmp_path / "again.onnx").read_bytes()
    assert again.json["removed"] == first.json["removed"] and again.json["settings"] == first.json["settings"]


def test_an_edited_plan_is_carried_out(tmp_path: Path) -> None:
    model, path = stored(graphs.chain(), tmp_path), tmp_path / "plan.json"
    assert onnxprune(*prune(model, "--plan-out", path)).code == 0
    plan = json.loads(path.read_text())
    for group in plan["groups"]:
        group["removed"] = [0, 5] if group["name"] == "c2.w" else []
    path.write_text(json.dumps(plan))
    found = onnxprune("apply", model, path, "-o", tmp_path / "edited.onnx", "--no-bench", "--json")
    assert found.code == 0
    check_removed(found.json, model, tmp_path / "edited.onnx")
    gone = {"0": [0, 5]}
    norms = {f"bn2.{part}": gone for part in ("scale", "shift", "mean", "var")}
    assert found.json["removed"] == {"c2.w": gone, "c2.b": gone, "c3.w": {"1": [0, 5]}, **norms}


def kept(report: dict[str, object]) -> dict[str, float]:
    """Share of channels each group keeps."""
    return {g["name"]: g["channels_after"] / g["channels_before"] for g in report["groups"]}  # type: ignore[attr-defined]


OPTIONS: dict[str, tuple[list[str], Callable[[dict], bool]]] = {  # type: ignore[type-arg]
    "ratio": (["--ratio", "0.5"], lambda r: set(kept(r).values()) == {0.5}),
    "the default ratio": ([], lambda r: all(0.6 < share < 0.7 for share in kept(r).values())),
    "macs": (["--macs", "0.5"], lambda r: 0.35 < r["after"]["macs"] / r["before"]["macs"] <= 0.5),
    "params": (["--params", "0.6"], lambda r: 0.45 < r["after"]["params"] / r["before"]["params"] <= 0.6),
    "criterion": (["--criterion", "l2"], lambda r: r["settings"]["criterion"] == "l2"),
    "allocate": (["--allocate", "global", "--ratio", "0.4"], lambda r: len(set(kept(r).values())) > 1),
    "align": (["--align", "4"], lambda r: all(g["channels_after"] % 4 == 0 for g in r["groups"])),
    "max-ratio": (["--macs", "0.6", "--max-ratio", "0.5"], lambda r: min(kept(r).values()) >= 0.5),
    "skip": (["--skip", "c1*", "--skip", "c3"], lambda r: kept(r)["c1.w"] == kept(r)["c3.w"] == 1 > kept(r)["c2.w"]),
    "layer-ratio": (["--layer-ratio", "c2.w=0.75"], lambda r: kept(r) == {"c1.w": 1, "c2.w": 0.25, "c3.w": 1}),
    "layer-ratio beside a ratio": (
        ["--layer-ratio", "c2=0.75", "--ratio", "0.5"],
        lambda r: kept(r) == {"c1.w": 0.5, "c2.w": 0.25, "c3.w": 0.5},
    ),
    "threads": (["--threads", "2"], lambda r: r["verified"]["ok"]),
    "seed": (["--seed", "7"], lambda r: r["verified"]["ok"]),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_do_what_they_say(name: str, tmp_path: Path) -> None:
    options, holds = OPTIONS[name]
    found = onnxprune(*prune(stored(graphs.chain(), tmp_path), *options, "--json"))
    assert found.code == 0, found.err
    assert holds(found.json), kept(found.json)


def test_auto_alignment_asks_the_machine_and_says_what_it_leaves_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.plans, "width_step", lambda **_: Step(8, (8, 16), (1.0, 2.0), "measured"))
    found = onnxprune(*prune(stored(graphs.chain(), tmp_path), "--align", "auto", "--ratio", "0.5", "--json"))
    assert found.code == 0 and found.json["settings"]["align"] == 8
    groups = {g["name"]: g for g in found.json["groups"]}
    assert groups["c1.w"]["channels_after"] == groups["c2.w"]["channels_after"] == groups["c3.w"]["channels_after"] == 8
    found = onnxprune(*prune(tmp_path / "model.onnx", "--align", "16", "--ratio", "0.5", "--overwrite"))
    assert found.code == 1 and "left whole" in found.err


def test_a_measured_step_gives_way_in_narrow_layers_where_errors_say_what_that_is_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.plans, "width_step", lambda **_: Step(8, (8, 16), (1.0, 2.0), "measured"))
    model, data = stored(graphs.chain(), tmp_path), tmp_path / "x.npz"
    np.savez(data, x=np.random.default_rng(0).normal(size=(64, 3, 8, 8)).astype(np.float32))
    common = ("--macs", "0.5", "--data", str(data), "--no-recover", "--criterion", "reconstruction", "--overwrite")
    widths = {}
    for align in ("auto", "8"):
        found = onnxprune(*prune(model, *common, "--align", align, "--json"))
        assert found.code == 0, found.err
        gone = [g for g in found.json["groups"] if g["channels_after"] < g["channels_before"]]
        widths[align] = [g["channels_after"] % 8 for g in gone]
    assert any(widths["auto"]) and not any(widths["8"])


def test_external_weights_stay_external(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(graphs.chain(width=24), model, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before, small = snapshot(tmp_path), tmp_path / "small.onnx"
    report = prune_file(model, small, Target(ratio=0.3), options=QUICK).report.to_dict()
    assert snapshot(tmp_path).keys() - before.keys() == {"small.onnx", "small.onnx.data"}
    assert snapshot(tmp_path).items() >= before.items()
    check_removed(report, model, small)


@pytest.mark.parametrize("clash", ["small.onnx", "small.onnx.data"])
def test_the_weights_of_the_input_are_never_overwritten(clash: str, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(graphs.chain(), model, save_as_external_data=True, location=clash, size_threshold=0)
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match="replace the input's weights"):
        prune_file(model, tmp_path / "small.onnx", options=replace(QUICK, overwrite=True))
    assert snapshot(tmp_path) == before


def test_the_weights_of_another_model_are_overwritten_only_when_told(tmp_path: Path) -> None:
    model, data = tmp_path / "model.onnx", tmp_path / "small.onnx.data"
    onnx.save(graphs.chain(), model, save_as_external_data=True, location="weights.bin", size_threshold=0)
    data.write_text("weights of another model")
    with pytest.raises(OutputError, match="give --overwrite"):
        prune_file(model, tmp_path / "small.onnx", Target(ratio=0.3), options=QUICK)
    assert data.read_text() == "weights of another model"
    prune_file(model, tmp_path / "small.onnx", Target(ratio=0.3), options=replace(QUICK, overwrite=True))
    assert onnx.load(tmp_path / "small.onnx").graph.node


def rolled(name: str) -> Callable[[Dependencies, Removed], Model]:
    """A rewriter that takes the wrong channels of one weight."""

    def wrong(dependencies: Dependencies, removed: Removed) -> Model:
        pruned = rewrite(dependencies, removed)
        return replace(pruned, weights={**pruned.weights, name: np.roll(pruned.weights[name], 1, axis=0)})

    return wrong


@pytest.mark.parametrize(
    ("weight", "tensor"), [("c1.w", "c1"), ("c2.b", "c2"), ("bn2.mean", "bn2"), ("c3.w", "c3"), ("fc.w", "y")]
)
def test_wrong_surgery_is_not_written_and_the_first_wrong_tensor_named(
    weight: str, tensor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stored(graphs.chain(), tmp_path)
    before = snapshot(tmp_path)
    monkeypatch.setattr(isolate, "rewrite", rolled(weight))
    found = onnxprune(*prune(model, "--plan-out", tmp_path / "p.json", "--report", tmp_path / "r.json"))
    assert (found.code, found.out) == (1, "") and found.err.count("\n") == 1
    assert f"first at tensor '{tensor}'" in found.err and "nothing was written" in found.err
    assert snapshot(tmp_path) == before


def test_a_normalisation_that_changes_the_model_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: Model) -> Model:
        other = pipeline_normalise(model)
        return replace(other, weights={**other.weights, "c2.w": other.weights["c2.w"] * np.float32(1.01)})

    pipeline_normalise = pipeline.run.normalise
    monkeypatch.setattr(pipeline.run, "normalise", wrong)
    with pytest.raises(VerificationError, match="normalised model differs from the original at output 'y'"):
        prune_file(stored(graphs.chain(), tmp_path), tmp_path / "small.onnx", Target(ratio=0.3), options=QUICK)
    assert not (tmp_path / "small.onnx").exists()


def test_stages_are_announced_in_order(tmp_path: Path) -> None:
    seen: list[str] = []
    target = Target(ratio=0.3)
    prune_file(
        stored(graphs.chain(), tmp_path),
        tmp_path / "s.onnx",
        target,
        options=QUICK,
        observe=lambda stage, _: seen.append(stage),
    )
    assert [s for s in seen if s != "find the width step"] == [
        "load",
        "trace",
        "score",
        "plan",
        "rewrite",
        "verify",
        "save",
    ]


def test_without_data_a_model_that_holds_a_batch_of_one_still_runs(tmp_path: Path) -> None:
    proto = graphs.flattened()
    sizes = next(t for t in proto.graph.initializer if t.name == "sizes")
    sizes.CopyFrom(onnx.numpy_helper.from_array(np.array([1, 160]), "sizes"))
    done = prune_file(stored(proto, tmp_path), tmp_path / "s.onnx", Target(ratio=0.3), options=QUICK)
    assert done.report.verified.ok


def test_the_api_raises_what_the_command_line_prints(tmp_path: Path) -> None:
    model, small = stored(graphs.chain(), tmp_path), tmp_path / "small.onnx"
    net = graphs.Net()
    net.op("Relu", ["x"], "y")
    plain = stored(net.model(["N", 3], ["N", 3]), tmp_path, "plain.onnx")
    empty = Plan("?", {}, ())
    cases: list[tuple[type[Exception], Callable[[], object]]] = [
        (ModelError, lambda: prune_file(tmp_path / "none.onnx", small, options=QUICK)),
        (UnprunableError, lambda: prune_file(plain, small, Target(ratio=0.3), options=QUICK)),
        (PlanError, lambda: apply(model, empty, small, QUICK)),
        (PlanError, lambda: prune_file(model, small, limits=Limits(skip=("*",)), options=QUICK)),
        (OutputError, lambda: prune_file(model, model, options=QUICK)),
        (DataError, lambda: prune_file(model, small, Target(ratio=0.3), options=replace(QUICK, data=model))),
    ]
    for kind, call in cases:
        with pytest.raises(kind):
            call()
    assert not small.exists()


def test_a_measured_alignment_gives_way_on_narrow_models() -> None:
    dependencies = graphs.traced(graphs.chain())
    scores = score(dependencies, "l1")
    widest = max(g.units.size for g in dependencies.groups)
    chosen = pipeline.plan_aligned(dependencies, scores, Target(ratio=0.5), Limits(align=2 * widest), fixed=False)
    assert any(g.removed for g in chosen.groups) and chosen.settings["align"] != 2 * widest
    kept = pipeline.plan_aligned(dependencies, scores, Target(ratio=0.5), Limits(align=2 * widest), fixed=True)
    assert not any(g.removed for g in kept.groups)


@pytest.mark.parametrize("command", ["prune", "apply"])
def test_an_absent_provider_is_refused_before_any_work(command: str, tmp_path: Path) -> None:
    model = stored(graphs.residual(), tmp_path)
    plan = tmp_path / "p.json"
    onnxprune(*prune(model, "--plan-out", plan, out=tmp_path / "first.onnx"))
    given = {"prune": [model], "apply": [model, plan]}[command]
    refused([command, *given, "-o", tmp_path / "s.onnx", "--ep", "abacus"], "no provider 'abacus'; present: ", tmp_path)
