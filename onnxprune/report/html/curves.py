"""Sensitivity as a chart. Law: every group is a line, and every point is in the table."""

from __future__ import annotations

import math

from onnxprune.report.curves import LEAST, figure, unit
from onnxprune.report.html.figures import Chart, Json, hover, layout, legend, merged, points
from onnxprune.report.html.markup import Row, Table, code
from onnxprune.report.svg import line, shown
from onnxprune.sensitivity import Curve, Curves, Point

LOUD = 6  # curves that are named
SHADES = ("--kept", "--removed", "--good", "--hit", "--bad", "--before")
DASHES = ("solid", "dot", "dash", "dashdot", "longdash", "longdashdot")


def sensitivity(curves: Curves) -> Chart:
    """What is left, or the divergence, over the share of channels that is gone: a line for each group."""
    what, _ = shown(curves)
    names = {"accuracy": "top-1 accuracy", "metric": "metric", "divergence": unit(curves)}
    ranked = curves.ranked
    title = f"Cut alone, {ranked[0].name} costs most, {ranked[-1].name} least"
    data = [trace(curves, group, n) for n, group in enumerate(ranked)][::-1]
    base = layout(480, "share of the group's channels removed", names[what], **legend(traceorder="reversed"))
    kind = {"type": "log"} if what == "divergence" else {}
    base = merged(base, xaxis={"tickformat": ".0%", "range": [0, 1]}, yaxis=kind)
    caption = "One line a group, the most sensitive ones in colour. No weight was refitted."
    return Chart("sensitivity", title, {"data": data, "layout": base}, caption, every_point(curves))


def trace(curves: Curves, group: Curve, place: int) -> Json:
    """One line."""
    what, dense = shown(curves)
    found = line(group, what, dense)
    y = [max(value, LEAST) if what == "divergence" else value for _, value in found]
    told = [p for p in group.points if getattr(p, what) is not None and math.isfinite(getattr(p, what))]
    texts = [hover(group.name, "whole"), *(describe(group, p) for p in told)]
    loud = place < LOUD
    colour, dash = (SHADES[place], DASHES[place]) if loud else ("--line", "solid")
    stroke = {"color": colour, "width": 2 if loud else 1, "dash": dash}
    look = {"mode": "lines+markers", "line": stroke, "showlegend": loud}
    return points([x for x, _ in found], y, texts, name=group.name, marker={"size": 5, "color": colour}, **look)


def describe(group: Curve, point: Point) -> str:
    """The tooltip of a point."""
    rest = [f"top-1 {point.accuracy:.1%}"] if point.accuracy is not None else []
    rest += [f"metric {point.metric:.5g}"] if point.metric is not None else []
    gone = f"{point.removed:,} of {group.channels:,} channels gone, {point.saved:.1%} of the MACs"
    return hover(group.name, gone, f"divergence {figure(point)}", *rest)


def every_point(curves: Curves) -> Table:
    """All groups by all ratios."""
    headers = ("group", "#channels", *(f"#{r:.0%}" for r in curves.ratios), "#recommended")
    rows = []
    for group in curves.ranked:
        held = {p.ratio: p for p in group.points}
        best = "-" if group.recommended is None else f"{group.recommended:.0%}"
        cells = (code(group.name), f"{group.channels:,}", *(figure(held.get(r)) for r in curves.ratios), best)
        rows.append(Row(cells, (group.name,)))
    return Table(f"{unit(curves)}, by the share of channels removed", headers, tuple(rows))
