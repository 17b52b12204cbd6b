"""The criteria by name. Law: one criterion is one function of a traced model and what it may look at; larger is kept.

    @criterion("l1")
    def l1(dependencies, evidence): ...

registers one. `onnxprune criteria` prints the first line of its docstring, and the last paragraph: paper and equation.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnxprune.calibrate.walk import MEMORY
from onnxprune.errors import DataError, PlanError
from onnxprune.labels import Ids
from onnxprune.model import Array
from onnxprune.progress import Observer, silent
from onnxprune.runtime import Feeds
from onnxprune.trace import Dependencies, Source

Floats = NDArray[np.float64]
Needs = Literal["weights", "samples", "gradients"]
NOTHING: Ids = np.zeros(0, dtype=np.int64)  # no units


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
        unscored: Units that the criterion says nothing about; they stay.
        why: What to note about a group that stays whole for that.
        settings: What else the scores depend on, for the plan to tell.
        dead: Per unit, whether nothing depends on it: it goes before all others. Shape (units,); None: none is known.
        only_dead: Whether nothing else may go.
    """

    criterion: str
    values: Floats
    filters: Mapping[Source, Floats] = field(default_factory=dict)
    additive: bool = False
    comparable: bool = False
    unscored: Ids = field(default_factory=lambda: NOTHING)
    why: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
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
        removed: Unit numbers that a provisional plan removes, for criteria that `revise` their scores by it.
    """

    samples: Sequence[Feeds] = ()
    gradients: Mapping[str, Array] = field(default_factory=dict)
    threads: int = 1
    memory: int = MEMORY
    seed: int = 0
    observe: Observer = silent
    removed: Ids = field(default_factory=lambda: NOTHING)


Function = Callable[[Dependencies, Evidence], Scores]


@dataclass(frozen=True, eq=False)
class Criterion:
    """An entry of the registry.

    Attributes:
        name: What `--criterion` takes.
        function: Gives the scores; it may leave their `criterion` empty.
        needs: What it looks at: 'weights' alone, 'samples', or 'gradients'.
        revises: Whether scores depend on what a plan removes. They are then found twice: for a provisional plan, made
            from the scores that it has when nothing goes, and by what that removes.
    """

    name: str
    function: Function
    needs: Needs
    revises: bool = False

    @property
    def summary(self) -> str:
        """One line: what it computes."""
        return self.paragraphs[0].splitlines()[0]

    @property
    def paper(self) -> str:
        """Where it was published, with section or equation: the last paragraph of its docstring, errors aside."""
        return " ".join([p for p in self.paragraphs if not p.startswith("Raises:")][-1].split())

    @property
    def paragraphs(self) -> list[str]:
        """The docstring, paragraph by paragraph."""
        return [part.strip() for part in inspect.cleandoc(self.function.__doc__ or "").split("\n\n")]


CRITERIA: dict[str, Criterion] = {}


def criterion(name: str, needs: Needs = "weights", *, revises: bool = False) -> Callable[[Function], Function]:
    """Register a criterion."""

    def register(function: Function) -> Function:
        CRITERIA[name] = Criterion(name, function, needs, revises)
        return function

    return register


def criterion_of(name: str) -> Criterion:
    """The criterion of this name.

    Raises:
        PlanError: There is none.
    """
    if name not in CRITERIA:
        text = name.lower()  # 'l2norm' means l2: a name inside what was typed is nearer than one that is like it
        near = max(sorted(CRITERIA), key=lambda known: (known in text, SequenceMatcher(None, text, known).ratio()))
        what = f"unknown criterion '{name}'"
        raise PlanError(what, remedy=f"did you mean '{near}'? see 'onnxprune criteria' for all of them")
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
