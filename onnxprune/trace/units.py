"""Solve the ties and read off units and groups. Law: a unit is what must go together, no more and no less."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.labels import Axes, Axis, Freeze, Ids, Ties, components
from onnxprune.model import Model
from onnxprune.rules import Rows
from onnxprune.rules.records import Records
from onnxprune.trace.dependencies import Dependencies, Family, Group, Mask, Source


@dataclass(frozen=True, eq=False)
class Walked:
    """What a walk over the nodes left.

    Attributes:
        model: The normalised model.
        labels: Tensor name -> labels.
        opened: Initializer -> its labels, in the order of first use.
        ties: Ids, ties and freezes.
        records: Rows, sources and costs.
    """

    model: Model
    labels: Mapping[str, Axes]
    opened: Mapping[str, Axes]
    ties: Ties
    records: Records


def collect(walked: Walked, *, free_groups: bool = False) -> Dependencies:
    """Solve the ties and read off units and groups.

    Args:
        walked: The result of a walk over all nodes.
        free_groups: Let no family keep the same positions in all its rows.
    """
    ties = walked.ties
    roots = settle(walked)
    crowded = np.zeros_like(roots) if free_groups else crowd(walked, roots)
    rows = [without_crowding(r, crowded) for r in proper_rows(walked, roots)]
    sources = find_sources(walked)
    produced = np.zeros(ties.count, dtype=bool)
    for source in sources:
        produced[roots[source.ids]] = True
    cause, parents = hold_rows(ties, rows, roots, produced)
    unit, count = number(roots, produced, cause, parents)
    whole = whole_rows(rows, unit, count, parents.size)
    return Dependencies(
        model=walked.model,
        labels=walked.labels,
        unit=unit,
        unit_count=count,
        whole=whole,
        cause=cause,
        freezes=ties.freezes,
        groups=find_groups(sources, [family(r, unit, count) for r in rows], unit, count, whole),
        held=[(s, held_reason(s, cause, ties.freezes)) for s in sources if (unit[s.ids] < 0).all()],
        sources=sources,
        products=walked.records.products,
        axes=distinct_axes(walked.labels, unit),
        through_norms=walked.records.through,
        mixed={name: [ids for _, ids in found] for name, found in walked.records.mixed.items()},
    )


def settle(walked: Walked) -> Ids:
    """Roots, once every rectangle in which some row can only go whole has only such rows.

    A row whose members are all tied to its parent keeps its width while it lives, so the others must keep it, too:
    normalised queries and keys, beside values of the same projection.
    """
    while True:
        roots = walked.ties.components()
        settled = True
        for rows in walked.records.rows:
            if rows.parents is None:
                continue
            tied = (roots[rows.ids] == roots[rows.parents][:, None]).all(axis=1)
            if tied.any() and not tied.all():
                walked.ties.tie(rows.ids, rows.parents[:, None])
                settled = False
        if settled:
            return roots


def proper_rows(walked: Walked, roots: Ids) -> list[Rows]:
    """The rows that are a constraint: not those whose members are all tied to their parent, which only go whole."""
    return [
        rows
        for rows in walked.records.rows
        if rows.parents is None or not (roots[rows.ids] == roots[rows.parents][:, None]).all()
    ]


def crowd(walked: Walked, roots: Ids) -> Ids:
    """Roots when every family that keeps the same positions in all its rows is tied position by position."""
    same = [rows.ids for rows in walked.records.rows if rows.same]
    pairs = [(ids.ravel(), np.broadcast_to(ids[0], ids.shape).ravel()) for ids in same]
    if not pairs:
        return roots
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return components(walked.ties.count, roots[a], roots[b])[roots]


def without_crowding(rows: Rows, crowded: Ids) -> Rows:
    """Rows that may keep different positions after all, where the same ones in every row leave nothing to choose.

    A channel shuffle between two grouped convolutions deals the positions of one to the groups of the other, so that
    keeping the same positions in both ties positions of one row to each other.
    """
    if rows.same and np.unique(crowded[rows.ids[0]]).size < rows.ids.shape[1]:
        return replace(rows, same=False)
    return rows


def hold_rows(ties: Ties, rows: Sequence[Rows], roots: Ids, produced: Mask) -> tuple[Ids, Ids]:
    """Freeze the whole rows of which some member must stay.

    Returns:
        Per id the cause it is frozen for, or -1; and the roots that stand for rows that may go whole.
    """
    withparents = [r for r in rows if r.parents is not None]
    while True:
        cause = ties.causes(roots)
        live = cause[roots] < 0
        parents = np.unique(np.concatenate([np.zeros(0, np.int64), *(roots[r.parents] for r in withparents)]))
        parents = parents[live[parents]]
        may_go = produced & live[: produced.size]
        may_go[parents] = True
        stuck = [(r, held) for r in withparents if (held := stuck_rows(r, roots, may_go)).size]
        for r, held in stuck:
            ties.freezes.append(Freeze("every row keeps some of its members", r.node, "", -1))
            ties.freeze(held, len(ties.freezes) - 1)
        if not stuck:
            return cause, parents


def stuck_rows(rows: Rows, roots: Ids, may_go: Mask) -> Ids:
    """The parents not frozen yet of rows that have a member that must stay, or that is the row itself."""
    assert rows.parents is not None
    own = roots[rows.parents]
    members = roots[rows.ids]
    fixed = ~may_go[members].all(axis=1) | (members == own[:, None]).any(axis=1)
    held: Ids = rows.parents[fixed & may_go[own]]
    return held


def number(roots: Ids, produced: Mask, cause: Ids, parents: Ids) -> tuple[Ids, int]:
    """Unit numbers per id (-1: stays) and the number of units that are not whole rows; those are numbered after."""
    is_row = np.zeros(roots.size, dtype=bool)
    is_row[parents] = True
    free = produced[roots] & (cause < 0) & ~is_row[roots]
    unit = np.full(roots.size, -1, dtype=np.int64)
    unit[free] = np.unique(roots[free], return_inverse=True)[1]
    count = int(unit.max(initial=-1)) + 1
    unit[is_row[roots]] = count + np.searchsorted(parents, roots[is_row[roots]])
    return unit, count


def whole_rows(rows: Sequence[Rows], unit: Ids, count: int, size: int) -> list[Ids]:
    """The members of every whole row, over all the rectangles it is a row of."""
    members: list[list[Ids]] = [[] for _ in range(size)]
    for r in rows:
        if r.parents is None:
            continue
        for row, parent in enumerate(unit[r.parents].tolist()):
            if parent >= count:
                members[parent - count].append(unit[r.ids[row]])
    return [np.unique(np.concatenate(parts)) for parts in members]


def family(rows: Rows, unit: Ids, count: int) -> Family:
    """Rows in unit numbers."""
    parents = np.full(rows.ids.shape[0], -1, np.int64) if rows.parents is None else unit[rows.parents]
    return Family(unit[rows.ids], np.where(parents >= count, parents, -1), rows.same)


def find_sources(walked: Walked) -> list[Source]:
    """Initializer axes that contractions named as sources."""
    reader: dict[int, str] = {}
    produced = np.zeros(walked.ties.count, dtype=bool)
    for ids, node in walked.records.sources:
        produced[ids] = True
        reader.setdefault(int(ids.ravel()[0]), node)
    found = []
    for name, axes in walked.opened.items():
        for k, axis in enumerate(axes):
            if axis.ids is not None and axis.ids.size and produced[axis.ids].any():
                found.append(Source(name, k, reader.get(int(axis.ids.ravel()[0]), name), axis.ids))
    return found


def held_reason(source: Source, cause: Ids, freezes: Sequence[Freeze]) -> Freeze:
    """Why a source keeps every filter: the reason met most often among its indices."""
    return main_reason(source, cause, freezes) or Freeze("nothing to remove", source.node, source.tensor, source.axis)


def main_reason(source: Source, cause: Ids, freezes: Sequence[Freeze]) -> Freeze | None:
    """The reason met most often among the indices of a source that must stay; None if none has one."""
    causes = cause[source.ids]
    causes = causes[causes >= 0]
    return freezes[int(np.bincount(causes).argmax())] if causes.size else None


def find_groups(
    sources: Sequence[Source], families: Sequence[Family], unit: Ids, count: int, whole: Sequence[Ids] = ()
) -> list[Group]:
    """Units that share a source, a family of rows or a whole row belong to one group."""
    if not count:
        return []
    total = count + len(whole)
    chains = [unit[s.ids].ravel() for s in sources] + [f.members.ravel() for f in families]
    chains = [u[u >= 0] for u in chains] + [np.append(members, count + i) for i, members in enumerate(whole)]
    pairs = [(c[:-1], c[1:]) for c in chains if c.size > 1]
    label = components(total, *(np.concatenate(p) for p in zip(*pairs, strict=True))) if pairs else np.arange(total)
    members: dict[int, list[Source]] = {}
    for source, chain in zip(sources, chains, strict=False):
        if chain.size:
            members.setdefault(int(label[chain[0]]), []).append(source)
    of_rows: dict[int, list[Family]] = {}
    for found_rows, chain in zip(families, chains[len(sources) :], strict=False):
        if chain.size:
            of_rows.setdefault(int(label[chain[0]]), []).append(found_rows)
    names = Counter(found[0].tensor for found in members.values())
    groups = []
    for key, found in members.items():
        first = found[0]
        name = first.tensor if names[first.tensor] == 1 else f"{first.tensor}:{first.axis}"
        groups.append(make_group(name, found, of_rows.get(key, []), unit, count))
    return groups


def make_group(name: str, sources: Sequence[Source], rows: Sequence[Family], unit: Ids, count: int) -> Group:
    """One group, its units in the order of the sources' indices."""
    every = np.concatenate([unit[s.ids].ravel() for s in sources])
    every = every[(every >= 0) & (every < count)]
    _, first = np.unique(every, return_index=True)
    distinct = {(f.shape, f.members.tobytes(), f.parents.tobytes(), f.same): f for f in rows}
    return Group(name, tuple(sources), every[np.sort(first)], tuple(distinct.values()))


def distinct_axes(labels: Mapping[str, Axes], unit: Ids) -> list[Ids]:
    """The distinct unit arrays of all axes that can shrink; equal label arrays are looked at once."""
    seen: set[int] = set()
    found: dict[bytes, Ids] = {}
    for axes in labels.values():
        for axis in axes:
            if not countable(axis) or id(axis.ids) in seen:
                continue
            seen.add(id(axis.ids))
            assert axis.ids is not None
            units = unit[axis.ids]
            if not axis.by and (units >= 0).all():  # rows have constraints of their own
                found.setdefault(units.tobytes(), units)
    return list(found.values())


def countable(axis: Axis) -> bool:
    """Whether an axis has labels, and any index."""
    return axis.ids is not None and axis.ids.size > 0
