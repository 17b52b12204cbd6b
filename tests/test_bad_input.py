"""Bad input. Law: one line on standard error that says what, where and what to do; exit 1; no file made or changed.

A case builds its files in an empty folder and gives the command line, with a pattern the message must match.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import graphs
from tests.contract import onnxprune, prune, refused, stored

Build = Callable[[Path], list[object]]
CASES: dict[str, tuple[str, Build]] = {}


def case(pattern: str) -> Callable[[Build], Build]:
    def register(build: Build) -> Build:
        CASES[build.__name__] = pattern, build
        return build

    return register


def model(folder: Path) -> Path:
    return stored(graphs.residual(), folder)


def file(folder: Path, content: bytes) -> Path:
    (folder / "model.onnx").write_bytes(content)
    return folder / "model.onnx"


def good_bytes() -> bytes:
    content: bytes = graphs.residual().SerializeToString()
    return content


def test_the_input_of_the_other_cases_is_good(tmp_path: Path) -> None:
    assert onnxprune(*prune(model(tmp_path))).code == 0


# The model file.


@case("cannot be read .No such file.*model.onnx; check the path")
def missing(folder: Path) -> list[object]:
    return prune(folder / "model.onnx")


@case("is a directory, not an .onnx file")
def directory(folder: Path) -> list[object]:
    (folder / "model.onnx").mkdir()
    return prune(folder / "model.onnx")


@case("the file is empty")
def empty(folder: Path) -> list[object]:
    return prune(file(folder, b""))


@case("is not an ONNX model")
def text(folder: Path) -> list[object]:
    return prune(file(folder, b"<!DOCTYPE html><html>404</html>\n"))


@case("is not an ONNX model")
def pointer_of_a_large_file_store(folder: Path) -> list[object]:
    return prune(file(folder, b"version https://git-lfs.github.com/spec/v1\noid sha256:0f3a\nsize 1288754\n"))


@case("is not an ONNX model")
def zipped(folder: Path) -> list[object]:
    with zipfile.ZipFile(folder / "model.onnx", "w") as archive:
        archive.writestr("model.onnx", good_bytes())
    return prune(folder / "model.onnx")


@case("is not an ONNX model")
def pytorch_checkpoint(folder: Path) -> list[object]:
    with zipfile.ZipFile(folder / "model.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    return prune(folder / "model.pt", out=folder / "small.onnx")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.9999])
def test_truncated(share: float, tmp_path: Path) -> None:
    content = good_bytes()
    refused(prune(file(tmp_path, content[: max(1, int(len(content) * share))])), "truncated|damaged", tmp_path)


@case("no graph or no operator set")
def other_protobuf(folder: Path) -> list[object]:
    return prune(file(folder, onnx.ModelProto(producer_name="x").SerializeToString()))


@case("operator set 99 is newer than .*upgrade onnx")
def future_operator_set(folder: Path) -> list[object]:
    proto = graphs.residual()
    proto.opset_import[0].version = 99
    return prune(stored(proto, folder))


@case("fails onnx's checker: .*ir_version 99")
def future_ir_version(folder: Path) -> list[object]:
    proto = graphs.residual()
    proto.ir_version = 99
    return prune(stored(proto, folder))


@case("fails onnx's checker: .*bogus")
def attribute_that_does_not_exist(folder: Path) -> list[object]:
    proto = graphs.residual()
    proto.graph.node[0].attribute.append(helper.make_attribute("bogus", 1))
    return prune(stored(proto, folder))


@case("fails onnx's checker: .*'nowhere'")
def tensor_that_nothing_produces(folder: Path) -> list[object]:
    proto = graphs.residual()
    proto.graph.node[1].input[0] = "nowhere"
    return prune(stored(proto, folder))


@case("'stem.w' is damaged")
def weight_with_too_few_bytes(folder: Path) -> list[object]:
    proto = graphs.residual()
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]
    return prune(stored(proto, folder))


# External data.


def external(folder: Path, location: str | None = None) -> Path:
    """A model whose weights lie in model.data, or are said to lie at `location`."""
    path = folder / "model.onnx"
    onnx.save(graphs.residual(), path, save_as_external_data=True, location="model.data", size_threshold=0)
    if location is not None:
        proto = onnx.load(path, load_external_data=False)
        entries = [e for t in proto.graph.initializer for e in t.external_data if e.key == "location"]
        for entry in entries:
            entry.value = location
        path.write_bytes(proto.SerializeToString())
    return path


@case("external data of 'stem.w' cannot be read from model.data.*copy the data file beside the model")
def external_data_missing(folder: Path) -> list[object]:
    path = external(folder)
    (folder / "model.data").unlink()
    return prune(path)


@case("external data of 'stem.w' cannot be read from model.data")
def external_data_truncated(folder: Path) -> list[object]:
    path = external(folder)
    (folder / "model.data").write_bytes(b"short")
    return prune(path)


@case("points outside the model's folder: ../model.data")
def external_data_in_the_parent_folder(folder: Path) -> list[object]:
    (folder / "inner").mkdir()
    path = external(folder, "../model.data")
    return prune(path.rename(folder / "inner" / "model.onnx"))


@case("external data of 'stem.w' .*/")
def external_data_at_an_absolute_path(folder: Path) -> list[object]:
    return prune(external(folder, str(folder / "model.data")))


@case("points outside the model's folder: link.data")
def external_data_behind_a_link(folder: Path) -> list[object]:
    (folder / "inner").mkdir()
    path = external(folder, "link.data").rename(folder / "inner" / "model.onnx")
    (folder / "inner" / "link.data").symlink_to(folder / "model.data")
    return prune(path)


# What can be pruned.


@case("nothing can be pruned: the graph has no Conv, Gemm or MatMul")
def no_layer_with_weights(folder: Path) -> list[object]:
    net = graphs.Net()
    net.op("Relu", ["x"], "y")
    return prune(stored(net.model(["N", 3, 8, 8], ["N", 3, 8, 8]), folder))


@case("nothing can be pruned: .*the model's output")
def a_single_layer(folder: Path) -> list[object]:
    net = graphs.Net()
    net.conv("x", "y", 4, 3, 3)
    return prune(stored(net.model(["N", 3, 8, 8], ["N", 4, 8, 8]), folder))


@case("nothing can be pruned: .*the model's output")
def a_single_layer_for_units_that_compete(folder: Path) -> list[object]:
    return [*a_single_layer(folder), "--allocate", "global"]


@case("nothing can be pruned: .*the model's output")
def a_single_layer_for_the_most_redundant_to_go(folder: Path) -> list[object]:
    return [*a_single_layer(folder), "--allocate", "redundancy"]


@case("nothing can be pruned: .*without a rule: vendor.Quant")
def an_operator_nobody_knows(folder: Path) -> list[object]:
    proto = graphs.chain()
    for i, node in enumerate([n for n in proto.graph.node if n.op_type == "Conv"]):
        proto.graph.node.insert(0, helper.make_node("Quant", [node.input[1]], [f"q{i}"], domain="vendor"))
        node.input[1] = f"q{i}"
    proto.opset_import.append(helper.make_opsetid("vendor", 1))
    return prune(stored(proto, folder))


def poisoned(folder: Path, weight: str) -> Path:
    proto = graphs.residual()
    tensor = next(t for t in proto.graph.initializer if t.name == weight)
    array = numpy_helper.to_array(tensor).copy()
    array[-1] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, weight))
    return stored(proto, folder)


@pytest.mark.parametrize("weight", ["stem.w", "a1.bn.var", "b2.b", "fc.w", "fc.b"])
def test_nan_weights(weight: str, tmp_path: Path) -> None:
    refused(prune(poisoned(tmp_path, weight)), f"'{weight}' holds NaN", tmp_path)


@case("input 'words' holds text; give it as data")
def random_text(folder: Path) -> list[object]:
    proto = graphs.residual()
    proto.graph.input.append(helper.make_tensor_value_info("words", TensorProto.STRING, [1]))
    return prune(stored(proto, folder))


@case(r"no gradient for 'stem.w' \(near it: 'stem.weight'\); give one gradient for every initializer")
def gradients_of_other_names(folder: Path) -> list[object]:
    np.savez(folder / "g.npz", **{"stem.weight": np.ones((8, 3, 3, 3), np.float32)})
    return prune(model(folder), "--criterion", "taylor", "--gradients", folder / "g.npz")


@case("onnxruntime refuses the model: it has no operator vendor.Mystery; .*without that operator")
def an_operator_onnxruntime_does_not_have(folder: Path) -> list[object]:
    net = graphs.Net()
    h = net.conv(net.conv("x", "c1", 8, 3, 3), "c2", 8, 8)
    net.head(net.op("Mystery", [h], "m", domain="vendor"), 8)
    proto = net.model(["N", 3, 8, 8], ["N", 5])
    proto.opset_import.append(helper.make_opsetid("vendor", 1))
    return prune(stored(proto, folder))


@case("output 'y' is NaN or infinite on random inputs; give typical samples with --data")
def a_model_that_is_undefined_on_random_inputs(folder: Path) -> list[object]:
    net = graphs.Net()
    h = net.conv(net.conv("x", "c1", 8, 3, 3), "c2", 8, 8)
    net.op("Log", [net.op("Neg", [net.op("Abs", [h], "a")], "n")], "y")
    return prune(stored(net.model(["N", 3, 8, 8], ["N", 8, 8, 8]), folder))


@pytest.mark.parametrize("name", CASES)
def test_is_refused(name: str, tmp_path: Path) -> None:
    pattern, build = CASES[name]
    refused(build(tmp_path), pattern, tmp_path)
