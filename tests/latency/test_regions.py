"""Law of the regions: every node is in exactly one of them, whatever the runtime fused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.latency import Regions, regions_of, whole_region
from onnxprune.runtime import Kernel
from tests import graphs


def kernel(origin: str, ms: Sequence[float] = (1.0,)) -> Kernel:
    return Kernel(f"{origin}_kernel", "Conv", origin, tuple(ms), (), (), "CPUExecutionProvider")


def partition(graph: onnx.GraphProto, found: Regions) -> None:
    """Every node is in one region, and tensors are where their node is."""
    places = [place for nodes in found.nodes for place in nodes]
    assert sorted(places) == list(range(len(graph.node)))
    assert len(found.names) == len(found.nodes)
    for region, nodes in enumerate(found.nodes):
        for name in (o for i in nodes for o in graph.node[i].output if o):
            assert found.of[name] == region


def branching() -> onnx.GraphProto:
    """An If whose branches read outer tensors, a Split with two outputs, an unnamed second output, a dead node."""
    value = helper.make_tensor_value_info
    branches = []
    for name, read in (("then", "left"), ("else", "right")):
        nodes = [helper.make_node("Relu", [read], [f"{name}.y"], name=f"{name}.relu")]
        branches.append(helper.make_graph(nodes, name, [], [value(f"{name}.y", TensorProto.FLOAT, None)]))
    nodes = [
        helper.make_node("Neg", ["x"], ["negative"]),
        helper.make_node("Split", ["negative"], ["left", "right"], axis=1, num_outputs=2),
        helper.make_node("If", ["flag"], ["chosen"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Abs", ["negative"], ["nobody reads this"]),
        helper.make_node("Dropout", ["chosen"], ["dropped", ""]),
        helper.make_node("Exp", ["dropped"], ["y"]),
        helper.make_node("Identity", ["flag"], ["alone"]),
    ]
    ends = [value("x", TensorProto.FLOAT, ["N", 4]), value("flag", TensorProto.BOOL, [])]
    return helper.make_graph(nodes, "branching", ends, [value("y", TensorProto.FLOAT, None)])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", [*graphs.ALL, "branching"])
def test_every_node_is_in_exactly_one_region(name: str, seed: int) -> None:
    graph = branching() if name == "branching" else graphs.ALL[name]().graph
    rng = np.random.default_rng(seed)
    tensors = [o for node in graph.node for o in node.output if o]
    chosen = rng.choice(tensors, size=int(rng.integers(1, len(tensors) + 1)), replace=False)
    partition(graph, regions_of(graph, [kernel(str(origin)) for origin in chosen]))


def test_a_region_is_named_after_its_kernel_and_holds_what_was_fused_before_it() -> None:
    graph = graphs.chain().graph
    found = regions_of(graph, [kernel(name) for name in ("r1", "r2", "r3", "pool", "y")])
    assert found.names == ("r1", "r2", "r3", "pool", "y")
    kinds = [[graph.node[i].op_type for i in nodes] for nodes in found.nodes]
    assert kinds[:3] == [["Conv", "Relu"], ["Conv", "BatchNormalization", "Relu"], ["Conv", "LeakyRelu"]]


def test_what_branches_read_belongs_to_who_holds_them() -> None:
    graph = branching()
    found = regions_of(graph, [kernel("chosen"), kernel("y")])
    assert found.of["left"] == found.of["right"] == found.of["negative"] == found.of["chosen"] == 0
    assert found.of["dropped"] == found.of["y"] == 1


def test_several_kernels_of_one_node_are_one_region() -> None:
    graph = branching()
    found = regions_of(graph, [kernel("left"), kernel("right"), kernel("left"), kernel("y")])
    assert len(found.names) == 2 and found.of["left"] == found.of["right"] == 0


def test_kernels_whose_origin_is_unknown_make_no_region_and_lose_no_node() -> None:
    graph = graphs.mlp().graph
    found = regions_of(graph, [kernel(""), kernel("stranger"), kernel("r1")])
    assert found.names == ("r1",)
    partition(graph, found)


def test_without_any_known_kernel_the_graph_is_one_region() -> None:
    graph = graphs.mlp().graph
    found = regions_of(graph, [kernel("")])
    assert found == whole_region(graph)
    partition(graph, found)


@pytest.mark.parametrize("name", [*graphs.ALL, "branching"])
def test_the_whole_region_holds_everything(name: str) -> None:
    graph = branching() if name == "branching" else graphs.ALL[name]().graph
    partition(graph, whole_region(graph))


def test_no_time_is_lost() -> None:
    found = regions_of(graphs.mlp().graph, [kernel("r1"), kernel("y")])
    times = found.times([kernel("g1", [2.0]), kernel("r1", [1.0]), kernel("y", [4.0]), kernel("", [8.0]), kernel("?")])
    assert times == [3.0, 4.0, 9.0]


def test_a_kernels_time_is_the_lower_quartile_of_its_runs() -> None:
    assert kernel("r", [4.0, 1.0, 2.0, 3.0, 100.0]).typical_ms == 1.5
    assert kernel("r", [7.0]).typical_ms == 7.0
