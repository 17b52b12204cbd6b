"""Laws of dead units: without them the outputs are what they were, and no unit that could be proved dead is missed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune.dead import CAUSES, Dead, settle
from onnxprune.importance import score
from onnxprune.lossless import plan_dead
from onnxprune.model import Model
from onnxprune.normalise import normalise
from onnxprune.plan import Limits
from onnxprune.rewrite import masked, rewrite
from onnxprune.runtime import random_feeds
from onnxprune.trace import trace
from onnxprune.verify import compare
from tests import graphs
from tests.dead.plants import PLANTED

# Outputs are sums of at most a few hundred float32 terms of size about 1; they differ by the order of these at most.
ROUNDING = 1e-5


def found_in(proto: onnx.ModelProto) -> tuple[Model, Dead]:
    model = graphs.loaded(proto)
    return model, settle(trace(normalise(model)))


def stripped(dead: Dead) -> tuple[Model, np.ndarray]:
    """The model without its dead units, and those that went."""
    chosen = plan_dead(dead, score(dead.dependencies), Limits())
    removed = chosen.removed(dead.dependencies)
    return rewrite(dead.dependencies, removed), removed


def feeds(model: Model, count: int = 3) -> list[dict[str, np.ndarray]]:
    """Ordinary and large inputs, so that a ReLU that fires at all has its chance."""
    drawn = [random_feeds(model, batch=2, seed=seed) for seed in range(count)]
    return [*drawn, {k: 100 * v for k, v in drawn[0].items()}]


@pytest.mark.parametrize("name", PLANTED)
def test_planted_units_are_found_and_no_others(name: str) -> None:
    planted = PLANTED[name]()
    _, dead = found_in(planted.proto)
    cause = dict(zip(dead.units.tolist(), dead.cause.tolist(), strict=True))
    found = {}
    for source in dead.dependencies.sources:
        for index, unit in enumerate(dead.dependencies.unit[source.ids].ravel().tolist()):
            if unit in cause:
                found[source.tensor, index] = CAUSES[cause[unit]]
    assert found == planted.dead


@pytest.mark.parametrize("name", PLANTED)
def test_without_them_the_outputs_are_the_same(name: str) -> None:
    planted = PLANTED[name]()
    model, dead = found_in(planted.proto)
    if not planted.dead:
        assert not dead.units.size
        return
    pruned, removed = stripped(dead)
    assert removed.size
    same = compare(model, pruned, feeds(model))
    assert same.ok and same.max_rel < ROUNDING
    again = settle(trace(normalise(pruned)))
    kept = dead.units.size - removed.size
    assert again.units.size <= kept  # what is left is alive, but for what rows keep


def sparse(name: str, seed: int) -> onnx.ModelProto:
    """A graph of the tests with random filters, their biases, and random inputs of layers set to zero."""
    proto = graphs.ALL[name]()
    rng = np.random.default_rng(seed)
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype.kind != "f" or tensor.name.endswith((".var", ".mean")):
            continue
        array = array.copy()
        for k in range(min(array.ndim, 2)):
            np.moveaxis(array, k, 0)[rng.random(array.shape[k]) < 0.3] = 0
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return proto


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", graphs.ALL)
def test_all_that_is_dead_is_found_and_nothing_alive(name: str, seed: int) -> None:
    model, dead = found_in(sparse(name, seed))
    dependencies, inputs = dead.dependencies, feeds(model)
    if dead.units.size:
        same = compare(model, masked(dependencies, dead.units), inputs)
        assert same.ok and same.max_rel < ROUNDING
    alone = [u for u in range(dependencies.unit_count) if not dead.mask[u]]
    silent = [u for u in alone if compare(model, masked(dependencies, np.array([u])), inputs).max_abs == 0.0]
    # A unit that makes no difference on these inputs is one that does not fire on them, which is no proof: few are.
    assert len(silent) <= 0.1 * len(alone)


def test_a_limit_that_keeps_a_dead_unit_keeps_what_it_needs() -> None:
    planted = PLANTED["unread"]()
    _, dead = found_in(planted.proto)  # filter 4 of c1 is read by filter 5 of c2 alone, which nothing reads
    chosen = plan_dead(dead, score(dead.dependencies), Limits(skip=("c2.w",)))
    assert {g.name: g.removed for g in chosen.groups} == {"c1.w": (3,), "c2.w": (), "c3.w": ()}
    free = plan_dead(dead, score(dead.dependencies), Limits())
    assert {g.name: g.removed for g in free.groups} == {"c1.w": (3, 4), "c2.w": (5,), "c3.w": ()}


def test_groups_lose_equal_numbers() -> None:
    _, dead = found_in(PLANTED["grouped"]().proto)
    _, removed = stripped(dead)
    assert dead.units.size == 4 and removed.size == 3


def test_alignment_keeps_some() -> None:
    _, dead = found_in(PLANTED["zero_filters"]().proto)
    chosen = plan_dead(dead, score(dead.dependencies), Limits(align=4))
    group = next(g for g in chosen.groups if g.name == "c1.w")
    assert not group.removed and "2 of 2 stay" in group.note


def test_every_layer_keeps_a_filter() -> None:
    proto = graphs.chain()
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("c2."):
            zero = np.zeros_like(onnx.numpy_helper.to_array(tensor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(zero, tensor.name))
        if tensor.name in ("bn2.shift", "bn2.mean"):
            zero = np.zeros_like(onnx.numpy_helper.to_array(tensor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(zero, tensor.name))
    model, dead = found_in(proto)
    pruned, removed = stripped(dead)
    # Without c2 the network is constant: c3 is a bias of the last layer. One filter of each layer stays.
    assert dead.counts == {"zero filter": 16, "unread": 16, "constant": 12} and removed.size == 15 + 15 + 11
    assert compare(model, pruned, feeds(model)).max_rel < ROUNDING


@pytest.mark.parametrize("groups", [0, -1, 3, 2**62])
def test_impossible_groups_are_needed(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONNXPRUNE_DEBUG", raising=False)
    proto = PLANTED["unread"]().proto
    node = next(n for n in proto.graph.node if n.name == "c3")
    kept = [a for a in node.attribute if a.name != "group"]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute("group", groups)])
    _, dead = found_in(proto)
    assert dead.counts == {"unread": 1}  # what only c2 reads; what c3 makes of its inputs is not known


def test_where_a_maximum_was_found_is_no_constant_even_if_the_maximum_is() -> None:
    """A dead map has the maximum 0; its places depend on the size of the input all the same."""
    net = graphs.Net()
    h = net.op("Relu", [net.conv("x", "a", 4, 3, 3)], "r")
    net.weights["a.w"][:], net.weights["a.b"][:] = 0, -1
    pool = helper.make_node("MaxPool", [h], ["max", "places"], name="pool", kernel_shape=[2, 2], strides=[2, 2])
    net.nodes.append(pool)
    h = net.op("Flatten", [net.op("GlobalAveragePool", [net.op("Cast", ["places"], "cast", to=1)], "mean")], "flat")
    net.dense(net.op("Relu", [net.dense(h, "b", 6, 4)], "r2"), "c", 5, 6, "y")
    dense, dead = found_in(net.model(["N", 3, 8, 8], ["N", 5]))
    assert not dead.counts
    assert compare(dense, dead.dependencies.model, feeds(dense)).ok
