"""How a group may lose rows. Law: every array stays rectangular, whichever way is taken.

A grouped convolution, attention heads or a channel shuffle lay the channels of a group out in rows. Two ways keep them
rectangular: *equal* numbers from every row, or *whole* rows (whole convolution groups, whole heads). A `Way` says which
units go in any case and which go together; what is left to choose is counted in `counts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.labels import Ids, components
from onnxprune.trace import Dependencies, Group, Mask

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Counts = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Table:
    """A group's constraints, counted per unit (columns are the units in group order).

    Attributes:
        widths: Per source axis, how often each unit occurs. Shape (sources, units).
        fixed: Per source axis, indices that are not units of the group. Shape (sources,).
        floors: Per axis that must keep an index, whether each unit occurs. Shape (axes, units).
        rows: Per family: occurrences of each unit in each row, and members that stay: shapes (rows, units) and (rows,).
        inner: Per family: occurrences of each whole row among the members, where rows consist of smaller rows. Shapes
            (rows, whole rows).
        parents: Per family, the whole row each row is part of, or -1. Shapes (rows,).
        same: Per family, its members as places in the group (-1: no unit) where rows keep the same positions.
    """

    widths: Ints
    fixed: Ints
    floors: Ints
    rows: tuple[tuple[Counts, Ints], ...]
    inner: tuple[Counts, ...]
    parents: tuple[Ids, ...]
    same: tuple[Ids, ...]

    def left(self, f: int, gone: Mask, dead: Mask) -> Ints:
        """How many members each row of family `f` keeps when units and whole rows go. Shape (rows,)."""
        members, held = self.rows[f]
        stay = members @ ~gone + self.inner[f] @ ~dead
        return np.asarray(held + stay.astype(np.int64))


@dataclass(frozen=True, eq=False)
class Way:
    """One way for a group to lose channels.

    Attributes:
        name: 'equal' or 'whole'.
        bundle: Per unit, the bundle it goes with; -1 for a unit that stays, or goes in any case. Shape (units,).
        count: Number of bundles.
        gone: Per unit, whether it goes in any case. Shape (units,).
        full: Per bundle, whether it lies in a row and should stay: only whole rows go. Shape (bundles,).
        alive: Per family, the rows that are left. Shapes (rows,).
        held: Per family, the members of each row that are no units and stay. Shapes (rows,).
    """

    name: str
    bundle: Ids
    count: int
    gone: Mask
    full: Mask
    alive: tuple[Mask, ...]
    held: tuple[Ints, ...]


def tabulate(dependencies: Dependencies, groups: Sequence[Group]) -> list[Table]:
    """The constraints of every group."""
    owner, place = np.zeros((2, dependencies.unit_count), dtype=np.int64)
    for g, group in enumerate(groups):
        owner[group.units] = g
        place[group.units] = np.arange(group.units.size)
    axes: list[dict[bytes, Ids]] = [{} for _ in groups]
    for axis in dependencies.axes:
        units = choosable(dependencies, axis)
        owners = owner[units]
        g = int(np.bincount(owners, minlength=1).argmax())  # one group's index suffices where several share an axis
        axes[g].setdefault(units[owners == g].tobytes(), units[owners == g])
    return [table(dependencies, group, list(axes[g].values()), place) for g, group in enumerate(groups)]


def choosable(dependencies: Dependencies, axis: Ids) -> Ids:
    """The units that must not all go if an axis is to keep an index: a whole row goes when all its members do."""
    count, found = dependencies.unit_count, np.unique(axis)
    while True:
        rows = [dependencies.whole[row - count] for row in found[found >= count]]
        wide = np.unique(np.concatenate([found, *rows]))
        if wide.size == found.size:
            return wide[wide < count]
        found = wide


def table(dependencies: Dependencies, group: Group, axes: Sequence[Ids], place: Ids) -> Table:
    """The constraints of one group. `place` holds each unit's position in its group."""
    n, count = group.units.size, dependencies.unit_count
    numbers = np.unique(np.concatenate([np.zeros(0, np.int64), *(f.parents for f in group.rows)]))
    numbers = numbers[numbers >= 0]

    def tally(units: Ids) -> Ints:
        """How often each unit of the group occurs in an array of unit numbers."""
        return np.bincount(place[units[(units >= 0) & (units < count)]], minlength=n).astype(np.int64)

    def inner(units: Ids) -> Ints:
        """How often each whole row of the group occurs in an array of unit numbers."""
        return np.bincount(np.searchsorted(numbers, units[units >= count]), minlength=numbers.size).astype(np.int64)

    on_sources = [dependencies.unit[s.ids].ravel() for s in group.sources]
    floors = [np.minimum(tally(axis), 1) for axis in axes]
    return Table(
        widths=np.stack([tally(units) for units in on_sources]),
        fixed=np.array([(units < 0).sum() for units in on_sources], dtype=np.int64),
        floors=np.stack(floors) if floors else np.zeros((0, n), dtype=np.int64),
        rows=tuple((stacked(map(tally, f.members)), (f.members < 0).sum(axis=1)) for f in group.rows),
        inner=tuple(stacked(map(inner, f.members)) for f in group.rows),
        parents=tuple(np.where(f.parents >= 0, np.searchsorted(numbers, f.parents), -1) for f in group.rows),
        same=tuple(
            np.where((f.members >= 0) & (f.members < count), place[f.members], -1) for f in group.rows if f.same
        ),
    )


