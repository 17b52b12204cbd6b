"""Pages for the tests of the HTML report, and a parser that holds what they consist of."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from typing import Any

from onnxprune.importance import score
from onnxprune.plan import Target, plan
from onnxprune.report import Report, make_report
from onnxprune.report.data import Frozen
from onnxprune.report.front import Front, Point
from onnxprune.report.html.markup import VOID
from onnxprune.rewrite import removal
from tests.graphs import residual, traced
from tests.report.runs import equal, timed

EVIL = "</script><img src=x onerror=window.evil=1><b>&lt;\"'`\n"


@cache
def scored() -> Report:
    """A timed report with scores."""
    dependencies = traced(residual())
    scores = score(dependencies)
    chosen = plan(dependencies, scores, Target(ratio=0.4))
    removed = chosen.removed(dependencies)
    gone = removal(dependencies, removed)
    names = ("in.onnx", "out.onnx")
    return make_report(dependencies, chosen, removed, gone, equal(), names=names, scores=scores).timed(timed())


@cache
def hostile() -> Report:
    """The same with names and reasons that try to break out."""
    report = scored()
    groups = tuple(
        replace(g, name=f"{EVIL}{g.name}", nodes=tuple(EVIL + n for n in g.nodes), note=EVIL) for g in report.groups
    )
    edges = tuple(
        replace(e, feeds=f"{EVIL}{e.feeds}", into=e.into if e.held else f"{EVIL}{e.into}") for e in report.edges
    )
    frozen = (*report.frozen, Frozen(EVIL, 0, EVIL, EVIL, 1, 1))
    return replace(report, model=EVIL, groups=groups, edges=edges, frozen=frozen, isolated={EVIL: EVIL})


def front(*, metric: bool = True) -> Front:
    """A sweep of five candidates."""
    found = [(1.0 + n / 4, 0.99 - n * n / 100) for n in range(5)]
    points = tuple(
        Point(
            label=f"ratio {n}",
            target=f"--ratio {n}",
            speedup=s,
            ci95=(s - 0.05, s + 0.05),
            macs=1 / s,
            params=1 / s,
            bytes=1000,
            fidelity=q,
            metric=q - 0.1 if metric else None,
            on_front=n != 2,
        )
        for n, (s, q) in enumerate(found)
    )
    objectives = ("speedup", "bytes", "metric" if metric else "fidelity")
    return Front("in.onnx", "folder", points, objectives, "", "1.0")


class Page(HTMLParser):
    """The elements of a page, checked to be nested properly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: dict[str, str] = {}
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID | {"wbr"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.blocks[self.elements[-1][1].get("id") or ""] = data
        elif self.open:
            self.words.append(data)

    def ids(self) -> list[str]:
        return [held["id"] or "" for _, held in self.elements if "id" in held]

    def unpacked(self, block: str) -> Any:
        return json.loads(gzip.decompress(base64.b64decode(self.blocks[block])))
