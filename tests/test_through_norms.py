"""Pruning through normalisations: asked for, never the default; said to be approximate, and yet proved."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.errors import PlanError, VerificationError
from onnxprune.importance import score
from onnxprune.model import Array
from onnxprune.plan import Limits, Target, plan
from onnxprune.reference import restricted
from onnxprune.rewrite import masked, rewrite
from onnxprune.rules.registry import RESIZES
from onnxprune.runtime import capture, random_feeds
from onnxprune.trace import trace
from onnxprune.verify import Equivalence, verify
from tests import graphs
from tests.contract import check_removed, onnxprune, prune, stored

WIDTH, TOKENS = 16, 6


def transformer(*, seed: int = 3) -> onnx.ModelProto:
    """A residual stream of 16 through two blocks of LayerNormalization, a widened layer of 24, and Softmax gates."""
    net = graphs.Net(seed)
    h = net.op("MatMul", ["x", net.weight("embed.w", 8, WIDTH)], "embed")
    for n in ("a", "b"):
        norm = net.op(
            "LayerNormalization", [h, positive(net, f"{n}.scale"), net.weight(f"{n}.shift", WIDTH)], f"{n}.norm"
        )
        wide = net.op("Relu", [net.op("MatMul", [norm, net.weight(f"{n}.up.w", WIDTH, 24)], f"{n}.up")], f"{n}.relu")
        h = net.op("Add", [h, net.op("MatMul", [wide, net.weight(f"{n}.down.w", 24, WIDTH)], f"{n}.down")], f"{n}.add")
    gate = net.op("Softmax", [h], "gate", axis=-1)
    h = net.op("Mul", [h, gate], "gated")
    net.op("MatMul", [h, net.weight("head.w", WIDTH, 5)], "y")
    return net.model(["N", TOKENS, 8], ["N", TOKENS, 5])


def positive(net: graphs.Net, name: str) -> str:
    net.weights[name] = net.rng.uniform(0.5, 1.5, WIDTH).astype(np.float32)
    return name


def grouped() -> onnx.ModelProto:
    """A convolution of 12 channels under a GroupNormalization of 3 groups."""
    net = graphs.Net(5)
    h = net.op("Relu", [net.conv("x", "c1", 12, 3, 3)], "r1")
    h = net.op("GroupNormalization", [h, net.weight("n.scale", 12), net.weight("n.shift", 12)], "norm", num_groups=3)
    net.head(h, 12)
    return net.model(["N", 3, 8, 8], ["N", 5], ir=10, opset=21)


class Surgery:
    """A model traced through its normalisations, pruned by half."""

    def __init__(self, proto: onnx.ModelProto, limits: Limits | None = None) -> None:
        self.dependencies = trace(graphs.loaded(proto), through_norms=True)
        chosen = plan(self.dependencies, score(self.dependencies), Target(ratio=0.5), limits)
        self.removed = chosen.removed(self.dependencies)
        self.keep = self.dependencies.keep(self.removed)
        self.pruned = rewrite(self.dependencies, self.removed)
        self.feeds = random_feeds(self.dependencies.model, batch=2, seed=0)

    def verify(self, **weights: Array) -> Equivalence:
        pruned = replace(self.pruned, weights={**self.pruned.weights, **weights})
        return verify(self.dependencies, self.removed, pruned, [self.feeds])


@pytest.fixture(scope="module")
def surgery() -> Surgery:
    return Surgery(transformer())


# --- asked for -------------------------------------------------------------------------------------------------------


def test_by_default_normalisations_hold_their_channels() -> None:
    found = trace(graphs.loaded(transformer()))
    assert [g.name for g in found.groups] == ["a.up.w", "b.up.w"] and not found.approximate()


def test_asked_for_the_stream_goes_too() -> None:
    found = trace(graphs.loaded(transformer()), through_norms=True)
    assert [g.name for g in found.groups] == ["embed.w", "a.up.w", "b.up.w"]
    assert [n.op_type for n in found.approximate()] == ["LayerNormalization", "LayerNormalization", "Softmax"]


def test_every_group_of_a_normalisation_loses_as_many() -> None:
    pruned = Surgery(grouped())
    kept = pruned.keep[pruned.dependencies.labels["c1.w"][0].ids].reshape(3, 4)
    assert kept.sum(axis=1).tolist() == [2, 2, 2]
    assert pruned.verify().ok


# --- proved ----------------------------------------------------------------------------------------------------------


def test_the_surgery_is_exact_and_the_result_is_not(surgery: Surgery) -> None:
    found = surgery.verify()
    assert found.ok and found.kind == "approximate" and found.max_rel < 1e-5
    assert [m.node for m in found.through] == ["a.norm", "b.norm", "gate"] and not found.unproved
    assert found.deviation is not None and found.deviation > 1e-3


def test_what_removes_nothing_that_is_mixed_stays_exact() -> None:
    found = Surgery(transformer(), Limits(skip=("embed*",))).verify()
    assert found.ok and found.kind == "exact" and not found.through
    assert set(found.to_dict()) == {"ok", "kind", "max_abs", "max_rel", "tolerance", "batches", "worst"}


def test_in_the_reference_a_node_sees_only_what_stays(surgery: Surgery) -> None:
    reference = restricted(surgery.dependencies, surgery.keep, masked(surgery.dependencies, surgery.removed))
    found = capture(reference, surgery.feeds, ["embed", "a.norm"])
    kept = surgery.keep[surgery.dependencies.labels["a.scale"][0].ids]
    x = found["embed"][..., kept].astype(np.float64)
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    dense = surgery.dependencies.model.weights
    wanted = scaled * dense["a.scale"][kept] + dense["a.shift"][kept]
    assert np.allclose(found["a.norm"][..., kept], wanted, atol=1e-5)
    assert not found["a.norm"][..., ~kept].any()


def test_parameters_too_large_for_the_graph_are_cut_like_small_ones() -> None:
    net, width = graphs.Net(7), 1100  # from 1025 values on they lie beside the graph
    h = net.op("MatMul", ["x", net.weight("in.w", 8, width)], "in")
    h = net.op("LayerNormalization", [h, net.weight("scale", width), net.weight("shift", width)], "norm")
    net.op("MatMul", [h, net.weight("out.w", width, 5)], "y")
    assert Surgery(net.model(["N", 8], ["N", 5])).verify().ok


def swapped(weight: Array, axis: int = 0) -> Array:
    order = np.arange(weight.shape[axis])
    order[[0, 1]] = order[[1, 0]]
    return np.take(weight, order, axis)


MUTANTS: dict[str, tuple[Callable[[Surgery], dict[str, Array]], str]] = {
    "scale of the wrong channels": (lambda s: {"a.scale": swapped(s.pruned.weights["a.scale"])}, "a.norm"),
    "the first values of a shift": (lambda s: {"b.shift": s.dependencies.model.weights["b.shift"][:8]}, "b.norm"),
    "two filters swapped": (lambda s: {"embed.w": swapped(s.pruned.weights["embed.w"], 1)}, "embed"),
    "two inputs swapped": (lambda s: {"a.up.w": swapped(s.pruned.weights["a.up.w"])}, "a.up"),
    "one scale 5% too large": (lambda s: {"a.scale": s.pruned.weights["a.scale"] * np.float32(1.05)}, "a.norm"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_caught_and_named(name: str, surgery: Surgery) -> None:
    mutate, tensor = MUTANTS[name]
    with pytest.raises(VerificationError, match=f"'{tensor}'"):
        surgery.verify(**mutate(surgery))


def test_without_a_reference_only_forms_are_compared_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RESIZES, ("", "LayerNormalization"), lambda edit: edit.insert("Identity", ["x"], "more"))
    pruned = Surgery(transformer())
    found = pruned.verify()
    assert found.kind == "approximate" and found.unproved == ("a.norm", "b.norm") and found.deviation is None
    with pytest.raises(VerificationError, match="not finite"):
        pruned.verify(**{"a.scale": np.full_like(pruned.pruned.weights["a.scale"], np.nan)})


def test_a_stored_size_is_corrected_in_the_reference_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RESIZES, ("", "LayerNormalization"), lambda edit: edit.set_attr("epsilon", 0.5))
    found = Surgery(transformer()).verify()
    assert found.ok and not found.unproved and found.max_rel < 1e-5


# --- replayed --------------------------------------------------------------------------------------------------------


def test_a_plan_is_for_the_trace_it_was_made_with(surgery: Surgery) -> None:
    chosen = plan(surgery.dependencies, score(surgery.dependencies), Target(ratio=0.5))
    assert chosen.settings["through_norms"] is True and chosen.through_norms
    with pytest.raises(PlanError, match="through_norms"):
        chosen.removed(trace(graphs.loaded(transformer())))


def test_apply_repeats_it_to_the_byte(tmp_path: Path) -> None:
    model, saved, small = stored(transformer(), tmp_path), tmp_path / "plan.json", tmp_path / "small.onnx"
    first = onnxprune(*prune(model, "--plan-out", saved, "--ratio", "0.5", "--through-norms", "--json"))
    again = onnxprune("apply", model, saved, "-o", tmp_path / "again.onnx", "--no-bench", "--json")
    assert first.code == again.code == 0
    assert small.read_bytes() == (tmp_path / "again.onnx").read_bytes()
    assert again.json["verified"] == first.json["verified"] and again.json["settings"] == first.json["settings"]
    check_removed(first.json, model, small)


# --- shown -----------------------------------------------------------------------------------------------------------


def test_the_report_says_approximate(tmp_path: Path) -> None:
    model, page = stored(transformer(), tmp_path), tmp_path / "report.md"
    shown = onnxprune(*prune(model, "--ratio", "0.5", "--through-norms", "--report", page))
    assert "approximate: pruned through 2 LayerNormalization, 1 Softmax" in shown.words
    assert "surgery exact" in shown.words and "of the largest output" in shown.words
    text = page.read_text()
    assert "**Surgery:** exact" in text and "**Deviation:**" in text
    found = onnxprune(*prune(model, "--ratio", "0.5", "--through-norms", "--overwrite", "--json")).json["verified"]
    assert found["kind"] == "approximate" and found["ok"] and found["deviation"] > 0 and found["unproved"] == []
    assert found["through"][0] == {"node": "a.norm", "operator": "LayerNormalization"}


def test_without_the_option_the_report_is_as_ever(tmp_path: Path) -> None:
    found = onnxprune(*prune(stored(transformer(), tmp_path), "--json")).json
    assert set(found["verified"]) == {"ok", "kind", "max_abs", "max_rel"} and found["verified"]["kind"] == "exact"
    assert "through_norms" not in found["settings"]


def test_inspect_lists_the_nodes(tmp_path: Path) -> None:
    model = stored(transformer(), tmp_path)
    assert "through" not in onnxprune("inspect", model, "--json").json
    found = onnxprune("inspect", model, "--through-norms", "--json").json
    assert found["through"] == {"a.norm": "LayerNormalization", "b.norm": "LayerNormalization", "gate": "Softmax"}
    assert json.dumps(found) and "approximate" in onnxprune("inspect", model, "--through-norms").words
