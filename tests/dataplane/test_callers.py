"""Callers that leave, hurry, dawdle or are too many; what of each ending is counted and written down."""

import asyncio
import gc
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.dataplane.aiohttp_connection import AiohttpConnection
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.fast_lane import FastConnection
from tests.support.lanes import has_begun_a_head, holds_more, is_idle, the_connection
from tests.support.patience import PATIENCE_S
from tests.support.raw import RawCaller, ask, get, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Conversation, ScriptedUpstream, answering, whole

KIB, MIB = 1024, 1024 * 1024
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"10\r\ndata: something!\r\n"
LAST = b"0\r\n\r\n"
TRACE_ID = b"4bf92f3577b34da6a3ce929d0e0e4736"


class Directed:
    """An upstream that takes a request and then does what the test says."""

    def __init__(self) -> None:
        self.talks: list[Conversation] = []

    async def __call__(self, talk: Conversation) -> None:
        await talk.request()
        self.talks.append(talk)
        talk.upstream.changed.set()
        await talk.gone()


async def asked(
    upstream: ScriptedUpstream, running: RunningProxy, request: bytes | None = None, **options: int
) -> tuple[RawCaller, Conversation]:
    """A caller whose request has reached the directed upstream."""
    caller = await RawCaller.connect(running.port, **options)
    count = len(upstream.script.talks)
    await caller.send(request or get())
    await upstream.until(lambda: len(upstream.script.talks) > count)
    return caller, upstream.script.talks[-1]


def outcomes(running: RunningProxy) -> dict[str, int]:
    """How all exchanges have ended so far."""
    lives = running.serinus.registry.upstreams.values()
    ended = [(outcome.value, count) for live in lives for outcome, count in live.outcomes.items() if count]
    return dict(ended)


def counted(running: RunningProxy, family: str) -> dict[str, float]:
    """The non-zero samples of a metric whose labels are those of an upstream, by status or outcome."""
    text, _ = running.serinus.metrics.render("text/plain")
    lines = [line for line in text.decode().splitlines() if line.startswith(family + "{")]
    return {line.partition("{")[2].rpartition("}")[0]: float(line.rpartition(" ")[2]) for line in lines}


def codes(running: RunningProxy) -> dict[str, float]:
    """Requests answered so far, by status."""
    found: dict[str, float] = {}
    for labels, count in counted(running, "serinus_requests_total").items():
        code = labels.partition('code="')[2].partition('"')[0]
        found[code] = found.get(code, 0) + count
    return found


LEAVING: dict[str, Callable[[RawCaller], None]] = {
    "FIN": lambda caller: caller.writer.close(),
    "RST": lambda caller: reset(caller),
}


def reset(caller: RawCaller) -> None:
    raw = caller.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    caller.writer.transport.abort()


