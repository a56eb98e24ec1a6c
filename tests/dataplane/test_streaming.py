"""A stream comes out as it went in: the same bytes, each event as soon as it is there, whatever pieces it came in.

The streams are those of `tests/golden/sse`, in every framing an upstream may choose, cut at every offset.
"""

import asyncio
import gzip
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.patience import PATIENCE_S
from tests.support.raw import CLIENT, Answer, RawCaller, ask, get, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Conversation, ScriptedUpstream, answering, whole

STREAMS = {path.stem: path.read_bytes() for path in sorted((Path(__file__).parents[1] / "golden/sse").glob("*.sse"))}
every_stream = pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)

ID = b"X-Request-Id: r-1\r\n"
ADDED = b"x-request-id: r-1\r\nx-serinus-upstream: up0\r\n"
UNBUFFERED = b"x-accel-buffering: no\r\ncache-control: no-cache\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
EVENTS = b"Content-Type: text/event-stream\r\n"
OLD_REQUEST = b"GET /v1/models HTTP/1.0\r\n" + CLIENT + ID + b"\r\n"


# --- streams as upstreams frame them ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Framed:
    """A stream as an upstream sends it, and what callers of HTTP/1.1 get of it."""

    sent: bytes
    head: bytes  # without the fields that are always added
    body: bytes | None  # with its framing; None where we frame it, and the payload alone counts
    payload: bytes
    closes: bool = False

    def assert_is(self, answer: Answer) -> None:
        assert answer.head == self.head + UNBUFFERED + ADDED + b"\r\n"
        assert answer.payload == self.payload
        assert self.body is None or answer.body == self.body
        assert answer.whole


def in_chunks(payload: bytes, size: int = 48) -> bytes:
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def chunked(payload: bytes, size: int = 48, *, end: bytes = b"0\r\n\r\n", fields: bytes = b"") -> Framed:
    head = OK + EVENTS + fields + b"Transfer-Encoding: chunked\r\n"
    body = in_chunks(payload, size) + end
    return Framed(head + b"\r\n" + body, head, body, payload)


def in_one_byte_chunks(payload: bytes) -> Framed:
    return chunked(payload, 1)


def in_large_chunks(payload: bytes) -> Framed:
    return chunked(payload, 700)


def with_trailers(payload: bytes) -> Framed:
    return chunked(payload, end=b"0;last\r\nX-Usage: 9\r\nx-sum: \xe9\r\n\r\n", fields=b"Trailer: X-Usage\r\n")


def sized(payload: bytes) -> Framed:
    head = OK + EVENTS + b"Content-Length: %d\r\n" % len(payload)
    return Framed(head + b"\r\n" + payload, head, payload, payload)


def until_close(payload: bytes) -> Framed:
    head = OK + EVENTS
    return Framed(head + b"\r\n" + payload, head + b"transfer-encoding: chunked\r\n", None, payload, closes=True)


def until_close_of_http10(payload: bytes) -> Framed:
    framed = until_close(payload)
    return Framed(framed.sent.replace(b"1.1", b"1.0", 1), framed.head, None, payload, closes=True)


def packed(payload: bytes) -> Framed:
    return chunked(gzip.compress(payload, mtime=0), fields=b"Content-Encoding: gzip\r\n")


FRAMINGS = (chunked, in_one_byte_chunks, with_trailers, sized, until_close, until_close_of_http10, packed)
every_framing = pytest.mark.parametrize("framing", FRAMINGS, ids=lambda framing: framing.__name__)


