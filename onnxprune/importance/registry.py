"""The criteria by name. Law: one criterion is one function of a traced model and what it may look at; larger is kept.

    @criterion("l1")
    def l1(dependencies, evidence): ...

registers one. The first line of its docstring is what `onnxprune criteria` prints; paper and equation stand below.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnxprune.calibrate.walk import MEMORY
from onnxprune.errors import DataError, PlanError
from onnxprune.model import Array
from onnxprune.progress import Observer, silent
from onnxprune.runtime import Feeds
from onnxprune.trace import Dependencies, Source

Floats = NDArray[np.float64]
Needs = Literal["weights", "samples", "gradients"]


@dataclass(frozen=True, eq=False)
class Scores:
    """Importance of every unit.

    Attributes:
        criterion: Name of the criterion.
        values: Shape (units,), not negative; larger = keep.
        filters: What each source's filters add to that, in the order of its labels. Shapes (filters,). A source that is
            not among them has the scores of its units.
        additive: Whether scores are errors, so that groups compare and what units cost together is the sum.
        comparable: Whether scores of different groups compare as they are, so that a threshold over all of them need
            not scale each by its mean.
        dead: Per unit, whether nothing depends on it: it goes before all others. Shape (units,); None: none is known.
        only_dead: Whether nothing else may go.
    """

    criterion: str
    values: Floats
    filters: Mapping[Source, Floats] = field(default_factory=dict)
    additive: bool = False
    comparable: bool = False
    dead: NDArray[np.bool_] | None = None
    only_dead: bool = False


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a criterion may look at beside the weights, and how it works.

    Attributes:
        samples: Calibration samples in batches, unlabelled.
        gradients: Initializer -> gradient of the loss: the shape of the weight, or one axis of samples before it.
        threads: Threads inside one operator.
        memory: Bytes of activations held in memory.
        seed: Of whatever is drawn.
        observe: Called with a stage's name and the share of it that is done.
    """

    samples: Sequence[Feeds] = ()
    gradients: Mapping[str, Array] = field(default_factory=dict)
    threads: int = 1
    memory: int = MEMORY
    seed: int = 0
    observe: Observer = silent


Function = Callable[[Dependencies, Evidence], Scores]


@dataclass(frozen=True, eq=False)
class Criterion:
    """An entry of the registry.

    Attributes:
        name: What `--criterion` takes.
        function: Gives the scores; it may leave their `criterion` empty.
        needs: What it looks at: 'weights' alone, 'samples', or 'gradients'.
    """

    name: str
    function: Function
    needs: Needs

    @property
    def summary(self) -> str:
        """One line: what it computes."""
        return (self.function.__doc__ or "").strip().splitlines()[0]


CRITERIA: dict[str, Criterion] = {}


def criterion(name: str, needs: Needs = "weights") -> Callable[[Function], Function]:
    """Register a criterion."""

    def register(function: Function) -> Function:
        CRITERIA[name] = Criterion(name, function, needs)
        return function

    return register


def criterion_of(name: str) -> Criterion:
    """The criterion of this name.

    Raises:
        PlanError: There is none.
    """
    if name not in CRITERIA:
        near = difflib.get_close_matches(name, CRITERIA, n=1, cutoff=0.0)
        what = f"unknown criterion '{name}'"
        raise PlanError(what, remedy=f"did you mean '{near[0]}'? there are: {', '.join(sorted(CRITERIA))}")
    return CRITERIA[name]


def score(dependencies: Dependencies, criterion: str = "l1", evidence: Evidence | None = None) -> Scores:
    """Score every unit.

    Args:
        dependencies: A traced model.
        criterion: A name in `CRITERIA`.
        evidence: What the criterion may look at.

    Raises:
        PlanError: Unknown criterion.
        DataError: It needs samples or gradients, and there are none.
        ModelError: A weight holds NaN or infinity.
    """
    found, evidence = criterion_of(criterion), evidence or Evidence()
    if found.needs == "samples" and not evidence.samples:
        raise DataError(f"criterion '{criterion}' needs samples", remedy="give typical inputs with --data")
    if found.needs == "gradients" and not evidence.gradients:
        raise DataError(f"criterion '{criterion}' needs gradients of the loss", remedy="give them with --gradients")
    return replace(found.function(dependencies, evidence), criterion=criterion)
