"""Laws of the cut: below it run the outputs of the whole masked model, and above it nothing depends on the group."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.calibrate import Walk
from onnxprune.importance import score
from onnxprune.plan import Limits
from onnxprune.plan.choose import Chooser, chooser_of
from onnxprune.rewrite import masked, rewrite
from onnxprune.runtime import random_feeds, run
from onnxprune.sensitivity.below import Below, firsts, variants
from onnxprune.trace import Dependencies, trace
from tests import graphs

CLOSE = 1e-5  # float32: fused kernels add in another order when a graph is cut elsewhere


def batches(dependencies: Dependencies) -> list[dict[str, np.ndarray]]:
    return [dict(random_feeds(dependencies.model, batch=3, seed=seed)) for seed in range(2)]


def cut(chooser: Chooser, g: int, ratio: float = 0.5) -> np.ndarray:
    return chooser.groups[g].units[chooser.group(g, ratio)[0]]


@pytest.mark.parametrize("name", graphs.ALL)
def test_below_the_cut_runs_the_whole_masked_model(name: str) -> None:
    """And so what the pruned model computes; the walk stands where the group begins, and the pieces may be many."""
    dependencies = graphs.traced(graphs.ALL[name]())
    chooser, samples = chooser_of(dependencies, score(dependencies), Limits()), batches(dependencies)
    walk, starts = Walk(dependencies.model, samples), firsts(dependencies)
    for g in np.argsort(starts, kind="stable").tolist():
        for _ in walk.values(int(starts[g]), []):
            pass
        removed = cut(chooser, g)
        assert removed.size
        whole, small = masked(dependencies, removed), rewrite(dependencies, removed)
        for feeds, found in zip(samples, Below.of(walk).run(next(variants(dependencies, removed))), strict=True):
            for output, value in found.items():
                for model in (whole, small):
                    wanted = run(model, feeds)[output]
                    assert np.abs(wanted - value).max() <= CLOSE * max(1.0, np.abs(wanted).max())


def test_a_group_begins_at_its_first_layer() -> None:
    dependencies = graphs.traced(graphs.chain())
    nodes = list(dependencies.model.proto.graph.node)
    assert [nodes[at].input[1] for at in firsts(dependencies)] == ["c1.w", "c2.w", "c3.w"]


def test_an_output_in_front_of_the_cut_is_not_computed_again() -> None:
    net = graphs.Net()
    early = net.op("Relu", [net.conv("x", "a", 4, 3, 3)], "early")
    late = net.op("Relu", [net.conv(early, "b", 8, 4, 3)], "r")
    net.head(net.conv(late, "c", 6, 8, 3), 6)
    proto = net.model(["N", 3, 8, 8], ["N", 5])
    proto.graph.output.append(graphs.helper.make_tensor_value_info("early", 1, ["N", 4, 8, 8]))
    dependencies = graphs.traced(proto)
    walk = Walk(dependencies.model, batches(dependencies))
    g = next(g for g, group in enumerate(dependencies.groups) if group.name == "b.w")
    for _ in walk.values(int(firsts(dependencies)[g]), []):
        pass
    below = Below.of(walk)
    assert "early" not in below.outputs and len(below.outputs) == 1
    assert [set(found) for found in below.run(dependencies.model)] == [set(below.outputs)] * 2


def test_normalised_channels_are_cut_as_the_pruned_model_has_them() -> None:
    """Through a LayerNormalization the plainly masked model would be another one."""
    net = graphs.Net()
    h = net.op("MatMul", ["x", net.weight("a", 4, 12)], "h")
    n = net.op("LayerNormalization", [h, net.weight("g", 12), net.weight("s", 12)], "n", axis=-1)
    net.op("MatMul", [n, net.weight("b", 12, 3)], "y")
    dependencies = trace(graphs.loaded(net.model(["N", 4], ["N", 3])), through_norms=True)
    chooser, samples = chooser_of(dependencies, score(dependencies), Limits()), batches(dependencies)
    walk = Walk(dependencies.model, samples)
    removed = cut(chooser, 0)
    small = rewrite(dependencies, removed)
    assert removed.size
    for feeds, found in zip(samples, Below.of(walk).run(next(variants(dependencies, removed))), strict=True):
        np.testing.assert_allclose(found["y"], run(small, feeds)["y"], atol=CLOSE)
