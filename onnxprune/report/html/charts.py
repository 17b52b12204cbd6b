"""Channels and importance. Law: a chart's title is its finding, its table holds what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.report import words
from onnxprune.report.coupling import Importance
from onnxprune.report.data import GroupReport, Report
from onnxprune.report.html.figures import (
    NAME,
    Chart,
    Json,
    hover,
    label,
    layout,
    legend,
    line,
    merged,
    points,
)
from onnxprune.report.html.markup import Row, Table, code
from onnxprune.report.html.network import describe

BARS = 160  # groups with a bar
DOTS = 2000


def called(group: GroupReport) -> str:
    """What a group is called."""
    return words.label(group.name, group.nodes)


def found_by(group: GroupReport) -> tuple[str, ...]:
    """What a search finds a group by."""
    return (group.name, *group.sources, *group.nodes)


def channels(report: Report) -> Chart | None:
    """Channels of every group before and after, in the order of the network."""
    if not report.groups:
        return None
    heavy = sorted(report.groups, key=lambda g: -g.macs_before)[:BARS]
    chosen = {g.name for g in heavy}
    drawn = [g for g in report.groups if g.name in chosen]
    before, after = (sum(getattr(g, f"channels_{side}") for g in report.groups) for side in ("before", "after"))
    shrunk = sum(g.channels_after < g.channels_before for g in report.groups)
    title = f"{before:,} → {after:,} channels; {shrunk:,} of {words.plural(len(report.groups), 'group')} shrank"
    caption = "Groups of channels that must go together, in the order of the network. Pale: removed."
    if len(drawn) < len(report.groups):
        caption += f" Drawn are the {BARS} with the most work; the table has all."
    return Chart("channels", title, bars(drawn), caption, channel_table(report))


def bars(groups: Sequence[GroupReport]) -> Json:
    """What stays, with what was there behind it."""
    at = list(range(len(groups)))
    common = {"type": "bar", "orientation": "h", "y": at, "hoverinfo": "text"}
    # Both bars bear the tooltip, so that pointing at either finds it; the arrow keys read the first only.
    texts = [describe(g) for g in groups]
    was = {"x": [g.channels_before for g in groups], "name": "removed", "marker": {"color": "--gone"}, "meta": "mute"}
    now = {"x": [g.channels_after for g in groups], "name": "stays", "marker": {"color": "--kept"}}
    names = [label(words.ending(words.printable(called(g)), NAME)) for g in groups]
    ticks = {"tickvals": at, "ticktext": names, "range": [len(groups) - 0.4, -0.6], "showgrid": False, "ticklen": 4}
    height = 110 + 22 * len(groups)
    above = legend(traceorder="reversed", y=1 + 52 / (height - 110))  # above the axis, which stays in view on top
    base = layout(height, "channels", barmode="overlay", bargap=0.25, **above)
    base["margin"] = {**base["margin"], "t": 90, "b": 12}
    base = merged(base, yaxis={**ticks, "tickfont": {"size": 12}}, xaxis={"rangemode": "tozero", "side": "top"})
    return {"data": [{**common, **was, "hovertext": texts}, {**common, **now, "hovertext": texts}], "layout": base}


def channel_table(report: Report) -> Table:
    """Every group before and after."""
    headers = ("group", "#layers", "#channels", "#stay", "#change", "#MACs", "#MACs after", "note")
    rows = []
    for g in report.groups:
        sizes = (f"{g.channels_before:,}", f"{g.channels_after:,}", words.change(g.channels_before, g.channels_after))
        work = words.count(g.macs_before), words.count(g.macs_after)
        rows.append(Row((code(called(g)), f"{len(g.sources)}", *sizes, *work, g.note), found_by(g)))
    return Table("Every group before and after", headers, tuple(rows))


def ranked(report: Report) -> list[tuple[GroupReport, Importance]]:
    """The groups whose scores are known."""
    return [(g, g.importance) for g in report.groups if g.importance is not None]


def importance(report: Report) -> Chart | None:
    """Share of the importance that every group keeps, against its share of channels."""
    found = [(g, i) for g, i in ranked(report) if g.channels_after < g.channels_before]
    if not found:
        return None
    gone = 1 - sum(g.channels_after for g, _ in found) / sum(g.channels_before for g, _ in found)
    lost = sum(1 - i.share for _, i in found) / len(found)
    title = f"The groups that shrank lost {gone:.0%} of their channels and, on average, {lost:.0%} of their importance"
    most = max(g.macs_before for g, _ in found) or 1
    marker = {
        "size": [8 + 18 * (g.macs_before / most) ** 0.5 for g, _ in found[:DOTS]],
        "color": "--kept",
        "opacity": 0.75,
        "line": {"color": "--card", "width": 1},
    }
    kept = [g.channels_after / g.channels_before for g, _ in found[:DOTS]]
    texts = [describe_importance(g, i) for g, i in found[:DOTS]]
    share = [i.share for _, i in found[:DOTS]]
    dots = points(kept, share, texts, marker=marker, customdata=[g.name for g, _ in found[:DOTS]], meta="groups")
    note = {"text": "kept at random", "x": 0.05, "y": 0.05, "xanchor": "left", "yanchor": "top", "showarrow": False}
    annotations = [{**note, "font": {"color": "--muted"}}]
    base = layout(420, "share of channels kept", "share of importance kept", annotations=annotations)
    axis = {"tickformat": ".0%", "range": [0, 1.04]}
    figure = {"data": [dots], "layout": merged({**base, "shapes": [line((0, 1), (0, 1))]}, xaxis=axis, yaxis=axis)}
    caption = "One dot a group, larger with more work. The higher above the line, the more the choice saved."
    return Chart("importance", title, figure, caption, importance_table(report))


def describe_importance(group: GroupReport, found: Importance) -> str:
    """A group's tooltip."""
    share = f"{group.channels_after / max(1, group.channels_before):.1%} of {group.channels_before:,} channels kept"
    return hover(called(group), share, f"{found.share:.1%} of importance kept")


