"""Meet a target in time. Law: a target is met when the whole pruned model was measured to meet it, and not before.

The outer search: plan on the table of measured times (`plan.knapsack`), time the whole model against the dense one,
correct the table by what was found (`profile.Profiler`), and plan again. A plan that comes near enough is timed once
more, because the nearest of several noisy measurements looks nearer than it is; only if that holds is it the answer.
A target is out of reach when even the plan of least time, measured, is not that fast.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from onnxprune.bench import Comparison, bench
from onnxprune.importance import Scores
from onnxprune.labels import Ids
from onnxprune.latency.table import Sample
from onnxprune.model import Model
from onnxprune.plan import Limits, Plan, Target
from onnxprune.plan.choose import Chooser, assemble
from onnxprune.plan.knapsack import Choices, Search, choices_of, choosers_of, fastest, levels_of, within
from onnxprune.profile import Observer, Profiler, profile, profiler_of, removed_by, save
from onnxprune.rewrite import rewrite
from onnxprune.runtime import Feeds
from onnxprune.trace import Dependencies

TRIALS = 10
LEARN = 3  # trials before their errors, taken together, move the aim
FASTEST = 3  # plans of least time that are measured, each by the table that the one before corrected
HURRY = 2  # last trials, which aim for more than was asked: faster than asked is better than not met
NEAR = 0.03  # a speedup within this share of what was asked is what was asked
TRIAL_S = 3.0  # seconds of timing for each trial
ALIKE = 0.01  # share of the least time that is not worth importance


@dataclass(frozen=True)
class Trial:
    """One plan that was measured.

    Attributes:
        predicted: Speedup that the table expected.
        speedup: Speedup that was measured.
        ci95: Its interval.
        kept: Geometric mean over all layers of the share of importance that stays.
    """

    predicted: float
    speedup: float
    ci95: tuple[float, float]
    kept: float


@dataclass(frozen=True, eq=False)
class Fitted:
    """The answer of a fit.

    Attributes:
        plan: What to remove.
        wanted: The speedup that was asked for; for a time, what it comes to on the dense model's time.
        comparison: The measurement of the plan.
        reached: Whether it is at least as fast as asked, within `NEAR`.
        trials: All plans measured, in order.
        least: Whether the fastest plan there is was measured, and was too slow.
    """

    plan: Plan
    wanted: float
    comparison: Comparison
    reached: bool
    trials: tuple[Trial, ...]
    least: bool = False

    def to_dict(self) -> dict[str, Any]:
        """How the target was met, as JSON types."""
        trials = [asdict(t) for t in self.trials]
        return {"wanted": self.wanted, "reached": self.reached, "out_of_reach": self.least, "trials": trials}


@dataclass(eq=False)
class Fit:
    """The state of one search.

    Attributes:
        original: The model that the pruned ones are timed against.
        profiler: Measures and remembers kernels.
        chooser: The data that plans are made of.
        choices: The widths of every group.
        target: A time.
        seed: Of the order of timing.
        trials: What was tried.
    """

    original: Model
    profiler: Profiler
    chooser: Chooser
    choices: Choices
    target: Target
    seed: int = 0
    observe: Observer = lambda _, __: None
    trials: list[Trial] = field(default_factory=list)
    best: tuple[tuple[bool, float], Plan, Comparison] | None = None

    def wanted(self, comparison: Comparison | None) -> float:
        """The speedup to reach; a target in milliseconds is one against the dense model's time in the same run."""
        if self.target.speedup is not None:
            return self.target.speedup
        assert self.target.latency_ms is not None
        dense = self.profiler.dense_ms if comparison is None else comparison.before_ms
        return dense / self.target.latency_ms

    def run(self) -> Fitted:
        """Plan and measure until the target is met, or no faster plan exists."""
        correct: Sample | None = None
        tried: set[bytes] = set()
        beyond = False
        for trial in range(TRIALS):
            self.observe("fit", trial / TRIALS)
            search, least = self.solve(correct, self.aim(trial))
            removed = removed_by(self.profiler.dependencies, self.choices.levels, search.chosen.tolist())
            comparison = self.measure(removed, search, TRIAL_S, trial)
            if self.near(comparison):
                comparison = self.measure(removed, search, 2 * TRIAL_S, trial + TRIALS)
            self.keep(search, comparison)
            again = search.chosen.tobytes() in tried and trial >= LEARN
            beyond = least and self.miss(comparison) < -NEAR
            if self.near(comparison) or again or (beyond and trial >= FASTEST - 1):
                break
            tried.add(search.chosen.tobytes())
            correct = self.profiler.sample(removed, comparison.speedup)
        return self.answer(beyond)

    def aim(self, trial: int) -> float:
        """Share of the time asked for to plan with.

        Correcting the table for one plan can leave it wrong for the next; what all plans have in common is met here.
        """
        errors = np.array([t.speedup / t.predicted for t in self.trials[1:]])  # the first was planned uncorrected
        alike = trial >= LEARN and ((errors < 1).all() or (errors > 1).all())
        common = float(np.median(errors)) if alike else 1.0
        return common * (1 - NEAR) ** max(0, trial + 1 + HURRY - TRIALS)

    def solve(self, correct: Sample | None, aim: float) -> tuple[Search, bool]:
        """The plan that should meet the target; and whether it is the fastest there is, or as good as that."""
        whole = Search.of(self.profiler.table(correct).price, self.choices)
        limit = self.profiler.dense_ms / self.wanted(self.best[2] if self.best else None)
        found = within(whole, limit * aim)
        if found is not None:
            return found, False
        quick = fastest(whole)
        return within(whole, quick.total * (1 + ALIKE)) or quick, True

    def measure(self, removed: Ids, search: Search, budget_s: float, seed: int) -> Comparison:
        """Time a plan against the dense model."""
        pruned = rewrite(self.profiler.dependencies, removed)
        p = self.profiler
        found = bench(
            self.original,
            pruned,
            feeds=p.feeds,
            provider=p.provider,
            threads=p.threads,
            seed=self.seed + seed,
            budget_s=budget_s,
        )
        expected = self.profiler.dense_ms / search.total
        self.trials.append(Trial(expected, found.speedup, found.ci95, search.kept))
        return found

    def near(self, comparison: Comparison) -> bool:
        """Whether a measurement is what was asked for."""
        return abs(self.miss(comparison)) <= NEAR

    def miss(self, comparison: Comparison) -> float:
        """By what share of what was asked a measurement is faster."""
        return comparison.speedup / self.wanted(comparison) - 1

    def keep(self, search: Search, comparison: Comparison) -> None:
        """Remember the best plan: one that is fast enough before one that is not, then the nearest."""
        miss = self.miss(comparison)
        rank = (miss < -NEAR, abs(miss))
        if self.best is None or rank < self.best[0]:
            pairs = zip(self.choices.levels, search.chosen, strict=True)
            choice = [(options[c].removed, options[c].note) for options, c in pairs]
            self.best = rank, assemble(self.chooser, self.target, choice), comparison

    def answer(self, beyond: bool) -> Fitted:
        """The best plan that was measured; `beyond` where the last was the fastest there is, and too slow."""
        assert self.best is not None
        (slow, _), plan, comparison = self.best
        return Fitted(plan, self.wanted(comparison), comparison, not slow, tuple(self.trials), beyond)


