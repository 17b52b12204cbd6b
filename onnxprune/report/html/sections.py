"""The sections of the page. Law: each is a pure function of the report, or is left out.

To add one, write `Report -> Section | None` and name it in `SECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from onnxprune.bench import Comparison
from onnxprune.fit import Fitted
from onnxprune.gains import Gains
from onnxprune.report import words
from onnxprune.report.data import Report
from onnxprune.report.front import Front
from onnxprune.report.gains import why
from onnxprune.report.html import charts, network, timing
from onnxprune.report.html.figures import Chart
from onnxprune.report.html.markup import EMPTY, Html, Row, Table, code, details, element, joined, render
from onnxprune.report.html.pareto import pareto


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Attributes:
        id: Of the element, and of its entry in the list of contents.
        title: Its heading.
        content: Markup before the charts.
        charts: Its charts.
        after: Markup after the charts.
    """

    id: str
    title: str
    content: Html = EMPTY
    charts: tuple[Chart, ...] = ()
    after: Html = EMPTY


def summary(report: Report) -> Section:
    """Sizes before and after, speed, proof, and how it was made."""
    cards = element("div", *figures(report), class_="cards")
    rows = [element("div", element("dt", label), element("dd", line)) for label, line in facts(report)]
    return Section("summary", "Summary", joined([cards, element("dl", *rows, class_="facts")]))


def figures(report: Report) -> Iterator[Html]:
    """The cards."""
    b, a = report.before, report.after
    if report.latency:
        c = report.latency
        good = "plain" if not c.significant else "good" if c.speedup > 1 else "bad"
        times = f"{words.milliseconds(c.before_ms)} → {words.milliseconds(c.after_ms)}"
        yield card("speedup", f"{c.speedup:.2f}x", f"{words.interval(c.ci95)}; {times}", good, c.after_ms / c.before_ms)
    yield shrunk("MACs", b.macs, a.macs, words.count)
    yield shrunk("parameters", b.params, a.params, words.count)
    yield shrunk("size", b.bytes, a.bytes, words.size)
    channels = [sum(getattr(g, f"channels_{side}") for g in report.groups) for side in ("before", "after")]
    yield shrunk("channels", channels[0], channels[1], words.count)
    if report.accuracy:
        x, y = report.accuracy["before"], report.accuracy["after"]
        yield card("accuracy", f"{y:.2%}", f"before {x:.2%}; {words.points(x, y)}")
    if report.metric:
        before, after, moved = words.metric(report.metric)
        yield card("metric", after, f"before {before}; {moved}")
    e = report.verified
    sound = e.ok and not e.unproved
    verdict = "failed" if not e.ok else "not proved" if e.unproved else e.kind
    proved = "pruned and masked model agree" if sound else "see below"
    yield card("verified", verdict, proved, "bad" if not sound else "plain" if e.through else "good")


def shrunk(label: str, before: float, after: float, form: Callable[[float], str]) -> Html:
    """A card for something that was to shrink."""
    share = after / before if before else 1.0
    return card(label, words.change(before, after), f"{form(before)} → {form(after)}", "plain", share)


def card(label: str, value: str, line: str, state: str = "plain", share: float | None = None) -> Html:
    """One figure; `share` draws what is left of it. The state is told by a sign, not by colour alone."""
    sign = {"good": "✓ ", "bad": "✗ ", "plain": ""}[state]
    bar = None
    if share is not None:
        inner = element("span", style=f"width:{min(share, 1.0):.2%}")
        bar = element("span", inner, class_="share", aria_hidden="true")
    parts = (element("span", label, class_="label"), element("strong", sign + value), element("span", line))
    return element("div", *parts, bar, class_=f"card {state}")


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """What was proved, timed and asked for, in words."""
    yield "verified", words.verified(report.verified)
    yield from words.approximation(report.verified)
    if report.isolated:
        yield "left whole", words.isolated(report.isolated)
    yield from report.dead.facts() if report.dead else ()
    if report.recovery:
        yield "recovered", words.recovery(report.recovery)
    if pictures := words.samples(report.data):
        yield "images", pictures
    if report.kept is not None:
        yield "importance", words.importance(report.kept)
    if report.latency is None:
        yield "latency", "not measured"
    else:
        yield from measured(report.latency)
        yield "verdict", report.verdict
    if report.fit:
        yield "asked for", words.fitted(report.fit)
    if report.settings:
        yield "settings", words.settings(dict(report.settings))
    single = {key: value for key, value in report.environment.items() if isinstance(value, str | int | float)}
    versions = ", ".join(f"{key} {value}" for key, value in single.items() if value != "")
    yield "environment", f"onnxprune {report.version}" + (f", {versions}" if versions else "")


def measured(c: Comparison) -> Iterator[tuple[str, str]]:
    """What the timing says, how sure that is, and what else was measured."""
    yield "speedup", words.speedup(c)
    for before, after, what in words.throughput(c):
        yield "throughput", f"{before} → {after}, {what}"
    for name, before, after in words.footprints(c):
        yield name, f"{before} → {after}"
    yield "A/A control", words.control(c)
    if moved := words.drift(c):
        yield "drift", moved
    yield "measured on", words.conditions(c)


def latency(report: Report) -> Section | None:
    """How fast, how sure, and how a target in time was met."""
    if report.latency is None:
        return None
    after = trials(report.fit) if report.fit else EMPTY
    return Section("latency", "Latency", charts=tuple(timing.charts(report.latency)), after=after)


