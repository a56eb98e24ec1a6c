"""One exchange: a request sent to the upstream that was picked, and its answer relayed as it comes.

Everything here happens inside the callbacks of two connections, the caller's and the upstream's. There is no task, queue
or buffer between them: bytes go from one's `data_received` to the other's `write`. What can end an exchange (either side
closing, a broken answer, a deadline, the last byte) comes in through one method each, and all of them lead to `_end`,
which runs once.
"""

import asyncio
import math
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from proxy.dataplane.account import Account
from proxy.dataplane.deadlines import Watch
from proxy.dataplane.framing import AnswerHead, AnswerReader, BadAnswer
from proxy.dataplane.heads import answer_head, request_head
from proxy.dataplane.own_answers import render, speaks_anthropic
from proxy.dataplane.request import Request
from proxy.dataplane.upstream import ConnectionPool, ConnectionPools, UpstreamConnection
from proxy.model.errors import ProxyError, UpstreamCredentialsExhausted, UpstreamFailed, UpstreamTimeout
from proxy.model.outcome import Outcome
from proxy.state.lease import Lease
from proxy.state.snapshot import Member, Route

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST instead of FIN


class Caller(Protocol):
    """What an exchange needs of the caller's connection."""

    wire: asyncio.Transport

    @property
    def writing_paused(self) -> bool: ...
    @property
    def draining(self) -> bool: ...
    def exchange_ended(self, *, keep_alive: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What all exchanges share."""

    clock: Callable[[], float]
    pools: ConnectionPools
    watch: Watch
    account: Account
    stall_timeout_s: float


def outcome_of(status: int) -> Outcome:
    """How a whole answer with this status counts."""
    if status < 429:
        return Outcome.OK
    if status == 429:
        return Outcome.RATE_LIMITED
    return Outcome.UPSTREAM_ERROR if status >= 500 else Outcome.OK


class Exchange:
    __slots__ = (
        "_body",
        "_caller",
        "_caller_stalled_at",
        "_connect_began_s",
        "_connecting_s",
        "_connection",
        "_first_byte_s",
        "_keep_alive",
        "_last_byte_s",
        "_lease",
        "_member",
        "_pool",
        "_reader",
        "_relayed_s",
        "_replayable",
        "_request",
        "_route",
        "_sent_s",
        "_started_s",
        "_tools",
        "_total_deadline_s",
        "_uploading",
        "_writable",
        "answered",
        "deadline_s",
        "ended",
        "relayed_bytes",
        "status",
    )

    def __init__(
        self, tools: Tools, caller: Caller, request: Request, route: Route, member: Member, lease: Lease
    ) -> None:
        self._tools, self._caller, self._request = tools, caller, request
        self._route, self._member, self._lease = route, member, lease
        self._pool: ConnectionPool = tools.pools.of(member.upstream)
        self._connection: UpstreamConnection | None = None
        self._reader = AnswerReader(head_only=request.method == b"HEAD", http10=not request.http11)
        self._body = b""
        self._replayable = True  # all of the body is in `_body`
        self._uploading = False  # more of the body is to come
        self._writable: asyncio.Future[None] | None = None  # waited for by the upload
        self._keep_alive = False
        self._caller_stalled_at: int | None = None  # bytes it had not taken when it was last looked at
        self._connect_began_s = self._connecting_s = self._sent_s = self._first_byte_s = self._relayed_s = 0.0
        self._started_s = self._last_byte_s = request.ready_s
        self._total_deadline_s = self._started_s + member.upstream.total_timeout_s
        self.deadline_s = math.inf
        self.status = 0
        self.relayed_bytes = 0
        self.answered = False  # the head of an answer went to the caller
        self.ended = False

    # --- sending -------------------------------------------------------------------------------------------------

    def start(self, body: bytes, *, more: bool) -> None:
        """Send the request with `body`, of which `more` follows through `send_body`."""
        self._body, self._uploading, self._replayable = body, more, not more
        self._tools.watch.add(self)
        self.deadline_s = self._total_deadline_s
        connection = None if more else self._pool.take()  # a body that cannot be sent twice meets no stale connection
        if connection is None:
            self._connect()
        else:
            self._send(connection)

    def _connect(self) -> None:
        self._connect_began_s = self._tools.clock()
        self._pool.open(self)

    def connected(self, connection: UpstreamConnection) -> None:
        if self.ended:
            self._pool.give(connection)
            return
        self._connecting_s = self._tools.clock() - self._connect_began_s
        self._send(connection)

    def connect_failed(self, reason: str, *, timed_out: bool) -> None:
        if self.ended:
            return
        name = self._member.upstream.name
        if timed_out:
            self._refuse(UpstreamTimeout(f"No connection to upstream {name} in time."), Outcome.TIMEOUT, reason)
        else:
            self._refuse(UpstreamFailed(f"No connection to upstream {name}."), Outcome.UPSTREAM_ERROR, reason)

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        connection.exchange = self
        fields, body = self._request.fields, self._body
        chunked = self._uploading and fields.chunked
        size = None if chunked else (fields.content_length or 0) if self._uploading else len(body)
        head = request_head(self._request, self._route, self._member.upstream, size)
        if chunked and body:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        transport = connection.transport
        if len(body) > 16384:
            transport.write(head)
            transport.write(body)
        else:
            transport.write(head + body)
        self._sent_s = self._last_byte_s = now_s = self._tools.clock()
        wait_s = self._member.upstream.idle_timeout_s if self._uploading else self._member.upstream.first_byte_timeout_s
        self.deadline_s = min(now_s + wait_s, self._total_deadline_s)
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    async def writable(self) -> None:
        """Wait until the upstream takes more of the body, or the exchange has ended."""
        while not self.ended and (self._connection is None or self._writable is not None):
            if self._writable is None or self._writable.done():
                self._writable = asyncio.get_running_loop().create_future()
            await self._writable
            self._writable = None

    def upstream_writable(self, writable: bool) -> None:
        if not self._uploading:
            return
        if not writable:
            self._writable = self._writable or asyncio.get_running_loop().create_future()
        elif self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def send_body(self, piece: bytes) -> None:
        """Send the next piece of a body whose beginning went with `start`."""
        connection = self._connection
        if connection is None or self.ended or not piece:
            return
        chunked = self._request.fields.chunked
        connection.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        self._last_byte_s = self._tools.clock()

    def end_body(self) -> None:
        """The caller has sent all of its request."""
        self._uploading = False
        if self._connection is None or self.ended:
            return
        if self._request.fields.chunked:
            self._connection.transport.write(b"0\r\n\r\n")
        if not self.answered:
            self._last_byte_s = now_s = self._tools.clock()
            self.deadline_s = min(now_s + self._member.upstream.first_byte_timeout_s, self._total_deadline_s)

    def body_failed(self, error: ProxyError) -> None:
        """The rest of the request's body is bad, too large or too slow: the upstream never sees its end."""
        if self.answered:
            self._cut(Outcome.CLIENT_GONE, str(error))
        else:
            self._refuse(error, Outcome.CLIENT_GONE, str(error))

    # --- relaying ------------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes of the answer: hand them on."""
        now_s = self._tools.clock()
        self._last_byte_s = now_s
        reader = self._reader
        try:
            piece = reader.feed(data)
        except BadAnswer as error:
            self._broken(str(error))
            return
        if self.answered:
            if piece:
                self.relayed_bytes += len(piece)
                self._caller.wire.write(piece)
        elif reader.head is not None:
            self._answer(reader.head, piece, now_s)
        if reader.done and not self.ended:
            self._complete()

    def _answer(self, head: AnswerHead, piece: bytes, now_s: float) -> None:
        """Write the head of the answer, and what came with it, in one go."""
        request, upstream, caller = self._request, self._member.upstream, self._caller
        self._first_byte_s = now_s
        if head.status == 401 and request.key is not None:
            error = UpstreamCredentialsExhausted(f"Upstream {upstream.name} did not accept the proxy's key.")
            self._refuse(error, Outcome.UPSTREAM_ERROR, f"401 for key {request.key.name}")
            return
        framed = request.http11 or head.content_length is not None
        self._keep_alive = (
            request.keep_alive and request.http11 and framed and not self._uploading and not caller.draining
        )
        self.status = head.status
        self.answered = True
        self.relayed_bytes = len(piece)
        self.deadline_s = min(now_s + upstream.idle_timeout_s, self._total_deadline_s)
        caller.wire.write(answer_head(request, head, upstream, keep_alive=self._keep_alive) + piece)
        self._relayed_s = self._tools.clock()
        if caller.writing_paused:
            self.pause()

    def _complete(self) -> None:
        """The answer's last byte went to the caller."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._caller_stalled_at is not None:
                connection.transport.resume_reading()
            if self._reader.clean and not self._uploading:
                self._pool.give(connection)
            else:
                connection.abort()
        self._end(outcome_of(self.status), self._keep_alive and not self._uploading)

    def pause(self) -> None:
        """The caller does not keep up: stop reading from the upstream."""
        if self._connection is not None and not self.ended:
            self._connection.transport.pause_reading()
            self._caller_stalled_at = self._unread_bytes()
            self.deadline_s = min(self._tools.clock() + self._tools.stall_timeout_s, self._total_deadline_s)

    def resume(self) -> None:
        """The caller has read enough: go on."""
        self._caller_stalled_at = None
        if self._connection is not None and not self.ended:
            self._connection.transport.resume_reading()
            self._last_byte_s = now_s = self._tools.clock()
            self.deadline_s = min(now_s + self._member.upstream.idle_timeout_s, self._total_deadline_s)

    def _unread_bytes(self) -> int:
        return self._caller.wire.get_write_buffer_size()

    # --- ending --------------------------------------------------------------------------------------------------

    def upstream_closed(self, error: Exception | None) -> None:
        """The upstream's connection is gone."""
        connection, self._connection = self._connection, None
        if self.ended:
            return
        if not self._reader.begun and self._replayable and connection is not None and connection.uses > 1:
            # An idle connection that was closed as we wrote to it: nothing was answered, so nothing was done.
            self._replayable = False
            self.deadline_s = self._total_deadline_s
            self._connect()
            return
        if error is not None:
            self._broken("the connection was reset")
            return
        try:
            rest = self._reader.end()
        except BadAnswer as broken:
            self._broken(str(broken))
            return
        if rest:
            self._caller.wire.write(rest)
        self._complete()

    def caller_gone(self) -> None:
        """The caller left: nobody waits for this any more."""
        if not self.ended:
            self._drop_connection()
            self._end(Outcome.CLIENT_GONE, keep_alive=False)

    def expired(self, now_s: float) -> None:
        upstream = self._member.upstream
        if self._caller_stalled_at is not None and now_s < self._total_deadline_s:
            unread_bytes = self._unread_bytes()
            if unread_bytes < self._caller_stalled_at:
                self._caller_stalled_at = unread_bytes
                self.deadline_s = min(now_s + self._tools.stall_timeout_s, self._total_deadline_s)
            else:
                self._cut(Outcome.CLIENT_GONE, "the caller does not read")
            return
        limit_s = upstream.idle_timeout_s if self.answered or self._uploading else upstream.first_byte_timeout_s
        due_s = min(self._last_byte_s + limit_s, self._total_deadline_s)
        if due_s > now_s:
            self.deadline_s = due_s
        elif self.answered:
            over = now_s >= self._total_deadline_s
            self._cut(
                Outcome.TIMEOUT if over else Outcome.STALLED,
                "longer than timeouts.total" if over else "silent for longer than timeouts.idle",
            )
        else:
            self._refuse(
                UpstreamTimeout(f"Upstream {upstream.name} did not answer in time."),
                Outcome.TIMEOUT,
                "no first byte in time",
            )

    def abort(self, reason: str) -> None:
        """End it now, visibly: the proxy is stopping."""
        if not self.ended:
            self._cut(Outcome.CLIENT_GONE, reason)

    def _broken(self, reason: str) -> None:
        if self.answered:
            self._cut(Outcome.TRUNCATED, reason)
        else:
            error = UpstreamFailed(f"Upstream {self._member.upstream.name} did not send a valid answer.")
            self._refuse(error, Outcome.UPSTREAM_ERROR, reason)

    def _refuse(self, error: ProxyError, outcome: Outcome, reason: str) -> None:
        """Nothing of an answer has been sent: send an error of our own."""
        self._drop_connection()
        request = self._request
        self.status = error.status
        keep_alive = request.keep_alive and not error.close and not self._uploading and not self._caller.draining
        anthropic = speaks_anthropic(request.target, request.fields.passed)
        head_only = request.method == b"HEAD"
        self._caller.wire.write(
            render(error, anthropic=anthropic, request_id=request.request_id, close=not keep_alive, head_only=head_only)
        )
        self._end(outcome, keep_alive, reason)

    def _cut(self, outcome: Outcome, reason: str) -> None:
        """The answer cannot be finished: the caller must see that it is not whole, and gets what there was of it."""
        self._drop_connection()
        wire = self._caller.wire
        if outcome is Outcome.CLIENT_GONE or self._ends_with_the_connection():
            raw = wire.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            wire.abort()
        else:
            wire.close()  # after what is still to be written
        self._end(outcome, keep_alive=False, reason=reason)

    def _ends_with_the_connection(self) -> bool:
        """Is the end of the connection the end of the body for this caller? Then only a reset tells a cut from an end."""
        head = self._reader.head
        return not self._request.http11 and head is not None and head.content_length is None

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def _end(self, outcome: Outcome, keep_alive: bool, reason: str = "") -> None:
        self.ended = True
        self._tools.watch.discard(self)
        self._lease.finish(outcome)
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._tools.account.exchange(self, self._request, self._route, outcome, reason)
        self._caller.exchange_ended(keep_alive=keep_alive)

    # --- what it took, for the account ---------------------------------------------------------------------------

    @property
    def first_byte_wait_s(self) -> float | None:
        """From sending to the answer's first byte; None where none came."""
        return self._first_byte_s - self._sent_s if self._first_byte_s else None

    @property
    def overhead_s(self) -> float | None:
        """What the proxy itself added: from the request's last byte to sending it, and from the answer's first to relaying."""
        if not self.answered:
            return None
        return self._sent_s - self._started_s - self._connecting_s + self._relayed_s - self._first_byte_s
