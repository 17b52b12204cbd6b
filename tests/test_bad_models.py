"""The law of bad files: a file that is no sound model is refused in one line that says what is wrong, and where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune.errors import ModelError
from onnxprune.model import load
from tests import graphs


def refused(path: Path, message: str) -> None:
    """`load` refuses the file in one line that names it."""
    with pytest.raises(ModelError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def broken(change: Callable[[onnx.ModelProto], object]) -> bytes:
    """A chain with something wrong in it."""
    proto = graphs.chain(width=32)
    change(proto)
    return proto.SerializeToString()


def cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = proto.graph.node[3].output[0]


BAD = {
    "empty": (b"", "empty"),
    "text": (b"# a table\na,b\n1,2\n", "not an ONNX model"),
    "zeros": (bytes(100), "not an ONNX model"),
    "another message": (helper.make_node("Relu", ["x"], ["y"]).SerializeToString(), "not an ONNX model"),
    "cyclic": (broken(cycle), "checker"),
    "reads nothing's output": (broken(lambda p: p.graph.node[1].input.__setitem__(0, "ghost")), "checker.*ghost"),
    "written twice": (broken(lambda p: p.graph.node.append(p.graph.node[0])), "checker"),
    "unknown operator": (broken(lambda p: setattr(p.graph.node[1], "op_type", "Relou")), "checker.*Relou"),
    "unknown attribute": (
        broken(lambda p: p.graph.node[0].attribute.append(helper.make_attribute("colour", 1))),
        "checker.*colour",
    ),
    "newer operators": (broken(lambda p: setattr(p.opset_import[0], "version", 999)), "999 is newer.*upgrade onnx"),
    "newer format": (broken(lambda p: setattr(p, "ir_version", 999)), "checker"),
    "no operator set": (broken(lambda p: p.opset_import.pop()), "no operator set"),
    "short raw data": (broken(lambda p: setattr(p.graph.initializer[2], "raw_data", b"abcd")), "'c2.w' is damaged"),
    "long raw data": (broken(lambda p: setattr(p.graph.initializer[1], "raw_data", bytes(400))), "'c1.b' is damaged"),
    "untyped weight": (broken(lambda p: setattr(p.graph.initializer[2], "data_type", 0)), "'c2.w' is damaged"),
    "unheard-of type": (broken(lambda p: setattr(p.graph.initializer[2], "data_type", 99)), "'c2.w' is damaged"),
    "negative size": (broken(lambda p: p.graph.initializer[2].dims.__setitem__(0, -1)), "'c2.w' is damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused(name: str, tmp_path: Path) -> None:
    data, message = BAD[name]
    refused(written(tmp_path / "bad.onnx", data), message)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "absent.onnx", "cannot be read.*No such file")
    refused(tmp_path, "is a directory")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = graphs.rich().SerializeToString()
    essential = whole.rindex(b"y2")  # the graph, operator sets and function are complete only after this
    for end in np.linspace(0, essential, 60).astype(int):
        with pytest.raises(ModelError) as caught:
            load(written(tmp_path / "cut.onnx", whole[:end]))
        assert len(str(caught.value).splitlines()) == 1


def test_random_damage_raises_nothing_but_our_errors(tmp_path: Path) -> None:
    rng, whole = np.random.default_rng(0), np.frombuffer(graphs.rich().SerializeToString(), np.uint8)
    for _ in range(150):
        bytes_ = whole.copy()
        bytes_[rng.integers(0, whole.size, 3)] = rng.integers(0, 256, 3)
        try:
            load(written(tmp_path / "bits.onnx", bytes_.tobytes()))
        except ModelError as error:
            assert len(str(error).splitlines()) == 1


# --- external data ---------------------------------------------------------------------------------------------------


def point_to(path: Path, **entries: str) -> Path:
    """Change where the first external tensor says its data lies."""
    proto = onnx.load(path, load_external_data=False)
    tensor = next(t for t in proto.graph.initializer if t.external_data)
    for entry in tensor.external_data:
        entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())
    return path


def moved_outside(folder: Path) -> Path:
    path = graphs.external(folder / "inside")
    (folder / "inside" / "model.bin").rename(folder / "model.bin")
    return point_to(path, location="../model.bin")


def linked_outside(folder: Path) -> Path:
    path = graphs.external(folder / "inside")
    (folder / "inside" / "model.bin").rename(folder / "elsewhere.bin")
    (folder / "inside" / "model.bin").symlink_to(folder / "elsewhere.bin")
    return path


def missing_data(folder: Path) -> Path:
    path = graphs.external(folder / "inside")
    (folder / "inside" / "model.bin").unlink()
    return path


def truncated_data(folder: Path) -> Path:
    path = graphs.external(folder / "inside")
    data = folder / "inside" / "model.bin"
    data.write_bytes(data.read_bytes()[:100])
    return path


EXTERNAL: dict[str, tuple[Callable[[Path], Path], str]] = {
    "above": (moved_outside, "outside the model's folder"),
    "absolute": (
        lambda f: point_to(graphs.external(f / "inside"), location="/etc/hostname"),
        "outside the model's folder",
    ),
    "symbolic link": (linked_outside, "outside the model's folder"),
    "missing": (missing_data, "cannot be read from model.bin"),
    "truncated": (truncated_data, "c1.w|c2.w|fc.w"),
    "a folder": (lambda f: point_to(graphs.external(f / "inside"), location="."), "cannot be read"),
    "offset past the end": (lambda f: point_to(graphs.external(f / "inside"), offset="99999999"), "c1.w"),
    "offset not a number": (lambda f: point_to(graphs.external(f / "inside"), offset="here"), "c1.w"),
}


@pytest.mark.parametrize("name", EXTERNAL)
def test_bad_external_data_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    break_it, message = EXTERNAL[name]
    refused(break_it(tmp_path), message)
