"""`serinus status` and `serinus top`: what a running proxy does, once or as it changes."""

import time
from itertools import count as counting

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from proxy.cli.admin_api import AdminApi, AdminUnavailable, with_admin
from proxy.cli.canary_view import canaries_table
from proxy.cli.parameters import Duration
from proxy.cli.status_view import (
    Trends,
    audit_view,
    certificate_lines,
    clients_table,
    headline,
    keys_table,
    pools_table,
    reload_line,
    upstreams_table,
)
from proxy.controlplane.recorder import Audited
from proxy.controlplane.status import Status

AUDIT_LINES = 20


@click.command()
@with_admin
@click.option("--window", "window_s", type=Duration(), default="60s", show_default=True, help="How far to look back.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
@click.option("--audit", is_flag=True, help="Show what was done last, and verify that the audit log is whole.")
def status(api: AdminApi, window_s: float, as_json: bool, audit: bool) -> None:
    """Show what a running proxy does: upstreams, pools, rates, waits, health.

    It looks back at most 60 s. Exits with 1 if there is no answer, or the audit log is broken.
    """
    found = api.audited(AUDIT_LINES) if audit else api.status(window_s)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        Console(highlight=False).print(audit_view(found) if isinstance(found, Audited) else view(found))
    if isinstance(found, Audited) and found.broken:
        raise click.exceptions.Exit(1)


@click.command()
@with_admin
@click.option("--window", "window_s", type=Duration(), default="10s", show_default=True, help="How far to look back.")
@click.option("--interval", "interval_s", type=Duration(), default="1s", show_default=True, help="Between two looks.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many looks. Absent: at Ctrl-C.")
def top(api: AdminApi, window_s: float, interval_s: float, count: int | None) -> None:
    """Show what a running proxy does, again and again, until Ctrl-C.

    Where the output is no terminal, each look is printed below the one before.
    """
    console, trends = Console(highlight=False), Trends()
    last: RenderableType = view(api.status(window_s), trends)  # who cannot be reached at all is no reason to wait
    lively = console.is_terminal and not console.is_dumb_terminal
    try:
        with Live(console=console, screen=True, auto_refresh=False) if lively else _Paper(console) as screen:
            for look in counting(1):
                screen.update(last, refresh=True)
                if look == count:
                    break
                time.sleep(interval_s)
                last = _look(api, window_s, trends)
    except KeyboardInterrupt:
        pass
    if lively:
        console.print(last)


class _Paper:
    """In place of a screen, where there is none."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> "_Paper":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, renderable: RenderableType, *, refresh: bool) -> None:
        self._console.print(renderable)


def _look(api: AdminApi, window_s: float, trends: Trends) -> RenderableType:
    try:
        return view(api.status(window_s), trends)
    except AdminUnavailable as error:  # it may be restarting
        return Text(error.message, "red")


def view(found: Status, trends: Trends | None = None) -> Group:
    """All of it: a headline, the upstreams, the pools, the canaries, the keys, the clients."""
    if trends is not None:
        trends.look(found)
    parts: list[RenderableType] = [headline(found)]
    if (reloaded := reload_line(found)) is not None:
        parts.append(reloaded)
    parts += certificate_lines(found)
    parts += ["", upstreams_table(found, trends), "", pools_table(found)]
    if found.canaries:
        parts += ["", canaries_table(found.canaries)]
    for table in (keys_table(found), clients_table(found)):
        if table is not None:
            parts += ["", table]
    return Group(*parts)
