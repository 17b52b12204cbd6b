"""Figures in plotly.js's own form. Law: data and layout only; colours are names that the page's theme resolves.

A colour is written `--name`, a custom property of the page's style sheet, so that one figure serves light and dark.
Plotly reads some markup in its texts, so names go through `label`, which leaves none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from onnxprune.report import words
from onnxprune.report.html.markup import Table

Json = dict[str, Any]

FONT = {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13, "color": "--text"}
NAME = 38  # characters of a name beside an axis


@dataclass(frozen=True)
class Chart:
    """A figure and what stands around it.

    Attributes:
        id: Of the element; letters and `-`.
        title: The finding, in words.
        figure: `data` and `layout`.
        caption: How to read it.
        table: The same in figures.
        controls: 'zoom' for a figure one moves about in, 'pick' for one that shows one group at a time.
    """

    id: str
    title: str
    figure: Json
    caption: str
    table: Table | None = None
    controls: str = ""


def layout(height: int, x: str = "", y: str = "", **more: object) -> Json:
    """A quiet layout with titled axes."""
    axis = {"gridcolor": "--grid", "linecolor": "--line", "zeroline": False, "fixedrange": True, "automargin": True}
    return {
        "height": height,
        "font": FONT,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 16, "t": 12, "b": 48},
        "hoverlabel": {"bgcolor": "--card", "bordercolor": "--line", "font": FONT, "align": "left", "namelength": -1},
        "hovermode": "closest",
        "dragmode": False,
        "showlegend": False,
        "xaxis": {**axis, "title": {"text": x, "standoff": 8}},
        "yaxis": {**axis, "title": {"text": y, "standoff": 8}},
        **more,
    }


def merged(base: Json, **axes: Mapping[str, object]) -> Json:
    """A layout with more settings for some of its axes."""
    return {**base, **{key: {**base[key], **value} for key, value in axes.items()}}


def legend(**more: object) -> Json:
    """A legend above the figure."""
    return {"showlegend": True, "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", **more}}


def label(name: str, width: int = 0) -> str:
    """A name as Plotly shows it: itself, shortened if a width is given."""
    shown = words.printable(name)
    return escape(words.shorten(shown, width) if width else shown, quote=False)


def hover(name: str, *lines: str) -> str:
    """The text of a tooltip: a name, broken where it is long, and lines about it."""
    shown = words.printable(name)
    pieces = [shown[start : start + 60] for start in range(0, min(len(shown), 240), 60)]
    head = "<br>".join(escape(piece, quote=False) for piece in pieces)
    return "<br>".join([f"<b>{head}</b>", *(escape(line, quote=False) for line in lines)])


def line(x: tuple[float, float], y: tuple[float, float], dash: str = "dash", colour: str = "--muted") -> Json:
    """A straight line behind the data."""
    ends = {"x0": x[0], "x1": x[1], "y0": y[0], "y1": y[1]}
    return {"type": "line", "layer": "below", "line": {"color": colour, "width": 1.5, "dash": dash}, **ends}


def points(x: Sequence[float], y: Sequence[float], texts: Sequence[str], **more: object) -> Json:
    """Points with tooltips; the page's arrow keys read them one by one."""
    held = {"x": list(x), "y": list(y), "hovertext": list(texts), "hoverinfo": "text"}
    return {"type": "scatter", "mode": "markers", **held, **more}


def intervals(values: Sequence[float], bounds: Sequence[tuple[float, float]], **look: object) -> Json:
    """Bars from the lower to the upper bound of each value: plotly's error bars, `look` their thickness and so on."""
    pairs = list(zip(values, bounds, strict=True))
    above, below = [high - value for value, (_, high) in pairs], [value - low for value, (low, _) in pairs]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **look}
