"""What a group loses at a level. Law: of its channels the least important go, and its rows stay rectangular.

A ratio is the share of a group's channels removed. What it is at a level of the search is the allocation's matter
(`plan.allocation`, `plan.ranking`); which channels these are is decided here.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnxprune.cost import Cost, cost
from onnxprune.errors import PlanError, UnprunableError
from onnxprune.importance import Scores
from onnxprune.labels import Ids
from onnxprune.plan.allocation import Sharing, uniform
from onnxprune.plan.counts import Classes, classes_of, solve
from onnxprune.plan.document import GroupPlan, Plan, describe, fingerprint
from onnxprune.plan.ranking import comparable
from onnxprune.plan.rows import RowSet, Table, Way, equal, mean_of_bundles, rectangular, row_sets, tabulate, whole
from onnxprune.plan.target import Limits, Target
from onnxprune.trace import Dependencies, Group

Floats = NDArray[np.float64]
OUTPUT = "the model's output"
NEAR = 0.05  # a share of a group this near to what was asked is good enough not to look for another way
STEPS = 24  # bisections: the ratio is known to 2**-24, far below one channel


@dataclass(frozen=True, eq=False)
class Option:
    """A way for a group to lose channels, with what can be chosen in it.

    Attributes:
        way: Which units go together.
        classes: How many of each kind may go.
        norm: Scores of the bundles, relative to the group's mean. Shape (bundles,).
        order: Bundles, least important first.
    """

    way: Way
    classes: Classes
    norm: Floats
    order: Ids

    @cached_property
    def full(self) -> NDArray[np.bool_]:
        """Per class, whether it stays: its rows go whole."""
        found = np.zeros(self.classes.size.size, dtype=bool)
        found[self.classes.of[self.way.full]] = True
        return found


@dataclass(eq=False)
class Chooser:
    """The data a search works on. Without an allocation groups lose the same share."""

    dependencies: Dependencies
    scores: Scores
    limits: Limits
    allocation: Sharing | None = None
    groups: Sequence[Group] = field(init=False)
    made: dict[tuple[int, bytes], Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.groups = self.dependencies.groups
        self.sharing: Sharing = self.allocation or uniform(self.dependencies)
        self.forced = forced_ratios(self.dependencies, self.limits)
        self.unscored = [np.isin(group.units, self.scores.unscored) for group in self.groups]
        for ratios, unscored in zip(self.forced, self.unscored, strict=True):
            ratios[unscored] = 0.0
        none = np.zeros(self.dependencies.unit_count, dtype=bool)
        self.dead = [(none if self.scores.dead is None else self.scores.dead)[g.units] for g in self.groups]
        self.tables: list[Table] = tabulate(self.dependencies, self.groups)
        self.norm = [comparable(self.scores, self.scores.values[g.units]) for g in self.groups]
        self.equal = [self.option(g, equal(table)) for g, table in enumerate(self.tables)]
        self.sets: dict[int, list[RowSet]] = {}

    @property
    def ceiling(self) -> float:
        """The share of a group that may go at most."""
        return self.sharing.ceiling if self.limits.max_ratio is None else self.limits.max_ratio

    @cached_property
    def dense(self) -> Cost:
        """The cost of the dense model."""
        return cost(self.dependencies)

    def option(self, g: int, way: Way) -> Option:
        """What can be chosen in a way."""
        key = (g, way.name.encode() + way.gone.tobytes())
        if key not in self.made:
            norm = mean_of_bundles(way, self.norm[g])
            alive = mean_of_bundles(way, self.dead[g]) < 1
            order = np.lexsort((norm, alive))  # the dead first; equal ones in the order of their positions
            self.made[key] = Option(way, classes_of(self.tables[g], way), norm, order)
        return self.made[key]

    def options(self, g: int, share: Floats) -> Iterator[Option]:
        """The ways for group `g` to lose a share of each unit, the preferred one first.

        Equal numbers from every row lose least importance. But a runtime's convolutions want a group's width in whole
        steps, so where widths are aligned, convolution groups go whole.
        """
        by_groups = self.limits.rows == "whole" or (self.limits.align > 1 and bool(self.tables[g].same))
        found = self.whole(g, share) if by_groups else None
        if found is not None:
            yield found
        if self.limits.rows != "whole" or found is None:
            yield self.equal[g]
        if not by_groups and (found := self.whole(g, share)) is not None:
            yield found

    def whole(self, g: int, share: Floats) -> Option | None:
        """The way in which group `g` loses whole rows, if it has any and any should go."""
        if self.limits.rows == "equal":
            return None
        if g not in self.sets:
            self.sets[g] = row_sets(self.tables[g])
        if not self.sets[g]:
            return None
        held = self.kept(g)
        way = whole(self.tables[g], self.sets[g], self.norm[g], share, held, self.limits.align)
        return None if way is None else self.option(g, way)

    def share(self, g: int, level: float) -> Floats:
        """How much of each unit of group `g` should go at a level; the dead ones take it before all others."""
        share = np.where(np.isnan(self.forced[g]), self.sharing.share(g, level), self.forced[g])
        return dead_first(share, self.dead[g] & ~self.kept(g))

    def kept(self, g: int) -> NDArray[np.bool_]:
        """The units of group `g` that stay for certain. Shape (units,)."""
        held: NDArray[np.bool_] = self.forced[g] == 0.0
        return held | ~self.dead[g] if self.scores.only_dead else held

    def group(self, g: int, level: float) -> tuple[Ids, str]:
        """Removed positions of a group at a level, and a note: the first way that comes near the share, or the best."""
        if (self.forced[g] == 0.0).all():
            return np.zeros(0, dtype=np.int64), self.scores.why if self.unscored[g].all() else "kept whole as asked"
        if self.kept(g).all():
            return np.zeros(0, dtype=np.int64), ""
        share, best = self.share(g, level), None
        ratio = min(float(share.mean()), self.ceiling)
        for option in self.options(g, np.minimum(share, self.ceiling)):
            positions, note = self.positions(g, option, share)
            miss = abs(positions.size / self.groups[g].units.size - ratio)
            if best is None or miss < best[0]:
                best = miss, positions, note
            if miss <= (0.0 if self.scores.only_dead else NEAR):
                break
        assert best is not None
        return best[1], best[2]

    def positions(self, g: int, option: Option, share: Floats) -> tuple[Ids, str]:
        """Removed positions of a group in one way, and a note."""
        way, classes, order = option.way, option.classes, option.order
        keep, note = solve(classes, *self.wanted(g, option, share), self.limits.align)
        surplus = classes.size - keep
        if note and way.gone.any():
            return np.zeros(0, dtype=np.int64), note
        gone = np.zeros(way.count + 1, dtype=bool)  # the last entry is for units in no bundle
        for c, n in enumerate(surplus.tolist()):
            gone[order[classes.of[order] == c][:n]] = True
        lost = gone[way.bundle] | way.gone
        if not rectangular(self.tables[g], way, lost):  # no solver is trusted with the user's model
            return np.zeros(0, dtype=np.int64), "left whole: its rows would not stay rectangular"
        return np.flatnonzero(lost), note

    def wanted(self, g: int, option: Option, share: Floats) -> tuple[Floats, Ids]:
        """Bundles of each class that group `g` should keep, and those it must."""
        classes, way = option.classes, option.way
        kinds = classes.size.size
        each = mean_of_bundles(way, share)
        exact = np.bincount(classes.of, 1.0 - each, minlength=kinds)
        if self.limits.align == 1 and kinds == 1:
            # Li et al. remove ceil(c r) of c; the slack absorbs binary rounding of c (1 - r). Narrow rows would lose
            # far more than was asked if each were rounded down.
            exact = np.floor(exact + 1e-9)
        least = np.ceil(classes.size * (1 - self.ceiling) - 1e-9).astype(np.int64)
        held = np.bincount(classes.of, mean_of_bundles(way, self.forced[g] == 0.0) > 0, minlength=kinds) > 0
        least = np.where(held, classes.size, least)
        if self.scores.only_dead:
            stay = np.bincount(classes.of, mean_of_bundles(way, self.kept(g)) > 0, minlength=kinds)
            least = exact = np.maximum(least, stay)
        return np.maximum(np.where(option.full, classes.size, exact), least), least

    def removal(self, level: float) -> list[tuple[Ids, str]]:
        """What every group loses at a level."""
        return [self.group(g, level) for g in range(len(self.groups))]

    def units(self, choice: Sequence[tuple[Ids, str]]) -> Ids:
        """Unit numbers of a choice."""
        parts = [g.units[positions] for g, (positions, _) in zip(self.groups, choice, strict=True)]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def dead_first(share: Floats, dead: NDArray[np.bool_]) -> Floats:
    """Shares that the dead units take before all others: as many go in all, or all of the dead if these are more.

    Args:
        share: How much of each unit should go. Shape (units,).
        dead: Which units nothing depends on. Shape (units,).
    """
    if not dead.any():
        return share
    others = float(share[~dead].sum())
    left = max(0.0, float(share.sum()) - int(dead.sum()))
    return np.where(dead, 1.0, share * (left / others if others else 0.0))


def forced_ratios(dependencies: Dependencies, limits: Limits) -> list[Floats]:
    """The ratio the user gave each unit of each group, by the layers it belongs to; NaN where none was given.

    Raises:
        PlanError: A glob matches nothing.
    """
    groups = dependencies.groups
    forced = [np.full(g.units.size, np.nan) for g in groups]
    for glob, ratio in [*limits.layer_ratios, *((s, 0.0) for s in limits.skip)]:
        found = False
        for group, ratios in zip(groups, forced, strict=True):
            for source in group.sources:
                names = (source.tensor, source.node, f"{source.tensor}:{source.axis}")
                if any(n == glob or fnmatchcase(n, glob) for n in names):
                    ratios[np.isin(group.units, dependencies.unit[source.ids])] = ratio
                    found = True
        if not found:
            every = [n for g in groups for s in g.sources for n in (s.tensor, s.node)]
            near = difflib.get_close_matches(glob, every, n=3, cutoff=0.0)
            raise PlanError(f"'{glob}' matches no prunable layer", remedy=f"names look like: {', '.join(near)}")
    return forced


def chooser_of(
    dependencies: Dependencies, scores: Scores, limits: Limits, allocation: Sharing | None = None
) -> Chooser:
    """The data of a search.

    Raises:
        UnprunableError: Nothing in the model can be removed.
    """
    if not dependencies.groups:
        raise UnprunableError(nothing_to_prune(dependencies), remedy="see 'onnxprune inspect' for every reason")
    return Chooser(dependencies, scores, limits, allocation)


def assemble(chooser: Chooser, target: Target, choice: Sequence[tuple[Ids, str]]) -> Plan:
    """The plan that removes these positions of every group, with a note each."""
    dependencies = chooser.dependencies
    groups = tuple(
        GroupPlan(g.name, describe(g.sources), int(g.units.size), tuple(int(p) for p in positions), note)
        for g, (positions, note) in zip(dependencies.groups, choice, strict=True)
    )
    settings = {
        **{k: v for k, v in asdict(target).items() if v is not None},
        **{k: v for k, v in asdict(chooser.limits).items() if v not in (None, (), False)},
        "criterion": chooser.scores.criterion,
        **chooser.scores.settings,
        **({"allocate": chooser.allocation.name} if chooser.allocation else {}),
        **({"dead": True} if chooser.scores.dead is not None else {}),
        **({"through_norms": True} if dependencies.through_norms else {}),
    }
    return Plan(fingerprint(dependencies.model), settings, groups)


def nothing_to_prune(dependencies: Dependencies) -> str:
    """Why a model has no groups: what holds its layers, and the operators no rule describes."""
    held = [f for _, f in dependencies.held]
    unknown = sorted({f.reason.rsplit(" ", 1)[-1] for f in dependencies.freezes if f.reason.startswith("no rule")})
    parts = [f"operators without a rule: {', '.join(unknown[:5])}"] if unknown else []
    if held:
        reasons = Counter(f.reason for f in held if f.reason != OUTPUT) or Counter([OUTPUT])
        reason = reasons.most_common(1)[0][0]
        node = next((f.node for f in held if f.reason == reason), "")
        where = f" (first at node '{node}')" if node else ""
        many = f"{len(held)} layers are held, most often because of"
        layers = many if len(held) > 1 else "1 layer is held because of"
        parts.insert(0, f"{layers}: {reason}{where}")
    elif not unknown:
        parts.append("the graph has no Conv, Gemm or MatMul with stored weights")
    return "nothing can be pruned: " + "; ".join(parts)
