"""The law of cost: what is counted on labels equals what an independent count finds in the rewritten model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.cost import Cost, cost
from onnxprune.importance import score
from onnxprune.model import Model
from onnxprune.plan import Limits, Target, plan
from onnxprune.rewrite import rewrite
from onnxprune.trace import Dependencies
from tests import graphs

FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}
Shapes = dict[str, tuple[int, ...]]


def transposed() -> onnx.ModelProto:
    """Transposed convolutions, plain and in groups, then a 1-D view of the image."""
    net = graphs.Net(8)
    h = net.op("Relu", [net.conv("x", "c1", 8, 3, 3)], "r1")
    up = {"strides": [2, 2], "kernel_shape": [2, 2]}
    h = net.op(
        "Relu", [net.op("ConvTranspose", [h, net.weight("t1.w", 8, 6, 2, 2), net.weight("t1.b", 6)], "t1", **up)], "r2"
    )
    h = net.op("ConvTranspose", [h, net.weight("t2.w", 6, 4, 2, 2)], "t2", group=2, **up)
    net.head(net.conv(h, "c2", 6, 8), 6)
    return net.model(["N", 3, 8, 8], ["N", 5])


def attention() -> onnx.ModelProto:
    """Products of two computed matrices, in a batch of their own."""
    net = graphs.Net(9)
    parts = [net.op("MatMul", ["x", net.weight(f"{name}.w", 8, 12)], name) for name in ("q", "k", "v")]
    t = net.op("Transpose", [parts[1]], "kt", perm=[0, 2, 1])
    weights = net.op("Softmax", [net.op("MatMul", [parts[0], t], "qk")], "soft", axis=-1)
    net.op("MatMul", [net.op("MatMul", [weights, parts[2]], "mix"), net.weight("o.w", 12, 5)], "y")
    return net.model(["N", 7, 8], ["N", 7, 5])


def half() -> onnx.ModelProto:
    return graphs.chain(dtype=np.float16)


GRAPHS: dict[str, Callable[[], onnx.ModelProto]] = {
    **graphs.ALL,
    **{b.__name__: b for b in (transposed, attention, half)},
}


# --- the independent count: onnx's own shape inference on the complete graph, batch 1 ---------------------------------


def counted(proto: onnx.ModelProto) -> Cost:
    """Size and work of a model, from its nodes and initializers alone."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    for info in fixed.graph.input:
        info.type.tensor_type.shape.dim[0].dim_value = 1
    for info in fixed.graph.output:
        info.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True).graph
    shapes: Shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for info in (*graph.input, *graph.value_info, *graph.output):
        shapes[info.name] = tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
    arrays = [numpy_helper.to_array(t) for t in graph.initializer]
    return Cost(
        params=sum(math.prod(t.dims) for t in graph.initializer if t.data_type in FLOATS),
        macs=sum(work(node, shapes) for node in graph.node),
        bytes=sum(a.nbytes for a in arrays),
    )


def work(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Multiply-accumulates of one node: each output number costs as many as terms are summed for it."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Conv":
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":  # each input number goes to every output channel of its group, at every tap
        return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "Gemm":
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if attributes.get("transA") else 1]
    if node.op_type == "MatMul":
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return 0


# --- the law ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_dense_cost_is_what_the_model_shows(name: str) -> None:
    dependencies = graphs.traced(GRAPHS[name]())
    assert cost(dependencies) == counted(dependencies.model.full())


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("name", GRAPHS)
def test_cost_on_labels_is_the_cost_of_the_rewritten_model(name: str, ratio: float) -> None:
    dependencies = graphs.traced(GRAPHS[name]())
    removed = plan(dependencies, score(dependencies), Target(ratio=ratio)).removed(dependencies)
    assert removed.size
    agree(dependencies, removed)


def agree(dependencies: Dependencies, removed: np.ndarray) -> None:
    """Labels and nodes count the same. Vectors of sizes that became explicit are not weights, and not counted."""
    pruned = rewrite(dependencies, removed)
    added = size_bytes(pruned) - size_bytes(dependencies.model)
    found, expected = cost(dependencies, dependencies.keep(removed)), counted(pruned.full())
    assert found == replace(expected, bytes=expected.bytes - added)


def size_bytes(model: Model) -> int:
    return sum(w.nbytes for w in model.weights.values() if w.dtype == np.int64)


def random_removal(dependencies: Dependencies, seed: int) -> np.ndarray:
    """Unit numbers of a removal that keeps rows equal and every axis alive, at random."""
    rng = np.random.default_rng(seed)
    groups = dependencies.groups
    free = [g.units[rng.permutation(g.units.size)[: rng.integers(0, g.units.size)]] for g in groups if not g.rows]
    return np.concatenate([np.zeros(0, np.int64), *free])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["chain", "residual", "gated", "dense", "mlp", "flattened"])
def test_cost_holds_for_removals_no_planner_would_choose(name: str, seed: int) -> None:
    dependencies = graphs.traced(GRAPHS[name]())
    removed = random_removal(dependencies, seed)
    agree(dependencies, removed)


def test_removing_more_never_costs_more() -> None:
    dependencies = graphs.traced(graphs.residual())
    order = random_removal(dependencies, 1)
    costs = [cost(dependencies, dependencies.keep(order[:n])) for n in range(order.size + 1)]
    for more, less in itertools.pairwise(costs):
        assert less.macs < more.macs and less.params < more.params and less.bytes < more.bytes


def test_a_known_convolution() -> None:
    net = graphs.Net()
    net.conv(net.conv("x", "c", 4, 3, 3), "y", 2, 4)
    found = cost(graphs.traced(net.model(["N", 3, 8, 8], ["N", 2, 8, 8])))
    params = (4 * 3 * 9 + 4) + (2 * 4 + 2)
    assert found.to_dict() == {"params": params, "macs": 64 * (4 * 3 * 9 + 2 * 4), "bytes": 4 * params}


def test_grouped_rows_count_once() -> None:
    """A grouped convolution from 12 to 12 channels in 3 groups: kept width 3 of 4 in each row."""
    dependencies = graphs.traced(graphs.grouped())
    chosen = plan(
        dependencies, score(dependencies), None, Limits(layer_ratios=(("reduce.w", 0.25), ("groups.w", 0.25)))
    )
    pruned = rewrite(dependencies, chosen.removed(dependencies))
    assert pruned.weights["groups.w"].shape == (9, 3, 3, 3)
    kept = dependencies.keep(chosen.removed(dependencies))
    dense = cost(dependencies)
    saved = 64 * (12 * 4 * 9 - 9 * 3 * 9) + 64 * (12 - 9) * (8 + 8)
    assert dense.macs - cost(dependencies, kept).macs == saved
