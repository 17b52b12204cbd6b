"""Laws of fidelity: the same is 1, scaling keeps the cosine, and what cannot be compared has no figure."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.fidelity import Sums, fidelity, summary
from tests import graphs

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(6, 4))


def figures(dense: object, pruned: object) -> dict[str, object]:
    found = Sums()
    found.add(np.asarray(dense), np.asarray(pruned))
    return found.figures()


def test_a_model_is_as_good_as_itself() -> None:
    feeds = [{"x": RNG.normal(size=(3, 3, 8, 8)).astype(np.float32)} for _ in range(2)]
    found = fidelity(graphs.chain(), graphs.chain(), feeds)
    assert (found["relative_l2"], found["cosine"], found["agreement"], found["batches"]) == (0.0, 1.0, 1.0, 2)
    other = fidelity(graphs.chain(), graphs.chain(seed=9), feeds)
    assert other["relative_l2"] > 0.1 and other["cosine"] < 0.99 and 0 <= other["agreement"] <= 1


def test_the_figures_are_those_of_their_formulas_over_all_batches() -> None:
    other = TABLE + RNG.normal(size=TABLE.shape)
    found = Sums()
    for part in (slice(0, 2), slice(2, 6)):
        found.add(TABLE[part], other[part])
    held = found.figures()
    assert held["relative_l2"] == pytest.approx(np.linalg.norm(other - TABLE) / np.linalg.norm(TABLE))
    cosine = (TABLE * other).sum() / np.linalg.norm(TABLE) / np.linalg.norm(other)
    assert held["cosine"] == pytest.approx(cosine)
    assert held["agreement"] == (TABLE.argmax(1) == other.argmax(1)).mean()


def test_scaling_keeps_the_cosine_and_the_classes_but_not_the_error() -> None:
    found = figures(TABLE, TABLE * 0.5)
    assert found["cosine"] == pytest.approx(1) and found["agreement"] == 1.0
    assert found["relative_l2"] == pytest.approx(0.5)


def test_only_tables_of_scores_have_classes() -> None:
    assert figures(TABLE[:, :1], TABLE[:, :1])["agreement"] is None
    assert figures(TABLE[None], TABLE[None])["agreement"] is None
    assert figures([1, 2, 3, 4], [1, 2, 0, 0]) == {"relative_l2": None, "cosine": None, "agreement": 0.5, "note": ""}


def test_what_cannot_be_compared_says_so_and_hides_nothing() -> None:
    assert "shape" in str(figures(TABLE, TABLE[:2])["note"])
    broken = figures(TABLE, np.where(TABLE > 1, np.nan, TABLE))
    assert broken["cosine"] is None and "finite" in str(broken["note"])
    masked = figures(np.where(TABLE > 1, -np.inf, TABLE), TABLE)  # the dense model's own infinities are left out
    assert masked["cosine"] == 1.0
    assert summary({"a": figures(TABLE, TABLE), "b": broken})["cosine"] is None
    assert summary({"a": figures(TABLE, TABLE), "b": figures(TABLE, -TABLE)})["cosine"] == pytest.approx(-1)
    assert figures(np.zeros(3), np.ones(3))["cosine"] == 0.0
