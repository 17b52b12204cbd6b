"""Criteria that need the weights alone. Law: a unit's score is the sum of its filters' scores over all sources."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import ModelError, PlanError
from onnxprune.model import Array
from onnxprune.rules.integers import real
from onnxprune.trace import Dependencies, Source

Floats = NDArray[np.float64]
Criterion = Callable[[Array], Floats]

CRITERIA: dict[str, Criterion] = {}


@dataclass(frozen=True, eq=False)
class Scores:
    """Importance of every unit.

    Attributes:
        criterion: Name of the criterion.
        values: Shape (units,), not negative; larger = keep.
        filters: What each source's filters add to that, in the order of its labels. Shapes (filters,). A source that is
            not among them has the scores of its units.
        additive: Whether scores are errors, so that groups compare and what units cost together is the sum.
    """

    criterion: str
    values: Floats
    filters: Mapping[Source, Floats] = field(default_factory=dict)
    additive: bool = False


def criterion(name: str) -> Callable[[Criterion], Criterion]:
    """Register a function of one weight, filters first and flattened: (filters, elements) -> (filters,)."""

    def register(function: Criterion) -> Criterion:
        CRITERIA[name] = function
        return function

    return register


@criterion("l1")
def l1(filters: Array) -> Floats:
    """Sum of absolute weights of each filter (Li et al. 2017, arXiv 1608.08710, section 3.1)."""
    return np.asarray(np.abs(filters).sum(axis=1, dtype=np.float64))


@criterion("l2")
def l2(filters: Array) -> Floats:
    """Euclidean norm of each filter (Li et al. 2017 report no noticeable difference from L1)."""
    return np.asarray(np.sqrt(np.square(filters, dtype=np.float64).sum(axis=1)))


def score(dependencies: Dependencies, criterion: str = "l1") -> Scores:
    """Score every unit.

    Args:
        dependencies: A traced model.
        criterion: A name in `CRITERIA`.

    Raises:
        PlanError: Unknown criterion.
        ModelError: A weight holds NaN or infinity.
    """
    if criterion not in CRITERIA:
        near = difflib.get_close_matches(criterion, CRITERIA, n=1, cutoff=0.0)
        what = f"unknown criterion '{criterion}'"
        raise PlanError(what, remedy=f"did you mean '{near[0]}'? there are: {', '.join(sorted(CRITERIA))}")
    values, each = np.zeros(dependencies.unit_count), {}
    for source in dependencies.sources:
        units = dependencies.unit[source.ids].ravel()
        found = CRITERIA[criterion](filters(dependencies, source))
        if not np.isfinite(found).all():
            what = f"'{source.tensor}' holds NaN or infinite weights"
            raise ModelError(what, where=f"node '{source.node}'", remedy="export a model with finite weights")
        chosen = (units >= 0) & (units < dependencies.unit_count)  # the others stay, or stand for whole rows
        np.add.at(values, units[chosen], found[chosen])
        each[source] = found
    return Scores(criterion, values, each)


def filters(dependencies: Dependencies, source: Source) -> Array:
    """A source's weights with one row per filter, integers as the real numbers they stand for. (filters, elements).

    Where the filter axis counts within blocks (a grouped transposed convolution), rows run over blocks first.
    """
    weight = dependencies.model.weights[source.tensor]
    if weight.dtype.kind != "f":
        weight = real(weight, dependencies.meanings.get(source.tensor))
    axis = source.axis
    if source.ids.ndim > 1:
        blocks = source.ids.shape[0]
        weight = weight.reshape(blocks, weight.shape[0] // blocks, *weight.shape[1:])
        weight = np.moveaxis(weight, axis + 1, 1)
        return weight.reshape(source.ids.size, -1)
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
