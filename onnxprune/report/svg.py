"""Sensitivity as a picture. Law: one SVG file, no script, no font but the reader's; every name is escaped.

The curves of all groups, as in Li et al. 2017, figure 2b; those of the most sensitive ones in colour, named at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from onnxprune.report import words
from onnxprune.report.curves import LEAST, unit
from onnxprune.sensitivity import Curve, Curves, Point

WIDTH, HEIGHT = 900, 520
LEFT, RIGHT, TOP, BOTTOM = 80, 250, 56, 56
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by the colour-blind
NAME, LINE = 34, 15  # characters of a name; distance of two of them
STYLE = "text{font:13px system-ui,sans-serif;fill:#333}.h{font-weight:600;font-size:16px}.l{fill:none}"


@dataclass(frozen=True)
class Axes:
    """Where values lie.

    Attributes:
        low: Value at the bottom.
        high: Value at the top.
        logarithmic: Whether equal steps are equal factors.
    """

    low: float
    high: float
    logarithmic: bool

    def x(self, ratio: float) -> float:
        """Place of a ratio."""
        return LEFT + ratio * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Place of a value; those outside lie on the edge."""
        low, high, held = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, held = math.log10(low), math.log10(high), math.log10(held)
        return HEIGHT - BOTTOM - (held - low) / max(high - low, 1e-12) * (HEIGHT - TOP - BOTTOM)

    def ticks(self) -> list[float]:
        """Values with a line across."""
        if self.logarithmic:
            return [10.0**n for n in range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)]
        return [n * self.step for n in range(round(self.low / self.step), round(self.high / self.step) + 1)]

    @property
    def step(self) -> float:
        """The distance of two lines: 1, 2 or 5 times a power of ten."""
        return step_of(self.high - self.low)


def curves_svg(curves: Curves) -> str:
    """The picture: accuracy, or the user's metric, or else the divergence, over the share of channels that is gone."""
    what, dense = shown(curves)
    found = {group.name: line(group, what, dense) for group in curves.ranked}
    axes = scale([y for points in found.values() for _, y in points], logarithmic=what == "divergence")
    titles = {"accuracy": "top-1 accuracy", "metric": "metric", "divergence": unit(curves)}
    body = [*frame(axes, titles[what], curves)]
    quiet, loud = curves.ranked[len(COLOURS) :], curves.ranked[: len(COLOURS)]
    body += [polyline(axes, found[g.name], "#bbb", 1.0) for g in reversed(quiet)]
    pairs = list(zip(loud, COLOURS, strict=False))
    body += [polyline(axes, found[g.name], colour, 2.2) for g, colour in reversed(pairs)]
    body += list(names(axes, [(g.name, found[g.name], colour) for g, colour in pairs]))
    if quiet:
        body.append(text(WIDTH - RIGHT + 12, TOP - 12, f"{words.plural(len(quiet), 'other group')} in grey"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><style>{STYLE}</style>'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>', *body, "</svg>"]) + "\n"


def shown(curves: Curves) -> tuple[str, float]:
    """What is drawn, and its value for the dense model."""
    if curves.metric is not None:
        return "metric", curves.metric
    return ("accuracy", curves.accuracy) if curves.accuracy is not None else ("divergence", 0.0)


def line(group: Curve, what: str, dense: float) -> list[tuple[float, float]]:
    """The points of a curve, the dense model first; what is no number is left out."""
    points = [(share(group, p), getattr(p, what)) for p in group.points]
    return [(0.0, dense), *((x, float(y)) for x, y in points if y is not None and math.isfinite(y))]


def share(group: Curve, point: Point) -> float:
    """The share of the channels that is really gone."""
    return point.removed / group.channels


def scale(values: Sequence[float], *, logarithmic: bool) -> Axes:
    """Axes with room for all values."""
    if logarithmic:
        return Axes(LEAST, 10.0 ** max(0, math.ceil(math.log10(max([*values, LEAST])))), True)
    low, high = min(values), max(values)
    step = step_of((high - low) or abs(high) or 1.0)
    bottom = math.floor(low / step) * step
    return Axes(bottom, max(math.ceil(high / step), math.floor(low / step) + 1) * step, False)


def step_of(span: float) -> float:
    """1, 2 or 5 times a power of ten, of which about five fit into a span."""
    power = 10.0 ** math.floor(math.log10(span / 5))
    return power * next((n for n in (1, 2, 5) if n * power >= span / 5), 10)


def text(x: float, y: float, content: str, more: str = "") -> str:
    """One line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(words.printable(content))}</text>'


def frame(axes: Axes, title: str, curves: Curves) -> Iterator[str]:
    """Title, grid and labels."""
    yield text(LEFT, 24, f"Each group of {words.shorten(curves.model, 60)} cut alone", ' class="h"')
    yield text(LEFT, 44, f"{title}; channels chosen by {curves.criterion}, {words.plural(curves.samples, 'sample')}")
    for tick in axes.ticks():
        y = axes.y(tick)
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e5e5e5"/>'
        yield text(LEFT - 8, y + 4, f"{tick:.3g}", ' text-anchor="end"')
    for n in range(0, 11, 2):
        yield text(axes.x(n / 10), HEIGHT - BOTTOM + 20, f"{n * 10}%", ' text-anchor="middle"')
    yield text(axes.x(0.5), HEIGHT - 12, "share of the group's channels removed", ' text-anchor="middle"')


def polyline(axes: Axes, points: Sequence[tuple[float, float]], colour: str, width: float) -> str:
    """One curve."""
    path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
    return f'<polyline class="l" points="{path}" stroke="{colour}" stroke-width="{width}"/>'


def names(axes: Axes, found: Sequence[tuple[str, Sequence[tuple[float, float]], str]]) -> Iterator[str]:
    """The names of curves beside their ends, moved apart where they would meet."""
    ends = sorted((axes.y(points[-1][1]), name, colour) for name, points, colour in found)
    y = -math.inf
    for wanted, name, colour in ends:
        y = max(wanted + 4, y + LINE)
        yield text(WIDTH - RIGHT + 12, y, words.shorten(name, NAME), f' style="fill:{colour}"')
