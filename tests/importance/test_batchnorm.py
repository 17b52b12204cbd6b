"""Scales of BatchNormalization: absolute, summed over a unit, one percentile for all; what has none stays."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import ModelError
from onnxprune.importance import score
from onnxprune.plan import Limits, Target, across, plan
from tests import graphs

# Sums of two float32 numbers in float64 are exact but for the last bit.
EXACT = 1e-15


def test_scales_of_coupled_layers_add_up() -> None:
    dependencies = graphs.traced(graphs.residual())
    weights = dependencies.model.weights
    units = dependencies.unit[next(s.ids for s in dependencies.sources if s.tensor == "b2.w")]
    by_hand = sum(np.abs(weights[f"{n}.bn.scale"].astype(np.float64)) for n in ("b2", "bs"))
    np.testing.assert_allclose(score(dependencies, "bn-scale").values[units], by_hand, rtol=EXACT)


@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_the_global_threshold_is_a_percentile_of_all_scales(ratio: float) -> None:
    """Scales are compared as they are: a group of small ones loses more than one of large ones."""
    dependencies = graphs.traced(graphs.residual())
    values = score(dependencies, "bn-scale").values
    scores, limits = score(dependencies, "bn-scale"), Limits(max_ratio=1.0)
    chosen = plan(dependencies, scores, Target(ratio=ratio), limits, across(dependencies, scores))
    gone = chosen.removed(dependencies)
    left = np.setdiff1d(np.arange(values.size), gone)
    assert gone.size == round(ratio * values.size) and values[gone].max() < values[left].min()


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_group_without_scales_stays_whole_and_the_plan_says_why(everywhere: bool) -> None:
    dependencies = graphs.traced(graphs.chain())  # only c2 has a BatchNormalization
    scores = score(dependencies, "bn-scale")
    allocation = across(dependencies, scores) if everywhere else None
    found = plan(dependencies, scores, Target(ratio=0.2), allocation=allocation)
    removed = {g.name: (len(g.removed), g.note) for g in found.groups}
    assert removed["c2.w"][0] > 0
    for name in ("c1.w", "c3.w"):
        assert removed[name] == (0, "left whole: no BatchNormalization scales its channels")


def test_a_model_without_any_says_how_to_export_it() -> None:
    with pytest.raises(ModelError, match=r"PRESERVE.*optimize=False.*--criterion l1"):
        score(graphs.traced(graphs.mlp()), "bn-scale")
