"""`--html` on the command line. Law: promised before any work, written when the report is, whole or not at all."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from onnxprune.report import html
from tests import graphs
from tests.contract import onnxprune, prune, snapshot, stored
from tests.report.pages import Page


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return stored(graphs.residual(), tmp_path)


def test_prune_and_apply_write_the_page(model: Path) -> None:
    page, plan, replayed = (model.with_name(name) for name in ("r.html", "p.json", "again.html"))
    report = model.with_name("r.json")
    assert onnxprune(*prune(model, "--html", page, "--report", report, "--plan-out", plan)).code == 0
    held = Page(page.read_text(encoding="utf-8")).unpacked("report")
    assert held == json.loads(report.read_text(encoding="utf-8")) and held["groups"][0]["importance"]
    done = onnxprune("apply", model, plan, "-o", model.with_name("b.onnx"), "--no-bench", "--html", replayed)
    assert done.code == 0
    assert Page(replayed.read_text(encoding="utf-8")).unpacked("report")["groups"] == held["groups"]


def test_a_page_may_not_replace_a_file_of_the_run(model: Path) -> None:
    before = snapshot(model.parent)
    for path in (model, model.with_name("r.json"), model.parent):
        assert onnxprune(*prune(model, "--report", model.with_name("r.json"), "--html", path)).code == 1
    assert snapshot(model.parent) == before


def test_without_plotly_nothing_is_done(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(model.parent)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    done = onnxprune(*prune(model, "--html", model.with_name("r.html")))
    assert done.code == 1 and "onnxprune[html]" in done.err and snapshot(model.parent) == before


def test_a_page_that_cannot_be_made_leaves_the_old_one(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = model.with_name("r.html")
    page.write_text("old")

    def fail(report: object) -> str:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(html, "to_html", fail)
    assert onnxprune(*prune(model, "--html", page)).code == 1 and page.read_text() == "old"
