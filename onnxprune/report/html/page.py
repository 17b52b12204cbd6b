"""One HTML file. Law: it holds all it needs, asks the network for nothing, and runs no script but its own.

plotly.js (4.8 MB) and the report travel packed with gzip, which browsers since 2023 unpack; where one cannot, or
scripts are off, the tables still hold everything. The security policy names the scripts by their hashes, so that a name
from a model that slipped through escaping would still do nothing.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.resources import files
from string import Template

from onnxprune.errors import OutputError
from onnxprune.report import words
from onnxprune.report.data import Report
from onnxprune.report.front import Front
from onnxprune.report.html import charts
from onnxprune.report.html.charts import Choice
from onnxprune.report.html.curves import sensitivity
from onnxprune.report.html.figures import Chart
from onnxprune.report.html.markup import Html, details, element, joined, render, text
from onnxprune.report.html.pareto import pareto
from onnxprune.report.html.sections import SECTIONS, Section, sweep
from onnxprune.sensitivity import Curves

MISSING = "an HTML report is drawn with plotly, which is not installed"


def require() -> None:
    """Refuse to promise a page that cannot be drawn.

    Raises:
        OutputError: plotly is missing.
    """
    plotly_js()


def to_html(report: Report, front: Front | None = None) -> str:
    """The whole report as one page.

    Args:
        report: What `make_report` made.
        front: The sweep it came from, shown first of all charts.

    Raises:
        OutputError: plotly is missing.
    """
    found = [section for build in SECTIONS if (section := build(report))]
    if front:
        found.insert(1, sweep(front))
    title = f"{report.model} → {report.output}" if report.output else report.model
    return page("Pruned", title, headline(report), found, report.to_dict(), charts.choices(report))


def front_html(front: Front) -> str:
    """The candidates of a sweep as one page.

    Raises:
        OutputError: plotly is missing.
    """
    chart = pareto(front)
    return page("Sweep", front.model, f"{chart.title}.", [sweep(front)], front.to_dict(), ())


def curves_html(curves: Curves) -> str:
    """A sensitivity analysis as one page.

    Raises:
        OutputError: plotly is missing.
    """
    chart = sensitivity(curves)
    found = [Section("curves", "Sensitivity", charts=(chart,))]
    return page("Sensitivity", curves.model, f"{chart.title}.", found, curves.to_dict(), ())


def headline(report: Report) -> str:
    """The result in one sentence."""
    b, a = report.before, report.after
    parts = [f"{words.change(b.macs, a.macs)} MACs", f"{words.change(b.params, a.params)} parameters"]
    c = report.latency
    speed = "Not timed" if c is None else words.speedup(c).capitalize()
    return f"{speed}. {' and '.join(parts)}."


def page(
    kind: str,
    title: str,
    lead: str,
    sections: Sequence[Section],
    held: Mapping[str, object],
    picks: Sequence[Choice],
) -> str:
    """Put a page together."""
    script, (drawing, digest) = asset("page.js"), library()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {hashed(script)} {digest}"
    drawn = {chart.id: chart.figure for section in sections for chart in section.charts}
    data = {"figures": drawn, "groups": [asdict(pick) for pick in picks]}
    links = (element("li", element("a", s.title, href=f"#{s.id}")) for s in sections)
    return Template(asset("page.html")).substitute(
        policy=text(f"{policy}; base-uri 'none'; form-action 'none'"),
        title=text(f"{kind}: {title}"),
        kind=text(kind),
        heading=text(title),
        lead=text(lead),
        contents=element("ul", *links),
        sections=joined(section_html(s, picks) for s in sections),
        style=asset("page.css"),
        figures=packed(json.dumps(data, allow_nan=False)),
        report=packed(json.dumps(held)),
        library=drawing,
        script=script,
    )


def section_html(section: Section, picks: Sequence[Choice]) -> Html:
    """A section with its charts."""
    head = element("h2", section.title, id=f"{section.id}-title")
    drawn = (chart_html(chart, picks) for chart in section.charts)
    return element(
        "section", head, section.content, *drawn, section.after, id=section.id, aria_labelledby=f"{section.id}-title"
    )


def chart_html(chart: Chart, picks: Sequence[Choice]) -> Html:
    """A chart: its finding, the drawing, how to read it, and the same as a table."""
    heading = element("h3", chart.title, id=f"{chart.id}-finding")
    height = f"min-height:{chart.figure['layout']['height']}px"
    plot = element(
        "div",
        element("p", "The chart is drawn by script; the table below holds the same.", class_="waiting"),
        id=f"{chart.id}-plot",
        class_="plot",
        style=height,
        tabindex=0,
        role="application",
        aria_roledescription="chart",
        aria_labelledby=f"{chart.id}-finding",
        aria_describedby=f"{chart.id}-caption",
        data_chart=chart.id,
    )
    keys = "Arrow keys read it point by point."
    if chart.controls == "zoom":
        keys += " + and - zoom, shift with arrows moves, 0 shows all; once it is clicked, the wheel zooms."
    caption = element("figcaption", f"{chart.caption} ", element("span", keys, class_="keys"), id=f"{chart.id}-caption")
    canvas = element("div", plot, class_="canvas")
    return element("figure", heading, controls(chart, picks), canvas, caption, data(chart))


def controls(chart: Chart, picks: Sequence[Choice]) -> Html | None:
    """What a chart is worked with."""
    if chart.controls == "zoom":
        named = (("in", "Zoom in"), ("out", "Zoom out"), ("all", "Show all"))
        moves = (("left", "← Left"), ("right", "Right →"), ("up", "↑ Up"), ("down", "Down ↓"))
        buttons = (element("button", t, type="button", data_view=v, data_for=chart.id) for v, t in (*named, *moves))
        return element("div", *buttons, class_="controls", role="group", aria_label="View of the graph")
    if chart.controls == "pick":
        options = (element("option", pick.text, value=n) for n, pick in enumerate(picks))
        box = element("select", *options, id="pick")
        return element("div", element("label", "Group ", for_="pick"), box, class_="controls")
    return None


def data(chart: Chart) -> Html | None:
    """The chart's table; of the chart that shows one group, the page makes it."""
    if chart.table is None:
        return details("Data table", element("div", id=f"{chart.id}-table", class_="scroll", tabindex=0))
    return details("Data table", render(chart.table))


def plotly_js() -> str:
    """plotly.js, as the Python package carries it.

    Raises:
        OutputError: The package is missing.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise OutputError(MISSING, remedy="pip install 'onnxprune[html]'") from error
    return str(get_plotlyjs())


def asset(name: str) -> str:
    """A file that lies beside this module."""
    return (files("onnxprune.report.html") / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def library() -> tuple[str, str]:
    """plotly.js, packed, and its hash: the same for every page."""
    script = plotly_js()
    return packed(script), hashed(script)


def packed(content: str) -> str:
    """Text as base64 of gzip, the same each time."""
    return base64.b64encode(gzip.compress(content.encode(), mtime=0)).decode()


def hashed(script: str) -> str:
    """A script as a security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
