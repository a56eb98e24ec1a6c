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

from proxy.cli.demo.scene import PROVIDERS, TO_TRY, config
from proxy.cli.demo.traffic import WINDOW_S, Traffic
from proxy.cli.demo.view import LastRequests, View
from proxy.controlplane.load import parse
from proxy.controlplane.status import Status
from proxy.main import CannotListen, Serinus, clock, run
from proxy.obs.log import configure
from proxy.simulation import SimulatedUpstream
from proxy.state.tasks import Tasks

LOOK_S = 0.5
LOOKS_A_REPORT = 10
PICTURE_COLUMNS = 112


@dataclass(frozen=True, slots=True)
class Options:
    port: int
    admin_port: int
    rate: float
    seconds: float | None
    plain: bool
    seed: int
    picture: Path | None


@click.command()
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 is any free port.")
@click.option("--admin-port", default=9090, show_default=True, type=click.IntRange(0, 65535), help="0 is any, too.")
@click.option("--rate", default=6.0, show_default=True, type=click.FloatRange(0, 200), help="Calls a second; 0: none.")
@click.option("--seconds", type=click.FloatRange(min=0), help="End after so long. Absent: at Ctrl-C.")
@click.option("--plain", is_flag=True, help="Print lines, and draw nothing. So it is where there is no terminal.")
@click.option("--seed", default=1, show_default=True, help="For the simulated latencies and errors.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Write the last view as an SVG.")
def demo(**options: Any) -> None:
    """Run a proxy before simulated LLM upstreams, with callers, and watch it work."""
    chosen = Options(**options)
    console = Console(highlight=False)
    with TemporaryDirectory(prefix="serinus-demo-") as folder:
        try:
            uvloop.run(Demo(chosen, console, Path(folder) / "demo.yaml").run())
        except CannotListen as error:
            raise click.ClickException(f"{error} (choose others with --port and --admin-port)") from None


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
            for behaviour, _ in PROVIDERS:
                simulated = SimulatedUpstream(behaviour, self._dice, wall_clock=lambda: _now().timestamp())
                urls[behaviour.name] = (await stack.enter_async_context(simulated)).url
            text = config(urls, self._options.port, self._options.admin_port, self._path.parent)
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
        callers, traffic = Tasks(), None
        if self._options.rate:
            traffic = Traffic(root, self._options.rate, self._dice, clock)
            callers.spawn(traffic.run(asyncio.sleep))
        view = View(traffic, self._requests, TO_TRY.format(root=root, admin=admin, config=self._path))
        show = self._print if self._plain else self._draw
        try:
            await show(view, lambda: serinus.admin.status(WINDOW_S))
            if self._options.picture is not None:
                _take_picture(view, self._options.picture)
        finally:
            self._stop.set()
            await callers.close()

    async def _draw(self, view: View, status: Callable[[], Status]) -> None:
        console = self._console
        with Live(console=console, screen=True, auto_refresh=False) as live:
            async for _ in self._looks():
                view.look(status())
                live.update(view.screen(console.width), refresh=True)
        console.print(view.report(_now()), "Serinus has stopped.")

    async def _print(self, view: View, status: Callable[[], Status]) -> None:
        self._console.print(view.to_try, soft_wrap=True, markup=False)
        async for number in self._looks():
            view.look(status())
            if number and number % LOOKS_A_REPORT == 0:
                self._console.print(view.report(_now()))
        self._console.print(view.report(_now()), "Serinus has stopped.")

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
    console.print(view.screen(PICTURE_COLUMNS))
    console.save_svg(str(path), title="serinus demo")


def _url(address: tuple[str, int]) -> str:
    return f"http://{address[0]}:{address[1]}"


def _now() -> datetime:
    return datetime.now(UTC).astimezone()
