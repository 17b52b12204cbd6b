"""Laws of the terminal views: nothing wider than the terminal, ASCII where it must be, nothing left unsaid."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from onnxprune.errors import ModelError
from onnxprune.report import terminal
from onnxprune.rules import RULES
from tests.graphs import ALL, traced
from tests.report.runs import NASTY, equal, fully_timed, group, many, odd, run, timed


def shown(view: RenderableType, width: int = 100, encoding: str = "utf-8") -> str:
    """What a pipe of that width and encoding receives; characters it lacks are an error."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline="")
    Console(file=file, width=width, highlight=False).print(view)
    file.flush()
    return raw.getvalue().decode(encoding)


VIEWS: dict[str, Callable[[], RenderableType]] = {
    "report": lambda: terminal.report_view(odd().report),
    "long": lambda: terminal.report_view(many(odd().report, 60)),
    "bench": lambda: terminal.comparison_view(timed()),
    "bench in processes": lambda: terminal.comparison_view(fully_timed()),
    "inspect": lambda: terminal.inspect_view(odd().dependencies),
    "why": lambda: terminal.why_view(odd().dependencies, "held"),
    "why node": lambda: terminal.why_view(odd().dependencies, "nasty"),
    "ops": terminal.ops_view,
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_views_fit_any_terminal(view: str, width: int, encoding: str) -> None:
    text = shown(VIEWS[view](), width, encoding)
    assert text and all(len(line) <= width for line in text.splitlines())
    assert "\x1b" not in text and (encoding == "utf-8" or text.isascii())


@pytest.mark.parametrize("build", ALL)
def test_every_group_is_in_the_table(build: str) -> None:
    done = run(ALL[build]())
    text = shown(terminal.report_view(done.report), 160)
    for entry in done.report.groups:
        line = next(line for line in text.splitlines() if line.startswith(entry.name))
        assert re.search(rf" {entry.channels_before} → +{entry.channels_after} ", line)
    assert all(g.name in shown(terminal.inspect_view(done.dependencies), 160) for g in done.report.groups)


def test_many_groups_are_cut_and_counted() -> None:
    text = shown(terminal.report_view(many(odd().report, 60)))
    assert "layer39.weight" in text and "layer40.weight" not in text
    assert "... and 20 more groups (see --report)" in text


def test_the_summary_says_what_was_verified_and_timed() -> None:
    report = odd().report
    text = shown(terminal.report_view(report), 120)
    for words in ("in.onnx → out.onnx", "parameters", "MACs", "exact, pruned == masked on 4 batches", "faster: 1.5"):
        assert words in text
    assert "A/A control" in text and "95% interval" in text and "2 threads" in text
    assert "not measured" in shown(terminal.report_view(replace(report, latency=None)))
    assert "FAILED" in shown(terminal.report_view(replace(report, verified=equal(ok=False))))
    accurate = replace(report, accuracy={"before": 0.99, "after": 0.985})
    assert "99.00% → 98.50%  -0.50 points" in shown(terminal.report_view(accurate))


MEASURED = {
    "99th percentile": "99th percentile",
    "throughput": "812.3/s → 1,630/s batch 16: 2.01x, 95% interval 1.98 to 2.04",
    "load": "35.17 ms → 23.42 ms",
    "peak memory": "9.138 MB → 3.514 MB",
    "drift": "1 process repeated; 1 of 5 drifted while timed (rank correlation -0.70)",
    "measured on": "float16, 2 threads, batch 1, 50 rounds of 4 in 5 fresh processes on core 0, 1",
}


@pytest.mark.parametrize("name", MEASURED)
def test_what_was_measured_beside_the_latency_is_shown_and_what_was_not_is_not(name: str) -> None:
    full, bare = (" ".join(shown(terminal.comparison_view(c()), 140).split()) for c in (fully_timed, timed))
    assert MEASURED[name] in full and (MEASURED[name] in bare) == (name == "99th percentile")


def test_no_difference_is_said() -> None:
    assert "no significant difference" in shown(terminal.comparison_view(timed(1.0)))


def test_what_stays_is_counted_by_reason() -> None:
    report = odd().report
    text = shown(terminal.report_view(replace(report, frozen=report.frozen * 3)))
    assert "3 layers" in text and "LayerNormalization" in text and "3 layers in part" in text


def test_notes_stand_below_the_table_once() -> None:
    report = replace(odd().report, groups=tuple(group(n, note="left whole: because") for n in "abc"))
    text = shown(terminal.report_view(report))
    assert text.count("left whole: because") == 1 and "note 1: left whole: because" in text


def test_groups_whose_short_names_would_look_alike_are_told_apart() -> None:
    names = [f"model.encoder.stage.of.many.layers.{n}.attention.query.projection.{n}.weight" for n in range(20)]
    report = replace(odd().report, groups=tuple(group(n) for n in names))
    lines = shown(terminal.report_view(report), 80).splitlines()
    rows = [line.split(" ")[0] for line in lines if line.endswith("1,000 → 500")]
    assert len(rows) == len(set(rows)) == 20


def test_a_name_cannot_write_to_the_terminal() -> None:
    text = shown(terminal.why_view(odd().dependencies, NASTY))
    assert "[red]" in text and "\\x1b" in text and "\x1b" not in text


def test_why_tells_each_axis() -> None:
    text = shown(terminal.why_view(odd().dependencies, "held"), 160)
    assert "held: weight, 6 x 8 x 1 x 1" in text
    assert "4 of 6 can shrink, in group 'held'" in text and "2 of 6 fixed: the model's output" in text
    assert "fixed: kernel taps (node 'middle')" in text
    node = shown(terminal.why_view(odd().dependencies, "middle"), 160)
    assert "middle: Conv" in node and "groups.r: activation" in node


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"no tensor or node is called 'stem\.v'.*did you mean 'stem\.w'"):
        terminal.why_view(odd().dependencies, "stem.v")
    with pytest.raises(ModelError, match="names look like"):
        terminal.inspect_dict(odd().dependencies, "zzzzzzzzzzzzzzzz")


def test_inspection_as_json() -> None:
    dependencies = odd().dependencies
    read = terminal.inspect_dict(dependencies)
    assert json.loads(json.dumps(read)) == read
    assert read["inputs"] == {"x": "float [N, 3, 8, 8]"} and read["opsets"] == {"ai.onnx": 17}
    one = terminal.inspect_dict(dependencies, "held")
    assert json.loads(json.dumps(one)) == one


def test_every_axis_of_every_tensor_has_an_answer() -> None:
    for build in ALL.values():
        dependencies = traced(build())
        for name in dependencies.labels:
            read = json.loads(json.dumps(terminal.inspect_dict(dependencies, name)))
            axes = [axis for tensor in read["tensors"] for axis in tensor["axes"]]
            assert all(axis["groups"] or axis["frozen"] for axis in axes), name


def test_operators_are_the_registry() -> None:
    text = shown(terminal.ops_view(), 100)
    markdown = terminal.ops_markdown()
    assert len(markdown.splitlines()) == len(RULES) + 2
    for domain, name in RULES:
        assert name in text and f"| {domain or 'ai.onnx'} | {name} |" in markdown
