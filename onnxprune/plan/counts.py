"""How much of each kind a group keeps. Law: axes keep an index, rows keep equal numbers, widths are aligned.

What a group may lose comes in *bundles*: units that go together, usually a single one (see `rows`). Bundles that lie on
the same axes and rows are one *class*: constraints only see how many of a class stay, never which. So the choice splits
in two: whole numbers per class, here, and the least important bundles of each class, in `choose`. With one class the
answer is closed; with several it is a small mixed-integer program, solved by HiGHS through scipy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxprune.plan.rows import Table, Way

if TYPE_CHECKING:
    from scipy.optimize import LinearConstraint

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of a group and the constraints over their counts.

    Attributes:
        of: Class of each bundle. Shape (bundles,).
        size: Bundles in each class. Shape (classes,).
        widths: Per source axis, how many indices a bundle of each class stands for. Shape (sources, classes).
        fixed: Per source axis, indices that cannot be removed. Shape (sources,).
        floors: Axes, and rows, of which some index must stay: 0/1. Shape (axes, classes).
        rows: Per family, how many members of each row a bundle of each class stands for, and the members that cannot
            be removed: shapes (rows, classes) and (rows,).
    """

    of: Ints
    size: Ints
    widths: Ints
    fixed: Ints
    floors: Ints
    rows: tuple[tuple[Ints, Ints], ...]
    solved: dict[bytes, Ints | None] = field(default_factory=dict)


def classes_of(table: Table, way: Way) -> Classes:
    """The classes of one group when it loses channels in a certain way: bundles with equal columns in the table."""
    widths, fixed = bundled(table.widths, table.fixed, way)
    floors, kept = bundled(table.floors, np.zeros(len(table.floors), np.int64), way)
    floors = np.minimum(floors[kept == 0], 1)  # the others keep an index whatever is chosen
    families = [
        bundled(members[alive].astype(np.int64), held[alive], way)
        for (members, _), held, alive in zip(table.rows, way.held, way.alive, strict=True)
    ]
    columns = np.concatenate([widths, floors, *(members for members, _ in families)])
    _, first, of, size = np.unique(columns, axis=1, return_index=True, return_inverse=True, return_counts=True)
    rows = tuple((members[:, first], held) for members, held in families if uneven(members, held))
    equal = [members[:1] > 0 for members, held in families if not uneven(members, held) and not held[:1].any()]
    few = np.unique(np.concatenate([floors, *equal])[:, first], axis=0)  # rows that cannot differ still keep a member
    return Classes(of.ravel(), size.astype(np.int64), widths[:, first], fixed, few, rows)


def bundled(counts: Ints, held: Ints, way: Way) -> tuple[Ints, Ints]:
    """Counts per unit as counts per bundle, and what stays besides: units in no bundle that are not gone either."""
    stays = way.bundle < 0
    moving = ~stays
    order = np.argsort(way.bundle[moving], kind="stable")
    starts = np.searchsorted(way.bundle[moving][order], np.arange(way.count))
    per_unit = counts[:, moving][:, order]
    per_bundle = np.add.reduceat(per_unit, starts, axis=1) if way.count else per_unit[:, :0]
    return per_bundle, held + counts[:, stays & ~way.gone].sum(axis=1)


def uneven(members: Ints, held: Ints) -> bool:
    """Whether rows can come to differ."""
    return not ((members == members[:1]).all() and (held == held[:1]).all())


def solve(classes: Classes, wanted: Floats, least: Ints, align: int) -> tuple[Ints, str]:
    """Counts per class nearest to `wanted` that meet every constraint.

    Args:
        classes: The group's classes.
        wanted: Units to keep of each class, in [0, size].
        least: Units that must stay of each class (`--max-ratio`).
        align: Kept widths are multiples of this, or the dense width.

    Returns:
        Shape (classes,) and a note, empty unless alignment or the rows left the group whole.
    """
    if (wanted >= classes.size).all():
        return classes.size, ""
    counts = solve_one(classes, wanted, least, align)
    if counts is not None:
        return finish(classes, wanted, counts, align)
    if align == 1:
        return classes.size, "left whole: its rows cannot lose equal numbers"
    if can_align(classes, align):
        return classes.size, f"left whole: no removal leaves all its widths multiples of {align}"
    return classes.size, f"left whole: narrower than the alignment of {align}"


def can_align(classes: Classes, align: int) -> bool:
    """Whether the narrowest source axis of the group is wider than one step."""
    return bool((dense_widths(classes) > align).all())


def finish(classes: Classes, wanted: Floats, counts: Ints, align: int) -> tuple[Ints, str]:
    """Prefer the whole group when that is nearer to what was wanted; say so when alignment decided it."""
    whole = float(np.abs(classes.size - wanted).sum())
    if float(np.abs(counts - wanted).sum()) > whole or (counts >= classes.size).all():
        tight = "its rows cannot lose equal numbers" if classes.rows else "too narrow for this ratio"
        reason = f"the nearest multiple of {align} is the dense width" if align > 1 else tight
        return classes.size, f"left whole: {reason}"
    return counts, ""


