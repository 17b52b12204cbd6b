"""Sensitivity for a terminal and as CSV. Law: as `terminal`; every group is listed, the most sensitive first."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table

from onnxprune.report import words
from onnxprune.report.canvas import Canvas, View
from onnxprune.sensitivity import Curve, Curves, Point

BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", ".:-=+*#@"
SPARKS = 12  # characters a curve may take
LEAST = 1e-4  # of the divergence: below that a curve counts as flat
UNITS = {"kl": "KL divergence of the outputs, nats", "relative": "relative error of the outputs", "share": "unequal"}


def unit(curves: Curves) -> str:
    """What the divergence is of, in words."""
    found = {UNITS[kind.split()[0]] for kind in curves.kinds.values()}
    return found.pop() if len(found) == 1 else "divergence of the worst output"


def curves_view(curves: Curves) -> View:
    """A table: a curve drawn small, the divergence at some ratios, the ratio that is recommended."""

    def draw(canvas: Canvas) -> Iterator[RenderableType]:
        yield canvas.text(f"{curves.model}: {unit(curves)}, each group cut alone", "bold")
        yield table(canvas, curves)
        yield from (canvas.text(line, "dim") for line in notes(curves))

    return View(draw)


def table(canvas: Canvas, curves: Curves) -> Table:
    """All groups, the most sensitive first."""
    shown = picked(curves.ratios)
    own = accuracies(curves)
    heads = ["curve", *(f"{r:.0%}" for r in shown), *own, *(["lose"] if curves.macs is not None else [])]
    rows = [cells(canvas, curves, group, shown) for group in curves.ranked]
    columns = [list(column) for column in zip(heads, *rows, strict=True)]
    names = canvas.names([group.name for group in curves.ranked], [""] * len(rows), canvas.rest(columns))
    found = canvas.table([("group", "left"), ("curve", "left"), *((head, "right") for head in heads[1:])])
    for name, row in zip(names, rows, strict=True):
        found.add_row(name, *(canvas.text(cell) for cell in row))
    return found


def picked(ratios: Sequence[float]) -> list[float]:
    """At most three ratios of the grid: there is room for no more."""
    if len(ratios) <= 3:
        return list(ratios)
    return [ratios[len(ratios) // 4], ratios[len(ratios) // 2], ratios[3 * len(ratios) // 4]]


def accuracies(curves: Curves) -> list[str]:
    """Headers of what was measured beside the divergence, at the middle of the grid."""
    middle = picked(curves.ratios)[len(picked(curves.ratios)) // 2]
    named = (("top-1", curves.accuracy), ("metric", curves.metric))
    return [f"{name} {middle:.0%}" for name, value in named if value is not None]


def cells(canvas: Canvas, curves: Curves, group: Curve, shown: Sequence[float]) -> list[str]:
    """One row without its name."""
    by_ratio = {p.ratio: p for p in group.points}
    middle = by_ratio.get(shown[len(shown) // 2])
    found = [sparkline(canvas, group.points), *(figure(by_ratio.get(r)) for r in shown)]
    if curves.accuracy is not None:
        found.append("-" if middle is None or middle.accuracy is None else f"{middle.accuracy:.1%}")
    if curves.metric is not None:
        found.append("-" if middle is None or middle.metric is None else f"{middle.metric:.4g}")
    if curves.macs is not None:
        found.append("-" if group.recommended is None else f"{group.recommended:.0%}")
    return found


def figure(point: Point | None) -> str:
    """A divergence."""
    if point is None:
        return "-"
    return f"{point.divergence:.2g}" if math.isfinite(point.divergence) else "NaN"


def sparkline(canvas: Canvas, points: Sequence[Point]) -> str:
    """A curve drawn small: a block for a factor of nearly four, from flat on."""
    blocks = PLAIN if canvas.ascii_only else BLOCKS
    some = points[:: -(-len(points) // SPARKS)] if points else points
    return "".join(blocks[step(p.divergence, len(blocks))] for p in some)


def step(value: float, steps: int) -> int:
    """The height of a divergence on a scale of factors, which ends at 1."""
    if not math.isfinite(value):
        return steps - 1
    share = math.log(max(value, LEAST) / LEAST) / math.log(1 / LEAST)
    return min(steps - 1, round(share * (steps - 1)))


def notes(curves: Curves) -> Iterator[str]:
    """What the table does not say."""
    yield f"channels chosen by {curves.criterion}, {words.plural(curves.samples, 'sample')}, no weight refitted"
    if curves.accuracy is not None:
        yield f"top-1 of the dense model: {curves.accuracy:.1%}"
    if curves.metric is not None:
        yield f"metric of the dense model: {curves.metric:.5g}"
    if curves.macs is not None:
        yield f"lose: what 'prune --macs {curves.macs:g} --allocate sensitivity' takes of each group, widths unaligned"


def curves_csv(curves: Curves) -> str:
    """Every point of every group, a line each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ["group", "channels", "ratio", "removed", "macs_saved", "divergence", "accuracy", "metric"]
    writer.writerow([*columns, *(f"divergence of {name}" for name in curves.kinds)])
    for group in curves.groups:
        for p in group.points:
            own = [group.name, group.channels, p.ratio, p.removed, p.saved, p.divergence, p.accuracy, p.metric]
            writer.writerow([*own, *(p.outputs.get(name) for name in curves.kinds)])
    return text.getvalue()
