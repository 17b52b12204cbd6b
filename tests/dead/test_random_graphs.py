"""Random graphs of every operator, with zeros planted in them: ranges hold, and dead units leave no trace."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxprune.dead import settle
from onnxprune.dead.walk import Walk
from onnxprune.importance import score
from onnxprune.lossless import plan_dead
from onnxprune.model import Model, is_float
from onnxprune.plan import Limits
from onnxprune.rewrite import rewrite
from onnxprune.trace import trace
from tests.property.check import steady
from tests.property.graphs import numbered
from tests.rules.cases import Case
from tests.rules.test_laws import evaluate

GRAPHS = int(os.environ.get("ONNXPRUNE_EXAMPLES", "60"))
# Attributes (an epsilon, a slope) are stored in float32, which the reference computes some functions in; all else is
# float64.
STORED = 1e-6
Values = Mapping[str, NDArray[Any]]


def planted(model: Model, seed: int) -> Model:
    """The model with random filters, inputs and parameters set to zero, and random parameters below zero."""
    rng, weights = np.random.default_rng(seed), dict(model.weights)
    for name, axes in trace(model).labels.items():
        weight = weights.get(name)
        if weight is None or not is_float(weight) or not weight.size:
            continue
        changed = weight.copy()
        for k, axis in enumerate(axes):
            if axis.ids is not None and rng.random() < 0.6:
                moved = np.moveaxis(changed, k, 0)
                gone = rng.random(len(moved)) < 0.4
                moved[gone] = 0 if weight.ndim > 1 or rng.random() < 0.5 else -np.abs(moved[gone])
        weights[name] = changed
    return replace(model, weights=weights)


def finite(values: Values) -> bool:
    """Whether no tensor holds NaN or infinity: elsewhere nothing is promised."""
    return all(np.isfinite(v).all() for v in values.values() if v.dtype.kind == "f")


def told_by_reference(model: Model) -> bool:
    """Whether onnx's evaluator does what the standard says: before version 14 it trains every BatchNormalization."""
    kinds = {node.op_type for node in model.proto.graph.node}
    return "BatchNormalization" not in kinds or model.opsets[""] >= 14


def values_of(case: Case, model: Model) -> Values:
    """Every tensor, on the case's own inputs."""
    return evaluate(case, model, case.feeds())


@pytest.mark.parametrize("number", range(GRAPHS))
def test_values_lie_in_their_ranges(number: int) -> None:
    case = numbered(number)
    dependencies = trace(planted(case.model(), number))
    if not told_by_reference(dependencies.model):
        return
    walk, values = Walk(dependencies), values_of(case, dependencies.model)
    for name, found in values.items():
        if name not in walk.known or not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
            continue
        x = walk.known[name].stretched(found.shape)
        slack = STORED * (1 + np.abs(found))
        assert np.isfinite(found[x.finite]).all(), name
        assert not ((found < x.low - slack) | (found > x.high + slack)).any(), name
        assert np.allclose(found[x.constant], x.value[x.constant], rtol=STORED, atol=STORED), name


@pytest.mark.parametrize("number", range(GRAPHS))
def test_dead_units_leave_no_trace(number: int) -> None:
    case = numbered(number)
    dense = planted(case.model(), number)
    found, values = settle(trace(dense)), values_of(case, dense)
    provable = told_by_reference(dense) and steady(list(dense.proto.graph.node))
    if not (provable and found.units.size and finite(values)):
        return
    chosen = plan_dead(found, score(found.dependencies), Limits())
    removed = chosen.removed(found.dependencies)
    if not removed.size:
        return
    after = values_of(case, rewrite(found.dependencies, removed))
    for info in dense.proto.graph.output:
        scale = np.abs(values[info.name]).max(initial=1.0)
        assert np.abs(after[info.name] - values[info.name]).max(initial=0.0) <= STORED * scale, info.name


def test_there_is_something_to_find() -> None:
    found = [settle(trace(planted(numbered(n).model(), n))).units.size for n in range(60)]
    assert sum(map(bool, found)) >= len(found) // 3
