"""The dependency groups as a graph. Law: what is drawn is a part of what the table lists, and says so.

Groups stand in columns: one that reads another's channels stands to its right, unless it comes first in the network (a
residual stage and the layers inside it feed each other). Within a column they lie near what feeds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

from onnxprune.report import words
from onnxprune.report.coupling import Edge
from onnxprune.report.data import GroupReport, Report
from onnxprune.report.html.figures import Chart, Json, hover, label, layout, legend, merged, points
from onnxprune.report.html.markup import Row, Table, code

NODES, EDGES = 500, 3000  # drawn; SVG stays quick up to there
LABELLED = 12  # nodes up to which each bears its name without lying over another
SCALE = [[0, "--kept"], [0.5, "--half"], [1, "--removed"]]

Position = tuple[float, float]


@dataclass(frozen=True)
class Network:
    """What is drawn.

    Attributes:
        groups: The groups, in the order of the network.
        held: The weights of layers held whole that read some group.
        edges: Between those.
        places: Name of a group, or of a held weight behind a tab, -> where it stands.
    """

    groups: tuple[GroupReport, ...]
    held: tuple[str, ...]
    edges: tuple[Edge, ...]
    places: Mapping[str, Position]


def network(report: Report) -> Network:
    """Choose the groups with the most work, and give each a place."""
    heavy = sorted(report.groups, key=lambda g: -g.macs_before)[:NODES]
    chosen = {g.name for g in heavy}
    groups = tuple(g for g in report.groups if g.name in chosen)
    room = NODES - len(groups)
    held = tuple(dict.fromkeys(e.into for e in report.edges if e.held and e.feeds in chosen))[:room]
    ends = {*chosen, *(key(h, True) for h in held)}
    edges = tuple(e for e in report.edges if e.feeds in chosen and key(e.into, e.held) in ends)[:EDGES]
    return Network(groups, held, edges, places([g.name for g in groups], held, edges))


def key(name: str, held: bool) -> str:
    """What tells a held weight from a group of the same name."""
    return f"\t{name}" if held else name


def places(groups: Sequence[str], held: Sequence[str], edges: Sequence[Edge]) -> dict[str, Position]:
    """Columns by longest path along the network's order, rows by what feeds them; loose groups stand below."""
    order = [*groups, *(key(h, True) for h in held)]
    number = {name: n for n, name in enumerate(order)}
    feeders: dict[str, list[str]] = {name: [] for name in order}
    linked: set[str] = set()
    for e in edges:
        into = key(e.into, e.held)
        linked |= {e.feeds, into}
        if number[e.feeds] < number[into]:
            feeders[into].append(e.feeds)
    column: dict[str, int] = {}
    for member in order:
        column[member] = 1 + max((column[f] for f in feeders[member]), default=-1)
    found = stacked([n for n in order if n in linked], column, feeders)
    return found | loose([n for n in order if n not in linked], found)


def stacked(names: Sequence[str], column: Mapping[str, int], feeders: Mapping[str, list[str]]) -> dict[str, Position]:
    """Each column from top to bottom, centred, in the order of the mean height of what feeds its members."""
    columns: dict[int, list[str]] = {}
    for member in names:
        columns.setdefault(column[member], []).append(member)
    found: dict[str, Position] = {}
    for x in sorted(columns):
        means = {n: sum(found[f][1] for f in feeders[n]) / max(1, len(feeders[n])) for n in columns[x]}
        members = sorted(columns[x], key=lambda n: means[n])
        centre = sum(means.values()) / len(members)
        for n, member in enumerate(members):
            found[member] = (float(x), centre + n - (len(members) - 1) / 2 + 0.25 * (x % 2))
    return found


