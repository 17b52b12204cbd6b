"""HTML from Python values. Law: every plain string is escaped; only what this module built passes as it is.

Names come from the model file and may hold anything, so no page is put together from strings: `element` is the only
way to make markup, and it escapes whatever is not `Html`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from onnxprune.report import words

ROWS = 4000  # of one table; a browser stays quick, and the JSON has the rest
VOID = {"br", "input", "meta"}


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


EMPTY = Html()


Part = str | None
Value = str | int | float | bool | None


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        cells: Text, or markup.
        names: What the search finds it by; empty for a row that search leaves alone.
    """

    cells: tuple[str, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table with a caption.

    Attributes:
        caption: What it lists.
        columns: Headers; one that begins with `#` heads a column of numbers.
        rows: Its rows; the first cell of each is its header.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def element(tag: str, *children: Part, **attributes: Value) -> Html:
    """One element. `class_` and `for_` stand for reserved words, `_` for `-`; True is a bare attribute."""
    written = "".join(attribute(name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items())
    if tag in VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{joined(children)}</{tag}>")


def attribute(name: str, value: Value) -> str:
    """One attribute with its leading space; nothing for False and None."""
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{text(str(value))}"'


def text(content: str) -> Html:
    """Text that means itself."""
    return Html(escape(words.printable(content)))


def joined(parts: Iterable[Part]) -> Html:
    """Parts one after another, plain strings escaped."""
    return Html("".join(part if isinstance(part, Html) else text(part) for part in parts if part))


def code(content: str) -> Html:
    """A name from the model; long ones may break after each separator."""
    shown = text(content)
    for separator in "/._:":
        shown = Html(shown.replace(separator, f"{separator}<wbr>"))
    return element("code", shown)


def render(table: Table) -> Html:
    """A table in a box that scrolls, also by keyboard; rows beyond the limit are counted."""
    numeric = [column.startswith("#") for column in table.columns]
    headers = (
        element("th", c.lstrip("#"), scope="col", class_="n" if n else None)
        for c, n in zip(table.columns, numeric, strict=True)
    )
    body = (row(r, numeric) for r in table.rows[:ROWS])
    content = element(
        "table",
        element("caption", table.caption),
        element("thead", element("tr", *headers)),
        element("tbody", *body),
    )
    box = element("div", content, class_="scroll", tabindex=0, role="region", aria_label=table.caption)
    rest = len(table.rows) - ROWS
    return joined([box, element("p", f"{rest:,} more rows are in the JSON.", class_="note") if rest > 0 else None])


def row(found: Row, numeric: Sequence[bool]) -> Html:
    """One row; the first cell is its header."""
    head, *rest = found.cells
    cells = [element("th", head, scope="row")]
    cells += [element("td", cell, class_="n" if n else None) for cell, n in zip(rest, numeric[1:], strict=True)]
    return element("tr", *cells, data_names=" ".join(found.names).lower() if found.names else None)


def details(summary: str, *content: Part) -> Html:
    """Something folded away."""
    return element("details", element("summary", summary), *content)
