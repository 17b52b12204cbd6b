"""Law of the plan: whatever is chosen, every axis of every tensor keeps an index, and rows stay rectangular."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from onnxprune.importance import Scores
from onnxprune.plan import Limits, Target, across, plan, uniform
from onnxprune.plan.counts import Classes
from onnxprune.rewrite import rewrite
from onnxprune.trace import Dependencies, trace
from tests.rules.cases import Case

choose = importlib.import_module("onnxprune.plan.choose")

PICKED = Case(  # of two layers side by side, one channel each goes on
    "picked",
    "x[N,7] -> y[N,5], z[N,5]",
    """a = MatMul(x, w)
    c = MatMul(x, u)
    d = Concat <axis = 1> (a, c)
    g = Gather <axis = 1> (d, i)
    y = MatMul(g, v)
    z = MatMul(d, q)""",
    {"w": (7, 6), "u": (7, 6), "v": (2, 5), "q": (12, 5), "i": np.array([0, 6])},
)
HEADS = Case(  # three heads of which one goes on
    "heads",
    "x[N,7] -> y[N,5], z[N,5]",
    """a = MatMul(x, w)
    b = Reshape(a, s)
    c = Gather <axis = 1> (b, i)
    d = Reshape(c, r)
    y = MatMul(d, v)
    e = Reshape(b, t)
    z = MatMul(e, q)""",
    {"w": (7, 12), "v": (4, 5), "q": (12, 5), "i": np.array([0])}
    | {"s": np.array([0, 3, 4]), "r": np.array([0, 4]), "t": np.array([0, 12])},
)
TIED = Case(  # equal rows cannot come to differ, but they can come to nothing
    "tied",
    "x[N,3] -> z[N,2,5], o[N,5]",
    """a = MatMul(x, w)
    e = MatMul(x, t)
    h = Add(a, e)
    o = MatMul(h, q)
    f = Concat <axis = 1> (a, e)
    b = Reshape(f, s)
    c, d = Split <axis = 2> (b, k)
    z = MatMul(d, u)""",
    {"w": (3, 4), "t": (3, 4), "q": (4, 5), "u": (3, 5)} | {"s": np.array([0, 2, 4]), "k": np.array([1, 3])},
)


def increasing(dependencies: Dependencies) -> Scores:
    """The first channels are the least important."""
    return Scores("increasing", np.arange(1.0, dependencies.unit_count + 1))


@pytest.mark.parametrize("rows", ["equal", "whole", "auto"])
@pytest.mark.parametrize("allocate", ["uniform", "global"])
@pytest.mark.parametrize("ratio", [0.2, 0.4, 0.5])
@pytest.mark.parametrize("case", [PICKED, HEADS, TIED], ids=lambda case: case.name)
def test_every_axis_keeps_an_index(case: Case, ratio: float, allocate: str, rows: str) -> None:
    dependencies = trace(case.model())
    scores, limits = increasing(dependencies), Limits(max_ratio=1.0, rows=rows)
    sharing = across(dependencies, scores) if allocate == "global" else uniform(dependencies)
    removed = plan(dependencies, scores, Target(ratio=ratio), limits, sharing).removed(dependencies)
    assert removed.size
    rewrite(dependencies, removed)  # refuses what breaks the law


def test_of_an_axis_over_two_groups_the_one_with_more_of_it_keeps_an_index() -> None:
    dependencies = trace(PICKED.model())
    found = plan(dependencies, increasing(dependencies), Target(ratio=0.5))
    assert [g.removed for g in found.groups] == [(1, 2, 3), (0, 1, 2)]


def test_an_answer_that_breaks_the_rows_leaves_the_group_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    dependencies = trace(HEADS.model())

    def careless(classes: Classes, *_: object) -> tuple[np.ndarray, str]:
        """As a solver that rounds wrongly: one channel of the first class goes."""
        return classes.size - np.eye(classes.size.size, dtype=np.int64)[0], ""

    monkeypatch.setattr(choose, "solve", careless)
    group = plan(dependencies, increasing(dependencies), Target(ratio=0.5), Limits(rows="equal")).groups[0]
    assert (group.removed, group.note) == ((), "left whole: its rows would not stay rectangular")
