"""aiohttp's parser: what it is held to, and what it found wrong, as an answer. Its own words quote the request."""

from typing import Any

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
# What may arrive for one request beyond sixteen times its body: its head, the framing of chunks, their extensions and
# trailers. None of it is sent on or kept, so this only has to end what would never end.
MAX_OVERHEAD_BYTES = 64 * 1024
# aiohttp's parser takes the last trailer of a request for the first field of the next, were it a credential. Only where
# a body ends like this it surely has none.
LAST_CHUNK = b"\r\n0\r\n\r\n"
PARSING: dict[str, Any] = {
    "max_line_size": MAX_TARGET_BYTES,
    "max_field_size": MAX_HEAD_BYTES,
    "max_headers": MAX_FIELDS,
    "auto_decompress": False,
}


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
