"""Laws of preprocessing: values by hand, what is told wins over what is found, and nothing open is guessed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.data.preprocess import PRESETS, Preprocess, parse, resolve
from onnxprune.errors import DataError

PIXELS = np.array([[[0, 51, 255], [255, 102, 0]]], np.uint8)  # 1 x 2 x RGB


def tensor(*dims: int | str | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("in", kind, dims)


def how(text: str, *dims: int | str | None, kind: int = TensorProto.FLOAT) -> Preprocess:
    return resolve(tensor(*dims, kind=kind), parse(text) if text else {})


NCHW = ("N", 3, 1, 2)
VALUES = {  # of the three channels of the left pixel: 0, 51, 255
    "0..1": [0, 0.2, 1],
    "-1..1": [-1, -0.6, 1],
    "0..255": [0, 51, 255],
    "imagenet": [-0.485 / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225],
    "caffe": [255 - 103.939, 51 - 116.779, 0 - 123.68],  # blue comes first
    "scale=51": [0, 1, 5],
    "mean=0.5:0.1:0,std=0.5": [-1, 0.2, 2],
    "caffe,channels=RGB,mean=1": [-1, 50, 254],  # later items win
    "0..1,channels=BGR": [1, 0.2, 0],
}


@pytest.mark.parametrize("text", VALUES)
def test_values_by_hand(text: str) -> None:
    found = how(text, *NCHW).values(PIXELS)
    assert found.shape == (3, 1, 2) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0, 0], VALUES[text], rtol=1e-6, atol=1e-6)  # a few roundings of float32


def test_values_are_those_of_the_usual_formula_bit_for_bit() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    mean, std = (np.array(PRESETS["imagenet"][key], np.float32) for key in ("mean", "std"))
    wanted = ((pixels.astype(np.float32) / np.float32(255) - mean) / std).transpose(2, 0, 1)
    np.testing.assert_array_equal(how("imagenet", 1, 3, 32, 32).values(pixels), wanted)


FOUND = {
    "channels first": (("N", 3, 4, 6), "size=4x6,crop=center", "NCHW", "RGB"),
    "channels last": ((1, 4, 6, 3), "size=4x6,crop=center", "NHWC", "RGB"),
    "one channel": (("N", 1, 4, 4), "size=4x4,crop=center", "NCHW", "GRAY"),
    "four channels": (("N", 4, 5, 5), "size=5x5,crop=center", "NCHW", "RGBA"),
    "no axis of channels": (("N", 28, 28), "size=28x28,crop=center", "NHW", "GRAY"),
}


@pytest.mark.parametrize("name", FOUND)
def test_size_layout_and_channels_are_read_from_the_input(name: str) -> None:
    dims, start, layout, channels = FOUND[name]
    found = how("", *dims)
    assert found.text.startswith(start) and (found.layout, found.channels) == (layout, channels)
    assert found.origin == "assumed" and found.mean == (PRESETS["imagenet"]["mean"] if channels == "RGB" else (0.0,))
    pixels = np.zeros((*found.size, {"RGB": 3, "RGBA": 4, "GRAY": 1}[channels]), np.uint8)
    assert [a for a, b in zip(found.values(pixels).shape, dims[1:], strict=True) if a != b] == []


@pytest.mark.parametrize("text", ["imagenet", "caffe,size=7x9,resize=12", "-1..1,crop=none,interpolation=bicubic"])
def test_the_text_says_it_all_and_reads_back(text: str) -> None:
    first = how(text, "N", "C", "H", "W") if "size" in text and "layout" in text else how(text, "N", 3, 7, 9)
    again = how(first.text, "N", 3, 7, 9)
    assert again == first and again.origin == "given"


def test_what_is_open_can_be_said() -> None:
    found = how("0..1,size=8,layout=NHWC,channels=GRAY", None, None, None, None)
    assert (found.size, found.layout, found.channels) == ((8, 8), "NHWC", "GRAY")
    assert how("0..1,size=8x5", 1, "H", "W", 3).size == (8, 5)
    assert how("0..1,size=8", 1, 3, 8, "W").size == (8, 8)
    assert how("0..1,resize=300x200", 1, 3, 200, 100).resize == (300, 200)


def test_whole_numbers_get_pixels_as_they_are() -> None:
    found = how("", 1, 1, 2, 3, kind=TensorProto.UINT8)
    assert found.values(PIXELS).dtype == np.uint8 and (found.values(PIXELS) == PIXELS).all()
    assert found.origin == "the input's type" and how("0..255", 1, 1, 2, 3, kind=TensorProto.INT32).scale == 1
    with pytest.raises(DataError, match="is uint8: pixels go in as they are"):
        how("imagenet", 1, 1, 2, 3, kind=TensorProto.UINT8)
    with pytest.raises(DataError, match="is int8, which does not hold pixels"):
        how("", 1, 1, 2, 3, kind=TensorProto.INT8)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16])
def test_other_floats(kind: int) -> None:
    found = how("0..1", *NCHW, kind=kind).values(PIXELS)
    assert found.dtype == helper.tensor_dtype_to_np_dtype(kind)
    np.testing.assert_allclose(found[:, 0, 0].astype(float), [0, 0.2, 1], rtol=4e-3)  # bfloat16 has 8 bits


def test_what_is_said_wins_over_what_was_left() -> None:
    left = {**PRESETS["-1..1"], "channels": "BGR", "size": (4, 4)}
    found = resolve(tensor("N", 3, "H", "W"), parse("size=6"), left, "there")
    assert (found.size, found.channels, found.mean, found.origin) == ((6, 6), "BGR", (0.5,), "there")
    found = resolve(tensor("N", 3, 8, 8), parse("scale=2"), left, "there")  # not one's scale and another's mean
    assert (found.scale, found.mean, found.origin, found.size) == (2, (0.0,), "given", (8, 8))


WRONG = {
    "imagnet": "'imagnet' is no preset; there are: imagenet",
    "colour=RGB": "'colour' is no key; there are: size",
    "size=big": "'size=big' is wrong: give pixels",
    "size=0": "give pixels",
    "size=2x3x4": "give pixels",
    "mean=a": "could not convert",
    "mean=1:2": "a number for each channel",
    "mean=nan": "a number for each channel",
    "std=0": "nothing can be divided",
    "std=1:0:1": "nothing can be divided",
    "scale=1:2:3": "one number for all",
    "layout=CHW": "give one of NCHW",
    "crop=left": "give one of center, none",
    "": "says nothing",
    " , ": "says nothing",
}


@pytest.mark.parametrize("text", WRONG)
def test_slips_are_told(text: str) -> None:
    with pytest.raises(DataError, match=WRONG[text]) as found:
        parse(text)
    assert len(str(found.value).splitlines()) == 1


REFUSED: dict[str, tuple[str, tuple[int | str | None, ...], str]] = {
    "open size": ("", (1, 3, "H", "W"), "leaves the size of images open; .*size=224"),
    "open layout": ("", (1, "C", 8, "D"), "leaves open where its channels are; .*layout=NCHW"),
    "either layout": ("", (1, 3, 8, 3), "leaves open where its channels are"),
    "five channels": ("", (1, 5, 8, 8), "takes no images; give arrays"),
    "five channels, told": ("layout=NCHW", (1, 5, 8, 8), "has 5 channels, images 1, 3 or 4"),
    "another size": ("size=9", (1, 3, 8, 8), "size=9x9 contradicts the model's input 'in' of 8 x 8"),
    "other channels": ("channels=GRAY", (1, 3, 8, 8), "has 3 channels, images GRAY"),
    "vectors": ("", ("N", 784), r"\(any x 784\) takes no images"),
    "no axis of samples": ("", (3, 8, 8), "takes no images"),
    "another rank": ("layout=NCHW", (1, 8, 8), "NCHW has 4 axes, the model's input 'in' 3"),
    "means": ("mean=1:2:3", (1, 1, 8, 8), "mean has 3 numbers, .* 1 channels"),
    "too small": ("resize=7", (1, 3, 8, 8), "resize=7 is smaller than the model's images, 8x8"),
    "no crop": ("resize=9,crop=none", (1, 3, 8, 8), "resize=9 leaves images that are not 8x8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_contradicts_the_input_or_leaves_it_open_is_refused(name: str) -> None:
    text, dims, message = REFUSED[name]
    with pytest.raises(DataError, match=message):
        how(text, *dims)