class Relay:
    """An upstream that sends what it is told to, a proxy before it, and a caller that keeps its connection."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closes = False

    async def start(self, scripted: Callable[..., object], proxy: Callable[..., object]) -> "Relay":
        self.upstream: ScriptedUpstream = await scripted(self.script)
        self.running: RunningProxy = await proxy(config_for(self.upstream.url))
        self.caller = await RawCaller.connect(self.running.port)
        return self

    async def script(self, talk: Conversation) -> None:
        while True:
            await talk.request()
            await talk.send(*self.pieces)
            if self.closes:
                return

    def load(self, framed: Framed, *offsets: int) -> None:
        """What to send next, cut at these offsets."""
        edges = [0, *sorted(offsets), len(framed.sent)]
        self.pieces = [framed.sent[start:end] for start, end in pairwise(edges)]
        self.closes = framed.closes

    async def relay(self, framed: Framed, *offsets: int) -> None:
        """Ask for the stream: it comes as it should, on a connection that goes on."""
        self.load(framed, *offsets)
        await self.caller.send(get(fields=ID))
        framed.assert_is(await self.caller.answer())

    async def payload_of_http10(self, framed: Framed, *offsets: int) -> bytes:
        """What a caller gets that cannot read chunks. Its connection must end with FIN: a reset says that it is cut."""
        self.load(framed, *offsets)
        answer = await ask(self.running.port, OLD_REQUEST)
        assert answer.whole
        assert answer.field(b"transfer-encoding") is None
        return answer.payload


@pytest.fixture
async def relay(scripted, proxy):
    relay = await Relay().start(scripted, proxy)
    yield relay
    relay.caller.close()


# --- the same bytes ---------------------------------------------------------------------------------------------------


@every_framing
@every_stream
async def test_stream_is_the_same_wherever_it_is_cut(relay, stream, framing):
    framed = framing(stream)
    step = 7 if framing is in_one_byte_chunks else 1  # 7 meets each place of its six-byte chunks
    for offset in range(0, len(framed.sent) + 1, step):
        await relay.relay(framed, offset)
    assert framed.closes or relay.upstream.connections == 1


@every_framing
@every_stream
async def test_stream_is_the_same_byte_by_byte(relay, stream, framing):
    framed = framing(stream)
    await relay.relay(framed, *range(1, min(len(framed.sent), 1000)))


@every_framing
@every_stream
async def test_http10_caller_gets_the_same_payload(relay, stream, framing):
    framed = framing(stream)
    for offset in range(0, len(framed.sent) + 1, 17):
        assert await relay.payload_of_http10(framed, offset) == framed.payload


@settings(
    deadline=None, derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
async def test_any_stream_is_the_same_in_any_pieces(relay, data):
    payload = data.draw(st.one_of(st.sampled_from(list(STREAMS.values())), st.binary(max_size=300)), label="payload")
    framed = data.draw(st.sampled_from(FRAMINGS), label="framing")(payload)
    offsets = data.draw(st.lists(st.integers(0, len(framed.sent)), max_size=12), label="cuts")
    await relay.relay(framed, *offsets)


BIG = {
    "an event of 1 MiB": b"data: " + b"0123456789abcdef" * 65536 + b"\n\n",
    "an event of 1 MiB in many lines": b"data: 0123456789abc\r\n" * 50000 + b"\r\n",
    "10,000 tiny events": b"".join(b"data: %d\n\n" % number for number in range(10_000)),
    "10,000 tiny events with CRLF": b"".join(b"data: %d\r\n\r\n" % number for number in range(10_000)),
    "1 MiB of CR LF": b"\r\n" * 2**19,
}


@pytest.mark.parametrize("framing", [in_large_chunks, sized, until_close, packed], ids=lambda framing: framing.__name__)
@pytest.mark.parametrize("stream", BIG.values(), ids=BIG)
async def test_big_stream_is_the_same(relay, stream, framing):
    framed = framing(stream)
    await relay.relay(framed, *range(1, len(framed.sent), 40_009))


@pytest.mark.parametrize("stream", BIG.values(), ids=BIG)
async def test_big_stream_is_the_same_for_an_http10_caller(relay, stream):
    framed = in_large_chunks(stream)
    assert await relay.payload_of_http10(framed, *range(1, len(framed.sent), 40_009)) == stream


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 255, 256, 4096, 65535, 65536, 300_000])
async def test_chunks_keep_their_sizes(relay, size):
    stream = bytes(range(256)) * (max(size // 64, 8))
    await relay.relay(chunked(stream, size))


async def test_each_of_10000_events_in_a_piece_of_its_own(relay):
    events = [b"data: %d\n\n" % number for number in range(10_000)]
    framed = chunked(b"".join(events), 10)
    await relay.relay(framed, *range(100, len(framed.sent), 14))


# --- as soon as it is there -------------------------------------------------------------------------------------------


def in_turns(events: list[bytes], head: bytes, turns: "asyncio.Queue[None]", *, chunks: bool, end: bytes):
    """Sends the head, and each event only when the one before has been read."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(head)
        for event in events:
            await turns.get()
            await talk.send(b"%x\r\n%b\r\n" % (len(event), event) if chunks else event)
        await turns.get()
        await talk.send(end)

    return script


