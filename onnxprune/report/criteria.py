"""The table of criteria. Law: it is read from the registry, so it lists what `--criterion` takes and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from onnxprune.importance import CRITERIA, Criterion
from onnxprune.report.canvas import Canvas, View
from onnxprune.report.markdown import escaped, row

HEADERS = ("criterion", "needs", "what it computes", "paper")
ORDER = ("weights", "samples", "gradients")


def criteria_rows() -> list[Criterion]:
    """All of them, those that need least first, then by name."""
    return sorted(CRITERIA.values(), key=lambda c: (ORDER.index(c.needs), c.name))


def cells(entry: Criterion) -> tuple[str, str, str, str]:
    """One line of the table."""
    return entry.name, entry.needs, entry.summary, entry.paper


def criteria_markdown() -> str:
    """The table in Markdown."""
    lines = [row(*HEADERS), row(*["---"] * len(HEADERS))]
    return "\n".join([*lines, *(row(*(escaped(cell) for cell in cells(entry))) for entry in criteria_rows())])


def criteria_view() -> View:
    """The table for a terminal."""

    def draw(canvas: Canvas) -> Iterator[RenderableType]:
        table = canvas.table([(header, "left") for header in HEADERS])
        for entry in criteria_rows():
            table.add_row(*(canvas.text(cell) for cell in cells(entry)))
        yield table

    return View(draw)
