"""Laws of a folder of images: pixels as training pipelines see them, few opened, and the unreadable counted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from onnxprune.data import images as module
from onnxprune.data.images import coloured, decoded, read_images
from onnxprune.errors import DataError
from onnxprune.model import Model
from tests import graphs
from tests.data.test_npy import two
from tests.data.test_preprocess import how

RNG = np.random.default_rng(0)


def taking(shape: str, kind: str = "float") -> Model:
    text = (
        f'<ir_version: 8, opset_import: ["" : 17]> g ({kind}[{shape}] x) => ({kind}[{shape}] y) {{ y = Identity (x) }}'
    )
    return graphs.loaded(onnx.parser.parse_model(text))


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def saved(path: Path, array: np.ndarray, mode: str | None = None, **how: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **how)  # type: ignore[arg-type]
    return path


def folder(root: Path, count: int, size: int = 4) -> Path:
    for n in range(count):
        saved(root / f"class{n % 3}" / f"{n:03}.png", np.full((size, size, 3), n, np.uint8))
    return root


def test_pixels_of_the_right_size_are_not_touched(tmp_path: Path) -> None:
    x = pixels(4, 6, 3)
    saved(tmp_path / "a" / "x.png", x)
    found = read_images(taking("N, 3, 4, 6"), tmp_path, 9, 0, "0..255")
    np.testing.assert_array_equal(found.sets[0]["x"], x.transpose(2, 0, 1)[None].astype(np.float32))
    last = read_images(taking("1, 4, 6, 3", "uint8"), tmp_path, 9, 0, None)
    np.testing.assert_array_equal(last.sets[0]["x"], x[None])


def test_some_of_many_from_every_class_and_only_those_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path, 60)
    opened, before = [], module.decoded
    monkeypatch.setattr(module, "decoded", lambda path, how: opened.append(path) or before(path, how))
    found = read_images(taking("N, 3, 4, 4"), tmp_path, 6, 0, "0..255")
    values = found.sets[0]["x"][:, 0, 0, 0]
    assert len(opened) == 6 and sorted(values % 3) == [0, 0, 1, 1, 2, 2] and len({*values[:3] % 3}) > 1
    again = read_images(taking("N, 3, 4, 4"), tmp_path, 6, 0, "0..255")
    assert (again.sets[0]["x"] == found.sets[0]["x"]).all()
    assert found.about["samples"] == 6 and found.about["of"] == 60


def test_a_fixed_batch_is_filled_or_what_is_left_over_is_left_out(tmp_path: Path) -> None:
    folder(tmp_path, 7)
    assert len(read_images(taking("4, 3, 4, 4"), tmp_path, 3, 0, "0..1").sets[0]["x"]) == 4
    assert len(read_images(taking("3, 3, 4, 4"), tmp_path, 99, 0, "0..1").sets[0]["x"]) == 6
    with pytest.raises(DataError, match="7 images, the model takes 8 at a time"):
        read_images(taking("8, 3, 4, 4"), tmp_path, 99, 0, "0..1")


def test_modes_become_what_the_input_takes(tmp_path: Path) -> None:
    rgb, grey, alpha = pixels(2, 2, 3), pixels(2, 2), pixels(2, 2, 4)
    colour, single = how("0..255", "N", 3, 2, 2), how("0..255", "N", 1, 2, 2)
    for name, image, wanted in (
        ("rgb", Image.fromarray(rgb), rgb),
        ("grey", Image.fromarray(grey), grey[..., None].repeat(3, 2)),
        ("alpha", Image.fromarray(alpha), alpha[..., :3]),  # transparency is dropped, not painted over
        ("wide", Image.fromarray(grey.astype(np.uint16) * 257), grey[..., None].repeat(3, 2)),
        ("bits", Image.fromarray(grey).convert("1"), None),
        ("palette", Image.fromarray(rgb).quantize(4), rgb),
    ):
        image.save(tmp_path / f"{name}.png")
        found = decoded(tmp_path / f"{name}.png", colour)
        assert found.shape == (2, 2, 3) and found.dtype == np.uint8
        if wanted is not None:
            np.testing.assert_array_equal(found, wanted, err_msg=name)
    np.testing.assert_array_equal(decoded(tmp_path / "wide.png", single)[..., 0], grey)
    np.testing.assert_array_equal(decoded(tmp_path / "alpha.png", how("0..255", "N", 4, 2, 2)), alpha)
    clear = Image.fromarray(rgb).quantize(4)
    clear.save(tmp_path / "clear.png", transparency=0)
    np.testing.assert_array_equal(decoded(tmp_path / "clear.png", colour), rgb)
    with pytest.raises(DataError, match="no known range"):
        coloured(Image.fromarray(np.ones((2, 2), np.float32)), "RGB")


def test_blue_first_and_alpha_stays_last(tmp_path: Path) -> None:
    alpha = pixels(2, 2, 4)
    saved(tmp_path / "x.png", alpha)
    found = read_images(taking("N, 2, 2, 4"), tmp_path, 9, 0, "0..255,channels=BGRA").sets[0]["x"][0]
    np.testing.assert_array_equal(found, alpha[..., [2, 1, 0, 3]])


def test_the_cameras_turn_is_undone(tmp_path: Path) -> None:
    x = pixels(2, 4, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    saved(tmp_path / "x.png", x, exif=exif)
    np.testing.assert_array_equal(decoded(tmp_path / "x.png", how("", "N", 3, 4, 2)), np.rot90(x, -1))


def test_resizing_and_crop_keep_the_proportions(tmp_path: Path) -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200  # the middle third
    saved(tmp_path / "x.png", wide)
    assert (decoded(tmp_path / "x.png", how("", "N", 3, 10, 10)) == 200).all()
    squeezed = decoded(tmp_path / "x.png", how("crop=none", "N", 3, 10, 10))
    assert squeezed[0, 0, 0] == 0 and squeezed[0, 5, 0] == 200
    inner = decoded(tmp_path / "x.png", how("resize=20,interpolation=nearest", "N", 3, 20, 20))
    assert (inner == 200).all()
    for size in ((5, 10), (20, 60), (7, 2)):  # what covers the input, larger and smaller
        assert decoded(tmp_path / "x.png", how("", "N", 3, *size)).shape == (*size, 3)
    assert decoded(tmp_path / "x.png", how("resize=12x40", "N", 3, 12, 40)).shape == (12, 40, 3)
    assert decoded(tmp_path / "x.png", how("resize=13", "N", 3, 8, 12)).shape == (8, 12, 3)


BROKEN = {"empty.png": b"", "text.jpg": b"not an image", "cut.png": None, "header.gif": b"GIF89a\x01"}


def test_what_cannot_be_read_is_left_out_and_counted(tmp_path: Path) -> None:
    folder(tmp_path, 3, 64)
    for name, content in BROKEN.items():
        good = saved(tmp_path / "good.png", pixels(64, 64, 3)).read_bytes()
        (tmp_path / name).write_bytes(good[: len(good) // 2] if content is None else content)
    (tmp_path / "good.png").unlink()
    found = read_images(taking("N, 3, 64, 64"), tmp_path, 99, 0, "0..255")
    assert sorted(found.sets[0]["x"][:, 0, 0, 0]) == [0, 1, 2]
    assert (found.about["samples"], found.about["unreadable"], found.about["of"]) == (3, 4, 7)
    assert any(name in found.about["first_unreadable"] for name in BROKEN)


def test_if_none_can_be_read_the_first_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"not enough images can be read.*x\.png.*cannot identify"):
        read_images(taking("N, 3, 4, 4"), tmp_path, 99, 0, "0..1")


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_interrupts_and_want_of_memory_are_no_broken_images(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, "decoded", stopped)
    with pytest.raises(error):
        read_images(taking("N, 3, 4, 4"), folder(tmp_path, 2), 99, 0, "0..1")


def test_images_are_for_models_with_one_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images are for one input, the model has 'x', 'x_ids'"):
        read_images(two(), folder(tmp_path, 1), 9, 0, None)


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataError, match=r"Pillow.*pip install 'onnxprune\[images\]'"):
        read_images(taking("N, 3, 4, 4"), folder(tmp_path, 1), 9, 0, None)
