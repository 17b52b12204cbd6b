"""What cannot be traced freezes and says why; what can be is read off as units, groups, rows and sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from onnxprune.errors import PlanError
from onnxprune.importance import score
from onnxprune.labels import Axes, Axis, Ids
from onnxprune.plan import Target, plan
from onnxprune.rewrite import rewrite
from onnxprune.rules import RULES, Op
from onnxprune.rules.registry import Rule
from onnxprune.trace import Dependencies, Family, Group, Source, trace
from onnxprune.trace.units import find_groups
from tests.rules.cases import CASES, Case, Weight


def traced(body: str, signature: str = "x[N,3,4,4] -> y[N,5,4,4]", opset: int = 17, **weights: Weight) -> Dependencies:
    given: dict[str, Weight] = {"w": (6, 3, 1, 1), "v": (5, 6, 1, 1)}
    return trace(Case("made here", signature, body, given | weights, opset=opset).model())


def units(dependencies: Dependencies, name: str, axis: int) -> list[int]:
    ids = dependencies.labels[name][axis].ids
    assert ids is not None
    return [int(u) for u in dependencies.unit[ids].ravel()]


def reasons(dependencies: Dependencies, name: str) -> list[str]:
    return [freeze.reason for freeze in dependencies.why(name)]


def group(dependencies: Dependencies, name: str) -> Group:
    return next(g for g in dependencies.groups if g.name == name)


# --- reasons ---------------------------------------------------------------------------------------------------------


def test_unknown_operators_freeze_what_they_touch_and_are_named() -> None:
    found = traced("a = Conv(x, w) t = ImageDecoder(a) y = Conv(t, v)", opset=20)
    assert not found.groups
    freeze = next(f for f in found.why("a") if "ImageDecoder" in f.reason)
    assert (freeze.reason, freeze.node, freeze.tensor, freeze.axis) == (
        "no rule for operator ImageDecoder",
        "ImageDecoder1",
        "a",
        1,
    )


def test_unknown_domains_are_named_with_the_operator() -> None:
    found = traced("a = Conv(x, w) b = com.microsoft.QuickGelu(a) y = Conv(b, v)")
    assert not found.groups
    assert "no rule for operator com.microsoft.QuickGelu" in reasons(found, "a")


def divide(op: Op) -> Sequence[Axes]:
    raise ZeroDivisionError("two\nlines")


def short(op: Op) -> Sequence[Axes]:
    return [op.input(0)[:2]]


def narrow(op: Op) -> Sequence[Axes]:
    return [tuple(axis if axis.ids is None else Axis(axis.ids[:-1]) for axis in op.input(0))]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (divide, "ZeroDivisionError: two lines"),
        (short, "ValueError: wrong labels for 'r'"),
        (narrow, "wrong labels"),
    ],
)
def test_a_rule_that_breaks_freezes_its_node_and_no_more(
    broken: Callable[[Op], Sequence[Axes]], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, ("", "Relu"), Rule(broken, "planted", "planted"))
    body = "a = Conv(x, u) s = Tanh(a) b = Conv(s, w) r = Relu(b) y = Conv(r, v)"
    shapes: dict[str, Weight] = {"u": (8, 3, 1, 1), "w": (6, 8, 1, 1)}
    found = traced(body, **shapes)
    assert [g.name for g in found.groups] == ["u"]
    reason = next(freeze for source, freeze in found.held if source.tensor == "w")
    assert reason.node == "Relu3" and reason.reason.startswith("internal error in the rule for Relu: ")
    assert told in reason.reason
    assert rewrite(found, found.groups[0].units[:2]).weights["u"].shape == (6, 3, 1, 1)
    monkeypatch.setenv("ONNXPRUNE_DEBUG", "1")
    with pytest.raises((ZeroDivisionError, ValueError)):
        traced(body, **shapes)


def test_the_rest_of_a_graph_with_an_unknown_operator_stays_free() -> None:
    found = traced(
        "a = Conv(x, u) r = Relu(a) b = Conv(r, w) t, i = TopK <axis=1> (b, k) y = Conv(t, v)",
        u=(8, 3, 1, 1), w=(6, 8, 1, 1), k=[6],
    )  # fmt: skip
    assert [g.name for g in found.groups] == ["u"]
    held = {source.tensor: freeze for source, freeze in found.held}
    assert set(held) == {"w", "v"}
    assert held["w"].node == "TopK3"


def test_inputs_and_outputs_say_so() -> None:
    found = traced("a = Conv(x, w) y = Conv(a, v)")
    assert set(reasons(found, "x")) == {"the model's input"}
    assert "the model's output" in reasons(found, "y")
    assert {s.tensor: f.reason for s, f in found.held} == {"v": "the model's output"}


def test_a_residual_onto_the_input_carries_the_inputs_reason() -> None:
    found = traced("a = Conv(x, w) b = Add(a, x) y = Conv(b, v)", w=(3, 3, 1, 1), v=(5, 3, 1, 1))
    assert not found.groups
    assert "the model's input" in reasons(found, "a")


def test_a_tensor_that_is_an_output_too_is_held() -> None:
    found = traced("a = Conv(x, w) b = Relu(a) y = Conv(b, v)", "x[N,3,4,4] -> y[N,5,4,4], b[N,6,4,4]")
    assert not found.groups
    assert "the model's output" in reasons(found, "a")


def test_mixing_operators_give_their_reason() -> None:
    found = traced("a = Conv(x, w) b = Softmax <axis=1> (a) y = Conv(b, v)")
    assert "Softmax normalises over this axis" in reasons(found, "a")


def test_sizes_computed_while_the_model_runs_freeze() -> None:
    found = traced("a = Conv(x, w) b = Gather <axis=1> (a, i) y = Conv(b, v)", "x[N,3,4,4], i:int64[6] -> y[N,5,4,4]")
    assert "Gather's indices are computed while the model runs" in reasons(found, "a")


@pytest.mark.parametrize("captured", ["a", "w"])
def test_what_the_body_of_an_if_reads_freezes(captured: str) -> None:
    body = (
        "a = Conv(x, w) r = Relu(a) c = If (p) <then_branch = t () => (float[A,B,C,D] o) "
        f"{{ o = Identity({captured}) }}, else_branch = e () => (float[A,B,C,D] q) {{ q = Neg({captured}) }}> "
        "s = ReduceSum(c) b = Mul(r, s) y = Conv(b, v)"
    )
    found = traced(body, "x[N,3,4,4], p:bool[1] -> y[N,5,4,4]")
    assert not found.groups
    assert "no rule for operator If" in reasons(found, captured)


def test_why_of_an_unknown_tensor_is_empty() -> None:
    assert traced("a = Conv(x, w) y = Conv(a, v)").why("no such tensor") == []


def test_squeeze_without_axes_is_refused_while_sizes_are_unknown() -> None:
    found = traced(
        "a = Conv(x, w) p = GlobalAveragePool(a) b = Squeeze(p) s = ReduceSum(b) c = Mul(a, s) y = Conv(c, v)"
    )
    assert any("Squeeze names no axes" in r for r in reasons(found, "p"))


def test_a_grouped_weight_that_is_computed_is_refused_with_a_reason() -> None:
    found = traced("r = Relu(u) a = Conv(x, w) b = Conv <group=2> (a, q) y = Conv(b, v)",
                   "x[N,3,4,4], q[6,3,1,1] -> y[N,5,4,4]", u=(6, 3, 1, 1))  # fmt: skip
    assert "the grouped weight 'q' is not an initializer of its own" in reasons(found, "a")


# --- groups, units, sources ------------------------------------------------------------------------------------------


def test_a_chain_has_a_group_for_every_weight_but_the_last() -> None:
    found = traced("a = Conv(x, w) b = Relu(a) c = Conv(b, u) y = Conv(c, v)", u=(6, 6, 1, 1))
    assert [(g.name, g.units.size) for g in found.groups] == [("w", 6), ("u", 6)]
    assert units(found, "b", 1) == group(found, "w").units.tolist()


def test_a_residual_joins_its_sources() -> None:
    found = trace(CASES["residual"].model())
    assert sorted(s.tensor for s in group(found, "w").sources) == ["t", "w"]
    assert units(found, "a", 1) == units(found, "e", 1)


def test_sums_of_concatenations_join_by_index_not_by_tensor() -> None:
    found = trace(CASES["sums-of-concatenations"].model())
    assert len(found.groups) == 1
    left = units(found, "a", 1) + units(found, "b", 1)
    assert left == units(found, "c", 1) + units(found, "d", 1)
    assert found.unit_count == 8


def test_flattened_positions_are_one_unit() -> None:
    found = trace(CASES["Flatten"].model())
    assert units(found, "b", 1) == np.repeat(units(found, "a", 1), 4).tolist()


def test_a_padded_shortcut_ties_new_channels_to_what_they_are_added_to() -> None:
    found = trace(CASES["option-A-shortcut"].model())
    assert units(found, "d", 1) == units(found, "e", 1)
    assert units(found, "d", 1)[3:9] == units(found, "a", 1)


def test_old_prelu_slopes_belong_to_channels_even_where_the_width_is_equal() -> None:
    found = traced("a = Conv(x, w) b = PRelu(a, d) y = Conv(b, v)", w=(4, 3, 1, 1), v=(5, 4, 1, 1), d=(4,), opset=6)
    assert units(found, "d", 0) == units(found, "a", 1) == group(found, "w").units.tolist()


# --- rows ------------------------------------------------------------------------------------------------------------


def test_grouped_convolutions_have_rows_of_inputs_and_of_outputs() -> None:
    found = trace(CASES["Conv-grouped"].model())
    assert [(r.shape, r.same) for r in group(found, "w").rows] == [((2, 4), True), ((2, 3), False)]


def test_depthwise_convolutions_tie_input_and_output_and_have_no_rows() -> None:
    found = trace(CASES["Conv-depthwise"].model())
    assert found.unit_count == 6
    assert [g.rows for g in found.groups] == [()]


def test_heads_are_rows() -> None:
    found = trace(CASES["attention"].model())
    assert [r.shape for g in found.groups for r in g.rows] == [(3, 4), (3, 4)]


def test_uneven_rows_are_refused() -> None:
    found = trace(CASES["Conv-grouped"].model(), free_groups=True)
    with pytest.raises(PlanError, match="rows"):
        rewrite(found, group(found, "w").units[:1])


def test_emptied_axes_are_refused() -> None:
    found = traced("a = Conv(x, w) y = Conv(a, v)")
    with pytest.raises(PlanError, match="empty"):
        rewrite(found, group(found, "w").units)


def test_groups_of_a_convolution_keep_the_same_positions_unless_they_are_free() -> None:
    shared, free = (trace(CASES["Conv-grouped"].model(), free_groups=f) for f in (False, True))
    assert [r.same for r in group(shared, "w").rows] == [True, False]
    assert [r.same for r in group(free, "w").rows] == [False, False]


def test_a_contraction_of_activations_holds_what_does_not_vanish_with_its_weights() -> None:
    body = "q = MatMul(x, w) k = MatMul(x, v) {0} t = Transpose <perm=[0, 2, 1]> (r) y = MatMul(q, t)"
    one = traced(body.format("r = Sigmoid(k)"), "x[2,4,7] -> y[2,4,4]", w=(7, 6), v=(7, 6))
    assert one.groups  # queries vanish, whatever the keys do
    both = traced(body.replace("q = MatMul(x, w)", "p = MatMul(x, w) q = Exp(p)").format("r = Exp(k)"),
                  "x[2,4,7] -> y[2,4,4]", w=(7, 6), v=(7, 6))  # fmt: skip
    assert not both.groups and any("neither operand is zero" in f.reason for _, f in both.held)


def test_planned_rows_are_even() -> None:
    found = trace(CASES["ShuffleNet-unit"].model())
    removed = plan(found, score(found), Target(ratio=0.5)).removed(found)
    gone = found.gone(removed)
    for rows in (r for g in found.groups for r in g.rows):
        assert len(set((~gone[rows.members]).sum(axis=1)[~gone[rows.parents]].tolist())) == 1


# --- keeping ---------------------------------------------------------------------------------------------------------


def keep_of(found: Dependencies, removed: Ids) -> list[bool]:
    return [bool(k) for k in found.keep(removed)[found.labels["a"][1].ids]]


def test_keep_covers_every_index_of_a_unit_and_nothing_frozen() -> None:
    found = traced("a = Conv(x, w) y = Conv(a, v)")
    assert keep_of(found, group(found, "w").units[[0, 2]]) == [False, True, False, True, True, True]
    assert found.keep(np.arange(found.unit_count))[found.unit < 0].all()
    assert all(keep_of(found, np.zeros(0, dtype=np.int64)))


def test_families_of_rows_with_the_same_members_are_told_apart() -> None:
    ids = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    rows = [Family(ids.reshape(shape), np.full(shape[0], -1)) for shape in ((2, 4), (4, 2))]
    found = find_groups([Source("w", 0, "", np.arange(4))], rows, np.arange(4), 4)
    assert [f.shape for f in found[0].rows] == [(2, 4), (4, 2)]


def test_weights_behind_other_operators_still_vanish() -> None:
    body = (
        "f = Identity(w) g = Identity(v) q = MatMul(x, f) k0 = MatMul(x, g) k = Clip(k0, lo, hi) {0} y = MatMul(q, t)"
    )
    found = traced(
        body.format("t = Transpose <perm=[0, 2, 1]> (k)"), "x[2,4,7] -> y[2,4,4]", w=(7, 6), v=(7, 6), lo=0.0, hi=6.0
    )
    assert found.groups


def test_deep_graphs_do_not_exhaust_the_stack() -> None:
    steps = " ".join(f"a{k + 1} = Tanh(a{k})" for k in range(2000))
    body = f"a0 = MatMul(x, w) {steps} t = Transpose <perm=[0, 2, 1]> (a2000) y = MatMul(a2000, t)"
    assert traced(body, "x[2,4,7] -> y[2,4,4]", w=(7, 6)).groups
