import asyncio
import importlib
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy.benchmark.client import Client
from proxy.benchmark.dialects import DIALECTS, Dialect, Message, Read
from proxy.benchmark.sample import Sample
from proxy.benchmark.target import Target
from proxy.cli.bench import bench
from proxy.simulation import Behaviour, SimulatedUpstream
from tests.support.patience import PATIENCE_S
from tests.support.scripted import ScriptedUpstream, answering, answering_then_closing

FIRST_S, TOKEN_S = 0.25, 0.0625  # sums of these are exact
ASK = [{"role": "user", "content": "zebra"}]
KEY = "sk-zebra-finch"
Background = Callable[[Awaitable[Any]], Any]
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class Time:
    """The only time of a test: it passes where somebody sleeps, and nowhere else."""

    def __init__(self, now_s: float = 1024.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    async def nap(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


class Lockstep:
    """Lets time pass at the upstream only when the client has read all tokens that were sent so far.

    For one caller at a time: each sleep of the upstream but an answer's first comes after one token.
    """

    def __init__(self, time: Time) -> None:
        self.time = time
        self.sent = self.read = 0
        self._moved = asyncio.Event()

    def begin(self) -> None:
        """A new answer: what is left of the one before has been read."""
        self.sent = self.read = 0

    def got(self) -> None:
        self.read += 1
        self._moved.set()

    async def sleep(self, seconds: float) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.read < self.sent:
                self._moved.clear()
                await self._moved.wait()
        self.sent += 1
        self.time.now_s += seconds


class Watched:
    """A dialect that says when a token has been read."""

    def __init__(self, dialect: Dialect, lockstep: Lockstep) -> None:
        self._dialect, self._lockstep = dialect, lockstep
        self.path, self.headers, self.whole = dialect.path, dialect.headers, dialect.whole

    def body(self, model: str, messages: Sequence[Message], tokens: int, *, stream: bool) -> dict[str, Any]:
        self._lockstep.begin()
        return self._dialect.body(model, messages, tokens, stream=stream)

    def event(self, data: bytes) -> Read:
        read = self._dialect.event(data)
        if read.token:
            self._lockstep.got()
        return read


def target_of(
    url: str, api: str = "chat", *, dialect: Dialect | None = None, key: str | None = None, **changes: Any
) -> Target:
    named = {"name": url, "model": "m", "headers": {}, "fields": {}} | changes
    return Target(base_url=url, key=key, dialect=dialect or DIALECTS[api](), **named)


def sample(total_s: float, *, first_s: float | None = None, **changes: Any) -> Sample:
    """An answer that was due at 0."""
    fields: dict[str, Any] = {"due_s": 0.0, "sent_s": 0.0, "ended_s": total_s, "status": 200}
    if first_s is not None:
        fields |= {"first_token_s": first_s, "last_token_s": total_s}
    return Sample(**(fields | changes))


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def lockstep(time: Time) -> Lockstep:
    return Lockstep(time)


@pytest.fixture
def watched(lockstep: Lockstep) -> Mapping[str, Watched]:
    return {name: Watched(kind(), lockstep) for name, kind in DIALECTS.items()}


@pytest.fixture
async def paced(time: Time, lockstep: Lockstep) -> AsyncIterator[SimulatedUpstream]:
    """Its latencies are exact, in the time of the test."""
    behaviour = Behaviour(ttft_s=FIRST_S, per_token_s=TOKEN_S)
    async with SimulatedUpstream(behaviour, random.Random(1), sleep=lockstep.sleep, clock=time) as running:
        yield running


@pytest.fixture
async def client(time: Time) -> AsyncIterator[Client]:
    async with Client(time, 30.0) as running:
        yield running


@pytest.fixture
def asked(
    client: Client, scripted: Callable[..., "asyncio.Future[ScriptedUpstream]"]
) -> Callable[..., "asyncio.Future[Sample]"]:
    """Asks an upstream that answers with these pieces and closes: `await asked(piece, ...)`."""

    async def ask(*pieces: bytes, api: str = "chat", stream: bool = True, key: str | None = None) -> Sample:
        upstream = await scripted(answering_then_closing(*pieces))
        return await client.ask(target_of(upstream.url, api, key=key), ASK, 8, stream=stream, due_s=0.0)

    return ask


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has its own limits and collector; and no width of a terminal of its own."""
    monkeypatch.setattr(importlib.import_module("proxy.cli.bench"), "_prepare_process", lambda: None)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    """Runs upstreams beside the command, which wants the main thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield lambda awaitable: asyncio.run_coroutine_threadsafe(awaitable, loop).result(PATIENCE_S)  # type: ignore[arg-type]
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture(scope="module")
def simulated(background: Background) -> Iterator[str]:
    upstream = SimulatedUpstream(Behaviour(api_key=KEY, tokens=4), random.Random(1))
    background(upstream.start())
    yield upstream.url
    background(upstream.stop())


@pytest.fixture
def answers(background: Background) -> Iterator[Callable[..., str]]:
    """The URL of an upstream that answers every request with these pieces."""
    started: list[ScriptedUpstream] = []

    def start(*pieces: bytes, closing: bool = False) -> str:
        started.append(ScriptedUpstream((answering_then_closing if closing else answering)(*pieces)))
        background(started[-1].start())
        return started[-1].url

    yield start
    for upstream in started:
        background(upstream.stop())


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(bench, [*arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result
