"""The aiohttp lane: aiohttp's low-level `web.Server` reads requests, our own relay answers them.

aiohttp brings the C parser, pipelining, and request bodies with backpressure. It can read every request there is, so
this lane can serve everything.
"""

import asyncio

from aiohttp import StreamReader, http_parser, web
from aiohttp.http_parser import RawRequestMessage

from proxy.dataplane.aiohttp_connection import AiohttpConnection
from proxy.dataplane.answered import ENDS, GOES_ON
from proxy.dataplane.callers import Callers, Door
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.handler import Handler
from proxy.dataplane.known_heads import KnownPairs
from proxy.dataplane.local_answers import LocalAnswers
from proxy.dataplane.own_answers import render, render_for
from proxy.dataplane.parsing import MAX_HEAD_BYTES, head_too_large
from proxy.dataplane.request import Request
from proxy.dataplane.tunnel import Tunnel
from proxy.dataplane.upload import Upload
from proxy.model.errors import BodyTooLarge, InternalError, ProxyError, VersionNotSupported


class NoCParser(RuntimeError):
    """aiohttp's Python parser is lenient where smuggling begins: we do not start with it."""


class Parsed:
    """What we need of a request that aiohttp has parsed; its own request objects cost more than they give here."""

    __slots__ = ("_task", "caller", "content", "message")

    def __init__(
        self,
        message: RawRequestMessage,
        content: StreamReader,
        caller: AiohttpConnection,
        writer: object,
        task: "asyncio.Task[None]",
    ) -> None:
        self.message, self.content, self.caller = message, content, caller
        self._task: asyncio.Task[None] | None = task  # aiohttp breaks a reference cycle through it

    def _cancel(self, error: BaseException) -> None:
        """The caller left: whoever reads the body must know."""
        self.content.set_exception(error)

    def _finish(self) -> None:
        """aiohttp's request objects delete uploaded files here."""


