"""Views for a terminal. Law: they show what the JSON holds, shortened but never rounded in the project's favour.

Every function here returns something to print with rich; what is shown adapts to the console's width and encoding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from onnxprune.bench import Comparison
from onnxprune.report import words
from onnxprune.report.canvas import Canvas, View
from onnxprune.report.data import Frozen, GroupReport, Report
from onnxprune.report.gains import failures
from onnxprune.report.inspection import AxisView, GroupSummary, Inspection, Reason, Why, inspect_dict, inspection, why
from onnxprune.report.operators import ops_markdown, ops_rows
from onnxprune.trace import Dependencies
from onnxprune.verify import Equivalence

ROWS = 40  # groups shown before the rest is counted
REASONS = 12
BARE = 28  # cells for names; with fewer, the bars give way

__all__ = ["comparison_view", "inspect_dict", "inspect_view", "ops_markdown", "ops_view", "report_view", "why_view"]


def report_view(report: Report) -> View:
    """What a run did: summary, groups, and what stayed."""

    def draw(canvas: Canvas) -> Iterator[RenderableType]:
        title = f"{report.model} {canvas.arrow} {report.output}" if report.output else report.model
        yield canvas.panel(title, canvas.facts(summary(canvas, report)))
        yield from group_table(canvas, report.groups)
        yield from failures(canvas, report.gains)
        yield from reasons(canvas, report.frozen)

    return View(draw)


def comparison_view(comparison: Comparison) -> View:
    """What a timing found."""

    def draw(canvas: Canvas) -> Iterator[RenderableType]:
        rows = [*latency(canvas, comparison)]
        if cpu := comparison.environment.get("cpu"):
            rows.append(("processor", canvas.text(str(cpu))))
        yield canvas.panel("latency", canvas.facts(rows))

    return View(draw)


def summary(canvas: Canvas, report: Report) -> Iterator[tuple[str, Text]]:
    """The facts in the panel of a report."""
    b, a = report.before, report.after
    channels = [sum(g.channels_before for g in report.groups), sum(g.channels_after for g in report.groups)]
    pairs = [(channels[0], channels[1]), (b.params, a.params), (b.macs, a.macs), (b.bytes, a.bytes)]
    forms = [words.count, words.count, words.count, words.size]
    lines = canvas.arrows([(form(x), form(y)) for form, (x, y) in zip(forms, pairs, strict=True)])
    for name, line, (x, y) in zip(("channels", "parameters", "MACs", "size"), lines, pairs, strict=True):
        yield name, canvas.text(f"{line}  {words.change(x, y):>7}")
    if report.accuracy:
        right = report.accuracy["before"], report.accuracy["after"]
        yield "accuracy", canvas.text(f"{right[0]:.2%} {canvas.arrow} {right[1]:.2%}  {words.points(*right)}")
    if report.metric:
        before, after, moved = words.metric(report.metric)
        yield "metric", canvas.text(f"{before} {canvas.arrow} {after}  {moved}")
    if report.kept is not None:
        yield "importance", canvas.text(words.importance(report.kept))
    yield "verified", canvas.text(words.verified(report.verified), verdict_style(report.verified))
    yield from ((name, canvas.text(line)) for name, line in words.approximation(report.verified))
    for name, line in report.dead.facts() if report.dead else ():
        yield name, canvas.text(line, "green" if report.lossless else "")
    if report.recovery:
        yield "recovered", canvas.text(words.recovery(report.recovery), "green")
    if pictures := words.samples(report.data):
        yield "images", canvas.text(pictures, "dim")
    if report.isolated:
        yield "left whole", canvas.text(words.isolated(report.isolated), "yellow")
    if report.latency is None:
        yield "latency", canvas.text("not measured")
    else:
        yield from latency(canvas, report.latency)
        if report.fit:
            yield "asked for", canvas.text(words.fitted(report.fit))
        yield "verdict", canvas.text(report.verdict, "green" if report.verdict == "faster" else "yellow")
    if report.settings:
        yield "settings", canvas.text(words.settings(dict(report.settings)), "dim")


def verdict_style(e: Equivalence) -> str:
    """Green for what is proved to be the same, yellow for what is proved to be an approximation."""
    return "bold red" if not e.ok or e.unproved else "yellow" if e.through else "green"


def latency(canvas: Canvas, c: Comparison) -> Iterator[tuple[str, Text]]:
    """Times, what they say, and what the same timing says of two identical models."""
    style = "yellow" if not c.significant else "green" if c.speedup > 1 else "red"
    found = words.percentiles(c)
    lines = canvas.arrows([(words.milliseconds(x), words.milliseconds(y)) for _, x, y in found])
    for n, (line, (what, _, _)) in enumerate(zip(lines, found, strict=True)):
        yield "" if n else "latency", canvas.text(f"{line}  {what}")
    yield "speedup", canvas.text(words.speedup(c), style)
    yield "A/A control", canvas.text(words.control(c), "" if c.control_ok else "yellow")
    rates = words.throughput(c)
    for n, (line, (_, _, what)) in enumerate(zip(canvas.arrows([r[:2] for r in rates]), rates, strict=True)):
        yield "" if n else "throughput", canvas.text(f"{line}  {what}")
    for name, before, after in words.footprints(c):
        yield name, canvas.text(f"{before} {canvas.arrow} {after}")
    if moved := words.drift(c):
        yield "drift", canvas.text(moved, "yellow" if c.drifting else "dim")
    yield "measured on", canvas.text(words.conditions(c), "dim")


def group_table(canvas: Canvas, groups: Sequence[GroupReport]) -> Iterator[RenderableType]:
    """Channels and work of every group; the planner's notes are numbered and stand below."""
    shown = groups[:ROWS]
    notes = list(dict.fromkeys(g.note for g in shown if g.note))
    channels = canvas.arrows([(str(g.channels_before), str(g.channels_after)) for g in shown])
    work = canvas.arrows([(words.count(g.macs_before), words.count(g.macs_after)) for g in shown])
    marks = [str(notes.index(g.note) + 1) if g.note else "" for g in shown]
    bars = [canvas.bar(g.channels_after / max(1, g.channels_before)) for g in shown]
    columns = [["channels", *channels], ["kept", *bars], ["MACs", *work], ["note", *marks]][: 4 if notes else 3]
    if canvas.rest(columns) < BARE:
        del columns[1]
    room = canvas.rest(columns)
    table = canvas.table([("group (+ coupled layers)"[:room], "left"), *((c[0], "right") for c in columns)])
    names = canvas.names([words.label(g.name, g.nodes) for g in shown], [coupled(g) for g in shown], room)
    for g, *cells in zip(shown, names, *(c[1:] for c in columns), strict=True):
        table.add_row(*cells, style="" if g.channels_after < g.channels_before else "dim")
    if groups:
        yield table
    yield from more(canvas, len(groups) - len(shown), "group", "see --report")
    yield from (canvas.text(f"note {n}: {note}", "dim") for n, note in enumerate(notes, 1))