def stacked(rows: Iterable[Ints]) -> Counts:
    """Counts as a matrix of small floats, for which products are fast."""
    return np.stack(list(rows)).astype(np.float32)


def mean_of_bundles(way: Way, values: Floats | NDArray[np.bool_]) -> Floats:
    """The mean over the units of each bundle. Shape (bundles,)."""
    inside = way.bundle >= 0
    bundle = way.bundle[inside]
    totals = np.bincount(bundle, values[inside], minlength=way.count)
    return np.asarray(totals / np.bincount(bundle, minlength=way.count), dtype=np.float64)


def equal(table: Table) -> Way:
    """Equal numbers from every row; positions that all rows of a family share go together."""
    n = table.widths.shape[1]
    stays = np.zeros(n, dtype=bool)
    pairs = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for members in table.same:
        for position in members.T:
            units = position[position >= 0]
            stays[units] |= (position < 0).any()
            pairs.append((units[:-1], units[1:]))
    root = components(n, *(np.concatenate(side) for side in zip(*pairs, strict=True)))
    stuck = np.zeros(n, dtype=bool)
    stuck[root[stays]] = True
    free = ~stuck[root]
    bundle = np.full(n, -1, dtype=np.int64)
    bundle[free] = np.unique(root[free], return_inverse=True)[1]
    count = int(bundle.max(initial=-1)) + 1
    alive = tuple(np.ones(p.size, dtype=bool) for p in table.parents)
    inside = zip(table.rows, table.inner, strict=True)
    held = tuple((h + inner.sum(axis=1)).astype(np.int64) for (_, h), inner in inside)
    return Way("equal", bundle, count, np.zeros(n, dtype=bool), np.zeros(count, dtype=bool), alive, held)


@dataclass(frozen=True, eq=False)
class RowSet:
    """Whole rows of one kind, each with all that goes with it.

    Attributes:
        units: Per row, the units that go. Shape (rows, units), boolean.
        dead: Per row, the whole rows that go. Shape (rows, whole rows), boolean.
    """

    units: Mask
    dead: Mask


def row_sets(table: Table) -> list[RowSet]:
    """The kinds of whole rows: those that are rows of the same rectangles, and what each of them takes along."""
    links = [(p[p >= 0][:-1], p[p >= 0][1:]) for p in table.parents]
    if not any(a.size for a, _ in links):
        return []
    count = table.inner[0].shape[1]
    kind = components(count, *(np.concatenate(side) for side in zip(*links, strict=True)))
    found = []
    for k in np.unique(kind):
        rows = [closure(table, int(row)) for row in np.flatnonzero(kind == k)]
        distinct = list({r[0].tobytes(): r for r in rows if r is not None}.values())
        if len(distinct) > 1:
            found.append(RowSet(*(np.stack(side) for side in zip(*distinct, strict=True))))
    return found


