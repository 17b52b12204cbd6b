"""Laws of reading samples: the kind is told by what lies there, and all kinds give the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxprune.data import kind_of, read
from onnxprune.errors import DataError
from tests.data.test_images import folder, taking

SHAPE = "N, 3, 4, 4"


def forms(root: Path) -> dict[str, Path]:
    """The same samples in every form."""
    images = folder(root / "images", 9)
    x = np.stack([np.full((3, 4, 4), n, np.float32) for n in range(9)])
    np.savez(root / "x.npz", x=x)
    (root / "npy").mkdir()
    np.save(root / "npy" / "all.npy", x)
    (root / "x.py").write_text(
        "import numpy as np\ndef batches():\n    for n in range(9): yield np.full((1, 3, 4, 4), n, 'f')\n"
    )
    return {"npz": root / "x.npz", "npy": root / "npy", "images": images, "script": root / "x.py"}


def test_every_kind_gives_the_same_samples(tmp_path: Path) -> None:
    held = forms(tmp_path)
    for kind, path in held.items():
        assert kind_of(path) == kind
        found = read(taking(SHAPE), path, 100, preprocess="0..255" if kind == "images" else None)
        (feeds,) = found.sets
        assert sorted(feeds["x"][:, 0, 0, 0]) == list(range(9)) and feeds["x"].dtype == np.float32
        assert found.about["kind"] == kind and found.about["source"] == str(path) and found.about["samples"] == 9


def test_preprocessing_is_for_images_alone(tmp_path: Path) -> None:
    held = forms(tmp_path)
    for kind in ("npz", "npy", "script"):
        with pytest.raises(DataError, match="--preprocess is for a folder of images, and --data is none"):
            read(taking(SHAPE), held[kind], 9, preprocess="0..1")


def test_folders_with_nothing_or_with_two_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither \.npy files nor images; .*give an \.npz"):
        kind_of(tmp_path)
    np.savez(tmp_path / "x.npz", x=np.zeros(1))
    with pytest.raises(DataError, match=r"but an \.npz; .*name the \.npz itself"):
        kind_of(tmp_path)
    np.save(tmp_path / "x.npy", np.zeros(1))
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="holds arrays and images"):
        kind_of(tmp_path)


@pytest.mark.parametrize(("name", "advice"), [("x.npy", "folder"), ("x.PNG", "folder"), ("x.txt", "give an .npz")])
def test_one_file_that_is_no_archive_is_told_what_to_be(name: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"no archive")
    with pytest.raises(DataError, match=advice) as found:
        read(taking(SHAPE), tmp_path / name, 9)
    assert "write it with numpy.savez" not in str(found.value)


@pytest.mark.parametrize("name", ["none", "none.npz", "none.npy"])
def test_a_path_that_is_not_there_is_to_be_checked(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No such file or directory.*check the path"):
        read(taking(SHAPE), tmp_path / name, 9)


def test_no_samples_are_said_to_be_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((0, 3, 4, 4), np.float32))
    with pytest.raises(DataError, match="which is no sample"):
        read(taking(SHAPE), tmp_path / "x.npz", 9)
