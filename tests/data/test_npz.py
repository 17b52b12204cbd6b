"""Laws of calibration data: what reaches the model fits its inputs, or an error names the array and the remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.data import batches, load_npz
from onnxprune.errors import DataError
from onnxprune.model import Model
from onnxprune.runtime import run
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


@pytest.mark.parametrize(("count", "size", "limit"), [(6, 4, 16), (6, 6, 6), (40, 8, 16), (1, 8, 16), (5, 2, 3)])
def test_batches_are_the_samples_in_order(count: int, size: int, limit: int) -> None:
    x = images(count)
    parts = [feeds["x"] for feeds in batches(model(), {"x": x}, size=size, limit=limit)]
    together = np.concatenate(parts)
    np.testing.assert_array_equal(together, x[: len(together)])
    assert min(count, limit) <= len(together) <= min(count, limit + size - 1)
    assert all(len(p) == size for p in parts[:-1]) and 0 < len(parts[-1]) <= size


@pytest.mark.parametrize("batch", [1, 3, "N"])
def test_the_model_runs_on_every_batch(batch: int | str) -> None:
    held = model(batch)
    sizes = {len(run(held, feeds)["y"]) for feeds in batches(held, {"x": images(6)}, size=2)}
    assert sizes == {batch if isinstance(batch, int) else 2}


def test_inputs_without_a_common_number_of_samples_are_one_batch() -> None:
    feeds = {"x": images(6), "scale": np.ones(3, np.float32)}
    assert list(batches(model(), feeds)) == [feeds]


def test_inputs_without_axes_go_to_every_batch() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 2] x, float s) => (float[N, 2] y) { y = Mul (x, s) }'
    )
    held = graphs.loaded(proto)
    feeds = {"x": np.ones((4, 2), np.float32), "s": np.array(3, np.float32)}
    parts = list(batches(held, feeds, size=2))
    assert len(parts) == 2
    for part in parts:
        np.testing.assert_array_equal(run(held, part)["y"], np.full((2, 2), 3))  # 1 x 3 is exact
