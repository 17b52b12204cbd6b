"""Laws of the views of an analysis: every group is in each form, in its width, and no name breaks out of it."""

from __future__ import annotations

import csv
import io
import json
import math
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from onnxprune.report.curves import curves_csv, curves_view
from onnxprune.report.html import curves_html
from onnxprune.report.svg import curves_svg, scale
from onnxprune.sensitivity import Curve, Curves, Point
from tests.report.runs import NASTY

RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)


def group(name: str, factor: float, *, broken: bool = False) -> Curve:
    values = [math.inf if broken and r > 0.6 else factor * r for r in RATIOS]
    points = [Point(r, round(16 * r), r / 20, {"y": v}, 1 - r / 2, 3 * r) for r, v in zip(RATIOS, values, strict=True)]
    return Curve(name, (f"{name}:0",), 16, tuple(points), 0.25)


GROUPS = (
    group("flat", 0.0),
    group(NASTY, 2.0),
    group("broken", 0.5, broken=True),
    *(group(f"g{n}", 0.01) for n in range(8)),
)
CURVES = Curves(f"{NASTY}.onnx", "f", "l1", 256, {"y": "kl of logits"}, GROUPS, 0.9, 3.0, 0.5)
BARE = Curves("m", "f", "l1", 1, {"y": "relative l2"}, GROUPS)


def text(curves: Curves, width: int, encoding: str) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    Console(file=file, width=width, force_terminal=False).print(curves_view(curves))
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(("width", "encoding"), [(80, "utf-8"), (100, "utf-8"), (100, "ascii")])
@pytest.mark.parametrize("curves", [CURVES, BARE], ids=["all", "bare"])
def test_the_terminal_shows_every_group_the_most_sensitive_first(curves: Curves, width: int, encoding: str) -> None:
    shown = text(curves, width, encoding)
    places = [shown.index(name) for name in ("broken", "g0", "flat")]
    assert places == sorted(places) and max(map(len, shown.splitlines())) <= width
    assert "\x1b" not in shown and "NaN" in shown and ("25%" in shown) == (curves.macs is not None)


def test_the_table_has_a_line_for_every_point() -> None:
    rows = list(csv.DictReader(io.StringIO(curves_csv(CURVES))))
    assert len(rows) == len(GROUPS) * len(RATIOS)
    assert {r["group"] for r in rows} == {g.name for g in GROUPS} and rows[0]["divergence"] == "0.0"


@pytest.mark.parametrize(
    "curves", [CURVES, BARE, Curves("m", "f", "l1", 1, {}, GROUPS[:1])], ids=["all", "bare", "one"]
)
def test_the_picture_is_well_formed_and_draws_every_group(curves: Curves) -> None:
    root = ET.fromstring(curves_svg(curves))
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == len(curves.groups)
    spots = [float(n) for line in lines for pair in line.attrib["points"].split() for n in pair.split(",")]
    assert all(0 <= n <= 900 for n in spots)
    assert "<script" not in curves_svg(curves)


def test_an_axis_has_round_lines_and_room_for_all() -> None:
    for values in ([0.0664, 1.0], [-3.0, 12.5], [5.0], [0.0], [1e-6, 2e-6]):
        axes = scale(values, logarithmic=False)
        assert axes.low <= min(values) and axes.high >= max(values) and 2 <= len(axes.ticks()) <= 12


def test_the_page_holds_every_group_and_no_markup_of_a_name() -> None:
    page = curves_html(CURVES)
    assert "<script>alert" not in page and page.count("<tr") >= len(GROUPS)
    json.dumps(CURVES.to_dict(), allow_nan=False)
