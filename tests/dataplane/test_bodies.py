"""Request bodies: whole, in pieces, too large, too slow, broken; and the model that they name."""

import asyncio
import json

import pytest

from tests.support.lanes import arrived_bytes, the_connection, waits_for_body
from tests.support.raw import CLIENT, RawCaller, ask, get, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Conversation, answering, whole

MIB = 1024 * 1024
BLOCK_BYTES = 256 * 1024  # what uvloop reads at once
LAST = b"0\r\n\r\n"
CHUNKED = b"POST /v1/files HTTP/1.1\r\nHost: proxy\r\n" + CLIENT + b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def received(running: RunningProxy, raw: bytes, *, block_bytes: int = BLOCK_BYTES) -> None:
    """The only connection receives `raw` in large blocks, within one turn of the loop if nothing makes it wait."""
    await running.until(lambda: bool(running.serinus.data_plane.callers.open))
    for at in range(0, len(raw), block_bytes):
        await running.until(lambda: the_connection(running).wire.is_reading())
        the_connection(running).data_received(raw[at : at + block_bytes])


def announced(size: int) -> bytes:
    """The head of a request with a body of `size`."""
    return post(b"").replace(b"Content-Length: 0", b"Content-Length: %d" % size)


def outcomes(running: RunningProxy) -> dict[str, int]:
    """How all exchanges have ended so far."""
    lives = running.serinus.registry.upstreams.values()
    return {
        outcome.value: count
        for outcome in next(iter(lives)).outcomes
        if (count := sum(live.outcomes[outcome] for live in lives))
    }


class Unread:
    """An upstream that takes the head of a request and stops there, until it is told to go on. It counts the `x`."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.counted = 0

    async def __call__(self, talk: Conversation) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        talk.writer.transport.pause_reading()
        await self.go_on.wait()
        talk.writer.transport.resume_reading()
        while piece := await talk.reader.read(MIB):
            self.counted += piece.count(b"x")
            talk.upstream.changed.set()


# --- framing -------------------------------------------------------------------------------------------------------


SPLIT_REQUESTS = {
    "length": post(b'{"model":"m"}'),
    "chunks": CHUNKED + chunk(b'{"model":') + chunk(b'"m"}') + b"0\r\n\r\n",
}


@pytest.mark.parametrize("kind", SPLIT_REQUESTS)
async def test_request_in_two_writes_at_every_offset(kind, scripted, proxy):
    raw = SPLIT_REQUESTS[kind]
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    for offset in range(1, len(raw)):
        await caller.send(raw[:offset], raw[offset:])
        assert (await caller.answer()).status == 200
    assert {request.body for request in upstream.requests} == {b'{"model":"m"}'}
    assert {request.field(b"content-length") for request in upstream.requests} == {b"13"}
    assert len(upstream.requests) == len(raw) - 1


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 64 * 1024, MIB - 1, MIB, MIB + 1, 3 * MIB])
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_body_arrives_whatever_its_size(size, framing, scripted, proxy):
    body = bytes(index * 7 % 251 for index in range(1000)) * (size // 1000 + 1)
    body = body[:size]
    raw = post(body)
    if framing == "chunks":
        raw = CHUNKED + b"".join(chunk(body[at : at + 50_000]) for at in range(0, size, 50_000)) + b"0\r\n\r\n"
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    assert (await ask(running.port, raw)).status == 200
    (request,) = upstream.requests
    assert request.body == body
    await running.until_logged()
    assert outcomes(running) == {"ok": 1}


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 100_000])
@pytest.mark.parametrize("one", [chunk(b"x"), b"0000001\r\nx\r\n"], ids=["short", "with zeros"])
async def test_chunks_of_one_byte_are_a_body_as_any(size, one, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await received(running, CHUNKED + one * size + LAST)
    assert (await caller.answer()).status == 200
    assert upstream.requests[0].body == b"x" * size


@pytest.mark.parametrize("together", [True, False])
async def test_what_comes_before_and_behind_chunks_is_not_taken_for_theirs(together, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    before, behind = get() * 2000 + CHUNKED + chunk(b"ab"), chunk(b"cd") + LAST + get() * 2000
    await received(running, before + behind if together else before)
    for _ in range(2000):
        assert (await caller.answer()).status == 200
    if not together:
        await running.until(lambda: waits_for_body(running))
        await received(running, behind)
    assert (await caller.answer()).status == 200
    assert upstream.requests[-1].body == b"abcd"


async def test_body_within_the_buffer_is_sent_with_a_length(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    for raw in (CHUNKED + chunk(b"x" * 60_000) + b"0\r\n\r\n", post(b"x" * 60_000)):
        assert (await ask(running.port, raw)).status == 200
        request = upstream.requests[-1]
        assert (request.field(b"content-length"), request.field(b"transfer-encoding")) == (b"60000", None)


@pytest.mark.parametrize(
    ("name", "rest", "length", "coding"),
    [
        ("length, streamed", b"y" * MIB, b"%d" % (3 * MIB), None),
        ("chunks, streamed", chunk(b"y" * MIB) + b"0\r\n\r\n", None, b"chunked"),
    ],
)
async def test_body_beyond_the_buffer_is_sent_as_it_comes(name, rest, length, coding, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await begun(running, name)
    await caller.send(rest)
    assert (await caller.answer()).status == 200
    (request,) = upstream.requests
    assert request.body == b"x" * 2 * MIB + b"y" * MIB
    assert (request.field(b"content-length"), request.field(b"transfer-encoding")) == (length, coding)


# --- backpressure --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_upstream_that_does_not_read_holds_the_caller_back(framing, scripted, proxy):
    script, size = Unread(), 24 * MIB
    upstream = await scripted(script)
    running = await proxy(config_for(upstream.url, route="buffer: 64KiB"))
    caller = await RawCaller.connect(running.port)
    head, piece, end = (announced(size), b"x" * MIB, b"")
    if framing == "chunks":
        head, piece, end = CHUNKED, chunk(piece), b"0\r\n\r\n"
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(caller.send(head, *[piece] * 24, end))
        await running.until(lambda: held_back(running))
        assert held_bytes(running) < 2 * MIB
        assert not sending.done()
        script.go_on.set()
    await upstream.until(lambda: script.counted == size)


def held_back(running: RunningProxy) -> bool:
    """Is no more read of the only request, for the upstream takes no more of it?"""
    caller = the_connection(running)
    upload = caller.exchange and caller.exchange.upload
    return upload is not None and upload._blocked and not caller.wire.is_reading()


def held_bytes(running: RunningProxy) -> int:
    """What the proxy holds of the only request's body."""
    caller = the_connection(running)
    unsent = caller.exchange._connection.transport.get_write_buffer_size()
    return unsent + caller._current_request.content._size


