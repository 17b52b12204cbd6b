"""Laws of fidelity: the same is 1, scaling keeps the cosine, and what cannot be compared has no figure."""

from __future__ import annotations

import numpy as np
import onnx
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


HEAD = '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>'
ODD = {
    "a list": "(float[N, 4] x) => (seq(float[N, 4]) y) { z = Mul (x, c) y = SequenceConstruct (x, z) }",
    "a list of maps": "(float[N, 4] x) => (seq(map(int64, float)) y) "
    "{ z = Mul (x, c) y = ai.onnx.ml.ZipMap <classlabels_int64s = [0, 1, 2, 3]> (z) }",
    "text": "(float[N, 4] x) => (string[N] y) { z = Mul (x, c) k = ArgMax <axis = 1, keepdims = 0> (z) "
    'y = ai.onnx.ml.LabelEncoder <keys_int64s = [0, 1, 2, 3], values_strings = ["a", "b", "c", "d"]> (k) }',
}


def odd(name: str, *factors: float) -> onnx.ModelProto:
    values = ", ".join(map(str, factors))
    head, _, body = ODD[name].partition("=>")
    outputs, _, nodes = body.partition("{")
    return onnx.parser.parse_model(f"{HEAD} g {head} => {outputs} <float[4] c = {{{values}}}> {{ {nodes}")


@pytest.mark.parametrize("name", ODD)
def test_lists_maps_and_text_are_compared(name: str) -> None:
    feeds = [{"x": TABLE.astype(np.float32)}]
    same = fidelity(odd(name, 1, 2, 3, 4), odd(name, 1, 2, 3, 4), feeds)
    other = fidelity(odd(name, 1, 2, 3, 4), odd(name, 4, 3, 2, 1), feeds)
    if name == "text":
        classes = [(TABLE.astype(np.float32) * np.array(c)).argmax(1) for c in ((1, 2, 3, 4), (9, 0, 0, 0))]
        third = fidelity(odd(name, 1, 2, 3, 4), odd(name, 9, 0, 0, 0), feeds)
        assert same["agreement"] == 1 and same["relative_l2"] is None
        assert third["agreement"] == (classes[0] == classes[1]).mean() < 1
        return
    assert (same["relative_l2"], same["cosine"]) == (0, 1)
    dense, pruned = (TABLE.astype(np.float32) * np.array(c) for c in ((1, 2, 3, 4), (4, 3, 2, 1)))
    whole = (dense**2).sum() + ((TABLE**2).sum() if name == "a list" else 0)
    assert other["relative_l2"] == pytest.approx(np.sqrt(((dense - pruned) ** 2).sum() / whole), rel=1e-5)  # float32


def test_lists_of_other_lengths_and_maps_of_other_keys_have_no_figures() -> None:
    found = Sums()
    found.add_value([TABLE, TABLE], [TABLE])
    assert "1 tensors where the dense model has 2" in found.figures()["note"]
    found = Sums()
    found.add_value({"a": 1.0, "b": 2.0}, {"a": 1.0, "c": 2.0})
    assert "keys" in found.figures()["note"]
    found = Sums()
    found.add_value(None, None)
    assert found.figures()["agreement"] is None and not found.figures()["note"]
