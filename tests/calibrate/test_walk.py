"""Laws of the walk: pieces give what the whole model gives; weights changed on the way count for what comes after."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from onnxprune.calibrate import Walk
from onnxprune.model import Model
from onnxprune.runtime import capture, random_feeds
from tests import graphs

NEAR = 1e-5  # fused in another way: float32 rounding


def feeds(model: Model, count: int = 3) -> list[dict[str, np.ndarray]]:
    return [dict(random_feeds(model, batch=2, seed=seed)) for seed in range(count)]


@pytest.mark.parametrize("memory", [0, 2**31])
@pytest.mark.parametrize("name", graphs.ALL)
def test_every_tensor_is_what_the_whole_model_holds(name: str, memory: int) -> None:
    model = graphs.traced(graphs.ALL[name]()).model
    batches = feeds(model)
    walk = Walk(model, batches, memory=memory)
    names = [n.output[0] for n in model.proto.graph.node]
    whole = [capture(model, batch, names) for batch in batches]
    for at in range(len(names)):
        ahead = min(at + 2, len(names) - 1)
        for found, known in zip(walk.values(at, [names[at], names[ahead]]), whole, strict=True):
            for tensor, value in found.items():
                assert np.allclose(value, known[tensor], atol=NEAR, rtol=NEAR)
        assert walk.at == at


def test_a_change_counts_from_the_node_that_reads_it() -> None:
    model = graphs.traced(graphs.chain()).model
    batches = feeds(model)
    nodes = list(model.proto.graph.node)
    at = next(i for i, n in enumerate(nodes) if "c2.w" in n.input)
    walk, new = Walk(model, batches), {"c2.w": model.weights["c2.w"] * 2}
    list(walk.values(at, [nodes[at].output[0]]))  # looks ahead, with the old weights
    walk.change(new)
    changed = replace(model, weights={**model.weights, **new})
    for found, batch in zip(walk.values(len(nodes), ["y"]), batches, strict=True):
        assert np.allclose(found["y"], capture(changed, batch, ["y"])["y"], atol=NEAR, rtol=NEAR)


def test_only_what_is_still_read_is_held() -> None:
    model = graphs.traced(graphs.residual()).model
    walk = Walk(model, feeds(model))
    for at, node in enumerate(walk.nodes):
        list(walk.values(at, []))
        later = {name for n in walk.nodes[at:] for name in n.input}
        assert set(walk.live[0]) <= later, node.name


@pytest.mark.parametrize("memory", [0, 2**31])
def test_lists_of_tensors_are_held_like_tensors(memory: int) -> None:
    """A list whose length depends on the data lies beside a layer."""
    net = graphs.Net()
    net.nodes.append(helper.make_node("SplitToSequence", ["x"], ["parts"], name="parts", axis=0, keepdims=1))
    h = net.op("Relu", [net.conv("x", "a", 4, 3, 3)], "r")
    h = net.conv(h, "b", 3, 4, 3)
    net.op("Add", [net.op("ConcatFromSequence", ["parts"], "joined", axis=0), h], "y")
    model = graphs.traced(net.model(["N", 3, 8, 8], ["N", 3, 8, 8])).model
    walk = Walk(model, feeds(model), memory=memory)
    for at in range(len(walk.nodes)):
        list(walk.values(at, []))
    for found, batch in zip(walk.values(len(walk.nodes), ["y"]), feeds(model), strict=True):
        assert np.allclose(found["y"], capture(model, batch, ["y"])["y"], atol=NEAR, rtol=NEAR)
