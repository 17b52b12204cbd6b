"""Runs on samples of every kind: the same samples give the same file, and the report says what was done to them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from onnxprune import data, load
from tests import graphs
from tests.contract import Result, onnxprune, refused
from tests.report.pages import Page

COUNT = 96
EVAL = """
import numpy as np
def evaluate(run):
    x = np.random.default_rng(5).normal(size=(8, 3, 8, 8)).astype("f")
    return float(np.abs(run({"x": x})["y"]).mean())
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(graphs.residual(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for n in range(COUNT):
        path = tmp_path / "images" / f"class{n // 32}" / f"{n:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(path)
    return tmp_path / "images"


def prune(model: Path, output: str, *more: object) -> Result:
    common = ["-o", model.with_name(output), "--no-bench", "--align", "1", "--macs", "0.5", "--json"]
    return onnxprune("prune", model, *common, *more)


def test_a_folder_of_images_gives_the_file_that_its_arrays_give(model: Path, images: Path) -> None:
    found = prune(
        model, "a.onnx", "--data", images, "--preprocess", "imagenet", "--plan-out", model.with_name("p.json")
    )
    assert found.code == 0 and not found.err
    held = data.read(load(model), images, COUNT, preprocess="imagenet").sets[0]
    np.savez(model.with_name("x.npz"), **held)
    np.save(model.with_name("x.npy"), held["x"])
    assert prune(model, "b.onnx", "--data", model.with_name("x.npz")).code == 0
    model.with_name("script.py").write_text(
        f"import numpy as np\ndef batches():\n    yield from np.load({str(model.with_name('x.npy'))!r})\n"
    )
    assert prune(model, "c.onnx", "--data", model.with_name("script.py")).code == 0
    first = model.with_name("a.onnx").read_bytes()
    assert first == model.with_name("b.onnx").read_bytes() == model.with_name("c.onnx").read_bytes()
    about = found.json["data"]
    assert (about["kind"], about["samples"], about["of"], about["preprocess_from"]) == ("images", COUNT, COUNT, "given")
    assert about["preprocess"] == found.json["settings"]["preprocess"] and "mean=0.485" in about["preprocess"]


def test_apply_prepares_images_as_the_plan_says(model: Path, images: Path) -> None:
    plan = model.with_name("p.json")
    assert prune(model, "a.onnx", "--data", images, "--preprocess", "caffe", "--plan-out", plan).code == 0
    assert "channels=BGR" in json.loads(plan.read_text())["settings"]["preprocess"]
    common = [model, plan, "--no-bench", "--json", "--data", images]
    again = onnxprune("apply", *common, "-o", model.with_name("b.onnx"))
    assert again.code == 0 and not again.err and "channels=BGR" in again.json["data"]["preprocess"]
    assert model.with_name("a.onnx").read_bytes() == model.with_name("b.onnx").read_bytes()
    other = onnxprune("apply", *common, "-o", model.with_name("c.onnx"), "--preprocess", "0..1")
    assert "channels=RGB" in other.json["data"]["preprocess"] == other.json["settings"]["preprocess"]


def test_what_was_assumed_or_left_out_is_a_warning(model: Path, images: Path) -> None:
    (images / "broken.png").write_bytes(b"no")
    found = onnxprune("prune", model, "-o", model.with_name("a.onnx"), "--no-bench", "--align", "1", "--data", images)
    assert found.code == 0 and "assumed" in found.out and "96 of 97 images" in found.words
    assert "warning: nothing says how pixels" in found.err and "assumed scale=255,mean=0.485" in found.err
    assert "warning: 1 image could not be read" in found.err and "broken.png" in found.err


def test_slips_are_told_before_any_work(model: Path, images: Path, tmp_path: Path) -> None:
    common = ["prune", model, "-o", tmp_path / "a.onnx"]
    refused([*common, "--preprocess", "0..1"], "--preprocess is for images; give a folder", tmp_path)
    refused([*common, "--data", images, "--preprocess", "size=9"], "size=9x9 contradicts", tmp_path)
    refused([*common, "--data", tmp_path / "none.py"], "is not a file.*none.py", tmp_path)
    (tmp_path / "bad.py").write_text("def evaluat(run): return 1\n")
    refused([*common, "--eval", tmp_path / "bad.py"], "defines no function 'evaluate'.*bad.py", tmp_path)


@pytest.mark.parametrize("command", ["prune", "apply"])
def test_the_metric_is_that_of_the_delivered_file(command: str, model: Path, images: Path) -> None:
    script, output = model.with_name("e.py"), model.with_name("a.onnx")
    script.write_text(EVAL)
    given, page = ("--data", images, "--preprocess", "0..1", "--eval", script), model.with_name("r.html")
    if command == "prune":
        found = prune(model, "a.onnx", *given, "--html", page)
    else:
        assert prune(model, "z.onnx", *given[:4], "--plan-out", model.with_name("p.json")).code == 0
        common = [model, model.with_name("p.json"), "-o", output, "--no-bench", "--json", *given]
        found = onnxprune("apply", *common, "--html", page)
    assert found.code == 0 and found.json["recovery"]["layers"], found.err
    held: dict[str, object] = {}
    exec(EVAL, held)
    for side, path in (("before", model), ("after", output)):
        session = onnx_run(path)
        assert found.json["metric"][side] == pytest.approx(held["evaluate"](session), rel=1e-6)  # type: ignore[operator]
    assert found.json["metric"]["before"] != found.json["metric"]["after"]
    assert Page(page.read_text(encoding="utf-8")).unpacked("report")["metric"] == found.json["metric"]


def onnx_run(path: Path) -> object:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda feeds: {"y": session.run(None, feeds)[0]}


def test_the_metric_stands_in_every_report(model: Path) -> None:
    script, report = model.with_name("e.py"), model.with_name("r.md")
    script.write_text(EVAL)
    common = ["-o", model.with_name("a.onnx"), "--no-bench", "--align", "1", "--eval", script, "--report", report]
    found = onnxprune("prune", model, *common)
    assert found.code == 0 and "metric" in found.words and "| metric |" in report.read_text()


def words() -> onnx.ModelProto:
    """Words, looked up in a table, then two layers: an input of text that can be pruned behind."""
    rng = np.random.default_rng(0)
    weights = {"E": (5, 8), "w1": (24, 16), "b1": (16,), "w2": (16, 4)}
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]> g (string[N, 3] t) => (float[N, 4] y) { '
        'i = ai.onnx.ml.LabelEncoder <keys_strings = ["a", "b"], values_int64s = [1, 2], default_int64 = 0> (t) '
        "e = Gather (E, i) f = Flatten (e) h = Gemm (f, w1, b1) r = Relu (h) y = MatMul (r, w2) }"
    )
    for name, shape in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    return proto


def test_a_model_of_text_is_pruned_and_recovered(tmp_path: Path) -> None:
    onnx.save(words(), tmp_path / "m.onnx")
    drawn = np.random.default_rng(1).choice(["a", "b", "c", "other"], size=(128, 3))
    np.savez(tmp_path / "t.npz", t=drawn)
    found = prune(tmp_path / "m.onnx", "a.onnx", "--data", tmp_path / "t.npz")
    assert found.code == 0 and found.json["recovery"]["samples"] == 128, found.err
    assert found.json["after"]["params"] < found.json["before"]["params"]
    timed = onnxprune("prune", tmp_path / "m.onnx", "-o", tmp_path / "b.onnx", "--data", tmp_path / "t.npz", "--force")
    assert timed.code == 0 and "A/A control" in timed.words
    alone = prune(tmp_path / "m.onnx", "c.onnx")
    assert alone.code == 1 and "holds text" in alone.err and "--data" in alone.err


def test_a_model_with_a_list_of_outputs_is_pruned(tmp_path: Path) -> None:
    proto = graphs.chain()
    y = proto.graph.output.pop()
    proto.graph.node.append(helper.make_node("SequenceConstruct", [y.name, y.name], ["both"]))
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    proto.graph.output.append(helper.make_value_info("both", helper.make_sequence_type_proto(kind)))
    onnx.save(proto, tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(64, 3, 8, 8)).astype(np.float32))
    found = prune(tmp_path / "m.onnx", "a.onnx", "--data", tmp_path / "x.npz")
    assert found.code == 0 and found.json["verified"]["ok"], found.err
    outputs = found.json["recovery"]["fidelity"]["after"]["outputs"]
    assert outputs["both"]["relative_l2"] is not None and not outputs["both"]["note"]


