"""How tunnels end, and what holds while they last: backpressure, limits, a drain, a reload; what is counted of each."""

import asyncio
import random
import socket

import pytest

from proxy.dataplane.account import CLIENT_CLOSED_REQUEST
from tests.dataplane.test_callers import codes, counted, outcomes
from tests.support.lanes import the_connection
from tests.support.patience import PATIENCE_S
from tests.support.raw import RawCaller, ask, get
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import answering, whole
from tests.support.tunnels import (
    KIB,
    MIB,
    SWITCH,
    Directed,
    Ends,
    asked,
    at_caller,
    at_upstream,
    narrow,
    numbered,
    opened,
    pass_both_ways,
    pushed,
    reset,
    rest_at_upstream,
    tunnel_of,
    upgrade,
)

EXAMPLE = numbered(0, 3 * MIB)


@pytest.fixture
def fast_lane() -> bool:
    """A tunnel is in the aiohttp lane however it got there; `test_tunnel.py` runs both ways."""
    return True


def websocket(settings: str) -> str:
    return f"websocket: {{{settings}}}"


async def ended(running: RunningProxy) -> dict[str, object]:
    """The log's line of the only request, once it has ended."""
    await running.until_logged()
    (line,) = running.requests_logged
    assert running.inflight() == 0
    return line


# --- either side says it sends no more -------------------------------------------------------------------------------


