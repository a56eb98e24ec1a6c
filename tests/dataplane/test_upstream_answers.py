"""Whatever an upstream sends, a caller gets one right answer, one error, or one answer that is seen to be cut.

Each table is a list of raw answers and what becomes of them, over real sockets. After each answer the caller asks
again: what it then gets tells whether anything was left over on either connection.
"""

import asyncio
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import msgspec
import pytest

from tests.support.answers import BROKEN_CHUNKS, GOOD_CHUNK, NO_ANSWERS
from tests.support.raw import CLIENT, Answer, RawCaller, get, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Conversation, Script, ScriptedUpstream, answering, whole


class Ends(Enum):
    """What the upstream does when it has sent everything."""

    OPEN = auto()
    FIN = auto()
    RST = auto()


OPEN, FIN, RST = Ends.OPEN, Ends.FIN, Ends.RST

ID = b"X-Request-Id: r-1\r\n"
ADDED = b"x-request-id: r-1\r\nx-serinus-upstream: up0\r\n"
NEXT = b'{"answer":"the next"}'
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


@dataclass
class Scene:
    """An upstream that sends a row of a table first and is sensible afterwards; a proxy; a caller."""

    upstream: ScriptedUpstream
    running: RunningProxy
    caller: RawCaller
    seen: asyncio.Event  # set when what the caller should see of the first answer has arrived

    async def ask(self, request: bytes, shown: bytes = b"") -> Answer:
        await self.caller.send(request)
        await self.running.until(lambda: shown in self.caller.reader._buffer)
        self.seen.set()
        return await self.caller.answer(to_head=request.startswith(b"HEAD "))

    async def assert_next_is_right(self, *, reused: bool) -> None:
        """The caller's connection goes on with its own next answer, the upstream's only if it is `reused`."""
        if not reused:
            await self.upstream.until(lambda: self.upstream.open == 0)
        answer = await self.ask(get(b"/v1/next"))
        assert (answer.status, answer.payload) == (200, NEXT)
        assert self.upstream.connections == (1 if reused else 2)
        await self.assert_ends_after(b"", close=True)

    async def assert_ends_after(self, rest: bytes, *, close: bool = False) -> None:
        """The caller gets `rest` and then the end of its connection, which it may have to close itself."""
        if close:
            self.caller.writer.write_eof()
        assert await self.caller.read_rest() == rest


def first_sending(pieces: tuple[bytes, ...], ends: Ends, seen: asyncio.Event, *, broken: bytes, reused: bool) -> Script:
    """Answers its first request with a row, and all others with `NEXT`. `broken` and the end wait for `seen`."""

    async def script(talk: Conversation) -> None:
        if talk.upstream.connections == 1:
            await talk.request()
            await talk.send(*pieces)
            if broken or ends is not OPEN:
                await seen.wait()
            await talk.send(broken)
            if ends is not OPEN:
                talk.reset() if ends is RST else talk.close()
            if not reused:
                return await talk.gone()
        return await answering(whole(NEXT))(talk)

    return script


Staged = Callable[..., "asyncio.Future[Scene]"]


@pytest.fixture
async def staged(scripted, proxy):
    callers: list[RawCaller] = []

    async def stage(
        *pieces: bytes, ends: Ends = OPEN, broken: bytes = b"", reused: bool = False, keys: bool = True
    ) -> Scene:
        seen = asyncio.Event()
        upstream = await scripted(first_sending(pieces, ends, seen, broken=broken, reused=reused))
        running = await proxy(config_for(upstream.url, keys=keys))
        callers.append(await RawCaller.connect(running.port))
        return Scene(upstream, running, callers[-1], seen)

    yield stage
    for caller in callers:
        caller.close()


# --- refused: 502 and nothing of the upstream's bytes -----------------------------------------------------------------

