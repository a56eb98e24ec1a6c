"""`serinus status` and `serinus top`: what a running proxy does, once or as it changes."""

import os
import time
from itertools import count as counting

import click
import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from proxy.cli.admin_api import AdminApi, AdminUnavailable, with_admin
from proxy.cli.keyboard import Keyboard, keyboard
from proxy.cli.parameters import Choices, Duration
from proxy.cli.section import SORTS
from proxy.cli.status_screen import PARTS, Wanted, page, screen
from proxy.cli.status_view import Trends, audit_view
from proxy.controlplane.recorder import Audited
from proxy.controlplane.status import Status

AUDIT_LINES = 20
FILE_COLUMNS = 400  # of a file or a pipe: nothing is left out there, unless COLUMNS says so

_only = click.option("--only", type=Choices(PARTS), help=f"Parts to show: {','.join(PARTS)}.  [default: all]")
_sort = click.option(
    "--sort", type=click.Choice(SORTS), default=SORTS[0], show_default=True, help="Of rows: highest first, or by name."
)


@click.command()
@with_admin
@click.option("--window", "window_s", type=Duration(), default="60s", show_default=True, help="How far to look back.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs: all parts, unsorted.")
@click.option("--audit", is_flag=True, help="Show what was done last, and verify that the audit log is whole.")
@_only
@_sort
def status(api: AdminApi, window_s: float, as_json: bool, audit: bool, only: tuple[str, ...] | None, sort: str) -> None:
    """Show what a running proxy does: upstreams, pools, canaries, keys, clients; rates, waits, health.

    It looks back at most 60 s. A narrow terminal shows fewer columns, a file or a pipe all of them. Exits with 1 if
    there is no answer, or the audit log is broken.
    """
    found = api.audited(AUDIT_LINES) if audit else api.status(window_s)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    elif isinstance(found, Audited):
        Console(highlight=False).print(audit_view(found))
    else:
        console = _console()
        for line in page(found, Trends(), Wanted(only or (), sort), console.width):
            console.print(line, soft_wrap=True)
    if isinstance(found, Audited) and found.broken:
        raise click.exceptions.Exit(1)


@click.command()
@with_admin
@click.option("--window", "window_s", type=Duration(), default="10s", show_default=True, help="How far to look back.")
@click.option("--interval", "interval_s", type=Duration(), default="1s", show_default=True, help="Between two looks.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many looks. Absent: at Ctrl-C, or q.")
@_only
@_sort
def top(
    api: AdminApi, window_s: float, interval_s: float, count: int | None, only: tuple[str, ...] | None, sort: str
) -> None:
    """Show what a running proxy does, again and again, until Ctrl-C.

    In a terminal q ends it, p pauses, s sorts by something else, Tab shows one part after the other, and the arrows
    scroll in it. Where the output is no terminal, each look is printed below the one before.
    """
    console, wanted = _console(), Wanted(only or (), sort)
    watch = _Watch(api, window_s, wanted)
    watch.look(first=True)  # who cannot be reached at all is no reason to wait
    try:
        if console.is_terminal and not console.is_dumb_terminal:
            _lively(console, watch, interval_s, count)
        else:
            _on_paper(console, watch, interval_s, count)
    except KeyboardInterrupt:
        pass


class _Watch:
    """What was seen last."""

    def __init__(self, api: AdminApi, window_s: float, wanted: Wanted) -> None:
        self._api, self._window_s, self.wanted = api, window_s, wanted
        self._trends, self._problem = Trends(), ""
        self._status: Status

    def look(self, *, first: bool = False) -> None:
        """Raises AdminUnavailable at the first time; later on the proxy may be restarting."""
        try:
            self._status, self._problem = self._api.status(self._window_s), ""
            self._trends.look(self._status)
        except AdminUnavailable as error:
            if first:
                raise
            self._problem = error.message

    def page(self, width: int) -> list[Text]:
        return [Text(self._problem, "red")] if self._problem else page(self._status, self._trends, self.wanted, width)

    def screen(self, width: int, height: int) -> list[Text]:
        """What is known stays there while nobody answers."""
        problem = list(Text(self._problem, "bold red").wrap(Console(), width)) if self._problem else []
        return [*problem, *screen(self._status, self._trends, self.wanted, width, height - len(problem))]


def _lively(console: Console, watch: _Watch, interval_s: float, count: int | None) -> None:
    with keyboard() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        for look in counting(1):
            live.update(Group(*watch.screen(console.width, console.height)), refresh=True)
            if look == count or not _waited(keys, watch, live, interval_s):
                break
            if not watch.wanted.paused:
                watch.look()
    for line in watch.page(console.width):  # what was seen last stays on the terminal
        console.print(line, soft_wrap=True)


def _waited(keys: Keyboard, watch: _Watch, live: Live, interval_s: float) -> bool:
    """Do as keys say until it is time for another look; False: it is to end."""
    until_s = time.perf_counter() + interval_s
    while (left_s := until_s - time.perf_counter()) > 0:
        key = keys.pressed(left_s)
        if key == "q":
            return False
        if key is not None:
            watch.wanted.pressed(key)
            live.update(Group(*watch.screen(live.console.width, live.console.height)), refresh=True)
    return True


def _on_paper(console: Console, watch: _Watch, interval_s: float, count: int | None) -> None:
    for look in counting(1):
        for line in watch.page(console.width):
            console.print(line, soft_wrap=True)
        if look == count:
            break
        time.sleep(interval_s)
        watch.look()


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_COLUMNS
    return console
