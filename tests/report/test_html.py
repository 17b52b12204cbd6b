"""Laws of the page that need no browser: it is well-formed, complete, closed to the network, and escapes every name."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from itertools import pairwise

import plotly.graph_objects as go
import pytest

from onnxprune.errors import OutputError
from onnxprune.report import Report
from onnxprune.report.html import front_html, require, to_html
from onnxprune.report.html.figures import hover, label
from onnxprune.report.html.markup import ROWS, Row, Table, element, render
from onnxprune.report.html.network import NODES, network
from tests.graphs import ALL
from tests.report.pages import EVIL, Page, front, hostile, scored
from tests.report.runs import fitted, fully_timed, gains, many, odd, run, timed


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(to_html(scored(), front()))


@pytest.mark.parametrize("build", ALL)
def test_every_report_makes_a_proper_page(build: str) -> None:
    read = Page(to_html(run(ALL[build]()).report))
    assert len(read.ids()) == len(set(read.ids()))
    known = set(read.ids())
    for _, held in read.elements:
        for reference in ("aria-labelledby", "aria-describedby", "for"):
            assert reference not in held or held[reference] in known, held


def test_headings_have_an_order(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_chart_has_a_figure_a_caption_and_a_table(page: Page) -> None:
    drawn = page.unpacked("figures")["figures"]
    plots = {held["data-chart"] for _, held in page.elements if "data-chart" in held}
    assert plots == set(drawn) == {"front", "speedup", "latency", "channels", "importance", "cut", "graph"}
    tags = [tag for tag, _ in page.elements]
    assert tags.count("figure") == tags.count("figcaption") == len(plots)
    assert tags.count("details") >= len(plots) and "cut-table" in page.ids()


def test_figures_are_what_plotly_knows(page: Page) -> None:
    def coloured(value: object) -> object:
        if isinstance(value, str):
            return "#123456" if re.fullmatch("--[a-z]+", value) else value
        if isinstance(value, list):
            return [coloured(v) for v in value]
        return {k: coloured(v) for k, v in value.items()} if isinstance(value, dict) else value

    for figure in page.unpacked("figures")["figures"].values():
        go.Figure(coloured(figure))


def test_every_colour_is_defined_in_both_themes(page: Page) -> None:
    text = to_html(scored())
    light, dark = (set(re.findall(r"(--[a-z]+):", block)) for block in re.findall(r":root[^{]*{([^}]*)}", text)[:2])
    assert light == dark and set(re.findall('"(--[a-z]+)"', str(page.unpacked("figures")).replace("'", '"'))) <= light


@pytest.mark.parametrize("report", [scored(), hostile(), odd().report], ids=["scored", "hostile", "odd"])
def test_the_json_within_is_the_report(report: Report) -> None:
    assert Page(to_html(report)).unpacked("report") == report.to_dict()


def test_the_same_report_is_the_same_page() -> None:
    assert to_html(scored()) == to_html(scored())


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    for tag, held in page.elements:
        assert tag not in {"link", "img", "iframe", "object"} and "src" not in held
        assert not str(held.get("href", "#")).strip() or str(held.get("href", "#")).startswith("#")


def test_names_stay_text() -> None:
    read = Page(to_html(hostile(), replace(front(), model=EVIL, folder=EVIL)))
    assert not any(tag in {"img", "b"} or "onerror" in held for tag, held in read.elements)
    shown = EVIL.replace("\n", "\\n")
    assert shown in "".join(read.words)


def test_plotly_is_given_no_markup() -> None:
    assert "<" not in label(EVIL) and "<img" not in hover(EVIL, EVIL) and hover("a", "b") == "<b>a</b><br>b"


def test_elements_escape() -> None:
    assert element("p", "<i>", title='"') == '<p title="&quot;">&lt;i&gt;</p>'
    assert element("td", element("b", "x"), hidden=True, class_=None) == "<td hidden><b>x</b></td>"


def test_the_findings_are_in_words(page: Page) -> None:
    text = "".join(page.words)
    for words in (
        "faster: 1.5",
        "A/A control",
        "95% interval",
        "exact, pruned == masked",
        "metric",
        "model's output",
    ):
        assert words.lower() in text.lower(), words


def test_what_was_not_measured_is_left_out() -> None:
    report = replace(scored(), latency=None, groups=tuple(replace(g, importance=None) for g in scored().groups))
    read = Page(to_html(report))
    assert not {"latency", "importance"} & set(read.ids()) and "not measured" in "".join(read.words)


def test_a_timing_without_samples_still_has_its_interval() -> None:
    read = Page(to_html(replace(scored(), latency=replace(timed(), samples={}))))
    assert "speedup-plot" in read.ids() and "latency-plot" not in read.ids()


def test_a_front_has_a_page_of_its_own() -> None:
    for held in (front(), front(metric=False)):
        read = Page(front_html(held))
        assert read.unpacked("report") == held.to_dict() and list(read.unpacked("figures")["figures"]) == ["front"]


def test_many_groups_stay_in_the_tables_and_the_file_small() -> None:
    report = many(scored(), 1000)
    text = to_html(report)
    read = Page(text)
    assert len(text) < 8_000_000 and "layer999." in text
    assert len(network(report).groups) == NODES and "Not drawn, but in the table" in text
    assert read.unpacked("figures")["figures"]["channels"]["layout"]["height"] < 4000


def test_rows_beyond_the_limit_are_counted() -> None:
    assert "2 more rows are in the JSON" in render(Table("t", ("a",), tuple(Row((str(n),)) for n in range(ROWS + 2))))


def test_groups_stand_apart_and_right_of_what_feeds_them() -> None:
    drawn = network(scored())
    assert len(set(drawn.places.values())) == len(drawn.places)
    assert drawn.places["stem.w"][0] < drawn.places["a1.w"][0] and drawn.places["b1.w"][0] < drawn.places["b2.w"][0]


def test_without_plotly_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(OutputError, match=r"onnxprune\[html\]"):
        require()


def test_layers_that_failed_to_gain_stand_with_reason_and_remedy() -> None:
    read = Page(to_html(replace(scored(), gains=gains())))
    text = " ".join(read.words)
    assert "gains" in read.ids() and "1 layer failed to gain" in text
    assert "5 channels are no multiple of 8" in text and "use --align 8" in text
    without = replace(gains(), layers=gains().layers[1:])
    assert "Every layer whose work shrank gained" in " ".join(Page(to_html(replace(scored(), gains=without))).words)


def test_the_way_to_a_target_is_a_table() -> None:
    text = " ".join(Page(to_html(scored().timed(timed(1.49), fitted()))).words)
    assert "1.50x, met after 2 measurements" in text and "1.380x" in text and "87.4%" in text


def test_everything_that_was_timed_is_on_the_page() -> None:
    text = " ".join(Page(to_html(scored().timed(fully_timed()))).words)
    assert all(what in text for what in ("peak memory", "load", "throughput", "batch 16", "drift", "99%"))
