"""Laws of refitting by channel: what the others express is restored, and what the full Gram finds is nearly found."""

from __future__ import annotations

import importlib

import numpy as np
import onnx
import pytest

from onnxprune.calibrate import contraction_of
from onnxprune.model import from_proto
from onnxprune.normalise import normalise
from onnxprune.recover import recover
from onnxprune.recover.registry import Task
from onnxprune.recover.state import Recovery
from onnxprune.recover.wide import Grid, folded, grid_of
from onnxprune.rewrite import rewrite
from onnxprune.runtime import random_feeds, run
from onnxprune.trace import Dependencies, trace
from tests import graphs

CLOSE = 5e-3  # the smallest penalty, 1e-5 of an input's mean square, and float32 weights
refit = importlib.import_module("onnxprune.recover.refit")


@pytest.fixture(autouse=True)
def everything_is_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refit, "COLUMNS", 0)


def batches(dependencies: Dependencies, count: int = 16, size: int = 16) -> list[dict[str, np.ndarray]]:
    return [dict(random_feeds(dependencies.model, batch=size, seed=seed)) for seed in range(count)]


def off(dependencies: Dependencies, model: object) -> float:
    """Relative error on inputs that no fit has seen."""
    fresh = dict(random_feeds(dependencies.model, batch=64, seed=99))
    wanted, found = (next(iter(run(m, fresh).values())) for m in (dependencies.model, model))
    return float(np.linalg.norm(wanted - found) / np.linalg.norm(wanted - wanted.mean(axis=0)))


def doubled(kind: str) -> Dependencies:
    """Two layers; the inner channels of the second half repeat those of the first, the second reads them all."""
    net = graphs.Net()
    inner = net.op("Relu", [net.conv("x", "a", 8, 3, 3)], "r")
    if kind == "Conv":
        net.head(net.conv(inner, "b", 6, 8, 3), 6)
    elif kind == "ConvTranspose":
        net.head(net.op(kind, [inner, net.weight("b.w", 8, 6, 2, 2)], "b", strides=[2, 2]), 6)
    else:  # behind a Flatten, of channels first or last
        if kind == "last":
            inner = net.op("Transpose", [inner], "t", perm=[0, 2, 3, 1])
        net.dense(net.op("Flatten", [inner], "flat"), "b", 5, 128, "y")
    for name in ("a.w", "a.b"):
        net.weights[name][4:] = net.weights[name][:4]
    shape = ["N", 3, 4, 4]
    return trace(normalise(from_proto(net.model(shape, ["N", 5]))))


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "first", "last"])
def test_what_the_channels_left_can_express_is_restored(kind: str) -> None:
    dependencies = doubled(kind)
    removed = next(g for g in dependencies.groups if g.units.size == 8).units[4:]
    pruned = rewrite(dependencies, removed)
    found = recover(dependencies, removed, pruned, batches(dependencies))
    assert off(dependencies, pruned) > 0.1
    assert off(dependencies, found.model) < CLOSE
    assert found.layers[0].method == "ridge, by channel"
    onnx.checker.check_model(found.model.full())


@pytest.mark.parametrize("name", ["chain", "residual", "flattened", "dense", "mlp"])
def test_the_output_comes_nearer_and_no_layer_is_worse(name: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    removed = np.concatenate([g.units[: g.units.size // 2] for g in dependencies.groups if not g.rows])
    pruned = rewrite(dependencies, removed)
    found = recover(dependencies, removed, pruned, batches(dependencies))
    assert off(dependencies, found.model) < off(dependencies, pruned)
    assert {"ridge, by channel", "bias"} & {layer.method for layer in found.layers}
    assert all(layer.before is None or layer.after <= layer.before for layer in found.layers)


def test_columns_of_a_flattened_map_fall_into_its_channels() -> None:
    dependencies = doubled("last")
    removed = next(g for g in dependencies.groups if g.units.size == 8).units[4:]
    state = Recovery(Task(dependencies, removed, rewrite(dependencies, removed), batches(dependencies, 4)))
    node = state.pruned.nodes[-1]
    layer = contraction_of(node, state.pruned.model)
    assert not isinstance(layer, str)
    grid = grid_of(state, node, layer)
    assert grid is not None and grid.positions == 16 and grid.stays.tolist() == [True] * 4 + [False] * 4
    assert grid.dense[1].tolist() == list(range(1, 128, 8)) and grid.own[1].tolist() == list(range(1, 64, 4))


def test_folding_by_hand() -> None:
    """Two channels at two positions; the second is 3 times the first, which reads 1 and 2 for one output."""
    net = graphs.Net()
    net.weights["w"] = np.array([[1.0], [2.0], [10.0], [20.0]], np.float32)
    net.op("MatMul", ["x", "w"], "y")
    model = from_proto(net.model(["N", 4], ["N", 1]))
    dense = contraction_of(model.proto.graph.node[0], model)
    grid = Grid(np.array([[0, 1], [2, 3]]), np.array([[0, 1]]), np.array([True, False]))
    update = np.array([[[0.0, 3.0], [0.0, 0.0]]])  # one position for all, one channel that stays and a 1, both channels
    assert not isinstance(dense, str)
    assert folded(dense, grid, update).ravel().tolist() == [30.0, 60.0]