def loose(names: Sequence[str], found: Mapping[str, Position]) -> dict[str, Position]:
    """Groups without edges, in rows below the others."""
    width = max([8, ceil(sqrt(2 * len(names))), *(int(x) + 1 for x, _ in found.values())])
    top = max((y for _, y in found.values()), default=-2.0) + 2
    return {name: (float(n % width), top + n // width) for n, name in enumerate(names)}


def chart(report: Report) -> Chart | None:
    """The graph with its table; None where there is nothing to draw."""
    if not report.groups:
        return None
    drawn = network(report)
    feeding = len({e.feeds for e in report.edges})
    links = words.plural(len({(e.feeds, e.into, e.held) for e in report.edges}), "link")
    title = f"{words.plural(len(report.groups), 'group')}, joined by {links}"
    if feeding == 0:
        title = f"{words.plural(len(report.groups), 'group')}, none of which feeds another directly"
    left_out = len(report.groups) - len(drawn.groups), len(report.edges) - len(drawn.edges)
    caption = (
        "Each circle is a group of channels that must go together; the larger, the more channels. Lines run from the "
        "group whose channels are read to the group that the reading layer makes: from left to right, dotted where "
        "they lead back. Squares are layers held whole."
    )
    if any(left_out):
        caption += f" Not drawn, but in the table: {left_out[0]:,} groups and {left_out[1]:,} links."
    return Chart("graph", title, figure(drawn), caption, table(report), "zoom")


def figure(drawn: Network) -> Json:
    """Lines, groups, held layers."""
    rows = {y for _, y in drawn.places.values()}
    height = min(600, max(360, 140 + 30 * round(max(rows) - min(rows))))
    base = layout(height, **legend())
    hidden = {"visible": False, "fixedrange": False, "automargin": False}
    base = merged(base, xaxis=hidden, yaxis={**hidden, "autorange": "reversed"})
    data = [lines(drawn, back=False), lines(drawn, back=True), groups(drawn)]
    return {"data": [*data, *([held(drawn)] if drawn.held else [])], "layout": {**base, "dragmode": "pan"}}


def lines(drawn: Network, *, back: bool) -> Json:
    """All edges in one direction as one broken line."""
    x: list[float | None] = []
    y: list[float | None] = []
    for e in drawn.edges:
        (x0, y0), (x1, y1) = drawn.places[e.feeds], drawn.places[key(e.into, e.held)]
        if (x1 <= x0) == back:
            x += [x0, x1, None]
            y += [y0, y1, None]
    dash = {"dash": "dot"} if back else {}
    names = {"name": "feeds, later to earlier" if back else "feeds, earlier to later"}
    stroke = {"color": "--edge", "width": 1.2, **dash}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": stroke, "hoverinfo": "skip", **names}


def groups(drawn: Network) -> Json:
    """The groups: area by channels, colour by the share that was removed."""
    most = max(g.channels_before for g in drawn.groups)
    marker = {
        "size": [9 + 19 * sqrt(g.channels_before / most) for g in drawn.groups],
        "color": [removed(g) for g in drawn.groups],
        "cmin": 0,
        "cmax": 1,
        "colorscale": SCALE,
        "line": {"color": "--card", "width": 1.5},
        "colorbar": {
            "title": {"text": "removed", "side": "right"},
            "tickformat": ".0%",
            "thickness": 10,
            "outlinewidth": 0,
            "tickvals": [0, 0.5, 1],
            "len": 0.6,
        },
    }
    at = [drawn.places[g.name] for g in drawn.groups]
    texts = [describe(g) for g in drawn.groups]
    few = len(drawn.places) <= LABELLED
    shown = [label(words.label(g.name, g.nodes), 22) for g in drawn.groups]
    more: Json = {"mode": "markers+text" if few else "markers", "text": shown, "textposition": "bottom center"}
    names = [search_names(g) for g in drawn.groups]
    held = {"marker": marker, "name": "group", "textfont": {"size": 11}, "customdata": names, "meta": "nodes"}
    return points([x for x, _ in at], [y for _, y in at], texts, **{**more, **held})


def held(drawn: Network) -> Json:
    """The layers held whole that read a group."""
    at = [drawn.places[key(h, True)] for h in drawn.held]
    texts = [hover(h, "layer held whole") for h in drawn.held]
    marker = {"symbol": "square", "size": 10, "color": "--muted", "line": {"color": "--card", "width": 1}}
    names = [h.lower() for h in drawn.held]
    more = {"marker": marker, "name": "layer held whole", "customdata": names, "meta": "nodes"}
    return points([x for x, _ in at], [y for _, y in at], texts, **more)


def removed(group: GroupReport) -> float:
    """Share of a group's channels that was removed."""
    return round(1 - group.channels_after / max(1, group.channels_before), 4)


def search_names(group: GroupReport) -> str:
    """All a group can be found by."""
    return " ".join((group.name, *group.sources, *group.nodes)).lower()


def describe(group: GroupReport) -> str:
    """A group's tooltip."""
    change = words.change(group.channels_before, group.channels_after)
    layers = f"{words.plural(len(group.sources), 'layer')} together"
    channels = f"{group.channels_before:,} → {group.channels_after:,} channels ({change})"
    work = f"{words.count(group.macs_before)} → {words.count(group.macs_after)} MACs"
    return hover(words.label(group.name, group.nodes), channels, work, layers, *([group.note] if group.note else []))


def table(report: Report) -> Table:
    """What every group feeds."""
    readers: dict[str, list[Edge]] = {g.name: [] for g in report.groups}
    for e in report.edges:
        readers.setdefault(e.feeds, []).append(e)
    rows = []
    for g in report.groups:
        feeds = ", ".join(read(e) for e in readers[g.name]) or "-"
        cells = (code(words.label(g.name, g.nodes)), ", ".join(g.nodes), feeds)
        rows.append(Row(cells, (g.name, *g.sources, *g.nodes)))
    return Table("Groups, their layers, and what they feed", ("group", "layers pruned together", "feeds"), tuple(rows))


def read(edge: Edge) -> str:
    """One end of a link."""
    return f"{edge.into} (held whole)" if edge.held else edge.into