def meet(
    original: Model,
    dependencies: Dependencies,
    feeds: Feeds,
    scores: Scores,
    target: Target,
    limits: Limits,
    *,
    finer: bool = True,
    provider: str = "cpu",
    threads: int = 1,
    seed: int = 0,
    observe: Observer = lambda _, __: None,
) -> Fitted:
    """`fit` with what was measured of this model before, and keep what is measured now.

    Args:
        original: The model that the pruned ones are timed against.
        dependencies: Its trace.
        feeds: What is run.
        scores: Importance of units.
        target: `speedup` or `latency_ms`.
        limits: What may be touched; `align` is the width step.
        finer: Whether narrow groups may stop at half a step.
        provider: Execution provider.
        threads: Threads inside one operator.
        seed: Of the design of the profile and the order of timing.
        observe: Called with a stage's name and the share of it that is done.
    """
    profiler = profiler_of(dependencies, feeds, limits.align, provider=provider, threads=threads)
    try:
        return fit(original, profiler, scores, target, limits, finer=finer, seed=seed, observe=observe)
    finally:
        save(profiler)


def fit(
    original: Model,
    profiler: Profiler,
    scores: Scores,
    target: Target,
    limits: Limits,
    *,
    finer: bool = True,
    seed: int = 0,
    observe: Observer = lambda _, __: None,
) -> Fitted:
    """Find the plan that keeps most importance at a speedup or a latency, by measuring.

    Args:
        original: The model that the pruned ones are timed against.
        profiler: Of the traced model; what it has measured before is used, what is measured is added.
        scores: Importance of units.
        target: `speedup` or `latency_ms`.
        limits: What may be touched; `align` is the width step.
        finer: Whether narrow groups may stop at half a step.
        seed: Of the design of the profile and the order of timing.
        observe: Called with a stage's name and the share of it that is done.

    Raises:
        UnprunableError: Nothing in the model can be removed.
    """
    choosers = choosers_of(profiler.dependencies, scores, limits, finer=finer)
    levels = levels_of(choosers)
    profile(profiler, levels, seed=seed, observe=observe)
    choices = choices_of(profiler.dependencies, profiler.terms, levels)
    return Fit(original, profiler, choosers[0], choices, target, seed, observe).run()
