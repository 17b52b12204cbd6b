"""Laws of the limits: what the user keeps out of a plan stays out, whatever the target, and bad wishes are refused."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from onnxprune.cost import cost
from onnxprune.errors import PlanError
from onnxprune.importance import score
from onnxprune.plan import GroupPlan, Limits, Plan, Target, across, plan, uniform
from onnxprune.trace import Dependencies
from tests import graphs

PLAIN = ["chain", "residual", "gated", "dense", "mlp", "flattened"]  # every group is one class: no rows to balance


@pytest.fixture(scope="module")
def traced() -> dict[str, Dependencies]:
    return {name: graphs.traced(build()) for name, build in graphs.ALL.items()}


def chosen(
    dependencies: Dependencies, target: Target | None = None, *, allocate: str = "uniform", **limits: object
) -> Plan:
    scores = score(dependencies)
    sharing = across(dependencies, scores) if allocate == "global" else uniform(dependencies)
    return plan(dependencies, scores, target, Limits(**limits), sharing)


def kept(group: GroupPlan) -> int:
    return group.channels - len(group.removed)


def by_name(found: Plan) -> dict[str, GroupPlan]:
    return {g.name: g for g in found.groups}


@pytest.mark.parametrize("allocate", ["uniform", "global"])
@pytest.mark.parametrize("limit", [0.2, 0.5, 0.75])
@pytest.mark.parametrize("name", PLAIN)
def test_no_group_loses_more_than_the_maximum(name: str, limit: float, allocate: str, traced: dict) -> None:
    dependencies = traced[name]
    found = chosen(dependencies, Target(ratio=0.15), max_ratio=limit, allocate=allocate)
    again = chosen(dependencies, Target(ratio=0.9), max_ratio=limit) if allocate == "uniform" else found
    for group in (*found.groups, *again.groups):
        assert len(group.removed) <= math.floor(group.channels * Fraction(str(limit)))


def test_a_global_choice_leaves_a_tenth_of_every_group_by_default(traced: dict) -> None:
    dependencies = traced["chain"]
    scores = score(dependencies)
    scores.values[dependencies.groups[0].units[1:]] *= 1e-6  # next to one filter, 15 of 16 look useless
    ranking = across(dependencies, scores)
    lost = [
        len(plan(dependencies, scores, Target(ratio=0.4), Limits(max_ratio=m), ranking).groups[0].removed)
        for m in (None, 1.0)
    ]
    assert lost == [14, 15]


@pytest.mark.parametrize("glob", ["c2.w", "c2", "c2*", "*2.w", "c[2]", "?2"])
def test_skipped_groups_stay_whole(glob: str, traced: dict) -> None:
    found = by_name(chosen(traced["chain"], Target(ratio=0.3), skip=(glob,)))
    assert found["c2.w"].removed == () and found["c2.w"].note == "kept whole as asked"
    assert found["c1.w"].removed and found["c3.w"].removed


def test_any_source_of_a_group_names_it(traced: dict) -> None:
    for name in ("bs.w", "bs", "b2.w"):
        assert not by_name(chosen(traced["residual"], Target(ratio=0.3), skip=(name,)))["b2.w"].removed


def test_a_source_names_one_of_two_groups_that_share_a_weight() -> None:
    net = graphs.Net()
    h = net.op("MatMul", [net.dense("x", "u", 6, 10), net.weight("w", 6, 8)], "tall")
    back = net.op("Transpose", ["w"], "w.t", perm=[1, 0])
    h = net.op("MatMul", [net.dense(net.op("Relu", [h], "r"), "v", 8, 8), back], "wide")
    net.dense(net.op("Relu", [h], "s"), "y0", 4, 6, "y")
    dependencies = graphs.traced(net.model(["N", 10], ["N", 4]))
    sources = [f"{s.tensor}:{s.axis}" for g in dependencies.groups for s in g.sources if s.tensor == "w"]
    assert sorted(sources) == ["w:0", "w:1"] and len(dependencies.groups) == 2
    for source in sources:
        found = chosen(dependencies, Target(ratio=0.5), skip=(source,))
        assert [source in g.sources for g in found.groups] == [not g.removed for g in found.groups]


def test_a_name_with_brackets_names_itself() -> None:
    proto = graphs.chain()
    proto.graph.node[0].name = "stages[0].conv"
    found = chosen(graphs.traced(proto), Target(ratio=0.3), skip=("stages[0].conv",))
    assert not by_name(found)["c1.w"].removed


def test_layer_ratios_go_before_the_target_and_later_ones_win(traced: dict) -> None:
    ratios = (("c*", 0.5), ("c2.w", 0.25), ("fc*", 0.5))
    with pytest.raises(PlanError, match="'fc\\*' matches no prunable layer"):
        chosen(traced["chain"], Target(ratio=0.3), layer_ratios=ratios)
    found = by_name(chosen(traced["chain"], Target(ratio=0.9), layer_ratios=ratios[:2]))
    assert [kept(found[n]) for n in ("c1.w", "c2.w", "c3.w")] == [8, 12, 6]
    turned = by_name(chosen(traced["chain"], Target(ratio=0.9), layer_ratios=ratios[1::-1]))
    assert [kept(turned[n]) for n in ("c1.w", "c2.w", "c3.w")] == [8, 8, 6]


def test_without_a_target_only_named_layers_are_pruned(traced: dict) -> None:
    found = by_name(chosen(traced["chain"], None, layer_ratios=(("c1", 0.25),)))
    assert [len(found[n].removed) for n in ("c1.w", "c2.w", "c3.w")] == [4, 0, 0]
    for allocate in ("uniform", "global"):
        assert not any(g.removed for g in chosen(traced["chain"], None, allocate=allocate).groups)


def test_skip_wins_over_a_layer_ratio(traced: dict) -> None:
    found = by_name(chosen(traced["chain"], None, layer_ratios=(("c*", 0.5),), skip=("c2",)))
    assert [len(found[n].removed) for n in ("c1.w", "c2.w", "c3.w")] == [8, 0, 6]


@pytest.mark.parametrize("allocate", ["uniform", "global"])
def test_a_cost_target_is_met_around_forced_layers(allocate: str, traced: dict) -> None:
    dependencies = traced["chain"]
    found = chosen(dependencies, Target(macs=0.5), layer_ratios=(("c1", 0.25),), skip=("c3",), allocate=allocate)
    entries = by_name(found)
    assert kept(entries["c1.w"]) == 12 and kept(entries["c3.w"]) == 12
    keep = dependencies.keep(found.removed(dependencies))
    assert cost(dependencies, keep).macs <= 0.5 * cost(dependencies).macs


@pytest.mark.parametrize("limits", [{"skip": ("c2w",)}, {"layer_ratios": (("c2w", 0.3),)}])
def test_a_glob_that_matches_nothing_is_answered_with_near_names(limits: dict, traced: dict) -> None:
    with pytest.raises(PlanError, match=r"'c2w' matches no prunable layer; names look like: .*c2\.w") as caught:
        chosen(traced["chain"], Target(ratio=0.3), **limits)
    near = str(caught.value).split("like: ")[1].split(", ")
    assert len(set(near)) == len(near)


@pytest.mark.parametrize(
    "make",
    [
        *(
            lambda v=v, k=k: Target(**{k: v})
            for k in ("ratio", "macs", "params")
            for v in (0.0, 1.0, -0.1, 1.5, math.nan)
        ),
        lambda: Target(ratio=0.3, macs=0.5),
        *(lambda v=v: Limits(align=v) for v in (0, -8)),
        *(lambda v=v: Limits(max_ratio=v) for v in (0.0, -1.0, 1.1, math.nan)),
        *(lambda v=v: Limits(layer_ratios=(("c1", v),)) for v in (-0.1, 1.0, math.nan)),
    ],
)
def test_impossible_wishes_are_refused_with_an_example(make: object) -> None:
    with pytest.raises(PlanError, match=r"e\.g\.|give one") as caught:
        make()
    assert len(str(caught.value).splitlines()) == 1