# --- a caller that leaves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", LEAVING)
async def test_caller_that_leaves_before_its_head_is_whole_is_nobodys_request(leave, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(get()[:-2])
    await running.until(lambda: bool(running.serinus.data_plane.callers.open))
    LEAVING[leave](caller)
    await running.until(lambda: not running.serinus.data_plane.callers.open)
    assert upstream.connections == 0
    assert not running.requests_logged
    assert not codes(running)


@pytest.mark.parametrize("leave", LEAVING)
async def test_caller_that_leaves_before_its_body_is_whole_is_counted_and_logged(leave, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(post(b"x" * 100)[:-50])
    await running.until(lambda: any(connection.busy for connection in running.serinus.data_plane.callers.open))
    LEAVING[leave](caller)
    await running.until_logged()
    (line,) = running.requests_logged
    assert (line["status"], line["outcome"], line["client"]) == (499, "client_gone", "tester")
    assert codes(running) == {"499": 1}
    assert upstream.connections == 0


@pytest.mark.parametrize("leave", LEAVING)
async def test_caller_that_leaves_while_it_waits_ends_the_upstreams_work(leave, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    caller, _ = await asked(upstream, running)
    assert running.inflight() == 1
    LEAVING[leave](caller)
    await upstream.until(lambda: upstream.open == 0)
    await running.until_logged()
    assert running.inflight() == 0
    assert outcomes(running) == {"client_gone": 1}
    (line,) = running.requests_logged
    assert (line["status"], line["outcome"], line["ttfb_ms"]) == (499, "client_gone", None)
    assert codes(running) == {"499": 1}
    assert sum(counted(running, "serinus_client_disconnects_total").values()) == 1


@pytest.mark.parametrize("leave", LEAVING)
async def test_caller_that_leaves_amid_a_stream_ends_the_upstreams_work(leave, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    caller, talk = await asked(upstream, running)
    await talk.send(CHUNKED_HEAD, EVENT)
    await caller.read_until(b"something!\r\n")
    LEAVING[leave](caller)
    await upstream.until(lambda: upstream.open == 0)
    await running.until_logged()
    assert outcomes(running) == {"client_gone": 1}
    (line,) = running.requests_logged
    assert (line["status"], line["outcome"], line["bytes"]) == (200, "client_gone", len(EVENT))
    assert codes(running) == {"200": 1}


async def test_caller_that_leaves_before_there_is_a_connection_leaves_it_for_others(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    caller.writer.write(get())
    await running.until(lambda: running.inflight() == 1)
    the_connection(running).wire.abort()
    await running.until_logged()
    assert outcomes(running) == {"client_gone": 1}
    await running.until(lambda: upstream.connections == 1)
    assert (await ask(running.port, get())).status == 200
    assert upstream.connections == 1


# --- a caller that takes its time ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [[b"G"], [get()[:-2]], [b"GET /v1/x", b" HTTP/1.1\r\n", b"Host: "], [b"\r\n"]])
async def test_slow_head_is_refused_however_many_pieces_come(pieces, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top="downstream: {head_timeout: 10s}"))
    caller = await RawCaller.connect(running.port)
    for piece in pieces:
        await caller.send(piece)
        await running.until(lambda: has_begun_a_head(running))
        running.pass_time(10 / len(pieces))
    answer = await caller.answer()
    assert (answer.status, answer.field(b"connection")) == (408, b"close")
    assert json.loads(answer.payload)["error"]["code"] == "request_timeout"
    assert await caller.read_rest() == b""
    assert upstream.connections == 0
    assert codes(running) == {"408": 1}


@pytest.mark.parametrize("requests", [0, 1, 3])
async def test_idle_connection_is_closed_without_a_word(requests, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    for _ in range(requests):
        await caller.send(get())
        assert (await caller.answer()).status == 200
    await running.until(lambda: is_idle(running))
    running.pass_time(74)
    assert not the_connection(running).wire.is_closing()
    running.pass_time(2)
    assert await caller.read_rest() == b""


async def test_next_head_begun_during_an_answer_has_its_own_time(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    caller, talk = await asked(upstream, running)
    await caller.send(b"GET /v1/half")
    await running.until(lambda: holds_more(running))
    running.pass_time(30)
    await talk.send(whole(b"{}"))
    assert (await caller.answer()).status == 200
    await running.until(lambda: has_begun_a_head(running))
    running.pass_time(11)
    assert (await caller.answer()).status == 408


async def test_connection_that_carried_an_upload_idles_like_any_other(scripted, proxy):
    async def late_reader(talk: Conversation) -> None:
        talk.writer.transport.pause_reading()
        await go_on.wait()
        talk.writer.transport.resume_reading()
        while True:
            await talk.request()
            await talk.send(whole(b"{}"))

    go_on = asyncio.Event()
    upstream = await scripted(late_reader)
    running = await proxy(config_for(upstream.url, route="buffer: 64KiB"))
    caller = await RawCaller.connect(running.port)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(caller.send(post(b"x" * 12 * MIB)))
        await running.until(lambda: upload_is_blocked(running))
        go_on.set()
        assert (await caller.answer()).status == 200
    await running.until(lambda: is_idle(running))
    running.pass_time(70)
    await caller.send(get())
    assert (await caller.answer()).status == 200


def upload_is_blocked(running: RunningProxy) -> bool:
    connection = the_connection(running) if running.serinus.data_plane.callers.open else None
    upload = connection and connection.exchange and connection.exchange.upload
    return upload is not None and upload._blocked and not connection.wire.is_reading()


# --- a caller that does not read -----------------------------------------------------------------------------------


def narrow(running: RunningProxy) -> None:
    """So that little fits between the proxy and its caller."""
    raw = the_connection(running).wire.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)


async def flood(talk: Conversation, size: int) -> None:
    await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    for _ in range(0, size, 64 * KIB):
        await talk.send(b"x" * 64 * KIB)


async def flooded(upstream: ScriptedUpstream, running: RunningProxy, size: int) -> tuple[RawCaller, asyncio.Task]:
    """A caller with narrow pipes, and the task that sends `size` bytes to it."""
    caller, talk = await asked(upstream, running, receive_buffer_bytes=4 * KIB)
    caller.writer.transport.pause_reading()
    narrow(running)
    sending = asyncio.get_running_loop().create_task(flood(talk, size))
    await running.until(lambda: the_connection(running).writing_paused)
    return caller, sending


async def test_caller_that_does_not_read_pauses_its_upstream_and_is_cut_at_last(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    _, sending = await flooded(upstream, running, 64 * MIB)
    held = the_connection(running).wire
    exchange = the_connection(running).exchange
    assert held.get_write_buffer_size() <= 256 * KIB
    running.pass_time(59)
    assert not exchange.ended
    async with asyncio.timeout(PATIENCE_S):
        while not exchange.ended:
            assert held.get_write_buffer_size() <= 256 * KIB
            running.pass_time(61)
            await asyncio.sleep(0)
    assert not sending.done()
    with pytest.raises(ConnectionError):
        await sending
    await upstream.until(lambda: upstream.open == 0)
    await running.until_logged()
    (line,) = running.requests_logged
    assert (line["status"], line["outcome"], line["reason"]) == (200, "client_gone", "the caller does not read")
    assert line["bytes"] < 4 * MIB


async def test_caller_that_was_cut_for_not_reading_sees_a_reset(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    caller, sending = await flooded(upstream, running, 8 * MIB)
    while running.serinus.data_plane.callers.open:
        running.pass_time(61)
        await asyncio.sleep(0)
    caller.writer.transport.resume_reading()
    assert len(await caller.read_rest()) < 8 * MIB
    assert caller.closed
    with pytest.raises(ConnectionError):
        await sending


async def test_slow_reader_is_never_cut_and_gets_every_byte(scripted, proxy):
    upstream, size, looks = await scripted(Directed()), 4 * MIB, 0
    running = await proxy(config_for(upstream.url))
    caller, sending = await flooded(upstream, running, size)
    caller.writer.transport.resume_reading()
    head = await caller.read_until(b"\r\n\r\n")
    got, seen = 0, progress(running)
    while got < size:
        got += len(await caller.reader.read(32 * KIB))
        await asyncio.sleep(0)
        if running.inflight() and progress(running) != seen:
            running.pass_time(50)
            seen, looks = progress(running), looks + 1
    await sending
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert got == size
    assert looks > 20
    await running.until_logged()
    assert outcomes(running) == {"ok": 1}


def progress(running: RunningProxy) -> tuple[int, int]:
    connection = the_connection(running)
    exchange = connection.exchange
    return connection.wire.get_write_buffer_size(), 0 if exchange is None else exchange._request.relayed_bytes


async def test_caller_that_pipelines_and_does_not_read_gets_no_more_answers(proxy):
    running = await proxy(config_for("http://127.0.0.1:1/v1"))
    caller = await RawCaller.connect(running.port, receive_buffer_bytes=4 * KIB)
    await running.until(lambda: bool(running.serinus.data_plane.callers.open))
    narrow(running)
    caller.writer.transport.pause_reading()
    caller.writer.write(get(b"/zebra") * 50_000)
    wire = the_connection(running).wire
    await running.until(lambda: the_connection(running).writing_paused)
    for _ in range(4000):  # turns of the loop in which more could be answered
        await asyncio.sleep(0)
    assert wire.get_write_buffer_size() <= 128 * KIB
    assert not wire.is_reading()
    running.pass_time(76)
    running.pass_time(76)
    await running.until(lambda: not running.serinus.data_plane.callers.open)


async def test_caller_that_pipelines_and_reads_late_gets_all_answers(proxy):
    running = await proxy(config_for("http://127.0.0.1:1/v1"))
    caller = await RawCaller.connect(running.port, receive_buffer_bytes=4 * KIB)
    await running.until(lambda: bool(running.serinus.data_plane.callers.open))
    narrow(running)
    caller.writer.transport.pause_reading()
    caller.writer.write(get(b"/livez") * 3000)
    await running.until(lambda: the_connection(running).writing_paused)
    caller.writer.transport.resume_reading()
    for _ in range(3000):
        assert (await caller.answer()).payload == b"ok\n"


# --- an upstream that takes its time -------------------------------------------------------------------------------


async def test_no_first_byte_in_time_is_a_504(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url, upstream="timeouts: {first_byte: 20s, idle: 5s}"))
    caller, _ = await asked(upstream, running)
    running.pass_time(19)
    running.pass_time(2)
    answer = await caller.answer()
    assert (answer.status, answer.field(b"connection")) == (504, None)
    assert json.loads(answer.payload)["error"]["code"] == "upstream_timeout"
    await upstream.until(lambda: upstream.open == 0)
    await running.until_logged()
    (line,) = running.requests_logged
    assert (line["status"], line["outcome"], line["reason"]) == (504, "timeout", "no first byte in time")
    await caller.send(get(b"/livez"))
    assert (await caller.answer()).status == 200


@pytest.mark.parametrize(
    ("limits", "step_s", "outcome"),
    [("idle: 20s", 21, "stalled"), ("idle: 20s, total: 60s", 15, "timeout")],
)
async def test_stream_that_is_over_time_is_cut_visibly(limits, step_s, outcome, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url, upstream=f"timeouts: {{{limits}}}"))
    caller, talk = await asked(upstream, running)
    await talk.send(CHUNKED_HEAD)
    await caller.read_until(b"\r\n\r\n")
    while not running.requests_logged:
        await talk.send(EVENT)
        assert await caller.read_until(b"something!\r\n") == EVENT
        running.pass_time(step_s)
    assert await caller.read_rest() == b""  # and no last chunk
    (line,) = running.requests_logged
    assert (line["status"], line["outcome"]) == (200, outcome)
    assert outcomes(running) == {outcome: 1}
    await upstream.until(lambda: upstream.open == 0)


async def test_lively_stream_has_no_end(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    caller, talk = await asked(upstream, running)
    await talk.send(CHUNKED_HEAD)
    for _ in range(100):
        await talk.send(EVENT)
        await caller.read_until(b"something!\r\n")
        running.pass_time(290)
    await talk.send(LAST)
    await caller.read_until(LAST)
    await running.until_logged()
    assert outcomes(running) == {"ok": 1}


# --- too many ------------------------------------------------------------------------------------------------------


async def test_connection_too_many_is_refused_at_once(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top="downstream: {max_connections: 2}"))
    callers = [await RawCaller.connect(running.port) for _ in range(2)]
    await running.until(lambda: len(running.serinus.data_plane.callers.open) == 2)
    refused = await RawCaller.connect(running.port)
    answer = await refused.answer()  # without having asked
    assert (answer.status, answer.field(b"retry-after"), answer.field(b"connection")) == (503, b"1", b"close")
    assert await refused.read_rest() == b""
    for caller in callers:
        await caller.send(get())
        assert (await caller.answer()).status == 200
    callers[0].close()
    await running.until(lambda: len(running.serinus.data_plane.callers.open) == 1)
    assert (await ask(running.port, get())).status == 200


# --- draining ------------------------------------------------------------------------------------------------------


async def test_answers_during_a_drain_are_their_connections_last(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    before, new = await RawCaller.connect(running.port), await RawCaller.connect(running.port)
    await before.send(get())
    assert (await before.answer()).field(b"connection") is None
    running.serinus.data_plane.begin_drain()
    for caller, request in (
        (before, get()),
        (new, get(b"/livez")),
        (await RawCaller.connect(running.port), get(b"/z")),
    ):
        await caller.send(request)
        assert (await caller.answer()).field(b"connection") == b"close"
        assert await caller.read_rest() == b""


async def test_connection_that_was_not_told_of_its_end_stays_for_another_request_while_listening_goes_on(
    scripted, proxy
):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    caller, talk = await asked(upstream, running)
    await talk.send(CHUNKED_HEAD, EVENT)
    assert b"connection" not in (await caller.read_until(EVENT)).lower()
    running.serinus.data_plane.begin_drain()
    await talk.send(LAST)
    await caller.read_until(LAST)
    await caller.send(get(b"/livez"))
    answer = await caller.answer()
    assert (answer.status, answer.field(b"connection")) == (200, b"close")
    assert await caller.read_rest() == b""


async def test_drain_closes_what_is_idle_and_lets_streams_run_to_their_end(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    idle = await RawCaller.connect(running.port)
    streaming, talk = await asked(upstream, running)
    await talk.send(CHUNKED_HEAD, EVENT)
    await streaming.read_until(b"something!\r\n")
    running.pass_time(2)
    running.serinus.data_plane.begin_drain()
    running.serinus.data_plane.stop_listening()
    assert await idle.read_rest() == b""
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", running.port)
    assert running.serinus.data_plane.busy == 1
    await talk.send(EVENT, LAST)
    assert await streaming.read_rest() == EVENT + LAST
    streaming.close()
    await running.until(lambda: running.serinus.data_plane.busy == 0)
    assert outcomes(running) == {"ok": 1}


async def test_request_that_was_on_its_way_when_listening_ended_is_answered(scripted, proxy):
    running = await proxy(config_for((await scripted(answering(whole(b"{}")))).url))
    plane = running.serinus.data_plane
    caller, silent = await RawCaller.connect(running.port), await RawCaller.connect(running.port)
    await running.until(lambda: len(plane.callers.open) == 2)
    plane.begin_drain()
    plane.stop_listening()
    assert (plane.busy, plane.callers.remain) == (0, True)
    await caller.send(get())
    assert (await caller.answer()).field(b"connection") == b"close"
    assert await caller.read_rest() == b""
    caller.close()
    running.pass_time(2)
    assert await silent.read_rest() == b""
    await running.until(lambda: not plane.callers.remain)


async def test_stop_cuts_what_is_left_visibly(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    caller, talk = await asked(upstream, running)
    await talk.send(CHUNKED_HEAD, EVENT)
    await caller.read_until(b"something!\r\n")
    await running.stop()
    assert await caller.read_rest() == b""
    assert caller.closed
    (line,) = running.requests_logged
    assert (line["outcome"], line["reason"]) == ("stopped", "the proxy is stopping")


# --- being alive ---------------------------------------------------------------------------------------------------


async def test_livez_answers_whoever_asks(proxy):
    running = await proxy(config_for("http://127.0.0.1:1/v1"))
    caller = await RawCaller.connect(running.port)
    for method, body in ((b"GET", b"ok\n"), (b"HEAD", b""), (b"GET", b"ok\n")):
        await caller.send(method + b" /livez HTTP/1.1\r\nHost: proxy\r\n\r\n")
        answer = await caller.answer(to_head=method == b"HEAD")
        assert (answer.status, answer.payload) == (200, body)
    await caller.send(b"GET /livez HTTP/1.0\r\n\r\n")
    assert (await caller.answer()).field(b"connection") == b"close"
    assert (await ask(running.port, post(target=b"/livez"))).status == 404


# --- what is written down ------------------------------------------------------------------------------------------


async def test_access_log_says_who_asked_what_and_how_it_ended(scripted, proxy):
    upstream = await scripted(answering(whole(b'{"a":1}', fields=b"X-Request-Id: req_Up\r\n")))
    running = await proxy(config_for(upstream.url))
    ids = b"X-Request-Id: id-1\r\nTraceparent: 00-%b-00f067aa0ba902b7-01\r\n" % TRACE_ID
    await ask(running.port, post(target=b"/v1/chat/completions?secret=1", fields=ids))
    await running.until_logged()
    (line,) = running.requests_logged
    assert line.pop("waited_ms") is None
    assert [line.pop(name) for name in ("duration_ms", "ttfb_ms", "overhead_ms")] == [0, 0, 0]
    assert line == {
        "level": "info",
        "event": "request",
        "request_id": "id-1",
        "trace_id": TRACE_ID.decode(),
        "upstream_request_id": "req_Up",
        "peer": "127.0.0.1",
        "generation": 1,
        "client": "tester",
        "method": "POST",
        "path": "/v1/chat/completions",
        "route": "/v1",
        "status": 200,
        "bytes": 7,
        "outcome": "ok",
        "reason": None,
        "tried": None,
        "pool": "chat",
        "arm": None,
        "upstream": "up0",
        "key": "main",
    }


STATUSES = {
    "ok": (whole(b"{}"), 200, "ok"),
    "client's fault": (whole(b"{}", status=b"404 Not Found"), 404, "ok"),
    "rate limited": (whole(b"{}", status=b"429 Too Many Requests"), 429, "rate_limited"),
    "upstream's fault": (whole(b"{}", status=b"503 Unavailable"), 503, "upstream_error"),
    "not HTTP": (b"zebra\r\n\r\n", 502, "upstream_error"),
}


@pytest.mark.parametrize("name", STATUSES)
async def test_ending_is_counted_once_and_logged_once(name, scripted, proxy):
    raw, status, outcome = STATUSES[name]
    upstream = await scripted(answering(raw))
    running = await proxy(config_for(upstream.url))
    assert (await ask(running.port, get())).status == status
    await running.until_logged()
    (line,) = running.requests_logged
    assert (line["status"], line["outcome"]) == (status, outcome)
    assert outcomes(running) == {outcome: 1}
    assert codes(running) == {str(status): 1}


async def test_truncated_answer_is_logged_as_such(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    caller, talk = await asked(upstream, running)
    await talk.send(CHUNKED_HEAD, EVENT)
    await caller.read_until(b"something!\r\n")
    talk.close()
    assert await caller.read_rest() == b""
    (line,) = running.requests_logged
    assert (line["status"], line["outcome"]) == (200, "truncated")


async def test_refusals_are_logged_and_counted_without_an_upstream(proxy):
    running = await proxy(config_for("http://127.0.0.1:1/v1"))
    await ask(running.port, get(b"/zebra"))
    await ask(running.port, get().replace(b"client-key", b"zebra"))
    await ask(running.port, get(b"/v1/.."))
    lines = [(line["status"], line["outcome"], line["route"]) for line in running.requests_logged]
    assert lines == [(404, "refused", None), (401, "refused", None), (400, "refused", "/v1")]
    assert codes(running) == {"404": 1, "401": 1, "400": 1}
    assert not any(line["upstream"] for line in running.requests_logged)


# --- an upstream's connection gone stale ---------------------------------------------------------------------------


def stale_once(*answered: bytes) -> Callable:
    """The first connection serves one request, and at the next sends `answered` and closes; others serve."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(whole(b"{}"))
        if talk.upstream.connections > 1:
            await answering(whole(b"{}"))(talk)
        await talk.reader.readuntil(b"\r\n\r\n")
        await talk.send(*answered)
        talk.close()

    return script


async def test_connection_closed_as_it_was_used_again_is_replaced_silently(scripted, proxy):
    upstream = await scripted(stale_once())
    running = await proxy(config_for(upstream.url))
    for _ in range(3):
        assert (await ask(running.port, post())).status == 200
    await running.until_logged(3)
    assert upstream.connections == 2
    assert outcomes(running) == {"ok": 3}
    assert codes(running) == {"200": 3}


@pytest.mark.parametrize("answered", [b"H", b"HTTP/1.1 200", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_request_is_not_sent_again_if_anything_was_answered(answered, scripted, proxy):
    upstream = await scripted(stale_once(answered))
    running = await proxy(config_for(upstream.url))
    assert (await ask(running.port, post())).status == 200
    assert (await ask(running.port, post())).status == 502
    assert upstream.connections == 1


async def test_fresh_connection_that_closes_is_not_replaced(scripted, proxy):
    async def script(talk: Conversation) -> None:
        if talk.upstream.connections == 1:
            await talk.request()
            await talk.send(whole(b"{}"))
        await talk.reader.readuntil(b"\r\n\r\n")
        talk.close()

    upstream = await scripted(script)
    running = await proxy(config_for(upstream.url))
    assert (await ask(running.port, post())).status == 200
    assert (await ask(running.port, post())).status == 502
    assert upstream.connections == 2


# --- nothing stays -------------------------------------------------------------------------------------------------


def file_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def converse(port: int, number: int) -> None:
    """Forty requests of all sorts on one connection; some callers leave in the middle of an answer."""
    caller = await RawCaller.connect(port)
    for turn in range(40):
        await caller.send(*[get(), post(), post(b"x" * 70_000), get(b"/zebra")][(number + turn) % 4 :][:1])
        if number % 5 == 4 and turn == 39:
            break
        assert (await caller.answer()).status in (200, 404)
    caller.writer.transport.abort()


async def test_two_thousand_requests_leave_nothing_behind(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    data_plane = running.serinus.data_plane
    watched, tasks, descriptors = len(data_plane.watch._timed), asyncio.all_tasks(), file_descriptors()
    await asyncio.gather(*[converse(running.port, number) for number in range(50)])
    await running.until(lambda: not data_plane.callers.open)
    running.pass_time(61)  # upstream connections are not kept for longer
    await upstream.until(lambda: upstream.open == 0)
    await running.until(lambda: asyncio.all_tasks() == tasks)
    assert running.inflight() == 0
    assert sum(outcomes(running).values()) + codes(running)["404"] == 2000
    assert len(data_plane.watch._timed) == watched
    await running.until(lambda: file_descriptors() == descriptors)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Exchange | AiohttpConnection | FastConnection)]