# --- too large, too slow, broken -----------------------------------------------------------------------------------


async def test_announced_body_over_the_limit_is_refused_before_it_is_sent(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, route="max_body: 1KiB"))
    caller = await RawCaller.connect(running.port)
    await caller.send(announced(1025))
    answer = await caller.answer()
    assert answer.status == 413
    assert json.loads(answer.payload)["error"]["code"] == "request_too_large"
    assert await caller.read_rest() == b""
    assert (await ask(running.port, post(b"x" * 1024))).status == 200
    assert len(upstream.requests) == 1


async def test_refusal_is_read_by_a_caller_that_goes_on_sending(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, route="max_body: 1KiB"))
    caller = await RawCaller.connect(running.port)
    await caller.send(announced(8 * MIB), *[b"x" * MIB] * 8)
    assert (await caller.answer()).status == 413
    assert await caller.read_rest() == b""
    assert upstream.connections == 0


@pytest.mark.parametrize("buffer", ["4KiB", "256KiB"])
async def test_chunks_over_the_limit_end_before_the_upstream_has_a_whole_request(buffer, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, route=f"max_body: 64KiB, buffer: {buffer}"))
    caller = await RawCaller.connect(running.port)
    await caller.send(CHUNKED, *[chunk(b"x" * 1024)] * 65)
    assert (await caller.answer()).status == 413
    assert await caller.read_rest() == b""
    await upstream.until(lambda: upstream.open == 0)
    assert upstream.requests == []


BEGINNINGS = {
    "length, in the buffer": (announced(100) + b"x" * 99, False),
    "length, streamed": (announced(3 * MIB) + b"x" * 2 * MIB, True),
    "chunks, in the buffer": (CHUNKED + chunk(b"x"), False),
    "chunks, streamed": (CHUNKED + chunk(b"x" * 2 * MIB), True),
    "chunks, in the middle of one": (CHUNKED + chunk(b"x" * 2 * MIB)[:-3], True),
    "chunks, before the last line": (CHUNKED + chunk(b"x" * 2 * MIB) + b"0\r\n", True),
}


