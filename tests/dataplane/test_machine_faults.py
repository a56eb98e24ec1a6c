"""The machine under the proxy misbehaves: a full disk, no descriptors left, a wall clock that jumps.

What a wire can do is in test_faults.py. Some need Linux: its /proc and prlimit.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from proxy import main
from tests.support.lanes import has_begun_a_head, is_idle, the_connection
from tests.support.machine import FullFile, NobodyReads, NoReader, Output, Process, Vendor, until
from tests.support.raw import RawCaller, ask, get, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Conversation, Held, ScriptedUpstream, answering, whole

STREAM = get(b"/v1/stream")


@pytest.fixture
async def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
async def process(vendor, scripted, tmp_path) -> AsyncIterator[Process]:
    process = Process(tmp_path, await scripted(vendor))
    yield process
    await process.kill()


@pytest.fixture
def output(request, tmp_path) -> AsyncIterator[Output]:
    output: Output = request.param(tmp_path)
    yield output
    output.close()


async def streaming(port: int) -> RawCaller:
    """A caller in the middle of a stream."""
    caller = await RawCaller.connect(port)
    await caller.send(STREAM)
    await caller.read_until(Held.FIRST)
    return caller


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", [Output, NoReader, NobodyReads, FullFile], indirect=True)
async def test_callers_are_served_though_no_line_can_be_written(output, process, vendor):
    await process.start(output)
    caller = await streaming(process.port)
    for _ in range(30):  # lines of more bytes than a stream's own buffer has
        assert (await ask(process.port, get())).payload == b"{}"
    await process.assert_rests()
    vendor.may_end.set()
    assert (await caller.read_until(Held.LAST)) == Held.LAST
    process.tell_to_end()
    assert await process.ended() == 0


@pytest.mark.parametrize("output", [NoReader, NobodyReads, FullFile], indirect=True)
async def test_lines_are_written_again_when_there_is_room(output, process):
    await process.start(output)
    for _ in range(30):
        await ask(process.port, get(b"/v1/before"))
    for _ in range(2):  # between two checks it has tried to write them
        await process.checked()
    output.mend(process.id)
    for _ in range(3):
        await ask(process.port, get(b"/v1/after"))

    def paths() -> list[object]:
        return [line["path"] for line in output.lines() if line["event"] == "request"]

    await until(lambda: paths()[-3:] == ["/v1/after"] * 3)
    process.tell_to_end()
    await until(lambda: output.lines()[-1]["event"] == "stopped")
    assert await process.ended() == 0


# --- no descriptors left ---------------------------------------------------------------------------------------------


async def is_served(caller: RawCaller) -> bool:
    """Is a request answered, here? False if the connection is closed instead."""
    try:
        await caller.send(get(b"/elsewhere"))
        return (await caller.answer()).status == 404
    except (ConnectionError, asyncio.IncompleteReadError):
        return False


@pytest.mark.parametrize("output", [Output], indirect=True)
async def test_without_descriptors_it_serves_who_is_there_and_others_when_they_have_left(output, process, vendor):
    await process.start(output)
    stream = await streaming(process.port)
    before = process.open_files()
    process.limit_open_files(max(before) + 6)
    callers: list[RawCaller] = []
    while await is_served(caller := await RawCaller.connect(process.port)):
        callers.append(caller)
    assert len(callers) >= 5
    await process.assert_rests()
    await callers[0].send(get())
    assert (await callers[0].answer()).status == 503  # no descriptor for a way to the upstream either
    vendor.may_end.set()
    assert await stream.read_until(Held.LAST) == Held.LAST
    for caller in (stream, *callers):
        caller.close()
    await until(lambda: len(process.open_files()) < len(before))
    assert (await ask(process.port, get())).payload == b"{}"


# --- a wall clock that jumps -----------------------------------------------------------------------------------------


class WallClock:
    """The time of day, and what somebody sets it ahead by."""

    def __init__(self) -> None:
        self._now = time.time  # noqa: TID251 - the real one
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return self._now() + self.ahead_s


@pytest.fixture
def wall_clock(monkeypatch) -> WallClock:
    """What every library that asks `time.time` takes for the time of day."""
    wall_clock = WallClock()
    monkeypatch.setattr(time, "time", wall_clock)
    return wall_clock


@pytest.fixture(params=[3600, -3600], ids=["forward", "back"])
def jump(wall_clock, request) -> Callable[[RunningProxy], None]:
    """Set the wall clock by an hour, one way, and the next time the other way: before a wait begins, and amid it."""
    by_s = request.param

    def jump(running: RunningProxy) -> None:
        nonlocal by_s
        wall_clock.ahead_s += by_s
        running.clock.wall_ahead_s += by_s
        by_s = -by_s
        running.pass_time(0)

    return jump


def test_limits_go_by_a_clock_that_nobody_can_set():
    assert main.clock is time.monotonic  # noqa: TID251
    assert not time.get_clock_info("monotonic").adjustable


async def test_stream_is_as_old_as_it_is_when_the_clock_jumps(jump, scripted, proxy):
    upstream = await scripted(held := Held())
    running = await proxy(config_for(upstream.url, upstream="timeouts: {idle: 20s}"))
    jump(running)
    caller = await streaming(running.port)
    jump(running)
    running.pass_time(19)
    jump(running)
    assert running.inflight() == 1
    held.may_end.set()
    assert await caller.read_until(Held.LAST) == Held.LAST
    await running.until_logged()
    (line,) = running.requests_logged
    assert (line["outcome"], line["duration_ms"]) == ("ok", 19_000)


async def test_silent_stream_ends_when_its_time_is_over_though_the_clock_jumps(jump, scripted, proxy):
    upstream = await scripted(Held())
    running = await proxy(config_for(upstream.url, upstream="timeouts: {idle: 20s}"))
    jump(running)
    caller = await streaming(running.port)
    running.pass_time(19)
    jump(running)
    assert running.inflight() == 1
    running.pass_time(2)
    assert await caller.read_rest() == b""
    await running.until_logged()
    assert running.requests_logged[0]["outcome"] == "stalled"


async def test_idle_caller_stays_for_its_time_when_the_clock_jumps(jump, scripted, proxy):
    running = await proxy(config_for((await scripted(answering(whole(b"{}")))).url))
    jump(running)
    caller = await RawCaller.connect(running.port)
    await caller.send(get())
    assert (await caller.answer()).status == 200
    await running.until(lambda: is_idle(running))
    jump(running)
    running.pass_time(74)
    assert not the_connection(running).wire.is_closing()
    jump(running)
    assert not the_connection(running).wire.is_closing()
    running.pass_time(2)
    assert await caller.read_rest() == b""


async def test_idle_upstream_connection_is_kept_for_its_time_when_the_clock_jumps(jump, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, upstream="keepalive: {idle_timeout: 20s}"))
    jump(running)
    for _ in range(2):
        assert (await ask(running.port, get())).status == 200
        jump(running)
        running.pass_time(19)
    assert (upstream.connections, upstream.open) == (1, 1)
    running.pass_time(2)
    await upstream.until(lambda: upstream.open == 0)


async def test_half_a_head_is_waited_for_as_long_when_the_clock_jumps(jump, scripted, proxy):
    running = await proxy(config_for("http://127.0.0.1:1/v1", top="downstream: {head_timeout: 10s}"))
    jump(running)
    caller = await RawCaller.connect(running.port)
    await caller.send(get()[:-2])
    await running.until(lambda: has_begun_a_head(running))
    running.pass_time(9)
    jump(running)
    assert has_begun_a_head(running)
    running.pass_time(2)
    assert (await caller.answer()).status == 408


async def keys_asked(running: RunningProxy, upstream: ScriptedUpstream) -> Counter[bytes | None]:
    """Which keys the upstream sees in four requests, all of which it answers."""
    before = len(upstream.requests)
    for _ in range(4):
        assert (await ask(running.port, post())).status == 200
    return Counter(request.field(b"authorization")[-1:] for request in upstream.requests[before:])


@pytest.mark.parametrize("dated", [False, True], ids=["seconds", "a date"])
async def test_key_rests_for_as_long_as_it_was_told_when_the_clock_jumps(dated, jump, scripted, proxy):
    async def script(talk: Conversation) -> None:
        while True:
            refused = (await talk.request()).field(b"authorization") == b"Bearer key-a" and not told
            if refused:
                moment = format_datetime(datetime.fromtimestamp(running.clock.wall() + 20, UTC), usegmt=True)
                told.append(moment if dated else "20")
                fields = f"Retry-After: {told[0]}\r\n".encode()
            await talk.send(whole(b"slow", status=b"429 Slow", fields=fields) if refused else whole(b"{}"))

    told: list[str] = []
    upstream = await scripted(script)
    running = await proxy(f"""
