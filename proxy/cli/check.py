"""`serinus check`: all that is wrong with a configuration, in one run and before it serves anyone."""

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from proxy.cli.admin_api import AdminApi, with_admin
from proxy.cli.differences_view import difference_lines
from proxy.cli.environment import env_file_option, environment
from proxy.controlplane.build import prove
from proxy.controlplane.certificates import expiring
from proxy.controlplane.differences import Difference, differences
from proxy.controlplane.effective import effective
from proxy.controlplane.load import load
from proxy.controlplane.probe import Probed, probe_all
from proxy.controlplane.problems import ConfigInvalid, Problem, path_text
from proxy.main import clock, wall_clock
from proxy.model.settings import Settings

Problems = tuple[Problem, ...]
DIFFERS = 3  # click says 2 to a command that is misused


@click.command()
@with_admin
@click.argument("file", type=click.Path(path_type=Path))
@env_file_option
@click.option("--probe", is_flag=True, help="Make one tiny streamed call per upstream and key. It may cost a token.")
@click.option("--diff", is_flag=True, help="Show what FILE would change in the proxy that runs at --admin.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
def check(api: AdminApi, file: Path, env_file: Path | None, probe: bool, diff: bool, as_json: bool) -> None:
    """Check the configuration FILE.

    Prints every problem with its place, then every warning, then what the probes met, then what would change. Exits
    with 1 if there are problems, a probe failed or there is no proxy to compare with, with 3 if --diff finds a
    difference, with 0 otherwise.
    """
    problems: Problems = ()
    probes: list[Probed] = []
    compared: Compared | None = None
    try:
        loaded = load(file, environment(env_file))
        prove(loaded.settings)
        if probe:
            probes = asyncio.run(probe_all(loaded.settings, clock))
        warnings = (*loaded.warnings, *expiring(loaded.settings, wall_clock()))
        verdict = f"ok: {summary(loaded.settings)}"
        compared = compare(api, loaded.settings) if diff else None
    except ConfigInvalid as invalid:
        problems, warnings = invalid.problems, invalid.warnings
        verdict = f"not valid: {counted(len(problems), 'problem')}"
    if warnings:
        verdict += f" ({counted(len(warnings), 'warning')})"
    failed = [probed for probed in probes if not probed.ok]
    if failed:
        verdict = f"valid, but {len(failed)} of {counted(len(probes), 'probe')} failed: {verdict.removeprefix('ok: ')}"
    (_print_json if as_json else _print)(problems, warnings, probes, compared, verdict)
    raise SystemExit(1 if problems or failed else DIFFERS if compared and compared.differences else 0)


@dataclass(frozen=True, slots=True)
class Compared:
    """What the file has otherwise than the proxy at `url`, and what is `waiting` there for a restart."""

    url: str
    differences: tuple[Difference, ...]
    waiting: tuple[str, ...]


def compare(api: AdminApi, settings: Settings) -> Compared:
    """Raises AdminUnavailable."""
    found = tuple(differences(api.config(), effective(settings)))
    last = api.status(window_s=1.0).last_reload or {}
    return Compared(api.url, found, tuple(last.get("need_restart", ())))


def summary(settings: Settings) -> str:
    """`1 listener, 3 upstreams, 2 pools, 4 routes, 0 clients`."""
    counts = {
        "listener": len(settings.listen),
        "upstream": len(settings.upstreams),
        "pool": len(settings.pools),
        "route": len(settings.routes),
        "client": len(settings.clients),
    }
    return ", ".join(counted(number, noun) for noun, number in counts.items())


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _print(
    problems: Problems, warnings: Problems, probes: list[Probed], compared: Compared | None, verdict: str
) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for problem in problems:
        console.print(_line(problem, "red"))
    for warning in warnings:
        console.print(Text.assemble(("warning: ", "yellow"), _line(warning, "yellow")))
    for probed in probes:
        console.print(_probe_line(probed))
    well = not problems and all(probed.ok for probed in probes)
    console.print(Text(verdict, "green" if well else "red"))
    if compared is not None:
        for line in difference_lines(compared.differences, compared.waiting, compared.url):
            console.print(line)


def _probe_line(probed: Probed) -> Text:
    """`probe openai/main: 200 from gpt-4.1: it streams (312 ms)`."""
    name = f"{probed.upstream}/{probed.key}" if probed.key else f"{probed.upstream} without a key"
    took = "" if probed.first_byte_s is None else f" ({probed.first_byte_s * 1000:.0f} ms)"
    return Text.assemble("probe ", (name, "green" if probed.ok else "red"), f": {probed.said}{took}")


def _line(problem: Problem, colour: str) -> Text:
    """The same characters as `str(problem)`: colour helps people, and nothing that reads the lines depends on it."""
    line = Text(str(problem))
    if problem.path:
        line.highlight_words([f" {path_text(problem.path)}:"], style=colour)
    return line


def _print_json(
    problems: Problems, warnings: Problems, probes: list[Probed], compared: Compared | None, verdict: str
) -> None:
    answer: dict[str, object] = {
        "ok": not problems and all(probed.ok for probed in probes),
        "summary": verdict,
        "probes": [asdict(probed) for probed in probes],
        "problems": [_record(problem) for problem in problems],
        "warnings": [_record(warning) for warning in warnings],
    }
    if compared is not None:
        answer |= {"differences": [asdict(each) for each in compared.differences], "waiting": compared.waiting}
    click.echo(json.dumps(answer, indent=2))


def _record(problem: Problem) -> dict[str, str | int | None]:
    return {
        "file": problem.file,
        "line": problem.line,
        "path": path_text(problem.path),
        "message": problem.message,
    }