def importance_table(report: Report) -> Table:
    """What every group kept."""
    rows = []
    for g, i in ranked(report):
        sizes = f"{g.channels_before - g.channels_after:,} of {g.channels_before:,}", f"{i.share:.1%}"
        spread = (f"{i.scores[0]:.3g}", f"{i.scores[-1]:.3g}") if i.scores else ("-", "-")
        rows.append(Row((code(called(g)), *sizes, *spread), found_by(g)))
    headers = ("group", "#removed", "#importance kept", "#lowest score", "#highest score")
    return Table("Importance of every group", headers, tuple(rows))


def cut(report: Report) -> Chart | None:
    """The units of one group and which of them went; the page fills it in for the group that is picked."""
    if not ranked(report):
        return None
    criterion = str(report.settings.get("criterion", ""))
    unit = f"importance ({criterion} norm)" if criterion in ("l1", "l2") else f"importance {criterion}".strip()
    base = layout(340, "units of the group, least important first", unit, barmode="overlay", bargap=0.1, **legend())
    base = merged(base, xaxis={"showgrid": False}, yaxis={"rangemode": "tozero"})
    figure: Json = {"data": [], "layout": base}
    caption = (
        "One bar a unit: a channel with everything that must go with it. Removed bars among kept ones come from rules "
        "beside the ranking: rows that must lose equal numbers, alignment."
    )
    return Chart("cut", "Where each group was cut", figure, caption, None, "pick")


@dataclass(frozen=True)
class Choice:
    """A group whose cut can be looked at, as the page's script needs it.

    Attributes:
        name: Its name, which tells it from all others.
        shown: What it is called.
        text: Its entry in the list.
        names: What a search finds it by.
        before: Its units.
        after: Those that stay.
        share: Share of the importance that stays.
        scores: Scores, ascending; of a large group some.
        kept: Which of them stay.
    """

    name: str
    shown: str
    text: str
    names: str
    before: int
    after: int
    share: float
    scores: tuple[float, ...]
    kept: tuple[bool, ...]


def choices(report: Report) -> list[Choice]:
    """The groups with scores, those that shrank first."""
    found = sorted(ranked(report), key=lambda pair: pair[0].channels_after == pair[0].channels_before)
    return [choice(group, scores) for group, scores in found]


def choice(group: GroupReport, found: Importance) -> Choice:
    """One group of the list."""
    shown, sizes = words.printable(called(group)), (group.channels_before, group.channels_after)
    names = " ".join(found_by(group)).lower()
    text = f"{shown} ({sizes[0]:,} → {sizes[1]:,})"
    return Choice(group.name, shown, text, names, *sizes, found.share, found.scores, found.kept)
