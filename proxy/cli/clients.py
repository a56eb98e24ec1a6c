"""`serinus clients`: a fresh key for a configuration, and the clients of a running proxy."""

import secrets
from collections.abc import Mapping
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.cli.admin_api import AdminApi, with_admin
from proxy.cli.environment import env_file_option, environment
from proxy.cli.status_view import COLOURS
from proxy.controlplane.client_status import ClientStatus
from proxy.controlplane.load import client_pepper
from proxy.controlplane.problems import ConfigInvalid
from proxy.model.client_keys import NEEDED_BYTES, digest, key_hash, new_key
from proxy.model.quantities import parse_name

_ONCE = "The key above is shown this once: bring it to the client."


class _Name(click.ParamType[str]):
    name = "name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return parse_name(value)
        except ValueError as error:
            self.fail(f"{value!r} is {error}", param, ctx)


_name = click.argument("name", type=_Name())
_most = click.IntRange(min=1)


@click.group()
def clients() -> None:
    """Who may call, and their keys."""


@clients.command()
@_name
@click.option("--config", type=click.Path(path_type=Path), help="The configuration whose client_pepper is to be used.")
@env_file_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
def new(name: str, config: Path | None, env_file: Path | None, as_json: bool) -> None:
    """Make a key for the client NAME, and what to list of it. No proxy is asked, and nothing is kept.

    Standard output has the key and nothing else, so it can be piped to where it belongs; what to put into the
    configuration, which is no secret, comes on standard error.
    """
    try:
        pepper = None if config is None else client_pepper(config, environment(env_file))
    except (ConfigInvalid, ValueError) as error:
        raise click.ClickException(str(error)) from None
    key = new_key(secrets.token_bytes(NEEDED_BYTES))
    kept = key_hash(digest(key.encode(), None if pepper is None else pepper.reveal().encode()), pepper is not None)
    if as_json:
        _print_json({"name": name, "key": key, "key_hash": kept})
        return
    click.echo(key)
    click.echo(f"{_ONCE} Put its hash under `clients:`", err=True)
    click.echo(f"\n  - name: {name}\n    key_hash: {kept}\n", err=True)


@clients.command()
@with_admin
@_name
@click.option("--expires", help="From when on it is refused: 2027-01-31T18:00:00Z, or 7d from now. Absent: never.")
@click.option("--model", "models", multiple=True, metavar="GLOB", help="That a new client may use; all by default.")
@click.option("--requests-per-minute", type=_most, help="Of a new client. Absent: no limit.")
@click.option("--tokens-per-minute", type=_most, help="Of a new client. Absent: no limit.")
@click.option("--concurrent", type=_most, help="Requests of a new client at once. Absent: no limit.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
def issue(
    api: AdminApi, name: str, expires: str | None, models: tuple[str, ...], as_json: bool, **limits: int | None
) -> None:
    """Issue a key to the client NAME, which is accepted at once beside those it has. The client may be new.

    Standard output has the key and nothing else. A client that is listed, or has keys, has models and limits already.
    """
    wanted = {limit: number for limit, number in limits.items() if number is not None}
    result = api.issue_client_key(name, {"expires": expires, "models": list(models) or None, "limits": wanted or None})
    if as_json:
        _print_json(result)
    else:
        click.echo(result["key"])
        until = f"expires {result['expires']}" if result["expires"] else "does not expire"
        click.echo(f"{name} {result['fingerprint']}: issued, {until}. {_ONCE}", err=True)
    _say_what_was_not_kept(result)


@clients.command("list")
@with_admin
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list, for programs.")
def list_clients(api: AdminApi, as_json: bool) -> None:
    """Show each client: what it may use, what is left of that, what it was refused; and its keys."""
    found = api.clients()
    if as_json:
        _print_json(found)
    else:
        Console(highlight=False).print(_table(found))


@clients.command()
@with_admin
@_name
@click.argument("fingerprint")
@click.argument("when")
def expire(api: AdminApi, name: str, fingerprint: str, when: str) -> None:
    """Let a key of the client NAME be refused from WHEN on: 2027-01-31T18:00:00Z, or 7d from now."""
    result = api.change_client(name, "expire", {"fingerprint": fingerprint, "expires": when})
    click.echo(f"{name} {fingerprint}: expires {result['expires']}")
    _say_what_was_not_kept(result)


@clients.command()
@with_admin
@_name
@click.argument("fingerprint", required=False)
@click.option("--now", is_flag=True, help="End the requests that came with it, too.")
def revoke(api: AdminApi, name: str, fingerprint: str | None, now: bool) -> None:
    """Refuse a key of the client NAME, or all of its keys, now and for ever; listed ones too."""
    result = api.change_client(name, "revoke", {"fingerprint": fingerprint, "now": now})
    click.echo(f"{name} {' '.join(result['revoked'])}: revoked; {result['cut']} requests were ended")
    _say_what_was_not_kept(result)


def _say_what_was_not_kept(result: Mapping[str, str]) -> None:
    """Raises ClickException if anything was not."""
    said = []
    if result["not_kept"]:
        said.append(f"it is in force, but until the next restart only: {result['not_kept']}")
    if result["not_audited"]:
        said.append(f"the audit log does not have it: {result['not_audited']}")
    if said:
        raise click.ClickException("\n".join(said))


def _print_json(content: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(content)))


def _table(found: list[ClientStatus]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("client", "key", "state", "expires", "issued", "in\nflight", "refused"):
        table.add_column(column, no_wrap=True, min_width=len(max(column.split("\n"), key=len)))
    table.add_column("may use", overflow="fold")
    for client in found:
        refused = ", ".join(f"{count} {limit}" for limit, count in client.refused.items())
        row = str(client.inflight), refused or "-", Text(_may_use(client))
        for number, key in enumerate(client.keys):
            by = "listed" if key.issued_at is None else f"{key.issued_at[:10]} by {key.issued_by}"
            table.add_row(
                client.name if number == 0 else "",
                key.fingerprint,
                Text(key.state, COLOURS.get(key.state, "yellow")),
                key.expires or "-",
                Text(by),
                *(row if number == 0 else ()),
            )
    return table


def _may_use(client: ClientStatus) -> str:
    """`gpt-*; 57 of 60 requests_per_minute`."""
    left = (f"{client.left.get(limit, most)} of {most} {limit}" for limit, most in client.limits.items())
    return "; ".join(["all models" if client.models is None else " ".join(client.models), *left])