def coupled(group: GroupReport) -> str:
    """How many further layers are pruned together with the one that names the group."""
    others = len(group.sources) - 1
    return f" +{others}" if others else ""


def more(canvas: Canvas, count: int, noun: str, where: str) -> Iterator[Text]:
    """What was left out of a table."""
    if count > 0:
        yield canvas.text(f"... and {words.plural(count, f'more {noun}')} ({where})", "dim")


def reasons(canvas: Canvas, frozen: Iterable[Frozen], where: str = "see --report") -> Iterator[RenderableType]:
    """What stays, counted by reason, the most frequent first."""
    counted = words.collapsed([(f.reason, f.whole) for f in frozen])
    if not counted:
        return
    yield Text("")
    yield Text("Cannot be pruned", style="bold")
    rows = [(words.layers(n, whole), canvas.text(reason)) for (reason, whole), n in counted[:REASONS]]
    yield canvas.facts(rows)
    yield from more(canvas, len(counted) - REASONS, "reason", where)


def inspect_view(dependencies: Dependencies) -> View:
    """What can be pruned in a model, and why the rest cannot."""
    found = inspection(dependencies)

    def draw(canvas: Canvas) -> Iterator[RenderableType]:
        yield canvas.panel(found.model, canvas.facts(model_facts(canvas, found)))
        yield from summary_table(canvas, found.groups)
        yield from reasons(canvas, found.frozen, "see --json")

    return View(draw)


def model_facts(canvas: Canvas, found: Inspection) -> Iterator[tuple[str, Text]]:
    """The facts in the panel of an inspection."""
    for name, ports in (("inputs", found.inputs), ("outputs", found.outputs)):
        for n, (port, kind) in enumerate(ports.items()):
            yield "" if n else name, canvas.text(f"{port}: {kind}")
    yield "operator sets", canvas.text(", ".join(f"{domain} {number}" for domain, number in found.opsets.items()))
    yield "nodes", canvas.text(f"{found.nodes:,}")
    yield "parameters", canvas.text(f"{words.count(found.cost.params)} ({words.size(found.cost.bytes)})")
    counted = "a sample, with open sizes counted as 1" if found.open_sizes else "a sample"
    yield "MACs", canvas.text(f"{words.count(found.cost.macs)} {counted}")
    yield "prunable", canvas.text(prunable(found))
    yield "dead units", canvas.text(words.dead(found.dead), "yellow" if found.dead else "")
    if found.through:
        kinds = Counter(found.through.values())
        yield "through", canvas.text(f"{', '.join(f'{n} {k}' for k, n in kinds.items())}: approximate", "yellow")
    if found.unknown:
        yield "no rule for", canvas.text(", ".join(f"{kind} ({n})" for kind, n in found.unknown.items()))


