"""Law of the kernels: every kernel that ran is listed once, with the tensor of the model that it was made for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.errors import ProviderError
from onnxprune.runtime import Kernel, Profiled, random_feeds
from onnxprune.runtime.kernels import Marks, collect, mark
from tests import graphs

ODD = ["@3@", "@1@", "@999@", "@@1@@", "@", "a b/c:\u00e9\u4e2d", "x\ty", "ReorderOutput", "r1_nchwc", "r1_kernel_time"]


def profiled(proto: onnx.ModelProto, runs: int = 2) -> list[Kernel]:
    with Profiled(proto, random_feeds(graphs.loaded(proto))) as opened:
        for _ in range(runs):
            opened.run()
        return opened.kernels()


def rename(proto: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    """The model with another name for one tensor."""
    for node in proto.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for held in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        held.name = new if held.name == old else held.name
    return proto


@pytest.mark.parametrize("name", graphs.ALL)
def test_every_kernel_is_listed_once_with_a_tensor_of_the_model(name: str) -> None:
    proto = graphs.ALL[name]()
    tensors = {o for node in proto.graph.node for o in node.output}
    found = profiled(proto, 3)
    assert found and all(k.origin in tensors and len(k.ms) == 3 for k in found)
    assert len({k.name for k in found}) == len(found)
    layers = {node.output[0]: node.op_type for node in proto.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")}
    made = sum("Conv" in k.op or "Gemm" in k.op or "MatMul" in k.op for k in found)
    assert made >= len(layers)  # onnxruntime also runs a BatchNormalization of its own as a convolution


@pytest.mark.parametrize("old", ["x", "c1.w", "r1", "y"])
@pytest.mark.parametrize("new", ODD)
def test_any_name_can_be_profiled(new: str, old: str) -> None:
    plain = [k.origin for k in profiled(graphs.chain(), 1)]
    found = profiled(rename(graphs.chain(), old, new), 1)
    assert [k.origin for k in found] == [new if name == old else name for name in plain]


def test_the_caller_keeps_the_model_as_it_was() -> None:
    proto = graphs.residual()
    before = proto.SerializeToString()
    profiled(proto, 1)
    assert proto.SerializeToString() == before


def test_first_runs_are_left_out_if_there_are_others() -> None:
    proto = graphs.mlp()
    with Profiled(proto, random_feeds(graphs.loaded(proto))) as opened:
        for _ in range(5):
            opened.run()
        assert {len(k.ms) for k in opened.kernels(skip=2)} == {3}


def looping(trips: int = 3) -> onnx.ModelProto:
    """A Loop whose body multiplies by a matrix, between two of them; nodes of the body are named like marks."""
    value, rng = helper.make_tensor_value_info, np.random.default_rng(0)
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "w"], ["h2"], name="@0@"),
            helper.make_node("Identity", ["going"], ["on"], name="@2@"),
        ],
        "body",
        [value("i", TensorProto.INT64, []), value("going", TensorProto.BOOL, []), value("h", 1, ["N", 8])],
        [value("on", TensorProto.BOOL, []), value("h2", 1, ["N", 8])],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["first"]),
        helper.make_node("Loop", ["trips", "", "first"], ["last"], body=body),
        helper.make_node("MatMul", ["last", "w"], ["y"]),
    ]
    tensors = [
        onnx.numpy_helper.from_array(rng.normal(size=(8, 8)).astype(np.float32), "w"),
        onnx.numpy_helper.from_array(np.array(trips, np.int64), "trips"),
    ]
    graph = helper.make_graph(nodes, "looping", [value("x", 1, [2, 8])], [value("y", 1, [2, 8])], tensors)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def test_nodes_of_a_body_are_counted_in_the_node_that_holds_it() -> None:
    found = profiled(looping())
    assert [k.origin for k in found] == ["first", "last", "y"]
    assert [k.op for k in found] == ["MatMul", "Loop", "MatMul"]
    assert all(len(k.ms) == 2 for k in found)


def test_marks_are_taken_back() -> None:
    marks = Marks(("first", "second"), "@@")
    assert marks.of(1) == "@@1@@"
    assert marks.find("a @@1@@_nchwc") == "second" and marks.find("@1@") == ""
    assert marks.restored("fused @@0@@_with_@@1@@") == "fused first_with_second"


def test_outputs_and_what_bodies_read_keep_their_names() -> None:
    proto = looping()
    mark(proto.graph)
    assert [node.output[0] for node in proto.graph.node] == ["@@0@@", "@@1@@", "y"]


def test_a_profile_without_kernels_is_an_error() -> None:
    with pytest.raises(ProviderError, match="lists no kernels"):
        collect([{"cat": "Session", "name": "model_run"}], graphs.mlp().graph, Marks(("r1",)))
