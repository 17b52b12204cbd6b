"""The widths that keep most importance within a given time. Law: no layer may pay for all the others.

A group can stop at a few widths (`Level`); each keeps a share of the group's importance. The plan maximises the sum of
the logarithms of those shares, every layer counted once: the plan with the largest geometric mean. An arithmetic mean
would let one slow layer lose nearly everything; in a product, what is left of a layer counts the more the less it is.

The time is a function of all widths together (`latency.Price`): a convolution costs the product of what comes in and
what goes out, so the groups' costs are not a sum, as in a plain knapsack (HALP, Shen et al. 2022, arXiv 2110.10811,
equation 5). The time is weighed against importance with a Lagrange multiplier; for each multiplier the groups choose in
turn, given the others, until none changes; bisection finds the multiplier that meets the time. Widths are few, so the
plans that this finds on either side jump over the time: each is trimmed to it where it loses least importance per
millisecond, what time is left is spent where it gains most, and the best of them is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.importance import Scores
from onnxprune.labels import Ids
from onnxprune.latency import Price
from onnxprune.latency.terms import axis_width
from onnxprune.plan.choose import Chooser, chooser_of
from onnxprune.plan.target import Limits
from onnxprune.trace import Dependencies

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVELS = 16  # widths tried of one group
NARROW = 3  # groups of fewer steps than this may also stop at half a step
SWEEPS = 20
BISECTIONS = 30
REPAIRED = 4  # plans of the bisection, the nearest to the time, that are trimmed and spent
SLACK = 1e-9  # of the time: sums are rounded


@dataclass(frozen=True, eq=False)
class Level:
    """One width of one group.

    Attributes:
        removed: Positions that go.
        kept: Share of the group's importance that stays, in (0, 1].
        note: What the planner has to say.
    """

    removed: Ids
    kept: float
    note: str


@dataclass(frozen=True, eq=False)
class Choices:
    """What every group can choose from.

    Attributes:
        levels: Per group its levels, the widest first.
        change: Per group, what each level changes on every axis of the price. Shapes (axes + 1, levels).
        layers: Per group, the layers whose filters go together.
        value: Per group, the importance of each level: layers x log(kept share). Shapes (levels,).
    """

    levels: Sequence[Sequence[Level]]
    change: Sequence[Floats]
    layers: Sequence[int]
    value: Sequence[Floats]


def choosers_of(dependencies: Dependencies, scores: Scores, limits: Limits, *, finer: bool) -> list[Chooser]:
    """Choosers at the alignment of the limits, and at half of it if narrow groups may stop there, too.

    Layers compete for the time whatever the scope, so every group is offered widths by its own ranking.

    Raises:
        UnprunableError: Nothing in the model can be removed.
    """
    steps = [limits.align] + ([limits.align // 2] if finer and limits.align > 1 else [])
    own = limits if limits.scope == "local" else replace(limits, scope="local", max_ratio=limits.ceiling)
    return [chooser_of(dependencies, scores, replace(own, align=step)) for step in steps]


def levels_of(choosers: Sequence[Chooser], g: int) -> list[Level]:
    """The widths at which a group can stop, the widest first; choosers differ in alignment, the coarsest first."""
    group = choosers[0].groups[g]
    values = choosers[0].norm[g]
    found: dict[bytes, Level] = {}
    for chooser in choosers:
        steps = group.units.size / chooser.limits.align
        if chooser is not choosers[0] and steps >= NARROW * choosers[0].limits.align / chooser.limits.align:
            continue
        for share in shares(group.units.size, chooser.limits.align):
            removed, note = chooser.group(g, share)
            kept = 1.0 - float(values[removed].sum() / values.sum())
            if removed.size < group.units.size and kept > 0:
                found.setdefault(np.sort(removed).tobytes(), Level(np.sort(removed), kept, note))
    return sorted(found.values(), key=lambda level: level.removed.size)


def shares(size: int, align: int) -> list[float]:
    """Shares of a group to try: none, and what leaves each multiple of the alignment, or as many spread over them."""
    kept = np.arange(0, size, align)[::-1]
    if kept.size > LEVELS:
        kept = kept[np.unique(np.round(np.linspace(0, kept.size - 1, LEVELS)).astype(np.int64))]
    return [0.0, *(1.0 - kept / size).tolist()]


def changes(dependencies: Dependencies, price: Price, levels: Sequence[Sequence[Level]]) -> list[Floats]:
    """What each level of each group changes on every axis. Shapes (axes + 1, levels)."""
    terms, found = price.terms, []
    units = [np.unique(dependencies.unit[ids]) for ids in terms.axes]
    for group, options in zip(dependencies.groups, levels, strict=True):
        change = np.zeros((terms.dense.size, len(options)))
        mine = np.zeros(dependencies.unit_count + len(dependencies.whole) + 1, dtype=bool)
        mine[group.units] = True
        mine[dependencies.unit_count : -1] = True  # whole rows follow from their members
        touched = [a for a, found_units in enumerate(units) if mine[found_units].any()]
        for column, level in enumerate(options):
            keep = dependencies.keep(group.units[level.removed])
            for a in touched:
                change[a, column] = axis_width(terms.axes[a], bool(terms.counts[a]), keep) - terms.dense[a]
        found.append(change)
    return found


def choices_of(dependencies: Dependencies, price: Price, levels: Sequence[Sequence[Level]]) -> Choices:
    """Everything the search needs."""
    layers = [len(group.sources) for group in dependencies.groups]
    value = [n * np.log([level.kept for level in options]) for n, options in zip(layers, levels, strict=True)]
    return Choices(levels, changes(dependencies, price, levels), layers, value)


@dataclass(eq=False)
class Search:
    """A search over levels.

    Attributes:
        price: The time.
        choices: What can be chosen.
        chosen: Level of each group.
        widths: What these leave. Shape (axes + 1,).
        local: Per group, the price of the products that it changes.
    """

    price: Price
    choices: Choices
    chosen: Ints
    widths: Floats
    local: Sequence[Price]

    @staticmethod
    def of(price: Price, choices: Choices) -> Search:
        """A search that starts from the whole model."""
        chosen = np.zeros(len(choices.levels), dtype=np.int64)
        widths = price.terms.dense + sum((c[:, 0] for c in choices.change), np.zeros(price.terms.dense.size))
        local = [price.touching(np.flatnonzero(c.any(axis=1))) for c in choices.change]
        return Search(price, choices, chosen, widths, local)

    @property
    def total(self) -> float:
        """Milliseconds of what is chosen."""
        return float(self.price.total(self.widths))

    @property
    def value(self) -> float:
        """Importance of what is chosen."""
        return float(sum(v[c] for v, c in zip(self.choices.value, self.chosen, strict=True)))

    @property
    def kept(self) -> float:
        """Geometric mean over all layers of the share of importance that stays."""
        return float(np.exp(self.value / max(1, sum(self.choices.layers))))

    def copy(self) -> Search:
        """The same choice, to go on from."""
        return Search(self.price, self.choices, self.chosen.copy(), self.widths.copy(), self.local)

    def times(self, g: int) -> Floats:
        """Milliseconds of the products that group `g` touches, at each of its levels. Shape (levels,)."""
        change = self.choices.change[g]
        others = self.widths - change[:, self.chosen[g]]
        return self.local[g].total(others[:, None] + change)

    def move(self, g: int, level: int) -> None:
        """Choose another level for a group."""
        change = self.choices.change[g]
        self.widths = self.widths + change[:, level] - change[:, self.chosen[g]]
        self.chosen[g] = level

    def settle(self, weight: float) -> None:
        """Let the groups choose in turn, importance against `weight` x milliseconds, until none changes.

        An infinite weight asks for the least time.
        """
        for _ in range(SWEEPS):
            before = self.chosen.copy()
            for g, value in enumerate(self.choices.value):
                times = self.times(g)
                loss = times - value / weight if weight > 0 else -value
                self.move(g, int(np.argmin(loss)))
            if np.array_equal(before, self.chosen):
                return

    def spend(self, limit: float) -> None:
        """Widen groups while the time allows, the one first that gains most importance per millisecond."""
        while (left := limit - self.total) >= 0:
            best = (0.0, -1, -1)
            for g, more, gain in self.moves():
                rate = np.where((gain > 0) & (more <= left), gain / np.maximum(more, 1e-6), 0.0)
                best = max(best, (float(rate.max()), g, int(rate.argmax())))
            if best[0] <= 0:
                return
            self.move(best[1], best[2])

    def trim(self, limit: float) -> None:
        """Narrow groups until the time is met or nothing helps, the one first that loses least per millisecond."""
        while (excess := self.total - limit) > 0:
            best = (np.inf, -1, -1)
            for g, more, gain in self.moves():
                saved = np.minimum(-more, excess)
                rate = np.where(more < -SLACK * limit, -gain / np.maximum(saved, 1e-12), np.inf)
                best = min(best, (float(rate.min()), g, int(rate.argmin())))
            if best[1] < 0:
                return
            self.move(best[1], best[2])

    def moves(self) -> Iterator[tuple[int, Floats, Floats]]:
        """Per group, what each of its levels takes more time and keeps more importance than what is chosen."""
        for g, value in enumerate(self.choices.value):
            times, chosen = self.times(g), self.chosen[g]
            yield g, times - times[chosen], value - value[chosen]


def fastest(price: Price, choices: Choices) -> Search:
    """The choice of least time."""
    found = Search.of(price, choices)
    found.settle(np.inf)
    return found


def within(price: Price, choices: Choices, limit: float) -> Search | None:
    """The choice that keeps most importance in at most `limit` milliseconds; None when none is that fast."""
    limit *= 1 + SLACK
    least = fastest(price, choices)
    if least.total > limit:
        return None
    found = [least, *(repaired(search, limit) for search in around(price, choices, limit))]
    least.spend(limit)
    return max((search for search in found if search.total <= limit), key=lambda search: search.value)


def around(price: Price, choices: Choices, limit: float) -> list[Search]:
    """What the multipliers that come nearest to a time choose; some of it takes longer."""
    low, high = 1e-6, 1e6  # importance per millisecond
    search, seen = Search.of(price, choices), dict[bytes, Search]()
    for _ in range(BISECTIONS):
        weight = float(np.sqrt(low * high))
        search.settle(weight)
        seen[search.chosen.tobytes()] = search.copy()
        if search.total <= limit:
            high = weight
        else:
            low = weight
    whole = Search.of(price, choices)
    return [whole, *sorted(seen.values(), key=lambda found: abs(found.total - limit))[:REPAIRED]]


def repaired(search: Search, limit: float) -> Search:
    """A choice brought into the time, with no time left that would do any good."""
    search.trim(limit)
    search.spend(limit)
    return search
