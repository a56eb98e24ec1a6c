"""aiohttp's parser: what it is held to, and what it found wrong, as an answer. Its own words quote the request."""

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from proxy.model.errors import (
    HeadTooLarge,
    MalformedRequest,
    ProxyError,
    TargetTooLong,
    UnknownCoding,
    VersionNotSupported,
)

MAX_TARGET_BYTES = 16 * 1024
MAX_HEAD_BYTES = 32 * 1024
MAX_FIELDS = 128
PARSING: dict[str, Any] = {
    "max_line_size": MAX_TARGET_BYTES,
    "max_field_size": MAX_HEAD_BYTES,
    "max_headers": MAX_FIELDS,
    "auto_decompress": False,
}
_QUEUED_REQUESTS = 32  # aiohttp's own figure, after which reading is paused; and for its buffer likewise
_QUEUED_BODY_BYTES = 2**16


def new_parser(connection: BaseProtocol, loop: asyncio.AbstractEventLoop) -> HttpRequestParser:
    """A parser such as a new connection has."""
    return HttpRequestParser(
        connection,
        loop,
        _QUEUED_BODY_BYTES,
        payload_exception=web.RequestPayloadError,
        max_msg_queue_size=_QUEUED_REQUESTS,
        **PARSING,
    )


def as_proxy_error(error: BaseException | None) -> ProxyError:
    """The parser knows of nothing but 400; callers are told what they can act on."""
    if isinstance(error, LineTooLong):
        if error.args[1] == MAX_TARGET_BYTES:
            return TargetTooLong("The request target is longer than 16 KiB.")
        return head_too_large()
    text = error.message if isinstance(error, HttpProcessingError) else ""
    if text.startswith("Too many headers"):
        return HeadTooLarge(f"The request has more than {MAX_FIELDS} fields.")
    if text.startswith("Bad status line:\n  Invalid HTTP version"):
        return VersionNotSupported("Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    if text.startswith("Request has invalid `Transfer-Encoding`"):  # llhttp: a final coding other than chunked
        return UnknownCoding("The only transfer coding known is chunked.")
    return MalformedRequest("The request is not valid HTTP.")


def head_too_large() -> HeadTooLarge:
    return HeadTooLarge("The head of the request is larger than 32 KiB.")
