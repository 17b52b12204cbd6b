"""The outer search. Law: a target is met when the whole pruned model was measured to meet it, and not before.

Plan on the table of measured times (`plan.knapsack`), time the whole model against the dense one, correct the table by
what was found (`profile.Profiler`), and plan again. What is corrected for one plan can be wrong for the next, so after
`LEARN` corrections the table stays as it is, corrected for the plan that came nearest, and the time that is planned for
moves instead (`fit.bracket`). A plan that comes near enough is timed once more, because the nearest of several noisy
measurements looks nearer than it is; only if that holds is it the answer.

A target is out of reach when every plan that the first and the corrected table take for the fastest was measured, and
was too slow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from onnxprune.bench import Comparison, bench
from onnxprune.fit.answer import NEAR, Fitted, Trial
from onnxprune.fit.bracket import Bracket
from onnxprune.importance import Scores
from onnxprune.labels import Ids
from onnxprune.latency import Table
from onnxprune.latency.table import Sample
from onnxprune.model import Model
from onnxprune.plan import Limits, Target
from onnxprune.plan.choose import Chooser, assemble
from onnxprune.plan.knapsack import Search, fastest, within
from onnxprune.plan.levels import Choices, choices_of, choosers_of, levels_of
from onnxprune.profile import Profiler, profile, profiler_of, removed_by, save
from onnxprune.progress import Observer, silent
from onnxprune.rewrite import rewrite
from onnxprune.runtime import Feeds
from onnxprune.trace import Dependencies

TRIALS = 10  # plans made, at most
LEARN = 3  # plans that the table is corrected by
TRIAL_S = 3.0  # seconds of timing for each trial
ALIKE = 0.01  # share of the least time that is not worth importance


@dataclass(frozen=True, eq=False)
class Measured:
    """A plan and what it was measured to be.

    Attributes:
        number: Of the plan, as in `Trial`.
        search: The widths.
        removed: Unit numbers.
        comparison: Of the pruned model with the dense one.
        miss: By what share of what was asked it is faster; below 0, it is slower.
    """

    number: int
    search: Search
    removed: Ids
    comparison: Comparison
    miss: float

    @property
    def rank(self) -> tuple[bool, float]:
        """Smaller is better: one that is fast enough before one that is not, then the nearest."""
        return self.miss < -NEAR, self.distance()

    def distance(self) -> float:
        """How far it is from what was asked, as a ratio of times."""
        return abs(math.log1p(self.miss))


@dataclass(eq=False)
class Fit:
    """The state of one search.

    Attributes:
        original: The model that the pruned ones are timed against.
        profiler: Measures and remembers kernels.
        chooser: The data that plans are made of.
        choices: The widths of every group.
        target: A time.
        first: The table before plans correct it.
        seed: Of the order of timing.
        trials: Every measurement.
        known: Every plan that was measured, by its widths.
        samples: What the profiler saw of those that the table was corrected by, by their numbers.
        table: The present one.
        learning: Whether plans still correct it.
        bracket: The aims tried since they do not.
        limit: Milliseconds by the table that the target comes to.
    """

    original: Model
    profiler: Profiler
    chooser: Chooser
    choices: Choices
    target: Target
    first: Table
    seed: int = 0
    observe: Observer = silent
    trials: list[Trial] = field(default_factory=list)
    known: dict[bytes, Measured] = field(default_factory=dict)
    samples: dict[int, Sample] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.table = self.first
        self.learning, self.bracket = True, Bracket()
        self.limit = np.inf

    @property
    def best(self) -> Measured:
        """The best plan so far."""
        return min(self.known.values(), key=lambda found: found.rank)

    def wanted(self, comparison: Comparison | None) -> float:
        """The speedup to reach; a target in milliseconds is one against the dense model's time in the same run."""
        if self.target.speedup is not None:
            return self.target.speedup
        assert self.target.latency_ms is not None
        dense = self.profiler.dense_ms if comparison is None else comparison.before_ms
        return dense / self.target.latency_ms

    def run(self) -> Fitted:
        """Plan and measure until the target is met, or nothing is left to try."""
        beyond = False
        for number in range(TRIALS):
            self.observe("fit", number / TRIALS)
            aim = self.bracket.aim
            search, least = self.solve(aim)
            again = self.known.get(search.chosen.tobytes())
            found = again or self.measured(search, least=least)
            beyond = least and again is not None and found.miss < -NEAR
            if abs(found.miss) <= NEAR or beyond or self.bracket.closed:
                break
            self.learn(found, aim, again=again is not None)
        return self.answer(beyond)

    def learn(self, found: Measured, aim: float, *, again: bool) -> None:
        """Correct the table by a plan, or move the aim."""
        if self.learning and not again:
            self.table = self.corrected(found)
        if not self.learning:
            self.bracket = self.bracket.narrowed(aim, found.miss)
        elif again or len(self.known) >= LEARN:
            self.learning, self.table = False, self.corrected(min(self.known.values(), key=Measured.distance))

    def corrected(self, found: Measured) -> Table:
        """The table that meets the times of a plan exactly."""
        if found.number not in self.samples:
            self.samples[found.number] = self.profiler.sample(found.removed, found.comparison.speedup)
        return self.profiler.table(self.samples[found.number])

    def solve(self, aim: float) -> tuple[Search, bool]:
        """The plan that should meet the target with this share of its time; and whether it is the fastest there is.

        Of plans that are as good as the fastest, one that was not measured yet, if there is one.
        """
        if self.learning:  # afterwards what is aimed for are shares of the same time
            self.limit = self.profiler.dense_ms / self.wanted(self.best.comparison if self.known else None)
        whole = Search.of(self.table.price, self.choices)
        if (found := within(whole, self.limit * aim)) is not None:
            return found, False
        starts = [whole, Search.of(self.first.price, self.choices)]
        quickest = [quick(start, self.limit) for start in starts]
        if self.known and self.best.miss > -NEAR - 2 * ALIKE:  # so near that what importance costs may decide
            quickest += map(fastest, starts)
        return next((q for q in quickest if q.chosen.tobytes() not in self.known), quickest[0]), True

    def measured(self, search: Search, *, least: bool) -> Measured:
        """Time a plan against the dense model; twice, and the second time for longer, where that may decide.

        That is where it comes near, and where the fastest plan there is comes nearly so.
        """
        removed = removed_by(self.profiler.dependencies, self.choices.levels, search.chosen.tolist())
        pruned = rewrite(self.profiler.dependencies, removed)
        comparison = self.time(search, pruned, TRIAL_S)
        miss = self.miss(comparison)
        if abs(miss) <= NEAR or (least and -2 * NEAR < miss < 0):
            comparison = self.time(search, pruned, 2 * TRIAL_S)
        found = Measured(len(self.known), search, removed, comparison, self.miss(comparison))
        return self.known.setdefault(search.chosen.tobytes(), found)

    def time(self, search: Search, pruned: Model, budget_s: float) -> Comparison:
        """Time a pruned model against the dense one, and note it."""
        p = self.profiler
        found = bench(
            self.original,
            pruned,
            feeds=p.feeds,
            provider=p.provider,
            threads=p.threads,
            seed=self.seed + len(self.trials),
            budget_s=budget_s,
        )
        expected = self.profiler.dense_ms / search.total
        self.trials.append(Trial(len(self.known), expected, found.speedup, found.ci95, search.kept))
        return found

    def miss(self, comparison: Comparison) -> float:
        """By what share of what was asked a measurement is faster."""
        return comparison.speedup / self.wanted(comparison) - 1

    def answer(self, beyond: bool) -> Fitted:
        """The best plan that was measured; `beyond` where all that may be the fastest there is were."""
        best, slow = self.best, self.best.miss < -NEAR
        pairs = zip(self.choices.levels, best.search.chosen, strict=True)
        choice = [(options[c].removed, options[c].note) for options, c in pairs]
        plan = assemble(self.chooser, self.target, choice)
        return Fitted(
            plan, self.wanted(best.comparison), best.comparison, not slow, tuple(self.trials), beyond and slow
        )


