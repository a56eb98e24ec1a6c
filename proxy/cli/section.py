"""A table for a terminal that is too narrow, or too low, for all of it.

rich shortens all columns alike until they fit, numbers too, and cuts what is below the last line without a word. Here
each column says how much it matters: those that matter least are left out, whole, until the others fit. Names lose
their middle, but stay long enough to be told apart. Rows beyond the last line are counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

GAP = 2
SHORTEST_NAME = 22
SORTS = ("config", "rate", "failed", "inflight", "name")


@dataclass(frozen=True, slots=True)
class Column:
    title: str  # of one or two lines
    rank: int = 0  # 0: always shown; of the others the highest is left out first
    words: int = 0  # to the left, and may be shortened to so many


@dataclass(frozen=True, slots=True)
class Row:
    """The first cell is a name. The numbers are what rows are sorted by."""

    cells: Sequence[str | Text]
    rate: float = 0.0
    failed: float = 0.0
    inflight: int = 0
    below: "Sequence[Row]" = ()  # of which it consists


@dataclass(frozen=True, slots=True)
class Section:
    name: str  # what its rows are, in the plural
    columns: Sequence[Column]
    rows: list[Row] = field(default_factory=list)
    note: str = ""  # a line below

    @property
    def height(self) -> int:
        """In lines, where there is room for all."""
        return self._head_height + sum(1 for _ in _flat(self.rows)) + bool(self.note)

    @property
    def _head_height(self) -> int:
        return max(len(column.title.split("\n")) for column in self.columns)

    def sorted(self, by: str) -> "Section":
        return Section(self.name, self.columns, _sorted(self.rows, by), self.note)

    def lines(self, width: int, height: int | None = None, skip: int = 0) -> list[Text]:
        """At most so many, with those that say how many rows are not shown. `skip`: rows to begin after."""
        rows = list(_flat(self.rows))
        shown, widths = self._fitting(rows, width)
        titles = [self.columns[at].title.split("\n") for at in shown]
        head = [[title[line] if line < len(title) else "" for title in titles] for line in range(self._head_height)]
        lines = [Text(self._line(cells, shown, widths).plain, "dim", no_wrap=True) for cells in head]
        room = len(rows) if height is None else max(0, height - len(lines) - bool(self.note))
        skip = max(0, min(skip, len(rows) - room + 1 if room < len(rows) else 0))
        if skip:
            room -= 1
            lines.append(Text(f"… {skip} more {self.name} above", "dim"))
        left = len(rows) - skip
        if left > room:
            room -= 1
        lines += [
            self._line([row.cells[at] if at < len(row.cells) else "" for at in shown], shown, widths)
            for row in rows[skip : skip + max(0, room)]
        ]
        if left > room:
            lines.append(Text(f"… {left - max(0, room)} more {self.name}", "dim"))
        return [*lines, Text(self.note, "dim")] if self.note else lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.lines(options.max_width)

    def _fitting(self, rows: list[Row], width: int) -> tuple[list[int], list[int]]:
        """Which columns are shown, and how wide."""
        natural = [
            max([*map(cell_len, column.title.split("\n")), *(_len(row, at) for row in rows)])
            for at, column in enumerate(self.columns)
        ]
        shown = [at for at in range(len(self.columns)) if at == 0 or any(_len(row, at) for row in rows)]
        least = [min(natural[at], self._least(at) or natural[at]) for at in range(len(natural))]
        while (last := max(shown, key=lambda at: self.columns[at].rank)) and self.columns[last].rank:
            if sum(least[at] + GAP for at in shown) - GAP <= width:
                break
            shown.remove(last)
        widths = [natural[at] for at in shown]
        for place in sorted(range(len(shown)), key=lambda place: -shown[place]):  # the name, which is first, at last
            excess = sum(widths) + GAP * (len(shown) - 1) - width
            if excess > 0:
                widths[place] = max(least[shown[place]], widths[place] - excess)
        return shown, widths

    def _least(self, at: int) -> int:
        """How narrow it may get; 0: as wide as it is."""
        return self.columns[at].words or (0 if at else SHORTEST_NAME)

    def _line(self, cells: Iterable[str | Text], shown: list[int], widths: list[int]) -> Text:
        line = Text(no_wrap=True, overflow="ellipsis")
        for cell, at, width in zip(cells, shown, widths, strict=True):
            text = _shortened(Text(cell) if isinstance(cell, str) else cell, width, in_the_middle=at == 0)
            pad = " " * (width - cell_len(text.plain))
            left = self._least(at) > 0
            line.append(" " * GAP if at != shown[0] else "")
            line.append("" if left else pad).append_text(text).append(pad if left else "")
        line.rstrip()
        return line


def _shortened(text: Text, width: int, *, in_the_middle: bool) -> Text:
    if cell_len(text.plain) <= width:
        return text
    if not in_the_middle:
        return Text(set_cell_size(text.plain, width - 1).rstrip() + "…", text.style)
    end = (width - 1) // 2
    start = set_cell_size(text.plain, width - 1 - end)
    return Text(f"{start}…{text.plain[len(text.plain) - end :]}", text.style)


def _len(row: Row, at: int) -> int:
    if at >= len(row.cells):
        return 0
    cell = row.cells[at]
    return cell_len(cell if isinstance(cell, str) else cell.plain)


def _flat(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        yield row
        yield from row.below


def _sorted(rows: Sequence[Row], by: str) -> list[Row]:
    rows = [Row(row.cells, row.rate, row.failed, row.inflight, _sorted(row.below, by)) for row in rows]
    if by == "config":
        return rows
    if by == "name":
        return sorted(rows, key=lambda row: str(row.cells[0]))
    return sorted(rows, key=lambda row: getattr(row, by), reverse=True)


def shared(wanted: Sequence[int], room: int) -> list[int]:
    """How many lines of so many each gets: what it wants, or as many as the others that want more."""
    given = [0] * len(wanted)
    for order, at in enumerate(sorted(range(len(wanted)), key=lambda at: wanted[at])):
        given[at] = min(wanted[at], max(0, room) // (len(wanted) - order))
        room -= given[at]
    return given
