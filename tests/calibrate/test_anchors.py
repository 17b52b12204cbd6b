"""Law of anchors: there, a change of the layer's output arrives multiplied by the slope, channel by channel."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.calibrate import anchor_of, contraction_of, readers_of
from onnxprune.model import Model
from onnxprune.pieces import cut_apart, fed
from onnxprune.runtime import capture, random_feeds
from tests import graphs

NEAR = 1e-4  # float32 differences of values near 1


def scaled() -> onnx.ModelProto:
    """A matrix product, scaled, subtracted, divided, and added to another."""
    net = graphs.Net()
    h = net.op("MatMul", ["x", net.weight("w", 3, 4)], "a")
    h = net.op("Mul", [h, net.weight("m", 4)], "b")
    h = net.op("Sub", [net.weight("k", 1, 4), h], "c")
    h = net.op("Div", [h, net.constant("v", [0.5], np.float32)], "d")
    other = net.op("Relu", [net.op("MatMul", ["x", net.weight("u", 3, 4)], "other")], "r")
    net.op("Relu", [net.op("Add", [h, other], "sum")], "y")
    return net.model(["N", 3], ["N", 4])


def moved(model: Model, feeds: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """For each linear layer, check its anchor against what happens when its output is moved."""
    readers, found = readers_of(model), []
    for node in model.proto.graph.node:
        layer = contraction_of(node, model)
        if isinstance(layer, str):
            continue
        name, axis = node.output[0], 1 if layer.convolves else -1
        channels = layer.matrix.shape[2] * layer.groups
        anchor = anchor_of(name, channels, axis, model, readers)
        held = capture(model, feeds, [name, anchor.tensor])
        shift = np.random.default_rng(0).normal(size=channels)
        shape = [1] * held[name].ndim
        shape[axis] = channels
        if anchor.tensor != name:
            more = {name: held[name] + shift.reshape(shape).astype(np.float32)}
            after = capture(cut_apart(model, more), {**feeds, fed(name): more[name]}, [anchor.tensor])[anchor.tensor]
            change = after - held[anchor.tensor]
            assert np.allclose(change, np.broadcast_to((shift * anchor.slope).reshape(shape), change.shape), atol=NEAR)
        found.append((name, anchor.tensor))
    return found


@pytest.mark.parametrize("name", graphs.ALL)
def test_a_change_arrives_multiplied_by_the_slope(name: str) -> None:
    model = graphs.traced(graphs.ALL[name]()).model
    assert moved(model, dict(random_feeds(model, batch=2, seed=0)))


def test_a_block_is_judged_behind_the_shortcut() -> None:
    model = graphs.traced(graphs.residual()).model
    anchors = dict(moved(model, dict(random_feeds(model, batch=2, seed=0))))
    assert anchors["a2"] == "a.add" and anchors["b2"] == "b.add" and anchors["bs"] == "b.add"
    assert anchors["stem"] == "stem.bn" and anchors["a1"] == "a1.bn"


def test_what_two_read_and_what_is_given_out_is_its_own_anchor() -> None:
    model = graphs.traced(graphs.gated()).model
    readers = readers_of(model)
    for name, anchor in moved(model, dict(random_feeds(model, batch=2, seed=0))):
        assert anchor == name or len(readers[name]) == 1


def test_constants_scale_and_shift() -> None:
    model = graphs.traced(scaled()).model
    anchors = dict(moved(model, dict(random_feeds(model, batch=2, seed=0))))
    assert anchors == {"a": "sum", "other": "other"}
    found = anchor_of("a", 4, -1, model, readers_of(model))
    assert np.allclose(found.slope, -model.weights["m"] / 0.5)