def prunable(found: Inspection) -> str:
    """How much can be pruned, or that nothing can."""
    if not found.groups:
        layers = words.plural(len(found.frozen), "layer")
        return f"nothing: {layers} held" if found.frozen else "nothing: no traced Conv, Gemm or MatMul with weights"
    channels = words.plural(sum(g.channels for g in found.groups), "channel")
    return f"{channels} in {words.plural(len(found.groups), 'group')}"


def summary_table(canvas: Canvas, groups: Sequence[GroupSummary]) -> Iterator[RenderableType]:
    """The groups of an inspection; rows are shown as 'rows x width'."""
    shown = groups[:ROWS]
    columns = [
        ["channels", *(str(g.channels) for g in shown)],
        ["layers", *(str(len(g.sources)) for g in shown)],
        ["MACs", *(words.count(g.macs) for g in shown)],
        ["equal rows", *(words.rows(g.rows) for g in shown)],
    ][: 4 if any(g.rows for g in shown) else 3]
    room = canvas.rest(columns)
    table = canvas.table([("group", "left"), *((c[0], "right") for c in columns)])
    names = canvas.names([words.label(g.name, g.nodes) for g in shown], [""] * len(shown), room)
    for cells in zip(names, *(c[1:] for c in columns), strict=True):
        table.add_row(*cells)
    if groups:
        yield table
    yield from more(canvas, len(groups) - len(shown), "group", "see --json")


def why_view(dependencies: Dependencies, name: str) -> View:
    """Why a tensor, or what a node touches, can or cannot shrink.

    Raises:
        ModelError: Nothing has that name; the message names the nearest.
    """
    found = why(dependencies, name)
    return View(lambda canvas: draw_why(canvas, found))


def draw_why(canvas: Canvas, found: Why) -> Iterator[RenderableType]:
    """The node, if it is one, then every tensor axis by axis."""
    if found.operator:
        yield canvas.text(f"{found.name}: {found.operator}", "bold")
        yield canvas.text(f"rule: {found.rule or 'none, so it freezes everything it touches'}", "dim")
    for tensor in found.tensors:
        if tensor.axes is None:
            yield canvas.text(f"{tensor.tensor}: {tensor.role} of unknown rank, never sliced", "bold")
            continue
        shape = " x ".join("?" if axis.size is None else str(axis.size) for axis in tensor.axes) or "scalar"
        yield canvas.text(f"{tensor.tensor}: {tensor.role}, {shape}", "bold")
        yield canvas.facts((f"  axis {axis.axis}", axis_text(canvas, tensor.tensor, axis)) for axis in tensor.axes)


def axis_text(canvas: Canvas, tensor: str, axis: AxisView) -> Text:
    """The groups of one axis, and the reasons for what stays, a line each."""
    total = sum(axis.groups.values()) + sum(r.held for r in axis.frozen)
    lines = [
        canvas.text(f"{part(n, total)}can shrink, in group '{group}'", "green") for group, n in axis.groups.items()
    ]
    lines += [
        canvas.text(f"{part(r.held, total)}fixed: {r.reason}{place(r, tensor, axis.axis)}", "yellow")
        for r in axis.frozen
    ]
    return Text("\n").join(lines) if lines else canvas.text("empty")


def part(n: int, total: int) -> str:
    """'4 of 16 ', or nothing where it is all of them."""
    return f"{n} of {total} " if n < total else ""


def place(r: Reason, tensor: str, axis: int) -> str:
    """Where a reason was met, unless that is the very axis it is told for."""
    here = (r.tensor, r.axis) == (tensor, axis) or not r.tensor
    spots = [f"node '{r.node}'" if r.node else "", "" if here else f"tensor '{r.tensor}'"]
    spots += [f"axis {r.axis}"] if r.axis >= 0 and not here else []
    return f" ({', '.join(filter(None, spots))})" if any(spots) else ""


def ops_view() -> View:
    """The operators with a rule; those that share one stand together."""

    def draw(canvas: Canvas) -> Iterator[RenderableType]:
        together: dict[tuple[str, str, str], list[str]] = {}
        for o in ops_rows():
            together.setdefault((o.family, o.domain, o.summary), []).append(o.operator)
        table = canvas.table([(header, "left") for header in ("family", "operators", "how labels pass")])
        for (family, domain, passes), operators in together.items():
            origin = "" if domain == "ai.onnx" else f"{domain}: "
            table.add_row(*(canvas.text(cell) for cell in (family, origin + ", ".join(operators), passes)))
        yield table

    return View(draw)
