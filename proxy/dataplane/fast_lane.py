"""The fast lane: plain requests without aiohttp in front.

A plain request (HTTP/1.1, its body of a known length that fits the buffer, for a route) takes the same decisions and
the same relay as any other; here it only gets there sooner, with no task, parser objects or queue of its own. Anything
else hands the whole connection over, for good, to a connection of the aiohttp lane, which can serve everything: so what
is refused, and how, is written in one place.
"""

import asyncio
import math
from collections.abc import Callable

import httptools

from proxy.dataplane.aiohttp_connection import AiohttpConnection
from proxy.dataplane.callers import Callers, Door
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.handler import Handler
from proxy.dataplane.known_heads import MAX_HEAD_BYTES, KnownHeads
from proxy.dataplane.own_answers import render_for
from proxy.dataplane.request import Request
from proxy.dataplane.sockets import accepted
from proxy.model.errors import InternalError, ProxyError

MAX_EARLY_BYTES = 64 * 1024  # of next requests, held while one is answered; then the caller has to wait


class FastLane:
    """Serves callers' connections, for as long as their requests are plain."""

    def __init__(self, handler: Handler, callers: Callers, full: Callable[[Door], AiohttpConnection]) -> None:
        """`full`: makes the connection that takes over what is not plain."""
        self.handler, self.callers, self.full = handler, callers, full
        self.heads = KnownHeads(handler)

    def protocol(self, door: Door) -> "FastConnection":
        """A protocol for a new connection."""
        return FastConnection(self, door)