def closure(table: Table, row: int) -> tuple[Mask, Mask] | None:
    """The units and whole rows that go when one goes: its members, and the rows left without a member by that."""
    gone, dead = np.zeros(table.widths.shape[1], dtype=bool), np.zeros(table.inner[0].shape[1], dtype=bool)
    dead[row] = True
    while True:
        size = int(dead.sum())
        for f, ((members, _), parents) in enumerate(zip(table.rows, table.parents, strict=True)):
            of_dead = (parents >= 0) & dead[parents]
            gone |= (members[of_dead] > 0).any(axis=0)
            dead |= (table.inner[f][of_dead] > 0).any(axis=0)
            empty = parents[table.left(f, gone, dead) == 0]
            if (empty < 0).any():
                return None  # a row that must stay would be left without a member
            dead[empty] = True
        if int(dead.sum()) == size:
            return gone, dead


def whole(
    table: Table, sets: Sequence[RowSet], scores: Floats, share: Floats, held: Mask, align: int = 1
) -> Way | None:
    """Whole rows, the least important of every kind; None when none would go.

    Args:
        table: The group's constraints.
        sets: Its kinds of whole rows.
        scores: Importance of each unit.
        share: How much of each unit should go; of a kind of rows goes the mean share of its units.
        held: Units that stay for certain, and their rows with them.
        align: Widths that change become multiples of this; the number of rows is the nearest that constraints allow.
    """
    most = max(rows.units.shape[0] for rows in sets)
    for shift in sorted(range(-most + 1, most), key=lambda n: (abs(n), n)):
        gone, dead = np.zeros(share.size, dtype=bool), np.zeros(sets[0].dead.shape[1], dtype=bool)
        for rows in sets:
            number = round(rows.units.shape[0] * float(share[rows.units.any(axis=0)].mean())) + shift
            for row in ranked(rows, scores, held)[: max(0, min(number, rows.units.shape[0] - 1))]:
                gone |= rows.units[row]
                dead |= rows.dead[row]
        if gone.any() and aligned(table, gone, align) and possible(table, gone, dead):
            return whole_way(table, sets, gone, dead)
    return None


def ranked(rows: RowSet, scores: Floats, held: Mask) -> list[int]:
    """The rows of one kind that may go, least important first."""
    importance = (rows.units * scores).sum(axis=1) / rows.units.sum(axis=1)
    order = np.argsort(importance, kind="stable")
    return [int(row) for row in order[~(rows.units[order] & held).any(axis=1)]]


def aligned(table: Table, gone: Mask, align: int) -> bool:
    """Whether every source axis keeps its width, or a multiple of `align`."""
    lost = table.widths[:, gone].sum(axis=1)
    left = table.widths.sum(axis=1) + table.fixed - lost
    return bool(((left % align == 0) | (lost == 0)).all())


def possible(table: Table, gone: Mask, dead: Mask) -> bool:
    """Whether every axis keeps an index, and no row but the dead ones is left without a member."""
    if not (table.floors @ ~gone).all():
        return False
    empty = [parents[table.left(f, gone, dead) == 0] for f, parents in enumerate(table.parents)]
    return all(bool((p >= 0).all() and dead[p].all()) for p in empty)


def rectangular(table: Table, way: Way, gone: Mask) -> bool:
    """Whether every axis keeps an index, and living rows equal numbers, when units go in a way."""
    lefts = [
        members[alive] @ ~gone + held[alive]
        for (members, _), held, alive in zip(table.rows, way.held, way.alive, strict=True)
    ]
    even = all(bool(left.size and left.min() == left.max() > 0) for left in lefts)
    return even and bool((table.floors @ ~gone).all())


def whole_way(table: Table, sets: Sequence[RowSet], gone: Mask, dead: Mask) -> Way:
    """The way in which these units, which make up whole rows, go."""
    in_rows = np.logical_or.reduce([rows.units.any(axis=0) for rows in sets])
    bundle = np.full(gone.size, -1, dtype=np.int64)
    bundle[~gone] = np.arange((~gone).sum())
    alive = tuple(table.left(f, gone, dead) > 0 for f in range(len(table.rows)))
    inside = zip(table.rows, table.inner, strict=True)
    held = tuple((h + inner @ ~dead).astype(np.int64) for (_, h), inner in inside)
    return Way("whole", bundle, int((~gone).sum()), gone, in_rows[~gone], alive, held)
