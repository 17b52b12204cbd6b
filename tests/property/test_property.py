"""Random graphs: the laws of single operators hold for what they make together.

Set ONNXPRUNE_EXAMPLES for more graphs; `benchmarks/property.py` checks thousands.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxprune.rules import RULES
from tests.property.check import check, check_command, steady
from tests.property.graphs import MOVES, UNMADE, drawn, numbered
from tests.rules.cases import Case

EXAMPLES = int(os.environ.get("ONNXPRUNE_EXAMPLES", "200"))
# The same graphs every time: a test that fails on some days only helps nobody. The benchmark looks for new ones.
profile = settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@profile
@given(drawn(), st.integers(0, 1000))
def test_laws_hold_on_drawn_graphs(case: Case, seed: int) -> None:
    check(case, seed)


@pytest.mark.parametrize("number", range(120))
def test_laws_hold_on_numbered_graphs(number: int) -> None:
    check(numbered(number), number)


def steady_cases() -> Iterator[Case]:
    return (c for n in range(200, 300) if steady(list((c := numbered(n)).proto().graph.node)))


def test_command_line_prunes_and_verifies_random_graphs() -> None:
    found = [check_command(case) for case, _ in zip(steady_cases(), range(16), strict=False)]
    assert found.count("pruned") >= len(found) // 3


def test_most_graphs_can_be_pruned() -> None:
    plans = [check(numbered(n), n) for n in range(120, 160)]
    assert sum(map(bool, plans)) >= len(plans) // 3


def test_every_operator_of_the_registry_is_made_or_listed() -> None:
    made = {kind for move in MOVES for kind in move.kinds}
    standard = {name for domain, name in RULES if domain == ""}
    assert not made - standard, "moves for operators without a rule"
    assert not made & set(UNMADE), "made, and listed as not"
    left = standard - made - set(UNMADE)
    assert len(left) <= len(standard) // 4, f"no move makes {sorted(left)}"


def test_a_number_makes_the_same_graph() -> None:
    one, two = numbered(7), numbered(7)
    assert (one.body, one.signature) == (two.body, two.signature)
    assert all(np.array_equal(np.asarray(one.weights[n]), np.asarray(two.weights[n])) for n in one.weights)
