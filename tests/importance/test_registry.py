"""Laws of the registry: every criterion says in one line what it computes, and what it lacks is named."""

from __future__ import annotations

import pytest

from onnxprune.errors import DataError, PlanError
from onnxprune.importance import CRITERIA, score
from tests import graphs


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_says_in_one_line_what_it_computes(name: str) -> None:
    entry = CRITERIA[name]
    assert entry.name == name and entry.summary.endswith((".", "matrices.")) and len(entry.summary) < 120
    assert "arXiv" in (entry.function.__doc__ or "") or "NeurIPS" in (entry.function.__doc__ or "")


@pytest.mark.parametrize("name", [n for n, c in CRITERIA.items() if c.needs == "samples"])
def test_criteria_of_samples_ask_for_them(name: str) -> None:
    with pytest.raises(DataError, match=f"'{name}' needs samples; give typical inputs with --data"):
        score(graphs.traced(graphs.mlp()), name)


def test_an_unknown_criterion_is_answered_with_all_there_are() -> None:
    with pytest.raises(PlanError, match="unknown criterion 'reconstrction'; did you mean 'reconstruction'") as caught:
        score(graphs.traced(graphs.mlp()), "reconstrction")
    assert all(name in str(caught.value) for name in CRITERIA)
