"""From a target to a plan. Law: of the removals a target and the limits allow, the least important units go.

Targets in MACs or parameters are met by bisection over the level of the allocation; with scores that are errors, MACs
are a budget (`plan.budget`). A threshold is met by what lies below it (`plan.threshold`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onnxprune.cost import cost
from onnxprune.errors import PlanError
from onnxprune.importance import Scores
from onnxprune.labels import Ids
from onnxprune.plan.allocation import GLOBAL, UNIFORM, Sharing
from onnxprune.plan.budget import least_error
from onnxprune.plan.choose import Chooser, assemble, chooser_of
from onnxprune.plan.document import Plan
from onnxprune.plan.target import Limits, Target
from onnxprune.plan.threshold import below, relative
from onnxprune.trace import Dependencies

STEPS = 24  # bisections: the ratio is known to 2**-24, far below one channel


def plan(
    dependencies: Dependencies,
    scores: Scores,
    target: Target | None = None,
    limits: Limits | None = None,
    allocation: Sharing | None = None,
) -> Plan:
    """Choose what to remove.

    Args:
        dependencies: A traced model.
        scores: Importance of its units.
        target: What to reach; None prunes only where `limits.layer_ratios` say so.
        limits: What may be touched.
        allocation: How groups share the cut; None: as scores say where they are errors, else uniformly.

    Raises:
        UnprunableError: Nothing in the model can be removed.
        PlanError: The target is out of reach under the limits, or a threshold and an allocation contradict each other.
    """
    limits, target = limits or Limits(), target or Target()
    if target.threshold is not None and allocation is not None and allocation.name not in (UNIFORM, GLOBAL):
        what = f"--threshold and --allocate {allocation.name} contradict each other: the threshold says what goes where"
        raise PlanError(what, remedy="give one of them")
    finer = limits.finer and budgeted(scores, target, allocation)
    chooser = chooser_of(dependencies, scores, replace(limits, finer=finer), allocation)
    chosen = assemble(chooser, target, search(chooser, target))
    if target.threshold is None:
        return chosen
    count = int((relative(chooser) < target.threshold).sum())
    return replace(chosen, settings={**chosen.settings, "below": count})


def budgeted(scores: Scores, target: Target, allocation: Sharing | None) -> bool:
    """Whether a budget of errors says what goes where."""
    return target.macs is not None and scores.additive and allocation is None


def search(chooser: Chooser, target: Target) -> list[tuple[Ids, str]]:
    """The choice that meets a target."""
    if target.threshold is not None:
        return below(chooser, target.threshold)
    if target.macs is not None and budgeted(chooser.scores, target, chooser.allocation):
        return least_error(chooser, target.macs)
    if target.macs is None and target.params is None:
        if target.ratio is None:
            return chooser.removal(0.0)
        if chooser.sharing.name == UNIFORM:  # the level is the ratio: every group loses what was asked for
            return chooser.removal(target.ratio)
    aim, measure, name = goal(chooser, target)
    low, high = 0.0, 1.0
    best = chooser.removal(high)
    reached = measure(best)
    if reached > aim + 1e-9:
        what = f"--{name} cannot be met: at most {1 - reached:.1%} can go under the limits given"
        raise PlanError(what, remedy="ask for less, or relax --max-ratio, --skip or --align")
    for _ in range(STEPS):
        middle = (low + high) / 2
        choice = chooser.removal(middle)
        if measure(choice) <= aim + 1e-9:
            high, best = middle, choice
        else:
            low = middle
    return best


def goal(chooser: Chooser, target: Target) -> tuple[float, Callable[[list[tuple[Ids, str]]], float], str]:
    """The value a search must come down to, the function that measures it, and the option's name."""
    if target.ratio is not None:
        count = sum(g.units.size for g in chooser.groups)
        return 1 - target.ratio, lambda choice: 1 - sum(p.size for p, _ in choice) / count, "ratio"
    name = "macs" if target.macs is not None else "params"
    aim = target.macs if target.macs is not None else target.params
    assert aim is not None

    def share(choice: list[tuple[Ids, str]]) -> float:
        keep = chooser.dependencies.keep(chooser.units(choice))
        after: float = getattr(cost(chooser.dependencies, keep), name)
        return after / max(1.0, float(getattr(chooser.dense, name)))

    return aim, share, name