def quick(whole: Search, limit: float) -> Search:
    """The fastest plan there is; where even that misses `limit` by far, the best of those that are as fast."""
    found = fastest(whole)
    if found.total <= limit * (1 + NEAR):
        return found
    return within(whole, found.total * (1 + ALIKE)) or found


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
    observe: Observer = silent,
) -> Fitted:
    """`fit` with what was measured of this model before, and keep what is measured now.

    Args:
        original: The model that the pruned ones are timed against.
        dependencies: Its trace.
        feeds: What is run.
        scores: Importance of units.
        target: `speedup` or `latency_ms`.
        limits: What may be touched; `align` is the width step.
        finer: Whether narrow groups may stop at parts of a step.
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
    observe: Observer = silent,
) -> Fitted:
    """Find the plan that keeps most importance at a speedup or a latency, by measuring.

    Args:
        original: The model that the pruned ones are timed against.
        profiler: Of the traced model; what it has measured before is used, what is measured is added.
        scores: Importance of units.
        target: `speedup` or `latency_ms`.
        limits: What may be touched; `align` is the width step.
        finer: Whether narrow groups may stop at parts of a step.
        seed: Of the design of the profile and the order of timing.
        observe: Called with a stage's name and the share of it that is done.

    Raises:
        UnprunableError: Nothing in the model can be removed.
    """
    choosers = choosers_of(profiler.dependencies, scores, limits, finer=finer)
    levels = levels_of(choosers)
    table = profile(profiler, levels, seed=seed, observe=observe)
    choices = choices_of(profiler.dependencies, profiler.terms, levels, additive=scores.additive)
    return Fit(original, profiler, choosers[0], choices, target, table, seed, observe).run()
