"""Whatever a caller sends, in whatever pieces, both lanes answer it with the same bytes and send the same ones up.

The upstream answers with the request that it got: so what a caller sees is what both sides saw.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import combinations, pairwise

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from tests.dataplane.test_bodies import MODEL_ANSWERS, MODELS
from tests.dataplane.test_credentials import ENOUGH, NOT_ENOUGH, call
from tests.dataplane.test_requests import NOT_SERVED, PASSED, REFUSED
from tests.support.patience import PATIENCE_S
from tests.support.raw import get, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Conversation, ScriptedUpstream, whole

KIB = 1024
WHOLE_BYTES, FIRST_BYTES, LAST_BYTES, SPREAD = 600, 300, 100, 40  # which offsets of how long a request are cut at
HUGE_BYTES = 64 * KIB  # of these only a spread
SHORT_BYTES = 2 * KIB  # those that are sent in a row
TURNS = 4  # of the loop, in which the proxy accepts a connection, or reads what has arrived
AT_ONCE = 64

ID, CLOSE = b"x-request-id: <id>\r\n", b"\r\nconnection: close\r\n"
FAREWELL = b"GET /livez HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n"
TRACED = b"Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nTracestate: a=1\r\n"

BAD = {name: raw for name, (_, raw) in REFUSED.items()}
GOOD = {
    **{name: row.raw for name, row in PASSED.items()},
    **{name: raw for name, (_, raw) in NOT_SERVED.items()},
    **{f"key, {name}": call(fields) for name, fields in (ENOUGH | NOT_ENOUGH).items()},
    "no route, with HEAD": get(b"/zebra").replace(b"GET", b"HEAD"),
    "ids of its own": post(fields=b"X-Request-Id: id-1\r\n" + TRACED),
    "an event stream is wanted": post(b'{"stream":true}', fields=b"Accept: text/event-stream\r\n"),
    "keep-alive": get(fields=b"Connection: keep-alive\r\n"),
    "close": get(fields=b"Connection: close\r\n"),
    "alive": get(b"/livez"),
    "alive, with a query": get(b"/livez?"),
    "two content types": post(fields=b"Content-Type: a/b\r\nContent-Type: c/d\r\n"),
    "two of what is there once": get(fields=b"User-Agent: a\r\nUser-Agent: b\r\nETag: a\r\nETag: b\r\n"),
    "a hundred fields": get(fields=b"X-Zebra: 1\r\n" * 100),
    "head just within 8 KiB": get(fields=b"X-Zebra: %b\r\n" % (b"z" * (8 * KIB - len(get()) - 15))),
    "head just beyond 8 KiB": get(fields=b"X-Zebra: %b\r\n" % (b"z" * (8 * KIB - len(get()) - 10))),
}
PLAIN = ("plain", "query", "length of 0", "body of all bytes", "ids of its own", "keep-alive")  # for the fast lane
BY_MODEL = {name: raw for name, (_, raw) in MODEL_ANSWERS.items()}


@pytest.fixture
def fast_lane() -> bool:
    """Each test here has proxies of both sorts."""
    return True


# --- what both sides see -------------------------------------------------------------------------------------------

_OURS = re.compile(
    rb"(?P<id>(?<=x-request-id: )[0-9a-f]{12}-[0-9a-f]+)|(?P<via>(?<=via: 1\.1 serinus-)\S+)"
    rb"|(?P<trace>(?<=\r\ntraceparent: )00-(?!4bf92f)\S+)"
)


def masked(seen: bytes) -> bytes:
    """Without what a proxy makes up by itself, for each request or each process."""
    return _OURS.sub(lambda found: b"<%b>" % (found.lastgroup or "").encode(), seen)


async def echo(talk: Conversation) -> None:
    while True:
        request = await talk.request()
        seen = masked(request.raw_head + request.body)
        digest = b"X-Seen: %b\r\n" % sha256(seen).hexdigest().encode()  # for a HEAD, whose answer shows no body
        await talk.send(whole(seen if len(seen) < HUGE_BYTES else b"much", fields=digest))


class Caller(asyncio.Protocol):
    """Keeps what it gets, until the connection ends."""

    def __init__(self) -> None:
        self.got = b""
        self.answered, self.ended = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = transport

    def send(self, data: bytes) -> None:
        if not self.wire.is_closing():
            self.wire.write(data)

    def data_received(self, data: bytes) -> None:
        self.got += data
        if b"\r\n\r\n" in self.got:
            self.answered.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.answered.set()
        self.ended.set()


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def answered(port: int, pieces: list[bytes], *, in_one_go: bool = False) -> bytes:
    """All that comes back for these pieces, each read by itself, until the connection ends.

    What ends it is sent when there is an answer; `in_one_go`: the pieces do so themselves.
    """
    _, caller = await asyncio.get_running_loop().create_connection(Caller, "127.0.0.1", port)
    async with asyncio.timeout(PATIENCE_S):
        await turns()
        for piece in pieces:
            caller.send(piece)
            await turns()
        if not in_one_go:
            await caller.answered.wait()
            if CLOSE not in caller.got:
                caller.send(FAREWELL)
        await caller.ended.wait()
    return masked(caller.got)


@dataclass
class Lanes:
    """Two proxies that differ in their lanes, before one upstream."""

    fast: RunningProxy
    full: RunningProxy
    upstream: ScriptedUpstream
    seen: int = 0  # answers of the upstream that reached a caller
    _alone: dict[bytes, bytes] = field(default_factory=dict, repr=False)

    async def answers(self, *cuts: list[bytes], in_one_go: bool = False) -> list[bytes]:
        """Send each of these through the fast lane and the other; the answers in this order."""
        found: list[bytes] = []
        for at in range(0, len(cuts), AT_ONCE):
            ways = [(lane.port, pieces) for pieces in cuts[at : at + AT_ONCE] for lane in (self.fast, self.full)]
            found += await asyncio.gather(*(answered(*way, in_one_go=in_one_go) for way in ways))
        self.seen += sum(answer.count(b"\r\nX-Seen: ") for answer in found)
        return found

    async def alone(self, raw: bytes) -> bytes:
        """What is answered to `raw` on a connection of its own."""
        if raw not in self._alone:
            (_, goodbye), (_, answer) = await self.answers([FAREWELL]), await self.answers([raw])
            self._alone[raw] = answer if raw == FAREWELL else answer.removesuffix(goodbye)
        return self._alone[raw]

    def assert_nothing_else_was_sent_up(self) -> None:
        assert len(self.upstream.requests) == self.seen


@pytest.fixture
async def lanes(scripted, proxy) -> Callable[[str], "asyncio.Future[Lanes]"]:
    async def start(config: str) -> Lanes:
        upstream = await scripted(echo)
        text = config % upstream.url
        return Lanes(await proxy(text + "fast_lane: true\n"), await proxy(text + "fast_lane: false\n"), upstream)

    return start


# --- one request, cut in two ---------------------------------------------------------------------------------------


def offsets(raw: bytes) -> Iterator[int]:
    """Where `raw` is cut in two."""
    size = len(raw)
    for offset in range(1, size):
        near = offset <= FIRST_BYTES or offset > size - LAST_BYTES
        if size <= WHOLE_BYTES or (near and size <= HUGE_BYTES) or offset % (size // SPREAD) == 0:
            yield offset


async def assert_same_wherever_cut(lanes: Lanes, raw: bytes, *, apart_from: bytes = b"\0") -> None:
    answers = await lanes.answers([raw], *([raw[:offset], raw[offset:]] for offset in offsets(raw)))
    found = {answer.replace(apart_from, b"") for answer in answers}
    assert len(found) == 1, sorted(found)
    lanes.assert_nothing_else_was_sent_up()


@pytest.mark.parametrize("raw", GOOD.values(), ids=GOOD)
async def test_good_request_is_answered_alike_wherever_it_is_cut(lanes, raw):
    await assert_same_wherever_cut(await lanes(config_for("%s")), raw)


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD)
async def test_bad_request_is_refused_alike_wherever_it_is_cut(lanes, raw):
    # Whether a refusal has an id depends on whether what is wrong with a body was read together with its head.
    await assert_same_wherever_cut(await lanes(config_for("%s")), raw, apart_from=ID)


@pytest.mark.parametrize("raw", BY_MODEL.values(), ids=BY_MODEL)
async def test_any_model_is_answered_alike_wherever_it_is_cut(lanes, raw):
    await assert_same_wherever_cut(await lanes(MODELS), raw)


# --- several requests, cut anywhere --------------------------------------------------------------------------------

often = partial(
    settings,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # an example is short as it is, and a failing one may take long: it waits
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
good = st.sampled_from([raw for raw in GOOD.values() if len(raw) < SHORT_BYTES])
bad = st.sampled_from([raw for raw in BAD.values() if len(raw) < SHORT_BYTES])
plain = st.sampled_from([GOOD[name] for name in PLAIN])


@dataclass(frozen=True)
class Row:
    """Requests, one behind the other, and the pieces in which they are sent."""

    requests: list[bytes]
    pieces: list[bytes]


@st.composite
def cut(draw: st.DrawFn, first: st.SearchStrategy[list[bytes]], last: st.SearchStrategy[bytes]) -> Row:
    requests = [*draw(first), draw(last)]
    raw = b"".join(requests)
    edges = [0, *sorted(draw(st.lists(st.integers(0, len(raw)), max_size=6))), len(raw)]
    return Row(requests, [raw[start:end] for start, end in pairwise(edges)])


async def sent_at_once(lanes: Lanes, pieces: list[bytes]) -> list[bytes]:
    return [answer.replace(ID, b"") for answer in await lanes.answers(pieces, in_one_go=True)]


async def each_alone(lanes: Lanes, requests: list[bytes]) -> list[bytes]:
    """The answers to these, where only the last of them ends the connection."""
    answers = [(await lanes.alone(raw)).replace(ID, b"") for raw in requests]
    # Behind chunks, more that has come already ends the connection: aiohttp would mix trailers into it.
    assume(all(b"transfer-encoding" not in raw.lower() for raw in requests[:-1]))
    assume(all(CLOSE not in answer for answer in answers[:-1]))  # llhttp takes what comes behind such a one for broken
    return answers


@pytest.fixture
async def usual(lanes) -> Lanes:
    return await lanes(config_for("%s"))


@often(max_examples=150)
@given(row=cut(st.lists(good, min_size=2, max_size=4), st.just(FAREWELL)))
async def test_good_requests_in_a_row_are_answered_as_each_alone(usual, row):
    expected = b"".join(await each_alone(usual, row.requests))
    assert await sent_at_once(usual, row.pieces) == [expected, expected]
    usual.assert_nothing_else_was_sent_up()


@often(max_examples=100)
@given(row=cut(st.lists(plain, min_size=1, max_size=3), bad))
async def test_bad_request_behind_plain_ones_is_refused_after_their_answers(usual, row):
    answers = await each_alone(usual, row.requests)
    in_fast_lane, in_other = await sent_at_once(usual, row.pieces)
    assert in_fast_lane == b"".join(answers)
    assert in_other in with_some_unanswered(answers)
    usual.assert_nothing_else_was_sent_up()


@often(max_examples=100)
@given(row=cut(st.lists(good, min_size=1, max_size=3), bad))
async def test_bad_request_behind_any_is_refused_and_no_answer_is_out_of_turn(usual, row):
    answers = await each_alone(usual, row.requests)
    assert set(await sent_at_once(usual, row.pieces)) <= with_some_unanswered(answers)
    usual.assert_nothing_else_was_sent_up()


def with_some_unanswered(answers: list[bytes]) -> set[bytes]:
    """What may come back: of the requests read together with a malformed one behind them, aiohttp answers none."""
    *before, refusal = answers
    return {b"".join((*some, refusal)) for count in range(len(answers)) for some in combinations(before, count)}