class FastConnection(asyncio.Protocol):
    """One connection of a caller. It is idle, or has a part of a request, or an exchange under way."""

    __slots__ = (
        "_body",
        "_early",
        "_lane",
        "_missing_bytes",
        "_parser",
        "_reading_paused",
        "_request",
        "_resuming",
        "_waiting_since_s",
        "deadline_s",
        "door",
        "exchange",
        "peer",
        "wire",
        "writing_paused",
    )

    peer: str
    wire: asyncio.Transport

    def __init__(self, lane: FastLane, door: Door) -> None:
        self._lane, self.door = lane, door
        self.exchange: Exchange | None = None
        self.writing_paused = False
        self.deadline_s = math.inf
        self._early = b""  # what came of the next request before this one was answered, or of a head that is not whole
        self._parser: httptools.HttpRequestParser | None = None  # tells whether that can become a head
        self._request: Request | None = None  # whose body is not whole yet,
        self._body: list[bytes] = []  # what there is of it, its head before it,
        self._missing_bytes = 0  # and how much is missing
        self._waiting_since_s = 0.0  # for the rest of a head, or for another byte of a body
        self._reading_paused = False
        self._resuming = False  # will `_next` look at what was held?

    # --- the connection ------------------------------------------------------------------------------------------

    def is_draining(self) -> bool:
        return self._lane.callers.draining or self.door.closed

    @property
    def busy(self) -> bool:
        """Is something under way, or still to be sent?"""
        waiting = self.exchange is not None or self._early or self._request is not None
        return bool(waiting) or self.wire.get_write_buffer_size() > 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire, self.peer = accepted(transport)
        if not self._lane.callers.opened(self):
            self._hand_over()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lane.callers.closed(self)
        if self.exchange is not None:
            self.exchange.caller_gone()
        elif self._request is not None:
            self._lane.callers.account.left(self._request)

    def pause_writing(self) -> None:
        self.writing_paused = True
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self.exchange is not None:
            self.exchange.resume()

    def close_if_idle(self) -> None:
        if self.exchange is None and not self._early and self._request is None:
            self.wire.close()

    def cut(self, reason: str) -> None:
        """End whatever is under way."""
        if self.exchange is not None:
            self.exchange.abort(reason)
        self.wire.abort()

    def expired(self, now_s: float) -> None:
        """A limit on the caller has passed: it is idle, or slow, which is for the other lane to say."""
        self.deadline_s = now_s + self._lane.callers.limits.idle_timeout_s
        if self.wire.is_closing():
            self.wire.abort()  # it did not even take what was written before the close
        elif self._early or self._request is not None:
            self._hand_over()
        elif self.exchange is None:
            self.wire.close()

    # --- one request ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._request is not None:
            self._more_of_body(data)
        elif self.exchange is not None or self._resuming:
            self._hold(data)
        elif self._early:
            self._more_of_head(data)
        else:
            self._begin(data)

    def _begin(self, data: bytes) -> None:
        """The first bytes of a request: nearly always all of it, or its head and then its body."""
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        if end < 0 or self.writing_paused:
            self._early = data
            self._waiting_since_s = now_s = self._lane.callers.clock()
            self.deadline_s = now_s + self._lane.callers.limits.head_timeout_s
            self._await_head(data)
            return
        request = self._lane.heads.request(data[: end + 2], self.peer)
        if request is None:
            self._hand_over(data)
            return
        length = request.content_length or 0
        start = end + 4
        missing = length - (len(data) - start)
        if missing <= 0:
            self._early = data[start + length :]
            self._dispatch(request, data[start : start + length] if length else b"")
        elif length > request.head.buffer_bytes:
            self._hand_over(data)
        else:
            self._request, self._body, self._missing_bytes = request, [data], missing
            self._await_body()

    def _await_head(self, piece: bytes) -> None:
        """The head is not whole. What can never become one is not waited for."""
        if self.writing_paused or len(self._early) > MAX_HEAD_BYTES or not self._early[:1].isupper():
            self._hand_over()
            return
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._hand_over()

    def _more_of_head(self, data: bytes) -> None:
        whole = self._early + data
        if whole.find(b"\r\n\r\n", max(len(self._early) - 3, 0)) < 0:
            self._early = whole
            self._await_head(data)
        else:
            self._early, self._parser = b"", None
            self._begin(whole)

    def _await_body(self) -> None:
        callers = self._lane.callers
        self._waiting_since_s = now_s = callers.clock()
        self.deadline_s = now_s + callers.limits.body_timeout_s

    def _more_of_body(self, data: bytes) -> None:
        self._body.append(data)
        self._missing_bytes -= len(data)
        if self._missing_bytes > 0:
            self._await_body()
            return
        request, received = self._request, b"".join(self._body)
        assert request is not None and request.content_length is not None  # noqa: S101, PT018 - its body was awaited
        self._request, self._body = None, []
        end = len(received) + self._missing_bytes
        self._early = received[end:]
        self._dispatch(request, received[end - request.content_length : end])

    def _dispatch(self, request: Request, body: bytes) -> None:
        self.deadline_s = math.inf
        try:
            self.exchange = self._lane.handler.dispatch(request, self, body, more=False)
        except ProxyError as error:
            self._refuse(request, error)
        except Exception as error:
            self._lane.callers.log.exception("handler_failed", exc_info=error)
            self._refuse(request, InternalError("The proxy failed; its log says why."))

    def _refuse(self, request: Request, error: ProxyError) -> None:
        close = error.close or self.is_draining()
        self._lane.callers.account.refused(request, error)
        if not self.wire.is_closing():
            self.wire.write(render_for(request, error, close=close))
        self.exchange_ended(keep_alive=not close)

    def exchange_ended(self, *, keep_alive: bool) -> None:
        """The exchange wrote its last byte, or never will."""
        self.exchange = None
        callers = self._lane.callers
        if self.wire.is_closing():
            self._early = b""
        elif not keep_alive or callers.closing or self.door.closed:
            self._early = b""
            self._hand_over().linger()
        else:
            self.deadline_s = callers.clock() + callers.limits.idle_timeout_s
            if self._early:
                self._resuming = True
                asyncio.get_running_loop().call_soon(self._next)

    # --- the next request, and the other lane --------------------------------------------------------------------

    def _hold(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > MAX_EARLY_BYTES and not self._reading_paused:
            self._reading_paused = True
            self.wire.pause_reading()

    def _next(self) -> None:
        """Go on with what was held."""
        data, self._early, self._resuming = self._early, b"", False
        if data and not self.wire.is_closing():
            self._begin(data)
            if len(self._early) <= MAX_EARLY_BYTES:
                self._read_on()

    def _read_on(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self.wire.resume_reading()

    def _hand_over(self, data: bytes = b"") -> AiohttpConnection:
        """Let the aiohttp lane have the connection, and `data` or what there is of a request."""
        since_s = 0.0
        if not data:
            data = b"".join(self._body) if self._request is not None else self._early
            since_s = self._waiting_since_s if data else 0.0
        self._read_on()
        self._lane.callers.closed(self)
        self._request, self._early, self._body = None, b"", []
        connection = self._lane.full(self.door)
        self.wire.set_protocol(connection)
        connection.take_over(self.wire, data, writing_paused=self.writing_paused, waiting_since_s=since_s)
        return connection
