"""The widths that keep most of a model within a given time. Law: no layer may pay for all the others.

A group can stop at a few widths (`plan.levels`); each keeps a share of the importance of every layer in it. The plan
maximises the sum of the logarithms of those shares, every layer counted once: the plan with the largest geometric mean.
An arithmetic mean would let one slow layer lose nearly everything; in a product, what is left of a layer counts the
more the less it is. The share of all multiply-accumulates that stays counts as much as that mean (`MACS`): what is
maximised is their product. Layers that take little time for their work are kept wide then, and layers whose time buys
little work pay for it.

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

from onnxprune.latency import Price
from onnxprune.plan.levels import Choices

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MACS = 1.0  # weight of the share of multiply-accumulates beside the mean share of importance, both as logarithms
SLACK = 1e-9  # of a time: sums are rounded
TINY = 1e-6  # ms: less is no difference
SWEEPS = 20
WEIGHTS = 40  # multipliers tried on each way
PASSES = 2  # of single moves over all groups


@dataclass(frozen=True, eq=False)
class Work:
    """The milliseconds and the multiply-accumulates of widths, in one pass over the products of both.

    Attributes:
        price: Of milliseconds.
        rates: What one of each product costs: milliseconds, multiply-accumulates. Shape (2, products).
    """

    price: Price
    rates: Floats

    @staticmethod
    def of(price: Price) -> Work:
        """Of all products that cost or count anything."""
        rates = np.stack([price.ms, price.terms.macs])
        return Work(price, rates).part(np.asarray(rates.any(axis=0)))

    def part(self, products: NDArray[np.bool_]) -> Work:
        """Of some of the products alone."""
        return Work(self.price.part(products), self.rates[:, products])

    def total(self, widths: Floats) -> Floats:
        """Both for widths of shape (axes + 1, ...). Shape (2, ...)."""
        return np.asarray(np.tensordot(self.rates, self.price.terms.products(widths), axes=1))


@dataclass(eq=False)
class Search:
    """A search over levels. Arrays over levels have a row for each group, filled up behind its last level.

    Attributes:
        price: The time.
        choices: What can be chosen.
        chosen: Level of each group.
        widths: What these leave. Shape (axes + 1,).
        spent: Milliseconds and multiply-accumulates of those. Shape (2,).
        worth: Importance of every level, as in `Choices`. Shape (groups, levels).
        local: Per group, the work of the products that it changes.
        near: Per group, the groups whose work depends on its level.
        known: Work of every level, the other groups as they are. Shape (2, groups, levels).
        stale: Groups of which that is no longer so. Shape (groups,).
        macs: Weight of multiply-accumulates.
    """

    price: Price
    choices: Choices
    chosen: Ints
    widths: Floats
    spent: Floats
    worth: Floats
    local: Sequence[Work]
    near: Sequence[Ints]
    known: Floats
    stale: NDArray[np.bool_]
    macs: float

    @staticmethod
    def of(price: Price, choices: Choices, macs: float = MACS) -> Search:
        """A search that starts from the whole model."""
        groups, terms, work = len(choices.levels), price.terms, Work.of(price)
        widths = terms.dense + sum((c[:, 0] for c in choices.change), np.zeros(terms.dense.size))
        touched = np.stack([work.price.terms.touched(np.flatnonzero(c.any(axis=1))) for c in choices.change])
        local, both = [work.part(products) for products in touched], touched.astype(np.float32)
        worth = np.full((groups, max(v.size for v in choices.value)), -np.inf)
        for row, value in zip(worth, choices.value, strict=True):
            row[: value.size] = value
        known = np.stack([np.full(worth.shape, np.inf), np.zeros(worth.shape)])
        chosen, stale = np.zeros(groups, dtype=np.int64), np.ones(groups, dtype=bool)
        near = [np.flatnonzero(row) for row in both @ both.T > 0]
        layers = 0 if choices.additive else sum(choices.layers)
        return Search(
            price, choices, chosen, widths, work.total(widths), worth, local, near, known, stale, macs * layers
        )

    @property
    def total(self) -> float:
        """Milliseconds of what is chosen."""
        return float(self.spent[0])

    @property
    def importance(self) -> float:
        """Importance of what is chosen: the sum over layers of log(kept share)."""
        return float(self.worth[np.arange(self.chosen.size), self.chosen].sum())

    @property
    def value(self) -> float:
        """What the search maximises, up to a constant."""
        return self.importance + self.macs * float(np.log(max(self.spent[1], 1.0)))

    @property
    def kept(self) -> float:
        """Geometric mean over all layers of the share of importance that stays."""
        shares = [options[c].kept for options, c in zip(self.choices.levels, self.chosen, strict=True)]
        return float(np.exp(np.average(np.log(shares), weights=self.choices.layers)))

    def copy(self) -> Search:
        """The same choice, to go on from."""
        held = {name: getattr(self, name).copy() for name in ("chosen", "widths", "spent", "known", "stale")}
        return replace(self, **held)

    def refresh(self, groups: Ints) -> None:
        """Price the levels of these groups, where that is not known."""
        for g in groups[self.stale[groups]]:
            change = self.choices.change[g]
            others = self.widths - change[:, self.chosen[g]]
            self.known[:, g, : change.shape[1]] = self.local[g].total(others[:, None] + change)
            self.stale[g] = False

    def differences(self, groups: Ints) -> tuple[Floats, Floats]:
        """Milliseconds and value of each level of groups, less those of their present ones. Shapes (groups, levels).

        Beyond a group's last level, infinitely many milliseconds and nothing gained.
        """
        self.refresh(groups)
        now = self.chosen[groups][:, None]
        more, macs = (known[groups] - np.take_along_axis(known[groups], now, axis=1) for known in self.known)
        gain = self.worth[groups] - np.take_along_axis(self.worth[groups], now, axis=1)
        if self.macs:
            gain = gain + self.macs * np.log(np.maximum(1 + macs / max(self.spent[1], 1.0), TINY))
        return more, np.where(np.isfinite(more), gain, 0.0)

    def times(self, g: int) -> Floats:
        """Milliseconds of the products that group `g` touches, at each of its levels. Shape (levels,)."""
        self.refresh(np.array([g]))
        return np.asarray(self.known[0, g, : self.choices.change[g].shape[1]])

    def move(self, g: int, level: int) -> None:
        """Choose another level for a group."""
        now = self.chosen[g]
        if level == now:
            return
        self.refresh(np.array([g]))
        change = self.choices.change[g]
        self.spent = self.spent + self.known[:, g, level] - self.known[:, g, now]
        self.widths = self.widths + change[:, level] - change[:, now]
        self.chosen[g] = level
        others = self.near[g][self.near[g] != g]
        self.stale[others] = True

    def settle(self, weight: float) -> None:
        """Let the groups choose in turn, importance against `weight` x milliseconds, until none changes.

        An infinite weight asks for the least time. Of levels that cost the same the narrowest is taken: it costs
        nothing here, and may let others become cheaper.
        """
        for _ in range(SWEEPS):
            before = self.chosen.copy()
            for g in range(len(self.chosen)):
                more, gain = self.differences(np.array([g]))
                cost = more[0] - gain[0] / weight
                self.move(g, int(np.flatnonzero(cost <= cost.min() + SLACK * self.total)[-1]))
            if np.array_equal(before, self.chosen):
                return

    def spend(self, limit: float) -> None:
        """Widen groups while the time allows, the one first that gains most importance per millisecond."""
        while True:
            more, gain = self.differences(np.arange(self.chosen.size))
            rate = np.where((gain > 0) & (more <= limit - self.total), gain / np.maximum(more, TINY), 0.0)
            if rate.max() <= 0:
                return
            self.move(*self.at(rate.argmax()))

    def save(self, limit: float, spare: int = -1) -> bool:
        """Narrow groups until the time suffices, the one first that loses least importance per millisecond.

        Args:
            limit: Milliseconds.
            spare: A group that stays as it is.

        Returns:
            Whether it suffices.
        """
        others = np.arange(self.chosen.size)[:, None] != spare
        while self.total > limit:
            more, gain = self.differences(np.arange(self.chosen.size))
            rate = np.where((more < -TINY) & others, np.maximum(-gain, 0.0) / np.maximum(-more, TINY), np.inf)
            if not np.isfinite(rate.min()):
                return False
            self.move(*self.at(rate.argmin()))
        return True

    def at(self, place: np.intp) -> tuple[int, int]:
        """The group and the level at a place in an array of all levels."""
        g, level = np.unravel_index(place, self.worth.shape)
        return int(g), int(level)

    def improved(self, limit: float) -> Search:
        """The best choice found by moving one group a level up or down and letting the others make up for it."""
        best, every = self, np.arange(self.chosen.size)
        for _ in range(PASSES):
            before = best.value
            for g in np.argsort(best.differences(every)[0].min(axis=1)).tolist():
                for level in (best.chosen[g] - 1, best.chosen[g] + 1, 0):
                    if not 0 <= level < len(self.choices.value[g]) or level == best.chosen[g]:
                        continue
                    other = best.copy()
                    other.move(g, int(level))
                    if other.save(limit, g):
                        other.spend(limit)
                        best = max(best, other, key=lambda s: s.value)
            if best.value <= before + 1e-9:
                break
        return best


def fastest(whole: Search) -> Search:
    """The choice of least time, from a search that starts from the whole model."""
    found = whole.copy()
    found.settle(np.inf)
    found.spend(found.total * (1 + SLACK))
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
    more, gain = whole.differences(np.arange(whole.chosen.size))
    rates = gain[more < -TINY] / more[more < -TINY]
    positive = rates[rates > 0]
    return (float(positive.min()) / 10, float(positive.max()) * 10) if positive.size else (1e-3, 1e3)
