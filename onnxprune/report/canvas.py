"""What terminal views are drawn with. Law: a view fits its width, and is plain ASCII where the encoding is not UTF-8.

rich asks a view to render itself for a given console; only then are the width and the encoding known, so a `View`
holds the drawing function and calls it with a `Canvas`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from onnxprune.report import words

BAR = 8  # cells
NAME_LEAST = 14  # cells a name keeps, however narrow the terminal


@dataclass(frozen=True)
class Canvas:
    """The surface a view is drawn on.

    Attributes:
        width: Cells a line may have.
        ascii_only: Whether the encoding is not UTF-8.
    """

    width: int
    ascii_only: bool = False

    def text(self, content: str, style: str = "") -> Text:
        """Text as it is: no markup is read, no control character passes, long words break."""
        return Text(words.printable(content, ascii_only=self.ascii_only), style=style, overflow="fold")

    def short(self, name: str, width: int) -> str:
        """A name cut in the middle to a width."""
        return words.shorten(words.printable(name, ascii_only=self.ascii_only), max(width, NAME_LEAST))

    def names(self, names: Sequence[str], tails: Sequence[str], room: int) -> list[Text]:
        """Names for the rows of a table, cut to the room beside their tails so that no two look alike.

        Where cutting the middle would make two look alike, all lose their beginnings; where that does too, those stay
        whole and take several lines.
        """
        shown = [words.printable(name, ascii_only=self.ascii_only) for name in names]
        rooms = [max(room - len(tail), NAME_LEAST) for tail in tails]
        middles = [words.shorten(name, space) for name, space in zip(shown, rooms, strict=True)]
        ends = [words.ending(name, space) for name, space in zip(shown, rooms, strict=True)]
        distinct = len(set(shown))
        cut = middles if len(set(middles)) >= distinct else ends
        uses = Counter(dict(zip(shown, cut, strict=True)).values())
        return [
            self.text((short if uses[short] == 1 else name) + tail)
            for name, short, tail in zip(shown, cut, tails, strict=True)
        ]

    @property
    def arrow(self) -> str:
        """Between before and after."""
        return "->" if self.ascii_only else "→"

    def arrows(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """'before -> after' lines with both sides aligned."""
        left, right = (max((len(pair[side]) for pair in pairs), default=0) for side in (0, 1))
        return [f"{before:>{left}} {self.arrow} {after:>{right}}" for before, after in pairs]

    def bar(self, share: float) -> str:
        """A small bar: the share that stays. It is full only for all, and empty only for nothing."""
        cells = round(share * BAR)
        cells = min(max(cells, int(share > 0)), BAR - int(share < 1))
        full, empty = ("#", ".") if self.ascii_only else ("█", "░")
        return full * cells + empty * (BAR - cells)

    def facts(self, rows: Iterable[tuple[str, Text]]) -> Table:
        """Labels and what they stand for."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(overflow="fold")
        for label, content in rows:
            grid.add_row(Text(label), content)
        return grid

    def panel(self, title: str, content: RenderableType) -> Panel:
        """A titled frame around the summary."""
        head = Text(self.short(title, self.width - 6), style="bold")
        frame = box.ASCII2 if self.ascii_only else box.ROUNDED
        return Panel(content, title=head, title_align="left", box=frame, expand=False, padding=(0, 1))

    def table(self, columns: Sequence[tuple[str, str]]) -> Table:
        """An empty table: (header, 'left' or 'right') for each column. Its cells must fit by themselves."""
        frame = box.MARKDOWN if self.ascii_only else box.SIMPLE_HEAD
        table = Table(box=frame, header_style="bold", pad_edge=False, show_edge=False)
        for header, side in columns:
            table.add_column(header, justify="right" if side == "right" else "left", overflow="fold")
        return table

    def rest(self, columns: Sequence[Sequence[str]]) -> int:
        """Cells left for a name beside the other columns, given all their cells, headers included."""
        taken = sum(max(map(len, cells), default=0) for cells in columns)
        return self.width - taken - 3 * len(columns)


@dataclass(frozen=True)
class View:
    """Something to print: `Console().print(view)`.

    Attributes:
        draw: What it consists of, for a given canvas.
    """

    draw: Callable[[Canvas], Iterable[RenderableType]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.draw(Canvas(options.max_width, options.ascii_only))
