"""The command line, one file a group of commands.

A command is imported when it is asked for: `serinus status` has its answer before a benchmark's client, the proxy and
the simulation would have been loaded.
"""

import sys
from importlib import import_module
from io import TextIOWrapper

import click

from proxy import __version__

_PLACES = {
    "serve": "proxy.cli.serve:serve",
    "check": "proxy.cli.check:check",
    "schema": "proxy.cli.schema:schema",
    "demo": "proxy.cli.demo:demo",
    "simulate": "proxy.simulation.__main__:main",  # an upstream; a rollout is `canary simulate`
    "bench": "proxy.cli.bench:bench",
    "status": "proxy.cli.status:status",
    "top": "proxy.cli.status:top",
    "seal": "proxy.cli.seal:seal",
    "keys": "proxy.cli.keys:keys",
    "clients": "proxy.cli.clients:clients",
    "canary": "proxy.cli.canary:canary",
    "import": "proxy.cli.importing:importing",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _PLACES:
            return None
        module, _, name = _PLACES[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="serinus")
def main() -> None:
    """Serinus: a load-balancing reverse proxy for LLM APIs."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal of few letters must not cost a result
            stream.reconfigure(errors="replace")
