"""How groups share the cut, by name. Law: an allocation is made once, before planning; what it costs is remembered.

`ALLOCATIONS` lists them: a name, and a function of a `Case`. None leaves it to the planner: by the scores where these
are errors, else uniformly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onnxprune.data import Samples
from onnxprune.errors import DataError, PlanError
from onnxprune.importance import Scores
from onnxprune.model import Model
from onnxprune.pipeline.curves import curves_of
from onnxprune.pipeline.options import Options
from onnxprune.plan import Limits, Sharing, Target, across, uniform
from onnxprune.plan.redundancy import redundancy
from onnxprune.progress import Observer
from onnxprune.sensitivity import by_sensitivity
from onnxprune.sensitivity.curves import read
from onnxprune.trace import Dependencies


@dataclass(frozen=True, eq=False)
class Case:
    """What an allocation is made from.

    Attributes:
        original: The model as it came.
        dependencies: Its trace.
        scores: Importance of its units.
        limits: What may be touched.
        options: Everything else.
        observe: Called with a stage's name and the share of it that is done.
        samples: The user's, if they were read.
    """

    original: Model
    dependencies: Dependencies
    scores: Scores
    limits: Limits
    options: Options
    observe: Observer
    samples: Samples | None = None


def sensitivity(case: Case) -> Sharing:
    """By the curves in a file, or by those of the user's samples, measured now if they are not remembered.

    Raises:
        DataError: There is neither.
    """
    options = case.options
    if options.sensitivity is not None:
        return by_sensitivity(read(options.sensitivity, case.dependencies))
    if options.data is None:
        remedy = "give typical inputs with --data, or an analysis with --sensitivity S.json"
        raise DataError("--allocate sensitivity needs samples", remedy=remedy)
    facts = case.original, case.dependencies, case.scores, options, case.limits.rows
    return by_sensitivity(curves_of(*facts, samples=case.samples, observe=case.observe))


ALLOCATIONS: Mapping[str, Callable[[Case], Sharing | None]] = {
    "auto": lambda case: None,
    "uniform": lambda case: uniform(case.dependencies),
    "global": lambda case: across(case.dependencies, case.scores),
    "sensitivity": sensitivity,
    "redundancy": lambda case: redundancy(case.dependencies, case.scores),
}


def check_allocation(options: Options, target: Target | None = None) -> None:
    """Refuse an unknown allocation, or one that does not go with the target.

    Raises:
        PlanError: See above.
    """
    if options.allocate not in ALLOCATIONS:
        raise PlanError(f"unknown allocation '{options.allocate}'", remedy=f"use one of: {', '.join(ALLOCATIONS)}")
    if options.sensitivity is not None and options.allocate != "sensitivity":
        what = f"--sensitivity is not looked at with --allocate {options.allocate}"
        raise PlanError(what, remedy="add --allocate sensitivity, or leave it out")
    if target is not None and target.timed and options.allocate != "auto":
        what = f"a target in time chooses widths by what they cost here, not by --allocate {options.allocate}"
        raise PlanError(what, remedy="leave --allocate out, or give the target as --macs, --params or --ratio")


def allocation(case: Case) -> Sharing | None:
    """The allocation that the options name; None leaves it to the planner."""
    return ALLOCATIONS[case.options.allocate](case)
