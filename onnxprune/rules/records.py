"""What rules note down while nodes are traced, beside ties. Law: a record is a fact about the dense graph."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxprune.labels import Ids


class CannotTrace(Exception):
    """A rule that meets a form it does not express: everything the node touches freezes for this reason."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Ids in rows that must lose equal numbers, so that the array stays rectangular.

    Attributes:
        ids: Shape (rows, width).
        parents: Shape (rows,): ids that stand for a whole row, or None when no whole row may go.
        node: The node that made the rectangle.
        same: Rows keep the same positions, too.
    """

    ids: Ids
    parents: Ids | None
    node: str
    same: bool = False


@dataclass(frozen=True, eq=False)
class Product:
    """The work of one contraction: MACs = factor x the number of kept indices on each axis / kept groups.

    Attributes:
        node: Node name.
        factor: Multiplications per index combination (spatial positions, kernel taps, batch 1).
        axes: Id arrays of the axes that can shrink.
        groups: Id array of shape (groups, width): the product is divided by the rows still alive; None for one group.
    """

    node: str
    factor: float
    axes: tuple[Ids, ...]
    groups: Ids | None = None


@dataclass
class Records:
    """What rules note down beside ties: rows, sources and costs.

    `zero` tells which tensors written so far vanish with their weights, `weights` which depend on initializers alone
    (see `zeros`). `through`: whether operators may mix an axis that shrinks; `mixed` notes those that do, by their
    first output: the axis of the input and its ids.
    """

    rows: list[Rows] = field(default_factory=list)
    sources: list[tuple[Ids, str]] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    zero: dict[str, bool] = field(default_factory=dict)
    weights: set[str] = field(default_factory=set)
    through: bool = False
    mixed: dict[str, list[tuple[int, Ids]]] = field(default_factory=dict)
