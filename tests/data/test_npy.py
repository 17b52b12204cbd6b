"""Laws of a folder of arrays: a file is a sample or a batch, belongs to one input, and is named where it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.data.npy import read_npy
from onnxprune.errors import DataError
from onnxprune.model import Model
from tests import graphs
from tests.data.test_npz import images, model
from tests.data.test_samples import recurrent, sequences


def put(folder: Path, **arrays: Any) -> Path:
    """Arrays as files; a double underscore is a folder."""
    for name, array in arrays.items():
        path = folder / f"{name.replace('__', '/')}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
    return folder


def two() -> Model:
    return graphs.loaded(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 2] x, int64[N] x_ids) => (float[N, 2] y) '
            "{ y = Identity (x) }"
        )
    )


def numbered(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32)[:, None].repeat(2, 1)


def firsts(found: Any, name: str = "x") -> list[float]:
    return [float(row.ravel()[0]) for feeds in found.sets for row in feeds[name]]


def test_files_hold_samples_or_batches_and_none_is_lost(tmp_path: Path) -> None:
    x = images(6)
    put(tmp_path, a=x[0], b=x[1:4], deeper__c=x[4:])
    found = read_npy(model(), tmp_path, 100, 0)
    assert found.about == {"samples": 6, "files": 3, "of": 6}
    assert sorted(firsts(found)) == sorted(x[:, 0, 0, 0].tolist()) != firsts(found)
    assert firsts(read_npy(model(), tmp_path, 100, 0)) == firsts(found) != firsts(read_npy(model(), tmp_path, 100, 1))


def test_no_more_files_are_opened_than_samples_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(40):
        put(tmp_path, **{f"{n:02}": np.full((3, 8, 8), n, np.float32)})
    opened, load = [], np.load
    monkeypatch.setattr(np, "load", lambda path, **how: opened.append(path) or load(path, **how))
    found = read_npy(model(), tmp_path, 4, 0)
    assert len(opened) == 4 == found.count and sorted(n // 10 for n in firsts(found)) == [0, 1, 2, 3]
    assert "of" not in found.about and found.about["files"] == 40


def test_of_one_large_file_rows_are_taken_all_over(tmp_path: Path) -> None:
    put(tmp_path, all=np.arange(100, dtype=np.float32)[:, None, None, None] * np.ones((100, 3, 8, 8), np.float32))
    found = read_npy(model(), tmp_path, 10, 0)
    assert sorted(n // 10 for n in firsts(found)) == list(range(10)) and found.about["of"] == 100


def test_a_fixed_batch_is_rows_that_follow_each_other(tmp_path: Path) -> None:
    for n in range(7):
        put(tmp_path, **{str(n): np.full((3, 8, 8), n, np.float32)})
    found = firsts(read_npy(model(3), tmp_path, 7, 0))
    assert sorted(found) == [0, 1, 2, 3, 4, 5] and found[0] % 3 == 0 and found[:3] == [found[0] + n for n in range(3)]
    with pytest.raises(DataError, match="holds 7 samples, the model takes 8 at a time"):
        read_npy(model(8), tmp_path, 4, 0)


@pytest.mark.parametrize("form", ["names", "one each", "folders", "mixed sizes"])
def test_files_of_several_inputs_are_told_by_name(form: str, tmp_path: Path) -> None:
    x, ids = numbered(6), np.arange(6)
    if form == "names":  # the longer name counts: x_ids_0 is not x's
        put(tmp_path, **{f"x_{n}": x[n] for n in range(6)}, **{f"x_ids_{n}": ids[n] for n in range(6)})
    elif form == "one each":
        put(tmp_path, x=x, x_ids=ids, labels=np.zeros(6))
    elif form == "folders":
        put(tmp_path, **{f"x__{n}": x[n] for n in range(6)}, **{f"x_ids__{n}": ids[n] for n in range(6)})
    else:
        put(tmp_path, x_0=x[:4], x_1=x[4:], x_ids=ids)
    found = read_npy(two(), tmp_path, 4, 0)
    assert found.count == 4 and firsts(found) == firsts(found, "x_ids")


def test_an_input_that_a_file_cannot_be_named_after(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 2] x, float[N, 2] z) => (float[N, 2] y) '
        "{ y = Add (x, z) }"
    )
    for place, name in ((proto.graph.input[0], "in/x:0"), (proto.graph.input[1], "in/z:0")):
        place.name = name
    proto.graph.node[0].input[:] = ["in/x:0", "in/z:0"]
    put(tmp_path, in_x_0=numbered(3), in_z_0_1=numbered(3))
    assert set(read_npy(graphs.loaded(proto), tmp_path, 9, 0).sets[0]) == {"in/x:0", "in/z:0"}


def test_scalars_states_and_clips_of_any_length(tmp_path: Path) -> None:
    put(tmp_path / "a", x_0=np.ones(3, np.float32), x_1=np.ones(5, np.float32), x_2=np.ones(3, np.float32))
    put(tmp_path / "a", s=np.float32(2))
    shapes = {feeds["x"].shape for feeds in read_npy(sequences(), tmp_path / "a", 9, 0).sets}
    assert shapes == {(2, 3), (1, 5)}
    put(tmp_path / "a", s_2=np.float32(3))
    with pytest.raises(DataError, match=r"'s', which has no axis.*another value.*s_2\.npy"):
        read_npy(sequences(), tmp_path / "a", 9, 0)
    for n in range(3):
        put(tmp_path / "b", **{f"x_{n}": np.ones((1, 3), np.float32), f"h_{n}": np.ones((2, 1, 4), np.float32)})
    found = read_npy(recurrent(), tmp_path / "b", 2, 0)
    assert [feeds["h"].shape for feeds in found.sets] == [(2, 1, 4)] * 2


WRONG = {
    "type": (np.zeros((3, 8, 8)), "float64, the model's input is float32"),
    "channels": (np.zeros((1, 8, 8), np.float32), "shape 1 x 1 x 8 x 8, the model's input takes any x 3 x 8 x 8"),
    "rank": (np.zeros((8, 8), np.float32), "has shape 8 x 8"),
    "empty": (np.zeros((0, 3, 8, 8), np.float32), "has shape 0 x 3 x 8 x 8"),
    "not finite": (np.full((3, 8, 8), np.nan, np.float32), "NaN or infinity"),
    "objects": (np.array([{}], dtype=object), "cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_does_not_fit_is_named(name: str, tmp_path: Path) -> None:
    array, message = WRONG[name]
    put(tmp_path, good=images(1), wrong=array)
    with pytest.raises(DataError, match=message) as caught:
        read_npy(model(), tmp_path, 100, 0)
    assert "wrong.npy" in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00v\x00"])
def test_a_broken_file_is_named(content: bytes, tmp_path: Path) -> None:
    put(tmp_path, good=images(1))
    (tmp_path / "wrong.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read.*wrong\.npy; write it with numpy\.save"):
        read_npy(model(), tmp_path, 100, 0)


def test_inputs_that_lack_files_or_have_other_numbers_are_refused(tmp_path: Path) -> None:
    put(tmp_path, x=numbered(4))
    with pytest.raises(DataError, match=r"no .npy file is named after the model's input 'x_ids'.*INPUT_0001"):
        read_npy(two(), tmp_path, 9, 0)
    put(tmp_path, x_ids_0=np.arange(1), x_ids_1=np.arange(2))
    with pytest.raises(DataError, match="differ in their number of samples: 'x' 4, 'x_ids' 3"):
        read_npy(two(), tmp_path, 9, 0)
    np.savez(tmp_path / "a.npz", x=numbered(1))
    (tmp_path / "a.npz").rename(tmp_path / "x.npy")
    with pytest.raises(DataError, match=r"is an \.npz archive"):
        read_npy(two(), tmp_path, 9, 0)


def test_the_samples_of_a_fixed_batch_must_be_of_one_shape(tmp_path: Path) -> None:
    held = graphs.loaded(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[2, T] x) => (float[2, T] y) { y = Identity (x) }'
        )
    )
    put(tmp_path, a=np.ones(3, np.float32), b=np.ones(4, np.float32))
    with pytest.raises(DataError, match=r"another shape.*in one batch of 2.*b\.npy"):
        read_npy(held, tmp_path, 9, 0)