async def begun(running: RunningProxy, name: str) -> RawCaller:
    """A caller that has sent the beginning of a body, all of which the proxy has taken."""
    raw, streamed = BEGINNINGS[name]
    caller = await RawCaller.connect(running.port)
    await caller.send(raw)
    await running.until(lambda: waits_for_body(running) and arrived_bytes(running) == len(raw))
    assert bool(running.inflight()) is streamed
    return caller


@pytest.mark.parametrize("name", BEGINNINGS)
async def test_body_that_stops_is_waited_for_and_then_refused(name, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top="downstream: {body_timeout: 60s}"))
    caller = await begun(running, name)
    running.pass_time(59)
    assert not caller.reader._buffer
    running.pass_time(2)
    answer = await caller.answer()
    assert (answer.status, answer.field(b"connection")) == (408, b"close")
    assert json.loads(answer.payload)["error"]["code"] == "request_timeout"
    assert await caller.read_rest() == b""
    await upstream.until(lambda: upstream.open == 0)
    assert upstream.requests == []


async def test_body_that_goes_on_slowly_is_never_refused(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top="downstream: {body_timeout: 7s}"))
    caller = await RawCaller.connect(running.port)
    await caller.send(announced(5))
    for number in range(5):
        await running.until(lambda: waits_for_body(running))
        running.pass_time(6)
        before_s = the_connection(running).deadline_s
        await caller.send(b"%d" % number)
        await running.until(lambda before_s=before_s: the_connection(running).deadline_s != before_s)
    assert (await caller.answer()).status == 200
    assert upstream.requests[0].body == b"01234"


