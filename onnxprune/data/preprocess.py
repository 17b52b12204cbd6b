"""How an image becomes an input. Law: every choice has a value that can be read, and comes from one named place.

In this order: what is said (`--preprocess`), what the exporter left (`hints`), what the input's type and shape say.
Only for the values of pixels is anything assumed where none of these tells it, and the report says so.

A text is a list of items, separated by commas: names of presets, and KEY=VALUE; a later one wins over an earlier.
Pixels are 0 to 255; they are divided by `scale`, then `mean` is taken off, and what is left divided by `std`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.data.fit import dims_of
from onnxprune.errors import DataError
from onnxprune.model import Array

Given = Mapping[str, Any]
Size = tuple[int, int]

PRESETS: dict[str, Given] = {
    "imagenet": {"scale": 255.0, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},  # torchvision
    "clip": {"scale": 255.0, "mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)},
    "inception": {"scale": 255.0, "mean": (0.5,), "std": (0.5,)},  # MobileNet and Inception of TensorFlow
    "-1..1": {"scale": 255.0, "mean": (0.5,), "std": (0.5,)},
    "0..1": {"scale": 255.0, "mean": (0.0,), "std": (1.0,)},
    "0..255": {"scale": 1.0, "mean": (0.0,), "std": (1.0,)},
    "caffe": {"scale": 1.0, "mean": (103.939, 116.779, 123.68), "std": (1.0,), "channels": "BGR"},
}
VALUES = ("scale", "mean", "std")
LAYOUTS = {"NCHW": (2, 3, 1), "NHWC": (1, 2, 3), "NHW": (1, 2, None)}  # axes of height, width, channels
CHANNELS = {"RGB": "RGB", "BGR": "RGB", "RGBA": "RGBA", "BGRA": "RGBA", "GRAY": "L"}  # ours -> Pillow's
USUAL = {1: "GRAY", 3: "RGB", 4: "RGBA"}
LIKELY = (3, 1, 4)  # numbers of channels; of images three pixels wide there are fewer
CROPS = ("center", "none")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
FORM = "e.g. --preprocess imagenet,resize=256 or size=224,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,scale=255"


@dataclass(frozen=True)
class Preprocess:
    """All that is done to an image.

    Attributes:
        size: Height and width of the input.
        resize: Height and width that images are stretched to before they are cropped, or the length of their shorter
            side; None is the smallest that covers `size`.
        crop: 'center', or 'none': images are stretched to `size`.
        interpolation: Of the resizing.
        scale: What pixels are divided by.
        mean: Taken off then, one for each channel or one for all, in the order of `channels`.
        std: What is left is divided by.
        layout: NCHW, NHWC or NHW.
        channels: RGB, BGR, RGBA, BGRA or GRAY.
        dtype: Of the input.
        origin: Where the values of pixels were told: 'given', another place, or 'assumed'.
    """

    size: Size
    resize: Size | int | None
    crop: str
    interpolation: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: str
    channels: str
    dtype: np.dtype[Any]
    origin: str

    @property
    def text(self) -> str:
        """The same as `--preprocess` takes it, complete."""
        shown = {"size": sized(self.size)} | ({"resize": sized(self.resize)} if self.resize else {})
        shown |= {"crop": self.crop, "interpolation": self.interpolation, "scale": number(self.scale)}
        shown |= {"mean": ":".join(map(number, self.mean)), "std": ":".join(map(number, self.std))}
        shown |= {"layout": self.layout, "channels": self.channels}
        return ",".join(f"{key}={value}" for key, value in shown.items())

    def values(self, pixels: Array) -> Array:
        """An input from the pixels of an image.

        Args:
            pixels: uint8, height x width x channels, in Pillow's order of channels.

        Returns:
            Without the axis of samples.
        """
        if self.channels.startswith("BGR"):
            pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[-1])]]
        if self.dtype.kind not in "iu":
            work = np.dtype(np.float64 if self.dtype == np.float64 else np.float32)
            scale, mean, std = (np.array(v, work) for v in (self.scale, self.mean, self.std))
            pixels = (pixels.astype(work) / scale - mean) / std
        if self.layout == "NHW":
            pixels = pixels[..., 0]
        return (pixels.transpose(2, 0, 1) if self.layout == "NCHW" else pixels).astype(self.dtype)


def sized(size: Size | int) -> str:
    """A size as text."""
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def number(value: float) -> str:
    """A number as text that reads back as the same."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))


