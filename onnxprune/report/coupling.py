"""What couples and ranks groups, as data to draw. Law: an edge is a weight that reads one group and makes another.

Everything here is read off the traced labels: the units along the filter axis of a weight say whose channels it makes,
the units along its other axes say whose channels it reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.labels import Ids
from onnxprune.trace import Dependencies, Mask, Source

POINTS = 256  # scores kept of a group: more than a screen can show apart


@dataclass(frozen=True)
class Importance:
    """The scores of a group's units.

    Attributes:
        scores: Ascending, to six digits; of a group with more than 256 units, those at 256 evenly spaced ranks.
        kept: Which of them stay.
        share: Share of importance that stays; the geometric mean over the group's layers.
    """

    scores: tuple[float, ...]
    kept: tuple[bool, ...]
    share: float


@dataclass(frozen=True)
class Edge:
    """Channels of one group are read by a layer of another.

    Attributes:
        feeds: Name of the group whose channels are read.
        into: Name of the group the layer makes; of a layer that is held whole, its weight.
        held: Whether `into` is such a weight.
        layers: The weights that do so, in order.
    """

    feeds: str
    into: str
    held: bool
    layers: tuple[str, ...]


def importance(units: Ids, scores: NDArray[np.float64], gone: Mask, share: float) -> Importance:
    """Summarise the scores of one group.

    Args:
        units: Its unit numbers.
        scores: Per unit of the model. Shape (units,).
        gone: Per unit, whether it was removed.
        share: Of importance that stays, as `kept_share` has it.
    """
    own, stays = scores[units], ~gone[units]
    order = np.argsort(own, kind="stable")
    if order.size > POINTS:
        order = order[np.linspace(0, order.size - 1, POINTS).round().astype(np.int64)]
    shown = tuple(float(f"{value:.6g}") for value in own[order].tolist())
    return Importance(shown, tuple(stays[order].tolist()), share)


def edges(dependencies: Dependencies) -> tuple[Edge, ...]:
    """Which group feeds which, in the order of the layers; a group that feeds itself has no edge to itself."""
    owners = dependencies.owner
    names = [group.name for group in dependencies.groups]
    found: dict[tuple[str, str, bool], dict[str, None]] = {}
    for source in dependencies.sources:
        makes = owned(owners, dependencies.unit[source.ids])
        for feeding in read_by(dependencies, owners, source):
            for made in makes or [-1]:
                if made != feeding:
                    into = names[made] if made >= 0 else source.tensor
                    found.setdefault((names[feeding], into, made < 0), {})[source.tensor] = None
    return tuple(Edge(*ends, layers=tuple(layers)) for ends, layers in found.items())


def read_by(dependencies: Dependencies, owners: Ids, source: Source) -> list[int]:
    """The groups along the axes of a weight that are not its filters."""
    found: set[int] = set()
    for k, axis in enumerate(dependencies.labels.get(source.tensor, ())):
        if k != source.axis and axis.ids is not None:
            found.update(owned(owners, dependencies.unit[axis.ids]))
    return sorted(found)


def owned(owners: Ids, units: Ids) -> list[int]:
    """The groups that units belong to."""
    groups = np.unique(owners[units])
    return [int(g) for g in groups[groups >= 0]]
