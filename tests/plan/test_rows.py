"""Laws of rows: whatever way a group loses channels, rectangles stay rectangles, and the way is the one that fits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.errors import PlanError
from onnxprune.importance import score
from onnxprune.plan import Limits, Plan, Target, plan
from onnxprune.plan.rows import closure, row_sets, tabulate
from onnxprune.rewrite import masked, removal, rewrite
from onnxprune.runtime import random_feeds, run
from onnxprune.trace import Dependencies, trace
from tests import graphs
from tests.rules.cases import CASES

HEADS = "attention"  # three heads of four features, of queries and keys, and of values


def chosen(dependencies: Dependencies, ratio: float, **limits: object) -> Plan:
    return plan(dependencies, score(dependencies), Target(ratio=ratio), Limits(**limits))  # type: ignore[arg-type]


def wide(groups: int, width: int) -> onnx.ModelProto:
    """A grouped convolution between two ordinary ones."""
    net, channels = graphs.Net(3), groups * width
    h = net.op("Relu", [net.conv("x", "reduce", channels, 3, 1)], "r0")
    h = net.op("Relu", [net.conv(h, "groups", channels, channels, 3, group=groups)], "r1")
    net.head(h, channels)
    return net.model(["N", 3, 8, 8], ["N", 5])


def group_of(model: onnx.ModelProto) -> int:
    node = next(n for n in model.graph.node if any(a.name == "group" and a.i > 1 for a in n.attribute))
    return next(a.i for a in node.attribute if a.name == "group")


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_whole_groups_keep_their_width(ratio: float) -> None:
    found = graphs.traced(wide(8, 4))
    removed = chosen(found, ratio, rows="whole").removed(found)
    small = rewrite(found, removed)
    assert group_of(small.proto) == round(8 * (1 - ratio))
    assert small.weights["groups.w"].shape == (round(32 * (1 - ratio)), 4, 3, 3)
    assert 1 not in removal(found, removed).indices["groups.w"]  # the axis within a group lost nothing
    feeds = random_feeds(found.model, batch=2)
    for name, value in run(masked(found, removed), feeds).items():
        np.testing.assert_allclose(run(small, feeds)[name], value, rtol=0, atol=1e-4 * np.abs(value).max())


def test_equal_numbers_keep_the_groups_and_the_same_positions() -> None:
    found = trace(CASES["Conv-grouped-wide"].model())
    small = rewrite(found, removed := chosen(found, 0.5, rows="equal").removed(found))
    assert group_of(small.proto) == 3 and small.weights["u"].shape[1] == 2
    assert len(removal(found, removed).indices["u"][1]) == 2 and not removal(found, removed).per_block


def test_whole_groups_go_where_widths_are_aligned_and_equal_numbers_elsewhere() -> None:
    found = trace(graphs.loaded(wide(8, 4)))
    widths = [rewrite(found, chosen(found, 0.5, align=a).removed(found)).weights["groups.w"].shape for a in (1, 8)]
    assert widths == [(16, 2, 3, 3), (16, 4, 3, 3)]


def test_groups_too_narrow_for_equal_numbers_go_whole() -> None:
    """Two channels a group: equal numbers can only halve them."""
    found = trace(graphs.loaded(wide(8, 2)))
    small = rewrite(found, chosen(found, 0.25).removed(found))
    assert group_of(small.proto) == 6 and small.weights["groups.w"].shape == (12, 2, 3, 3)


def test_the_least_important_heads_go() -> None:
    found = trace(CASES[HEADS].model())
    values = score(found).values
    group = found.groups[0]
    removed = set(chosen(found, 0.34, rows="whole").removed(found).tolist())
    heads = [np.concatenate([family.members[h] for family in group.rows]) for h in range(3)]
    gone = [h for h, units in enumerate(heads) if set(units.tolist()) <= removed]
    assert len(gone) == 1 and removed == set(heads[gone[0]].tolist())
    assert min(range(3), key=lambda h: values[heads[h]].mean()) == gone[0]


def test_what_goes_with_a_head_is_all_of_it_and_nothing_else() -> None:
    found = trace(CASES[HEADS].model())
    (table,) = tabulate(found, found.groups)
    (kind,) = row_sets(table)
    assert kind.units.sum(axis=1).tolist() == [8, 8, 8] and (kind.units.sum(axis=0) == 1).all()
    assert kind.dead.tolist() == np.eye(3, dtype=bool).tolist()


def test_a_head_that_must_stay_takes_its_members_along() -> None:
    found = trace(CASES[HEADS].model())
    group = found.groups[0]
    removed = chosen(found, 0.34, rows="whole", skip=("w",)).removed(found)
    assert not set(removed.tolist()) & set(found.unit[found.labels["w"][1].ids].tolist())
    assert {f.shape for f in group.rows} == {(3, 4)}


def test_rows_without_a_parent_never_go_whole() -> None:
    """A channel shuffle deals from every row."""
    found = trace(CASES["channel-shuffle"].model())
    (table,) = tabulate(found, found.groups)
    assert not row_sets(table)
    for rows in (r for g in found.groups for r in g.rows):
        assert (rows.parents < 0).all()


def test_a_closure_that_empties_a_row_that_must_stay_is_none() -> None:
    found = trace(CASES["attention-halves-turned"].model())
    (table,) = tabulate(found, found.groups)
    stuck = tuple(np.full_like(p, -1) if i else p for i, p in enumerate(table.parents))
    assert closure(table, 0) is not None
    assert closure(type(table)(**{**vars(table), "parents": stuck}), 0) is None


def test_an_unknown_choice_of_rows_is_refused() -> None:
    with pytest.raises(PlanError, match="unknown choice of rows 'both'; use 'auto', 'equal' or 'whole'"):
        Limits(rows="both")
