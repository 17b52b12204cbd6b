"""Laws of loading and saving: what is not touched comes out as it went in; bad files are refused in one line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import model as module
from onnxprune.errors import OutputError
from onnxprune.model import Model, load, save
from tests import graphs

TYPES = [
    *(np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn),
    *(ml_dtypes.float4_e2m1fn, ml_dtypes.int4, ml_dtypes.uint4),
    *(np.int64, np.int32, np.int16, np.int8, np.uint8, np.uint16, np.uint32, np.uint64, np.bool_, np.complex64),
]


def resaved(proto: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The model after save(load(x))."""
    onnx.save(proto, folder / "in.onnx")
    save(load(folder / "in.onnx"), folder / "out.onnx")
    return onnx.load(folder / "out.onnx")


def with_initializer(tensor: TensorProto) -> onnx.ModelProto:
    """A chain that holds one more tensor."""
    proto = graphs.chain()
    proto.graph.initializer.append(tensor)
    return proto


def same_weights(a: Model, b: Model) -> bool:
    return a.weights.keys() == b.weights.keys() and all(np.array_equal(a.weights[n], b.weights[n]) for n in a.weights)


def test_a_file_comes_out_as_it_went_in(tmp_path: Path) -> None:
    proto = graphs.rich()
    assert resaved(proto, tmp_path) == proto


def test_large_weights_keep_their_doc_strings_and_metadata(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros(module.SMALL + 1, np.float32), "large")
    tensor.doc_string = "told"
    tensor.metadata_props.add(key="k", value="v")
    proto = with_initializer(tensor)
    assert resaved(proto, tmp_path) == proto


@pytest.mark.parametrize("size", [0, 6, module.SMALL + 2])
@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: np.dtype(t).name)
def test_every_type_of_weight_survives(dtype: type, size: int, tmp_path: Path) -> None:
    value = (np.arange(size) % 5).astype(dtype).reshape(2, -1)
    again = resaved(with_initializer(numpy_helper.from_array(value, "extra")), tmp_path)
    found = numpy_helper.to_array(again.graph.initializer[-1])
    assert found.dtype == value.dtype and found.tobytes() == value.tobytes() and found.shape == value.shape


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT64", "INT8", "BOOL", "UINT64", "INT4"])
def test_typed_fields_hold_the_same_values_as_raw_bytes(kind: str, tmp_path: Path) -> None:
    tensor = helper.make_tensor("extra", getattr(TensorProto, kind), [2, 3], [1, 0, 1, 1, 0, 1])
    assert not tensor.HasField("raw_data")
    again = resaved(with_initializer(tensor), tmp_path).graph.initializer[-1]
    assert again.data_type == tensor.data_type
    assert np.array_equal(numpy_helper.to_array(again), numpy_helper.to_array(tensor))


def test_params_and_bytes_count_what_is_stored() -> None:
    weights = {"w": np.zeros((2, 3), np.float16), "b": np.zeros(4, ml_dtypes.bfloat16), "i": np.zeros(5, np.int64)}
    held = Model(onnx.ModelProto(), weights)
    assert (held.params, held.nbytes) == (10, 2 * 6 + 2 * 4 + 8 * 5)


def test_weights_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        graphs.loaded(graphs.chain(width=32)).weights["c2.w"][:] = 0


# --- external data ---------------------------------------------------------------------------------------------------


def test_external_data_is_read_and_written_beside_the_model(tmp_path: Path) -> None:
    held = load(graphs.external(tmp_path, width=32))
    assert held.external and same_weights(held, graphs.loaded(graphs.chain(width=32)))
    (tmp_path / "out").mkdir()
    save(held, tmp_path / "out" / "m.onnx")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["m.onnx", "m.onnx.data"]
    onnx.checker.check_model(tmp_path / "out" / "m.onnx", full_check=True)
    assert same_weights(load(tmp_path / "out" / "m.onnx"), held)


def test_a_model_too_large_for_one_file_gets_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = graphs.chain(width=32)
    proto.graph.initializer[2].doc_string = "second filters"
    held = graphs.loaded(proto)
    monkeypatch.setattr(module, "PROTO_LIMIT", held.nbytes - 1)
    save(held, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx.data").exists()
    assert (tmp_path / "m.onnx").stat().st_size < held.nbytes / 2
    again = load(tmp_path / "m.onnx")
    assert same_weights(again, held) and again.full() == proto


def test_external_data_of_constant_nodes_is_read(tmp_path: Path) -> None:
    proto = graphs.chain(width=32)
    weight = next(t for t in proto.graph.initializer if t.name == "c2.w")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["c2.w"], value=weight))
    proto.graph.initializer.remove(weight)
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=64, convert_attribute=True)
    expected = numpy_helper.to_array(weight)
    assert np.array_equal(numpy_helper.to_array(load(tmp_path / "m.onnx").proto.graph.node[0].attribute[0].t), expected)


# --- writing is atomic -----------------------------------------------------------------------------------------------


class Interrupted:
    """Stands for a call that does part of its work before the user presses Ctrl-C, or before the disk is full."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *_: object, **__: object) -> object:
        raise self.error


FAILURES = {"interrupt": KeyboardInterrupt(), "disk full": OSError(errno.ENOSPC, "No space left on device")}
STEPS = {"chmod": (Path, "chmod"), "rename": (Path, "replace"), "open": (os, "fdopen")}


@pytest.mark.parametrize("apart", [False, True], ids=["one file", "external"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_save_leaves_everything_as_it_was(
    failure: str, step: str, apart: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if apart:
        monkeypatch.setattr(module, "PROTO_LIMIT", 0)
    save(graphs.loaded(graphs.chain(width=32)), tmp_path / "m.onnx")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(*STEPS[step], Interrupted(FAILURES[failure]))
        with pytest.raises((KeyboardInterrupt, OutputError)):
            save(graphs.loaded(graphs.chain(width=32, seed=9)), tmp_path / "m.onnx")
        with pytest.raises((KeyboardInterrupt, OutputError)):
            save(graphs.loaded(graphs.chain(width=32)), tmp_path / "new.onnx")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_save_interrupted_between_its_two_files_leaves_the_old_pair(
    nth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROTO_LIMIT", 0)
    save(graphs.loaded(graphs.chain(width=32)), tmp_path / "m.onnx")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    real, calls = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == nth:
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            save(graphs.loaded(graphs.chain(width=32, seed=9)), tmp_path / "m.onnx")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_data_of_the_input_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROTO_LIMIT", 0)
    save(graphs.loaded(graphs.chain(width=32)), tmp_path / "m.onnx")
    (tmp_path / "m.onnx").rename(tmp_path / "dense.onnx")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(OutputError, match=r"would replace those of .*dense\.onnx.*another name"):
        save(load(tmp_path / "dense.onnx"), tmp_path / "m.onnx")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    held = graphs.loaded(graphs.chain())
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for place in ("absent/m.onnx", "file/m.onnx", "folder"):
        with pytest.raises(OutputError, match="cannot be written") as caught:
            save(held, tmp_path / place)
        assert str(tmp_path / place) in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_saved_file_can_be_read_by_others(tmp_path: Path) -> None:
    save(graphs.loaded(graphs.chain()), tmp_path / "m.onnx")
    (tmp_path / "plain").touch()
    assert (tmp_path / "m.onnx").stat().st_mode == (tmp_path / "plain").stat().st_mode