CLOSED_TOO_SOON = {
    "nothing, FIN": (b"", FIN),
    "nothing, RST": (b"", RST),
    "half a status line, FIN": (b"HTTP/1.1 20", FIN),
    "half a status line, RST": (b"HTTP/1.1 20", RST),
    "half a head, FIN": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Own: hel", FIN),
    "half a head, RST": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Own: hel", RST),
    "a head without its last LF, FIN": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r", FIN),
    "a head that the close would end, FIN": (b"HTTP/1.1 200 OK\r\n", FIN),
    "only a 100, FIN": (b"HTTP/1.1 100 Continue\r\n\r\n", FIN),
    "only a 103, RST": (b"HTTP/1.1 103 Early Hints\r\nLink: </hello>\r\n\r\n", RST),
}
REFUSED = {name: (raw, OPEN) for name, raw in NO_ANSWERS.items()} | CLOSED_TOO_SOON


def error_of(answer: Answer) -> dict[str, object]:
    assert [name for name, _ in answer.fields][:3] == [b"content-type", b"content-length", b"x-request-id"]
    assert answer.field(b"content-type") == b"application/json"
    error: dict[str, object] = msgspec.json.decode(answer.payload)["error"]
    return error


@pytest.mark.parametrize(("raw", "ends"), REFUSED.values(), ids=REFUSED)
async def test_what_is_no_answer_becomes_our_502(staged: Staged, raw: bytes, ends: Ends):
    scene = await staged(raw, ends=ends)
    if ends is not OPEN:
        scene.seen.set()  # there is nothing to wait for
    answer = await scene.ask(post(fields=ID))
    assert (answer.status, answer.reason) == (502, b"Bad Gateway")
    assert answer.field(b"x-request-id") == b"r-1"
    assert error_of(answer) == {
        "message": "Upstream up0 did not send a valid answer.",
        "type": "api_error",
        "param": None,
        "code": "upstream_error",
    }
    await scene.assert_next_is_right(reused=False)


# --- delivered --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Row:
    """An answer that is delivered. `head` is what is to arrive of it, without the fields that are always added."""

    sent: tuple[bytes, ...]
    head: bytes
    body: bytes = b""
    ends: Ends = OPEN
    reused: bool = True


def row(head: bytes, body: bytes = b"", *, gets: bytes | None = None, **more: object) -> Row:
    """A head and a body in one piece; what of the head arrives, where it is not all of it."""
    return Row(sent=(head + b"\r\n" + body,), head=head if gets is None else gets, body=body, **more)  # type: ignore[arg-type]


def ok(fields: bytes, *, gets: bytes | None = None, reused: bool = True) -> Row:
    """A 200 of five bytes with these fields, of which `gets` arrives."""
    line, length = b"HTTP/1.1 200 OK\r\n", b"Content-Length: 5\r\n"
    passed = fields if gets is None else gets
    return row(line + fields + length, b"hello", gets=line + passed + length, reused=reused)


def spoilt(head: bytes, body: bytes, *more: bytes, gets: bytes | None = None) -> Row:
    """An answer with more bytes behind it."""
    first = head + b"\r\n" + body
    return Row(sent=(first, *more), head=head if gets is None else gets, body=body, reused=False)


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
TYPED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
PACKED = gzip.compress(b"hello " * 99, mtime=0)
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n"
NOT_MODIFIED = b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n'
OUR_CHUNKS = b"transfer-encoding: chunked\r\n"

