"""What exporters leave about images. Law: nothing is guessed from names; what is not understood in full is left out.

Three places are known: ONNX's own metadata of images (docs/MetadataProps.md of the standard: pixel format, nominal
range, and axes by their denotation), the metadata of Ultralytics' exports, and the `preprocessor_config.json` that
Hugging Face's exports carry beside the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from onnxprune.data.preprocess import PRESETS
from onnxprune.errors import DataError
from onnxprune.model import Model

METADATA, CONFIG = "the model's metadata", "preprocessor_config.json"
FORMATS = {"Gray8": "GRAY", "Rgb8": "RGB", "Bgr8": "BGR", "Rgba8": "RGBA", "Bgra8": "BGRA"}
RANGES = {"NominalRange_0_255": "0..255", "Normalized_0_1": "0..1", "Normalized_1_1": "-1..1"}
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def hints(model: Model, info: onnx.ValueInfoProto) -> tuple[dict[str, Any], str]:
    """What was left about an input, as `preprocess.parse` gives it, and where it lies.

    Raises:
        DataError: It says what cannot be done.
    """
    held = {entry.key: entry.value for entry in model.proto.metadata_props}
    found = {**standard(held), **ultralytics(held), **denoted(info)}
    if "scale" in found or model.path is None:
        return found, METADATA
    beside = config(Path(model.path).parent / CONFIG)
    return {**beside, **found}, CONFIG if beside else METADATA


def standard(held: Mapping[str, str]) -> dict[str, Any]:
    """ONNX's metadata of images."""
    found: dict[str, Any] = {}
    if channels := FORMATS.get(held.get("Image.BitmapPixelFormat", "")):
        found["channels"] = channels
    nominal = held.get("Image.NominalPixelRange", "")
    if nominal in RANGES:
        found |= PRESETS[RANGES[nominal]]
    elif nominal:
        what = f"the model's metadata say its pixels have the range {nominal}, which --data does not make"
        raise DataError(what, remedy="say the values with --preprocess, or give arrays")
    return found


def ultralytics(held: Mapping[str, str]) -> dict[str, Any]:
    """The size, and pixels between 0 and 1."""
    if held.get("author") != "Ultralytics":
        return {}
    size = parsed(held.get("imgsz", ""))
    whole = isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
    return {**PRESETS["0..1"], **({"size": tuple(size)} if whole else {})}


def denoted(info: onnx.ValueInfoProto) -> dict[str, Any]:
    """The layout, where the axis of channels is marked."""
    marks = [d.denotation for d in info.type.tensor_type.shape.dim]
    at = marks.index("DATA_CHANNEL") if len(marks) == 4 and marks.count("DATA_CHANNEL") == 1 else 0
    return {"layout": {1: "NCHW", 3: "NHWC"}[at]} if at in (1, 3) else {}


def config(path: Path) -> dict[str, Any]:
    """A Hugging Face image processor's settings; nothing where the file is absent, or of another kind."""
    try:
        held = parsed(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return {}
    mean, std = (held.get(key) for key in ("image_mean", "image_std")) if isinstance(held, dict) else (None, None)
    if not isinstance(held, dict) or not all(numbers(side) for side in (mean, std)):
        return {}
    normal, scaled = (held.get(key, True) for key in ("do_normalize", "do_rescale"))
    factor = held.get("rescale_factor", 1 / 255)
    found: dict[str, Any] = {"scale": round(1 / factor, 6) if scaled else 1.0, "mean": (0.0,), "std": (1.0,)}
    if normal:
        found |= {"mean": tuple(map(float, mean or ())), "std": tuple(map(float, std or ()))}
    return found | geometry(held)


def geometry(held: Mapping[str, Any]) -> dict[str, Any]:
    """Resizing and crop of an image processor."""
    found: dict[str, Any] = {}
    if held.get("resample") in RESAMPLING:
        found["interpolation"] = RESAMPLING[held["resample"]]
    resize = side(held.get("size")) if held.get("do_resize", True) else None
    if held.get("do_center_crop"):
        crop = side(held.get("crop_size"))
        found |= {"size": (crop, crop) if isinstance(crop, int) else crop} if crop else {}
        return found | ({"resize": resize} if resize else {})
    if isinstance(resize, tuple):
        return found | {"size": resize, "crop": "none"}
    return found


def side(size: Any) -> Any:
    """A size as `preprocess` has it: the shorter side, or height and width; None where it is neither."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or (size.get("height"), size.get("width"))
    whole = size if isinstance(size, tuple) else (size,)
    return size if all(isinstance(n, int) and n > 0 for n in whole) else None


def numbers(value: Any) -> bool:
    """Whether it is one number for each of 1, 3 or 4 channels."""
    return isinstance(value, list) and len(value) in (1, 3, 4) and all(isinstance(n, int | float) for n in value)


def parsed(text: str) -> Any:
    """JSON, or None."""
    try:
        return json.loads(text)
    except ValueError:
        return None