def trials(fit: Fitted) -> Html:
    """The plans that were measured on the way to a target."""
    rows = []
    for t in fit.trials:
        figures = (f"{t.predicted:.3f}x", f"{t.speedup:.3f}x", f"{t.ci95[0]:.3f} to {t.ci95[1]:.3f}", f"{t.kept:.1%}")
        rows.append(Row((str(t.plan + 1), *figures)))
    headers = ("plan", "#expected", "#measured", "#95% interval", "#importance kept")
    head = element("h3", f"Asked for {words.fitted(fit)}")
    return joined([head, render(Table("Plans measured on the way to the target", headers, tuple(rows)))])


def gains(report: Report) -> Section | None:
    """Where the time goes, and which layers failed to gain."""
    found = report.gains
    if found is None:
        return None
    rows = [
        Row((o.op, f"{o.count_before} → {o.count_after}", f"{o.ms_before:.3f}", f"{o.ms_after:.3f}"))
        for o in found.operators
    ]
    headers = ("operator", "#count", "#ms before", "#ms after")
    parts = [*failed(found), render(Table("Time per operator as onnxruntime runs it", headers, tuple(rows)))]
    return Section("gains", "Where the time goes", joined([*parts, every(found)]))


def failed(found: Gains) -> Iterator[Html]:
    """The layers that failed to gain, with why and what helps."""
    if not found.failed:
        if found.layers:
            yield element("p", "Every layer whose work shrank gained.")
        return
    yield element("h3", f"{words.plural(len(found.failed), 'layer')} failed to gain")
    rows = []
    for layer in found.failed:
        texts, remedies = why(layer)
        times = (f"{side.ms:.3f}" for side in (layer.pair.before, layer.pair.after))
        names = (layer.pair.node, layer.pair.name)
        rows.append(Row((code(layer.pair.node), *times, "; ".join(texts), "; ".join(remedies)), names))
    headers = ("layer", "#ms before", "#ms after", "why", "remedy")
    yield render(Table("Layers that failed to gain", headers, tuple(rows)))


def every(found: Gains) -> Html | None:
    """All layers, folded away."""
    if not found.layers:
        return None
    rows = []
    for layer in found.layers:
        b, a = layer.pair.before, layer.pair.after
        shapes = (" x ".join(map(str, side.shape)) for side in (b, a))
        names = (layer.pair.node, layer.pair.name)
        rows.append(Row((code(layer.pair.node), *shapes, f"{b.ms:.3f}", f"{a.ms:.3f}"), names))
    headers = ("layer", "shape before", "shape after", "#ms before", "#ms after")
    return details("Layer by layer", render(Table("Time per layer", headers, tuple(rows))))


def channels(report: Report) -> Section | None:
    """What became smaller."""
    chart = charts.channels(report)
    return Section("channels", "Channels", charts=(chart,)) if chart else None


def importance(report: Report) -> Section | None:
    """What was cut, and what it was worth."""
    found = tuple(c for c in (charts.importance(report), charts.cut(report)) if c)
    return Section("importance", "Importance", charts=found) if found else None


def graph(report: Report) -> Section | None:
    """What depends on what."""
    chart = network.chart(report)
    return Section("graph", "Dependency groups", charts=(chart,)) if chart else None


def stayed(report: Report) -> Section | None:
    """Everything that kept its channels, with the reason."""
    parts = [*isolated(report), *noted(report), *held(report)]
    return Section("stayed", "What stayed whole, and why", joined(parts)) if parts else None


def isolated(report: Report) -> Iterator[Html]:
    """Groups that failed verification."""
    if report.isolated:
        yield element("h3", f"{words.plural(len(report.isolated), 'group')} failed verification and stayed whole")
        rows = tuple(Row((code(group), reason), (group,)) for group, reason in report.isolated.items())
        yield render(Table("Groups that failed verification", ("group", "reason"), rows))


def noted(report: Report) -> Iterator[Html]:
    """Groups the planner had to say something about."""
    found = [g for g in report.groups if g.note]
    if found:
        yield element("h3", f"The planner noted something about {words.plural(len(found), 'group')}")
        rows = tuple(Row((code(charts.called(g)), g.note), charts.found_by(g)) for g in found)
        yield details("Notes", render(Table("Notes of the planner", ("group", "note"), rows)))


def held(report: Report) -> Iterator[Html]:
    """Layers that cannot be pruned, by reason and one by one."""
    if not report.frozen:
        return
    counted = words.collapsed([(f.reason, f.whole) for f in report.frozen])
    yield element("h3", f"{words.plural(len(report.frozen), 'layer')} cannot lose some or all of their channels")
    lines = [element("li", element("strong", words.layers(n, whole)), f": {why}") for (why, whole), n in counted]
    yield element("ul", *lines, class_="reasons")
    rows = tuple(Row((code(f.tensor), str(f.axis), code(f.node), f.text), (f.tensor, f.node)) for f in report.frozen)
    headers = ("weight", "#axis", "node", "reason")
    yield details("Layer by layer", render(Table("Layers that stay, whole or in part", headers, rows)))


def sweep(front: Front) -> Section:
    """The candidates of a sweep."""
    return Section("front", "Pareto front", charts=(pareto(front),))


SECTIONS: tuple[Callable[[Report], Section | None], ...] = (
    summary,
    latency,
    gains,
    channels,
    importance,
    graph,
    stayed,
)
