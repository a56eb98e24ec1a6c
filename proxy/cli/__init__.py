"""The command line, one file a group of commands."""

import sys
from io import TextIOWrapper

import click

from proxy import __version__
from proxy.cli.bench import bench
from proxy.cli.canary import canary
from proxy.cli.check import check
from proxy.cli.clients import clients
from proxy.cli.demo import demo
from proxy.cli.importing import importing
from proxy.cli.keys import keys
from proxy.cli.schema import schema
from proxy.cli.seal import seal
from proxy.cli.serve import serve
from proxy.cli.status import status, top


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="serinus")
def main() -> None:
    """Serinus: a load-balancing reverse proxy for LLM APIs."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal of few letters must not cost a result
            stream.reconfigure(errors="replace")


for command in (serve, check, schema, demo, bench, status, top, seal, keys, clients, canary, importing):
    main.add_command(command)
