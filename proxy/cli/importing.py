"""`serinus import`: a configuration of another proxy becomes one of ours, and what is left out is named."""

import sys
from pathlib import Path

import click

from proxy.cli.environment import env_file_option, environment
from proxy.controlplane.load import read_text
from proxy.controlplane.problems import ConfigInvalid
from proxy.importing.litellm import convert


@click.group("import")
def importing() -> None:
    """Convert another proxy's configuration."""


@importing.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write to a new file, not to standard output.")
@env_file_option
def litellm(file: Path, output: Path | None, env_file: Path | None) -> None:
    """Convert FILE, the config.yaml of a LiteLLM proxy.

    Whatever has no counterpart is named on standard error and at the top of what is written: where it stands, why, and
    what to do instead. Keys are not copied: they stay in, or go into, variables of the environment. Exits with 1 if
    FILE cannot be read or nothing in it can be served.
    """
    try:
        imported = convert(read_text(file), str(file), environment(env_file))
    except ConfigInvalid as invalid:
        for problem in invalid.problems:
            click.echo(str(problem), err=True)
        raise SystemExit(1) from None
    for remark in imported.remarks:
        click.echo(f"{file}:{remark.line}: {remark.place}: {remark.kind.value}: {remark.text}", err=True)
    if output is None:
        sys.stdout.write(imported.text)
    else:
        _write(output, imported.text)
    set_first = f"export {', '.join(imported.variables)} (or --env-file); then " if imported.variables else ""
    click.echo(f"next: {set_first}serinus check {'FILE' if output is None else output}", err=True)


def _write(output: Path, text: str) -> None:
    try:
        with output.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        raise click.ClickException(f"{output} is there already: choose another name, or move it away") from None
    except OSError as error:
        raise click.ClickException(
            f"{output} cannot be written: {(error.strerror or 'no reason given').lower()}"
        ) from None
