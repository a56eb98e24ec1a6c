"""`serinus demo`: a whole proxy before simulated upstreams, with no key and no configuration of your own."""

import asyncio
import random
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import uvloop

from proxy.controlplane.load import parse
from proxy.main import CannotListen, Serinus, run
from proxy.obs.log import configure
from proxy.simulation import Behaviour, SimulatedUpstream

# Three providers as one meets them: a quick one, a slower one that carries less, and one that fails now and then.
PROVIDERS = (
    (Behaviour(name="swift", ttft_s=0.15, per_token_s=0.01, tokens=40, jitter=0.3), 3),
    (Behaviour(name="steady", ttft_s=0.4, per_token_s=0.02, tokens=40, jitter=0.3), 2),
    (
        Behaviour(
            name="shaky", ttft_s=0.2, per_token_s=0.015, tokens=40, jitter=0.5, error_rate=0.05, error_status=503
        ),
        1,
    ),
)

WELCOME = """\
Serinus answers on {url}, out of three simulated upstreams (weights {weights}); no API key is needed.

  curl {url}/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "gpt-4.1", "messages": [{{"role": "user", "content": "Sing!"}}]}}'

  curl -N {url}/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "gpt-4.1", "stream": true, "messages": [{{"role": "user", "content": "Sing!"}}]}}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}", api_key="none")
  print(client.chat.completions.create(model="gpt-4.1", messages=[{{"role": "user", "content": "Sing!"}}]))

  from anthropic import Anthropic
  client = Anthropic(base_url="{root}/anthropic", api_key="none")

One of the three fails now and then, as providers do: a 503 once in a while is part of the demo.
Metrics: {admin}/metrics   Status: {admin}/status   The configuration: {config}
One line a request follows; Ctrl-C ends.
"""


@click.command()
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 is any free port.")
@click.option(
    "--admin-port", default=9090, show_default=True, type=click.IntRange(0, 65535), help="0 is any free port."
)
@click.option("--seconds", type=click.FloatRange(min=0), help="End after so long. Absent: at Ctrl-C.")
@click.option("--seed", default=1, show_default=True, help="For the simulated latencies and errors.")
def demo(port: int, admin_port: int, seconds: float | None, seed: int) -> None:
    """Run a proxy before simulated LLM upstreams, and print the lines to try it with."""
    with TemporaryDirectory(prefix="serinus-demo-") as folder:
        try:
            uvloop.run(_demo(Path(folder) / "demo.yaml", port, admin_port, seconds, random.Random(seed)))  # noqa: S311
        except CannotListen as error:
            raise click.ClickException(f"{error} (choose others with --port and --admin-port)") from None


async def _demo(path: Path, port: int, admin_port: int, seconds: float | None, rng: random.Random) -> None:
    async with AsyncExitStack() as stack:
        urls = {}
        for behaviour, _ in PROVIDERS:
            simulated = SimulatedUpstream(behaviour, rng, wall_clock=lambda: datetime.now(UTC).timestamp())
            urls[behaviour.name] = (await stack.enter_async_context(simulated)).url
        text = config(urls, port, admin_port)
        path.write_text(text)  # noqa: ASYNC240 - nothing is served yet
        loaded = parse(text, {}, file=str(path))
        serinus = Serinus(path, dict, loaded, configure("info", "console"))
        stop = asyncio.Event()
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, stop.set)
        await run(serinus, stop, on_start=lambda: click.echo(welcome(serinus, path)))


def config(urls: dict[str, str], port: int, admin_port: int) -> str:
    """The demo's configuration, as one would write it."""
    names = [behaviour.name for behaviour, _ in PROVIDERS]
    members = "\n".join(f"      - {{upstream: {behaviour.name}, weight: {weight}}}" for behaviour, weight in PROVIDERS)
    return "\n".join(
        [
            f"listen: 127.0.0.1:{port}",
            f"admin: {{listen: 127.0.0.1:{admin_port}}}",
            "pre_drain: 0s",
            "drain_timeout: 2s",
            "upstreams:",
            *(f"  {name}: {{base_url: {urls[name]}/v1}}" for name in names),
            *(f"  {name}-messages: {{base_url: {urls[name]}}}" for name in names),
            "pools:",
            "  chat:",
            "    members:",
            members,
            "  messages:",
            "    members:",
            members.replace(", weight", "-messages, weight"),
            "routes:",
            "  - {prefix: /v1, pool: chat}",
            "  - {prefix: /anthropic, pool: messages}",
            "",
        ]
    )


def welcome(serinus: Serinus, path: Path) -> str:
    """What to try, with the addresses as they came to be."""
    host, port = serinus.addresses[0]
    admin_host, admin_port = serinus.admin_address
    return WELCOME.format(
        url=f"http://{host}:{port}/v1",
        root=f"http://{host}:{port}",
        admin=f"http://{admin_host}:{admin_port}",
        weights=" : ".join(str(weight) for _, weight in PROVIDERS),
        config=path,
    )
