"""Deliver what verifies. Law: a group whose surgery fails stays whole, and the rest, verified as a whole, is delivered.

A plan that verifies costs nothing more. One that fails is bisected (delta debugging, Zeller & Hildebrandt 2002): groups
join a base that has passed, a half that fails beside it is halved again, and a single group that fails stays whole. So
k culprits among n groups are found in about 2 k log2 n trials, groups that fail only together lose the one that removes
least, and the last part that passed is what is delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune.data import Feeds
from onnxprune.errors import OnnxpruneError, PlanError, VerificationError, debugging, described
from onnxprune.labels import Ids
from onnxprune.model import Model
from onnxprune.plan import Plan
from onnxprune.progress import Observer, silent
from onnxprune.rewrite import check_axes, rewrite
from onnxprune.trace import Dependencies
from onnxprune.verify import REMEDY, Equivalence, verify

TRIALS = 100  # what has not been tried by then stays whole
UNTRIED = f"not verified: finding the groups that fail took more than {TRIALS} trials"

Replan = Callable[[Sequence[str]], Plan]


@dataclass(frozen=True, eq=False)
class Verified:
    """A plan that passed, and what came of it.

    Attributes:
        plan: What was carried out; isolated groups are whole in it, with the reason as their note.
        removed: Its unit numbers.
        model: The pruned model.
        equivalence: How closely masked and pruned agreed.
        isolated: Group -> why it was kept whole, in the order of the plan; usually empty.
    """

    plan: Plan
    removed: Ids
    model: Model
    equivalence: Equivalence
    isolated: Mapping[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class Trials:
    """Carries out parts of one plan, each at most once; a part is a set of names of groups.

    Attributes:
        passed: The last part that verified.
        failures: Why the others did not.
        isolated: Group -> why it must stay whole.
    """

    dependencies: Dependencies
    plan: Plan
    batches: Sequence[Feeds]
    threads: int
    observe: Observer
    passed: Verified | None = None
    failures: dict[frozenset[str], VerificationError] = field(default_factory=dict)
    isolated: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def carry_out(self, plan: Plan, mark: str) -> Verified:
        """Rewrite and verify a plan. Whatever goes wrong is its failure: the rule of some operator may be at fault.

        Raises:
            VerificationError: It fails. With ONNXPRUNE_DEBUG set, an exception nobody foresaw is raised as it is.
        """
        removed = plan.removed(self.dependencies)
        try:
            self.observe(f"rewrite{mark}", 0.0)
            pruned = rewrite(self.dependencies, removed)
            self.observe(f"verify{mark}", 0.0)
            equal = verify(self.dependencies, removed, pruned, self.batches, threads=self.threads)
        except (VerificationError, MemoryError):  # for want of memory no group is to blame
            raise
        except OnnxpruneError as error:
            raise VerificationError(error.what, where=error.where, remedy=REMEDY) from error
        except Exception as error:
            if debugging():
                raise
            raise VerificationError(f"internal error, {described(error)}", remedy=REMEDY) from error
        return Verified(plan, removed, pruned, equal)

    def failure(self, part: Sequence[str]) -> VerificationError | None:
        """Why a part of the plan fails, or None where it passes."""
        key = frozenset(part)
        if key not in self.failures:
            mark = f" (trial {self.count})" if self.count else ""
            self.count += 1
            others = {entry.name: entry.note for entry in self.plan.groups if entry.name not in key}
            try:
                self.passed = self.carry_out(without(self.plan, others), mark)
            except VerificationError as error:
                self.failures[key] = error
        return self.failures.get(key)

    def extend(self, base: Sequence[str], part: Sequence[str]) -> Sequence[str]:
        """The base, which has passed, and those groups of the part that pass beside it; the others are isolated."""
        wider = [*base, *part]
        if self.count >= TRIALS and frozenset(wider) not in self.failures:
            self.isolated.update(dict.fromkeys(part, UNTRIED))
            return base
        if (failure := self.failure(wider)) is None:
            return wider
        if len(part) == 1:
            self.isolated[part[0]] = reason(failure)
            return base
        half = len(part) // 2
        return self.extend(self.extend(base, part[:half]), part[half:])


def isolate(
    dependencies: Dependencies,
    plan: Plan,
    batches: Sequence[Feeds],
    *,
    threads: int = 1,
    replan: Replan | None = None,
    observe: Observer = silent,
) -> Verified:
    """Rewrite and verify a plan; where that fails, find the groups at fault, and deliver the others.

    Args:
        dependencies: A traced model, which must compute what its original does (`verify.check_normalised`).
        plan: What to remove.
        batches: Inputs to compare on.
        threads: Threads inside one operator.
        replan: Plans anew with the groups of these sources (`tensor:axis`) left whole, so that the others may meet
            the target.
        observe: Called with a stage's name and the share of it that is done.

    Raises:
        PlanError: The plan leaves an axis empty or rows uneven.
        VerificationError: Nothing is left to deliver, or even a plan that removes nothing fails.
    """
    removed = plan.removed(dependencies)
    trials = Trials(dependencies, plan, batches, threads, observe)
    entries = sorted((e for e in plan.groups if e.removed), key=lambda e: -len(e.removed))
    every = list(dict.fromkeys(e.name for e in entries))
    failure = trials.failure(every)
    if failure is not None:
        check_axes(dependencies, dependencies.gone(removed))
        if trials.failure([]) is not None or not trials.extend([], every):
            raise failure
    assert trials.passed is not None
    isolated = {e.name: trials.isolated[e.name] for e in plan.groups if e.name in trials.isolated}
    found = replace(trials.passed, plan=without(plan, isolated), isolated=isolated)
    return replanned(trials, found, replan) if isolated and replan else found


def replanned(trials: Trials, found: Verified, replan: Replan) -> Verified:
    """The target met by the groups that are left, if they can meet it and that verifies too; else what was found."""
    try:
        whole = [s for entry in found.plan.groups if entry.name in found.isolated for s in entry.sources]
        chosen = without(replan(whole), found.isolated)
        removed = chosen.removed(trials.dependencies)
        if not removed.size or np.array_equal(removed, found.removed):
            return found
        again = trials.carry_out(chosen, " (planned anew)")
    except (PlanError, VerificationError):
        return found
    return replace(again, isolated=found.isolated)


def without(plan: Plan, notes: Mapping[str, str]) -> Plan:
    """The plan with the named groups left whole, for these reasons."""
    entries = (replace(e, removed=(), note=notes[e.name]) if e.name in notes else e for e in plan.groups)
    return replace(plan, groups=tuple(entries))


def reason(failure: VerificationError) -> str:
    """Why a group is isolated, as notes and reports say it."""
    return f"failed verification: {'; '.join(filter(None, (failure.what, failure.where)))}"
