"""Laws of fluctuation: variance times squared weights, standardised; what never moves costs nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.importance import Evidence, score
from onnxprune.runtime import capture
from tests import graphs
from tests.importance.evidence import samples


def two_layers() -> onnx.ModelProto:
    """MatMul by the identity, read by a MatMul: the channels are the inputs themselves."""
    net = graphs.Net()
    net.weights["a"] = np.eye(3, dtype=np.float32)
    net.weights["b"] = np.array([[1, 0], [2, 2], [0, 5]], np.float32)
    net.op("MatMul", [net.op("MatMul", ["x", "a"], "h"), "b"], "y")
    return net.model(["N", 3], ["N", 2])


def test_numbers_worked_out_on_paper() -> None:
    """Variances 1, 4, 0; squared weights 1, 8, 25; products 1, 32, 0, of mean 11 and deviation sqrt(1025/3 - 121)."""
    dependencies = graphs.traced(two_layers())
    x = np.array([[1, 2, 7], [-1, 2, 7], [1, -2, 7], [-1, -2, 7]], np.float32)
    found = score(dependencies, "flap", Evidence([{"x": x}, {"x": x}])).values[dependencies.groups[0].units]
    # Sums of a few small integers are exact; standardising rounds.
    assert found == pytest.approx(np.array([1, 32, 0]) / np.sqrt(1025 / 3 - 121), rel=1e-9)


@pytest.mark.parametrize("name", graphs.ALL)
def test_every_unit_has_a_finite_score_and_groups_compare(name: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    one, other = (score(dependencies, "flap", samples(dependencies)) for _ in range(2))
    assert one.comparable and np.isfinite(one.values).all() and one.values.min() == 0
    assert np.array_equal(one.values, other.values)
    means = [one.values[group.units].mean() for group in dependencies.groups]
    assert means == pytest.approx([means[0]] * len(means), rel=1e-9)  # rounding of a few sums
    spread = [one.values[group.units].std() for group in dependencies.groups if group.units.size > 1]
    assert spread == pytest.approx([1.0] * len(spread), rel=1e-9)


def test_the_fluctuation_of_a_convolution_is_that_of_what_its_taps_see() -> None:
    dependencies = graphs.traced(graphs.chain())
    evidence, model = samples(dependencies), dependencies.model
    group = next(g for g in dependencies.groups if g.name == "c2.w")
    x = np.concatenate([capture(model, batch, ["r2"])["r2"] for batch in evidence.samples]).astype(np.float64)
    w = model.weights["c3.w"].astype(np.float64)  # 1 x 1, without normalisation behind it
    each = x.var(axis=(0, 2, 3)) * np.square(w).sum(axis=(0, 2, 3))
    units = dependencies.unit[dependencies.labels["r2"][1].ids]
    found = score(dependencies, "flap", evidence).values
    found = found[units] - found[group.units].mean()
    # float32 activations from differently fused kernels.
    np.testing.assert_allclose(found, (each - each.mean()) / each.std(), rtol=1e-4, atol=1e-5)
