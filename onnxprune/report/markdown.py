"""The report as Markdown, to paste into a pull request. Law: no name or reason can break out of its cell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from onnxprune.bench import Comparison
from onnxprune.gains import Gains
from onnxprune.report import words
from onnxprune.report.data import Frozen, GroupReport, Report
from onnxprune.report.gains import why

ROWS = 100  # a comment on a pull request may have 65,536 characters
SPECIAL = re.compile(r"([\\`*_{}\[\]<|~#&])")


def to_markdown(report: Report) -> str:
    """The whole report.

    Args:
        report: What `make_report` made.
    """
    title = f"{code(report.model)} → {code(report.output)}" if report.output else code(report.model)
    parts = [
        f"## Pruned: {title}",
        "\n".join(figures(report)),
        "\n".join(findings(report)),
        "\n".join(groups(report.groups)),
        "\n".join(slow(report.gains)),
        "\n".join(kept(report.frozen)),
        f"<sub>onnxprune {escaped(report.version)}{environment(report)}</sub>",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def figures(report: Report) -> Iterator[str]:
    """The table of sizes, before and after."""
    b, a = report.before, report.after
    before, after = (sum(getattr(g, f"channels_{side}") for g in report.groups) for side in ("before", "after"))
    yield row("", "before", "after", "change")
    yield row("---", "---:", "---:", "---:")
    yield row("channels", f"{before:,}", f"{after:,}", words.change(before, after))
    yield row("parameters", f"{b.params:,}", f"{a.params:,}", words.change(b.params, a.params))
    yield row("MACs", words.count(b.macs), words.count(a.macs), words.change(b.macs, a.macs))
    yield row("size", words.size(b.bytes), words.size(a.bytes), words.change(b.bytes, a.bytes))
    if report.accuracy:
        x, y = report.accuracy["before"], report.accuracy["after"]
        yield row("accuracy", f"{x:.2%}", f"{y:.2%}", words.points(x, y))
    if report.metric:
        yield row("metric", *words.metric(report.metric))
    if report.latency:
        for name, x, y in words.percentiles(report.latency):
            title = f"{name} latency" if name == "median" else name
            yield row(title, words.milliseconds(x), words.milliseconds(y), words.change(x, y))
        yield from (row(name, x, y, "") for name, x, y in words.footprints(report.latency))


def findings(report: Report) -> Iterator[str]:
    """What was verified, timed and asked for."""
    yield f"- **Verified:** {escaped(words.verified(report.verified))}"
    for group, reason in report.isolated.items():
        yield f"- **Left whole:** {code(group)}: {escaped(reason)}"
    for name, line in words.approximation(report.verified):
        yield f"- **{name.capitalize()}:** {escaped(line)}"
    for name, line in report.dead.facts() if report.dead else ():
        yield f"- **{name.capitalize()}:** {escaped(line)}"
    if report.recovery:
        yield f"- **Recovered:** {words.recovery(report.recovery)}"
    if pictures := words.samples(report.data):
        yield f"- **Images:** {escaped(pictures)}"
    if report.kept is not None:
        yield f"- **Importance:** {words.importance(report.kept)}"
    yield from latency(report.latency)
    if report.fit:
        yield f"- **Asked for:** {words.fitted(report.fit)}"
    yield f"- **Verdict:** {report.verdict}"
    if report.settings:
        yield f"- **Settings:** {escaped(words.settings(dict(report.settings)))}"


def latency(comparison: Comparison | None) -> Iterator[str]:
    """What the timing says, with its control."""
    if comparison is None:
        yield "- **Latency:** not measured"
        return
    yield f"- **Speedup:** {words.speedup(comparison)}"
    yield f"- **A/A control** (the dense model against itself): {words.control(comparison)}"
    for before, after, what in words.throughput(comparison):
        yield f"- **Throughput:** {before} → {after}, {what}"
    if moved := words.drift(comparison):
        yield f"- **Drift:** {moved}"
    yield f"- **Measured on:** {escaped(words.conditions(comparison))}"


def groups(found: Sequence[GroupReport]) -> Iterator[str]:
    """Every group, folded away where there are many."""
    if not found:
        return
    yield from (f"<details><summary>{words.plural(len(found), 'group')}</summary>", "")
    ranked = any(g.importance for g in found)
    yield row("group", "layers", "channels", "MACs", *(["importance kept"] if ranked else []), "note")
    yield row("---", "---:", "---:", "---:", *(["---:"] if ranked else []), "---")
    for g in found[:ROWS]:
        name = code(words.label(g.name, g.nodes))
        channels = f"{g.channels_before} → {g.channels_after}"
        work = f"{words.count(g.macs_before)} → {words.count(g.macs_after)}"
        share = [f"{g.importance.share:.1%}" if g.importance else "-"] if ranked else []
        yield row(name, str(len(g.sources)), channels, work, *share, escaped(g.note))
    if len(found) > ROWS:
        yield from ("", f"... and {words.plural(len(found) - ROWS, 'more group')} (see the JSON report)")
    yield from ("", "</details>")


def slow(found: Gains | None) -> Iterator[str]:
    """The layers that failed to gain, and why."""
    if found is None or not found.failed:
        return
    yield from ("**Layers that failed to gain**", "")
    yield from (row("layer", "before", "after", "why", "remedy"), row("---", "---:", "---:", "---", "---"))
    for layer in found.failed[:ROWS]:
        times = [words.milliseconds(side.ms) for side in (layer.pair.before, layer.pair.after)]
        yield row(code(layer.pair.node), *times, *(escaped("; ".join(texts)) for texts in why(layer)))
    if len(found.failed) > ROWS:
        yield from ("", f"... and {words.plural(len(found.failed) - ROWS, 'more layer')} (see the JSON report)")


def kept(frozen: Sequence[Frozen]) -> Iterator[str]:
    """What stays, counted by reason."""
    counted = words.collapsed([(f.reason, f.whole) for f in frozen])
    if counted:
        yield from ("**Cannot be pruned**", "")
    for (reason, whole), n in counted[:ROWS]:
        yield f"- {words.layers(n, whole)}: {escaped(reason)}"


def environment(report: Report) -> str:
    """Software and processor on one line."""
    held = report.environment
    versions = [f"{name} {held[name]}" for name in ("onnx", "onnxruntime", "numpy", "python") if name in held]
    return "".join(f", {escaped(str(part))}" for part in [*versions, *([held["cpu"]] if held.get("cpu") else [])])


def row(*cells: str) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Text that means itself, in a table cell too."""
    return SPECIAL.sub(r"\\\1", words.printable(text))


def code(name: str) -> str:
    """A name in a code span. Backticks in it make the fence longer; a table reads `|` even there, so it is escaped."""
    shown = words.printable(name).replace("|", "\\|") or " "
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{shown}{space}{fence}"
