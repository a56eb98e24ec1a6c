"""`serinus serve`: run the proxy."""

from pathlib import Path

import click

from proxy.cli.environment import env_file_option, environment
from proxy.controlplane.problems import ConfigInvalid
from proxy.controlplane.state_dir import StateDirUnusable
from proxy.controlplane.state_file import StateUnreadable, StateUnwritable
from proxy.main import CannotListen
from proxy.process import serve as run


@click.command()
@click.option("--config", "-c", "path", required=True, type=click.Path(path_type=Path), help="The configuration file.")
@env_file_option
def serve(path: Path, env_file: Path | None) -> None:
    """Serve a configuration until SIGTERM or SIGINT. SIGHUP reads it again; SIGUSR2 restarts its workers."""
    try:
        run(path, lambda: environment(env_file))
    except ConfigInvalid as invalid:
        for problem in invalid.problems:
            click.echo(str(problem), err=True)
        raise SystemExit(1) from None
    except (StateDirUnusable, StateUnreadable, StateUnwritable, CannotListen) as error:
        raise click.ClickException(str(error)) from None
