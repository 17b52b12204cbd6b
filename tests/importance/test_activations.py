"""Laws of activation statistics: against maps worked out by hand, and against numpy on what the runtime computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnxprune.importance import Evidence, Scores, score
from onnxprune.importance import maps as feature_maps
from onnxprune.importance.maps import maps_of
from onnxprune.runtime import capture
from onnxprune.trace import Dependencies, Source
from tests import graphs
from tests.importance.evidence import samples

CRITERIA = ["activation-mean", "activation-std", "activation-l1", "activation-l2", "activation-variance", "apoz"]
NEAR = 1e-4  # float32 activations, computed by kernels that are fused differently
Floats = NDArray[np.float64]


def copying() -> onnx.ModelProto:
    """A 1 x 1 convolution whose two filters copy the two input channels, a ReLU, and a layer that reads them."""
    net = graphs.Net()
    net.weights["w"] = np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1)
    h = net.op("Relu", [net.op("Conv", ["x", "w"], "h")], "r")
    net.op("Conv", [h, net.weight("out.w", 3, 2, 1, 1)], "y")
    return net.model(["N", 2, 1, 4], ["N", 3, 1, 4])


# Two samples of two channels. Channel 0: means 1 and -1, deviations 2 and 1, L1 8 and 4, L2 sqrt(20) and sqrt(8).
# Channel 1: means 3 and 3, deviations 0 and 4, L1 12 and 16, L2 6 and 10.
X = np.array([[[[3, 3, -1, -1]], [[3, 3, 3, 3]]], [[[-2, 0, -2, 0]], [[7, 7, -1, -1]]]], np.float32)
BY_HAND = {
    "activation-mean": [0.0, 3.0],  # means over samples are 0 and 3; the least is shifted to 0
    "activation-std": [1.5, 2.0],
    "activation-l1": [6.0, 14.0],
    "activation-l2": [(20**0.5 + 8**0.5) / 2, 8.0],
    "activation-variance": [((20**0.5 - 8**0.5) / 2) ** 2, 4.0],
    "apoz": [2 / 8, 6 / 8],  # what is above 0, behind the ReLU
}


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_numbers_worked_out_on_paper(criterion: str, batches: int) -> None:
    dependencies = graphs.traced(copying())
    evidence = Evidence([{"x": part} for part in np.split(X, batches)])
    found, wanted = score(dependencies, criterion, evidence).values, np.array(BY_HAND[criterion])
    assert found == pytest.approx(wanted / wanted.mean(), rel=1e-6)  # the input is copied in float32


def maps(dependencies: Dependencies, evidence: Evidence, tensor: str, axis: int = 1) -> Floats:
    """All feature maps in a tensor. Shape (samples, channels, positions)."""
    held = [capture(dependencies.model, batch, [tensor])[tensor] for batch in evidence.samples]
    x = np.moveaxis(np.concatenate(held).astype(np.float64), axis, 1)
    return x.reshape(*x.shape[:2], -1)


STATISTICS = {
    "activation-std": lambda x: x.std(axis=2).mean(axis=0),
    "activation-l1": lambda x: np.abs(x).sum(axis=2).mean(axis=0),
    "activation-l2": lambda x: np.sqrt(np.square(x).sum(axis=2)).mean(axis=0),
    "activation-variance": lambda x: np.sqrt(np.square(x).sum(axis=2)).var(axis=0),
}


@pytest.mark.parametrize("criterion", STATISTICS)
def test_coupled_sources_add_up_each_relative_to_its_mean(criterion: str) -> None:
    dependencies = graphs.traced(graphs.residual())
    evidence = samples(dependencies)
    group = next(g for g in dependencies.groups if {s.tensor for s in g.sources} == {"b2.w", "bs.w"})
    each = [STATISTICS[criterion](maps(dependencies, evidence, name)) for name in ("b2", "bs")]
    wanted = sum(values / values.mean() for values in each)
    found = score(dependencies, criterion, evidence)
    np.testing.assert_allclose(found.values[group.units], wanted, rtol=NEAR)
    for source in group.sources:
        assert found.filters[source].mean() == pytest.approx(1.0)


def test_zeros_are_counted_behind_normalisation_and_shortcut() -> None:
    dependencies = graphs.traced(graphs.residual())
    evidence = samples(dependencies)
    found = score(dependencies, "apoz", evidence).filters
    for tensor, behind in (("a1.w", "a1.r"), ("b2.w", "b.r"), ("bs.w", "b.r")):
        living = (maps(dependencies, evidence, behind) > 0).mean(axis=(0, 2))
        source = next(s for s in dependencies.sources if s.tensor == tensor)
        np.testing.assert_allclose(found[source], living / living.mean(), rtol=1e-2)  # a value near 0 may round to it


def test_zeros_are_counted_behind_a_concatenation() -> None:
    """The rectifier's channels are more than the source's; labels tell which are whose."""
    dependencies = graphs.traced(graphs.dense())
    where = {m.source.tensor: m for found in maps_of(dependencies, rectified=True).values() for m in found}
    assert where["grow1.w"].tensor == "r2" and where["grow1.w"].channels.tolist() == list(range(8, 14))
    assert where["stem.w"].tensor == "r1" and where["stem.w"].channels.tolist() == list(range(8))


def ratio(found: Scores, source: Source) -> Floats:
    return found.filters[source] / found.filters[source].mean()


def test_what_has_no_rectifier_takes_its_norms() -> None:
    dependencies = graphs.traced(graphs.mlp())  # Relu, Tanh, Sigmoid
    norms, found = score(dependencies, "l1"), score(dependencies, "apoz", samples(dependencies))
    by_name = {s.tensor: s for s in dependencies.sources}
    for tensor in ("g2.w", "m3.w"):
        np.testing.assert_allclose(found.filters[by_name[tensor]], ratio(norms, by_name[tensor]), rtol=1e-12)
    assert not np.allclose(found.filters[by_name["g1.w"]], ratio(norms, by_name["g1.w"]))


def test_maps_of_one_number_deviate_over_the_samples() -> None:
    dependencies = graphs.traced(graphs.mlp())
    evidence = samples(dependencies)
    source = next(s for s in dependencies.sources if s.tensor == "g1.w")
    wanted = maps(dependencies, evidence, "g1")[:, :, 0].std(axis=0)
    found = score(dependencies, "activation-std", evidence).filters[source]
    np.testing.assert_allclose(found, wanted / wanted.mean(), rtol=NEAR)


def test_channels_of_a_sequence_lie_on_its_last_axis() -> None:
    net = graphs.Net()
    h = net.op("Relu", [net.op("MatMul", ["x", net.weight("w", 6, 6)], "h")], "r")
    net.op("MatMul", [h, net.weight("out.w", 6, 2)], "y")
    dependencies = graphs.traced(net.model(["N", 6, 6], ["N", 6, 2]))  # as long as it is wide
    evidence = samples(dependencies)
    wanted = np.abs(maps(dependencies, evidence, "h", axis=2)).sum(axis=2).mean(axis=0)
    source = next(s for s in dependencies.sources if s.tensor == "w")
    found = score(dependencies, "activation-l1", evidence).filters[source]
    np.testing.assert_allclose(found, wanted / wanted.mean(), rtol=NEAR)


@pytest.mark.parametrize("name", graphs.ALL)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_unit_has_a_finite_score_and_the_same_samples_give_the_same(name: str, criterion: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    one, other = (score(dependencies, criterion, samples(dependencies)) for _ in range(2))
    assert np.isfinite(one.values).all() and (one.values >= 0).all() and np.array_equal(one.values, other.values)
    assert all(one.values[group.units].sum() > 0 for group in dependencies.groups)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_parts_and_files_change_nothing(criterion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dependencies = graphs.traced(graphs.residual())
    evidence = samples(dependencies)
    whole = score(dependencies, criterion, evidence).values
    monkeypatch.setattr(feature_maps, "ELEMENTS", 1)
    again = score(dependencies, criterion, replace(evidence, memory=0)).values
    np.testing.assert_allclose(again, whole, rtol=1e-9, atol=1e-12)  # float64 sums in another order


def test_a_sample_that_is_not_finite_says_nothing() -> None:
    dependencies = graphs.traced(copying())
    spoiled = np.concatenate([X, np.full_like(X[:1], np.nan)])
    one, other = (score(dependencies, "activation-l2", Evidence([{"x": x}])).values for x in (X, spoiled))
    assert np.array_equal(one, other)


def test_a_dead_filter_scores_nothing() -> None:
    dependencies = graphs.traced(copying())
    dead = np.concatenate([X[:, :1], np.zeros_like(X[:, 1:])], axis=1)
    for criterion in CRITERIA[1:]:
        found = score(dependencies, criterion, Evidence([{"x": dead}])).values
        assert found[1] == 0 < found[0]
