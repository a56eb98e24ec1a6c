"""`serinus keys`: how the keys of a running proxy fare, and changing them."""

import click
import msgspec
from rich.console import Console
from rich.table import Table

from proxy.cli.admin_api import AdminApi, with_admin
from proxy.cli.secret_input import secret_on_stdin
from proxy.cli.status_view import COLOURS
from proxy.controlplane.key_status import KeyStatus


@click.group()
def keys() -> None:
    """The upstreams' keys of a running proxy."""


@keys.command("list")
@with_admin
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list, for programs.")
def list_keys(api: AdminApi, as_json: bool) -> None:
    """Show each key: its state, what holds it, what is left of its quota, and how its last rotation went."""
    found = api.keys()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        Console(highlight=False).print(_table(found))


@keys.command()
@with_admin
@click.argument("upstream")
@click.argument("key")
@click.option("--until-restart", is_flag=True, help="Do not keep the value in state_dir; needs no master key.")
def rotate(api: AdminApi, upstream: str, key: str, until_restart: bool) -> None:
    """Give a key a new value, which is read from standard input.

    The upstream is asked about it first. If it accepts it, the new value serves beside the old one for a while, and
    takes over if it is refused no more often. It is kept across restarts, until the configuration has another value.

    Exits with 1 if it is refused: then nothing has changed. If nothing can be said of it yet, the old value serves and
    the upstream is asked again.
    """
    try:
        value = secret_on_stdin("serinus keys rotate openai main < new-key")
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    result = api.rotate(upstream, key, value, until_restart=until_restart)
    said = f": {result['said']}" if result["said"] else ""
    click.echo(f"{upstream}/{key} {result['fingerprint']}: {_WORDS.get(result['result'], result['result'])}{said}")
    if result["result"] not in _WORDS:
        raise click.exceptions.Exit(1)


@keys.command()
@with_admin
@click.argument("upstream")
@click.argument("key")
@click.option("--fingerprint", default="", help="Of the value, if it is not the one in force: see `serinus keys list`.")
@click.option("--now", is_flag=True, help="End the requests that hold it, too.")
def revoke(api: AdminApi, upstream: str, key: str, fingerprint: str, now: bool) -> None:
    """Let no request begin with a key's value any more, now and for ever."""
    result = api.revoke(upstream, key, fingerprint, now=now)
    click.echo(f"{upstream}/{key} {fingerprint or 'in force'}: revoked; {result['cut']} requests were ended")
    if result["not_kept"]:
        raise click.ClickException(f"it holds until the next restart only: {result['not_kept']}")


_WORDS = {
    "rotated": "accepted, and in force",
    "overlapping": "accepted, and serves beside the old value for now",
    "validating": "not yet known whether it is accepted; the old value serves",
}


def _table(found: list[KeyStatus]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("key", "state", "value", "in\nflight", "last used", "quota\nused"):
        table.add_column(column, no_wrap=True, min_width=len(max(column.split("\n"), key=len)))
    table.add_column("last rotation", overflow="fold")
    for key in found:
        used = "-" if key.last_used_ago_s is None else f"{key.last_used_ago_s:.0f} s ago"
        inflight = f"{key.inflight} + {key.draining}" if key.draining else str(key.inflight)
        rotation = "-" if key.rotation is None else f"{key.rotation} {key.candidate or ''} {key.rotation_said}".strip()
        quota = f"{key.used_percent:.0f} %" if key.used_percent else "-"
        colour = COLOURS.get(key.state, "")
        table.add_row(
            f"{key.upstream}/{key.key}", f"[{colour}]{key.state}" if colour else key.state, key.fingerprint, inflight,
            used, quota, rotation,
        )  # fmt: skip
    return table
