"""Laws of the Markdown: all of the report, and no name breaks a table."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from onnxprune.report.markdown import code, escaped, row, to_markdown
from tests.graphs import ALL
from tests.report.pages import hostile
from tests.report.runs import NASTY, fully_timed, group, many, odd, run, timed


def tables(text: str) -> list[list[str]]:
    """The rows of each table."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def cells(line: str) -> int:
    """Number of cells: bars that are not escaped, less one."""
    return len(re.findall(r"(?<!\\)\|", line)) - 1


@pytest.mark.parametrize("build", ALL)
def test_every_group_is_mentioned(build: str) -> None:
    report = run(ALL[build]()).report
    text = to_markdown(report)
    assert all(f"`{g.name}`" in text for g in report.groups)


def test_every_row_has_the_cells_of_its_header() -> None:
    report = odd().report
    report = replace(report, groups=(*report.groups, group(NASTY, note="a | b\n| c")))
    found = tables(to_markdown(report))
    assert len(found) == 2
    for table in found:
        assert {cells(line) for line in table} == {cells(table[0])}


def test_it_says_what_the_terminal_says() -> None:
    report = odd().report
    text = to_markdown(replace(report, accuracy={"before": 0.99, "after": 0.985}))
    for words in (
        "**Verified:** exact",
        "faster: 1.5",
        "A/A control",
        "| accuracy | 99.00% | 98.50% |",
        "**Settings:**",
    ):
        assert words in text
    assert "LayerNormalization" in text and "1 layer in part" in text
    assert "**Latency:** not measured" in to_markdown(replace(report, latency=None))
    assert "no significant difference" in to_markdown(replace(report, latency=timed(1.0)))


def test_many_groups_are_cut_and_counted() -> None:
    text = to_markdown(many(odd().report, 130))
    assert "`layer99.weight`" in text and "`layer100.weight`" not in text and "... and 30 more groups" in text


def test_code_spans_hold_any_name() -> None:
    assert code("conv1.weight") == "`conv1.weight`"
    assert code("a|b") == "`a\\|b`"
    assert code("a`b") == "`` a`b ``" and code("a``b`") == "``` a``b` ```"
    assert "\n" not in code(NASTY) and cells(row(code(NASTY))) == 1


def test_text_means_itself() -> None:
    assert escaped("a|b <i> *x* _y_ `z`") == "a\\|b \\<i> \\*x\\* \\_y\\_ \\`z\\`"
    assert "\n" not in escaped("a\nb")


def test_importance_has_a_column_where_it_is_known() -> None:
    with_scores, without = (tables(to_markdown(report))[1] for report in (hostile(), odd().report))
    assert "importance kept" in with_scores[0] and "importance" not in without[0]
    assert {cells(line) for line in with_scores} == {6} and re.search(r"\| \d+\.\d% \|", with_scores[2])


def test_what_was_measured_beside_the_latency_is_in_the_table_and_the_findings() -> None:
    text = to_markdown(replace(odd().report, latency=fully_timed()))
    for words in (
        "| 99th percentile |",
        "| load | 35.17 ms | 23.42 ms |",
        "| peak memory | 9.138 MB | 3.514 MB |",
        "**Throughput:** 812.3/s → 1,630/s, batch 16: 2.01x",
        "**Drift:** 1 process repeated; 1 of 5 drifted",
        "in 5 fresh processes on core 0, 1",
    ):
        assert words in text
    assert "Drift" not in to_markdown(odd().report) and "Throughput" not in to_markdown(odd().report)
