"""`serinus demo`: a whole proxy before simulated upstreams, with callers, no key and no configuration of your own."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.live import Live

from proxy.cli.demo.canary_panel import Explained
from proxy.cli.demo.scene import BAD, CANARY, GOOD, RATE_PER_S, TO_TRY, Trial, behaviours, config
from proxy.cli.demo.traffic import WINDOW_S, Traffic
from proxy.cli.demo.view import LastRequests, View
from proxy.controlplane.load import parse
from proxy.main import Serinus, clock
from proxy.obs.log import configure
from proxy.process import run
from proxy.simulation import SimulatedUpstream
from proxy.state.listening import CannotListen
from proxy.state.tasks import Tasks

LOOK_S = 0.5
LOOKS_A_REPORT = 10
PICTURE_COLUMNS = 112


@dataclass(frozen=True, slots=True)
class Options:
    port: int
    admin_port: int
    rate: float | None
    trial: Trial | None
    until_decided: bool
    seconds: float | None
    plain: bool
    seed: int
    picture: Path | None


@click.command()
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 is any free port.")
@click.option("--admin-port", default=9090, show_default=True, type=click.IntRange(0, 65535), help="0 is any, too.")
@click.option("--bad-canary", is_flag=True, help="Roll out an upstream that is slower and fails: it is rolled back.")
@click.option("--good-canary", is_flag=True, help="Roll out an upstream that is no worse: it is promoted.")
@click.option("--until-decided", is_flag=True, help="End when the canary is promoted or rolled back.")
@click.option(
    "--rate", type=click.FloatRange(0, 200), help="Calls a second; 0: none. Absent: 6, with a canary 15 or 20."
)
@click.option("--seconds", type=click.FloatRange(min=0), help="End after so long. Absent: at Ctrl-C.")
@click.option("--plain", is_flag=True, help="Print lines, and draw nothing. So it is where there is no terminal.")
@click.option("--seed", default=1, show_default=True, help="For the simulated latencies and errors.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Write the last view as an SVG.")
def demo(bad_canary: bool, good_canary: bool, **options: Any) -> None:
    """Run a proxy before simulated LLM upstreams, with callers, and watch it work."""
    if bad_canary and good_canary:
        raise click.UsageError("--bad-canary and --good-canary: one at a time")
    trial = BAD if bad_canary else GOOD if good_canary else None
    chosen = Options(trial=trial, **options)
    if chosen.until_decided and (trial is None or chosen.rate == 0):
        raise click.UsageError("--until-decided: there is nothing to decide without a canary and callers")
    console = Console(highlight=False)
    with TemporaryDirectory(prefix="serinus-demo-") as folder:
        try:
            uvloop.run(Demo(chosen, console, Path(folder) / "demo.yaml").run())
        except CannotListen as error:
            raise click.ClickException(f"{error.said} (choose others with --port and --admin-port)") from None


class Demo:
    def __init__(self, options: Options, console: Console, path: Path) -> None:
        self._options, self._console, self._path = options, console, path
        self._dice = random.Random(options.seed)  # noqa: S311 - it has to be repeatable
        self._plain = options.plain or not console.is_terminal or console.is_dumb_terminal
        self._said = sys.stderr if self._plain else StringIO()  # where a screen is drawn, warnings wait for its end
        self._requests = LastRequests(_now)
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Raises CannotListen."""
        tasks = Tasks()
        async with AsyncExitStack() as stack:
            urls = {}
            for behaviour in behaviours(self._options.trial):
                simulated = SimulatedUpstream(behaviour, self._dice, wall_clock=lambda: _now().timestamp())
                urls[behaviour.name] = (await stack.enter_async_context(simulated)).url
            options = self._options
            text = config(urls, options.port, options.admin_port, self._path.parent, options.trial)
            self._path.write_text(text)
            loaded = parse(text, {}, file=str(self._path))
            log = configure("warning", "console", self._said)
            serinus = Serinus(self._path, dict, loaded, log, access=self._requests)

            def show() -> None:
                tasks.spawn(self._shown(serinus))

            await run(serinus, self._stop, on_start=show)
            await tasks.close()
        if isinstance(self._said, StringIO):
            click.echo(self._said.getvalue(), err=True, nl=False)

    async def _shown(self, serinus: Serinus) -> None:
        """The callers and what is to be seen of them, until the demo ends."""
        root, admin = _url(serinus.addresses[0]), _url(serinus.admin_address)
        callers, traffic, trial = Tasks(), None, self._options.trial
        usual = RATE_PER_S if trial is None else trial.rate_per_s
        rate = usual if self._options.rate is None else self._options.rate
        if rate:
            traffic = Traffic(root, rate, self._dice, clock)
            callers.spawn(traffic.run(asyncio.sleep))
        to_try = TO_TRY.format(root=root, admin=admin, config=self._path)
        view = View(traffic, self._requests, to_try, "" if trial is None else trial.rule)

        def look() -> None:
            view.look(serinus.admin.status(WINDOW_S), _explained(serinus))
            if self._options.until_decided and view.canary_is_over:
                self._stop.set()

        show = self._print if self._plain else self._draw
        try:
            await show(view, look)
            if self._options.picture is not None:
                _take_picture(view, self._options.picture)
        finally:
            self._stop.set()
            await callers.close()

    async def _draw(self, view: View, look: Callable[[], None]) -> None:
        console = self._console
        with Live(console=console, screen=True, auto_refresh=False) as live:
            async for _ in self._looks():
                look()
                live.update(view.screen(), refresh=True)
        console.print(view.report(_now(), last=True), "Serinus has stopped.")

    async def _print(self, view: View, look: Callable[[], None]) -> None:
        self._console.print(view.to_try, "", soft_wrap=True, markup=False, sep="\n")
        if view.rule:
            self._console.print(view.rule, soft_wrap=True, markup=False)
        async for number in self._looks():
            look()
            if number and number % LOOKS_A_REPORT == 0:
                self._console.print(view.report(_now()))
        self._console.print(view.report(_now(), last=True), "Serinus has stopped.")

    async def _looks(self) -> AsyncIterator[int]:
        """Numbered from 0: one now, and one every LOOK_S until the demo ends."""
        if self._options.seconds is not None:
            asyncio.get_running_loop().call_later(self._options.seconds, self._stop.set)
        for number in count():
            yield number
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), LOOK_S)
            if self._stop.is_set():
                break


def _take_picture(view: View, path: Path) -> None:
    console = Console(
        record=True, width=PICTURE_COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(view.screen())
    console.save_svg(str(path), title="serinus demo")


def _explained(serinus: Serinus) -> Explained | None:
    """The canary, if there is one."""
    rollout = serinus.canaries.rollouts.get(CANARY)
    return None if rollout is None else rollout.explain()


def _url(address: tuple[str, int]) -> str:
    return f"http://{address[0]}:{address[1]}"


def _now() -> datetime:
    return datetime.now(UTC).astimezone()
