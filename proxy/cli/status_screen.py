"""All of a status on one screen, or on paper; and what the keys of `serinus top` change of it.

On a screen nothing is cut without a word: where the parts are higher than it, those that have most rows give way first,
and say how many rows they do not show. Parts of which next to nothing could be seen are only named.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.text import Text

from proxy.cli.section import SORTS, Section, shared
from proxy.cli.status_sections import sections
from proxy.cli.status_view import Trends, certificate_lines, headlines, reload_line
from proxy.controlplane.status import Status

PARTS = ("upstreams", "pools", "canaries", "keys", "clients")
LEAST_LINES = 5  # of a part, its head too, or it is better not begun


@dataclass(slots=True)
class Wanted:
    """Which parts, and how their rows are sorted."""

    only: tuple[str, ...] = ()  # of `PARTS`; none: all
    sort: str = SORTS[0]
    skip: int = 0  # rows at the top, where one part is shown
    paused: bool = False

    def pressed(self, key: str) -> None:
        """What a key does; others do nothing."""
        if key == "s":
            self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        elif key in ("p", " "):
            self.paused = not self.paused
        elif key == "\t":
            at = PARTS.index(self.only[0]) + 1 if len(self.only) == 1 else 0
            self.only, self.skip = PARTS[at : at + 1], 0
        elif key in ("down", "j"):
            self.skip += 1
        elif key in ("up", "k"):
            self.skip = max(0, self.skip - 1)

    def of(self, status: Status, trends: Trends) -> list[Section]:
        wanted = self.only or PARTS
        return [section.sorted(self.sort) for name, section in sections(status, trends).items() if name in wanted]


def page(status: Status, trends: Trends, wanted: Wanted, width: int) -> list[Text]:
    """All lines of it."""
    lines = list(_top(status, width))
    for section in wanted.of(status, trends):
        lines += [Text(), *section.lines(width)]
    return lines if wanted.of(status, trends) else [*lines, *_none(wanted)]


def screen(status: Status, trends: Trends, wanted: Wanted, width: int, height: int) -> list[Text]:
    """So many lines at most."""
    top, parts = list(_top(status, width)), wanted.of(status, trends)
    wanted.skip = min(wanted.skip, max(0, parts[0].height - 1)) if len(parts) == 1 else 0
    lines = top if parts else [*top, *_none(wanted)]
    below: list[str] = []
    room = height - len(top) - 1  # but for the keys
    while len(parts) > 1 and sum(min(part.height, LEAST_LINES) + 1 for part in parts) + bool(below) > room:
        below.insert(0, parts.pop().name)
    for part, given in zip(parts, shared([part.height + 1 for part in parts], room - bool(below)), strict=True):
        lines += [Text(), *part.lines(width, given - 1, wanted.skip)]
    if below:
        lines.append(Text(f"… {', '.join(below)}: Tab shows them", "dim"))
    return [*lines[: height - 1], *[Text()] * (height - 1 - len(lines)), _keys(wanted, width)]


def _top(status: Status, width: int) -> Iterator[Text]:
    yield from headlines(status, width)
    if (reloaded := reload_line(status)) is not None:
        yield reloaded
    yield from certificate_lines(status)


def _none(wanted: Wanted) -> list[Text]:
    return [Text(), Text(f"There is nothing to show of: {', '.join(wanted.only or PARTS)}", "dim")]


def _keys(wanted: Wanted, width: int) -> Text:
    shown = "all" if len(wanted.only) != 1 else wanted.only[0]
    keys = [f"q ends · p {'goes on' if wanted.paused else 'pauses'} · s sorts: {wanted.sort} · Tab shows: {shown}"]
    keys += [" · ↑ ↓ scroll"] if len(wanted.only) == 1 else []
    line = Text("".join(keys), "reverse" if wanted.paused else "dim", no_wrap=True)
    line.truncate(width, overflow="ellipsis")
    return line
