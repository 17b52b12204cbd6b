"""Laws of calibration data: what reaches the model fits its inputs, or an error names the array and the remedy."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.data import load_npz
from onnxprune.data.npz import read_npz
from onnxprune.errors import DataError
from onnxprune.model import Model
from tests import graphs

SHAPE = (6, 3, 8, 8)


def images(count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, *SHAPE[1:])).astype(np.float32)


def model(batch: int | str = "N") -> Model:
    proto = graphs.chain()
    for info in (*proto.graph.input, *proto.graph.output):
        dim = info.type.tensor_type.shape.dim[0]
        dim.Clear()
        if isinstance(batch, int):
            dim.dim_value = batch
        else:
            dim.dim_param = batch
    return graphs.loaded(proto)


def archive(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def test_arrays_named_after_inputs_are_read_and_others_ignored(tmp_path: Path) -> None:
    feeds = load_npz(model(), archive(tmp_path, x=images(), labels=np.arange(6)))
    assert list(feeds) == ["x"]
    np.testing.assert_array_equal(feeds["x"], images())


def test_initializers_listed_as_inputs_need_no_array(tmp_path: Path) -> None:
    proto = graphs.chain()
    proto.graph.input.append(helper.make_tensor_value_info("fc.b", TensorProto.FLOAT, (5,)))
    assert list(load_npz(graphs.loaded(proto), archive(tmp_path, x=images()))) == ["x"]


def infinite() -> np.ndarray:
    x = images()
    x[3, 1] = np.inf
    return x


WRONG = {
    "name": ({"image": images()}, "no array for the model's input 'x'.*it has: image.*numpy.savez"),
    "nothing": ({}, "no array for the model's input 'x'.*it has: none"),
    "type": ({"x": images().astype(np.float64)}, r"'x' is float64, the model's input is float32.*astype"),
    "integers": ({"x": images().astype(np.uint8)}, "'x' is uint8"),
    "rank": ({"x": images()[0]}, "shape 3 x 8 x 8, the model's input takes any x 3 x 8 x 8"),
    "channels": ({"x": images()[:, :1]}, "shape 6 x 1 x 8 x 8"),
    "layout": ({"x": images().transpose(0, 2, 3, 1)}, "shape 6 x 8 x 8 x 3"),
    "no samples": ({"x": images(0)}, "shape 0 x 3 x 8 x 8"),
    "infinity": ({"x": infinite()}, "'x' holds NaN or infinity"),
    "not a number": ({"x": images() * np.float32("nan")}, "'x' holds NaN or infinity"),
}


@pytest.mark.parametrize("name", WRONG)
def test_arrays_that_do_not_fit_are_refused(name: str, tmp_path: Path) -> None:
    arrays, message = WRONG[name]
    path = archive(tmp_path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load_npz(model(), path)
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_fixed_batch_takes_whole_batches_only(tmp_path: Path) -> None:
    assert load_npz(model(3), archive(tmp_path, x=images(6)))["x"].shape == SHAPE
    with pytest.raises(DataError, match="shape 6 x 3 x 8 x 8, the model's input takes 4 x 3 x 8 x 8"):
        load_npz(model(4), archive(tmp_path, x=images(6)))


def pickled(path: Path) -> None:
    np.savez(path, x=np.array([{"a": 1}], dtype=object))


def truncated(path: Path) -> None:
    np.savez(path, x=images())
    path.write_bytes(path.read_bytes()[:-40])


def damaged(path: Path) -> None:
    np.savez(path, x=images())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def single(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, images())


FILES = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("1,2,3\n"),
    "a folder": lambda path: path.mkdir(),
    "a single array": single,
    "pickled objects": pickled,
    "truncated": truncated,
    "damaged": damaged,
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_archives_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    FILES[name](path)
    with pytest.raises(DataError, match=r"is not an \.npz|cannot be read") as caught:
        load_npz(model(), path)
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_more_samples_than_wanted_are_spread_over_all_in_their_order(tmp_path: Path) -> None:
    x = np.zeros((100, *SHAPE[1:]), np.float32) + np.arange(100, dtype=np.float32)[:, None, None, None]
    found = read_npz(model(), archive(tmp_path, x=x), 10, 0)
    rows = found.sets[0]["x"][:, 0, 0, 0]
    assert (rows // 10).tolist() == list(range(10)) and found.about == {"samples": 10, "of": 100}
    whole = read_npz(model(4), archive(tmp_path, x=x), 10, 0).sets[0]["x"][:, 0, 0, 0]
    assert len(whole) == 12 and all((whole[n : n + 4] == whole[n] + np.arange(4)).all() for n in (0, 4, 8))


def test_text_and_types_that_numpy_lacks_come_back_as_they_were(tmp_path: Path) -> None:
    text = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (string[N] x, bfloat16[N] b) => (string[N] y) { y = Identity (x) }'
    )
    held = graphs.loaded(text)
    words, small = np.array(["a", "longer"]), np.array([1.5, 2], ml_dtypes.bfloat16)
    found = load_npz(held, archive(tmp_path, x=words, b=small))
    assert found["x"].dtype == object and found["x"].tolist() == ["a", "longer"]
    assert found["b"].dtype == small.dtype and (found["b"] == small).all()
    assert load_npz(held, archive(tmp_path, x=words.astype("S"), b=small))["x"].tolist() == ["a", "longer"]
    with pytest.raises(DataError, match="'x' is int64, the model's input is text"):
        load_npz(held, archive(tmp_path, x=np.arange(2), b=small))
