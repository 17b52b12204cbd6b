"""Integer labels for every index of every axis, and the ties between them. Knows numpy, not ONNX.

Law: two indices that carry tied ids are removed together or not at all. An `Axis` without ids is frozen, and so is one
longer than `LONGEST`: a few bytes of a file can ask for terabytes of labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
LONGEST = 2**22  # indices of one axis, 32 MiB of ids; the widest Flatten of a VGG has 25,088


@dataclass(frozen=True, eq=False)
class Axis:
    """The labels of one axis of one tensor.

    Attributes:
        ids: int64 array; the last dimension runs over the axis itself. None: the axis is frozen, of any size.
        by: Axes of the same tensor that the leading dimensions of `ids` run over. Axis `by[t]` falls into
            `ids.shape[t]` equal blocks and each block has ids of its own: the feature axis of `(heads, features)`,
            or the input axis of a grouped convolution's weight. Over an axis of unknown size (a batch that heads were
            merged with) the rows repeat.
        cause: For a frozen axis, the index of the `Freeze` that froze it (-1: none recorded).
    """

    ids: Ids | None = None
    by: tuple[int, ...] = ()
    cause: int = -1

    @property
    def frozen(self) -> bool:
        """Whether no index of this axis can ever be removed."""
        return self.ids is None

    def moved(self, where: dict[int, int]) -> Axis:
        """The same axis in a tensor whose axes were renumbered: old number -> new number."""
        return self if not self.by else replace(self, by=tuple(where[b] for b in self.by))


Axes = tuple[Axis, ...]


def fits(axes: Axes, shape: Sequence[object]) -> bool:
    """Whether labels have the rank and, where it is known, the shape of their tensor."""
    sizes = [d if a.ids is None else a.ids.shape[-1] for a, d in zip(axes, shape, strict=False)]
    return len(axes) == len(shape) and all(s == d or not isinstance(d, int) for s, d in zip(sizes, shape, strict=True))


@dataclass(frozen=True)
class Freeze:
    """Why something cannot be removed: the reason, where it was met, and the tensor axis it concerns."""

    reason: str
    node: str
    tensor: str
    axis: int


@dataclass
class Ties:
    """Collects ties and freezes as whole arrays; `components` solves them all at once.

    Attributes:
        count: Number of ids opened so far; ids run from 0.
        pairs: Arrays tied element by element.
        freezes: `Freeze` records, in the order met.
        frozen: (ids, index into `freezes`).
    """

    count: int = 0
    pairs: list[tuple[Ids, Ids]] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    frozen: list[tuple[Ids, int]] = field(default_factory=list)

    def fresh(self, size: int) -> Ids:
        """Open `size` new ids."""
        self.count += size
        return np.arange(self.count - size, self.count, dtype=np.int64)

    def tie(self, a: Ids, b: Ids) -> None:
        """Tie two arrays element by element, broadcasting as numpy does."""
        if a is not b:
            wide = np.broadcast_arrays(a, b)
            self.pairs.append((wide[0].ravel(), wide[1].ravel()))

    def freeze(self, ids: Ids, cause: int) -> None:
        """Freeze every id in `ids` for the recorded reason number `cause`."""
        self.frozen.append((ids.ravel(), cause))

    def components(self) -> Ids:
        """Solve the ties: the smallest id tied to each id. Shape (count,)."""
        if not self.pairs:
            return np.arange(self.count, dtype=np.int64)
        return components(self.count, *(np.concatenate(side) for side in zip(*self.pairs, strict=True)))

    def causes(self, roots: Ids) -> Ids:
        """Per id, the first recorded freeze that reaches it through ties, or -1. Shape (count,)."""
        first = np.full(self.count, len(self.freezes), dtype=np.int64)
        for ids, cause in self.frozen:
            np.minimum.at(first, roots[ids], cause)
        return np.where(first < len(self.freezes), first, -1)[roots] if self.count else first


def components(count: int, a: Ids, b: Ids) -> Ids:
    """Union-find over whole arrays: the smallest node connected to each of `count` nodes.

    Every round hooks each root onto the smallest root it is tied to, then halves all paths, so the number of rounds
    grows with the logarithm of the longest chain.
    """
    parent = np.arange(count, dtype=np.int64)
    while True:
        a, b = parent[a], parent[b]
        open_ = a != b
        if not open_.any():
            return parent
        a, b = a[open_], b[open_]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(halved := parent[parent], parent):
            parent = halved


def zero(array: NDArray[Any], axes: Axes, keep: NDArray[np.bool_]) -> NDArray[Any]:
    """The array with every removed index set to zero. Shape: the dense one."""
    out = array.copy()
    for k, axis in enumerate(axes):
        if axis.ids is None or keep[axis.ids].all():
            continue
        moved = np.moveaxis(out, k, 0)
        if not axis.by:
            moved[~keep[axis.ids]] = 0
            continue
        own = axis.by[0]
        for block, rows in enumerate(np.split(np.arange(array.shape[own]), axis.ids.shape[0])):
            part = out[(slice(None),) * own + (slice(rows[0], rows[-1] + 1),)]
            np.moveaxis(part, k, 0)[~keep[axis.ids[block]]] = 0
    return out


def varies(ids: Ids) -> list[int]:
    """The dimensions of `ids` along which any entry differs from its neighbour."""
    return [d for d in range(ids.ndim) if ids.shape[d] > 1 and (np.diff(ids, axis=d) != 0).any()]


def spread(axis: Axis, own: int, members: Sequence[int], shape: Sequence[int]) -> Ids:
    """The ids of `axis` as a full array over `members` (tensor axes, increasing) of the given sizes.

    Args:
        axis: An axis with ids whose `by` axes are all members and undivided (one block per index).
        own: The number of `axis` in its tensor.
        members: Tensor axes to span.
        shape: Their sizes.
    """
    assert axis.ids is not None
    order = [*axis.by, own]
    wide = np.transpose(axis.ids, np.argsort(order))
    at = [members.index(m) for m in sorted(order)]
    for d in range(len(members)):
        if d not in at:
            wide = np.expand_dims(wide, d)
    return np.broadcast_to(wide, tuple(shape))


def leaf_of(axes: Axes, live: Sequence[int]) -> int:
    """Of the axes that have labels, the one in the most rows: of several the last, or the first where none has rows."""
    return max(live, key=lambda k: (len(axes[k].by), k if axes[k].by else -k))


def in_order(axis: Axis, own: int) -> bool:
    """Whether the rows of an axis run over axes before it, outermost first: flattening leaves each row in one piece."""
    return list(axis.by) == sorted(axis.by) and all(b < own for b in axis.by)
