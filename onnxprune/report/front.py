"""The front of a sweep: for a terminal, as Markdown, as CSV. Law: every candidate is a row, those that failed too."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from rich.console import RenderableType

from onnxprune.bench.statistics import Interval
from onnxprune.report import words
from onnxprune.report.canvas import Canvas, View
from onnxprune.report.data import plain
from onnxprune.report.markdown import code, escaped, row

SCHEMA = "onnxprune/front/1"
MARK = "*"
LEGEND = "on the front: nothing else is as good in {}, and better in one of them"


@dataclass(frozen=True)
class Point:
    """One candidate of a sweep, or the dense model.

    Attributes:
        label: Names its files.
        target: The option that asks for it; empty for the dense model.
        speedup: Dense over pruned, or None where it was not timed.
        ci95: Its interval.
        macs: Share of the multiply-accumulates that stay; None, as the rest, where there is no model.
        params: Share of the parameters that stay.
        bytes: Bytes of the weights.
        fidelity: Cosine similarity of the worst output to the dense model's, or None where it cannot be compared.
        agreement: Share of samples with the same top-1 class, where an output is a table of scores.
        metric: What the user's script gives; larger is better.
        on_front: Whether no other point dominates it.
        note: Why something is missing.
    """

    label: str
    target: str
    speedup: float | None = None
    ci95: Interval | None = None
    macs: float | None = None
    params: float | None = None
    bytes: int | None = None
    fidelity: float | None = None
    agreement: float | None = None
    metric: float | None = None
    on_front: bool = False
    note: str = ""


@dataclass(frozen=True)
class Front:
    """All points of a sweep.

    Attributes:
        model: The input file.
        folder: Where the results lie.
        points: The dense model, then every candidate in the order it was asked for.
        objectives: What the front is a front of: 'speedup', 'bytes', 'metric' or 'fidelity'.
        conditions: Under which the times hold; empty if none were taken.
        version: Of onnxprune.
    """

    model: str
    folder: str
    points: tuple[Point, ...]
    objectives: tuple[str, ...]
    conditions: str = ""
    version: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {key: plain(value) for key, value in ({"schema": SCHEMA} | asdict(self)).items()}

    @property
    def columns(self) -> list[str]:
        """What is shown, by field: nothing that no point has."""
        always = ["speedup", "ci95"] if "speedup" in self.objectives else []
        found = self.points[1:]  # of the dense model they are known beforehand
        maybe = [name for name in ("agreement", "metric") if any(getattr(p, name) is not None for p in found)]
        return [*always, "bytes", "macs", "params", "fidelity", *maybe]

    @property
    def legend(self) -> str:
        """What the mark means."""
        names = {"bytes": "size"}
        return LEGEND.format(", ".join(names.get(o, o) for o in self.objectives))


GIVE_WAY = ("ci95", "params", "agreement", "macs")  # in this order, where the terminal is narrow
HEADERS = {"ci95": "95%", "bytes": "size", "macs": "MACs", "agreement": "top-1 kept"}


def cell(point: Point, column: str) -> str:
    """One figure as text; '-' where there is none."""
    value = getattr(point, column)
    if value is None:
        return "-"
    if column == "speedup":
        return f"{value:.2f}x"
    if column == "ci95":
        return f"{value[0]:.2f}-{value[1]:.2f}"
    if column == "bytes":
        return words.size(value)
    if column in ("macs", "params", "agreement"):
        return f"{value:.1%}"
    return f"{math.floor(value * 1e4) / 1e4:.4f}" if column == "fidelity" else f"{value:.5g}"


def front_view(front: Front) -> View:
    """The table for a terminal."""

    def draw(canvas: Canvas) -> Iterator[RenderableType]:
        yield canvas.text(f"{front.model} {canvas.arrow} {front.folder}", "bold")
        shown = fitting(canvas, front)
        table = canvas.table([("", "left"), ("candidate", "left"), *((header(c), "right") for c in shown)])
        for p in front.points:
            cells = [MARK if p.on_front else "", p.label, *(cell(p, column) for column in shown)]
            table.add_row(*(canvas.text(c) for c in cells), style="green" if p.on_front else "")
        yield table
        yield canvas.text(f"{MARK} {front.legend}", "dim")
        if front.conditions:
            yield canvas.text(f"timed one after the other: {front.conditions}", "dim")
        yield from (canvas.text(f"{p.label}: {p.note}", "yellow") for p in front.points if p.note)

    return View(draw)


def header(column: str) -> str:
    """What stands above a column."""
    return HEADERS.get(column, column)


def fitting(canvas: Canvas, front: Front) -> list[str]:
    """The columns that there is room for."""
    shown = front.columns
    first = [MARK], [p.label for p in front.points]
    for column in GIVE_WAY:
        cells = [[header(c), *(cell(p, c) for p in front.points)] for c in shown]
        if canvas.rest([*first, *cells]) < 0 and column in shown:
            shown.remove(column)
    return shown


def front_markdown(front: Front) -> str:
    """The table as Markdown."""
    headers = [header(column) for column in front.columns]
    lines = [f"## Sweep: {code(front.model)}", ""]
    lines += [row("", "candidate", *headers), row("---", "---", *("---:" for _ in headers))]
    for p in front.points:
        mark = "**" if p.on_front else ""
        figures = (cell(p, column) for column in front.columns)
        lines.append(row("front" if p.on_front else "", f"{mark}{escaped(p.label)}{mark}", *figures))
    lines += ["", front.legend[0].upper() + front.legend[1:] + "."]
    lines += ["", f"Timed one after the other: {escaped(front.conditions)}."] if front.conditions else []
    failed = [f"- {code(p.label)}: {escaped(p.note)}" for p in front.points if p.note]
    lines += ["", *failed] if failed else []
    return "\n".join([*lines, "", f"<sub>onnxprune {escaped(front.version)}</sub>"]) + "\n"


def front_csv(front: Front) -> str:
    """Every field of every point, a line each; the interval is two columns."""
    text = io.StringIO()
    names = [f.name for f in fields(Point) if f.name != "ci95"]
    names[names.index("speedup") + 1 : names.index("speedup") + 1] = ["ci95_low", "ci95_high"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for p in front.points:
        low, high = p.ci95 or (None, None)
        held = {k: v for k, v in asdict(p).items() if k != "ci95"}
        writer.writerow(held | {"ci95_low": low, "ci95_high": high, "on_front": int(p.on_front)})
    return text.getvalue()
