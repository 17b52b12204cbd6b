"""Laws of the choice: the target is met, the limits hold, and of what they allow the least important units go."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from onnxprune.cost import cost
from onnxprune.errors import PlanError, UnprunableError
from onnxprune.importance import Scores, score
from onnxprune.plan import GroupPlan, Limits, Plan, Sharing, Target, across, plan, uniform
from onnxprune.rewrite import rewrite
from onnxprune.trace import Dependencies
from tests import graphs

PLAIN = ["chain", "residual", "gated", "dense", "mlp", "flattened"]  # every group is one class: no rows to balance
RATIOS = [0.1, 0.25, 0.3, 0.5, 0.7, 0.9, 0.99]


@pytest.fixture(scope="module")
def traced() -> dict[str, Dependencies]:
    return {name: graphs.traced(build()) for name, build in graphs.ALL.items()}


def chosen(
    dependencies: Dependencies, target: Target | None = None, *, allocate: str = "uniform", **limits: object
) -> Plan:
    scores = score(dependencies)
    return plan(dependencies, scores, target, Limits(**limits), shared(dependencies, scores, allocate))


def shared(dependencies: Dependencies, scores: Scores, allocate: str) -> Sharing:
    return across(dependencies, scores) if allocate == "global" else uniform(dependencies)


def kept(group: GroupPlan) -> int:
    return group.channels - len(group.removed)


def by_name(found: Plan) -> dict[str, GroupPlan]:
    return {g.name: g for g in found.groups}


def share(dependencies: Dependencies, removed: np.ndarray, measure: str) -> float:
    """Share of the dense cost that stays."""
    after = cost(dependencies, dependencies.keep(removed))
    return getattr(after, measure) / getattr(cost(dependencies), measure)


# --- ratio -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", PLAIN)
def test_a_local_ratio_leaves_the_whole_part_of_what_remains(name: str, ratio: float, traced: dict) -> None:
    """Li et al. remove ceil(c r) of c filters; the arithmetic here is exact."""
    for group in chosen(traced[name], Target(ratio=ratio)).groups:
        assert kept(group) == max(1, math.floor(group.channels * (1 - Fraction(str(ratio)))))


@pytest.mark.parametrize(("width", "ratio", "stay"), [(20, 0.9, 2), (30, 0.9, 3), (40, 0.8, 8), (50, 0.3, 35)])
def test_a_ratio_is_meant_in_decimals(width: int, ratio: float, stay: int) -> None:
    """In binary, 20 x (1 - 0.9) falls short of 2."""
    assert kept(chosen(graphs.traced(graphs.chain(width=width)), Target(ratio=ratio)).groups[0]) == stay


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("allocate", ["uniform", "global"])
@pytest.mark.parametrize("name", PLAIN)
def test_the_least_important_units_of_a_group_go(name: str, allocate: str, ratio: float, traced: dict) -> None:
    dependencies = traced[name]
    scores = score(dependencies)
    found = plan(dependencies, scores, Target(ratio=min(ratio, 0.8)), None, shared(dependencies, scores, allocate))
    for group, entry in zip(dependencies.groups, found.groups, strict=True):
        values, gone = scores.values[group.units], np.isin(np.arange(group.units.size), entry.removed)
        assert not gone.any() or values[gone].max() <= values[~gone].min()
        assert list(entry.removed) == sorted(set(entry.removed))


@pytest.mark.parametrize("allocate", ["uniform", "global"])
@pytest.mark.parametrize("name", PLAIN)
def test_a_larger_ratio_removes_what_a_smaller_one_does(name: str, allocate: str, traced: dict) -> None:
    before: set[int] = set()
    for ratio in (0.1, 0.3, 0.5, 0.7):
        removed = set(chosen(traced[name], Target(ratio=ratio), allocate=allocate).removed(traced[name]).tolist())
        assert before < removed
        before = removed


@pytest.mark.parametrize("ratio", RATIOS[:-2])
@pytest.mark.parametrize("name", PLAIN)
def test_a_global_ratio_counts_over_the_whole_model(name: str, ratio: float, traced: dict) -> None:
    found = chosen(traced[name], Target(ratio=ratio), allocate="global", max_ratio=1.0)
    count = sum(g.channels for g in found.groups)
    assert sum(len(g.removed) for g in found.groups) == math.ceil(count * Fraction(str(ratio)))


@pytest.mark.parametrize("name", PLAIN)
def test_a_global_choice_does_not_see_the_scale_of_a_layer(name: str, traced: dict) -> None:
    dependencies, scores = traced[name], score(traced[name])
    louder = scores.values.copy()
    for power, group in enumerate(dependencies.groups):
        louder[group.units] *= 4.0**power  # a power of 2 is exact
    found = [
        plan(dependencies, s, Target(ratio=0.4), None, across(dependencies, s)) for s in (scores, Scores("l1", louder))
    ]
    assert found[0].groups == found[1].groups


def test_scores_of_zero_are_ranked_too(traced: dict) -> None:
    dependencies = traced["chain"]
    nothing = Scores("l1", np.zeros(dependencies.unit_count))
    for allocate in ("uniform", "global"):
        found = plan(dependencies, nothing, Target(ratio=0.3), None, shared(dependencies, nothing, allocate))
        assert all(kept(g) > 0 for g in found.groups)


@pytest.mark.parametrize("align", [1, 2, 4])
@pytest.mark.parametrize("name", graphs.ALL)
def test_every_axis_keeps_an_index_at_the_highest_ratio(name: str, align: int, traced: dict) -> None:
    found = chosen(traced[name], Target(ratio=0.99), align=align)
    pruned = rewrite(traced[name], found.removed(traced[name]))
    assert all(0 not in w.shape for w in pruned.weights.values())
    assert all(kept(g) >= 1 for g in found.groups)


@pytest.mark.parametrize("allocate", ["uniform", "global"])
@pytest.mark.parametrize("ratio", [0.2, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("name", ["grouped", "shuffled"])
def test_rows_keep_equal_numbers(name: str, ratio: float, allocate: str, traced: dict) -> None:
    dependencies = traced[name]
    keep = chosen(dependencies, Target(ratio=ratio), allocate=allocate).removed(dependencies)
    for group in dependencies.groups:
        for rows in group.rows:
            counts = (~np.isin(rows.members, keep)).sum(axis=1)
            living = counts[(counts > 0) | (rows.parents < 0)]  # others went whole
            assert len(set(living.tolist())) == 1 and living[0] >= 1


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7])
def test_balanced_rows_come_as_near_to_the_ratio_as_they_can(ratio: float, traced: dict) -> None:
    """Three rows of four: the nearest share is at most half a channel in each row away."""
    for group in chosen(traced["grouped"], Target(ratio=ratio)).groups[1:]:
        assert abs(len(group.removed) / group.channels - ratio) <= 0.125


# --- MACs and parameters ---------------------------------------------------------------------------------------------


def one_back(dependencies: Dependencies, found: Plan) -> np.ndarray:
    """The removal with one channel given back to every group that lost any."""
    scores = score(dependencies).values
    parts = []
    for group, entry in zip(dependencies.groups, found.groups, strict=True):
        units = group.units[list(entry.removed)]
        parts.append(units[np.argsort(scores[units])][:-1])
    return np.concatenate(parts)


@pytest.mark.parametrize("aim", [0.8, 0.5, 0.3])
@pytest.mark.parametrize("measure", ["macs", "params"])
@pytest.mark.parametrize("allocate", ["uniform", "global"])
@pytest.mark.parametrize("name", PLAIN)
def test_targets_are_met_and_not_by_much(name: str, allocate: str, measure: str, aim: float, traced: dict) -> None:
    dependencies = traced[name]
    found = chosen(dependencies, Target(**{measure: aim}), allocate=allocate)
    removed = found.removed(dependencies)
    assert share(dependencies, removed, measure) <= aim + 1e-9  # the slack that the search allows itself
    assert share(dependencies, one_back(dependencies, found), measure) > aim


@pytest.mark.parametrize("align", [1, 4])
@pytest.mark.parametrize("measure", ["macs", "params"])
@pytest.mark.parametrize("name", graphs.ALL)
def test_a_smaller_target_never_costs_more(name: str, measure: str, align: int, traced: dict) -> None:
    dependencies, before = traced[name], 1.0
    for aim in (0.9, 0.7, 0.5, 0.3, 0.1):
        try:
            removed = chosen(dependencies, Target(**{measure: aim}), align=align).removed(dependencies)
        except PlanError as error:
            assert "cannot be met" in str(error)
            break
        reached = share(dependencies, removed, measure)
        assert reached <= min(aim, before) + 1e-9
        before = reached


def test_a_target_out_of_reach_says_how_far_one_can_go(traced: dict) -> None:
    dependencies = traced["residual"]
    with pytest.raises(PlanError, match=r"--macs cannot be met: at most .*% can go .*relax --max-ratio") as caught:
        chosen(dependencies, Target(macs=0.1), max_ratio=0.5)
    most = float(str(caught.value).split("at most ")[1].split("%")[0]) / 100
    reachable = chosen(dependencies, Target(macs=1 - most + 0.001), max_ratio=0.5)  # the message rounds to 0.1%
    assert share(dependencies, reachable.removed(dependencies), "macs") <= 1 - most + 0.001


# --- alignment -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allocate", ["uniform", "global"])
@pytest.mark.parametrize("align", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", graphs.ALL)
def test_kept_widths_are_multiples_or_dense(name: str, ratio: float, align: int, allocate: str, traced: dict) -> None:
    dependencies = traced[name]
    try:
        found = chosen(dependencies, Target(ratio=ratio), align=align, allocate=allocate)
    except PlanError as error:
        assert allocate == "global" and "cannot be met" in str(error)
        return
    keep = dependencies.keep(found.removed(dependencies))
    for group, entry in zip(dependencies.groups, found.groups, strict=True):
        widths = [(int(keep[s.ids].sum()), s.ids.size) for s in group.sources]
        assert all(width % align == 0 or width == dense for width, dense in widths)
        if allocate == "uniform" and not entry.removed:
            assert "left whole" in entry.note and (str(align) in entry.note or "rows" in entry.note)
        assert not (entry.removed and entry.note)


# --- the plan as a whole ---------------------------------------------------------------------------------------------


def test_a_plan_lists_every_group_and_how_it_was_made(traced: dict) -> None:
    dependencies = traced["residual"]
    found = chosen(dependencies, Target(macs=0.6), allocate="global", align=2, skip=("stem",))
    assert [g.name for g in found.groups] == [g.name for g in dependencies.groups]
    assert found.settings == {
        "macs": 0.6,
        "allocate": "global",
        "align": 2,
        "skip": ("stem",),
        "criterion": "l1",
        "rows": "auto",
    }
    assert by_name(found)["b2.w"].sources == ("bs.w:0", "b2.w:0") or by_name(found)["b2.w"].sources == (
        "b2.w:0",
        "bs.w:0",
    )


@pytest.mark.parametrize("allocate", ["uniform", "global"])
@pytest.mark.parametrize("name", graphs.ALL)
def test_the_same_question_has_the_same_answer(name: str, allocate: str, traced: dict) -> None:
    once, again = (
        chosen(d, Target(macs=0.6), allocate=allocate) for d in (traced[name], graphs.traced(graphs.ALL[name]()))
    )
    assert once == again


def test_a_model_of_elementwise_operators_has_nothing_to_prune() -> None:
    net = graphs.Net()
    net.op("Relu", ["x"], "y")
    dependencies = graphs.traced(net.model(["N", 4], ["N", 4]))
    with pytest.raises(UnprunableError, match=r"no Conv, Gemm or MatMul.*onnxprune inspect"):
        chosen(dependencies, Target(ratio=0.3))


def test_a_single_layer_is_held_by_the_output() -> None:
    net = graphs.Net()
    net.op("MatMul", ["x", net.weight("w", 4, 3)], "y")
    with pytest.raises(UnprunableError, match=r"1 layers? .*the model's output"):
        chosen(graphs.traced(net.model(["N", 4], ["N", 3])), Target(ratio=0.3))
