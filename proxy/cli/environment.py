"""Where `env:` secrets come from: the environment, and over it a file of assignments if one is named."""

import os
from pathlib import Path

import click
from dotenv import dotenv_values

from proxy.controlplane.problems import ConfigInvalid, Problem

env_file_option = click.option(
    "--env-file",
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    help="A file of NAME=value lines; they win over the environment.",
)


def environment(env_file: Path | None) -> dict[str, str]:
    """The environment, with the file's assignments in it. `$NAME` in a value stays as it is: keys may hold a dollar.

    Raises ConfigInvalid where the file is gone, as it may be when a running proxy reads it again.
    """
    environ = dict(os.environ)
    if env_file is not None:
        if not env_file.is_file():
            raise ConfigInvalid((Problem((), None, "the file named by --env-file is not there", str(env_file)),))
        assigned = dotenv_values(env_file, interpolate=False)
        environ |= {name: value for name, value in assigned.items() if value is not None}
    return environ
