"""Laws of merging: a removed filter that is a multiple of a kept one is lost without a trace, by all its readers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.model import from_proto
from onnxprune.normalise import normalise
from onnxprune.recover import recover
from onnxprune.rewrite import rewrite
from onnxprune.runtime import random_feeds, run
from onnxprune.trace import Dependencies, trace
from tests import graphs

ROUNDING = 1e-5  # of the output: float32 sums in another order
TIMES = 2.5


def off(dependencies: Dependencies, model: object) -> float:
    fresh = dict(random_feeds(dependencies.model, batch=16, seed=9))
    wanted, found = (next(iter(run(m, fresh).values())) for m in (dependencies.model, model))
    return float(np.linalg.norm(wanted - found) / np.linalg.norm(wanted))


def repeated(net: graphs.Net, *names: str) -> None:
    """The second half of these filters, `TIMES` the first; means of BatchNormalization with them."""
    for name in names:
        w = net.weights[name]
        w[len(w) // 2 :] = TIMES * w[: len(w) // 2]


def normalised() -> Dependencies:
    """Filters that are multiples only together with the BatchNormalization behind them."""
    net = graphs.Net()
    h = net.op("Relu", [net.bn(net.conv("x", "a", 8, 3, 3), "n", 8)], "r")
    net.head(net.conv(h, "b", 6, 8, 3), 6)
    repeated(net, "a.w", "a.b", "n.mean")
    for name in ("n.scale", "n.shift"):
        net.weights[name] = np.abs(net.weights[name])
        net.weights[name][4:] = 3 * net.weights[name][:4]
    net.weights["n.var"][4:] = TIMES**2 * (net.weights["n.var"][:4] + 1e-5) - 1e-5  # epsilon is added to both
    return trace(normalise(from_proto(net.model(["N", 3, 8, 8], ["N", 5]))))


def stream() -> Dependencies:
    """A residual stream of two producers, read by a convolution and by the classifier."""
    net = graphs.Net()
    h = net.conv("x", "a", 8, 3, 3)
    inner = net.op("Relu", [net.conv(net.op("Relu", [h], "r0"), "b1", 6, 8, 3)], "r1")
    h = net.op("Relu", [net.op("Add", [net.conv(inner, "b2", 8, 6, 3), h], "sum")], "r2")
    net.head(h, 8)
    repeated(net, "a.w", "a.b", "b2.w", "b2.b")
    return trace(normalise(from_proto(net.model(["N", 3, 8, 8], ["N", 5]))))


def pre_activated() -> Dependencies:
    """Two readers, each behind a BatchNormalization of its own."""
    net = graphs.Net()
    h = net.conv("x", "a", 8, 3, 3)
    readers = []
    for name in ("b", "c"):
        normal = net.bn(h, f"{name}.n", 8)
        net.weights[f"{name}.n.scale"] = np.abs(net.weights[f"{name}.n.scale"])
        for part, times in (("shift", 0.0), ("mean", 0.0)):
            net.weights[f"{name}.n.{part}"] *= times
        readers.append(net.conv(net.op("Relu", [normal], f"{name}.r"), name, 6, 8, 3))
    repeated(net, "a.w", "a.b")
    net.head(net.op("Concat", readers, "cat", axis=1), 12)
    return trace(normalise(from_proto(net.model(["N", 3, 8, 8], ["N", 5]))))


@pytest.mark.parametrize("build", [normalised, stream, pre_activated])
def test_multiples_go_without_a_trace(build: object) -> None:
    dependencies = build()  # type: ignore[operator]
    removed = next(g for g in dependencies.groups if g.units.size == 8).units[4:]
    pruned = rewrite(dependencies, removed)
    before = {n: w.copy() for n, w in pruned.weights.items()}
    found = recover(dependencies, removed, pruned, [], method="merge")
    assert off(dependencies, pruned) > 0.05
    assert off(dependencies, found.model) < ROUNDING
    assert found.layers and all(layer.method == "merge" for layer in found.layers)
    assert all(np.array_equal(pruned.weights[n], w) for n, w in before.items())  # the input is not touched
    onnx.checker.check_model(found.model.full())


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "Gemm"])
def test_means_that_batch_normalization_tells_are_not_lost(kind: str) -> None:
    """A filter like no other: its readers are shifted by what it is on average, if inputs are what BN says."""
    net = graphs.Net()
    h = net.op("Relu", [net.bn(net.conv("x", "a", 4, 4), "n", 4)], "r")
    if kind == "Conv":
        net.op("GlobalAveragePool", [net.conv(h, "b", 3, 4)], "y")
    elif kind == "ConvTranspose":  # each place of the output is reached by a quarter of the taps
        h = net.op(kind, [h, net.weight("b.w", 4, 3, 4, 4), net.weight("b.b", 3)], "b", strides=[2, 2], pads=[1] * 4)
        net.op("GlobalAveragePool", [h], "y")
    else:
        h = net.op("Flatten", [net.op("GlobalAveragePool", [h], "pool")], "flat")
        h = net.op(kind, [h, net.weight("b.w", 4, 3), net.weight("b.b", 3)], "b", alpha=0.25, beta=3.0)
        net.constant("last", [0, 3, 1, 1])
        net.op("Reshape", [h, "last"], "y")
    net.weights["a.w"], net.weights["a.b"] = np.eye(4, dtype=np.float32)[:, :, None, None], np.zeros(4, np.float32)
    net.weights["n.mean"], net.weights["n.var"] = np.zeros(4, np.float32), np.ones(4, np.float32)
    net.weights["n.scale"], net.weights["n.shift"] = np.ones(4, np.float32), np.ones(4, np.float32)
    dependencies = trace(normalise(from_proto(net.model(["N", 4, 64, 64], ["N", 3, 1, 1]))))
    removed = dependencies.groups[0].units[:1]
    pruned = rewrite(dependencies, removed)
    found = recover(dependencies, removed, pruned, [], method="merge")
    x = {"x": np.random.default_rng(0).normal(size=(8, 4, 64, 64)).astype(np.float32)}
    dense, before, after = (run(m, x)["y"] for m in (dependencies.model, pruned, found.model))
    assert np.abs(after - dense).max() < 0.05 * np.abs(before - dense).max()  # 32,768 draws: 1/181 of a deviation


@pytest.mark.parametrize("kind", ["Sigmoid", "HardSwish", "Pad"])
def test_what_makes_no_multiple_of_a_multiple_is_left_alone(kind: str) -> None:
    net = graphs.Net()
    around = [net.constant("ends", [0, 0, 1, 1, 0, 0, 1, 1]), net.constant("five", 5, np.float32)]
    h = net.op(kind, [net.conv("x", "a", 8, 3, 3), *(around if kind == "Pad" else [])], "act")
    net.head(net.conv(h, "b", 6, 8, 3), 6)
    repeated(net, "a.w", "a.b")
    dependencies = graphs.traced(net.model(["N", 3, 8, 8], ["N", 5]))
    removed = next(g for g in dependencies.groups if g.units.size == 8).units[4:]
    pruned = rewrite(dependencies, removed)
    found = recover(dependencies, removed, pruned, [], method="merge")
    assert kind in found.layers[0].note and not found.layers[0].method
    assert all(np.array_equal(found.model.weights[n], w) for n, w in pruned.weights.items())


@pytest.mark.parametrize("name", list(graphs.ALL))
def test_any_model_comes_out_whole(name: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    removed = np.concatenate([g.units[: g.units.size // 2] for g in dependencies.groups if not g.rows] or [[]])
    removed = removed.astype(np.int64)
    found = recover(dependencies, removed, rewrite(dependencies, removed), [], method="merge")
    onnx.checker.check_model(found.model.full())
    assert np.isfinite(off(dependencies, found.model))
