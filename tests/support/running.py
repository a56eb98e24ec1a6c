"""A whole proxy in this process, on ports that the system chooses, with time that a test can let pass."""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp
import structlog

from proxy.controlplane.load import parse
from proxy.main import Serinus
from proxy.obs.log import Log
from proxy.state.live import KeyLive
from tests.support.patience import PATIENCE_S


class Clock:
    """Stands still, but for what a test adds: no machine is too slow for a limit that has a second to go."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.wall_ahead_s = 0.0  # somebody set the wall clock by so much
        self._began_wall_s = float(int(time.time()))  # noqa: TID251 - a date has no fractions

    def __call__(self) -> float:
        return 1_000_000.0 + self.ahead_s

    def wall(self) -> float:
        return self._began_wall_s + self.ahead_s + self.wall_ahead_s


class Events(list[dict[str, object]]):
    """What was logged."""

    def named(self, name: str) -> list[dict[str, object]]:
        return [event for event in self if event["event"] == name]


def recording_log(events: Events) -> Log:
    def keep(_: object, method: str, event: Mapping[str, object]) -> Mapping[str, object]:
        events.append({"level": method, **event})
        raise structlog.DropEvent

    log: Log = structlog.wrap_logger(structlog.PrintLogger(), [keep], structlog.make_filtering_bound_logger(0))
    return log


class RunningProxy:
    def __init__(self, serinus: Serinus, clock: Clock, events: Events) -> None:
        self.serinus, self.clock, self.events = serinus, clock, events
        self.port = serinus.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin_url = f"http://127.0.0.1:{serinus.admin_address[1]}"

    @property
    def requests_logged(self) -> list[dict[str, object]]:
        return self.events.named("request")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the proxy's own state makes `condition` true, turn by turn of the loop."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - any of its state may be asked for
                await asyncio.sleep(0)

    async def until_logged(self, count: int = 1) -> None:
        """Wait until so many requests have ended."""
        await self.until(lambda: len(self.requests_logged) >= count)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and all limits that it exceeds strike."""
        self.clock.ahead_s += seconds
        self.serinus.data_plane.watch.look()

    def key(self, upstream: str, name: str) -> KeyLive:
        """What is known of the value of this key that is in force."""
        return self.serinus.keyring.rings[upstream, name].current.live

    async def look(self, after_s: float = 0.0) -> None:
        """Let time pass, and do what is due of asking upstreams, until they have answered."""
        self.pass_time(after_s)
        checks = self.serinus.checks
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            checks.look(session)
            while checks._running:
                await asyncio.wait(checks._running.values())
                await asyncio.sleep(0)

    async def stop(self) -> None:
        await self.serinus.close()

    def inflight(self) -> int:
        return sum(live.inflight for live in self.serinus.registry.upstreams.values())

    def assert_nothing_left(self) -> None:
        for live in self.serinus.registry.upstreams.values():
            assert live.inflight == 0, f"{live.name}: a lease was left open"
            assert all(key.inflight == 0 for key in live.keys.values()), f"{live.name}: a key is still held"
        for client in self.serinus.registry.clients.values():
            assert client.limits.under_way == 0, f"{client.name}: a request still counts"
        for pool in self.serinus.registry.pools.values():
            assert (pool.requests, pool.budget.under_way) == (0, 0), f"{pool.name}: a request or a retry is counted on"
            assert not any(member.load.inflight for member in pool.members.values()), f"{pool.name}: load was left"
        assert not self.serinus.data_plane.callers.open
        assert not self.events.named("handler_failed"), self.events.named("handler_failed")


async def start_proxy(
    config: str,
    *,
    environ: Mapping[str, str] | None = None,
    path: Path | None = None,
    fast_lane: bool = True,
    follow: bool = False,
) -> RunningProxy:
    """Start a proxy. `config` says nothing of listeners: they are on free ports of this machine unless it does.

    `fast_lane`: whether plain requests take it, where `config` does not say.

    `path`: the file that `config` is written to, for tests that reload it.

    `follow`: whether its follower takes what the file says when it is told to look.
    """
    if "listen:" not in config:
        config = "listen: 127.0.0.1:0\n" + config
    if "\nadmin:" not in config:
        config += "\nadmin: {listen: 127.0.0.1:0}\n"
    if "fast_lane:" not in config:
        config += f"fast_lane: {str(fast_lane).lower()}\n"
    if path is not None:
        path.write_text(config)
    environ = {} if environ is None else environ
    clock, events = Clock(), Events()
    base = path.parent if path is not None else Path()
    loaded = parse(config, environ, base=base)
    loaded.settings.state_dir.mkdir(exist_ok=True)
    serinus = Serinus(
        path or Path("none.yaml"),
        lambda: environ,
        loaded,
        recording_log(events),
        clock,
        wall_clock=clock.wall,
        follow=[path] if path is not None and follow else (),
    )
    await serinus.start()
    await serinus.stop_checking()  # upstreams are checked when a test says so
    return RunningProxy(serinus, clock, events)


IN_TURN_AND_ONCE = "balance: smooth_rr, retry: {attempts: 1}"


def config_for(
    *base_urls: str,
    keys: bool = True,
    clients: bool = True,
    upstream: str = "",
    route: str = "",
    top: str = "",
    pool: str = IN_TURN_AND_ONCE,
) -> str:
    """The usual configuration: a pool of upstreams at /v1 and /anthropic. `upstream`, `route`: more of their fields.

    `pool`: more of its fields; the upstreams take turns, and what fails is not tried again, unless it says otherwise.

    The caller's key is `client-key`, the upstreams' are `upstream-key-0`, `upstream-key-1`, …
    """
    extra = f", {upstream}" if upstream else ""
    lines = [top]
    if clients:
        lines.append("clients: [{name: tester, key: client-key}]")
    lines.append("upstreams:")
    for number, url in enumerate(base_urls):
        held = f", keys: [{{name: main, value: upstream-key-{number}}}]" if keys else ""
        lines.append(f"  up{number}: {{base_url: '{url}'{held}{extra}}}")
    members = ", ".join(f"{{upstream: up{number}}}" for number in range(len(base_urls)))
    more = f", {route}" if route else ""
    extra_pool = f", {pool}" if pool else ""
    lines += [f"pools: {{chat: {{members: [{members}]{extra_pool}}}}}", "routes:"]
    lines += [f"  - {{prefix: /v1, pool: chat{more}}}", f"  - {{prefix: /anthropic, pool: chat{more}}}"]
    return "\n".join(lines) + "\n"
