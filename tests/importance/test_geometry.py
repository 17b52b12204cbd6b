"""Geometric median: sums of distances, by hand and against differences taken one by one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.importance import geometry, score
from onnxprune.importance.geometry import distances, gram
from tests import graphs

# A squared distance is a difference of numbers near 100 in float64, right to 1e-16 of them: 1e-14, whose root is 1e-7
# for filters that are equal; far less for others.
ROUNDING = 1e-6


def set_weight(proto: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float32), name))


def test_numbers_worked_out_on_paper() -> None:
    """Filters at the corners (0, 0), (3, 0), (0, 4) of a triangle with sides 3, 4 and 5."""
    net = graphs.Net(0)
    net.weights["w"] = np.array([[0, 0], [3, 0], [0, 4]], np.float32)
    net.op("MatMul", [net.op("Gemm", ["x", "w"], "h", transB=1), net.weight("out.w", 3, 2)], "y")
    dependencies = graphs.traced(net.model(["N", 2], ["N", 2]))
    assert score(dependencies, "fpgm").values == pytest.approx([7, 8, 9], abs=ROUNDING)


@pytest.mark.parametrize(("graph", "tensors"), [("grouped", ["groups.w"]), ("residual", ["b2.w", "bs.w"])])
def test_distances_of_grouped_and_coupled_layers_add_up(graph: str, tensors: list[str]) -> None:
    dependencies = graphs.traced(graphs.ALL[graph]())
    units = dependencies.unit[next(s.ids for s in dependencies.sources if s.tensor == tensors[0])]
    flat = [dependencies.model.weights[t].reshape(units.size, -1).astype(np.float64) for t in tensors]
    by_hand = [sum(float(np.linalg.norm(f - f[i], axis=1).sum()) for f in flat) for i in range(units.size)]
    np.testing.assert_allclose(score(dependencies, "fpgm").values[units], by_hand, atol=ROUNDING)


def test_moving_all_filters_changes_nothing() -> None:
    proto = graphs.chain()
    before = score(graphs.traced(proto), "fpgm").values
    tensor = next(t for t in proto.graph.initializer if t.name == "c2.w")
    moved = onnx.numpy_helper.to_array(tensor) + np.float32(2)
    set_weight(proto, "c2.w", moved)
    # float32 filters moved by 2 are rounded to 2e-7; 15 distances over 144 elements gather at most 4e-5 of that.
    np.testing.assert_allclose(score(graphs.traced(proto), "fpgm").values, before, atol=1e-4)


def test_equal_filters_are_no_distance_apart() -> None:
    filters = np.repeat(np.random.default_rng(0).normal(size=(3, 50)), 2, axis=0).astype(np.float32)
    assert distances(filters)[0, 1] < ROUNDING < distances(filters)[0, 2]


def test_wide_filters_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    filters = np.random.default_rng(0).normal(size=(5, 33)).astype(np.float32)
    whole = gram(filters, filters.mean(axis=0, dtype=np.float64))
    monkeypatch.setattr(geometry, "PART", 20)
    # The same products, added in another order.
    np.testing.assert_allclose(gram(filters, filters.mean(axis=0, dtype=np.float64)), whole, rtol=1e-12, atol=1e-12)
