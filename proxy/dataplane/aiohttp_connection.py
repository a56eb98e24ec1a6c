"""A caller's connection in the aiohttp lane: aiohttp's request handler, with a proxy's timers, ears and manners.

What a proxy of long streams needs otherwise is overridden here: the timers (aiohttp's keep-alive timer also guards the
head, for an hour), the error pages (they echo raw bytes of the request), and the news of a caller that left, does not
read, or sends a broken body, which a handler would hear of late or never.
"""

import asyncio
import math

from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestHandler

from proxy.dataplane.answered import ENDS
from proxy.dataplane.callers import Callers, Door
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.incoming import Incoming
from proxy.dataplane.own_answers import render
from proxy.dataplane.parsing import (
    LAST_CHUNK,
    MAX_HEAD_BYTES,
    MAX_TARGET_BYTES,
    PARSING,
    as_proxy_error,
    head_too_large,
)
from proxy.dataplane.phases import BODY, ENDING, EXCHANGE, HEAD, IDLE, UNREAD
from proxy.dataplane.sockets import LINGER_S, accepted, reset
from proxy.dataplane.tunnel import Tunnel
from proxy.model.errors import ProxyError, RequestTimeout, TooManyConnections

_NEVER_S = 10 * 365 * 86400.0  # aiohttp's own timer, out of the way


