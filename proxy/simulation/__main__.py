"""A simulated upstream of its own, in a terminal: `serinus simulate --port 9001 --ttft 200ms`."""

import asyncio
import os
import random
import re
import signal
from datetime import UTC, datetime

import click
import uvloop

from proxy.simulation.behaviour import Behaviour
from proxy.simulation.upstream import SimulatedUpstream

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m)")


class Duration(click.ParamType[float]):
    """`200ms`, `1.5s` or `2m`, in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = _DURATION.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is not a duration such as 200ms or 1.5s", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


@click.command(name="python -m proxy.simulation")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=9001, show_default=True, type=click.IntRange(0, 65535), help="0 is any free port.")
@click.option("--name", default="simulated", show_default=True, help="Sent in x-simulated-upstream.")
@click.option("--ttft", default="0ms", type=Duration(), help="The wait before an answer's first token.")
@click.option("--per-token", default="0ms", type=Duration(), help="The wait between two tokens.")
@click.option("--tokens", default=20, show_default=True, type=click.IntRange(min=1), help="An answer's usual length.")
@click.option("--jitter", default=0.0, type=click.FloatRange(0, 1), help="How far waits stray: 0.2 is ±20 %.")
@click.option("--error-rate", default=0.0, type=click.FloatRange(0, 1), help="The share of requests that fail.")
@click.option("--error-status", default=500, show_default=True, type=click.IntRange(400, 599))
@click.option("--model", "models", multiple=True, help="A model to serve, and no others; may be repeated.")
@click.option("--api-key", help="Answer any other key with 401.")
@click.option("--seed", default=0, show_default=True, help="For errors, jitter and ids.")
def main(
    host: str,
    port: int,
    name: str,
    ttft: float,
    per_token: float,
    tokens: int,
    jitter: float,
    error_rate: float,
    error_status: int,
    models: tuple[str, ...],
    api_key: str | None,
    seed: int,
) -> None:
    """Serve a simulated LLM API, in the words of OpenAI and of Anthropic.

    What it says is meaningless; how fast, and how it fails, is what the options say. Nothing leaves this machine.
    """
    behaviour = Behaviour(
        name=name,
        ttft_s=ttft,
        per_token_s=per_token,
        tokens=tokens,
        jitter=jitter,
        error_rate=error_rate,
        error_status=error_status,
        models=models or Behaviour().models,
        strict_models=bool(models),
        api_key=api_key,
    )
    rng = random.Random(seed)  # noqa: S311 - it has to be repeatable
    upstream = SimulatedUpstream(behaviour, rng, wall_clock=lambda: datetime.now(UTC).timestamp())
    try:
        uvloop.run(_serve(upstream, host, port))
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else error  # asyncio's own says the address again
        raise click.ClickException(f"cannot listen on {host}:{port}: {why} (choose another with --port)") from None


async def _serve(upstream: SimulatedUpstream, host: str, port: int) -> None:
    told_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told_to_stop.set)
    await upstream.start(host, port)
    click.echo(f"base_url={upstream.url}/v1")
    await told_to_stop.wait()
    await upstream.stop()


if __name__ == "__main__":
    main()
