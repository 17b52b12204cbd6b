"""The law of the criteria: a unit's score is the sum, over its group's sources, of its filters' norms."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnxprune.errors import ModelError, PlanError
from onnxprune.importance import score
from onnxprune.trace import Dependencies, Group
from tests import graphs

# Sums of a few float32 weights in float64 differ from each other only by the order of summation.
EXACT = 1e-12

NORMS = {"l1": lambda f: float(np.abs(f).sum()), "l2": lambda f: float(np.sqrt((f * f).sum()))}


def one_layer(kind: str, shape: tuple[int, ...], **attributes: object) -> tuple[onnx.ModelProto, NDArray[np.generic]]:
    """A layer whose filters are ranked, and a layer that reads it."""
    net = graphs.Net(11)
    w = net.weight("w", *shape)
    if kind in ("Conv", "ConvTranspose"):
        channels = net.op("Conv", ["x", net.weight("in.w", 6, 3, 1, 1)], "in")
        h = net.op(kind, [channels, w], "h", **attributes)
        out = shape[0] if kind == "Conv" else shape[1] * int(attributes.get("group", 1))
        net.op("Conv", [h, net.weight("out.w", 2, out, 1, 1)], "y")
        return net.model(["N", 3, 4, 4], ["N", 2, "h", "w"]), net.weights["w"].astype(np.float64)
    h = net.op(kind, ["x", w], "h", **attributes)
    out = shape[0] if attributes.get("transB") else shape[1]
    net.op("MatMul", [h, net.weight("out.w", out, 2)], "y")
    return net.model(["N", shape[1] if attributes.get("transB") else shape[0]], ["N", 2]), net.weights["w"].astype(
        np.float64
    )


# Operator, weight shape, attributes, and the filters by hand: filter i as a selection from the weight.
LAYERS = {
    "Conv": ("Conv", (4, 6, 3, 3), {}, lambda w, i: w[i]),
    "Conv in 2 groups": ("Conv", (8, 3, 3, 3), {"group": 2}, lambda w, i: w[i]),
    "ConvTranspose": ("ConvTranspose", (6, 4, 2, 2), {}, lambda w, i: w[:, i]),
    # Output channel i of a transposed convolution with groups of 3 inputs and 4 outputs lies in group i // 4.
    "ConvTranspose in 2 groups": (
        "ConvTranspose",
        (6, 4, 2, 2),
        {"group": 2},
        lambda w, i: w[3 * (i // 4) : 3 * (i // 4) + 3, i % 4],
    ),
    "Gemm": ("Gemm", (6, 4), {}, lambda w, i: w[:, i]),
    "Gemm transB": ("Gemm", (4, 6), {"transB": 1}, lambda w, i: w[i]),
    "MatMul": ("MatMul", (6, 4), {}, lambda w, i: w[:, i]),
}


def group_of(dependencies: Dependencies, tensor: str) -> Group:
    return next(g for g in dependencies.groups if any(s.tensor == tensor for s in g.sources))


@pytest.mark.parametrize("criterion", NORMS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_filter_scores_its_norm(layer: str, criterion: str) -> None:
    kind, shape, attributes, select = LAYERS[layer]
    proto, weight = one_layer(kind, shape, **attributes)
    dependencies = graphs.traced(proto)
    group = group_of(dependencies, "w")
    units = dependencies.unit[next(s.ids for s in group.sources if s.tensor == "w")].ravel()
    by_hand = [NORMS[criterion](select(weight, i)) for i in range(units.size)]
    assert len(by_hand) == (8 if "2 groups" in layer else 4)
    found = score(dependencies, criterion).values[units]
    np.testing.assert_allclose(found, by_hand, rtol=EXACT)


def test_numbers_worked_out_on_paper() -> None:
    proto, _ = one_layer("Gemm", (2, 3), transB=1)
    for tensor in proto.graph.initializer:
        if tensor.name == "w":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array([[3, -4, 0], [1, 2, -2]], np.float32), "w"))
    dependencies = graphs.traced(proto)
    assert score(dependencies, "l1").values.tolist() == [7, 5]
    assert score(dependencies, "l2").values.tolist() == [5, 3]


@pytest.mark.parametrize("criterion", NORMS)
def test_coupled_sources_add_up(criterion: str) -> None:
    """A residual stream is fed by two convolutions: channel i is filter i of both."""
    dependencies = graphs.traced(graphs.residual())
    group = group_of(dependencies, "b2.w")
    assert {s.tensor for s in group.sources} == {"b2.w", "bs.w"}
    weights = [dependencies.model.weights[n].astype(np.float64) for n in ("b2.w", "bs.w")]
    by_hand = [sum(NORMS[criterion](w[i]) for w in weights) for i in range(16)]
    np.testing.assert_allclose(score(dependencies, criterion).values[group.units], by_hand, rtol=EXACT)


def test_what_a_channel_is_multiplied_with_later_does_not_count() -> None:
    """Only filters are ranked: scaling the layers that read a channel leaves the scores of this one."""
    proto = graphs.chain()
    before = score(graphs.traced(proto)).values
    for tensor in proto.graph.initializer:
        if tensor.name in ("fc.w", "bn2.scale", "c1.b"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 9, tensor.name))
    np.testing.assert_array_equal(score(graphs.traced(proto)).values, before)


@pytest.mark.parametrize("criterion", NORMS)
@pytest.mark.parametrize("name", graphs.ALL)
def test_every_unit_gets_a_finite_score_above_zero(name: str, criterion: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    found = score(dependencies, criterion)
    assert found.criterion == criterion and found.values.shape == (dependencies.unit_count,)
    assert np.isfinite(found.values).all() and (found.values > 0).all()


@pytest.mark.parametrize("criterion", NORMS)
def test_norms_grow_in_proportion_to_the_weights(criterion: str) -> None:
    proto = graphs.chain()
    before = score(graphs.traced(proto), criterion).values
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(-4), tensor.name))
    np.testing.assert_array_equal(score(graphs.traced(proto), criterion).values, 4 * before)  # a power of 2 is exact


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_half_precision_weights_are_summed_without_overflow(dtype: type) -> None:
    net = graphs.Net(0, np.dtype(dtype))
    net.weights["w"] = np.full((2, 4096), 100, dtype)
    h = net.op("MatMul", [net.op("Gemm", ["x", "w"], "h", transB=1), net.weight("out.w", 2, 2)], "y")
    assert h == "y"
    dependencies = graphs.traced(net.model(["N", 4096], ["N", 2]))
    assert score(dependencies, "l1").values.tolist() == [409600, 409600]
    assert score(dependencies, "l2").values.tolist() == [6400, 6400]


@pytest.mark.parametrize(("typo", "meant"), [("l11", "l1"), ("L1", "l1"), ("L2", "l2"), ("l2norm", "l2")])
def test_an_unknown_criterion_is_answered_with_the_nearest(typo: str, meant: str) -> None:
    with pytest.raises(PlanError, match=f"unknown criterion '{typo}'; did you mean '{meant}'"):
        score(graphs.traced(graphs.mlp()), typo)


@pytest.mark.parametrize("criterion", NORMS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(bad: float, criterion: str) -> None:
    proto = graphs.chain()
    for tensor in proto.graph.initializer:
        if tensor.name == "c2.w":
            value = onnx.numpy_helper.to_array(tensor).copy()
            value[3, 1, 0, 0] = bad
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    with pytest.raises(ModelError, match=r"'c2\.w' holds NaN or infinite weights; node 'c2'"):
        score(graphs.traced(proto), criterion)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, ml_dtypes.int4, ml_dtypes.float8_e4m3fn])
def test_stored_integers_are_ranked_as_what_they_stand_for(kind: type) -> None:
    net = graphs.Net(5)
    stored = net.rng.integers(0, 7, (6, 4)).astype(kind)
    scale, zero = net.rng.uniform(0.1, 3, 4).astype(np.float32), np.array([0, 1, 2, 3]).astype(kind)
    if "float" in np.dtype(kind).name:
        zero = np.zeros(4, kind)
    net.weights |= {"q": stored, "s": scale, "z": zero}
    w = net.op("DequantizeLinear", ["q", "s", "z"], "w", axis=1)
    net.op("MatMul", [net.op("MatMul", ["x", w], "h"), net.weight("out.w", 4, 2)], "y")
    found = graphs.traced(net.model(["N", 6], ["N", 2], opset=21))
    real = scale * (stored.astype(np.float64) - zero.astype(np.float64))
    order = found.unit[found.labels["q"][1].ids]
    assert score(found).values[order] == pytest.approx(np.abs(real).sum(axis=0), rel=1e-6)
