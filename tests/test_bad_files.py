"""Bad files beside the model: outputs, calibration data, plans. The law is that of test_bad_input."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import graphs
from tests.contract import onnxprune, prune, refused, stored

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX file systems")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return stored(graphs.residual(), tmp_path)


# The output.


@pytest.mark.parametrize("spelling", ["model.onnx", "./model.onnx", "inner/../model.onnx", "alias.onnx", "hard.onnx"])
@pytest.mark.parametrize("option", ["--no-bench", "--overwrite"])
def test_output_is_the_input(spelling: str, option: str, model: Path) -> None:
    (model.parent / "inner").mkdir()
    (model.parent / "alias.onnx").symlink_to(model)
    (model.parent / "hard.onnx").hardlink_to(model)
    arguments = prune(model, option, out=f"{model.parent}/{spelling}")
    refused(arguments, "the output is the input itself.*-o", model.parent)


def test_output_exists(model: Path) -> None:
    model.with_name("small.onnx").write_text("something dear")
    refused(prune(model), "the output exists; .*small.onnx; give --overwrite to replace it", model.parent)


def test_output_is_a_directory(model: Path) -> None:
    refused(prune(model, "--overwrite", out=model.parent), "the output is a directory", model.parent)
    refused(prune(model, out=""), "the output is a directory", model.parent)


@posix
def test_output_is_a_device_or_pipe(model: Path) -> None:
    os.mkfifo(model.parent / "pipe")  # /dev/null and /dev/stdout are of this kind, and must not be replaced by a file
    for option in ("--overwrite", "--no-bench"):
        refused(prune(model, option, out=model.parent / "pipe"), "the output is not a regular file", model.parent)
    refused(prune(model, "--report", model.parent / "pipe"), "is not a regular file; .*pipe", model.parent)
    assert (model.parent / "pipe").is_fifo()


def test_folder_of_the_output_is_missing(model: Path) -> None:
    refused(prune(model, out=model.parent / "none" / "s.onnx"), "folder does not exist; .*create it", model.parent)


def test_folder_of_the_output_is_a_file(model: Path) -> None:
    refused(prune(model, out=model / "s.onnx"), "the output's folder does not exist", model.parent)


@posix
def test_folder_of_the_output_cannot_be_written(model: Path) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("no /proc, which even root cannot write")
    refused(prune(model, out="/proc/small.onnx"), "folder cannot be written .*/proc; choose another", model.parent)


def test_a_disk_that_fills_up(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    refused(prune(model), "cannot be written .No space left on device.; .*small.onnx", model.parent)


# The plan and report that are written.


@pytest.mark.parametrize("option", ["--plan-out", "--report"])
@pytest.mark.parametrize("name", ["model.onnx", "small.onnx", "data.npz"])
def test_side_file_is_another_file_of_the_run(option: str, name: str, model: Path) -> None:
    data = archive(model, x=images())
    arguments = prune(model, "--data", data, option, model.with_name(name))
    refused(arguments, f"would overwrite another file of this run; .*{name}", model.parent)


def test_plan_and_report_are_one_file(model: Path) -> None:
    both = model.with_name("both.json")
    refused(prune(model, "--plan-out", both, "--report", both), "would overwrite", model.parent)


@pytest.mark.parametrize("option", ["--plan-out", "--report"])
def test_side_file_is_a_directory_or_has_no_folder(option: str, model: Path) -> None:
    refused(prune(model, option, model.parent), "is a directory", model.parent)
    refused(prune(model, option, model.parent / "none" / "r.json"), "folder does not exist", model.parent)


# Calibration data.


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 8, 8)).astype(np.float32)


def archive(model: Path, **arrays: np.ndarray) -> Path:
    np.savez(model.with_name("data.npz"), **arrays)
    return model.with_name("data.npz")


def with_one(value: float) -> np.ndarray:
    found = images()
    found[2, 1, 0, 0] = value
    return found


ARRAYS: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "name": ({"images": images()}, "has no array for the model's input 'x' .it has: images"),
    "none": ({}, "has no array for the model's input 'x' .it has: none"),
    "type": (
        {"x": images().astype(np.float64)},
        "'x' is float64, the model's input is float32; .*data.npz; .*astype",
    ),
    "channels": ({"x": images()[:, :2]}, "array 'x' has shape 3 x 2 x 8 x 8, the model's input takes any x 3 x 8 x 8"),
    "channels last": ({"x": images().transpose(0, 2, 3, 1)}, "array 'x' has shape 3 x 8 x 8 x 3"),
    "rank": ({"x": images()[0]}, "array 'x' has shape 3 x 8 x 8"),
    "scalar": ({"x": np.float32(1)}, r"array 'x' has shape \(\)"),
    "no samples": ({"x": images(0)}, "array 'x' has shape 0 x 3 x 8 x 8"),
    "nan": ({"x": with_one(np.nan)}, "array 'x' holds NaN or infinity"),
    "infinity": ({"x": with_one(-np.inf)}, "array 'x' holds NaN or infinity"),
    "objects": ({"x": np.array([{}], dtype=object)}, "cannot be read .*[Oo]bject"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_do_not_fit(name: str, model: Path) -> None:
    arrays, pattern = ARRAYS[name]
    refused(prune(model, "--data", archive(model, **arrays)), pattern, model.parent)


def corrupt(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


DATA: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "text": (lambda _: b"x = [1, 2, 3]\n", "is not an .npz archive"),
    "empty": (lambda _: b"", "is not an .npz archive"),
    "truncated": (lambda path: path.read_bytes()[:600], "is not an .npz archive"),
    "corrupt": (corrupt, "cannot be read .*CRC"),
}


@pytest.mark.parametrize("name", DATA)
def test_data_that_is_no_archive(name: str, model: Path) -> None:
    change, pattern = DATA[name]
    path = archive(model, x=images())
    path.write_bytes(change(path))
    refused(prune(model, "--data", path), f"{pattern}.*data.npz; write it with numpy.savez", model.parent)


def test_data_in_other_places(model: Path) -> None:
    np.save(model.with_name("data.npy"), images())
    refused(prune(model, "--data", model.with_name("data.npy")), "is not an .npz archive", model.parent)
    refused(prune(model, "--data", model.with_name("none.npz")), "cannot be read .No such file", model.parent)
    model.with_name("data.npy").unlink()
    refused(prune(model, "--data", model.parent), "neither .npy files nor images; .*Python file", model.parent)
    refused(prune(model, "--data", model), "is not an .npz archive", model.parent)


# The plan that is read.


def planned(model: Path) -> dict[str, Any]:
    """A good plan for the model."""
    path = model.with_name("good.json")
    assert onnxprune(*prune(model, "--plan-out", path, out=model.with_name("good.onnx"))).code == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def carry_out(model: Path, plan: Path) -> list[object]:
    return ["apply", model, plan, "-o", model.with_name("small.onnx"), "--no-bench"]


def test_plan_for_another_model(model: Path) -> None:
    planned(model)
    other = stored(graphs.chain(), model.parent, "other.onnx")
    arguments = carry_out(other, model.with_name("good.json"))
    refused(arguments, "the plan was made for another model .*--plan-out", model.parent)


HEAD = '{"schema": "onnxprune/plan/1", "fingerprint": "f", "groups": '
TEXTS = {
    "empty": "",
    "no JSON": "removed: all of it",
    "a list": "[]",
    "no schema": "{}",
    "a report": '{"schema": "onnxprune/report/1"}',
    "a later version": '{"schema": "onnxprune/plan/99", "fingerprint": "f", "groups": []}',
    "no groups": '{"schema": "onnxprune/plan/1", "fingerprint": "f"}',
    "groups by name": HEAD + '{"stem.w": [1]}}',
    "a group without a name": HEAD + '[{"channels": 8, "removed": [1]}]}',
    "channels in words": HEAD + '[{"name": "stem.w", "channels": "few", "removed": [1]}]}',
    "one position": HEAD + '[{"name": "stem.w", "channels": 8, "removed": 1}]}',
    "a position in words": HEAD + '[{"name": "stem.w", "channels": 8, "removed": ["first"]}]}',
    "a position between two": HEAD + '[{"name": "stem.w", "channels": 8, "removed": [1.5]}]}',
    "positions in one text": HEAD + '[{"name": "stem.w", "channels": 8, "removed": "12"}]}',
    "cut short": HEAD + '[{"name": "st',
}


@pytest.mark.parametrize("name", TEXTS)
def test_malformed_plan(name: str, model: Path) -> None:
    path = model.with_name("plan.json")
    path.write_text(TEXTS[name])
    refused(carry_out(model, path), "(cannot be read|is not an onnxprune plan).*plan.json", model.parent)


def test_plan_that_is_no_text(model: Path) -> None:
    refused(carry_out(model, model), "cannot be read|is not an onnxprune plan", model.parent)
    refused(carry_out(model, model.parent), "cannot be read", model.parent)
    refused(carry_out(model, model.with_name("none.json")), "cannot be read .*none.json", model.parent)


EDITS: dict[str, tuple[dict[str, Any], str]] = {
    "all channels": ({"removed": list(range(8))}, "'stem.w' would leave an axis empty; keep at least one"),
    "beyond the end": ({"removed": [8]}, "removes position 8 of 'stem.w', which has 8 channels; use positions 0 to 7"),
    "before the start": ({"removed": [-1]}, "removes position -1 of 'stem.w'"),
    "a huge position": ({"removed": [10**30]}, "removes position 1000000"),
    "an unknown group": ({"name": "stam.w"}, "names an unknown group 'stam.w'; groups here: stem.w"),
}


@pytest.mark.parametrize("name", EDITS)
def test_plan_edited_beyond_what_the_model_allows(name: str, model: Path) -> None:
    change, pattern = EDITS[name]
    plan = planned(model)
    plan["groups"][0] |= change
    model.with_name("plan.json").write_text(json.dumps(plan))
    refused(carry_out(model, model.with_name("plan.json")), pattern, model.parent)


def test_plan_that_removes_nothing(model: Path) -> None:
    plan = planned(model)
    for group in plan["groups"]:
        group["removed"] = []
    model.with_name("plan.json").write_text(json.dumps(plan))
    refused(carry_out(model, model.with_name("plan.json")), "the plan removes nothing", model.parent)


def test_plan_that_leaves_rows_uneven(tmp_path: Path) -> None:
    grouped = stored(graphs.grouped(), tmp_path)
    plan = planned(grouped)
    entry = next(g for g in plan["groups"] if "groups.w:0" in g["sources"])
    entry["removed"] = [0, 1]
    grouped.with_name("plan.json").write_text(json.dumps(plan))
    pattern = "the rows of 'reduce.w' would keep 0 to 4 channels; leave equally many in every row"
    refused(carry_out(grouped, grouped.with_name("plan.json")), pattern, tmp_path)


def test_report_of_apply_is_not_its_plan(model: Path) -> None:
    planned(model)
    path = model.with_name("good.json")
    refused([*carry_out(model, path), "--report", path], "would overwrite another file of this run", model.parent)
