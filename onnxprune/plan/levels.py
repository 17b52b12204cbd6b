"""The widths that a group can stop at, and what each changes. Law: the narrower, the less importance stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.importance import Scores, kept_share
from onnxprune.labels import Ids
from onnxprune.latency import Terms
from onnxprune.latency.terms import axis_width
from onnxprune.plan.choose import Chooser, chooser_of
from onnxprune.plan.target import Limits
from onnxprune.trace import Dependencies, Group

Floats = NDArray[np.float64]

LEVELS = 16  # widths tried of one group
NARROW = 3  # groups with a layer of fewer steps than this may also stop at parts of a step
FINER = (2, 4)  # those parts; quarters for less than one step only


@dataclass(frozen=True, eq=False)
class Level:
    """One width of one group.

    Attributes:
        removed: Positions that go.
        kept: Share of importance that stays, in (0, 1]; the geometric mean over the group's layers.
        worth: Importance as the search counts it: layers x log(kept); minus the scores removed, where these add up.
        note: What the planner has to say.
    """

    removed: Ids
    kept: float
    worth: float
    note: str


@dataclass(frozen=True, eq=False)
class Choices:
    """What every group can choose from.

    Attributes:
        levels: Per group its levels, the widest first.
        change: Per group, what each level changes on every axis of the terms. Shapes (axes + 1, levels).
        layers: Per group, the layers whose filters go together.
        value: Per group, what each level is worth. Shapes (levels,).
        additive: Whether that is minus an error, which the share of work that stays has no common scale with.
    """

    levels: Sequence[Sequence[Level]]
    change: Sequence[Floats]
    layers: Sequence[int]
    value: Sequence[Floats]
    additive: bool = False


def choosers_of(dependencies: Dependencies, scores: Scores, limits: Limits, *, finer: bool) -> list[Chooser]:
    """Choosers at the alignment of the limits, and at parts of it if narrow groups may stop there, too.

    Layers compete for the time, so every group is offered widths by its own ranking.

    Raises:
        UnprunableError: Nothing in the model can be removed.
    """
    whole = chooser_of(dependencies, scores, limits)
    narrow = finer and any(narrowest(group) < NARROW * limits.align for group in whole.groups)
    parts = [limits.align // part for part in FINER if narrow and limits.align % part == 0]
    return [whole, *(chooser_of(dependencies, scores, replace(limits, align=step)) for step in parts)]


def narrowest(group: Group) -> int:
    """Width of the narrowest layer of a group."""
    return min(source.ids.size for source in group.sources)


def levels_of(choosers: Sequence[Chooser], most: int = LEVELS) -> list[list[Level]]:
    """The levels of every group, about `most` of each; choosers differ in alignment, the coarsest first."""
    return [group_levels(choosers, g, most) for g in range(len(choosers[0].groups))]


def group_levels(choosers: Sequence[Chooser], g: int, most: int) -> list[Level]:
    """The widths at which a group can stop, the widest first."""
    group, step, dependencies = choosers[0].groups[g], choosers[0].limits.align, choosers[0].dependencies
    size, least = group.units.size, narrowest(group)
    found: dict[bytes, Level] = {}
    for chooser in choosers:
        part = step // chooser.limits.align
        if part > 1 and least >= NARROW * step:
            continue
        for share in shares(size, chooser.limits.align, most):
            if part > FINER[0] and least * (1 - share) >= step:
                continue
            removed, note = chooser.group(g, share)
            if removed.size < size and (key := np.sort(removed).tobytes()) not in found:
                kept = kept_share(dependencies, choosers[0].scores, group, dependencies.keep(group.units[removed]))
                found[key] = Level(np.sort(removed), kept, worth(choosers[0].scores, group, removed, kept), note)
    levels = (level for level in found.values() if level.kept > 0)
    return sorted(levels, key=lambda level: level.removed.size)


def worth(scores: Scores, group: Group, removed: Ids, kept: float) -> float:
    """What the search makes of a level."""
    if scores.additive:
        return -float(scores.values[group.units[removed]].sum())
    return len(group.sources) * float(np.log(max(kept, np.finfo(np.float64).tiny)))


def shares(size: int, align: int, most: int) -> list[float]:
    """Shares of a group to try: none, and what leaves each multiple of the alignment, or as many spread over them."""
    kept = np.arange(0, size, align)[::-1]
    if kept.size > most:
        kept = kept[np.unique(np.round(np.linspace(0, kept.size - 1, most)).astype(np.int64))]
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


def choices_of(
    dependencies: Dependencies, terms: Terms, levels: Sequence[Sequence[Level]], *, additive: bool = False
) -> Choices:
    """Everything the search needs."""
    layers = [len(group.sources) for group in dependencies.groups]
    value = [np.array([level.worth for level in options]) for options in levels]
    return Choices(levels, changes(dependencies, terms, levels), layers, value, additive)
