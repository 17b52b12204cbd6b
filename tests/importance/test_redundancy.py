"""Laws of the filter graph: directions only, and the two numbers of graphs that can be counted by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.importance.redundancy import covering, distances_of, gamma, quotient, score_of
from onnxprune.trace import Dependencies
from tests import graphs

# Cosines of float32 filters in float64: right to 1e-16, their distances at 0 to the root of it.
ROUNDING = 1e-7


def joined(size: int, *edges: tuple[int, int]) -> np.ndarray:
    found = np.eye(size, dtype=bool)
    for a, b in edges:
        found[a, b] = found[b, a] = True
    return found


# A graph, its components, and its 1-covering number.
GRAPHS = {
    "no edge": (joined(4), 4, 4),
    "one filter": (joined(1), 1, 1),
    "star": (joined(5, (0, 1), (0, 2), (0, 3), (0, 4)), 1, 1),
    "path of 6": (joined(6, (0, 1), (1, 2), (2, 3), (3, 4), (4, 5)), 1, 2),
    "two triangles and one alone": (joined(7, (0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5)), 3, 3),
    "complete": (np.ones((6, 6), dtype=bool), 1, 1),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_counted_by_hand(name: str) -> None:
    graph, parts, cover = GRAPHS[name]
    assert (quotient(graph), covering(graph)) == (parts, cover)
    assert score_of(graph) == pytest.approx((0.65 * cover + 0.35 * parts) / len(graph))


@pytest.mark.parametrize("seed", range(5))
def test_the_greedy_cover_covers_and_lies_between_components_and_filters(seed: int) -> None:
    draw = np.random.default_rng(seed).uniform(size=(30, 30)) < 0.06
    graph = draw | draw.T | np.eye(30, dtype=bool)
    assert quotient(graph) <= covering(graph) <= 30


def traced_with(rows: list[list[float]]) -> Dependencies:
    """A Gemm with these filters, and a layer that reads it."""
    net = graphs.Net(0)
    net.weights["w"] = np.array(rows, np.float32)
    h = net.op("Gemm", ["x", "w"], "h", transB=1)
    net.op("MatMul", [h, net.weight("out.w", len(rows), 2)], "y")
    return graphs.traced(net.model(["N", len(rows[0])], ["N", 2]))


def test_distances_on_paper() -> None:
    """(1, 0) and (7, 0) point the same way, (0, 2) stands upright, (-3, 0) is opposite; filters of zeros are equal."""
    dependencies = traced_with([[1, 0], [7, 0], [0, 2], [-3, 0], [0, 0], [0, 0]])
    found = distances_of(dependencies, dependencies.groups[0])
    r = np.sqrt(2)
    wanted = [
        [0, 0, r, 2, r, r],
        [0, 0, r, 2, r, r],
        [r, r, 0, r, r, r],
        [2, 2, r, 0, r, r],
        [r, r, r, r, 0, 0],
        [r, r, r, r, 0, 0],
    ]
    np.testing.assert_allclose(found, wanted, atol=ROUNDING)


def test_coupled_layers_count_alike_whatever_their_scale() -> None:
    proto = graphs.residual()
    dependencies = graphs.traced(proto)
    group = next(g for g in dependencies.groups if {s.tensor for s in g.sources} == {"b2.w", "bs.w"})
    parts = []
    for source in group.sources:
        order = np.argsort(dependencies.unit[source.ids])[np.argsort(np.argsort(group.units))]
        flat = dependencies.model.weights[source.tensor].reshape(16, -1)[order].astype(np.float64)
        parts.append(flat / np.linalg.norm(flat, axis=1, keepdims=True))
    squared = [np.square(p[:, None] - p[None]).sum(axis=2) for p in parts]
    found = distances_of(dependencies, group)
    np.testing.assert_allclose(found, np.sqrt(np.mean(squared, axis=0)), atol=ROUNDING)
    tensor = next(t for t in proto.graph.initializer if t.name == "bs.w")
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(64), "bs.w"))
    again = graphs.traced(proto)
    np.testing.assert_allclose(
        distances_of(again, next(g for g in again.groups if g.name == group.name)), found, atol=ROUNDING
    )


def test_half_of_the_filters_have_a_neighbour_within_gamma() -> None:
    apart = [distances_of(d, g) for d in [graphs.traced(graphs.residual())] for g in d.groups]
    near = gamma(apart)
    nearest = np.concatenate([(d + np.diag(np.full(len(d), np.inf))).min(axis=1) for d in apart])
    assert (nearest <= near).mean() >= 0.5 and (nearest < near).mean() <= 0.5


@pytest.mark.parametrize("name", graphs.ALL)
def test_distances_are_symmetric_and_at_most_2(name: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    for group in dependencies.groups:
        found = distances_of(dependencies, group)
        assert found.shape == (group.units.size,) * 2 and np.isfinite(found).all()
        np.testing.assert_allclose(found, found.T, atol=ROUNDING)
        assert found.min() >= 0 and found.max() <= 2 and not np.diagonal(found).any()