upstreams: {{up: {{base_url: '{upstream.url}', keys: [{{name: a, value: key-a}}, {{name: b, value: key-b}}]}}}}
pools: {{chat: {{members: [{{upstream: up}}], balance: smooth_rr, slow_start: 0s}}}}
routes: [{{prefix: /v1, pool: chat}}]
""")
    jump(running)
    assert await keys_asked(running, upstream) == {b"a": 1, b"b": 4}
    jump(running)
    running.pass_time(19)
    assert await keys_asked(running, upstream) == {b"b": 4}
    jump(running)
    assert await keys_asked(running, upstream) == {b"b": 4}
    jump(running)
    running.pass_time(2)
    assert await keys_asked(running, upstream) == {b"a": 2, b"b": 2}


async def test_ejected_member_is_out_for_its_time_when_the_clock_jumps(jump, scripted, proxy):
    bad = await scripted(answering(whole(b"busy", status=b"503 Busy")))
    good = await scripted(answering(whole(b"{}")))
    pool = "balance: smooth_rr, slow_start: 0s"
    running = await proxy(config_for(bad.url, good.url, pool=pool))
    jump(running)

    async def times_asked() -> int:
        for _ in range(12):
            assert (await ask(running.port, post())).status == 200
        return len(bad.requests)

    assert await times_asked() == 5
    jump(running)
    running.pass_time(29)
    assert await times_asked() == 5
    jump(running)
    assert await times_asked() == 5
    jump(running)
    running.pass_time(2)
    assert await times_asked() == 6  # and out again
