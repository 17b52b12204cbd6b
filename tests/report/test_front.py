"""Laws of the front's views: every candidate is a row, in each form, and no name or reason breaks out of it."""

from __future__ import annotations

import csv
import io
import re

import pytest
from rich.console import Console

from onnxprune.report.front import Front, Point, cell, front_csv, front_markdown, front_view
from tests.report.runs import NASTY

POINTS = (
    Point("dense", "", 1.0, None, 1.0, 1.0, 2_000_000, 1.0, 1.0, 0.9),
    Point("ratio-0.3", "--ratio 0.3", 1.714, (1.66, 1.74), 0.547, 0.517, 1_045_000, 0.99999, 0.995, 0.89, True),
    Point("ratio-0.9", "--ratio 0.9", note=f"out of reach {NASTY}"),
)
FRONT = Front(f"{NASTY}.onnx", "out", POINTS, ("speedup", "bytes", "metric"), "CPU, 1 thread", "1.2")


def text(front: Front, width: int = 100, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    Console(file=file, width=width, force_terminal=False).print(front_view(front))
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(("width", "encoding"), [(60, "utf-8"), (100, "utf-8"), (100, "ascii")])
def test_the_terminal_shows_every_candidate_in_its_width(width: int, encoding: str) -> None:
    shown = text(FRONT, width, encoding)
    assert all(p.label in shown for p in POINTS) and max(map(len, shown.splitlines())) <= width
    assert "out of reach" in shown and "\x1b" not in shown


def test_markdown_has_a_row_for_every_candidate_and_none_is_broken() -> None:
    shown = front_markdown(FRONT)
    table = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(POINTS) and len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert table[3].startswith("| front | **ratio-0.3** | 1.71x | 1.66-1.74 |")
    assert "out of reach" in shown and "Timed one after the other: CPU, 1 thread." in shown


def test_csv_holds_every_figure_in_full() -> None:
    rows = list(csv.DictReader(io.StringIO(front_csv(FRONT))))
    assert [row["label"] for row in rows] == [p.label for p in POINTS]
    assert float(rows[1]["speedup"]) == 1.714 and float(rows[1]["ci95_high"]) == 1.74 and rows[1]["on_front"] == "1"
    assert rows[2]["speedup"] == "" and rows[2]["note"] == POINTS[2].note


def test_figures_are_not_rounded_in_our_favour_and_absent_ones_take_no_column() -> None:
    assert cell(POINTS[1], "fidelity") == "0.9999" and cell(POINTS[2], "fidelity") == "-"
    bare = Front("m", "out", (POINTS[0], Point("a", "", macs=0.5, params=0.5, bytes=9)), ("bytes", "fidelity"))
    assert bare.columns == ["bytes", "macs", "params", "fidelity"]
    assert "size, fidelity" in bare.legend
