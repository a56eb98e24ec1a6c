"""`serinus serve`: run the proxy."""

from pathlib import Path

import click

from proxy.cli.environment import env_file_option, environment
from proxy.controlplane.problems import ConfigInvalid
from proxy.controlplane.state_dir import StateDirUnusable
from proxy.controlplane.state_file import StateUnreadable, StateUnwritable
from proxy.process import serve as run
from proxy.state.listening import CannotListen


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--config", "-c", type=click.Path(path_type=Path), help="FILE, by name.")
@env_file_option
@click.option("--watch/--no-watch", default=True, help="Put the files in force when they change.  [default: watch]")
def serve(file: Path | None, config: Path | None, env_file: Path | None, watch: bool) -> None:
    """Serve the configuration FILE until SIGTERM or SIGINT.

    When it or the --env-file changes it is put in force, if it is valid. SIGHUP reads both again in any case; SIGUSR2
    restarts its workers.
    """
    path = file or config
    if path is None or (file and config):
        raise click.UsageError("name the configuration once: serinus serve FILE, or --config FILE")
    sources = [path] if env_file is None else [path, env_file]
    try:
        run(path, lambda: environment(env_file), sources if watch else ())
    except ConfigInvalid as invalid:
        for problem in invalid.problems:
            click.echo(str(problem), err=True)
        raise SystemExit(1) from None
    except (StateDirUnusable, StateUnreadable, StateUnwritable, CannotListen) as error:
        raise click.ClickException(str(error)) from None