def parse(text: str) -> dict[str, Any]:
    """What is said, and no more.

    Raises:
        DataError: An item is neither a preset nor KEY=VALUE, or a value is not one of its key.
    """
    found: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            if key.lower() not in PRESETS:
                raise DataError(f"--preprocess: '{item}' is no preset", remedy=f"there are: {', '.join(PRESETS)}")
            found |= PRESETS[key.lower()]
        elif key not in READERS:
            raise DataError(f"--preprocess: '{key}' is no key", remedy=f"there are: {', '.join(READERS)}")
        else:
            try:
                found[key] = READERS[key](value)
            except ValueError as error:
                raise DataError(f"--preprocess: '{item}' is wrong: {error}", remedy=FORM) from error
    if not found:
        raise DataError("--preprocess says nothing", remedy=FORM)
    return found


def read_size(text: str) -> Size:
    """Height and width."""
    height, times, width = text.lower().partition("x")
    sides = (height, width if times else height)
    if not all(side.isdecimal() and 0 < int(side) <= 2**16 for side in sides):
        raise ValueError("give pixels, as 224 or HEIGHTxWIDTH")
    return int(sides[0]), int(sides[1])


def read_resize(text: str) -> Size | int:
    """The shorter side, or height and width."""
    size = read_size(text)
    return size if "x" in text.lower() else size[0]


def read_numbers(text: str) -> tuple[float, ...]:
    """Numbers, one for each channel or one for all."""
    found = tuple(float(part) for part in text.split(":"))
    if not all(map(math.isfinite, found)) or len(found) not in (1, 3, 4):
        raise ValueError("give a number for each channel, as 0.485:0.456:0.406, or one for all")
    return found


def read_divisors(text: str) -> tuple[float, ...]:
    """Numbers that are not zero."""
    found = read_numbers(text)
    if not all(n > 0 for n in found):
        raise ValueError("nothing can be divided by it")
    return found


def read_scale(text: str) -> float:
    """One number that is not zero."""
    found = read_divisors(text)
    if len(found) > 1:
        raise ValueError("give one number for all channels")
    return found[0]


def one_of(*words: str) -> Callable[[str], str]:
    """A reader of one of some words, in any case."""

    def read(text: str) -> str:
        for word in words:
            if word.lower() == text.lower():
                return word
        raise ValueError(f"give one of {', '.join(words)}")

    return read


READERS: dict[str, Callable[[str], Any]] = {
    "size": read_size,
    "resize": read_resize,
    "crop": one_of(*CROPS),
    "interpolation": one_of(*INTERPOLATIONS),
    "scale": read_scale,
    "mean": read_numbers,
    "std": read_divisors,
    "layout": one_of(*LAYOUTS),
    "channels": one_of(*CHANNELS),
}


def resolve(info: onnx.ValueInfoProto, given: Given, left: Given | None = None, origin: str = "") -> Preprocess:
    """All choices for an input.

    Args:
        info: The input.
        given: What the user says, as `parse` gives it.
        left: What the exporter left.
        origin: Where that lies.

    Raises:
        DataError: The input takes no images, contradicts what is said, or leaves something open that nothing says.
    """
    told = {**(left or {}), **given}
    layout = told.get("layout") or layout_of(info)
    dims = dims_of(info) or [None] * len(layout)
    if len(dims) != len(layout):
        raise DataError(f"layout {layout} has {len(layout)} axes, the model's input '{info.name}' {len(dims)}")
    high, wide, deep = LAYOUTS[layout]
    size = size_of(info, (dims[high], dims[wide]), told.get("size"), "size" in given)
    channels = channels_of(info, 1 if deep is None else dims[deep], told.get("channels"))
    dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    resize, crop = geometry(size, told)
    values, where = pixel_values(info, dtype, len(CHANNELS[channels]), given, left or {}, origin)
    common = (size, resize, crop, told.get("interpolation", "bilinear"))
    return Preprocess(*common, *values, layout, channels, dtype, where)


