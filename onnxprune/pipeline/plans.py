"""How a target becomes a plan. Law: a plan can be made again with some groups left whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from onnxprune.align import width_step
from onnxprune.data import Samples
from onnxprune.errors import PlanError, VerificationError
from onnxprune.fit import Fitted, meet
from onnxprune.importance import Scores, criterion_of
from onnxprune.isolate import Replan
from onnxprune.model import Model
from onnxprune.pipeline.inputs import sample, timing_feeds
from onnxprune.pipeline.options import Options
from onnxprune.plan import Limits, Plan, Sharing, Target, plan
from onnxprune.progress import Observer
from onnxprune.trace import Dependencies


def step_for(options: Options, observe: Observer) -> int:
    """The width step to align to: measured on this machine's onnxruntime, or remembered."""
    if options.step is not None:
        return options.step
    observe("find the width step", 0.0)
    return width_step(provider=options.ep, threads=options.threads).step


def planner(
    original: Model,
    dependencies: Dependencies,
    scores: Scores,
    target: Target | None,
    limits: Limits,
    options: Options,
    observe: Observer,
    samples: Samples | None = None,
    *,
    fixed: bool,
    sharing: Sharing | None = None,
) -> Replan:
    """What makes the plan for a target, given the sources (`tensor:axis`) whose groups stay whole."""
    if target is not None and target.timed:
        return TimedPlans(original, dependencies, scores, target, limits, options, observe, samples)
    return partial(plan_beside, dependencies, scores, target, limits, fixed, sharing)


def planned(rank: Callable[..., Scores], make: Callable[[Scores], Replan]) -> tuple[Plan, Replan, Scores]:
    """Score and plan; twice where scores depend on what a plan removes.

    Args:
        rank: Gives scores; a second time, from the first plan.
        make: Gives what makes a plan, from scores.
    """

    def once(scores: Scores) -> tuple[Plan, Replan, Scores]:
        replan = make(scores)
        return replan(()), replan, scores

    found = once(rank())
    return once(rank(found[0])) if criterion_of(found[2].criterion).revises else found


def plan_beside(
    dependencies: Dependencies,
    scores: Scores,
    target: Target | None,
    limits: Limits,
    fixed: bool,
    sharing: Sharing | None,
    whole: Sequence[str],
) -> Plan:
    """Plan with the groups of some sources (`tensor:axis`) left whole; the settings are those that were asked for."""
    narrower = replace(limits, skip=(*limits.skip, *whole))
    chosen = plan_aligned(dependencies, scores, target, narrower, sharing, fixed=fixed)
    return as_asked(chosen, limits)


def as_asked(chosen: Plan, limits: Limits) -> Plan:
    """The plan with the settings that were asked for, where more groups were left whole or layers ranked alone."""
    given: dict[str, object] = {"max_ratio": limits.max_ratio, "skip": limits.skip}
    asked = {**chosen.settings, **given}
    return replace(chosen, settings={k: v for k, v in asked.items() if k not in given or v not in (None, ())})


def plan_aligned(
    dependencies: Dependencies,
    scores: Scores,
    target: Target | None,
    limits: Limits,
    sharing: Sharing | None = None,
    *,
    fixed: bool,
) -> Plan:
    """Plan at an alignment; one that was measured, not given, is halved while it leaves nothing to remove."""
    while True:
        narrower = replace(limits, align=limits.align // 2) if limits.align > 1 and not fixed else None
        try:
            chosen = plan(dependencies, scores, target, limits, sharing)
            if narrower is None or any(g.removed for g in chosen.groups):
                return chosen
        except PlanError:
            if narrower is None:
                raise
        limits = narrower


@dataclass(eq=False)
class TimedPlans:
    """Plans for a target in time, made by measuring; `found` keeps the last measurement."""

    original: Model
    dependencies: Dependencies
    scores: Scores
    target: Target
    limits: Limits
    options: Options
    observe: Observer
    samples: Samples | None = None
    found: Fitted | None = None

    @cached_property
    def feeds(self) -> Samples:
        """What plans are timed on, and verified on afterwards."""
        return sample(self.original, self.options, self.samples)

    def __call__(self, whole: Sequence[str]) -> Plan:
        """The plan with the groups of some sources (`tensor:axis`) left whole.

        Raises:
            PlanError: The target is out of reach, and `Options.best_effort` is off.
        """
        options, narrower = self.options, replace(self.limits, skip=(*self.limits.skip, *whole))
        feeds = timing_feeds(self.original, self.feeds, options)
        found = meet(
            self.original,
            self.dependencies,
            feeds,
            self.scores,
            self.target,
            narrower,
            finer=options.align is None,
            provider=options.ep,
            threads=options.threads,
            seed=options.seed,
            observe=self.observe,
        )
        if not found.reached and not options.best_effort:
            raise out_of_reach(found)
        self.found = replace(found, plan=as_asked(found.plan, self.limits))
        return self.found.plan

    def fitted(self, plan: Plan) -> Fitted | None:
        """How the target was met, if the last plan made removes the same; what it notes about groups may differ."""
        if self.found is None or removals(self.found.plan) != removals(plan):
            return None
        return replace(self.found, plan=plan)


def removals(plan: Plan) -> dict[str, tuple[int, ...]]:
    """What a plan removes, by group."""
    return {entry.name: entry.removed for entry in plan.groups}


def out_of_reach(found: Fitted) -> PlanError:
    """The error for a time that no plan meets."""
    best = found.comparison
    wanted = f"{found.wanted:.2f}x ({best.before_ms / found.wanted:.3g} ms)"
    missed = "is out of reach" if found.least else f"was not met by {found.plans} plans"
    what = f"{wanted} {missed}: at most {best.speedup:.2f}x ({best.after_ms:.3g} ms) was measured"
    remedy = "ask for less, relax --max-ratio, --skip or --align, or take that with --best-effort; nothing was written"
    return PlanError(what, remedy=remedy)


def nothing_removed(chosen: Plan) -> PlanError:
    """The error for a plan that leaves everything whole, with its most frequent note."""
    notes = [g.note for g in chosen.groups if g.note]
    why = f": {max(set(notes), key=notes.count)}" if notes else ""
    return PlanError(
        f"the plan removes nothing{why}", remedy="ask for a larger ratio or threshold, or a smaller --align"
    )


def not_all(isolated: Mapping[str, str]) -> VerificationError:
    """The error for groups that fail where all of them were to be pruned."""
    names, first = ", ".join(f"'{name}'" for name in isolated), next(iter(isolated.values()))
    what = f"not all groups can be pruned: {names} ({first})"
    return VerificationError(what, remedy="nothing was written; without --strict they are left whole")
