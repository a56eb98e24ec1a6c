import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from tests.support.ports import held_socket
from tests.support.raw import RawCaller
from tests.support.running import RunningProxy, start_proxy
from tests.support.scripted import Script, ScriptedUpstream

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")  # how long an example takes is the machine's doing


def pytest_asyncio_loop_factories(config: pytest.Config) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that the proxy runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def scripted() -> AsyncIterator[Callable[[Script], "asyncio.Future[ScriptedUpstream]"]]:
    """Starts scripted upstreams: `upstream = await scripted(script)`."""
    started: list[ScriptedUpstream] = []

    async def start(script: Script, host: str = "127.0.0.1", port: int = 0) -> ScriptedUpstream:
        upstream = ScriptedUpstream(script)
        await upstream.start(host, port)
        started.append(upstream)
        return upstream

    yield start
    for upstream in started:
        await upstream.stop()


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test loses power; but a disk that others write to has let one wait for a minute."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)


@pytest.fixture
def held_port() -> Iterator[int]:
    """Where nobody listens, and nobody else will."""
    with held_socket() as held:
        yield held.getsockname()[1]


@pytest.fixture
async def name(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what `localhost` means: `name("127.0.0.1")`; without any address, nobody knows it."""
    kind, now = type(asyncio.get_running_loop()), ["127.0.0.1"]
    asked = kind.getaddrinfo

    async def getaddrinfo(loop, host, port, **options):
        if host != "localhost":
            return await asked(loop, host, port, **options)
        if not now:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in now if address]

    def means(*addresses: str) -> None:
        now[:] = addresses

    monkeypatch.setattr(kind, "getaddrinfo", getaddrinfo)
    return means


@pytest.fixture
async def callers_leave(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Whoever is still connected at the end of the test leaves then."""
    connect, opened = RawCaller.connect, []

    async def remembering(*args: object, **options: object) -> RawCaller:
        opened.append(caller := await connect(*args, **options))
        return caller

    monkeypatch.setattr(RawCaller, "connect", remembering)
    yield
    for caller in opened:
        caller.writer.transport.abort()
    await asyncio.sleep(0)


@pytest.fixture
def fast_lane() -> bool:
    """Whether the proxies of a test have their fast lane; where it matters, a test runs both ways."""
    return True


@pytest.fixture
async def proxy(
    fast_lane: bool, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., "asyncio.Future[RunningProxy]"]]:
    """Starts proxies: `running = await proxy(config_text)`. Each must end with no lease, task or exchange left."""
    started: list[RunningProxy] = []

    async def start(config: str, **options: object) -> RunningProxy:
        monkeypatch.chdir(tmp_path_factory.mktemp("state"))  # each has a state_dir of its own
        running = await start_proxy(config, fast_lane=fast_lane, **options)
        started.append(running)
        return running

    yield start
    for running in started:
        await running.stop()
        running.assert_nothing_left()
