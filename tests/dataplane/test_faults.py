"""A wire between the proxy and its upstream that misbehaves: what callers get, and that it ends."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from tests.support.faults import (
    Fault,
    FaultProxy,
    black_hole,
    cut_after,
    delay,
    drop,
    half_close,
    pass_through,
    rst,
    throttle,
)
from tests.support.raw import Answer, RawCaller, get, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Conversation, Script, ScriptedUpstream, answering, whole

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = [b"data: %d\n\n" % number for number in range(300)]
CHUNKS = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in EVENTS)
END = b"0\r\n\r\n"
STREAM = HEAD + CHUNKS + END
PLAIN = whole(b'{"answer":"whole"}')
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"z" * 1000

ENDS = pytest.mark.parametrize("rst", [False, True], ids=["FIN", "RST"])


@dataclass
class Scene:
    """A proxy before a wire before an upstream."""

    upstream: ScriptedUpstream
    faults: FaultProxy
    running: RunningProxy
    caller: RawCaller

    async def ask(self, request: bytes = b"") -> Answer:
        await self.caller.send(request or post())
        return await self.caller.answer()

    async def assert_goes_on(self) -> None:
        """The next request is served, by a new connection, once the wire is sound."""
        self.faults.mode = pass_through
        self.caller = await RawCaller.connect(self.running.port)
        assert (await self.ask(get())).status == 200


Staged = Callable[..., "asyncio.Future[Scene]"]


@pytest.fixture
async def staged(scripted, proxy) -> AsyncIterator[Staged]:
    wires: list[FaultProxy] = []

    async def stage(script: Script, mode: Fault = pass_through, **config: str) -> Scene:
        upstream = await scripted(script)
        wires.append(faults := FaultProxy(upstream.port, mode))
        await faults.listen()
        running = await proxy(config_for(faults.url, **config))
        return Scene(upstream, faults, running, await RawCaller.connect(running.port))

    yield stage
    for faults in wires:
        await faults.close()


def error_code(answer: Answer) -> object:
    return json.loads(answer.payload)["error"]["code"]


# --- the wire itself --------------------------------------------------------------------------------------------------


@pytest.fixture
async def wire(scripted) -> AsyncIterator[Callable[..., "asyncio.Future[tuple[FaultProxy, RawCaller]]"]]:
    """A wire with no proxy before it: `faults, caller = await wire(script, mode)`."""
    wires: list[FaultProxy] = []

    async def lay(script: Script, mode: Fault = pass_through) -> tuple[FaultProxy, RawCaller]:
        wires.append(faults := FaultProxy((await scripted(script)).port, mode))
        await faults.listen()
        return faults, await RawCaller.connect(faults.port)

    yield lay
    for faults in wires:
        await faults.close()
        assert (faults.open, faults._tasks) == (0, set())


async def test_wire_passes_both_ways_and_counts(wire):
    faults, caller = await wire(answering(PLAIN))
    for count in (1, 2):
        await caller.send(post())
        assert (await caller.answer()).payload == b'{"answer":"whole"}'
        assert (faults.up_bytes, faults.down_bytes) == (len(post()) * count, len(PLAIN) * count)
    assert (faults.connections, faults.open) == (1, 1)
    caller.close()
    await faults.until(lambda: faults.open == 0)


async def test_wire_refuses_and_listens_again_on_its_port(wire):
    faults, caller = await wire(answering(PLAIN))
    await caller.send(post())
    await caller.answer()
    faults.refuse()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", faults.port)
    await caller.send(post())
    assert (await caller.answer()).whole  # what is open goes on
    await faults.listen()
    await RawCaller.connect(faults.port)
    await faults.until(lambda: faults.connections == 2)


@pytest.mark.parametrize(("fault", "reset"), [(drop, False), (rst, True)], ids=["drop", "rst"])
async def test_wire_ends_at_once(fault, reset, wire):
    _, caller = await wire(answering(PLAIN), fault)
    assert await caller.read_rest() == b""
    assert caller.closed is reset


@ENDS
async def test_wire_cuts_after_so_many_bytes(rst, wire):
    faults, caller = await wire(answering(PLAIN), cut_after(30, rst=rst))
    await caller.send(post())
    assert await caller.read_rest() == PLAIN[:30]
    assert caller.closed is rst
    assert faults.down_bytes == 30


async def test_wire_closes_one_direction_and_hears_the_other(wire):
    faults, caller = await wire(answering(PLAIN), half_close(30))
    await caller.send(post())
    assert await caller.read_rest() == PLAIN[:30]
    await caller.send(b"more")
    await faults.until(lambda: faults.up_bytes == len(post()) + 4)
    assert faults.open == 1


async def test_wire_swallows(wire):
    faults, caller = await wire(answering(PLAIN), black_hole)
    await caller.send(post())
    await faults.until(lambda: faults.swallowed_bytes == len(post()))
    assert (faults.up_bytes, faults.down_bytes, faults.open) == (0, 0, 1)


async def test_wire_holds_an_answer_until_it_is_let_go(wire):
    let_go = asyncio.Event()
    faults, caller = await wire(answering(PLAIN), delay(let_go))
    await caller.send(post())
    await faults.until(lambda: faults.up_bytes == len(post()))
    assert faults.down_bytes == 0
    let_go.set()
    assert (await caller.answer()).whole


async def test_wire_sends_so_many_bytes_a_tick(wire):
    faults, caller = await wire(answering(PLAIN), throttle(7))
    await caller.send(post())
    await faults.until(lambda: faults.throttled == 1)
    for ticks in (1, 2, 3):
        faults.tick()
        await faults.until(lambda ticks=ticks: faults.down_bytes == 7 * ticks)
        assert await caller.reader.readexactly(7) == PLAIN[7 * ticks - 7 : 7 * ticks]


async def test_next_connections_get_what_is_said_and_others_the_usual(wire):
    faults, first = await wire(answering(PLAIN))
    await faults.until(lambda: faults.connections == 1)
    faults.then(rst, black_hole)
    for expected in (rst, black_hole, pass_through):
        caller = await RawCaller.connect(faults.port)
        if expected is rst:
            assert await caller.read_rest() == b""
            continue
        await caller.send(post())
        if expected is pass_through:
            assert (await caller.answer()).whole
        else:
            await faults.until(lambda: faults.swallowed_bytes > 0)
    assert faults.connections == 4
    assert first.reader._buffer == b""


# --- no answer: an error of our own -----------------------------------------------------------------------------------


async def test_refused_is_a_503_until_it_listens_again(staged: Staged):
    scene = await staged(answering(PLAIN))
    scene.faults.refuse()
    for _ in range(2):
        answer = await scene.ask()
        assert (answer.status, error_code(answer)) == (503, "upstream_unavailable")
    assert [line["reason"] for line in scene.running.requests_logged] == ["ECONNREFUSED"] * 2
    await scene.faults.listen()
    assert (await scene.ask()).status == 200  # on the same connection of the caller
    assert len(scene.upstream.requests) == 1


NO_ANSWER = {
    "closed at once": drop,
    "reset at once": rst,
    "closed before the head": cut_after(0),
    "reset before the head": cut_after(0, rst=True),
    "half-closed before the head": half_close(),
    "closed amid the head": cut_after(40),
    "reset amid the head": cut_after(40, rst=True),
    "half-closed amid the head": half_close(40),
    "closed before the head's last byte": cut_after(len(HEAD) - 1),
    "reset before the head's last byte": cut_after(len(HEAD) - 1, rst=True),
}


@pytest.mark.parametrize("fault", NO_ANSWER.values(), ids=NO_ANSWER)
async def test_connection_that_ends_before_its_head_is_whole_is_a_502(fault, staged: Staged):
    scene = await staged(answering(STREAM), fault)
    answer = await scene.ask()
    assert (answer.status, error_code(answer), answer.whole) == (502, "upstream_error", True)
    await scene.faults.until(lambda: scene.faults.open == 0)  # nor is it kept open
    assert scene.faults.connections == 1  # nor is the request sent twice
    await scene.assert_goes_on()


async def test_black_hole_is_a_504_when_its_time_is_over(staged: Staged):
    scene = await staged(answering(PLAIN), black_hole, upstream="timeouts: {first_byte: 20s}")
    await scene.caller.send(post())
    await scene.faults.until(lambda: scene.faults.swallowed_bytes > 0)
    scene.running.pass_time(19)
    assert scene.running.inflight() == 1
    scene.running.pass_time(2)
    answer = await scene.caller.answer()
    assert (answer.status, error_code(answer)) == (504, "upstream_timeout")
    await scene.faults.until(lambda: scene.faults.open == 0)
    await scene.assert_goes_on()


async def test_answer_that_is_late_within_its_time_is_whole(staged: Staged):
    let_go = asyncio.Event()
    scene = await staged(answering(PLAIN), delay(let_go), upstream="timeouts: {first_byte: 20s}")
    await scene.caller.send(post())
    await scene.upstream.until(lambda: len(scene.upstream.requests) == 1)
    scene.running.pass_time(19)
    let_go.set()
    answer = await scene.caller.answer()
    assert (answer.status, answer.payload, answer.whole) == (200, b'{"answer":"whole"}', True)


# --- an answer that is cut: the caller sees that it is ----------------------------------------------------------------

CUTS = {
    "behind the head": len(HEAD),
    "amid a chunk's size": len(HEAD) + 1,
    "amid an event": len(HEAD) + 8,
    "between two events": len(HEAD) + len(CHUNKS) // 300,
    "later": len(HEAD) + 2000,
    "before the last chunk": len(HEAD + CHUNKS),
    "before the last byte": len(STREAM) - 1,
}


@ENDS
@pytest.mark.parametrize("size", CUTS.values(), ids=CUTS)
async def test_cut_stream_is_seen_to_be_cut(size, rst, staged: Staged):
    scene = await staged(answering(STREAM), cut_after(size, rst=rst))
    answer = await scene.ask()
    assert (answer.status, answer.whole) == (200, False)
    assert STREAM[len(HEAD) : size].startswith(answer.body)  # nothing is made up
    assert len(answer.body) > 0 or size < len(HEAD) + 12
    await scene.running.until_logged()
    assert scene.running.requests_logged[0]["outcome"] == "truncated"
    await scene.assert_goes_on()


@ENDS
async def test_cut_body_of_known_length_is_seen_to_be_cut(rst, staged: Staged):
    scene = await staged(answering(SIZED), cut_after(len(SIZED) - 1, rst=rst))
    answer = await scene.ask()
    assert (answer.status, answer.whole, answer.field(b"content-length")) == (200, False, b"1000")
    assert answer.body == b"z" * 999
    await scene.assert_goes_on()


async def test_stream_whose_upstream_half_closes_is_cut_and_let_go(staged: Staged):
    scene = await staged(answering(STREAM), half_close(len(HEAD) + 2000))
    answer = await scene.ask()
    assert (answer.status, answer.whole, answer.body) == (200, False, STREAM[len(HEAD) : len(HEAD) + 2000])
    await scene.faults.until(lambda: scene.faults.open == 0)
    await scene.assert_goes_on()


@pytest.mark.parametrize("fault", [cut_after(len(STREAM)), half_close(len(STREAM))], ids=["closed", "half-closed"])
async def test_whole_stream_is_whole_though_its_connection_ends_with_it(fault, staged: Staged):
    scene = await staged(answering(STREAM), fault)
    for count in (1, 2):
        answer = await scene.ask()
        assert (answer.status, answer.whole, answer.payload) == (200, True, b"".join(EVENTS))
        await scene.faults.until(lambda: scene.faults.open == 0)
        assert scene.faults.connections == count


async def test_body_that_its_close_ends_is_cut_by_a_reset_alone(staged: Staged):
    async def until_close(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + b"z" * 1000)
        await talk.gone()

    scene = await staged(until_close)
    for cut_by_reset in (True, False):
        scene.faults.mode = cut_after(500, rst=cut_by_reset)
        answer = await scene.ask()
        assert (answer.status, answer.whole) == (200, not cut_by_reset)
        scene.caller = await RawCaller.connect(scene.running.port)


# --- slow, and whole --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_throttled_stream_passes_byte_for_byte(size, staged: Staged):
    scene = await staged(answering(STREAM), throttle(size))
    await scene.caller.send(post())
    reading = asyncio.get_running_loop().create_task(scene.caller.answer())
    while not reading.done():
        scene.faults.tick()
        await asyncio.sleep(0)
    answer = await reading
    assert (answer.whole, answer.body) == (True, CHUNKS + END)
    assert scene.faults.down_bytes == len(STREAM)


def body_bytes(caller: RawCaller) -> int:
    """How much of an answer's body has arrived, and is not read yet."""
    return len(bytes(caller.reader._buffer).partition(b"\r\n\r\n")[2])


async def test_stream_that_trickles_outlives_its_idle_limit(staged: Staged):
    scene = await staged(answering(STREAM), throttle(100), upstream="timeouts: {idle: 20s}")
    await scene.caller.send(post())
    await scene.faults.until(lambda: scene.faults.throttled == 1)
    for ticks in range(1, 11):
        scene.faults.tick()
        size = 100 * ticks - len(HEAD)
        await scene.running.until(lambda size=size: body_bytes(scene.caller) == size)
        scene.running.pass_time(15)
    assert scene.running.inflight() == 1
    scene.running.pass_time(15)  # now it is silent for too long
    answer = await scene.caller.answer()
    assert (answer.status, answer.whole, CHUNKS.startswith(answer.body)) == (200, False, True)
