"""Laws of scaling and shifting channels: means and deviations as they were, or nothing at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

from onnxprune.calibrate import Moments
from onnxprune.calibrate.walk import Walk
from onnxprune.model import Model
from onnxprune.recover import recover
from onnxprune.recover.affine import Spread, distance, missing, shift, statistics
from onnxprune.rewrite import rewrite, take
from onnxprune.runtime import random_feeds
from onnxprune.trace import Dependencies
from tests import graphs

NEAR = 0.03  # of a channel's deviation: what 24 batches to fit to tell of all 32
Feeds = list[dict[str, np.ndarray]]


def batches(dependencies: Dependencies, count: int = 32, size: int = 16) -> Feeds:
    return [dict(random_feeds(dependencies.model, batch=size, seed=seed)) for seed in range(count)]


def channels(model: Model, given: Feeds, name: str) -> np.ndarray:
    """A tensor's channels over all batches. Shape (sites, channels)."""
    walk = Walk(model, given)
    rows = [v[name] for v in walk.values(walk.made[name], [name])]
    return np.concatenate([np.moveaxis(r, 1, -1).reshape(-1, r.shape[1]) for r in rows]).astype(np.float64)


def cut(dependencies: Dependencies, names: Sequence[str] = ()) -> np.ndarray:
    groups = [g for g in dependencies.groups if not g.rows and (not names or g.name in names)]
    return np.concatenate([g.units[: g.units.size // 2] for g in groups])


@pytest.mark.parametrize(("name", "tensor"), [("residual", "a2.bn"), ("chain", "c2"), ("chain", "c3"), ("mlp", "g2")])
def test_means_and_deviations_are_the_dense_ones_again(name: str, tensor: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    given = batches(dependencies)
    # where two layers read the same channels, the later one's statistics are judged behind the shortcut
    removed = cut(dependencies, ("a1.w", "b1.w") if name == "residual" else ())
    pruned, keep = rewrite(dependencies, removed), dependencies.keep(removed)
    tensor = "bn2" if tensor == "c2" else tensor
    found = recover(dependencies, removed, pruned, given, method="statistics")
    dense, before, after = (channels(m, given, tensor) for m in (dependencies.model, pruned, found.model))
    axis = dependencies.labels[tensor][1]
    dense = take(dense, (type(axis)(), axis), keep)
    deviation = dense.std(axis=0)
    assert (np.abs(after.std(axis=0) / deviation - 1) < NEAR).all()
    assert (np.abs(after.mean(axis=0) - dense.mean(axis=0)) < NEAR * deviation).all()
    assert (np.abs(before.std(axis=0) / deviation - 1) > NEAR).any()
    assert all(layer.after < layer.before for layer in found.layers if layer.method)


def test_a_shift_changes_no_weight() -> None:
    dependencies = graphs.traced(graphs.residual())
    removed, given = cut(dependencies, ("a1.w", "b1.w")), batches(dependencies)
    pruned = rewrite(dependencies, removed)
    found = recover(dependencies, removed, pruned, given, method="bias")
    changed = {n for n, w in found.model.weights.items() if n not in pruned.weights or (w != pruned.weights[n]).any()}
    assert changed and all(found.model.weights[n].ndim == 1 and not n.endswith(".scale") for n in changed)
    dense, after = (channels(m, given, "a.add") for m in (dependencies.model, found.model))
    assert (np.abs(dense.mean(axis=0) - after.mean(axis=0)) < NEAR * dense.std(axis=0)).all()


def moments(y: np.ndarray, e: np.ndarray) -> Moments:
    found = Moments.empty(y.shape[1], 1, 1)
    found.add(y[:, :, None], e, y + e)
    return found


def test_both_measures_by_hand() -> None:
    y = np.array([[0.0], [2.0]])  # mean 1, deviation 1
    dense = np.array([[1.0], [7.0]])  # mean 4, deviation 3
    held, spread = moments(y, dense - y), Spread(np.zeros(1), np.zeros(1))
    spread.add(dense)
    nothing = np.zeros((1, 2, 1))
    assert missing(nothing, held, spread) == pytest.approx([1 + 25])
    assert distance(nothing, held, spread) == pytest.approx([2 * (3**2 + 2**2)])
    assert shift(held, spread).ravel() == pytest.approx([0, 3])
    assert statistics(held, spread).ravel() == pytest.approx([2, 1])  # 3 y + 1
    assert distance(statistics(held, spread), held, spread) == pytest.approx([0], abs=1e-12)  # rounding
    assert missing(statistics(held, spread), held, spread) == pytest.approx([0], abs=1e-12)


def test_a_channel_that_does_not_vary_is_not_scaled() -> None:
    y, dense = np.ones((4, 1)), np.arange(4.0)[:, None]
    held, spread = moments(y, dense - y), Spread(np.zeros(1), np.zeros(1))
    spread.add(dense)
    assert statistics(held, spread).ravel() == pytest.approx([0, 0.5])


@pytest.mark.parametrize("method", ["statistics", "bias"])
def test_samples_that_say_something_else_are_not_followed(method: str) -> None:
    """Three of four batches have a huge value each, so that what is fitted to them is far off on the fourth."""
    dependencies = graphs.traced(graphs.chain())
    removed, given = cut(dependencies), batches(dependencies, 8)
    for b, feeds in enumerate(given):
        feeds["x"] = np.where(np.arange(16)[:, None, None, None] == 0, 1e4 * (b % 4 < 3) + 1, 1) * feeds["x"]
        feeds["x"] = feeds["x"].astype(np.float32)
    pruned = rewrite(dependencies, removed)
    found = recover(dependencies, removed, pruned, given, method=method)
    alone = [layer for layer in found.layers if not layer.method]
    assert alone and all(layer.note and layer.after == layer.before for layer in alone)
    assert all(layer.after < layer.before for layer in found.layers if layer.method)


def test_a_weight_that_others_share_is_left_and_statistics_serve_instead() -> None:
    net = graphs.Net()
    h = net.op("Relu", [net.conv("x", "stem", 8, 3, 3)], "stem.r")
    w = net.weight("w", 8, 8, 3, 3)
    for name in ("one", "two"):
        h = net.op("Relu", [net.bn(net.op("Conv", [h, w], name, pads=[1] * 4), f"{name}.bn", 8)], f"{name}.r")
    net.head(h, 8)
    dependencies = graphs.traced(net.model(["N", 3, 8, 8], ["N", 5]))
    removed, given = cut(dependencies), batches(dependencies, 8)
    pruned = rewrite(dependencies, removed)
    found = recover(dependencies, removed, pruned, given)
    assert np.array_equal(found.model.weights["w"], pruned.weights["w"])
    by_name = {layer.node: layer for layer in found.layers}
    assert by_name["one"].note == "other layers share its weight" and by_name["one.bn"].method == "statistics"
    assert by_name["one.bn"].after < by_name["one.bn"].before
    onnx.checker.check_model(found.model.full())