async def test_caller_that_ends_its_side_still_hears_the_other(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    await ends.caller.send(b"last words")
    ends.caller.writer.write_eof()
    assert await rest_at_upstream(ends) == b"last words"
    await ends.talk.send(b"an", b"swer")
    assert await at_caller(ends, 6) == b"answer"
    assert running.inflight() == 1
    ends.talk.writer.write_eof()
    assert (await ends.caller.read_rest(), ends.caller.closed) == (b"", False)
    line = await ended(running)
    assert (line["status"], line["outcome"], line["reason"]) == (101, "ok", None)


async def test_upstream_that_ends_its_side_still_hears_the_other(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    await ends.talk.send(b"last words")
    ends.talk.writer.write_eof()
    assert (await ends.caller.read_rest(), ends.caller.closed) == (b"last words", False)
    await ends.caller.send(b"an", b"swer")
    assert await at_upstream(ends, 6) == b"answer"
    assert running.inflight() == 1
    ends.caller.writer.write_eof()
    assert await rest_at_upstream(ends) == b""
    line = await ended(running)
    assert (line["status"], line["outcome"], line["reason"]) == (101, "ok", None)


@pytest.mark.parametrize("first", ["caller", "upstream", "both"])
async def test_nothing_under_way_is_lost_when_both_end_their_sides(first, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    writers = [ends.caller.writer, ends.talk.writer]
    for writer in writers if first == "caller" else reversed(writers):
        writer.write(EXAMPLE)
        writer.write_eof()
        if first != "both":
            await asyncio.sleep(0)
    assert await rest_at_upstream(ends) == EXAMPLE
    assert await ends.caller.read_rest() == EXAMPLE
    assert (await ended(running))["outcome"] == "ok"


@pytest.mark.parametrize("first", ["caller", "upstream"])
async def test_nothing_is_lost_for_a_slow_upstream_when_both_end_their_sides(first, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await asked(upstream, running)
    narrow_all(running, ends)
    await ends.talk.send(SWITCH)
    await ends.caller.answer()
    ends.talk.writer.transport.pause_reading()
    to_upstream = tunnel_of(running)._connection.transport
    size = 64 * KIB
    if first == "upstream":
        ends.talk.writer.write_eof()
        assert await ends.caller.read_rest() == b""
    await ends.caller.send(numbered(0, size))
    ends.caller.writer.write_eof()
    await running.until(lambda: running.inflight() == 0 or tunnel_of(running)._caller_ended)
    assert to_upstream.get_write_buffer_size() > 0
    if first == "caller":
        ends.talk.writer.write_eof()
        await ended(running)
    ends.talk.writer.transport.resume_reading()
    assert await rest_at_upstream(ends) == numbered(0, size)
    await ended(running)


def narrow_all(running: RunningProxy, ends: Ends) -> None:
    for transport in (the_connection(running).wire, tunnel_of(running)._connection.transport):
        narrow(transport)
    narrow(ends.talk.writer)


async def test_upstream_that_never_takes_the_last_bytes_is_let_go_at_last(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await asked(upstream, running)
    narrow_all(running, ends)
    await ends.talk.send(SWITCH)
    await ends.caller.answer()
    ends.talk.writer.transport.pause_reading()
    to_upstream = tunnel_of(running)._connection.transport
    await ends.caller.send(numbered(0, 64 * KIB))
    ends.caller.writer.write_eof()
    ends.talk.writer.write_eof()
    await ended(running)
    assert to_upstream.get_write_buffer_size() > 0
    running.pass_time(61)
    await running.until(lambda: to_upstream.get_write_buffer_size() == 0)
    ends.talk.writer.transport.resume_reading()
    assert len(await rest_at_upstream(ends)) < 64 * KIB


@pytest.mark.parametrize("first", ["caller", "upstream"])
async def test_side_that_closes_at_once_closes_the_other(first, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    closing, other = (ends.caller, ends.talk) if first == "caller" else (ends.talk, ends.caller)
    await closing.send(b"goodbye")
    closing.writer.close()
    rest = RawCaller(other.reader, other.writer)
    assert (await rest.read_rest(), rest.closed) == (b"goodbye", False)
    other.writer.close()
    assert (await ended(running))["outcome"] == "ok"


async def test_upstream_that_closes_while_its_caller_sends_has_its_last_words_heard(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    ends.caller.writer.transport.pause_reading()
    sending = asyncio.get_running_loop().create_task(pushed(ends.caller.send, MIB))
    ends.talk.writer.write(EXAMPLE)
    ends.talk.writer.write_eof()
    assert await at_upstream(ends, MIB) == numbered(0, MIB)
    await sending
    ends.caller.writer.transport.resume_reading()
    assert (await ends.caller.read_rest(), ends.caller.closed) == (EXAMPLE, False)
    ends.caller.close()
    assert (await ended(running))["outcome"] == "ok"


async def test_caller_that_ends_before_the_switch_has_left(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await asked(upstream, running, upgrade() + b"early")
    ends.caller.writer.write_eof()
    assert await rest_at_upstream(ends) == b""
    line = await ended(running)
    assert (line["status"], line["outcome"]) == (CLIENT_CLOSED_REQUEST, "client_gone")


@pytest.mark.parametrize("seed", range(12))
async def test_nothing_is_lost_whatever_the_sides_do_in_whatever_order(seed, scripted, proxy):
    dice = random.Random(seed)
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    sides = [ends.caller, RawCaller(ends.talk.reader, ends.talk.writer)]
    async with asyncio.TaskGroup() as tasks:
        sent = [tasks.create_task(at_random(side, dice)) for side in sides]
        received = [tasks.create_task(side.read_rest()) for side in reversed(sides)]
    assert [task.result() for task in received] == [task.result() for task in sent]
    assert not any(side.closed for side in sides)
    assert (await ended(running))["outcome"] == "ok"


async def at_random(side: RawCaller, dice: random.Random) -> bytes:
    """Send, dawdle and stop reading for a while; in the end say no more. Returns what was sent."""
    sent = b""
    for _ in range(dice.randrange(30)):
        match dice.randrange(4):
            case 0:
                side.writer.transport.pause_reading()
            case 1:
                side.writer.transport.resume_reading()
            case 2:
                for _ in range(dice.randrange(20)):
                    await asyncio.sleep(0)
            case 3:
                piece = dice.randbytes(dice.choice((1, 100, 70_000, 400_000)))
                side.writer.write(piece)
                sent += piece
    side.writer.transport.resume_reading()
    side.writer.write_eof()
    return sent


# --- either side is gone ---------------------------------------------------------------------------------------------


async def test_caller_that_is_reset_ends_the_upstreams_side(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    await ends.caller.send(b"last words")
    assert await at_upstream(ends, 10) == b"last words"
    reset(ends.caller.writer)
    assert await rest_at_upstream(ends) == b""
    line = await ended(running)
    assert (line["status"], line["outcome"]) == (101, "client_gone")
    assert sum(counted(running, "serinus_client_disconnects_total").values()) == 1


async def test_upstream_that_is_reset_ends_the_callers_side(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    await ends.talk.send(b"last words")
    assert await at_caller(ends, 10) == b"last words"
    reset(ends.talk.writer)
    assert await ends.caller.read_rest() == b""
    line = await ended(running)
    assert (line["status"], line["outcome"], line["reason"]) == (101, "truncated", "the connection was reset")


@pytest.mark.parametrize("ending", ["caller", "upstream"])
async def test_reset_after_the_other_side_ended_is_an_end(ending, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    if ending == "caller":
        ends.caller.writer.write_eof()
        assert await rest_at_upstream(ends) == b""
        reset(ends.talk.writer)
        assert await ends.caller.read_rest() == b""
    else:
        ends.talk.writer.write_eof()
        assert await ends.caller.read_rest() == b""
        reset(ends.caller.writer)
        assert await rest_at_upstream(ends) == b""
    await ended(running)


@pytest.mark.parametrize("how", ["FIN", "RST"])
async def test_caller_and_upstream_may_go_at_the_same_moment(how, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    for writer in (ends.caller.writer, ends.talk.writer):
        writer.write(b"goodbye")
        if how == "RST":
            reset(writer)
        else:
            writer.close()
    await ended(running)
    await running.until(lambda: not running.serinus.data_plane.callers.open)


@pytest.mark.parametrize("of_upstream", ["switch", "bytes", "end"])
async def test_upstream_that_speaks_to_a_caller_already_gone_is_let_go(of_upstream, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    loop, failures = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    ends = await (asked if of_upstream == "switch" else opened)(upstream, running, upgrade() + b"early")
    await running.until(lambda: running.inflight() == 1)
    tunnel, wire = tunnel_of(running), the_connection(running).wire
    connection = tunnel._connection
    wire.abort()
    if of_upstream == "switch":
        tunnel.received(SWITCH + b"bytes")
    elif of_upstream == "bytes":
        tunnel.received(b"bytes")
    else:
        connection.eof_received()
    await ended(running)
    assert await rest_at_upstream(ends) in (b"", b"early")
    assert not failures


@pytest.mark.parametrize("of_caller", ["bytes", "end"])
async def test_caller_that_speaks_to_an_upstream_already_gone_is_let_go(of_caller, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    tunnel, connection = tunnel_of(running), the_connection(running)
    tunnel._connection.transport.abort()
    if of_caller == "bytes":
        connection.data_received(b"bytes")
    else:
        connection.eof_received()
    assert await ends.caller.read_rest() == b""
    await ended(running)


# --- a side that does not read ---------------------------------------------------------------------------------------


async def test_caller_that_does_not_read_pauses_the_upstream_until_it_does(scripted, proxy):
    upstream, size = await scripted(Directed()), 32 * MIB
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    ends.caller.writer.transport.pause_reading()
    sending = asyncio.get_running_loop().create_task(pushed(ends.talk.send, size))
    await running.until(lambda: the_connection(running).writing_paused)
    await turns(running)
    assert the_connection(running).wire.get_write_buffer_size() <= 256 * KIB
    assert not sending.done()
    await ends.caller.send(b"still heard")
    assert await at_upstream(ends, 11) == b"still heard"
    ends.caller.writer.transport.resume_reading()
    assert await at_caller(ends, size) == numbered(0, size)
    await sending


async def turns(running: RunningProxy, count: int = 1000) -> None:
    """Turns of the loop in which more could be read, if it were."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_caller_that_never_reads_is_cut_at_last(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url, upstream=websocket("idle: none")))
    ends = await opened(upstream, running)
    ends.caller.writer.transport.pause_reading()
    sending = asyncio.get_running_loop().create_task(pushed(ends.talk.send, 64 * MIB))
    await running.until(lambda: the_connection(running).writing_paused)
    tunnel = tunnel_of(running)
    await turns(running)  # which may take more than a second
    running.pass_time(tunnel.deadline_s - running.clock() - 1)
    assert not tunnel.ended
    async with asyncio.timeout(PATIENCE_S):
        while not tunnel.ended:
            running.pass_time(61)
            await asyncio.sleep(0)
    with pytest.raises(ConnectionError):
        await sending
    line = await ended(running)
    assert (line["status"], line["outcome"], line["reason"]) == (101, "client_gone", "the caller does not read")
    ends.caller.writer.transport.resume_reading()
    await ends.caller.read_rest()
    assert ends.caller.closed


async def test_caller_that_does_not_take_what_came_with_the_switch_is_cut_too(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url, upstream=websocket("idle: none")))
    ends = await asked(upstream, running, receive_buffer_bytes=4 * KIB)
    ends.caller.writer.transport.pause_reading()
    narrow(the_connection(running).wire)
    tunnel = tunnel_of(running)
    tunnel.received(SWITCH[:-2] + b"X-Zebra: " + b"z" * 60_000)
    tunnel.received(b"\r\n\r\n" + b"z" * 200_000)
    assert the_connection(running).writing_paused
    running.pass_time(61)
    running.pass_time(61)
    assert tunnel.ended
    line = await ended(running)
    assert (line["status"], line["outcome"], line["reason"]) == (101, "client_gone", "the caller does not read")


async def test_upstream_that_does_not_read_pauses_the_caller_until_it_does(scripted, proxy):
    upstream, size = await scripted(Directed()), 32 * MIB
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    ends.talk.writer.transport.pause_reading()
    sending = asyncio.get_running_loop().create_task(pushed(ends.caller.send, size))
    await running.until(lambda: not the_connection(running).wire.is_reading())
    await turns(running)
    assert tunnel_of(running)._connection.transport.get_write_buffer_size() <= 512 * KIB
    assert not sending.done()
    await ends.talk.send(b"still heard")
    assert await at_caller(ends, 11) == b"still heard"
    ends.talk.writer.transport.resume_reading()
    assert await at_upstream(ends, size) == numbered(0, size)
    await sending


async def test_upstream_that_never_reads_is_cut_when_it_was_idle_for_too_long(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url, upstream=websocket("idle: 30s")))
    ends = await opened(upstream, running)
    ends.talk.writer.transport.pause_reading()
    sending = asyncio.get_running_loop().create_task(pushed(ends.caller.send, 64 * MIB))
    await running.until(lambda: not the_connection(running).wire.is_reading())
    running.pass_time(29)
    assert running.inflight() == 1
    running.pass_time(2)
    assert (await ended(running))["outcome"] == "stalled"
    with pytest.raises(ConnectionError):
        await sending


async def test_flood_before_the_switch_to_an_upstream_that_does_not_read_is_held_back(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await asked(upstream, running)
    ends.talk.writer.transport.pause_reading()
    to_upstream = tunnel_of(running)._connection.transport
    narrow(to_upstream)
    narrow(ends.talk.writer)
    the_connection(running).data_received(b"z" * 256 * KIB)  # as much as the loop may read at once
    sending = asyncio.get_running_loop().create_task(pushed(ends.caller.send, 64 * MIB))
    await running.until(lambda: not the_connection(running).wire.is_reading())
    await ends.talk.send(SWITCH)
    assert (await ends.caller.answer()).status == 101
    await turns(running)
    assert to_upstream.get_write_buffer_size() <= MIB
    assert not the_connection(running).wire.is_reading()
    sending.cancel()


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speaker", ["caller", "upstream"])
async def test_idle_tunnel_is_closed_and_bytes_of_either_side_keep_it(speaker, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url, upstream=websocket("idle: 30s")))
    ends = await opened(upstream, running)
    for _ in range(5):
        running.pass_time(29)
        if speaker == "caller":
            await ends.caller.send(b"z")
            await at_upstream(ends, 1)
        else:
            await ends.talk.send(b"z")
            await at_caller(ends, 1)
    running.pass_time(29)
    assert running.inflight() == 1
    running.pass_time(2)
    assert await ends.caller.read_rest() == b""
    assert await rest_at_upstream(ends) == b""
    line = await ended(running)
    assert (line["status"], line["outcome"]) == (101, "stalled")
    assert "websocket.idle" in line["reason"]


async def test_idle_limit_is_ten_minutes_unless_said_otherwise(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    running.pass_time(599)
    await pass_both_ways(ends)
    running.pass_time(599)
    assert running.inflight() == 1
    running.pass_time(2)
    assert (await ended(running))["outcome"] == "stalled"


async def test_tunnel_may_be_idle_for_ever_if_that_is_allowed(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url, upstream=websocket("idle: none")))
    ends = await opened(upstream, running)
    running.pass_time(10 * 365 * 86400)
    await pass_both_ways(ends)


async def test_idle_limit_holds_after_a_caller_did_not_read_for_a_while(scripted, proxy):
    upstream, size = await scripted(Directed()), 32 * MIB
    extra = websocket("idle: 30s") + ", timeouts: {idle: 1h}"
    running = await proxy(config_for(upstream.url, upstream=extra))
    ends = await opened(upstream, running)
    ends.caller.writer.transport.pause_reading()
    sending = asyncio.get_running_loop().create_task(pushed(ends.talk.send, size))
    await running.until(lambda: the_connection(running).writing_paused)
    ends.caller.writer.transport.resume_reading()
    await at_caller(ends, size)
    await sending
    running.pass_time(29)
    assert running.inflight() == 1
    running.pass_time(2)
    assert (await ended(running))["outcome"] == "stalled"


async def test_half_of_a_tunnel_is_held_to_the_idle_limit(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    ends.caller.writer.write_eof()
    assert await rest_at_upstream(ends) == b""
    running.pass_time(601)
    assert (await ended(running))["outcome"] == "stalled"
    assert await ends.caller.read_rest() == b""


async def test_total_limit_holds_for_a_lively_tunnel(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url, upstream="timeouts: {total: 90s}"))
    ends = await opened(upstream, running)
    for _ in range(3):
        running.pass_time(29)
        await pass_both_ways(ends)
    running.pass_time(4)
    line = await ended(running)
    assert (line["status"], line["outcome"], line["reason"]) == (101, "timeout", "longer than timeouts.total")
    assert await ends.caller.read_rest() == b""
    assert await rest_at_upstream(ends) == b""


async def test_upstream_that_does_not_answer_the_handshake_is_too_late(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url, upstream="timeouts: {first_byte: 20s}"))
    ends = await asked(upstream, running, upgrade() + b"early")
    running.pass_time(19)
    assert running.inflight() == 1
    running.pass_time(2)
    assert (await ends.caller.answer()).status == 504
    assert (await ended(running))["outcome"] == "timeout"


async def test_bytes_of_the_caller_do_not_prolong_the_wait_for_the_switch(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url, upstream="timeouts: {first_byte: 20s}"))
    ends = await asked(upstream, running)
    running.pass_time(19)
    await ends.caller.send(b"early")
    await running.until(lambda: bool(tunnel_of(running)._early))
    running.pass_time(2)
    assert (await ends.caller.answer()).status == 504


async def test_limits_on_requests_do_not_hold_within(scripted, proxy):
    upstream = await scripted(Directed())
    top = "downstream: {head_timeout: 1s, body_timeout: 1s, idle_timeout: 1s, stall_timeout: 1s}"
    running = await proxy(config_for(upstream.url, top=top, route="max_body: 1KiB, buffer: 1KiB"))
    ends = await opened(upstream, running, upgrade() + b"G")
    await at_upstream(ends, 1)
    for _ in range(3):
        running.pass_time(100)
        await ends.caller.send(b"GET / HTTP/1.1\r\nHost: ")
        await at_upstream(ends, 22)
        await pass_both_ways(ends, b"z" * 512 * KIB)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("", (1, 15, 15)), ("tcp_keepalive: 45s", (1, 45, 45)), ("tcp_keepalive: 24h", (1, 32767, 32767))],
)
async def test_system_is_told_to_ask_silent_peers(setting, expected, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url, upstream=websocket(setting)))
    ends = await opened(upstream, running)
    await pass_both_ways(ends)
    assert [keepalive(transport) for transport in transports(running)] == [expected] * 2


async def test_system_may_be_told_nothing_of_silent_peers(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url, upstream=websocket("tcp_keepalive: none")))
    await opened(upstream, running)
    assert keepalive(transports(running)[1])[0] == 0


def transports(running: RunningProxy) -> list[asyncio.Transport]:
    return [the_connection(running).wire, tunnel_of(running)._connection.transport]


def keepalive(transport: asyncio.Transport) -> tuple[int, int, int]:
    raw = transport.get_extra_info("socket")
    options = (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        *((socket.IPPROTO_TCP, option) for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)),
    )
    with socket.socket(fileno=socket.dup(raw.fileno())) as copy:
        return tuple(copy.getsockopt(*option) for option in options)


# --- what is counted of it, and the proxy's own end ------------------------------------------------------------------


async def test_tunnel_is_counted_when_it_has_ended(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running, upgrade(b"/v1/realtime?model=m"))
    await pass_both_ways(ends, b"z" * 1000)
    (live,) = running.serinus.registry.upstreams.values()
    assert (live.inflight, [key.inflight for key in live.keys.values()]) == (1, [1])
    assert (codes(running), running.requests_logged, running.serinus.data_plane.busy) == ({}, [], 1)
    ends.caller.close()
    ends.talk.close()
    line = await ended(running)
    assert (live.inflight, [key.inflight for key in live.keys.values()]) == (0, [0])
    assert (codes(running), outcomes(running)) == ({"101": 1}, {"ok": 1})
    assert (line["method"], line["path"], line["status"], line["bytes"]) == ("GET", "/v1/realtime", 101, 1000)
    assert (line["outcome"], line["reason"], line["client"], line["key"]) == ("ok", None, "tester", "main")


async def test_connection_of_a_tunnel_is_never_used_again(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    ends.caller.writer.write_eof()
    ends.talk.writer.write_eof()
    await ended(running)
    await asked(upstream, running, get())
    assert upstream.connections == 2


async def test_drain_lets_a_tunnel_go_on_until_it_is_cut(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends, plane = await opened(upstream, running), running.serinus.data_plane
    for step in (plane.begin_drain, plane.stop_listening):
        step()
        await pass_both_ways(ends)
        assert plane.busy == 1
    await running.serinus.close()
    assert (await ends.caller.read_rest(), ends.caller.closed) == (b"", True)
    assert await rest_at_upstream(ends) == b""
    line = await ended(running)
    assert (line["status"], line["outcome"], line["reason"]) == (101, "stopped", "the proxy is stopping")
    assert outcomes(running) == {"stopped": 1}


async def test_tunnel_that_ends_during_a_drain_ends_the_drain(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends, plane = await opened(upstream, running), running.serinus.data_plane
    plane.begin_drain()
    plane.stop_listening()
    ends.caller.writer.write_eof()
    ends.talk.writer.write_eof()
    await ended(running)
    await running.until(lambda: plane.busy == 0)
    assert outcomes(running) == {"ok": 1}


async def test_tunnel_may_be_opened_during_a_drain(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    running.serinus.data_plane.begin_drain()
    await pass_both_ways(await opened(upstream, running))


@pytest.mark.parametrize("ready", [False, True], ids=["before the switch", "open"])
async def test_reload_does_not_touch_a_tunnel(ready, scripted, proxy, tmp_path):
    first, second = await scripted(Directed()), await scripted(answering(whole(b"{}")))
    file = tmp_path / "serinus.yaml"
    running = await proxy(config_for(first.url), path=file)
    ends = await (opened if ready else asked)(first, running, upgrade() + b"early")
    text = file.read_text().replace(first.url, second.url).replace("up0", "other")
    file.write_text(text)
    await running.serinus.reloader.reload()
    assert (await ask(running.port, get())).field(b"x-serinus-upstream") == b"other"
    if not ready:
        await ends.talk.send(SWITCH)
        assert (await ends.caller.answer()).field(b"x-serinus-upstream") == b"up0"
    assert await at_upstream(ends, 5) == b"early"
    await pass_both_ways(ends)
    ends.caller.close()
    ends.talk.close()
    await running.until_logged(2)
    assert [line["upstream"] for line in running.requests_logged] == ["other", "up0"]


async def test_tunnels_count_as_connections(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url, top="downstream: {max_connections: 1}"))
    ends = await opened(upstream, running)
    assert (await ask(running.port, get())).status == 503
    await pass_both_ways(ends)


async def test_connection_with_last_bytes_ends_with_the_proxy(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    to_upstream = tunnel_of(running)._connection.transport
    reset(ends.caller.writer)
    await running.until_logged()
    await running.stop()
    assert to_upstream.is_closing()
