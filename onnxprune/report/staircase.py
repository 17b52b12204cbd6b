"""The view of a profile: what each group's width costs. Law: as `terminal`."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from onnxprune.profile import Profile
from onnxprune.profile.staircase import Staircase
from onnxprune.report.canvas import Canvas, View

ROWS = 40  # groups shown before the rest is counted
STAIRS = 5  # widths shown of each


def profile_view(profile: Profile) -> View:
    """The model's time, the width step, and the staircase of every group."""

    def draw(canvas: Canvas) -> Iterator[RenderableType]:
        yield canvas.panel("profile", canvas.facts(facts(canvas, profile)))
        yield stairs(canvas, profile)
        if len(profile.groups) > ROWS:
            yield canvas.text(f"and {len(profile.groups) - ROWS} more groups that can save less", "dim")

    return View(draw)


def facts(canvas: Canvas, profile: Profile) -> Iterator[tuple[str, Text]]:
    """What holds for the whole model."""
    yield "time", canvas.text(f"{profile.dense_ms:.3g} ms on {profile.provider}, {profile.threads} thread(s)")
    yield "width step", canvas.text(f"{profile.step}: channel counts should be multiples of it")
    models = f"{profile.models} models measured, whole; the table is off by {profile.error:.1%} (median)"
    yield "measured", canvas.text(models)
    yield "processor", canvas.text(str(profile.environment.get("cpu", "unknown")))


def stairs(canvas: Canvas, profile: Profile) -> Table:
    """Time of the whole model at a few widths of each group, all other groups whole."""
    columns = ("group", "left"), ("layers", "right"), ("channels: ms of the whole model", "left"), ("can save", "right")
    table = canvas.table(columns)
    for entry in profile.groups[:ROWS]:
        table.add_row(escape(entry.group), str(len(entry.sources)), steps(entry), f"{entry.saves:.1%}")
    return table


def steps(entry: Staircase) -> str:
    """A few widths and their times, the widest first."""
    last = len(entry.ms) - 1
    chosen = sorted({round(last * i / (STAIRS - 1)) for i in range(STAIRS)})
    return "  ".join(f"{entry.channels[i]}: {entry.ms[i]:.3g}" for i in chosen)
