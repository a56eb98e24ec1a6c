"""What callers send, over real sockets: the fast lane beside aiohttp's lane, and both beside a strict judge.

Time is turned on where a request waits for more, so each connection ends.
"""

import asyncio
import json
from dataclasses import dataclass, field

import uvloop
from hypothesis import event
from hypothesis import strategies as st

from tests.dataplane.test_known_heads import alike, known_heads, said
from tests.dataplane.test_lanes_agree import BAD, CLOSE, GOOD, HUGE_BYTES, ID, PLAIN, Caller, masked
from tests.fuzz import judge
from tests.fuzz.judge import Verdict
from tests.fuzz.mutation import TOKENS, mutated, pieces, short
from tests.support.running import RunningProxy, config_for, start_proxy
from tests.support.scripted import Conversation, ScriptedUpstream, whole

QUIET_TURNS = 20  # nothing more has come in so many turns of the loop: all wait
SLOW_S, IDLE_S = 31, 80  # beyond the limits on slow requests, and on idle connections
ROUNDS = 6
CODING, SEEN = b"transfer-encoding", b"\r\nX-Seen: "

IN_A_ROW = [GOOD[first] + GOOD[second] for first in PLAIN for second in PLAIN[:2]]
ROWS = short([*GOOD.values(), *BAD.values(), *IN_A_ROW])
MORE = (
    *(b"GET /v1/hidden HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer client-key\r\n\r\n", b"zebra", b"HTTP/1.2"),
    *(b"Host: proxy\r\n", b"X-Request-Id: id-2\r\n", b"Content-Type: a/b\r\n", b"%2e%2e", b"/../", b"//", b"#", b"@"),
    *(
        b"Authorization: Bearer client-key\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"Trailer: Host\r\n",
        b"\xc2\xa0",
    ),
)


@dataclass
class Sent:
    """What reached the upstream: whole requests, and how many were torn."""

    bodies: list[bytes] = field(default_factory=list)
    torn: list[bytes] = field(default_factory=list)
    bytes_seen: int = 0

    async def __call__(self, talk: Conversation) -> None:
        while True:
            try:
                request = await talk.request()
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    self.torn.append(error.partial)
                return
            seen = masked(request.raw_head + request.body)
            self.bodies.append(request.body)
            self.bytes_seen += len(seen)
            await talk.send(whole(seen if len(seen) < HUGE_BYTES else b"much", fields=SEEN[2:] + b"1\r\n"))


class Stand:
    """Two proxies before one upstream, on a loop of their own."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.sent = Sent()
        self.failed: list[dict[str, object]] = []
        self.loop.set_exception_handler(lambda _, context: self.failed.append(context))
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self.upstream = ScriptedUpstream(self.sent)
        await self.upstream.start()
        config = config_for(self.upstream.url)
        self.lanes: list[RunningProxy] = [await start_proxy(config, fast_lane=fast) for fast in (True, False)]

    def close(self) -> None:
        self.loop.run_until_complete(self._close())
        self.loop.close()

    async def _close(self) -> None:
        for running in self.lanes:
            await running.stop()
            running.assert_nothing_left()
        await self.upstream.stop()

    async def _quiet(self, callers: list[Caller]) -> None:
        """Wait until nothing moves."""
        quiet, seen = 0, -1
        while quiet < QUIET_TURNS:
            await asyncio.sleep(0)
            now = sum(len(caller.got) + caller.ended.is_set() for caller in callers) + self.sent.bytes_seen
            quiet, seen = (quiet + 1, seen) if now == seen else (0, now)

    async def _exchanged(self, running: RunningProxy, parts: list[bytes]) -> bytes:
        """All that comes back for these, each read by itself, until the connection ends."""
        _, caller = await self.loop.create_connection(Caller, "127.0.0.1", running.port)
        for part in parts:
            caller.send(part)
            for _ in range(4):
                await asyncio.sleep(0)
        await self._quiet([caller])
        for seconds in (SLOW_S, IDLE_S) * ROUNDS:
            if caller.ended.is_set():
                break
            running.pass_time(seconds)
            await self._quiet([caller])
        assert caller.ended.is_set(), "the connection stays open for ever"
        return masked(caller.got).replace(ID, b"")

    async def look(self, parts: list[bytes]) -> None:
        raw = b"".join(parts)
        payloads, behind = judge.requests(raw)
        answers = []
        for running in self.lanes:
            for cut in (parts, [raw]):
                self.sent.bodies.clear()
                answer = await self._exchanged(running, cut)
                assert_only_what_was_asked(payloads, self.sent.bodies)
                assert len(self.sent.bodies) == answer.count(SEEN), "a request was sent up and not answered"
                assert_own_errors(answer)
                answers.append(answer)
            assert not running.events.named("handler_failed"), running.events.named("handler_failed")
            assert running.inflight() == 0, "a lease was left open"
        assert not self.failed, self.failed
        assert not self.sent.torn, f"a part of a request went up: {self.sent.torn}"
        assert self.upstream.failures == []
        event(f"{len(payloads)} whole, then {behind.verdict.name}; {answers[0][9:12].decode() or 'no answer'}")
        good = behind.verdict is Verdict.WHOLE and not any(CLOSE in answer for answer in answers[2:])
        if len(payloads) + (behind.verdict is not Verdict.WHOLE) <= 1 or (good and CODING not in raw.lower()):
            # Of others in a row, aiohttp may answer fewer.
            assert answers[:2] == answers[2:], "the lanes differ:\n" + "\n".join(map(repr, answers))
            assert len({answer.count(SEEN) for answer in answers}) == 1, "served or not, by how it is cut"


def assert_only_what_was_asked(payloads: list[bytes], bodies: list[bytes]) -> None:
    """The bodies at the upstream are the judge's, in their order; some may be missing."""
    asked = iter(payloads)
    assert all(body in asked for body in bodies), f"sent up {bodies}, asked were {payloads}"


def assert_own_errors(answer: bytes) -> None:
    """What refuses is JSON, and ends the connection where the request could not be read."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")) and body and b"\r\n\r\n" not in body:
        assert json.loads(body)["error"]["message"]


def check_heads(heads: list[bytes]) -> None:
    """A head says the same whether others were read before it or not."""
    known = known_heads()
    for head in (*heads, *heads):
        assert said(known.request(head, "peer")) == said(known_heads().request(head, "peer"))


@st.composite
def nearly_alike(draw: st.DrawFn) -> list[bytes]:
    """Heads of one shape, and one of them changed a little."""
    heads = draw(alike())
    changed = draw(mutated(heads, TOKENS + MORE))
    head, found, _ = (changed + b"\r\n").partition(b"\r\n\r\n")
    return [*heads, head + b"\r\n" if found else changed.rstrip(b"\r\n") + b"\r\n", *heads]


EXAMPLES = pieces(mutated(ROWS, TOKENS + MORE))
