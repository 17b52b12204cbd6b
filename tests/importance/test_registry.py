"""Laws of the registry: every criterion says in one line what it computes, and what it lacks is named."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

from onnxprune.errors import DataError, ModelError, PlanError
from onnxprune.importance import CRITERIA, score
from onnxprune.plan import Target, plan
from tests import graphs


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_says_in_one_line_what_it_computes(name: str) -> None:
    entry = CRITERIA[name]
    assert entry.name == name and entry.summary.endswith((".", "matrices.")) and len(entry.summary) < 120
    assert "arXiv" in (entry.function.__doc__ or "") or "NeurIPS" in (entry.function.__doc__ or "")


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_says_where_it_was_published(name: str) -> None:
    """An author and a year at least, and not the line that says what is computed."""
    assert re.search(r"\b(19|20)\d\d\b", CRITERIA[name].paper) and CRITERIA[name].paper != CRITERIA[name].summary


WEIGHTS = [n for n, c in CRITERIA.items() if c.needs == "weights"]


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("graph", graphs.ALL)
def test_weights_alone_give_finite_scores_that_are_not_negative(graph: str, name: str) -> None:
    dependencies = graphs.traced(graphs.ALL[graph]())
    if name == "bn-scale" and graph not in ("chain", "residual", "gated", "dense"):
        pytest.skip("has no BatchNormalization")
    found = score(dependencies, name)
    assert found.criterion == name and found.values.shape == (dependencies.unit_count,)
    assert np.isfinite(found.values).all() and (found.values >= 0).all() and found.values.any()
    again = score(dependencies, name)
    np.testing.assert_array_equal(found.values, again.values)


@pytest.mark.parametrize("name", [n for n in WEIGHTS if n not in ("random", "bn-scale")])
def test_weights_that_are_not_finite_are_an_error(name: str) -> None:
    proto = graphs.residual()
    for tensor in proto.graph.initializer:
        if tensor.name == "b1.w":
            value = onnx.numpy_helper.to_array(tensor).copy()
            value[3, 1, 0, 0] = np.nan
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    with pytest.raises(ModelError, match=r"'b1\.w' holds NaN or infinite weights"):
        score(graphs.traced(proto), name)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_plan_can_be_made_of_every_criterion(name: str) -> None:
    dependencies = graphs.traced(graphs.residual())
    found = plan(dependencies, score(dependencies, name), Target(macs=0.6))
    assert found.settings["criterion"] == name and found.removed(dependencies).size


@pytest.mark.parametrize("name", [n for n, c in CRITERIA.items() if c.needs == "samples"])
def test_criteria_of_samples_ask_for_them(name: str) -> None:
    with pytest.raises(DataError, match=f"'{name}' needs samples; give typical inputs with --data"):
        score(graphs.traced(graphs.mlp()), name)


def test_an_unknown_criterion_is_answered_with_the_nearest_and_where_all_are_listed() -> None:
    with pytest.raises(PlanError, match=r"'reconstrction'; did you mean 'reconstruction'.*onnxprune criteria"):
        score(graphs.traced(graphs.mlp()), "reconstrction")