def sweep(model: Path, *more: object) -> Result:
    common = ["-o", model.with_name("out"), "--align", "1", "--no-bench", "--jobs", "1", "--macs", "0.5", "--json"]
    return onnxprune("sweep", model, *common, *more)


def test_a_sweep_prunes_as_prune_does_and_belongs_to_its_samples(model: Path, images: Path) -> None:
    given = ["--data", images, "--preprocess", "0..1", "--samples", "64"]
    assert prune(model, "a.onnx", *given).code == 0
    found = sweep(model, *given)
    assert found.code == 0, found.err
    report = json.loads(model.with_name("out").joinpath("macs-0.5.json").read_text())
    assert report["recovery"]["samples"] == 64 and report["settings"]["criterion"] == "reconstruction"
    assert sweep(model, *given).err.startswith("onnxprune: resumed: 2 steps were finished before, 0 steps done now")
    changes = (["--samples", "65"], ["--no-recover"], ["--preprocess", "imagenet"], ["--criterion", "l1"])
    for change in (*changes, ["--recovery", "bias"], ["--memory", "1"]):
        other = sweep(model, *given, *change)
        assert other.code == 1 and "with other options" in other.err, change
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(images / "one-more.png")
    assert "other options" in sweep(model, *given).err


def test_samples_are_read_once(model: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune import pipeline

    calls: list[object] = []
    read = pipeline.inputs.read
    monkeypatch.setattr(pipeline.inputs, "read", lambda *a, **k: calls.append(a) or read(*a, **k))
    found = onnxprune(
        "prune", model, "-o", model.with_name("a.onnx"), "--align", "1", "--data", images, "--force", "--ratio", "0.5"
    )
    assert found.code == 0 and len(calls) == 1
