"""Laws of recovery: what the others can express is restored exactly, nothing gets worse where it is judged."""

from __future__ import annotations

import importlib

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

CLOSE = 5e-3  # the smallest penalty, 1e-5 of an input's mean square, and float32 weights


def batches(dependencies: Dependencies, count: int = 8, size: int = 16) -> list[dict[str, np.ndarray]]:
    return [dict(random_feeds(dependencies.model, batch=size, seed=seed)) for seed in range(count)]


def error(dependencies: Dependencies, model: object, feeds: dict[str, np.ndarray]) -> float:
    """Of the first output, relative to its spread."""
    wanted, found = (next(iter(run(m, feeds).values())) for m in (dependencies.model, model))
    return float(np.linalg.norm(wanted - found) / np.linalg.norm(wanted - wanted.mean(axis=0)))


def half(dependencies: Dependencies) -> np.ndarray:
    """Every other channel of each group that may lose it."""
    return np.concatenate([g.units[: g.units.size // 2] for g in dependencies.groups if not g.rows])


@pytest.mark.parametrize("name", [n for n in graphs.ALL if n not in ("grouped", "shuffled")])
def test_the_output_comes_nearer_and_no_layer_is_worse(name: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    removed = half(dependencies)
    pruned = rewrite(dependencies, removed)
    before = {n: w.copy() for n, w in pruned.weights.items()}
    found = recover(dependencies, removed, pruned, batches(dependencies))
    fresh = dict(random_feeds(dependencies.model, batch=64, seed=99))
    assert error(dependencies, found.model, fresh) < error(dependencies, pruned, fresh)
    assert found.layers and all(layer.after <= layer.before for layer in found.layers)
    assert all(np.array_equal(pruned.weights[n], w) for n, w in before.items())  # the input is not touched
    onnx.checker.check_model(found.model.full())


def doubled(kind: str) -> Dependencies:
    """Two layers; the inner channels of the second half repeat those of the first."""
    net = graphs.Net()
    if kind == "Conv":
        inner = net.op("Relu", [net.conv("x", "a", 8, 3, 3)], "r")
        net.head(net.conv(inner, "b", 6, 8, 3), 6)
        axes, shape = ("a.w", "a.b"), ["N", 3, 8, 8]
    else:
        bias = [] if kind == "MatMul" else [net.weight("b.b", 6)]
        inner = net.op(
            "Relu",
            [net.op("Add", [net.op("MatMul", ["x", net.weight("a.w", 3, 8)], "a"), net.weight("a.b", 8)], "s")],
            "r",
        )
        net.op(kind, [inner, net.weight("b.w", 8, 6), *bias], "b")
        net.op("Identity", ["b"], "y")
        axes, shape = ("a.w", "a.b"), ["N", 3]
    for name in axes:
        w = net.weights[name]
        if kind != "Conv" and name == "a.w":
            w[:, 4:] = w[:, :4]
        else:
            w[4:] = w[:4]
    return trace(normalise(from_proto(net.model(shape, ["N", None]))))


@pytest.mark.parametrize("kind", ["Conv", "Gemm", "MatMul"])
def test_what_the_channels_left_can_express_is_restored(kind: str) -> None:
    dependencies = doubled(kind)
    group = next(g for g in dependencies.groups if g.units.size == 8)
    removed = group.units[4:]
    pruned, fresh = rewrite(dependencies, removed), dict(random_feeds(dependencies.model, batch=64, seed=99))
    found = recover(dependencies, removed, pruned, batches(dependencies))
    assert error(dependencies, pruned, fresh) > 0.1
    assert error(dependencies, found.model, fresh) < CLOSE


def test_where_nothing_was_removed_nothing_changes() -> None:
    dependencies = graphs.traced(graphs.residual())
    nothing = np.zeros(0, dtype=np.int64)
    found = recover(dependencies, nothing, rewrite(dependencies, nothing), batches(dependencies))
    assert found.layers == ()
    assert all(np.array_equal(found.model.weights[n], w) for n, w in dependencies.model.weights.items())


def test_the_same_seed_gives_the_same_weights_however_little_memory_there_is() -> None:
    dependencies = graphs.traced(graphs.chain())
    removed = half(dependencies)
    pruned, given = rewrite(dependencies, removed), batches(dependencies)
    one, other = (recover(dependencies, removed, pruned, given, memory=m) for m in (2**31, 0))
    assert all(np.array_equal(one.model.weights[n], other.model.weights[n]) for n in one.model.weights)


def one_layer(kind: str, bias: int, **attributes: object) -> Dependencies:
    """Two matrix products; the second is of a kind."""
    net = graphs.Net()
    inner = net.op("Relu", [net.dense("x", "a", 8, 6)], "r")
    net.op(kind, [inner, net.weight("b.w", 8, 5), *([net.weight("b.b", 5)] if bias else [])], "y", **attributes)
    return graphs.traced(net.model(["N", 6], ["N", 5]))


@pytest.mark.parametrize("bias", [0, 1])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_shift_of_a_gemm_counts_beta(beta: float, bias: int) -> None:
    dependencies = one_layer("Gemm", bias, beta=beta)
    removed = half(dependencies)
    pruned, fresh = rewrite(dependencies, removed), dict(random_feeds(dependencies.model, batch=64, seed=99))
    found = recover(dependencies, removed, pruned, batches(dependencies))
    after = error(dependencies, found.model, fresh)
    assert after < error(dependencies, pruned, fresh) and not found.note
    assert after == pytest.approx(found.layers[-1].after, rel=0.5)  # the report tells what there is


def test_a_new_bias_takes_no_name_that_is_taken() -> None:
    net = graphs.Net()
    inner = net.op("Relu", [net.conv("x", "a", 8, 3, 3)], "r")
    made = net.op("Conv", [inner, net.weight("b.w", 6, 8, 1, 1)], "b")
    net.head(net.op("Add", [made, net.weight("b/bias", 6, 1, 1)], "s"), 6)
    dependencies = graphs.traced(net.model(["N", 3, 8, 8], ["N", 5]))
    removed = half(dependencies)
    found = recover(dependencies, removed, rewrite(dependencies, removed), batches(dependencies))
    onnx.checker.check_model(found.model.full())
    assert np.array_equal(found.model.weights["b/bias"].shape, rewrite(dependencies, removed).weights["b/bias"].shape)


def test_normalisation_over_another_axis_is_no_place_for_a_shift() -> None:
    net = graphs.Net()
    inner = net.op("Relu", [net.op("MatMul", ["x", net.weight("a.w", 6, 10)], "a")], "r")
    net.op(
        "MatMul",
        [net.bn(net.op("MatMul", [inner, net.weight("b.w", 10, 7)], "b"), "n", 7), net.weight("c.w", 7, 4)],
        "y",
    )
    dependencies = graphs.traced(net.model(["N", 7, 6], ["N", 7, 4]))
    group = next(g for g in dependencies.groups if g.name == "a.w")
    removed = group.units[:5]
    pruned = rewrite(dependencies, removed)
    found = recover(dependencies, removed, pruned, batches(dependencies))
    assert found.layers and np.array_equal(found.model.weights["n.shift"], pruned.weights["n.shift"])


def test_batches_of_other_sizes_may_lie_on_any_axis() -> None:
    net = graphs.Net()
    inner = net.op("MatMul", ["x", net.weight("a.w", 6, 10)], "a")
    turned = net.op("Transpose", [inner], "t", perm=[1, 0, 2])
    net.op("Transpose", [net.op("MatMul", [turned, net.weight("b.w", 10, 4)], "b")], "y", perm=[1, 0, 2])
    dependencies = graphs.traced(net.model(["N", 3, 6], ["N", 3, 4]))
    given = [*batches(dependencies), dict(random_feeds(dependencies.model, batch=3, seed=50))]
    removed = half(dependencies)
    assert recover(dependencies, removed, rewrite(dependencies, removed), given).layers


def test_what_would_be_worse_is_not_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    dependencies = graphs.traced(graphs.chain())
    removed = half(dependencies)
    pruned = rewrite(dependencies, removed)
    module = importlib.import_module("onnxprune.recover.sequential")
    monkeypatch.setattr(module, "worse", lambda *_: True)
    found = recover(dependencies, removed, pruned, batches(dependencies))
    assert found.note and found.model is pruned
    assert module.worse({"relative_l2": 0.1, "agreement": 1.0}, {"relative_l2": None, "agreement": None})


def test_values_that_are_no_numbers_spoil_nothing() -> None:
    dependencies = graphs.traced(graphs.chain())
    removed = half(dependencies)
    pruned, given = rewrite(dependencies, removed), batches(dependencies)
    given[0]["x"][0, 0, 0, 0] = np.nan
    found = recover(dependencies, removed, pruned, given)
    assert all(np.isfinite(w).all() for w in found.model.weights.values())


@pytest.mark.parametrize("method", ["ridge", "statistics", "bias"])
@pytest.mark.parametrize("name", ["chain", "residual", "flattened", "mlp"])
def test_few_samples_with_heavy_tails_make_no_layer_worse(name: str, method: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    removed, rng = half(dependencies), np.random.default_rng(0)
    shape = batches(dependencies, 1)[0]["x"].shape[1:]
    given = [{"x": rng.standard_t(1.2, (1, *shape)).astype(np.float32)} for _ in range(8)]
    pruned = rewrite(dependencies, removed)
    found = recover(dependencies, removed, pruned, given, method=method)
    assert found.layers
    for layer in found.layers:
        assert layer.after <= layer.before if layer.method else layer.note and layer.after == layer.before
    sides = found.before["relative_l2"], found.after["relative_l2"]
    assert found.model is pruned if found.note else sides[1] <= sides[0]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("method", ["ridge", "statistics", "bias"])
@pytest.mark.parametrize("spoilt", [{0}, {3}, {0, 1, 2, 4, 5, 6}, {3, 7}, set(range(8))])
def test_batches_without_a_number_spoil_nothing(
    spoilt: set[int], method: str, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches to fit to, batches held out, or all of them: what is left of them decides."""
    if wide:
        monkeypatch.setattr("onnxprune.recover.refit.COLUMNS", 0)
    dependencies = graphs.traced(graphs.chain())
    given = batches(dependencies)
    for b in spoilt:
        given[b]["x"][:] = np.nan
    pruned = rewrite(dependencies, half(dependencies))
    found = recover(dependencies, half(dependencies), pruned, given, method=method)
    assert all(np.isfinite(w).all() for w in found.model.weights.values())
    if len(spoilt) == 1:
        fresh = batches(dependencies, 9)[8]
        assert error(dependencies, found.model, fresh) < error(dependencies, pruned, fresh)


@pytest.mark.parametrize("memory", [5 * 10**5, 2 * 10**6, 10**7])
def test_sites_are_kept_only_where_outputs_have_room_too(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer of 4 inputs and 64 outputs: what is kept is mostly outputs."""
    net = graphs.Net()
    h = net.op("Relu", [net.conv("x", "a", 8, 3)], "r")
    net.head(net.op("Relu", [net.conv(h, "b", 64, 8)], "r2"), 64)
    dependencies = graphs.traced(net.model(["N", 3, 8, 8], ["N", 5]))
    refit = importlib.import_module("onnxprune.recover.refit")
    original, kept = refit.moments, []

    def observed(state: object, at: int, layer: object, anchor: object, *, keep: bool) -> object:
        found = original(state, at, layer, anchor, keep=keep)
        kept.extend(sum(a.nbytes for a in (r.inputs, r.found, r.wanted)) for r in found[2] or ())
        return found

    monkeypatch.setattr(refit, "moments", observed)
    removed = dependencies.groups[0].units[:4]
    recover(dependencies, removed, rewrite(dependencies, removed), batches(dependencies), memory=memory)
    assert sum(kept) <= memory / 2 and (kept or memory < 10**7)


def test_where_refitting_does_harm_simpler_methods_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    sequential = importlib.import_module("onnxprune.recover.sequential")
    dependencies = graphs.traced(graphs.chain())
    removed, given = half(dependencies), batches(dependencies)
    pruned, plain = rewrite(dependencies, removed), sequential.worse
    seen: list[object] = []

    def worse(before: object, after: object) -> bool:
        seen.append(after)
        return len(seen) < 3 or plain(before, after)  # the first two methods, or all if the third is no better

    monkeypatch.setattr(sequential, "worse", worse)
    found = recover(dependencies, removed, pruned, given)
    assert found.method == "bias" and not found.note and found.model is not pruned
    seen.clear()
    alone = recover(dependencies, removed, pruned, given, method="ridge")
    assert alone.note and alone.model is pruned and len(seen) == 1  # one that is named is not replaced
    monkeypatch.setattr(sequential, "worse", lambda before, after: True)
    left = recover(dependencies, removed, pruned, given)
    assert left.model is pruned and left.note and left.method == "ridge"