class AiohttpLane:
    """Serves callers' connections through aiohttp."""

    def __init__(self, handler: Handler, local: LocalAnswers, callers: Callers) -> None:
        if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
            raise NoCParser("aiohttp was installed without its C parser: install it from a wheel for this platform")
        self._handler, self._local, self._callers = handler, local, callers
        self._heads = KnownPairs(handler)
        self._server = web.Server(self._handle, request_factory=Parsed)  # type: ignore[arg-type]

    def protocol(self, door: Door) -> AiohttpConnection:
        """A protocol for a new connection."""
        return AiohttpConnection(self._server, self._callers, door)

    async def close(self) -> None:
        """Let go of what aiohttp still holds. Connections were drained or cut before."""
        await self._server.shutdown(timeout=0.5)

    async def _handle(self, parsed: Parsed) -> web.StreamResponse:
        """aiohttp has parsed a request's head."""
        caller = parsed.caller
        if caller.writing_paused:
            await caller.earlier_answers_read()
        caller.begin()
        request: Request | None = None
        try:
            request = self._read(caller, parsed.message)
            keep_alive = await self._answer(caller, parsed, request)
        except ProxyError as error:
            keep_alive = self._refuse(caller, parsed, request, error)
        except (OSError, asyncio.CancelledError):
            if request is not None and caller.exchange is None:
                self._callers.account.left(request)  # before its request was whole
            raise
        except Exception as error:
            self._callers.log.exception("handler_failed", exc_info=error)
            if caller.exchange is not None:
                caller.cut("the proxy failed; its log says why")
            keep_alive = self._refuse(caller, parsed, request, InternalError("The proxy failed; its log says why."))
        caller.finish()
        if keep_alive and not (self._callers.closing or caller.door.closed):
            return GOES_ON
        caller.linger()
        return ENDS

    def _read(self, caller: AiohttpConnection, message: RawRequestMessage) -> Request:
        version = message.version
        if version.major != 1 or version.minor > 1:
            raise VersionNotSupported("Only HTTP/1.0 and HTTP/1.1 are spoken here.")
        if caller.long_heads and sum(len(name) + len(value) for name, value in message.raw_headers) > MAX_HEAD_BYTES:
            raise head_too_large()
        if _is_plain(message):
            known = self._heads.request(message.method, message.path, message.raw_headers, caller.peer)
            if known is not None:
                return known
        return self._handler.read(
            message.method.encode("ascii"),
            message.path.encode("utf-8", "surrogateescape"),
            message.raw_headers,
            http11=version.minor == 1,
            # What came behind a request for another protocol, the parser may have dropped.
            keep_alive=version.minor == 1 and not message.should_close and not message.upgrade,
            peer=caller.peer,
        )

    def _admit(self, message: RawRequestMessage, request: Request) -> None:
        if request.head.local is not None or request.head.candidates:
            return  # answered here, or known
        self._handler.admit(request)
        if _is_plain(message):
            self._heads.admitted(message.method, message.path, message.raw_headers, request)

    async def _answer(self, caller: AiohttpConnection, parsed: Parsed, request: Request) -> bool:
        """Walk the request to its answer's last byte. Returns whether the connection may go on."""
        handler, head, content = self._handler, request.head, parsed.content
        self._admit(parsed.message, request)
        if head.local is not None:
            keep_alive = head.keep_alive and not caller.is_draining() and not request.has_body
            caller.answered_here = True
            caller.wire.write(await self._local.answer(request, close=not keep_alive))
            caller.answered_here = False
            return keep_alive
        body, more = b"", False
        if request.has_body:
            if content.is_eof():
                body = content.read_nowait()
            else:
                body, more = await self._begin_body(caller, content, request)
            if head.fields.chunked:
                head.keep_alive = head.keep_alive and not more and caller.read_plainly
        exchange = handler.dispatch(request, caller, body, more=more)
        caller.exchange = exchange
        if isinstance(exchange, Tunnel):
            caller.begin_tunnel(exchange)
        if caller.wire.is_closing():
            exchange.caller_gone()
        elif exchange.upload is not None:
            assert request.route is not None  # noqa: S101 - dispatch has found it
            left_bytes = request.route.max_body_bytes - len(body)
            await self._send_rest(caller, content, exchange, exchange.upload, left_bytes)
        return await caller.answered

    async def _begin_body(
        self, caller: AiohttpConnection, content: StreamReader, request: Request
    ) -> tuple[bytes, bool]:
        """The body as far as the buffer goes, and whether there is more of it."""
        if request.head.fields.expects_continue:
            caller.wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        limit_bytes = min(request.head.buffer_bytes, request.head.max_body_bytes)
        pieces, size = [], 0
        while size <= limit_bytes and not content.at_eof():
            piece = await caller.read_body(content)
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces), not content.at_eof()

    async def _send_rest(
        self, caller: AiohttpConnection, content: StreamReader, exchange: Exchange, upload: Upload, left_bytes: int
    ) -> None:
        """Stream what did not fit into the buffer, at the upstream's pace. An answer before its end ends it.

        `left_bytes`: how much more of it the route allows.
        """
        try:
            while True:
                await upload.room()
                piece = b"" if exchange.ended else await caller.read_body(content)
                if exchange.ended:
                    return
                left_bytes -= len(piece)
                if left_bytes < 0:
                    raise BodyTooLarge("The body is larger than this route allows.")
                upload.send(piece)
                if content.at_eof():
                    exchange.end_body()
                    return
        except ProxyError as error:
            exchange.body_failed(error)

    def _refuse(self, caller: AiohttpConnection, parsed: Parsed, request: Request | None, error: ProxyError) -> bool:
        """Answer with an error of our own. Returns whether the connection may go on."""
        unread = not parsed.content.is_eof() or (parsed.message.chunked and not caller.read_plainly)
        close = error.close or caller.is_draining() or unread or request is None or not request.head.keep_alive
        if request is None:
            answer = render(
                error, anthropic=False, request_id=b"", close=True, head_only=parsed.message.method == "HEAD"
            )
            self._callers.account.unread(error.status)
        else:
            answer = render_for(request, error, close=close)
            self._callers.account.refused(request, error)
        if not caller.wire.is_closing():
            caller.wire.write(answer)
        return not close


def _is_plain(message: RawRequestMessage) -> bool:
    """HTTP/1.1, a body of a known length or none, nothing of the connection beyond keeping it."""
    return message.version.minor == 1 and not (message.should_close or message.upgrade or message.chunked)
