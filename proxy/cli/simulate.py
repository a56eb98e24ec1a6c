"""`serinus canary simulate`: a rollout before it is real, in made-up time, by the object that serves."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from proxy.controlplane.document import read
from proxy.controlplane.problems import ConfigInvalid
from proxy.policy.canary import CanarySpec, State
from proxy.rehearsal.plot import Frame, NoPlotter, frame, plot
from proxy.rehearsal.run import Moment, Rehearsal, timeline
from proxy.rehearsal.scenario import Scenario

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_WORSE = (State.ROLLING_BACK, State.FAILED)


@click.command()
@click.argument("spec", type=_file)
@click.option("--canary", "name", help="Which one, where SPEC is a configuration with several.")
@click.option("--scenario", type=_file, help="What the callers and the arms are like. [default: both arms alike]")
@click.option("--seed", type=int, help="For the same dice again. [default: others each time, and told]")
@click.option("--plot", "picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw it: FILE.svg or .png.")
@click.option("--json", "as_json", is_flag=True, help="Print the events and the end as one JSON object.")
def simulate(
    spec: Path, name: str | None, scenario: Path | None, seed: int | None, picture: Path | None, as_json: bool
) -> None:
    """Play a rollout through, and print what happens when.

    SPEC is a YAML file with one canary's settings, or a whole configuration. Hours pass in seconds: traffic is made up
    as a --scenario says (its rate, latencies, failures, stalls, bursts, clients), and the decisions are the real ones.

    Exits with 3 if the canary was rolled back.
    """
    asked = _asked(spec, name)
    traffic = _parsed(Scenario, {} if scenario is None else _data(scenario), scenario or spec)
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    rehearsal = Rehearsal(asked, traffic, seed)
    moments: list[Moment] = []
    frames: list[Frame] = []
    lines = timeline(_kept(rehearsal, moments, frames if picture is not None else None))
    if as_json:
        told = list(lines)
        click.echo(msgspec.json.format(msgspec.json.encode(_end(rehearsal, moments, seed) | {"events": told})))
    else:
        for line in lines:
            click.echo(line)
        end = _end(rehearsal, moments, seed)
        sent = f"{end['baseline_requests']} baseline and {end['canary_requests']} canary requests"
        click.echo(f"{end['state']} at {end['weight']:.0%} after {end['minutes']:.1f} min, {sent} (seed {seed})")
    if picture is not None:
        try:
            plot(frames, picture)
        except (NoPlotter, OSError, ValueError) as error:
            raise click.ClickException(f"{picture}: {error}") from None
    if rehearsal.rollout.state in _WORSE:
        raise click.exceptions.Exit(3)


def _kept(rehearsal: Rehearsal, moments: list[Moment], frames: list[Frame] | None) -> Iterator[Moment]:
    for moment in rehearsal.play():
        moments.append(moment)
        if frames is not None:
            frames.append(frame(moment, rehearsal.rollout.explain()))
        yield moment


def _end(rehearsal: Rehearsal, moments: list[Moment], seed: int) -> dict[str, Any]:
    last = moments[-1]
    return {
        "state": last.state,
        "weight": last.weight,
        "minutes": round((last.now_s - moments[0].now_s) / 60, 1),
        "baseline_requests": last.sent[0],
        "canary_requests": last.sent[1],
        "seed": seed,
    }


def _asked(file: Path, name: str | None) -> CanarySpec:
    data = _data(file)
    canaries = data.get("canaries")
    if isinstance(canaries, dict):
        if name is None and len(canaries) == 1:
            name = next(iter(canaries))
        if name not in canaries:
            raise click.UsageError(f"{file} has the canaries {', '.join(canaries)}: choose one with --canary")
        data = canaries[name]
    if isinstance(data, dict):  # a rehearsal tells nobody, and needs no secret to sign with
        data = {key: value for key, value in data.items() if key != "webhooks"}
    found: CanarySpec = _parsed(CanarySpec, data, file)
    return found


def _parsed(kind: Any, data: Any, file: Path) -> Any:
    try:
        return kind.parse(data)
    except ValueError as error:
        raise click.ClickException(f"{file}: {error}") from None


def _data(file: Path) -> Any:
    try:
        document = read(file.read_text(), str(file))
    except ConfigInvalid as invalid:
        raise click.ClickException("\n".join(map(str, invalid.problems))) from None
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file} cannot be read: {error}") from None
    if document.problems:
        raise click.ClickException("\n".join(map(str, document.problems)))
    return document.data
