"""Bad options and arguments. The law is that of test_bad_input; wrong usage, which exits 2, is in test_cli."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import graphs
from tests.contract import prune, refused, stored


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return stored(graphs.residual(), tmp_path)


# Targets and limits.


@pytest.mark.parametrize("option", ["--ratio", "--macs", "--params", "--threshold"])
@pytest.mark.parametrize("value", ["0", "1", "-1", "1.5", "nan", "inf"])
def test_target_outside_0_and_1(option: str, value: str, model: Path) -> None:
    refused(prune(model, option, value), rf"{option} \S+ is outside \(0, 1\)", model.parent)


OPTIONS: dict[str, tuple[list[str], str]] = {
    "two targets": (["--ratio", "0.3", "--macs", "0.5"], "--ratio and --macs contradict each other; give one target"),
    "criterion": (["--criterion", "l11"], "unknown criterion 'l11'; did you mean 'l1'"),
    "criterion far off": (
        ["--criterion", "hrank"],
        "unknown criterion 'hrank'; did you mean .*see .onnxprune criteria",
    ),
    "a threshold beside a ratio": (
        ["--threshold", "0.1", "--ratio", "0.3"],
        "--ratio and --threshold contradict each other; give one target",
    ),
    "a threshold along curves": (
        ["--threshold", "0.5", "--allocate", "redundancy"],
        "--threshold and --allocate redundancy contradict each other",
    ),
    "a threshold in rounds": (["--threshold", "0.5", "--steps", "2"], "--steps needs a target in MACs, parameters or"),
    "nothing below the threshold": (["--threshold", "0.0001"], "the plan removes nothing"),
    "recovery that is off": (["--no-recover", "--recovery", "merge"], "--no-recover and --recovery merge contradict"),
    "allocate": (
        ["--allocate", "fairly"],
        "unknown allocation 'fairly'; use one of: auto, uniform, global, sensitivity",
    ),
    "sensitivity without data": (
        ["--allocate", "sensitivity"],
        "needs samples; give .*--data, or .*--sensitivity",
    ),
    "sensitivity of no use": (["--sensitivity", "s.json"], "--sensitivity is not looked at with --allocate auto; add"),
    "no such analysis": (["--allocate", "sensitivity", "--sensitivity", "none.json"], "cannot be read .*none.json"),
    "allocation for a time": (
        ["--speedup", "2", "--allocate", "global"],
        "a target in time chooses widths by what they cost here, not by --allocate global; leave --allocate out",
    ),
    "steps for a time": (["--speedup", "2", "--steps", "2"], "--steps needs a target in MACs, .*leave --steps out"),
    "steps and shares": (["--macs", "0.5", "--steps", "2", "--max-ratio", "0.5"], "--steps cannot keep to shares"),
    "skip": (["--skip", "stam*"], "'stam.' matches no prunable layer; names look like: .*stem"),
    "layer-ratio glob": (["--layer-ratio", "b9=0.5"], "'b9' matches no prunable layer; names look like: "),
    "layer-ratio value": (["--layer-ratio", "b1=2"], r"--layer-ratio b1=2.0 is outside \[0, 1\)"),
    "layer-ratio nan": (["--layer-ratio", "b1=nan"], "--layer-ratio b1=nan is outside"),
    "max-ratio 0": (["--max-ratio", "0"], r"--max-ratio 0.0 is outside \(0, 1\]"),
    "max-ratio nan": (["--max-ratio", "nan"], "--max-ratio nan is outside"),
    "macs out of reach": (["--macs", "0.01", "--max-ratio", "0.1"], "--macs cannot be met: at most .*--max-ratio"),
    "params out of reach": (["--params", "0.5", "--skip", "*"], "--params cannot be met: .*--skip"),
    "alignment too wide": (["--align", "64"], "removes nothing: .*narrower than the alignment of 64.*smaller --align"),
    "all skipped": (["--skip", "*"], "the plan removes nothing: kept whole as asked"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_cannot_be_carried_out(name: str, model: Path) -> None:
    options, pattern = OPTIONS[name]
    refused(prune(model, *options), pattern, model.parent)


def test_scales_of_batch_normalization_that_were_folded(tmp_path: Path) -> None:
    path = stored(graphs.grouped(), tmp_path)
    pattern = r"no BatchNormalization scales .*fold them.*export with .*PRESERVE.*--criterion l1"
    refused(prune(path, "--criterion", "bn-scale"), pattern, tmp_path)


# Other commands.


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_name_to_explain_that_does_not_exist(form: list[str], model: Path) -> None:
    pattern = "no tensor or node is called 'stme'; .*model.onnx; did you mean 'stem'"
    refused(["inspect", model, "--why", "stme", *form], pattern, model.parent)


@pytest.mark.parametrize("arguments", [["inspect", "none.onnx"], ["bench", "none.onnx", "model.onnx"]])
def test_a_model_that_is_none(arguments: list[str], model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    refused(arguments, "(cannot be read|no such file).*none.onnx", model.parent)
    Path("none.onnx").write_text("no model")
    refused(arguments, "(is not an ONNX model|onnxruntime refuses the model).*none.onnx", model.parent)
    refused([*arguments, "--json"], "none.onnx", model.parent)


def test_a_second_model_that_is_none(model: Path) -> None:
    refused(["bench", model, model.with_name("none.onnx")], "no such file; .*none.onnx", model.parent)


def test_a_provider_that_does_not_exist(model: Path) -> None:
    refused(["bench", model, model, "--ep", "abacus"], "no provider 'abacus'; present: .*cpu", model.parent)


def test_two_models_with_different_inputs(model: Path) -> None:
    other = stored(graphs.mlp(), model.parent, "other.onnx")
    pattern = r"take different inputs; input 'x': .*\[N, 3, 8, 8\] before, .*\[N, 10\] after; "
    refused(["bench", model, other], pattern, model.parent)


def test_another_batch_than_the_model_takes(tmp_path: Path) -> None:
    proto = graphs.residual()
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = 2
    path = stored(proto, tmp_path)
    refused(["bench", path, path, "--batch", "5"], "batch is fixed at 2, not 5; ", tmp_path)
