"""Laws of what exporters leave: it is read where it is understood in full, and left out otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from onnxprune.data.hints import config, hints
from onnxprune.data.preprocess import PRESETS, resolve
from onnxprune.errors import DataError
from onnxprune.model import Model, load
from tests import graphs
from tests.contract import stored

VIT = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": 224, "resample": 2}
CONVNEXT = {
    "crop_size": {"height": 8, "width": 6},
    "do_center_crop": True,
    "do_rescale": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "rescale_factor": 0.00392156862745098,
    "resample": 3,
    "size": {"shortest_edge": 9},
}


def model(folder: Path, **held: str) -> Model:
    proto = graphs.chain()
    helper.set_model_props(proto, held)
    return load(stored(proto, folder))


def found(model: Model) -> tuple[dict[str, Any], str]:
    return hints(model, model.inputs[0])


def test_nothing_is_found_where_nothing_lies(tmp_path: Path) -> None:
    assert found(model(tmp_path))[0] == found(model(tmp_path, producer="Bgr8"))[0] == {}


def test_metadata_of_the_standard(tmp_path: Path) -> None:
    held = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "Normalized_1_1"}
    assert found(model(tmp_path, **held)) == ({"channels": "BGR", **PRESETS["-1..1"]}, "the model's metadata")
    with pytest.raises(DataError, match=r"NominalRange_16_235.*--preprocess"):
        found(model(tmp_path, **{"Image.NominalPixelRange": "NominalRange_16_235"}))


def test_the_axis_of_channels_by_its_denotation() -> None:
    info = helper.make_tensor_value_info("in", TensorProto.FLOAT, ["N", "H", "W", "C"])
    for dim, mark in zip(
        info.type.tensor_type.shape.dim, ("DATA_BATCH", "DATA_FEATURE", "DATA_FEATURE", "DATA_CHANNEL"), strict=True
    ):
        dim.denotation = mark
    assert hints(graphs.loaded(graphs.chain()), info)[0] == {"layout": "NHWC"}


def test_ultralytics(tmp_path: Path) -> None:
    held = {"author": "Ultralytics", "imgsz": "[640, 320]"}
    assert found(model(tmp_path, **held))[0] == {**PRESETS["0..1"], "size": (640, 320)}
    assert "size" not in found(model(tmp_path, author="Ultralytics", imgsz="large"))[0]


def beside(folder: Path, content: object) -> Path:
    path = folder / "preprocessor_config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_image_processors_of_hugging_face(tmp_path: Path) -> None:
    beside(tmp_path, CONVNEXT)
    left, where = found(model(tmp_path))
    assert (where == "preprocessor_config.json" and left["size"] == {"height": 8, "width": 6}) or left["size"] == (8, 6)
    info = helper.make_tensor_value_info("in", TensorProto.FLOAT, ["N", 3, "H", "W"])
    how = resolve(info, {}, left, where)
    assert (how.size, how.resize, how.crop, how.interpolation) == ((8, 6), 9, "center", "bicubic")
    assert (how.scale, how.mean, how.origin) == (255, (0.485, 0.456, 0.406), where)


def test_old_image_processors_always_rescale(tmp_path: Path) -> None:
    left = config(beside(tmp_path, VIT))
    assert (left["scale"], left["mean"]) == (255, (0.5,) * 3)
    plain = config(beside(tmp_path, {**VIT, "do_rescale": False, "do_normalize": False}))
    assert (plain["scale"], plain["mean"], plain["std"]) == (1, (0.0,), (1.0,))
    whole = config(beside(tmp_path, {**VIT, "size": {"height": 4, "width": 5}}))
    assert (whole["size"], whole["crop"]) == ((4, 5), "none")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"image_mean": 3}', {"feature_size": 80, "image_mean": [0.5]}])
def test_what_is_of_another_kind_is_left_out(content: object, tmp_path: Path) -> None:
    assert config(beside(tmp_path, content)) == {} == config(tmp_path / "absent.json")


def test_metadata_of_the_model_win(tmp_path: Path) -> None:
    beside(tmp_path, VIT)
    left, where = found(model(tmp_path, **{"Image.NominalPixelRange": "NominalRange_0_255"}))
    assert left["scale"] == 1 and where == "the model's metadata"
