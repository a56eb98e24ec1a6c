"""A caller's connection in the aiohttp lane: aiohttp's request handler, with a proxy's timers, ears and manners.

What a proxy of long streams needs otherwise is overridden here: the timers (aiohttp's keep-alive timer also guards the
head, for an hour), the error pages (they echo raw bytes of the request), and the news of a caller that left, does not
read, or sends a broken body, which a handler would hear of late or never.
"""

import asyncio
import math
from enum import Enum, auto
from typing import cast

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from proxy.dataplane.callers import Callers
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.own_answers import render
from proxy.model.errors import (
    HeadTooLarge,
    MalformedRequest,
    ProxyError,
    RequestTimeout,
    TargetTooLong,
    Unavailable,
    VersionNotSupported,
)

MAX_TARGET_BYTES = 16 * 1024
MAX_HEAD_BYTES = 32 * 1024
MAX_FIELDS = 128
LINGER_S = 5.0  # how long the rest of a refused request is read and thrown away, so that its answer arrives
WRITE_HIGH_WATER_BYTES = 64 * 1024  # what a caller may leave unread before its upstream is paused
_NEVER_S = 10 * 365 * 86400.0  # aiohttp's own timer, out of the way


class Answered(web.StreamResponse):
    """Tells aiohttp that the answer has been written, and whether the connection goes on."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


GOES_ON, ENDS = Answered(keep_alive=True), Answered(keep_alive=False)


class Phase(Enum):
    IDLE = auto()  # between two requests
    HEAD = auto()  # a request has begun to arrive
    BODY = auto()  # its handler waits for bytes of its body
    EXCHANGE = auto()  # nothing is expected of the caller

    __hash__ = object.__hash__


class AiohttpConnection(RequestHandler):
    """One connection of a caller."""

    __slots__ = (
        "_body_broken",
        "_body_wait",
        "_callers",
        "_done",
        "_early_bytes",
        "_head_bytes",
        "_phase",
        "deadline_s",
        "exchange",
        "peer",
        "wire",
    )

    peer: str
    wire: asyncio.Transport  # aiohttp sets its own reference to None when it begins to close

    def __init__(self, manager: web.Server, callers: Callers) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_NEVER_S,
            access_log=None,  # type: ignore[arg-type] # documented to be allowed
            max_line_size=MAX_TARGET_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            max_headers=MAX_FIELDS,
            lingering_time=LINGER_S,
            auto_decompress=False,
        )
        self._callers = callers
        self.exchange: Exchange | None = None
        self._done: asyncio.Future[bool] | None = None
        self._body_wait: asyncio.Timeout | None = None
        self._body_broken = False
        self._early_bytes = False  # of a next request, while this one is answered
        self._head_bytes = 0
        self._phase = Phase.IDLE
        self.deadline_s = math.inf

    # --- the connection ------------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        return self._callers.draining

    @property
    def busy(self) -> bool:
        return self._phase in (Phase.BODY, Phase.EXCHANGE)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.wire = cast("asyncio.Transport", transport)
        self.wire.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else ""
        if not self._callers.opened(self):
            self._answer_and_close(Unavailable("Too many connections are open."))

    def connection_lost(self, exc: BaseException | None) -> None:
        self._callers.closed(self)
        if self.exchange is not None:
            self.exchange.caller_gone()
        super().connection_lost(exc)

    def resume_reading(self, resume_parser: bool = True) -> None:
        # aiohttp calls this after every read of a body, paused or not, and it feeds the parser and wakes the transport.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp, to go on with what it holds
            super().data_received(data)
            return
        phase, before = self._phase, self._request_count
        if phase is Phase.IDLE:
            self._expect_head()
        super().data_received(data)
        if phase is Phase.EXCHANGE:
            self._early_bytes = True
        elif phase is Phase.BODY:
            self.deadline_s = self._callers.clock() + self._callers.limits.body_timeout_s
            if self._request_count != before and not self._whole_body_arrived():
                self._body_broken = True  # aiohttp queues a parse error as one more request; the body waits in vain
                self._interrupt()
        elif self._request_count == before:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_TARGET_BYTES + MAX_HEAD_BYTES:
                self._answer_and_close(HeadTooLarge("The head of the request is larger than 32 KiB."))

    def _whole_body_arrived(self) -> bool:
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
        if self._phase is Phase.IDLE:
            self.force_close()

    def cut(self, reason: str) -> None:
        """End whatever is under way."""
        if self.exchange is not None:
            self.exchange.abort(reason)
        self.wire.abort()

    # --- time ----------------------------------------------------------------------------------------------------

    def _expect_head(self) -> None:
        self._phase = Phase.HEAD
        self._head_bytes = 0
        self.deadline_s = self._callers.clock() + self._callers.limits.head_timeout_s

    def expired(self, now_s: float) -> None:
        """A limit on the caller has passed."""
        self.deadline_s = now_s + self._callers.limits.idle_timeout_s
        if self.wire.is_closing():
            self.wire.abort()  # it did not even take what was written before the close
        elif self._phase is Phase.HEAD:
            self._answer_and_close(RequestTimeout("The head of the request did not arrive in time."))
        elif self._phase is Phase.BODY:
            self._interrupt()
        else:
            self.close_if_idle()

    def _answer_and_close(self, error: ProxyError) -> None:
        """Answer what is no request, or no request yet. Nothing of it is echoed."""
        if not self.wire.is_closing():
            self.wire.write(render(error, anthropic=False, request_id=b"", close=True))
            self._callers.account.unread(error.status)
        self.force_close()

    # --- one request ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A request's head is complete."""
        self._phase = Phase.EXCHANGE
        self._early_bytes = self._body_broken = False
        self.deadline_s = math.inf

    async def read_body(self, content: StreamReader) -> bytes:
        """Some more of the body; b"" at its end, or when the exchange has ended meanwhile.

        Raises RequestTimeout or MalformedRequest.
        """
        self._phase = Phase.BODY
        self.deadline_s = self._callers.clock() + self._callers.limits.body_timeout_s
        try:
            async with asyncio.timeout(None) as self._body_wait:
                return await content.readany()
        except TimeoutError:
            if self.exchange is not None and self.exchange.ended:
                return b""
            if self._body_broken:
                raise MalformedRequest("The body of the request is not framed as its head says.") from None
            raise RequestTimeout("The body of the request did not arrive in time.") from None
        except web.RequestPayloadError:
            raise MalformedRequest("The body of the request is not framed as its head says.") from None
        finally:
            self._body_wait = None
            self._phase = Phase.EXCHANGE
            self.deadline_s = math.inf

    def _interrupt(self) -> None:
        """Wake the handler that waits for the body."""
        if self._body_wait is not None:
            self._body_wait.reschedule(self._loop.time())

    def exchange_ended(self, *, keep_alive: bool) -> None:
        """The exchange wrote its last byte, or never will."""
        if self._body_wait is not None:
            self._interrupt()
        outcome = self.outcome
        if not outcome.done():
            outcome.set_result(keep_alive)

    @property
    def outcome(self) -> asyncio.Future[bool]:
        """Done with the exchange's end: may the connection go on?"""
        if self._done is None:
            self._done = self._loop.create_future()
        return self._done

    def finish(self) -> None:
        """The answer is written: the next request may come."""
        self.exchange = self._done = None
        if self._early_bytes:
            self._expect_head()
        else:
            self._phase = Phase.IDLE
            self.deadline_s = self._callers.clock() + self._callers.limits.idle_timeout_s

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """aiohttp could not parse a request, or the handler failed."""
        if self.wire.is_closing():
            return ENDS
        if status == 500:
            self._callers.log.error("handler_failed", exc_info=exc)
            self.wire.abort()
        else:
            self._answer_and_close(_as_proxy_error(exc))
        return ENDS


def _as_proxy_error(error: BaseException | None) -> ProxyError:
    """What aiohttp's parser found, as an answer. Its own text quotes the request, so it is not used."""
    text = str(error)
    if isinstance(error, LineTooLong):
        if str(MAX_TARGET_BYTES) in str(error.args):
            return TargetTooLong("The request target is longer than 16 KiB.")
        return HeadTooLarge("A field of the request's head is too large.")
    if "Too many headers" in text:
        return HeadTooLarge(f"The request has more than {MAX_FIELDS} fields.")
    if "HTTP version" in text:
        return VersionNotSupported("Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    return MalformedRequest("The request is not valid HTTP.")
