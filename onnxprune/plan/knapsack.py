"""The widths that keep most importance within a given time. Law: no layer may pay for all the others.

A group can stop at a few widths (`Level`); each keeps a share of the group's importance. The plan maximises the sum of
the logarithms of those shares, every layer counted once: the plan with the largest geometric mean. An arithmetic mean
would let one slow layer lose nearly everything; in a product, what is left of a layer counts the more the less it is.

The time is a function of all widths together (`latency.Price`): a convolution costs the product of what comes in and
what goes out, so the groups' costs are not a sum, as in a plain knapsack (HALP, Shen et al. 2022, arXiv 2110.10811,
equation 5). The time is weighed against importance with a Lagrange multiplier; for each multiplier the groups choose in
turn, given the others, until none changes. The multiplier rises from the whole model and falls from the fastest one:
the groups' choices depend on each other, so the two ways differ, and the better one counts. A multiplier passes over
choices that lie inside the convex hull, so single groups are then moved against the others: a move that costs too much
is paid for by narrowing the groups that lose least importance per millisecond, time that is left is spent on those that
gain most, and the move stays if importance grew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.importance import Scores
from onnxprune.labels import Ids
from onnxprune.latency import Price, Terms
from onnxprune.latency.terms import axis_width
from onnxprune.plan.choose import Chooser, chooser_of
from onnxprune.plan.target import Limits
from onnxprune.trace import Dependencies, Group

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVELS = 16  # widths tried of one group
SLACK = 1e-9  # of a time: sums are rounded
TINY = 1e-6  # ms: less is no difference
NARROW = 3  # groups with a layer of fewer steps than this may also stop at parts of a step
FINER = (2, 4)  # those parts; quarters for less than one step only
SWEEPS = 20
WEIGHTS = 40  # multipliers tried on each way
PASSES = 2  # of single moves over all groups


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
        change: Per group, what each level changes on every axis of the terms. Shapes (axes + 1, levels).
        layers: Per group, the layers whose filters go together.
        value: Per group, the importance of each level: layers x log(kept share). Shapes (levels,).
    """

    levels: Sequence[Sequence[Level]]
    change: Sequence[Floats]
    layers: Sequence[int]
    value: Sequence[Floats]


