"""`serinus canary`: how the canaries of a running proxy fare, and steering them by hand."""

from typing import Any

import click
import msgspec
from rich.console import Console

from proxy.cli.admin_api import AdminApi, with_admin
from proxy.cli.canary_view import canary_view
from proxy.cli.simulate import simulate
from proxy.cli.status_sections import canaries

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
_reason = click.option("--reason", default="", help="Why; it goes into the audit log.")
_name = click.argument("name")


@click.group()
def canary() -> None:
    """The canaries of a running proxy."""


@canary.command("list")
@with_admin
@_json
def list_canaries(api: AdminApi, as_json: bool) -> None:
    """Show each canary: its state, its weight, and what it waits for."""
    found = api.canaries()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        Console(highlight=False).print(canaries(found) if found else "The configuration has no canaries.")


@canary.command()
@with_admin
@_name
@_json
def show(api: AdminApi, name: str, as_json: bool) -> None:
    """Show why a canary has the weight that it has: both arms, the evidence, what it waits for, its last events."""
    found = api.canary(name)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        Console(highlight=False).print(canary_view(found))


@canary.command()
@with_admin
@_name
@click.option("--full", is_flag=True, help="To 100 %, past all evidence; needs a --reason.")
@_reason
def promote(api: AdminApi, name: str, full: bool, reason: str) -> None:
    """Go to the next weight, without waiting for its proof."""
    if full and not reason:
        raise click.UsageError("--full skips the evidence: say why, with --reason")
    _steer(api, name, "promote", reason, full=full)


@canary.command()
@with_admin
@_name
@_reason
def abort(api: AdminApi, name: str, reason: str) -> None:
    """Give all requests to the baseline, now."""
    _steer(api, name, "abort", reason)


@canary.command()
@with_admin
@_name
@_reason
def pause(api: AdminApi, name: str, reason: str) -> None:
    """Stay at this weight until it is resumed. A canary that proves to be worse is rolled back all the same."""
    _steer(api, name, "pause", reason)


@canary.command()
@with_admin
@_name
@_reason
def resume(api: AdminApi, name: str, reason: str) -> None:
    """Go on: where it was paused, from a step's pause to the next step, or longer at an inconclusive one."""
    _steer(api, name, "resume", reason)


@canary.command()
@with_admin
@_name
@_reason
def retry(api: AdminApi, name: str, reason: str) -> None:
    """Begin once more after a rollback or an abort, with fresh evidence: each time more of it is asked for."""
    _steer(api, name, "retry", reason)


@canary.command()
@with_admin
@_name
@click.argument("percent", type=float)
@_reason
def weight(api: AdminApi, name: str, percent: float, reason: str) -> None:
    """Give the canary so many percent of the requests. Its evidence begins anew, and more of it is asked for."""
    _steer(api, name, "weight", reason, weight=percent)


def _steer(api: AdminApi, name: str, command: str, reason: str, **options: Any) -> None:
    wanted = {key: value for key, value in options.items() if value is not False}
    result = api.steer(name, command, wanted | {"reason": reason})
    for said in result["said"]:
        click.echo(f"{name} {said}")
    click.echo(f"{name} is {result['state']}, at {result['weight']:g} %")
    if result["not_kept"]:
        raise click.ClickException(f"it holds until the next restart only: {result['not_kept']}")


canary.add_command(simulate)
