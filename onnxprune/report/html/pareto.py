"""The front of a sweep as a chart. Law: every candidate that could be made is a point, every one is in the table."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.report import words
from onnxprune.report.front import Front, Point, cell
from onnxprune.report.html.figures import Chart, Json, hover, intervals, layout, legend, merged, points
from onnxprune.report.html.markup import Row, Table

NAMES = {"bytes": "size", "macs": "MACs", "params": "parameters", "ci95": "95% interval", "agreement": "top-1 kept"}
FIDELITY = "fidelity (cosine similarity of the outputs)"


def pareto(front: Front) -> Chart:
    """Speed, or size where nothing was timed, against quality; what no candidate beats is joined by a line."""
    shown = [p for p in front.points if gain(front, p) is not None and quality(front, p) is not None]
    best = sorted((p for p in shown if p.on_front), key=lambda p: gain(front, p) or 0.0)
    rest = [p for p in shown if not p.on_front]
    names = ", ".join(NAMES.get(o, o) for o in front.objectives)
    title = f"{len(best):,} of {words.plural(len(front.points), 'candidate')} are beaten by no other in {names}"
    looks = ("on the front", "--kept", "circle"), ("beaten", "--muted", "circle-open")
    data = [dots(front, some, *look) for some, look in zip((best, rest), looks, strict=True) if some]
    if best:
        data[0] |= {"mode": "lines+markers", "line": {"color": "--kept", "width": 2}}
    base = layout(460, f"{axis(front)} (right is better)", f"{judged_by(front)} (up is better)")
    base = merged({**base, **legend()}, xaxis={"ticksuffix": "x"})
    caption = "Bars: 95% interval of the speedup. The dense model is at 1x." if timed(front) else "Nothing was timed."
    return Chart("front", title, {"data": data, "layout": base}, caption, front_table(front))


def timed(front: Front) -> bool:
    """Whether speed counts."""
    return "speedup" in front.objectives


def axis(front: Front) -> str:
    """What the horizontal axis shows."""
    return "speedup over the dense model" if timed(front) else "times smaller than the dense model"


def judged_by(front: Front) -> str:
    """What candidates are judged by beside speed and size."""
    return "metric" if "metric" in front.objectives else FIDELITY


def gain(front: Front, point: Point) -> float | None:
    """Place of a candidate on the horizontal axis."""
    if timed(front):
        return point.speedup
    dense = front.points[0].bytes
    return dense / point.bytes if dense and point.bytes else None


def quality(front: Front, point: Point) -> float | None:
    """Place of a candidate on the vertical axis."""
    return point.metric if "metric" in front.objectives else point.fidelity


def dots(front: Front, found: Sequence[Point], title: str, colour: str, symbol: str) -> Json:
    """Some candidates with their intervals."""
    across = [gain(front, p) or 0.0 for p in found]
    bounds = [p.ci95 if p.ci95 and timed(front) else (x, x) for p, x in zip(found, across, strict=True)]
    error = intervals(across, bounds, thickness=1.5, width=4, color=colour)
    texts = [candidate(front, p) for p in found]
    more = {"error_x": error, "name": title, "marker": {"size": 11, "color": colour, "symbol": symbol}}
    return points(across, [quality(front, p) or 0.0 for p in found], texts, **more)


def candidate(front: Front, point: Point) -> str:
    """A candidate's tooltip: everything that is known of it."""
    known = [f"{NAMES.get(c, c)} {cell(point, c)}" for c in front.columns if getattr(point, c) is not None]
    return hover(point.label, *known)


def front_table(front: Front) -> Table:
    """Every candidate, those that failed with the reason."""
    headers = ("candidate", *(f"#{NAMES.get(c, c)}" for c in front.columns), "on the front", "note")
    rows = [
        Row((p.label, *(cell(p, c) for c in front.columns), "yes" if p.on_front else "no", p.note), (p.label,))
        for p in front.points
    ]
    return Table("Every candidate", headers, tuple(rows))