@pytest.mark.parametrize("rest", [b"zz\r\n", b"5\r\nabcdefgh\r\n", b"\r\n\r\n", b"-1\r\n\r\n"])
@pytest.mark.parametrize("name", ["chunks, in the buffer", "chunks, streamed"])
async def test_broken_chunk_is_refused_at_once(name, rest, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await begun(running, name)
    await caller.send(rest)
    answer = await caller.answer()
    assert (answer.status, answer.field(b"connection")) == (400, b"close")
    assert json.loads(answer.payload)["error"]["code"] == "malformed_request"
    assert await caller.read_rest() == b""
    await upstream.until(lambda: upstream.open == 0)
    assert upstream.requests == []


EXTENSION = chunk(b"abcde").replace(b"\r\n", b";" + b"x" * 2 * MIB + b"\r\n", 1)
ENDLESS = {
    "extension of the first chunk": CHUNKED + EXTENSION + LAST,
    "extension of another": CHUNKED + chunk(b"x") * 9 + EXTENSION + LAST,
    "extension of the last": CHUNKED + chunk(b"x") + LAST.replace(b"\r\n", b";" + b"x" * 2 * MIB + b"\r\n", 1),
    "extensions of many": CHUNKED + chunk(b"x").replace(b"\r\n", b";" + b"x" * 400 + b"\r\n", 1) * 5000 + LAST,
    "extension, then a trailer": CHUNKED + EXTENSION + LAST[:-2] + b"X-Zebra: 1\r\n\r\n",
}


@pytest.mark.parametrize("behind", [b"", get(), get()[:20]], ids=["nothing", "a request", "a part of one"])
@pytest.mark.parametrize("before", [b"", get()], ids=["nothing", "a request"])
@pytest.mark.parametrize("name", ENDLESS)
async def test_endless_framing_is_refused_though_it_arrives_in_one_turn(name, before, behind, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await received(running, before + ENDLESS[name] + behind)
    if before:
        assert (await caller.answer()).status == 200
    assert (await caller.answer()).status == 400
    assert await caller.read_rest() == b""
    assert len(upstream.requests) == bool(before)


@pytest.mark.parametrize("name", [name for name in ENDLESS if "trailer" not in name])
async def test_endless_framing_is_refused_though_it_arrives_in_one_block(name, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await received(running, ENDLESS[name], block_bytes=len(ENDLESS[name]))
    assert (await caller.answer()).status == 400
    assert await caller.read_rest() == b""
    assert upstream.connections == 0


async def test_body_that_was_found_broken_stays_so_though_its_end_arrives(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await begun(running, "chunks, in the buffer")
    connection = the_connection(running)
    connection.data_received(b"5;" + b"x" * 70_000)
    connection.data_received(b"\r\nabcde\r\n" + LAST)  # before its handler wakes
    assert (await caller.answer()).status == 400
    assert await caller.read_rest() == b""
    assert upstream.connections == 0


async def test_body_is_found_broken_though_its_handler_was_about_to_read_it(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await begun(running, "chunks, in the buffer")
    connection = the_connection(running)
    connection.data_received(chunk(b"x"))
    connection.data_received(EXTENSION + LAST)
    assert (await caller.answer()).status == 400
    assert await caller.read_rest() == b""
    assert upstream.connections == 0


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("name", BEGINNINGS)
async def test_caller_that_leaves_amid_its_body_ends_the_upstreams_connection(name, reset, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await begun(running, name)
    streamed = BEGINNINGS[name][1]
    if streamed:
        await upstream.until(lambda: upstream.connections == 1)
    (caller.writer.transport.abort if reset else caller.writer.close)()
    await running.until(lambda: not running.serinus.data_plane.callers.open)
    await upstream.until(lambda: upstream.open == 0)
    assert upstream.requests == []
    assert outcomes(running) == ({"client_gone": 1} if streamed else {})


# --- an answer before the body's end -------------------------------------------------------------------------------


async def early(talk: Conversation) -> None:
    """Answers as soon as there is a head, and keeps the connection open."""
    await talk.reader.readuntil(b"\r\n\r\n")
    await talk.send(whole(b'{"early":1}', status=b"400 Bad Request"))
    await talk.gone()


@pytest.mark.parametrize("name", ["length, streamed", "chunks, streamed"])
async def test_early_answer_is_delivered_and_the_connections_are_not_used_again(name, scripted, proxy):
    upstream = await scripted(early)
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(BEGINNINGS[name][0])
    answer = await caller.answer()
    assert (answer.status, answer.payload) == (400, b'{"early":1}')
    assert answer.field(b"connection") == b"close"
    assert await caller.read_rest() == b""
    await upstream.until(lambda: upstream.open == 0)
    await ask(running.port, get())
    assert upstream.connections == 2
    await running.until_logged(2)
    assert outcomes(running) == {"ok": 2}


async def test_early_answer_is_delivered_whole_while_the_body_goes_on(scripted, proxy):
    async def streaming(talk: Conversation) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"one"))
        await talk.reader.readuntil(b"the end")
        await talk.send(chunk(b"two"), b"0\r\n\r\n")

    upstream = await scripted(streaming)
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    body = b"x" * 2 * MIB + b"the end"
    await caller.send(announced(len(body)) + body[:-7])
    await caller.read_until(b"one\r\n")
    await caller.send(body[-7:])
    assert await caller.read_rest() == b"3\r\ntwo\r\n0\r\n\r\n"


async def test_large_early_answer_reaches_a_caller_that_first_sends_all(scripted, proxy):
    async def script(talk: Conversation) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        await talk.send(whole(b"y" * 500_000))
        await talk.gone()

    upstream = await scripted(script)
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(announced(6 * MIB), *[b"x" * MIB] * 6)
    assert (await caller.answer()).payload == b"y" * 500_000


# --- the model -----------------------------------------------------------------------------------------------------

MODELS = """
clients:
  - {name: all, key: all-key}
  - {name: some, key: some-key, models: [gpt-*, "other"]}
upstreams:
  up0: {base_url: '%s', keys: [{name: main, value: upstream-key-0}]}
pools:
  plain: {members: [{upstream: up0}]}
  renamed: {members: [{upstream: up0, model: "new \\"name\\""}]}
routes:
  - {prefix: /v1, model: "rename-*", pool: renamed}
  - {prefix: /v1, model: "gpt-*", pool: plain}
  - {prefix: /v1, model: "other", pool: plain}
  - {prefix: /any, pool: plain}
  - {prefix: /renamed, pool: renamed}
"""


def by(key: bytes, body: bytes, *, target: bytes = b"/v1/chat/completions", fields: bytes = b"") -> bytes:
    return post(body, target=target, fields=fields).replace(b"client-key", key)


FORM = b"Content-Type: multipart/form-data; boundary=b0\r\n"


def form(model: bytes) -> bytes:
    part = b'--b0\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    return part % (b'file"; filename="a', b"\x00\xff\r\n") + part % (b"model", model) + b"--b0--\r\n"


REPLACED: dict[str, tuple[bytes, bytes, bytes]] = {
    "plain": (b'{"model":"rename-me","n":1}', b'{"model":"new \\"name\\"","n":1}', b""),
    "nested models stay": (
        b'{"a":{"model":"x"},"model":"rename-me","b":[{"model":"y"}]}',
        b'{"a":{"model":"x"},"model":"new \\"name\\"","b":[{"model":"y"}]}',
        b"",
    ),
    "blanks and other letters stay": (
        ' { "ü" : "\\u00fc" ,\r\n"model"\t: "rename-me" } '.encode(),
        ' { "ü" : "\\u00fc" ,\r\n"model"\t: "new \\"name\\"" } '.encode(),
        b"",
    ),
    "key and value in escapes": (b'{"\\u006dodel":"\\u0072ename-me"}', b'{"\\u006dodel":"new \\"name\\""}', b""),
    "multipart": (form(b"rename-me"), form(b'new "name"'), FORM),
}


@pytest.mark.parametrize("name", REPLACED)
async def test_model_of_a_member_replaces_the_callers_and_nothing_else(name, scripted, proxy):
    body, sent, fields = REPLACED[name]
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(MODELS % upstream.url)
    assert (await ask(running.port, by(b"all-key", body, fields=fields))).status == 200
    assert upstream.requests[0].body == sent
    assert upstream.requests[0].field(b"content-length") == b"%d" % len(sent)


ANY, RENAMED = b"/any/x", b"/renamed/x"
GZIP, TEXT = b"Content-Encoding: gzip\r\n", b"Content-Type: text/plain\r\n"
JSON, IDENTITY = b"Content-Type: application/json\r\n", b"Content-Encoding: identity\r\n"

MODEL_ANSWERS: dict[str, tuple[int, bytes]] = {
    "route's glob": (200, by(b"all-key", b'{"model":"gpt-4.1"}')),
    "route's name": (200, by(b"all-key", b'{"model":"other"}')),
    "route's glob, by form": (200, by(b"all-key", form(b"gpt-4.1"), fields=FORM)),
    "route's glob, identity": (200, by(b"all-key", b'{"model":"gpt-4.1"}', fields=IDENTITY)),
    "no route for it": (404, by(b"all-key", b'{"model":"claude"}')),
    "no route for it in capitals": (404, by(b"all-key", b'{"model":"GPT-4.1"}')),
    "no route for it with a line break": (404, by(b"all-key", b'{"model":"other\\n"}')),
    "no model": (400, by(b"all-key", b"{}")),
    "two models": (400, by(b"all-key", b'{"model":"gpt-4","model":"claude"}')),
    "two models, one in escapes": (400, by(b"all-key", b'{"model":"gpt-4","mod\\u0065l":"claude"}')),
    "two models, one in capitals": (400, by(b"all-key", b'{"model":"gpt-4","MODEL":"claude"}')),
    "two models in a form": (400, by(b"all-key", form(b"gpt-4")[:-8] + form(b"claude"), fields=FORM)),
    "model that is no text": (400, by(b"all-key", b'{"model":["gpt-4"]}')),
    "body that is no JSON": (400, by(b"all-key", b"model=gpt-4")),
    "body of another kind": (400, by(b"all-key", b'{"model":"gpt-4"}', fields=TEXT)),
    "compressed": (400, by(b"all-key", b'{"model":"gpt-4"}', fields=GZIP)),
    "two content types": (400, by(b"all-key", b'{"model":"gpt-4"}', fields=JSON + TEXT)),
    "nested without end": (400, by(b"all-key", b'{"model":"gpt-4","a":' + b"[" * 100_000)),
    "beyond the buffer": (413, by(b"all-key", b'{"model":"gpt-4","a":"%b"}' % (b"x" * 2 * MIB))),
    "no body": (200, get(b"/v1/files").replace(b"client-key", b"all-key")),
    "anything where nothing hangs on it": (200, by(b"all-key", b"zebra", target=ANY)),
    "two models where nothing hangs on it": (200, by(b"all-key", b'{"model":"a","model":"b"}', target=ANY)),
    "replaced where the route takes any": (200, by(b"all-key", b'{"model":"a"}', target=RENAMED)),
    "two models to replace": (400, by(b"all-key", b'{"model":"a","model":"b"}', target=RENAMED)),
    "allowed by glob": (200, by(b"some-key", b'{"model":"gpt-4.1"}', target=ANY)),
    "allowed by name": (200, by(b"some-key", b'{"model":"other"}')),
    "allowed by form": (200, by(b"some-key", form(b"gpt-4.1"), target=ANY, fields=FORM)),
    "not allowed": (403, by(b"some-key", b'{"model":"rename-me"}')),
    "not allowed in capitals": (403, by(b"some-key", b'{"model":"Other"}', target=ANY)),
    "not allowed by form": (403, by(b"some-key", form(b"claude"), target=ANY, fields=FORM)),
    "not allowed, and no model": (400, by(b"some-key", b"{}", target=ANY)),
    "not allowed, and no JSON": (400, by(b"some-key", b"zebra", target=ANY)),
    "not allowed, and of another kind": (400, by(b"some-key", b'{"model":"other"}', target=ANY, fields=TEXT)),
    "not allowed, and compressed": (400, by(b"some-key", b"zebra", target=ANY, fields=GZIP)),
    "allowed by query": (200, get(b"/any/realtime?model=gpt-4").replace(b"client-key", b"some-key")),
    "not allowed by query": (403, get(b"/any/realtime?model=claude").replace(b"client-key", b"some-key")),
    "not allowed by a query in escapes": (403, get(b"/any/x?a&%6dodel=cl%61ude").replace(b"client-key", b"some-key")),
    "not allowed by query, whatever the body": (403, by(b"some-key", b'{"model":"other"}', target=ANY + b"?model=x")),
    "not allowed by query, behind a semicolon": (403, get(b"/any/x?a=1;model=x").replace(b"client-key", b"some-key")),
    "not allowed by deployment": (403, by(b"some-key", b'{"model":"other"}', target=b"/any/deployments/x/chat")),
    "not allowed by deployment, no body": (403, by(b"some-key", b"", target=b"/any/Deployments/%78/chat")),
    "not allowed by verb": (403, by(b"some-key", b'{"model":"other"}', target=b"/any/models/x:generate")),
    "allowed by deployment": (200, by(b"some-key", b'{"model":"other"}', target=b"/any/deployments/other/chat")),
    "look at one model": (200, get(b"/any/models/other").replace(b"client-key", b"some-key")),
    "look at one model that is not allowed": (403, get(b"/any/models/claude").replace(b"client-key", b"some-key")),
    "allowed, with others to fall back to": (400, by(b"some-key", b'{"model":"other","models":["x"]}', target=ANY)),
    "escapes in the text": (200, by(b"some-key", b'{"model":"other","a":"\\u00e9"}', target=ANY)),
    "two models in the query": (400, get(b"/any/x?model=other&Model=a").replace(b"client-key", b"some-key")),
    "any query where nothing hangs on it": (200, get(b"/any/x?model=a&model=b").replace(b"client-key", b"all-key")),
    "not allowed in two ways": (400, by(b"some-key", b'{"model":"other","model":"claude"}', target=ANY)),
}


@pytest.mark.parametrize("name", MODEL_ANSWERS)
async def test_model_decides(name, scripted, proxy):
    status, raw = MODEL_ANSWERS[name]
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(MODELS % upstream.url)
    assert (await ask(running.port, raw)).status == status
    assert len(upstream.requests) == (status == 200)


async def test_unknown_model_is_told_what_there_is(scripted, proxy):
    running = await proxy(MODELS % "http://127.0.0.1:1/v1")
    answer = await ask(running.port, by(b"all-key", b'{"model":"claude"}'))
    error = json.loads(answer.payload)["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    for glob in ("rename-*", "gpt-*", "other"):
        assert glob in error["message"]


async def test_forbidden_model_says_so(scripted, proxy):
    running = await proxy(MODELS % "http://127.0.0.1:1/v1")
    answer = await ask(running.port, by(b"some-key", b'{"model":"claude"}', target=ANY))
    error = json.loads(answer.payload)["error"]
    assert (error["type"], error["code"]) == ("permission_error", "model_not_allowed")
