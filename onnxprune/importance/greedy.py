"""Scores that follow from what earlier layers lose. Law: a weight that reads a channel which is gone does not count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.importance.norms import by_filter, l1_norm
from onnxprune.importance.registry import Evidence, Floats, Scores, criterion
from onnxprune.labels import Ids
from onnxprune.trace import Dependencies, Group, Mask, Source


@criterion("l1-greedy", revises=True)
def l1_greedy(dependencies: Dependencies, evidence: Evidence) -> Scores:
    """Sum of absolute weights of each filter over the channels that earlier layers still have.

    From front to back, coupled layers are scored on what is left, and as many units as a provisional plan takes from
    them are gone for the layers behind: those with the smallest new scores; in groups with rows, what that plan takes.
    When nothing goes, these are the scores of l1, by which the provisional plan is made.

    Li et al. 2017, arXiv 1608.08710, section 3.3: pruning filters across multiple layers, the greedy strategy.
    """
    values, each = np.zeros(dependencies.unit_count), dict[Source, Floats]()
    planned = np.zeros(dependencies.unit_count, dtype=bool)
    planned[evidence.removed] = True
    gone = np.zeros(0, dtype=np.int64)
    for group in dependencies.groups:
        for sources in coupled(dependencies, group):
            found = by_filter(dependencies, l1_norm, sources, dependencies.keep(gone))
            units = units_of(dependencies, sources)
            values[units] = found.values[units]
            each |= found.filters
            lost = units[planned[units]] if group.rows else smallest(dependencies, sources, found.values, planned)
            gone = np.append(gone, lost)
    return Scores("", values, each)


def coupled(dependencies: Dependencies, group: Group) -> list[list[Source]]:
    """The layers of a group in order, those together that share units; rows alone hold the others in one group."""
    found: list[list[Source]] = []
    for source in group.sources:
        units = units_of(dependencies, [source])
        together = [part for part in found if np.isin(units, units_of(dependencies, part)).any()]
        apart = [part for part in found if part not in together]
        merged = [*(s for part in together for s in part), source]
        found = sorted([*apart, merged], key=lambda part: group.sources.index(part[0]))
    return found


def units_of(dependencies: Dependencies, sources: Sequence[Source]) -> Ids:
    """The units that layers have filters of, ascending."""
    units = np.unique(np.concatenate([dependencies.unit[source.ids].ravel() for source in sources]))
    return units[(units >= 0) & (units < dependencies.unit_count)]


def smallest(dependencies: Dependencies, sources: Sequence[Source], values: Floats, planned: Mask) -> Ids:
    """As many units as are planned to go, those with the smallest values among units of the same layers."""
    units = units_of(dependencies, sources)
    member = [np.isin(units, dependencies.unit[source.ids]) for source in sources]
    _, kind = np.unique(np.stack(member), axis=1, return_inverse=True)
    lost = []
    for k in range(int(kind.max()) + 1):
        mine = units[kind.ravel() == k]
        lost.append(mine[np.argsort(values[mine], kind="stable")[: int(planned[mine].sum())]])
    return np.concatenate(lost)