DELIVERED = {
    # framing
    "length": row(PLAIN, b"hello"),
    "length, byte by byte": Row(sent=tuple(bytes([b]) for b in PLAIN + b"\r\nhello"), head=PLAIN, body=b"hello"),
    "length 0": row(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"),
    "length, then FIN": row(PLAIN, b"hello", ends=FIN, reused=False),
    "length, then RST": row(PLAIN, b"hello", ends=RST, reused=False),
    "length, connection: close": ok(b"Connection: close\r\n", gets=b"", reused=False),
    "length from HTTP/1.0": row(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n", b"hello", gets=PLAIN, reused=False),
    "length from HTTP/1.0, keep-alive": row(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n", b"hello", gets=PLAIN
    ),
    "chunked": row(CHUNKED, CHUNKS),
    "chunked, byte by byte": Row(sent=tuple(bytes([b]) for b in CHUNKED + b"\r\n" + CHUNKS), head=CHUNKED, body=CHUNKS),
    "chunked, in any case": row(b"HTTP/1.1 200 OK\r\nTRANSFER-encoding:Chunked\r\n", CHUNKS),
    "chunked, extensions": row(CHUNKED, b'5;a;b=c;d="e f"\r\nhello\r\n0;end\r\n\r\n'),
    "chunked, odd sizes": row(CHUNKED, b"0005\r\nhello\r\nA\r\n0123456789\r\n0000\r\n\r\n"),
    "chunked, trailers": row(
        b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n",
        b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nx-8bit: \xe9\r\n\r\n",
    ),
    "chunked, body like an end": row(CHUNKED, b"9\r\n\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n"),
    "chunked, connection: close": row(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n", CHUNKS, gets=CHUNKED, reused=False
    ),
    "until close": Row(sent=(TYPED + b"\r\nhello",), head=TYPED + OUR_CHUNKS, body=CHUNKS, ends=FIN, reused=False),
    "until close, nothing in it": Row(
        sent=(TYPED + b"\r\n",), head=TYPED + OUR_CHUNKS, body=b"0\r\n\r\n", ends=FIN, reused=False
    ),
    "until close, of HTTP/1.0": Row(
        sent=(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello",),
        head=TYPED + OUR_CHUNKS,
        body=CHUNKS,
        ends=FIN,
        reused=False,
    ),
    # no body
    "204": row(NO_CONTENT),
    "204, connection: close": row(NO_CONTENT + b"Connection: close\r\n", gets=NO_CONTENT, reused=False),
    "204 with a length of 0": row(NO_CONTENT + b"Content-Length: 0\r\n", gets=NO_CONTENT),
    "204 with a body": spoilt(NO_CONTENT + b"Content-Length: 5\r\n", b"", b"hello", gets=NO_CONTENT),
    "204 with a body at once": Row(
        sent=(NO_CONTENT + b"Content-Length: 5\r\n\r\nhello",), head=NO_CONTENT, reused=False
    ),
    "204 with chunks": spoilt(NO_CONTENT + b"Transfer-Encoding: chunked\r\n", b"", CHUNKS, gets=NO_CONTENT),
    "204 with another answer": Row(sent=(NO_CONTENT + b"\r\n" + EVIL,), head=NO_CONTENT, reused=False),
    "304": row(NOT_MODIFIED),
    "304 with a length": row(NOT_MODIFIED + b"Content-Length: 500\r\n"),
    "304 with a body": Row(
        sent=(NOT_MODIFIED + b"Content-Length: 5\r\n\r\nhello",),
        head=NOT_MODIFIED + b"Content-Length: 5\r\n",
        reused=False,
    ),
    "304 with a body later": spoilt(NOT_MODIFIED + b"Content-Length: 5\r\n", b"", b"hello"),
    # bytes behind the message
    "length and an empty line": Row(sent=(PLAIN + b"\r\nhello\r\n",), head=PLAIN, body=b"hello", reused=False),
    "length and more of it": Row(sent=(PLAIN + b"\r\nhello, world",), head=PLAIN, body=b"hello", reused=False),
    "length and another answer": Row(sent=(PLAIN + b"\r\nhello" + EVIL,), head=PLAIN, body=b"hello", reused=False),
    "length and another answer later": spoilt(PLAIN, b"hello", EVIL),
    "length 0 and a body": Row(
        sent=(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nhello",),
        head=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
        reused=False,
    ),
    "chunked and an empty line": Row(
        sent=(CHUNKED + b"\r\n" + CHUNKS + b"\r\n",), head=CHUNKED, body=CHUNKS, reused=False
    ),
    "chunked and a second last chunk": Row(
        sent=(CHUNKED + b"\r\n" + CHUNKS + b"0\r\n\r\n",), head=CHUNKED, body=CHUNKS, reused=False
    ),
    "chunked and another answer": Row(
        sent=(CHUNKED + b"\r\n" + CHUNKS + EVIL,), head=CHUNKED, body=CHUNKS, reused=False
    ),
    "chunked and another answer later": spoilt(CHUNKED, CHUNKS, EVIL),
    # interim answers
    "100 before": Row(sent=(CONTINUE + PLAIN + b"\r\nhello",), head=PLAIN, body=b"hello"),
    "100 before, by itself": Row(sent=(CONTINUE, PLAIN + b"\r\nhello"), head=PLAIN, body=b"hello"),
    "103 before": Row(sent=(HINTS, PLAIN + b"\r\nhello"), head=PLAIN, body=b"hello"),
    "102, 100 and 103 before chunks": Row(
        sent=(b"HTTP/1.1 102 Processing\r\n\r\n" + CONTINUE, HINTS + CHUNKED + b"\r\n" + CHUNKS),
        head=CHUNKED,
        body=CHUNKS,
    ),
    "ten before": Row(sent=(CONTINUE * 10 + PLAIN + b"\r\nhello",), head=PLAIN, body=b"hello"),
    "103 with a length before": Row(
        sent=(b"HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\n" + PLAIN + b"\r\nhello",),
        head=PLAIN,
        body=b"hello",
    ),
    # the status line
    "empty reason": row(b"HTTP/1.1 200 \r\nContent-Length: 5\r\n", b"hello"),
    "no reason and no blank": row(
        b"HTTP/1.1 200\r\nContent-Length: 5\r\n", b"hello", gets=b"HTTP/1.1 200 \r\nContent-Length: 5\r\n"
    ),
    "long reason": row(b"HTTP/1.1 200 All is well: 100 % of it, \tand more\r\nContent-Length: 5\r\n", b"hello"),
    "reason that begins with a blank": row(b"HTTP/1.1 200  OK\r\nContent-Length: 5\r\n", b"hello"),
    "8-bit reason": row(b"HTTP/1.1 200 D\xe9j\xe0 vu\r\nContent-Length: 5\r\n", b"hello"),
    "unknown status 299": row(b"HTTP/1.1 299 Own\r\nContent-Length: 5\r\n", b"hello"),
    "redirect": row(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://else.where/\r\nContent-Length: 0\r\n"),
    "418": row(b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 5\r\n", b"hello"),
    "529": row(b"HTTP/1.1 529 Overloaded\r\nContent-Length: 5\r\n", b"hello"),
    "599": row(b"HTTP/1.1 599 Last\r\nContent-Length: 5\r\n", b"hello"),
    # fields
    "case and order of names": ok(b"zZ: 1\r\nAa: 2\r\nSERVER: x\r\ndate: y\r\n"),
    "8-bit values": ok(b"X-Own: \xe9t\xe9 \x80\xff\r\n"),
    "blanks around values": ok(b"A:b\r\nC: \t d \t\r\nE:\r\n"),
    "duplicate Set-Cookie": ok(b"Set-Cookie: a=1; Path=/\r\nX-Own: x\r\nset-cookie: b=2\r\nSet-Cookie: a=1\r\n"),
    "unknown fields": ok(b"X-Ratelimit-Remaining-Tokens: 1\r\nOpenAI-Processing-Ms: 5\r\n!#$%&'*+-.^_`|~09: x\r\n"),
    "Via, Age, Server": ok(b"Via: 1.1 cdn\r\nAge: 1\r\nServer: x\r\nAlt-Svc: h3\r\n"),
    "128 fields": ok(b"".join(b"X-%d: a\r\n" % number for number in range(127))),
    "60 KiB of head": ok(b"X-Own: " + b"a" * 60000 + b"\r\n"),
    "hop-by-hop fields": ok(
        b"A: 1\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nB: 2\r\n",
        gets=b"A: 1\r\nB: 2\r\n",
    ),
    "nominated fields": ok(
        b"X-One: 1\r\nConnection: X-TWO, x-one\r\nX-Two: 2\r\nX-Three: 3\r\n", gets=b"X-Three: 3\r\n"
    ),
    "nominated Content-Length": ok(b"Connection: Content-Length\r\n", gets=b""),
    "nominated Transfer-Encoding": row(
        b"HTTP/1.1 200 OK\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", CHUNKS, gets=CHUNKED
    ),
    "nominated Content-Type and Set-Cookie": ok(
        b"Connection: content-type, set-cookie\r\nContent-Type: a/b\r\nSet-Cookie: a\r\n",
        gets=b"Content-Type: a/b\r\nSet-Cookie: a\r\n",
    ),
    "fields that only we may say": ok(b"X-Serinus-Upstream: forged\r\nx-serinus-more: a\r\n", gets=b""),
    "nominated X-Request-Id": ok(b"Connection: x-request-id\r\nX-Request-Id: theirs\r\n", gets=b""),
    # what is inside is nobody's business
    "gzip": row(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n" % len(PACKED),
        PACKED,
    ),
    "gzip in chunks": row(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(PACKED), PACKED),
    ),
    "coding that it is not": ok(b"Content-Encoding: br\r\n"),
    "every byte there is": row(b"HTTP/1.1 200 OK\r\nContent-Length: 256\r\n", bytes(range(256))),
}


@pytest.mark.parametrize("row", DELIVERED.values(), ids=DELIVERED)
async def test_answer_is_delivered(staged: Staged, row: Row):
    scene = await staged(*row.sent, ends=row.ends, reused=row.reused)
    answer = await scene.ask(post(fields=ID), b"\r\n\r\n")
    assert answer.head == row.head + ADDED + b"\r\n"
    assert answer.body == row.body
    assert answer.whole
    await scene.assert_next_is_right(reused=row.reused)


TO_HEAD = {
    "length": row(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n"),
    "coding": row(CHUNKED),
    "neither": row(TYPED),
    "204": row(NO_CONTENT),
    "404": row(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n"),
    "100 before": Row(sent=(CONTINUE, PLAIN + b"\r\n"), head=PLAIN),
    "connection: close": row(PLAIN + b"Connection: close\r\n", gets=PLAIN, reused=False),
    "a body all the same": Row(sent=(PLAIN + b"\r\nhello",), head=PLAIN, reused=False),
    "a body all the same, later": spoilt(PLAIN, b"", b"hello"),
    "chunks all the same": Row(sent=(CHUNKED + b"\r\n" + CHUNKS,), head=CHUNKED, reused=False),
}


@pytest.mark.parametrize("row", TO_HEAD.values(), ids=TO_HEAD)
async def test_answer_to_head_is_its_head(staged: Staged, row: Row):
    scene = await staged(*row.sent, ends=row.ends, reused=row.reused)
    answer = await scene.ask(get(fields=ID).replace(b"GET", b"HEAD", 1))
    assert answer.head == row.head + ADDED + b"\r\n"
    await scene.assert_next_is_right(reused=row.reused)


async def test_refusal_of_an_answer_to_head_is_a_head(staged: Staged):
    scene = await staged(b"<html>hello</html>")
    answer = await scene.ask(get().replace(b"GET", b"HEAD", 1))
    assert answer.status == 502
    await scene.assert_next_is_right(reused=False)


async def test_upstreams_own_request_id_stays_and_ours_gets_another_name(staged: Staged):
    scene = await staged(PLAIN + b"X-Request-ID: req_theirs\r\n\r\nhello", reused=True)
    answer = await scene.ask(get(fields=ID))
    assert answer.head == (
        PLAIN + b"X-Request-ID: req_theirs\r\nx-serinus-request-id: r-1\r\nx-serinus-upstream: up0\r\n\r\n"
    )
    await scene.assert_next_is_right(reused=True)


# --- cut: never whole, never a made-up end ----------------------------------------------------------------------------

EVENT = b"data: hello\n\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
EVENT_CHUNK = b"d\r\ndata: hello\n\n\r\n"
LENGTH_9 = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"


@dataclass(frozen=True)
class Cut:
    """An answer that is not whole: `good` arrives, and nothing of what comes after it."""

    good: bytes
    ends: Ends
    body: bytes  # of the good part, as it arrives
    payload: bytes = b"hello"
    broken: bytes = b""


CUT = {
    "short length, FIN": Cut(LENGTH_9 + b"hello", FIN, b"hello"),
    "short length, RST": Cut(LENGTH_9 + b"hello", RST, b"hello"),
    "length, no body, FIN": Cut(LENGTH_9, FIN, b"", b""),
    "length, no body, RST": Cut(LENGTH_9, RST, b"", b""),
    "length from HTTP/1.0, FIN": Cut(LENGTH_9.replace(b"1.1", b"1.0") + b"hello", FIN, b"hello"),
    "chunked, no chunk, FIN": Cut(CHUNKED + b"\r\n", FIN, b"", b""),
    "no last chunk, FIN": Cut(CHUNKED + b"\r\n" + GOOD_CHUNK, FIN, GOOD_CHUNK),
    "no last chunk, RST": Cut(CHUNKED + b"\r\n" + GOOD_CHUNK, RST, GOOD_CHUNK),
    "half a chunk, FIN": Cut(CHUNKED + b"\r\n9\r\nhello", FIN, b"9\r\nhello"),
    "half a chunk, RST": Cut(CHUNKED + b"\r\n9\r\nhello", RST, b"9\r\nhello"),
    "half a chunk size, FIN": Cut(CHUNKED + b"\r\n" + GOOD_CHUNK + b"1", FIN, GOOD_CHUNK + b"1"),
    "half the last chunk, FIN": Cut(CHUNKED + b"\r\n" + GOOD_CHUNK + b"0\r\n", FIN, GOOD_CHUNK + b"0\r\n"),
    "half the last line end, FIN": Cut(CHUNKED + b"\r\n" + GOOD_CHUNK + b"0\r\n\r", FIN, GOOD_CHUNK + b"0\r\n\r"),
    "half a trailer, FIN": Cut(CHUNKED + b"\r\n" + GOOD_CHUNK + b"0\r\nX: y\r\n", FIN, GOOD_CHUNK + b"0\r\nX: y\r\n"),
    "chunks for a body that ends, connection: close, FIN": Cut(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + GOOD_CHUNK, FIN, GOOD_CHUNK
    ),
    "event stream, no last chunk, FIN": Cut(
        STREAM + b"Transfer-Encoding: chunked\r\n\r\n" + EVENT_CHUNK, FIN, EVENT_CHUNK, EVENT
    ),
    "event stream, no last chunk, RST": Cut(
        STREAM + b"Transfer-Encoding: chunked\r\n\r\n" + EVENT_CHUNK, RST, EVENT_CHUNK, EVENT
    ),
    "event stream until close, RST": Cut(STREAM + b"\r\n" + EVENT, RST, EVENT_CHUNK, EVENT),
    "until close, RST": Cut(TYPED + b"\r\nhello", RST, GOOD_CHUNK),
    "until close, nothing in it, RST": Cut(TYPED + b"\r\n", RST, b"", b""),
} | {name: Cut(good, OPEN, GOOD_CHUNK, broken=broken) for name, (good, broken) in BROKEN_CHUNKS.items()}


async def cut_answer(staged: Staged, cut: Cut, request: bytes, shown: bytes) -> Answer:
    """The answer as the caller gets it, whose connection then has ended."""
    scene = await staged(cut.good, ends=cut.ends, broken=cut.broken)
    answer = await scene.ask(request, shown)
    await scene.assert_ends_after(b"")
    await scene.upstream.until(lambda: scene.upstream.open == 0)
    assert scene.upstream.connections == 1, "an answer that has begun is never tried again"
    await scene.running.until_logged()
    assert scene.running.requests_logged[0]["outcome"] == "truncated"
    return answer


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT)
async def test_cut_answer_is_seen_to_be_cut(staged: Staged, cut: Cut):
    answer = await cut_answer(staged, cut, post(), cut.body or b"\r\n\r\n")
    assert answer.status == 200
    assert not answer.whole
    assert answer.body == cut.body, "all of what was good, and no end that nobody sent"


# --- callers of HTTP/1.0: no chunks, and a connection for each answer -------------------------------------------------

OLD_REQUEST = b"GET /v1/models HTTP/1.0\r\n" + CLIENT + ID + b"\r\n"
OLD = {
    "length": (row(PLAIN, b"hello"), PLAIN, b"hello"),
    "length, 8 more bytes": (Row(sent=(PLAIN + b"\r\nhello, world",), head=PLAIN), PLAIN, b"hello"),
    "chunked": (row(CHUNKED, CHUNKS), b"HTTP/1.1 200 OK\r\n", b"hello"),
    "chunked, extensions and trailers": (
        row(CHUNKED, b"5;a=b\r\nhello\r\n2\r\n, \r\n5\r\nworld\r\n0\r\nX-Sum: 1\r\n\r\n"),
        b"HTTP/1.1 200 OK\r\n",
        b"hello, world",
    ),
    "chunked, body like an end": (
        row(CHUNKED, b"9\r\n\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n"),
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n0\r\n\r\n\r\n",
    ),
    "chunked, byte by byte": (
        Row(sent=tuple(bytes([b]) for b in CHUNKED + b"\r\n" + CHUNKS), head=CHUNKED),
        b"HTTP/1.1 200 OK\r\n",
        b"hello",
    ),
    "chunked and another answer": (
        Row(sent=(CHUNKED + b"\r\n" + CHUNKS + EVIL,), head=CHUNKED),
        b"HTTP/1.1 200 OK\r\n",
        b"hello",
    ),
    "until close": (Row(sent=(TYPED + b"\r\nhello",), head=TYPED, ends=FIN), TYPED, b"hello"),
    "204": (row(NO_CONTENT), NO_CONTENT, b""),
    "304 with a coding": (
        row(NOT_MODIFIED + b"Transfer-Encoding: chunked\r\n"),
        NOT_MODIFIED,
        b"",
    ),
    "100 before": (Row(sent=(CONTINUE, PLAIN + b"\r\nhello"), head=PLAIN), PLAIN, b"hello"),
}


@pytest.mark.parametrize(("row", "head", "payload"), OLD.values(), ids=OLD)
async def test_http10_caller_gets_the_payload_and_the_end(staged: Staged, row: Row, head: bytes, payload: bytes):
    scene = await staged(*row.sent, ends=row.ends)
    answer = await scene.ask(OLD_REQUEST, payload or b"\r\n\r\n")
    assert answer.head == head + ADDED + b"connection: close\r\n\r\n"
    assert answer.payload == payload
    assert answer.whole
    await scene.assert_ends_after(b"")
    assert not scene.caller.closed, "a whole answer ends with FIN, not RST"


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT)
async def test_http10_caller_sees_a_cut_too(staged: Staged, cut: Cut):
    """Where the end of the connection is the end of the body, only a reset tells one from the other."""
    answer = await cut_answer(staged, cut, OLD_REQUEST, cut.payload or b"\r\n\r\n")
    assert answer.status == 200
    assert cut.payload.startswith(answer.payload)
    assert not answer.whole


async def test_http10_caller_gets_our_502(staged: Staged):
    scene = await staged(b"<html>hello</html>")
    answer = await scene.ask(OLD_REQUEST)
    assert (answer.status, error_of(answer)["code"]) == (502, "upstream_error")
    assert answer.field(b"connection") == b"close"
    await scene.assert_ends_after(b"")


# --- 401: whose key was it? -------------------------------------------------------------------------------------------

UNAUTHORISED = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 5\r\n"


async def test_401_to_our_key_is_our_fault_not_the_callers(staged: Staged):
    scene = await staged(UNAUTHORISED + b"\r\nhello")
    answer = await scene.ask(post())
    assert (answer.status, error_of(answer)["code"]) == (502, "upstream_credentials_exhausted")
    assert b"hello" not in answer.payload
    assert scene.running.key("up0", "main").doubted  # the only one: it serves until checked
    await scene.assert_next_is_right(reused=False)


async def test_401_to_the_callers_own_key_is_the_callers(staged: Staged):
    scene = await staged(UNAUTHORISED + b"\r\nhello", reused=True, keys=False)
    own = b"Authorization: Bearer callers-own\r\n"
    answer = await scene.ask(post(fields=ID).replace(CLIENT, own + b"X-Serinus-Key: client-key\r\n"))
    assert answer.head == UNAUTHORISED + ADDED + b"\r\n"
    assert answer.payload == b"hello"
    assert scene.upstream.requests[0].field(b"authorization") == b"Bearer callers-own"
    await scene.assert_next_is_right(reused=True)


@pytest.mark.parametrize("status", [b"403 Forbidden", b"429 Too Many Requests", b"500 Oops", b"503 Unavailable"])
async def test_other_errors_of_the_upstream_are_its_own_words(staged: Staged, status: bytes):
    head = b"HTTP/1.1 " + status + b"\r\nRetry-After: 7\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    scene = await staged(head + b"\r\n{}", reused=True)
    answer = await scene.ask(post(fields=ID))
    assert answer.head == head + ADDED + b"\r\n"
    assert answer.payload == b"{}"
    await scene.assert_next_is_right(reused=True)
