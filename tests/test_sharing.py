"""Laws of shared parameters: told apart where that costs next to nothing, one again where that changed nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.cost import cost
from onnxprune.importance import score
from onnxprune.normalise import normalise
from onnxprune.plan import Plan, Target, plan
from onnxprune.report.inspection import inspect_dict
from onnxprune.rewrite import removal, rewrite
from onnxprune.runtime import random_feeds, run
from onnxprune.sharing import untie
from onnxprune.trace import Dependencies, trace
from onnxprune.verify import verify
from tests import sharing_graphs
from tests.contract import check_masked, check_removed, inflated, onnxprune, prune, stored
from tests.graphs import loaded
from tests.sharing_graphs import ALL, APART, TOGETHER, separate

# One output depends on nothing that can be pruned; or the node that prepares the vector is repeated with it.
UNMASKED = {"given_out", "captured", "prepared", "prepared_and_given_out"}


def traced(proto: onnx.ModelProto) -> Dependencies:
    """Normalised and traced."""
    return trace(normalise(loaded(proto)))


def chosen(dependencies: Dependencies, ratio: float = 0.5) -> np.ndarray:
    """Units that a plan removes."""
    return plan(dependencies, score(dependencies), Target(ratio=ratio)).removed(dependencies)


@pytest.mark.parametrize("name", ALL)
def test_it_computes_what_it_computed_on_the_same_arrays(name: str) -> None:
    model = normalise(loaded(ALL[name]()))
    apart, feeds = untie(model), random_feeds(model, batch=2)
    for output, value in run(model, feeds).items():
        np.testing.assert_array_equal(run(apart, feeds)[output], value)  # the same kernels on the same numbers
    assert all(apart.weights[c] is apart.weights[n] for c, n in apart.copies.items() if n in apart.weights)
    assert untie(apart) is apart, "twice is once"


@pytest.mark.parametrize("name", APART)
def test_readers_are_as_free_as_with_parameters_of_their_own(name: str) -> None:
    shared, own = traced(APART[name]()), traced(separate(APART[name]()))
    sizes = [sorted(g.units.size for g in d.groups) for d in (shared, own)]
    assert sizes[0] == sizes[1] and sizes[0]
    assert len(shared.model.copies) > 0


@pytest.mark.parametrize("name", TOGETHER)
def test_what_is_shared_on_purpose_stays_one(name: str) -> None:
    dependencies = traced(TOGETHER[name]())
    removed = chosen(dependencies)
    assert removed.size and removal(dependencies, removed).copies == {}
    before, after = loaded(TOGETHER[name]()), rewrite(dependencies, removed)
    assert after.weights.keys() <= before.weights.keys() and after.params < before.params


@pytest.mark.parametrize("name", ALL)
def test_pruned_is_masked_and_costs_what_was_counted(name: str) -> None:
    dependencies = traced(ALL[name]())
    removed = chosen(dependencies)
    after = rewrite(dependencies, removed)
    feeds = [random_feeds(loaded(ALL[name]()), batch=2)]
    assert verify(dependencies, removed, after, feeds, original=loaded(ALL[name]())).ok
    counted = cost(dependencies, dependencies.keep(removed))
    after = normalise(after)  # old files keep copies in Constant nodes
    assert counted.params == after.params + sum(w.size for n, w in after.weights.items() if n in ("q0", "q1"))
    assert cost(dependencies).params >= counted.params


@pytest.mark.parametrize("name", ALL)
def test_what_loses_nothing_stays_as_it_was(name: str) -> None:
    proto = ALL[name]()
    dependencies = traced(proto)
    nothing = np.zeros(0, dtype=np.int64)
    whole, plain = rewrite(dependencies, nothing), normalise(loaded(proto))
    assert whole.weights.keys() == plain.weights.keys() and removal(dependencies, nothing).copies == {}
    assert cost(dependencies).bytes == plain.nbytes
    names = {o for node in plain.proto.graph.node for o in node.output}
    assert {o for node in whole.proto.graph.node for o in node.output} <= names


@pytest.mark.parametrize("name", ALL)
def test_the_report_accounts_for_every_copy(name: str, tmp_path: Path) -> None:
    model, small = stored(ALL[name](), tmp_path), tmp_path / "small.onnx"
    found = onnxprune(*prune(model, "--ratio", "0.5", "--json", out=small))
    assert found.code == 0, found.err
    check_removed(found.json, model, small)
    if name not in UNMASKED:
        check_masked(found.json, model, small, random_feeds(model, batch=2))
    names = {t.name for t in onnx.load(small).graph.initializer}
    assert not any("@" in n for n in names - found.json["copies"].keys())


def test_a_plan_is_replayed_to_the_byte(tmp_path: Path) -> None:
    model, small, again = stored(sharing_graphs.identities(), tmp_path), tmp_path / "a.onnx", tmp_path / "b.onnx"
    assert onnxprune(*prune(model, "--ratio", "0.4", "--plan-out", tmp_path / "p.json", out=small)).code == 0
    assert onnxprune("apply", model, tmp_path / "p.json", "-o", again, "--no-bench").code == 0
    assert small.read_bytes() == again.read_bytes()
    assert Plan.load(tmp_path / "p.json").groups


def test_copies_bear_the_names_that_the_file_has_for_them() -> None:
    names = {build: set(traced(ALL[build]()).model.copies) for build in ("identities", "biases", "unread_original")}
    assert names["identities"] >= {"n1.gamma", "n1.beta", "n2.gamma", "n2.beta", "n0.beta@n0"}
    assert names["biases"] == {"b@c1", "b@c2"} and names["unread_original"] == {"b1", "b1@c2"}


def test_copies_that_lost_the_same_are_stored_once() -> None:
    dependencies = traced(sharing_graphs.biases())
    groups = {g.name: g.units for g in dependencies.groups}
    one, alike = groups["c0.w"][:1], np.concatenate([groups["c1.w"][2:4], groups["c2.w"][2:4]])
    assert set(rewrite(dependencies, np.concatenate([one, alike])).weights) >= {"b", "b@c1"}
    found = removal(dependencies, np.concatenate([one, alike]))
    assert found.copies == {"b@c1": "b", "b@c2": "b"}
    assert [found.indices[n] for n in ("b", "b@c1", "b@c2")] == [{0: [0]}, {0: [2, 3]}, {0: [2, 3]}]
    after = rewrite(dependencies, np.concatenate([one, alike]))
    assert "b@c2" not in after.weights and after.weights["b@c1"].shape == (6,)
    assert {"b@c1", "b@c2"} & set(rewrite(dependencies, alike).weights) == {"b@c1"}  # c0 keeps all of 'b'


def test_a_pruned_file_is_pruned_again() -> None:
    dependencies = traced(sharing_graphs.biases())
    again = trace(rewrite(dependencies, chosen(dependencies, 0.25)))
    assert again.model.copies == {} and len(again.groups) == 3
    assert verify(again, chosen(again), rewrite(again, chosen(again)), [random_feeds(again.model, batch=2)]).ok


def test_inputs_that_a_caller_may_replace_are_read_as_before() -> None:
    proto = sharing_graphs.biases()
    proto.graph.input.append(onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [8]))
    assert traced(proto).model.copies == {}


def test_a_vector_with_two_meanings_couples_nothing() -> None:
    dependencies = traced(sharing_graphs.two_meanings())
    assert sorted(g.name for g in dependencies.groups) == ["c0.w", "c1.w"]
    assert all(g.units.size == 8 for g in dependencies.groups)


def test_sizes_are_not_copied() -> None:
    net = sharing_graphs.Net(3)
    h, shape = "x", net.constant("shape", [0, -1, 6, 6])
    for i in range(2):
        h = net.op("Reshape", [sharing_graphs.conv(net, h, f"c{i}", None, 8 if i else 3), shape], f"s{i}")
    assert traced(sharing_graphs.finish(net, h)).model.copies == {}


def test_why_shows_every_copy() -> None:
    found = inspect_dict(traced(sharing_graphs.biases()), "b")
    assert [t["tensor"] for t in found["tensors"]] == ["b", "b@c1", "b@c2"]  # type: ignore[index, attr-defined]


TIED = ("shufflenet_v2_x0_5_ts", "shufflenet_v2_x0_5_tsbn", "convnext_tiny_ts", "swin_t_ts")


@pytest.mark.parametrize("name", TIED)
def test_tied_exports_prune_like_untied_ones(name: str, shared: Path) -> None:
    kept = []
    for tied in (True, False):
        dependencies = trace(normalise(loaded(inflated(shared, name, tied))))
        small = cost(dependencies, dependencies.keep(chosen(dependencies)))
        kept.append((len(dependencies.groups), small.macs / cost(dependencies).macs))
    assert kept[0][0] == kept[1][0] and kept[0][1] == pytest.approx(kept[1][1], abs=0.01)


@pytest.mark.shared
def test_a_tied_export_is_pruned_and_accounted_for(shared: Path, tmp_path: Path) -> None:
    model = stored(inflated(shared, "shufflenet_v2_x0_5_tsbn", True), tmp_path)
    found = onnxprune(*prune(model, "--ratio", "0.5", "--json"))
    assert found.code == 0, found.err
    check_removed(found.json, model, model.with_name("small.onnx"))
    check_masked(found.json, model, model.with_name("small.onnx"), random_feeds(model, batch=1))