async def assert_next(caller: RawCaller, expected: bytes) -> None:
    async with asyncio.timeout(PATIENCE_S):
        assert await caller.reader.readexactly(len(expected)) == expected


TURNS = {
    "chunked": (OK + EVENTS + b"Transfer-Encoding: chunked\r\n\r\n", True, b"0\r\n\r\n"),
    "until close": (OK + EVENTS + b"\r\n", False, b""),
    "not an event stream": (OK + b"Content-Type: audio/pcm\r\nTransfer-Encoding: chunked\r\n\r\n", True, b"0\r\n\r\n"),
    "packed": (OK + EVENTS + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", True, b"0\r\n\r\n"),
}


@pytest.mark.parametrize("http10", [False, True], ids=["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize(("head", "chunks", "end"), TURNS.values(), ids=TURNS)
async def test_event_is_readable_before_the_next_is_sent(scripted, proxy, head, chunks, end, http10):
    events = [b"data: %d\n\n" % number for number in range(50)] + [b":\n", b"d", b"ata: half\n", b"\n", b"\r"]
    turns: asyncio.Queue[None] = asyncio.Queue()
    upstream = await scripted(in_turns(events, head, turns, chunks=chunks, end=end))
    running = await proxy(config_for(upstream.url))
    with closing(await RawCaller.connect(running.port)) as caller:
        await caller.send(OLD_REQUEST if http10 else get())
        await caller.read_until(b"\r\n\r\n")  # the head comes before any event
        for event in events:
            turns.put_nowait(None)
            await assert_next(caller, event if http10 else b"%x\r\n%b\r\n" % (len(event), event))
        turns.put_nowait(None)
        await assert_next(caller, b"" if http10 else b"0\r\n\r\n")


async def test_event_is_readable_while_the_request_is_still_being_sent(scripted, proxy):
    read = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        await talk.send(OK + EVENTS + b"Transfer-Encoding: chunked\r\n\r\n6\r\n: hi\n\n\r\n")
        await read.wait()
        await talk.send(b"0\r\n\r\n")

    upstream = await scripted(script)
    running = await proxy(config_for(upstream.url, route="buffer: 1KiB"))
    request = post(b"x" * 9000)
    with closing(await RawCaller.connect(running.port)) as caller:
        await caller.send(request[:-4000])
        assert (await caller.read_until(b": hi\n\n\r\n")).startswith(OK)
        read.set()
        await assert_next(caller, b"0\r\n\r\n")


# --- the head ---------------------------------------------------------------------------------------------------------

LENGTH = b"Content-Length: 5\r\n"
NO_BUFFERING, NO_CACHE = b"x-accel-buffering: no\r\n", b"cache-control: no-cache\r\n"

# The fields that an upstream sends, and those that we add to them before our own.
HEADS = {
    "event stream": (EVENTS, UNBUFFERED),
    "with a charset": (b"content-type:text/event-stream; charset=utf-8\r\n", UNBUFFERED),
    "in capitals": (b"CONTENT-TYPE: Text/Event-Stream\r\n", UNBUFFERED),
    "cached": (EVENTS + b"Cache-Control: private, max-age=9\r\n", NO_BUFFERING),
    "buffered on purpose": (EVENTS + b"X-Accel-Buffering: yes\r\n", NO_CACHE),
    "has both": (b"X-ACCEL-BUFFERING: no\r\ncache-control: no-store\r\n" + EVENTS, b""),
    "json": (b"Content-Type: application/json\r\n", b""),
    "named in another field": (b"X-Content-Type: text/event-stream\r\nAccept: text/event-stream\r\n", b""),
    "plain text": (b"Content-Type: text/plain; a=text/event-stream\r\n", b""),
    "no type": (b"", b""),
}


@pytest.mark.parametrize(("fields", "added"), HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("status", [b"200 OK", b"429 Slow Down"])
async def test_head_is_what_was_sent_and_what_is_documented(scripted, proxy, status, fields, added):
    head = b"HTTP/1.1 " + status + b"\r\n" + fields + LENGTH
    upstream = await scripted(answering(head + b"\r\nhello"))
    running = await proxy(config_for(upstream.url))
    answer = await ask(running.port, get(fields=ID))
    assert answer.head == head + added + ADDED + b"\r\n"
    assert answer.payload == b"hello"


async def test_caller_that_ends_its_connection_is_told_so(scripted, proxy):
    upstream = await scripted(answering(chunked(b"data: 1\n\n").sent))
    running = await proxy(config_for(upstream.url))
    answer = await ask(running.port, get(fields=ID + b"Connection: close\r\n"))
    assert answer.head == (
        OK + EVENTS + b"Transfer-Encoding: chunked\r\n" + UNBUFFERED + ADDED + b"connection: close\r\n\r\n"
    )
    assert answer.whole


async def test_http10_caller_gets_no_word_of_chunks(scripted, proxy):
    upstream = await scripted(answering(chunked(b"data: 1\n\n").sent))
    running = await proxy(config_for(upstream.url))
    answer = await ask(running.port, OLD_REQUEST)
    assert answer.head == OK + EVENTS + UNBUFFERED + ADDED + b"connection: close\r\n\r\n"


BODILESS = {
    "HEAD, length": (b"HEAD", OK + EVENTS + LENGTH, UNBUFFERED),
    "HEAD, chunked": (b"HEAD", OK + EVENTS + b"Transfer-Encoding: chunked\r\n", UNBUFFERED),
    "HEAD, neither": (b"HEAD", OK + b"Content-Type: a/b\r\n", b""),
    "HEAD, 404": (b"HEAD", b"HTTP/1.1 404 Not Found\r\n" + LENGTH, b""),
    "204": (b"DELETE", b"HTTP/1.1 204 No Content\r\nX-Own: a\r\n", b""),
    "304": (b"GET", b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n', b""),
    "304 with a length": (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n", b""),
}


@pytest.mark.parametrize(("method", "head", "added"), BODILESS.values(), ids=BODILESS)
async def test_answer_without_a_body_ends_with_its_head(scripted, proxy, method, head, added):
    upstream = await scripted(answering(head + b"\r\n"))
    running = await proxy(config_for(upstream.url))
    with closing(await RawCaller.connect(running.port)) as caller:
        for _ in range(3):
            await caller.send(get(fields=ID).replace(b"GET", method, 1))
            answer = await caller.answer(to_head=True)
            assert answer.head == head + added + ADDED + b"\r\n"
        caller.writer.write_eof()
        assert await caller.read_rest() == b""
    assert upstream.connections == 1


# --- the target -------------------------------------------------------------------------------------------------------

TARGETS = [
    b"/v1/models",
    b"/v1",
    b"/v1/",
    b"/v1//models",
    b"/v1/models/",
    b"/v1/./models",
    b"/v1/a/../models",
    b"/v1/a%2fb%2Fc",
    b"/v1/%41%7e~",
    b"/v1/%00%0d%0a%20",
    b"/v1/%e6%9d%b1%ff",
    b"/v1/100%",
    b"/v1/%zz",
    b"/v1/a+b;c=d,e@f:g!$&'()*",
    b'/v1/"<>[]^`{|}',
    b"/v1/files/file-1/content?",
    b"/v1/models?limit=2&after=a%20b+c",
    b"/v1/models?a=1&a=2&&=&b",
    b"/v1/models?q=a?b/c://d",
    b"/v1/models?next=%2Fv1%2F..%2F",
    b"/v1/models?../../etc",
    b"/v1?a",
    b"/v1/models?" + b"a" * 8000,
    b"/v1/" + b"a/" * 3000,
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target[:30].decode())
async def test_target_arrives_as_it_was_sent(scripted, proxy, target):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    assert (await ask(running.port, get(target))).status == 200
    assert upstream.requests[0].line == b"GET " + target + b" HTTP/1.1"
