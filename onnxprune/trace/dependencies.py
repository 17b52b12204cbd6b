"""What a trace finds: units, the groups they are ranked in, and reasons for what must stay.

Law: what `keep` leaves of a removal is what the rewriter writes; a whole row goes exactly when all its members go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.graph import every_node
from onnxprune.labels import Axes, Freeze, Ids
from onnxprune.model import Model
from onnxprune.rules import Product
from onnxprune.rules.integers import Meaning, meanings

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Source:
    """A weight axis that produces channels.

    Attributes:
        tensor: Initializer name.
        axis: Its filter axis.
        node: The node that reads it.
        ids: Labels of the axis, in its own order (shape (blocks, width) where the axis counts within blocks).
    """

    tensor: str
    axis: int
    node: str
    ids: Ids


@dataclass(frozen=True, eq=False)
class Family:
    """Rows of one rectangle. Living rows keep equal numbers; a row may go whole where it has a parent.

    Attributes:
        members: Unit numbers, -1 where the index cannot be removed. Shape (rows, width).
        parents: Units that stand for whole rows, -1 where the row stays. Shape (rows,).
        same: Whether all rows keep the same positions, so that one list of indices tells what they lost.
    """

    members: Ids
    parents: Ids
    same: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and their width."""
        return self.members.shape[0], self.members.shape[1]


@dataclass(frozen=True, eq=False)
class Group:
    """Units whose sources are coupled; they are ranked against each other.

    Attributes:
        name: The first source's tensor (with its axis where another group begins with the same tensor).
        sources: The weight axes whose filters are removed together.
        units: Unit numbers, in the order of the sources' indices; a plan's positions index this array. Units that stand
            for whole rows are not among them: they follow from their members.
        rows: What must stay rectangular.
    """

    name: str
    sources: tuple[Source, ...]
    units: Ids
    rows: tuple[Family, ...]


@dataclass(frozen=True, eq=False)
class Dependencies:
    """Everything the later stages need to know about a graph.

    Attributes:
        model: The normalised model, in which readers of shared vectors have their own (see `sharing`).
        labels: Tensor name -> labels.
        unit: Per id, its unit number, or -1 where it cannot be removed. Shape (ids,). Numbers from `unit_count` on
            stand for whole rows.
        unit_count: Number of units that can be chosen.
        whole: Members of each whole row, as unit numbers: row `i` has unit `unit_count + i`.
        cause: Per id, the index into `freezes` of why it cannot be removed, or -1. Shape (ids,).
        freezes: Reasons.
        groups: What can be pruned.
        held: Sources of which no index can be removed, with the reason.
        sources: All sources.
        products: The contractions' costs.
        axes: Distinct unit arrays of all tensor axes, each of which must keep an index.
        through_norms: Whether operators that mix an axis with itself were traced through.
        mixed: Of those, the ones that mix channels which can go: first output -> ids of what is mixed.
    """

    model: Model
    labels: Mapping[str, Axes]
    unit: Ids
    unit_count: int
    whole: Sequence[Ids]
    cause: Ids
    freezes: Sequence[Freeze]
    groups: Sequence[Group]
    held: Sequence[tuple[Source, Freeze]]
    sources: Sequence[Source]
    products: Sequence[Product]
    axes: Sequence[Ids]
    through_norms: bool = False
    mixed: Mapping[str, Sequence[Ids]] = field(default_factory=dict)

    def gone(self, removed: Ids) -> Mask:
        """Boolean per unit for a set of removed units: True = removed. Whole rows follow from their members.

        Shape (unit_count + rows + 1,); the last entry, which -1 finds, is False.
        """
        gone = np.zeros(self.unit_count + len(self.whole) + 1, dtype=bool)
        gone[removed] = True
        gone[-1] = False
        rows = slice(self.unit_count, -1)
        while self.whole:  # rows of rows take a round for each level
            members, starts = self._whole_members
            found = np.logical_and.reduceat(gone[members], starts)
            if np.array_equal(found, gone[rows]):
                break
            gone[rows] = found
        return gone

    @cached_property
    def _whole_members(self) -> tuple[Ids, Ids]:
        """The members of all whole rows one after another, and where each row starts."""
        lengths = [members.size for members in self.whole]
        return np.concatenate(list(self.whole)), np.cumsum([0, *lengths[:-1]])

    @cached_property
    def owner(self) -> Ids:
        """Per unit, the number of its group; -1 for none. Shape (unit_count + rows + 1,), as of `gone`."""
        found = np.full(self.unit_count + len(self.whole) + 1, -1, dtype=np.int64)
        for number, group in enumerate(self.groups):
            for units in (group.units, *(rows.parents for rows in group.rows)):
                found[units] = number
        found[-1] = -1  # written by parents that are none
        return found

    @cached_property
    def meanings(self) -> Mapping[str, Meaning]:
        """Initializer -> what its integers stand for."""
        return meanings(self.model)

    def keep(self, removed: Ids) -> Mask:
        """Boolean array over ids for a set of removed unit numbers: True = kept."""
        kept: Mask = ~self.gone(removed)[self.unit]
        return kept

    def approximate(self, keep: Mask | None = None) -> tuple[onnx.NodeProto, ...]:
        """The nodes that compute something else once channels are gone, because they mix them with each other.

        Args:
            keep: Boolean array over ids; by default all that can lose a channel are given.
        """
        lost = self.unit >= 0 if keep is None else ~keep
        changed = {name for name, parts in self.mixed.items() if any(lost[ids].any() for ids in parts)}
        return tuple(node for node in every_node(self.model.proto.graph) if node.output and node.output[0] in changed)

    def why(self, name: str) -> list[Freeze]:
        """The distinct reasons that hold some axis of a tensor, in order of axis."""
        found = []
        for k, axis in enumerate(self.labels.get(name, ())):
            causes = {axis.cause} if axis.ids is None else set(np.unique(self.cause[axis.ids]).tolist())
            found += [(k, self.freezes[c]) for c in sorted(causes) if c >= 0]
        return [f for _, f in found]