def choosers_of(dependencies: Dependencies, scores: Scores, limits: Limits, *, finer: bool) -> list[Chooser]:
    """Choosers at the alignment of the limits, and at parts of it if narrow groups may stop there, too.

    Layers compete for the time whatever the scope, so every group is offered widths by its own ranking.

    Raises:
        UnprunableError: Nothing in the model can be removed.
    """
    own = limits if limits.scope == "local" else replace(limits, scope="local", max_ratio=limits.ceiling)
    whole = chooser_of(dependencies, scores, own)
    narrow = finer and any(narrowest(group) < NARROW * limits.align for group in whole.groups)
    parts = [limits.align // part for part in FINER if narrow and limits.align % part == 0]
    return [whole, *(chooser_of(dependencies, scores, replace(own, align=step)) for step in parts)]


def narrowest(group: Group) -> int:
    """Width of the narrowest layer of a group."""
    return min(source.ids.size for source in group.sources)


def levels_of(choosers: Sequence[Chooser]) -> list[list[Level]]:
    """The levels of every group; choosers differ in alignment, the coarsest first."""
    return [group_levels(choosers, g) for g in range(len(choosers[0].groups))]


def group_levels(choosers: Sequence[Chooser], g: int) -> list[Level]:
    """The widths at which a group can stop, the widest first."""
    group, values, step = choosers[0].groups[g], choosers[0].norm[g], choosers[0].limits.align
    size, least = group.units.size, narrowest(group)
    found: dict[bytes, Level] = {}
    for chooser in choosers:
        part = step // chooser.limits.align
        if part > 1 and least >= NARROW * step:
            continue
        for share in shares(size, chooser.limits.align):
            if part > FINER[0] and least * (1 - share) >= step:
                continue
            removed, note = chooser.group(g, share)
            kept = 1.0 - float(values[removed].sum() / values.sum())
            if removed.size < size and kept > 0:
                found.setdefault(np.sort(removed).tobytes(), Level(np.sort(removed), kept, note))
    return sorted(found.values(), key=lambda level: level.removed.size)


def shares(size: int, align: int) -> list[float]:
    """Shares of a group to try: none, and what leaves each multiple of the alignment, or as many spread over them."""
    kept = np.arange(0, size, align)[::-1]
    if kept.size > LEVELS:
        kept = kept[np.unique(np.round(np.linspace(0, kept.size - 1, LEVELS)).astype(np.int64))]
    return [0.0, *(1.0 - kept / size).tolist()]


def changes(dependencies: Dependencies, terms: Terms, levels: Sequence[Sequence[Level]]) -> list[Floats]:
    """What each level of each group changes on every axis. Shapes (axes + 1, levels)."""
    found = []
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


def choices_of(dependencies: Dependencies, terms: Terms, levels: Sequence[Sequence[Level]]) -> Choices:
    """Everything the search needs."""
    layers = [len(group.sources) for group in dependencies.groups]
    value = [n * np.log([level.kept for level in options]) for n, options in zip(layers, levels, strict=True)]
    return Choices(levels, changes(dependencies, terms, levels), layers, value)


@dataclass(eq=False)
class Search:
    """A search over levels.

    Attributes:
        price: The time.
        choices: What can be chosen.
        chosen: Level of each group.
        widths: What these leave. Shape (axes + 1,).
        local: Per group, the price of the products that it changes.
        near: Per group, the groups whose times depend on its level.
        known: Per group, its times as far as they are known at present.
    """

    price: Price
    choices: Choices
    chosen: Ints
    widths: Floats
    local: Sequence[Price]
    near: Sequence[Ints]
    known: list[Floats | None]

    @staticmethod
    def of(price: Price, choices: Choices) -> Search:
        """A search that starts from the whole model."""
        chosen = np.zeros(len(choices.levels), dtype=np.int64)
        widths = price.terms.dense + sum((c[:, 0] for c in choices.change), np.zeros(price.terms.dense.size))
        touched = np.stack([price.touched(np.flatnonzero(c.any(axis=1))) for c in choices.change]).astype(np.float32)
        local = [price.part(products > 0) for products in touched]
        near = [np.flatnonzero(row) for row in touched @ touched.T > 0]
        return Search(price, choices, chosen, widths, local, near, [None] * len(local))

    @property
    def total(self) -> float:
        """Milliseconds of what is chosen."""
        return float(self.price.total(self.widths))

    @property
    def importance(self) -> float:
        """Importance of what is chosen: the sum over layers of log(kept share)."""
        return float(sum(v[c] for v, c in zip(self.choices.value, self.chosen, strict=True)))

    @property
    def value(self) -> float:
        """What the search maximises."""
        return self.importance

    @property
    def kept(self) -> float:
        """Geometric mean over all layers of the share of importance that stays."""
        return float(np.exp(self.importance / max(1, sum(self.choices.layers))))

    def copy(self) -> Search:
        """The same choice, to go on from."""
        return replace(self, chosen=self.chosen.copy(), widths=self.widths.copy(), known=list(self.known))

    def times(self, g: int) -> Floats:
        """Milliseconds of the products that group `g` touches, at each of its levels. Shape (levels,)."""
        found = self.known[g]
        if found is None:
            change = self.choices.change[g]
            others = self.widths - change[:, self.chosen[g]]
            found = self.known[g] = self.local[g].total(others[:, None] + change)
        return found

    def values(self, g: int) -> Floats:
        """What `value` gains of group `g` at each of its levels, up to a constant. Shape (levels,)."""
        return self.choices.value[g]

    def move(self, g: int, level: int) -> None:
        """Choose another level for a group."""
        if level == self.chosen[g]:
            return
        change = self.choices.change[g]
        self.widths = self.widths + change[:, level] - change[:, self.chosen[g]]
        self.chosen[g] = level
        for other in self.near[g]:
            self.known[other] = None

    def settle(self, weight: float) -> None:
        """Let the groups choose in turn, importance against `weight` x milliseconds, until none changes.

        An infinite weight asks for the least time.
        """
        for _ in range(SWEEPS):
            before = self.chosen.copy()
            for g in range(len(self.chosen)):
                self.move(g, int(np.argmin(self.times(g) - self.values(g) / weight)))
            if np.array_equal(before, self.chosen):
                return

    def spend(self, limit: float) -> None:
        """Widen groups while the time allows, the one first that gains most importance per millisecond."""
        while True:
            left, best = limit - self.total, (0.0, -1, -1)
            for g in range(len(self.chosen)):
                more, gain = self.differences(g)
                rate = np.where((gain > 0) & (more <= left), gain / np.maximum(more, TINY), 0.0)
                if rate.max() > best[0]:
                    best = float(rate.max()), g, int(rate.argmax())
            if best[1] < 0:
                return
            self.move(best[1], best[2])

    def save(self, limit: float, spare: int = -1) -> bool:
        """Narrow groups until the time suffices, the one first that loses least importance per millisecond.

        Args:
            limit: Milliseconds.
            spare: A group that stays as it is.

        Returns:
            Whether it suffices.
        """
        while self.total > limit:
            best = (np.inf, -1, -1)
            for g in range(len(self.chosen)):
                more, gain = self.differences(g)
                rate = np.where((more < -TINY) & (g != spare), np.maximum(-gain, 0.0) / np.maximum(-more, TINY), np.inf)
                if rate.min() < best[0]:
                    best = float(rate.min()), g, int(rate.argmin())
            if best[1] < 0:
                return False
            self.move(best[1], best[2])
        return True

    def differences(self, g: int) -> tuple[Floats, Floats]:
        """Milliseconds and importance of each level of a group, less those of its present one. Shapes (levels,)."""
        times, value, now = self.times(g), self.values(g), self.chosen[g]
        return times - times[now], value - value[now]

    def improved(self, limit: float) -> Search:
        """The best choice found by moving one group a level up or down and letting the others make up for it."""
        best = self
        for _ in range(PASSES):
            before = best.value
            for g in np.argsort(-np.abs([self.differences(g)[0].min() for g in range(len(self.chosen))])):
                for level in (best.chosen[g] - 1, best.chosen[g] + 1, 0):
                    if not 0 <= level < len(self.choices.value[g]) or level == best.chosen[g]:
                        continue
                    other = best.copy()
                    other.move(int(g), int(level))
                    if other.save(limit, int(g)):
                        other.spend(limit)
                        best = max(best, other, key=lambda s: s.value)
            if best.value <= before + 1e-9:
                break
        return best


def fastest(whole: Search) -> Search:
    """The choice of least time, from a search that starts from the whole model."""
    found = whole.copy()
    found.settle(np.inf)
    return found


def within(whole: Search, limit: float) -> Search | None:
    """The choice that keeps most importance in at most `limit` milliseconds; None when none is that fast.

    Args:
        whole: A search that starts from the whole model.
        limit: Milliseconds.
    """
    down, limit = fastest(whole), limit * (1 + SLACK)
    if down.total > limit:
        return None
    best, up = down.copy(), whole.copy()
    weights = np.geomspace(*multipliers(whole), WEIGHTS)
    for weight in weights:
        up.settle(float(weight))
        if up.total <= limit:
            best = max(best, up.copy(), key=lambda s: s.value)
            break
    for weight in weights[::-1]:
        down.settle(float(weight))
        if down.total > limit:
            break
        best = max(best, down.copy(), key=lambda s: s.value)
    best.spend(limit)
    return best.improved(limit)


def multipliers(whole: Search) -> tuple[float, float]:
    """The smallest and the largest multiplier that can matter: importance per millisecond of single groups' levels."""
    rates = []
    for g in range(len(whole.chosen)):
        more, gain = whole.differences(g)
        rates += (gain[more < -TINY] / more[more < -TINY]).tolist()
    positive = [rate for rate in rates if rate > 0]
    return (min(positive) / 10, max(positive) * 10) if positive else (1e-3, 1e3)