def solve_one(classes: Classes, wanted: Floats, least: Ints, align: int) -> Ints | None:
    """Counts for one alignment, or None when there are none; remembered per question."""
    key = np.concatenate([wanted, least, [align]]).tobytes()
    if key not in classes.solved:
        answer = closed if classes.size.size == 1 and not classes.rows else program
        classes.solved[key] = answer(classes, wanted, least, align)
    return classes.solved[key]


def closed(classes: Classes, wanted: Floats, least: Ints, align: int) -> Ints | None:
    """One class: the nearest aligned count."""
    if align == 1:
        return np.clip(np.round(wanted), np.maximum(least, 1), classes.size).astype(np.int64)
    options = np.arange(max(1, int(least[0])), int(classes.size[0]) + 1)
    widths = classes.widths[:, :1] * options + classes.fixed[:, None]
    fits = options[(widths % align == 0).all(axis=0)]
    return None if not fits.size else fits[[int(np.abs(fits - wanted[0]).argmin())]]


def program(classes: Classes, wanted: Floats, least: Ints, align: int) -> Ints | None:
    """Several classes: minimise the distance to `wanted` as a mixed-integer program.

    Variables: a count x per class, its distance d from wanted, one level y per family of rows, one multiple z per axis
    that is aligned.
    """
    k, extra = classes.size.size, len(classes.rows) + len(aligned_axes(classes, align))
    from scipy.optimize import Bounds, milp  # half of the package's start-up time, needed by few plans

    found = milp(
        np.concatenate([np.zeros(k), np.ones(k), np.zeros(extra)]),
        integrality=np.concatenate([np.ones(k), np.zeros(k), np.ones(extra)]),
        bounds=Bounds(
            np.concatenate([least, np.zeros(k), np.ones(extra)]),
            np.concatenate([classes.size, np.full(k + extra, np.inf)]),
        ),
        constraints=constraints(classes, wanted, align),
        options={"time_limit": 5.0, "mip_rel_gap": 0.01},
    )
    return None if found.x is None else np.round(found.x[:k]).astype(np.int64)


def constraints(classes: Classes, wanted: Floats, align: int) -> LinearConstraint:
    """Rows = y, widths = align * z, d >= |x - wanted|; axes keep an index, and narrow ones stay whole."""
    from scipy.optimize import LinearConstraint

    k, families, aligned = classes.size.size, len(classes.rows), aligned_axes(classes, align)
    lines: list[tuple[Floats, float, float]] = []

    def add(at_least: float, at_most: float, counts: Floats, at: int = 0, factor: float = 0.0) -> None:
        """at_least <= counts * x + factor * (variable `at`) <= at_most."""
        line = np.concatenate([counts, np.zeros(k + families + len(aligned))])
        line[at] += factor
        lines.append((line, at_least, at_most))

    for c, row in enumerate(np.eye(k)):
        add(-np.inf, float(wanted[c]), row, k + c, -1.0)
        add(float(wanted[c]), np.inf, row, k + c, 1.0)
    for floor in classes.floors:
        add(1.0, np.inf, floor.astype(float))
    for f, (members, fixed) in enumerate(classes.rows):
        for row, held in zip(members.astype(float), fixed.tolist(), strict=True):
            add(-held, -held, row, 2 * k + f, -1.0)
    for a in narrow_axes(classes, align):
        dense = float(classes.widths[a] @ classes.size)
        add(dense, dense, classes.widths[a].astype(float))
    for z, a in enumerate(aligned):
        held = float(classes.fixed[a])
        add(-held, -held, classes.widths[a].astype(float), 2 * k + families + z, -float(align))
    return LinearConstraint(np.stack([line for line, _, _ in lines]), *zip(*(ends for _, *ends in lines), strict=True))


def aligned_axes(classes: Classes, align: int) -> list[int]:
    """Distinct source axes that are aligned: the ones at least as wide as a step."""
    return [a for a in distinct_sources(classes) if align > 1 and dense_widths(classes)[a] >= align]


def narrow_axes(classes: Classes, align: int) -> list[int]:
    """Distinct source axes that are narrower than a step."""
    return [a for a in distinct_sources(classes) if dense_widths(classes)[a] < align]


def distinct_sources(classes: Classes) -> list[int]:
    """One source axis of each kind: equal columns make equal constraints."""
    _, first = np.unique(np.column_stack([classes.widths, classes.fixed]), axis=0, return_index=True)
    return [int(a) for a in np.sort(first)]


def dense_widths(classes: Classes) -> Ints:
    """The dense width of every source axis."""
    return np.asarray(classes.widths @ classes.size + classes.fixed)
