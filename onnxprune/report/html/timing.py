"""The latency charts. Law: an interval is drawn wherever a speedup is named, and the control beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from onnxprune.bench import Comparison
from onnxprune.report import words
from onnxprune.report.html.figures import Chart, Json, hover, intervals, layout, line, merged, points
from onnxprune.report.html.markup import Row, Table

RUNNERS = {"after": "pruned", "before": "dense", "control": "dense again"}
COLOURS = {"before": "--before", "control": "--muted", "after": "--kept"}
DRAWN = 1500  # samples of a runner that are drawn
TAIL = 0.99  # quantile up to which the axis reaches; one stalled round would flatten the rest


def charts(comparison: Comparison) -> Iterator[Chart]:
    """The speedup with its interval, and the times it was made from."""
    yield speedup(comparison)
    if comparison.samples:
        yield distribution(comparison)


def speedup(c: Comparison) -> Chart:
    """The pruned model and the control against the dense model."""
    rows = [("pruned", c.speedup, c.ci95, "--kept"), ("dense again (A/A)", c.control, c.control_ci95, "--muted")]
    values = [value for _, value, _, _ in rows]
    error = intervals(values, [bounds for _, _, bounds, _ in rows], thickness=2.5, width=8, color="--text")
    texts = [hover(name, f"{value:.3f}x", f"95% interval {b[0]:.3f} to {b[1]:.3f}") for name, value, b, _ in rows]
    marker = {"size": 13, "color": [colour for *_, colour in rows]}
    data = [points(values, [1, 0], texts, error_x=error, marker=marker)]
    ends = [1.0, *(bound for _, _, bounds, _ in rows for bound in bounds)]
    room = 0.08 * (max(ends) - min(ends)) + 0.01
    noise = {"type": "rect", "layer": "below", "x0": 1 / (1 + c.margin), "x1": 1 + c.margin, "y0": -0.6, "y1": 1.6}
    shapes = [{**noise, "fillcolor": "--band", "line": {"width": 0}}, line((1, 1), (-0.6, 1.6))]
    ticks = {"tickvals": [1, 0], "ticktext": [name for name, *_ in rows], "range": [-0.6, 1.6], "showgrid": False}
    axis = {"range": [min(ends) - room, max(ends) + room], "ticksuffix": "x"}
    base = merged(layout(190, "speedup over the dense model", shapes=shapes), xaxis=axis, yaxis=ticks)
    caption = (
        "Dot: median of the ratios of paired runs. Bar: bootstrap 95% interval. Grey band: what counts as no "
        f"difference, {c.margin:.1%} either way. The dense model timed against itself should lie on 1."
    )
    return Chart("speedup", words.speedup(c).capitalize(), {"data": data, "layout": base}, caption, table(c))


def table(c: Comparison) -> Table:
    """Speedup and control in figures."""
    rows = (
        Row(("pruned", f"{c.speedup:.3f}x", f"{c.ci95[0]:.3f}", f"{c.ci95[1]:.3f}")),
        Row(("dense again (A/A control)", f"{c.control:.3f}x", f"{c.control_ci95[0]:.3f}", f"{c.control_ci95[1]:.3f}")),
    )
    return Table("Speedup over the dense model", ("model", "#speedup", "#95% from", "#95% to"), rows)


def distribution(c: Comparison) -> Chart:
    """Every sample, with median and percentiles."""
    rows = [(name, np.asarray(c.samples[name])) for name in ordered(c.samples)]
    reach = max(float(np.quantile(times, TAIL)) for _, times in rows)
    low = min(float(times.min()) for _, times in rows)
    room = 0.06 * (reach - low) or 0.05 * reach
    beyond = sum(int((times > reach + room).sum()) for _, times in rows)
    heights = {name: len(rows) - 1 - n for n, (name, _) in enumerate(rows)}
    data = [cloud(name, times, heights[name]) for name, times in rows] + [middles(rows, heights)]
    ticks = {
        "tickvals": list(heights.values()),
        "ticktext": [RUNNERS.get(name, name) for name in heights],
        "range": [-0.6, len(rows) - 0.4],
        "showgrid": False,
    }
    base = layout(110 + 62 * len(rows), "milliseconds for one run")
    base = merged(base, xaxis={"range": [max(0.0, low - room), reach + room]}, yaxis=ticks)
    title = f"Median {words.milliseconds(c.before_ms)} before, {words.milliseconds(c.after_ms)} after"
    caption = f"Each dot is the mean of {words.plural(c.inner, 'run')}. Diamond: median; bar: 10th to 90th percentile."
    if beyond:
        caption += f" {words.plural(beyond, 'slower sample')} lie beyond the right edge and count in all figures."
    return Chart("latency", title, {"data": data, "layout": base}, caption, quantiles(rows))


def ordered(samples: Mapping[str, Sequence[float]]) -> list[str]:
    """Dense, control, pruned, then any others."""
    known = [name for name in ("before", "control", "after") if name in samples]
    return [*known, *(name for name in samples if name not in known)]


def cloud(name: str, times: np.ndarray, height: int) -> Json:
    """The samples of one runner, scattered about their line in a fixed pattern."""
    picked = np.linspace(0, times.size - 1, min(times.size, DRAWN)).round().astype(int)
    spread = (np.arange(picked.size) * 0.618034 % 1 - 0.5) * 0.5  # golden ratio: even, without a random generator
    shown = RUNNERS.get(name, name)
    texts = [hover(shown, f"sample {n + 1}: {words.milliseconds(times[n])}") for n in picked.tolist()]
    marker = {"size": 5, "opacity": 0.45, "color": COLOURS.get(name, "--muted")}
    x, y = times[picked].round(6).tolist(), (height + spread).round(3).tolist()
    return points(x, y, texts, marker=marker, meta="mute")


def middles(rows: Sequence[tuple[str, np.ndarray]], heights: Mapping[str, int]) -> Json:
    """Median and percentiles of each runner."""
    found = [(name, *np.quantile(times, [0.5, 0.1, 0.9]).tolist()) for name, times in rows]
    ends = [(low, high) for _, _, low, high in found]
    error = intervals([mid for _, mid, _, _ in found], ends, thickness=2, width=9, color="--text")
    texts = [
        hover(RUNNERS.get(name, name), f"median {words.milliseconds(mid)}", f"90% below {words.milliseconds(high)}")
        for name, mid, _, high in found
    ]
    marker = {"symbol": "diamond", "size": 12, "color": "--text", "line": {"color": "--card", "width": 1.5}}
    return points([f[1] for f in found], [heights[f[0]] for f in found], texts, error_x=error, marker=marker)


def quantiles(rows: Sequence[tuple[str, np.ndarray]]) -> Table:
    """Percentiles of each runner."""
    levels = (0, 0.1, 0.5, 0.9, 0.99, 1)
    headers = ("model", "#samples", "#fastest", "#10%", "#median", "#90%", "#99%", "#slowest")
    lines = []
    for name, times in rows:
        figures = [words.milliseconds(q) for q in np.quantile(times, levels).tolist()]
        lines.append(Row((RUNNERS.get(name, name), f"{times.size:,}", *figures)))
    return Table("Time of one run", headers, tuple(lines))
