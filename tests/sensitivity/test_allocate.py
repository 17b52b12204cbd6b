"""Laws of the allocation: slopes rise along it, ratios never fall, and where every curve is alike it is uniform."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnxprune.sensitivity import Curve, Curves, Point, by_sensitivity
from onnxprune.sensitivity.allocate import hull

KIND = {"y": "kl of logits"}


def curve(name: str, channels: int, *points: tuple[int, float, float]) -> Curve:
    """Points as (removed, saved, divergence)."""
    found = tuple(Point(n / channels, n, saved, {"y": value}) for n, saved, value in points)
    return Curve(name, (f"{name}:0",), channels, found)


def curves(*groups: Curve) -> Curves:
    return Curves("m", "f", "l1", 8, KIND, groups)


def test_the_hull_by_hand() -> None:
    """Slopes to the points from 0: 1, 3, 2; then from the first on: 5, 2.5. The middle one is above the line."""
    share, saved, loss = (np.array(v) for v in ([0, 0.2, 0.4, 0.6], [0, 0.1, 0.2, 0.3], [0, 0.1, 0.6, 0.6]))
    ratios, slopes = hull(share, saved, loss)
    assert ratios == [0.2, 0.6] and slopes == pytest.approx([1.0, 2.5])


def test_what_saves_most_for_its_cost_goes_first_and_by_hand() -> None:
    cheap, dear = curve("a", 10, (5, 0.1, 0.01), (9, 0.2, 1.0)), curve("b", 10, (5, 0.1, 0.1), (9, 0.2, 0.3))
    found = by_sensitivity(curves(cheap, dear))
    assert found.ratios.tolist() == [[0, 0.5, 0.5, 0.5, 0.9, 1.0], [0, 0, 0.5, 0.9, 0.9, 1.0]]
    assert found.levels[0] == 0 and found.levels[-1] == 1 and found.name == "sensitivity"


@pytest.mark.parametrize("seed", range(20))
def test_ratios_never_fall_whatever_the_curves(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = []
    for n in range(5):
        values = rng.exponential(1, 4)
        values[rng.random(4) < 0.1] = math.inf
        steps = np.sort(rng.integers(0, 16, 4))
        groups.append(curve(f"g{n}", 16, *zip(steps.tolist(), np.sort(rng.random(4) / 5), values, strict=True)))
    found = by_sensitivity(curves(*groups))  # an Allocation refuses ratios that fall
    assert (found.ratios[:, 0] == 0).all()
    for group, row in zip(groups, found.ratios, strict=True):
        ends = [p.removed / 16 for p in group.points]
        broken = [n for n, p in enumerate(group.points) if math.isinf(p.divergence)]
        assert row[-1] == (1.0 if not broken else max([0.0, *ends[: broken[0]]][-1], row[-2]))


def test_along_the_levels_each_stretch_costs_more_than_the_one_before() -> None:
    rng = np.random.default_rng(3)
    groups = [
        curve(f"g{n}", 10, *((3 * k, 0.05 * k, float(v)) for k, v in enumerate(np.sort(rng.random(3)), 1)))
        for n in range(4)
    ]
    found = by_sensitivity(curves(*groups))
    slopes = []
    for at in range(1, found.ratios.shape[1] - 1):
        (g,) = np.flatnonzero(found.ratios[:, at] != found.ratios[:, at - 1])
        x = [0.0, *(p.removed / 10 for p in groups[g].points)]
        saved, loss = [0.0, *(p.saved for p in groups[g].points)], [0.0, *(p.divergence for p in groups[g].points)]
        a, b = (x.index(found.ratios[g, n]) for n in (at - 1, at))
        slopes.append((loss[b] - loss[a]) / (saved[b] - saved[a]))
    assert slopes == sorted(slopes)


def test_a_flat_curve_goes_to_its_end_first_and_a_broken_one_not_at_all() -> None:
    flat, broken = curve("a", 10, (3, 0.1, 0.0), (9, 0.3, 0.0)), curve("b", 10, (1, 0.05, math.inf), (9, 0.3, 1.0))
    found = by_sensitivity(curves(flat, broken))
    assert found.ratios[0].tolist() == [0, 0.9, 1.0] and found.ratios[1].tolist() == [0, 0, 0]


def test_a_group_that_saves_no_work_goes_last() -> None:
    table, layer = curve("a", 10, (5, 0.0, 0.001)), curve("b", 10, (5, 0.1, 5.0))
    assert by_sensitivity(curves(table, layer)).ratios[:, 1].tolist() == [0.0, 0.5]


def test_a_curve_that_comes_down_again_is_no_gain() -> None:
    """The loss at a ratio is at least that at a smaller one: that the noise of few samples is kind is no reason."""
    share = curve("a", 10, (2, 0.1, 0.5), (4, 0.2, 0.1))
    ratios = by_sensitivity(curves(share)).ratios
    assert ratios.tolist() == [[0, 0.4, 1.0]]