class AiohttpConnection(RequestHandler):
    """One connection of a caller."""

    __slots__ = (
        "_arrived_bytes",
        "_body_wait",
        "_callers",
        "_done",
        "_early_bytes",
        "_incoming",
        "_last_bytes",
        "_phase",
        "_waiting_since_s",
        "answered_here",
        "deadline_s",
        "door",
        "exchange",
        "long_heads",
        "peer",
        "tunnel",
        "wire",
    )

    peer: str
    wire: asyncio.Transport  # aiohttp sets its own reference to None when it begins to close

    def __init__(self, manager: web.Server, callers: Callers, door: Door) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_NEVER_S,
            access_log=None,  # type: ignore[arg-type] # documented to be allowed
            lingering_time=0,  # see `linger`
            **PARSING,
        )
        self._callers, self.door = callers, door
        self.exchange: Exchange | None = None
        self.tunnel: Tunnel | None = None
        self._incoming = Incoming()
        self.answered_here = False  # is an answer of our own being made?
        self._done: asyncio.Future[bool] | None = None
        self._body_wait: asyncio.Timeout | None = None
        self._early_bytes = False  # of a next request, while this one is answered
        self._arrived_bytes = 0  # since the connection was last idle
        self._last_bytes = b""  # of them
        self.long_heads = False  # may a head have come that is larger than allowed?
        self._waiting_since_s = 0.0  # for more of a request, in the lane that had the connection before
        self._phase = IDLE
        self.deadline_s = math.inf

    # --- the connection ------------------------------------------------------------------------------------------

    def is_draining(self) -> bool:
        return self._callers.draining or self.door.closed

    @property
    def busy(self) -> bool:
        """Is something under way, or still to be sent?"""
        return self._phase is not IDLE or self.wire.get_write_buffer_size() > 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.wire, self.peer = accepted(transport)
        if not self._callers.opened(self):
            self._answer_and_close(TooManyConnections("Too many connections are open."))
            self.wire.close()  # to linger would be to have one more

    def take_over(self, wire: asyncio.Transport, data: bytes, *, writing_paused: bool, waiting_since_s: float) -> None:
        """Go on with a connection of the fast lane, and with `data`, which it has received.

        `waiting_since_s`: since when a part of a request was waited for; 0 if none was.
        """
        self.connection_made(wire)
        if writing_paused:
            self.pause_writing()
        if data:
            self.data_received(data)
        self._waiting_since_s = waiting_since_s
        if waiting_since_s and self._phase is HEAD:
            self.deadline_s = waiting_since_s + self._callers.limits.head_timeout_s

    def connection_lost(self, exc: BaseException | None) -> None:
        self._callers.closed(self)
        if self.exchange is not None:
            self.exchange.caller_gone()
        elif self.answered_here and self._task_handler is not None:
            self._task_handler.cancel()
        super().connection_lost(exc)
        self._incoming = Incoming()  # or they would hold each other

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:  # aiohttp calls it after every read of a body, which costs a parse and a wake-up
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp, to go on with what it holds
            self._parse(data)
            return
        if self.tunnel is not None:
            self.tunnel.from_caller(data)
            return
        phase, before = self._phase, self._request_count
        if phase is IDLE:
            self._expect_head()
        elif phase is ENDING:
            return
        elif phase is EXCHANGE and self._body_arrived():
            self._early_bytes = True
        self._arrived_bytes += len(data)
        self._last_bytes = (self._last_bytes + data[-len(LAST_CHUNK) :])[-len(LAST_CHUNK) :]
        self._waiting_since_s = 0.0
        self._parse(data)
        if phase is BODY:
            self.deadline_s = self._callers.clock() + self._callers.limits.body_timeout_s
        elif phase in (IDLE, HEAD) and self._request_count != before:
            self._phase, self.deadline_s = EXCHANGE, math.inf  # its handler begins in a moment
        if self._arrived_bytes > MAX_HEAD_BYTES:
            self.long_heads = True
            if self._phase is HEAD and self._arrived_bytes > MAX_TARGET_BYTES + MAX_HEAD_BYTES:
                self._answer_and_close(head_too_large())

    def _parse(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        new = self._request_count - before
        begun = [self._messages[at] for at in range(-new, 0)] if new else ()
        paused = self._reading_paused or self._buffer_paused
        self._incoming.read(len(data), begun, paused=paused, whole=self._last_bytes.endswith(b"\r\n\r\n"))

    def eof_received(self) -> bool:  # type: ignore[override] # True keeps our side open
        return self.tunnel is not None and self.tunnel.caller_eof()

    def _body_arrived(self) -> bool:
        return self._current_request is None or self._current_request.content.is_eof()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.exchange is not None:
            self.exchange.resume()

    def close_if_idle(self) -> None:
        if self._phase is IDLE:
            self.force_close()

    def cut(self, reason: str) -> None:
        """End whatever is under way."""
        if self.exchange is not None:
            self.exchange.abort(reason)
        self.wire.abort()

    # --- time ----------------------------------------------------------------------------------------------------

    def _expect_head(self) -> None:
        self._phase = HEAD
        self._arrived_bytes = 0
        self.deadline_s = self._callers.clock() + self._callers.limits.head_timeout_s

    def expired(self, now_s: float) -> None:
        """A limit on the caller has passed."""
        self.deadline_s = now_s + self._callers.limits.idle_timeout_s
        if self.wire.is_closing():
            self.wire.abort()  # it did not even take what was written before the close
        elif self._phase is ENDING:
            self.wire.close()
        elif self._phase is UNREAD:
            reset(self.wire)
        elif self._phase is HEAD:
            self._answer_and_close(RequestTimeout("The head of the request did not arrive in time."))
        elif self._phase is BODY:
            self._interrupt()
        else:
            self.close_if_idle()

    def _answer_and_close(self, error: ProxyError) -> None:
        """Answer what is no request, or no request yet. Nothing of it is echoed."""
        if not self.wire.is_closing():
            self.wire.write(render(error, anthropic=False, request_id=b"", close=True))
            self._callers.account.unread(error.status)
            self.linger()

    def linger(self) -> None:
        """Close the connection, though more may arrive: RFC 9112 9.6.

        To close with bytes unread is to reset, and the caller might lose the answer. So only our side is closed, and
        for a while what comes is thrown away.
        """
        self._phase = ENDING
        unsent = self.wire.get_write_buffer_size() > 0
        self.deadline_s = self._callers.clock() + (self._callers.limits.stall_timeout_s if unsent else LINGER_S)
        self._force_close = True  # aiohttp reads no further
        if self._waiter is not None:
            self._waiter.cancel()
        if self.wire.is_closing():
            return
        if self.wire.can_write_eof():
            self.wire.write_eof()
            self.wire.resume_reading()
        else:  # TLS
            self.wire.close()

    # --- one request ---------------------------------------------------------------------------------------------

    def _refuse_to_go_on(self) -> None:
        """Raises ConnectionResetError if the connection was given up meanwhile: ENDING has no way back."""
        if self._phase is ENDING:
            raise ConnectionResetError("ended before its request was looked at")

    async def earlier_answers_read(self) -> None:
        """Wait until the caller takes what it asked for before. Raises ConnectionError when it never does."""
        self._refuse_to_go_on()
        self._phase = UNREAD
        self.deadline_s = self._callers.clock() + self._callers.limits.stall_timeout_s
        await self._drain_helper()
        if self.wire.is_closing():
            raise ConnectionResetError("closed while it did not read")

    def begin(self) -> None:
        """A request's head is complete. Raises ConnectionResetError if the connection has been given up meanwhile."""
        self._refuse_to_go_on()
        self._phase = EXCHANGE
        self._early_bytes = self.answered_here = False
        self.deadline_s = math.inf

    def begin_tunnel(self, tunnel: Tunnel) -> None:
        """From now on what comes is the tunnel's, and so is what aiohttp kept of it."""
        self.tunnel = tunnel
        early, self._message_tail = self._message_tail, b""
        self.wire.resume_reading()  # aiohttp may have paused it
        tunnel.from_caller(early)

    async def read_body(self, content: StreamReader) -> bytes:
        """Some more of the body; b"" at its end, or when the exchange has ended meanwhile.

        Raises RequestTimeout or MalformedRequest.
        """
        self._phase = BODY
        since_s = self._waiting_since_s or self._callers.clock()
        self.deadline_s = since_s + self._callers.limits.body_timeout_s
        try:
            async with asyncio.timeout(None) as self._body_wait:
                piece = await content.readany()
        except TimeoutError:
            if self.exchange is not None and self.exchange.ended:
                return b""
            raise RequestTimeout("The body of the request did not arrive in time.") from None
        finally:
            self._body_wait = None
            self._phase = EXCHANGE
            self.deadline_s = math.inf
        if (error := content.exception()) is not None:  # came while this woke
            raise error
        return piece

    def _interrupt(self) -> None:
        """Wake the handler that waits for the body."""
        wait, self._body_wait = self._body_wait, None  # once: a timeout that expires cannot be set again
        if wait is not None:
            wait.reschedule(self._loop.time())

    def exchange_ended(self, *, keep_alive: bool) -> None:
        """The exchange wrote its last byte, or never will."""
        self._interrupt()
        if not self.answered.done():
            self.answered.set_result(keep_alive)

    @property
    def answered(self) -> asyncio.Future[bool]:
        """Done with the exchange's end: may the connection go on?"""
        if self._done is None:
            self._done = self._loop.create_future()
        return self._done

    @property
    def read_plainly(self) -> bool:
        """Is the end of chunks without trailers the last that came? See `LAST_CHUNK`."""
        return self._last_bytes == LAST_CHUNK and not (self._messages or self._early_bytes)

    def finish(self) -> None:
        """The answer is written: the next request may come."""
        self.exchange = self._done = None
        if self._messages:
            self._phase, self.deadline_s = EXCHANGE, math.inf  # the next handler begins in a moment
        elif self._early_bytes:
            self._expect_head()
        else:
            self._phase = IDLE
            self.deadline_s = self._callers.clock() + self._callers.limits.idle_timeout_s

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """aiohttp could not parse a request, or the handler failed."""
        if self.wire.is_closing() or self._phase is ENDING:
            return ENDS
        if status == 500:
            self._callers.log.error("handler_failed", exc_info=exc)
            self.wire.abort()
        else:
            self._answer_and_close(as_proxy_error(exc))
        return ENDS
