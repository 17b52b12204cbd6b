"""The joint score: every weight that goes with a unit counts, once on each axis that it lies on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxprune.importance import score
from tests import graphs

# Sums of a few float32 squares in float64 differ from each other only by the order of summation.
EXACT = 1e-12
Weights = dict[str, NDArray[np.float64]]


def squares(array: NDArray[np.float64]) -> float:
    return float((array * array).sum())


def first_conv(w: Weights, i: int) -> float:
    """Filter i of c1, slice i of c2."""
    return squares(w["c1.w"][i]) + squares(w["c2.w"][:, i])


def with_normalisation(w: Weights, i: int) -> float:
    """Filter i of c2, its BatchNormalization scale, slice i of c3."""
    return squares(w["c2.w"][i]) + squares(w["bn2.scale"][i]) + squares(w["c3.w"][:, i])


def stream(w: Weights, i: int) -> float:
    """Filter i of the block's second convolution and of the shortcut, their scales, slice i of the classifier."""
    filters = sum(squares(w[f"{n}.w"][i]) + squares(w[f"{n}.bn.scale"][i]) for n in ("b2", "bs"))
    return filters + squares(w["fc.w"][:, i])


def gemm(w: Weights, i: int) -> float:
    """Row i of a transposed weight, row i of the plain one behind it."""
    return squares(w["g1.w"][i]) + squares(w["g2.w"][i])


def in_groups(w: Weights, i: int) -> float:
    """Filter i of reduce; groups of 4 read it: slice i % 4 of the filters of its group."""
    group = slice(4 * (i // 4), 4 * (i // 4) + 4)
    return squares(w["reduce.w"][i]) + squares(w["groups.w"][group, i % 4])


def flattened(w: Weights, i: int) -> float:
    """Filter i of the convolution, and the 16 inputs that it becomes."""
    return squares(w["c1.w"][i]) + squares(w["f1.w"][:, 16 * i : 16 * i + 16])


CASES: dict[str, tuple[str, str, Callable[[Weights, int], float]]] = {
    "conv": ("chain", "c1.w", first_conv),
    "conv and scale": ("chain", "c2.w", with_normalisation),
    "coupled": ("residual", "b2.w", stream),
    "gemm": ("mlp", "g1.w", gemm),
    "grouped": ("grouped", "reduce.w", in_groups),
    "flattened": ("flattened", "c1.w", flattened),
}


@pytest.mark.parametrize("case", CASES)
def test_worked_out_by_hand(case: str) -> None:
    graph, tensor, by_hand = CASES[case]
    dependencies = graphs.traced(graphs.ALL[graph]())
    weights = {n: a.astype(np.float64) for n, a in dependencies.model.weights.items()}
    source = next(s for s in dependencies.sources if (s.tensor, s.axis) == (tensor, 0) or s.tensor == tensor)
    units = dependencies.unit[source.ids].ravel()
    wanted = np.array([by_hand(weights, i) for i in range(units.size)])
    found = score(dependencies, "group-norm").values[units]
    np.testing.assert_allclose(found / found[0], wanted / wanted[0], rtol=EXACT)


@pytest.mark.parametrize("name", graphs.ALL)
def test_groups_have_the_mean_1(name: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    values = score(dependencies, "group-norm").values
    for group in dependencies.groups:
        assert values[group.units].mean() == pytest.approx(1.0, rel=EXACT)
