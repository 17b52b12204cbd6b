"""Li's projection rule: the shortcut's filters alone rank a residual stream."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.importance import score
from onnxprune.importance.projection import projections
from tests import graphs

# The same sums of the same weights.
EXACT = 1e-15


def bottleneck(*, pooled: bool = False, gated: bool = False, projected: bool = True) -> onnx.ModelProto:
    """A block whose own last convolution is 1x1, too: with a projection, pooled before it or not, and a gate or not."""
    net = graphs.Net(9)
    width = 12 if projected else 8
    h = net.op("Relu", [net.conv("x", "stem", 8, 3, 3)], "stem.r")
    inner = net.op("Relu", [net.bn(net.conv(h, "c1", 6, 8), "c1.bn", 6)], "c1.r")
    inner = net.op("Relu", [net.conv(inner, "c2", 6, 6, 3)], "c2.r")
    inner = net.bn(net.conv(inner, "c3", width, 6), "c3.bn", width)
    if gated:
        gate = net.conv(net.op("GlobalAveragePool", [inner], "squeeze"), "gate", width, width)
        inner = net.op("Mul", [inner, net.op("Sigmoid", [gate], "gate.s")], "scaled")
    if pooled:
        h = net.op("AveragePool", [h], "pooled", kernel_shape=[3, 3], pads=[1] * 4)
    if projected:
        h = net.bn(net.conv(h, "short", width, 8), "short.bn", width)
    h = net.op("Relu", [net.op("Add", [inner, h], "add")], "add.r")
    net.head(h, width)
    return net.model(["N", 3, 8, 8], ["N", 5])


@pytest.mark.parametrize("form", [{}, {"pooled": True}, {"gated": True}, {"pooled": True, "gated": True}])
def test_the_projection_alone_ranks_its_stream(form: dict[str, bool]) -> None:
    dependencies = graphs.traced(bottleneck(**form))
    assert [s.tensor for s in projections(dependencies)] == ["short.w"]
    weight = dependencies.model.weights["short.w"].astype(np.float64)
    units = dependencies.unit[next(s.ids for s in dependencies.sources if s.tensor == "c3.w")]
    found, norms = score(dependencies, "l1-projection").values, score(dependencies).values
    np.testing.assert_allclose(found[units], np.abs(weight).sum(axis=(1, 2, 3)), rtol=EXACT)
    others = np.setdiff1d(np.arange(found.size), units)
    np.testing.assert_array_equal(found[others], norms[others])


def test_a_strided_projection_in_the_shared_graph() -> None:
    assert [s.tensor for s in projections(graphs.traced(graphs.residual()))] == ["bs.w"]


@pytest.mark.parametrize("name", ["no projection", "chain", "gated", "grouped", "dense", "mlp"])
def test_where_there_is_none_it_is_l1(name: str) -> None:
    """A 1x1 convolution at the end of a block with an identity shortcut is no projection."""
    proto = bottleneck(projected=False) if name == "no projection" else graphs.ALL[name]()
    dependencies = graphs.traced(proto)
    assert projections(dependencies) == []
    np.testing.assert_array_equal(score(dependencies, "l1-projection").values, score(dependencies).values)