def layout_of(info: onnx.ValueInfoProto) -> str:
    """The layout that a shape shows: where the axis of 1, 3 or 4 channels is."""
    dims = dims_of(info)
    if dims is not None and len(dims) == 3 and dims[0] in (None, 1):
        return "NHW"
    if dims is not None and len(dims) == 4:
        first, last = (LIKELY.index(d) if d in LIKELY else len(LIKELY) for d in (dims[1], dims[3]))
        if first != last:
            return "NCHW" if first < last else "NHWC"
        if first < len(LIKELY) or None in (dims[1], dims[3]):
            what = f"the model's input '{info.name}' leaves open where its channels are"
            raise DataError(what, remedy="say --preprocess layout=NCHW or layout=NHWC")
    shape = "of any shape" if dims is None else " x ".join("any" if d is None else str(d) for d in dims)
    raise DataError(
        f"the model's input '{info.name}' ({shape}) takes no images", remedy="give arrays: --data X.npz, or a script"
    )


def size_of(info: onnx.ValueInfoProto, dims: tuple[int | None, ...], told: Size | None, given: bool) -> Size:
    """Height and width."""
    found = [dim or (told[n] if told else 0) for n, dim in enumerate(dims)]
    if not all(found):
        what = f"the model's input '{info.name}' leaves the size of images open"
        raise DataError(what, remedy="say --preprocess size=224, or size=HEIGHTxWIDTH")
    if given and told is not None and tuple(found) != told:
        what = f"--preprocess size={sized(told)} contradicts the model's input '{info.name}' of {found[0]} x {found[1]}"
        raise DataError(what, remedy="leave it out")
    return found[0], found[1]


def channels_of(info: onnx.ValueInfoProto, count: int | None, told: str | None) -> str:
    """What the channels are."""
    found = told or USUAL.get(count or 3)
    if found is None or (count and len(CHANNELS[found]) != count):
        what = f"the model's input '{info.name}' has {count} channels, images {told or '1, 3 or 4'}"
        raise DataError(what, remedy="say --preprocess channels=..., or give arrays: --data X.npz")
    return found


def geometry(size: Size, told: Given) -> tuple[Size | int | None, str]:
    """What images are resized to, and how they are cropped.

    Raises:
        DataError: The one does not suit the other.
    """
    crop, resize = told.get("crop", "center"), told.get("resize")
    if crop == "none" and resize not in (None, size, size[0] if size[0] == size[1] else size):
        what = f"--preprocess resize={sized(resize)} leaves images that are not {sized(size)}, and crop=none"
        raise DataError(what, remedy="leave resize out, or say crop=center")
    if crop == "none" or resize is None:
        return None, crop
    sides = resize if isinstance(resize, tuple) else (resize, resize)
    if any(r < s for r, s in zip(sides, size, strict=True)):
        what = f"--preprocess resize={sized(resize)} is smaller than the model's images, {sized(size)}"
        raise DataError(what, remedy="say a larger one, or leave it out")
    return resize, crop


def pixel_values(
    info: onnx.ValueInfoProto, dtype: np.dtype[Any], count: int, given: Given, left: Given, origin: str
) -> tuple[tuple[float, tuple[float, ...], tuple[float, ...]], str]:
    """Scale, mean and standard deviation, and where they were told."""
    if dtype.kind in "iu" or not re.match("float|bfloat", dtype.name):
        return raw_values(info, dtype, given), "the input's type"
    found = next((side for side in (given, left) if any(key in side for key in VALUES)), None)
    where = "given" if found is given else origin
    if found is None:
        found, where = PRESETS["imagenet" if count == 3 else "0..1"], "assumed"
    told = {**PRESETS["0..1"], **{key: found[key] for key in VALUES if key in found}}
    for key in ("mean", "std"):
        if len(told[key]) not in (1, count):
            what = f"--preprocess {key} has {len(told[key])} numbers, the model's input '{info.name}' {count} channels"
            raise DataError(what, remedy="give one for each channel, or one for all")
    return (told["scale"], told["mean"], told["std"]), where


def raw_values(
    info: onnx.ValueInfoProto, dtype: np.dtype[Any], given: Given
) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    """Pixels as they are, for whole numbers."""
    if dtype.kind not in "iu" or np.iinfo(dtype).max < 255:
        what = f"the model's input '{info.name}' is {dtype}, which does not hold pixels of 0 to 255"
        raise DataError(what, remedy="give arrays: --data X.npz, or a script")
    raw = (1.0, (0.0,), (1.0,))
    if any(key in given and given[key] != PRESETS["0..255"][key] for key in VALUES):
        what = f"the model's input '{info.name}' is {dtype}: pixels go in as they are"
        raise DataError(what, remedy=f"leave {', '.join(VALUES)} out of --preprocess")
    return raw
