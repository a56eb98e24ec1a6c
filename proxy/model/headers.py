"""Which header names and values a configuration may set: never those that frame a message or end at the next hop."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
# Printable ASCII and tab: RFC 9110 section 5.5 without obs-text, which no two servers decode alike.
_VALUE = re.compile(r"[\x20-\x7e\t]*")
_FRAMING = ("host", "content-length", "transfer-encoding", "trailer", "te", "expect")
_HOP_BY_HOP = ("connection", "keep-alive", "proxy-connection", "upgrade", "http2-settings")
_PROXY_AUTH = ("proxy-authorization", "proxy-authenticate")
RESERVED = frozenset(_FRAMING + _HOP_BY_HOP + _PROXY_AUTH)


def carries(value: str) -> bool:
    """Whether a header may have this value, byte for byte."""
    return bool(_VALUE.fullmatch(value))


def parse_header_name(value: object) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError("not a header name: write letters, digits and '-', such as x-team")
    return value.lower()


def parse_header_value(value: str) -> str:
    if not carries(value):
        raise ValueError("a line break, control or non-ASCII character in a header value: write printable ASCII")
    return value


def settable(name: str) -> str:
    """Refuses what belongs to the connection: a wrong one lets a request be read as two."""
    if name in RESERVED:
        raise ValueError(f"{name} belongs to the connection and cannot be set: remove it")
    return name


HeaderName = Annotated[
    str, BeforeValidator(parse_header_name), Field(json_schema_extra={"pattern": f"^{_TOKEN.pattern}$"})
]
"""A header name, lower-cased."""
SetHeaderName = Annotated[HeaderName, AfterValidator(settable)]
HeaderValue = Annotated[str, AfterValidator(parse_header_value)]
HeaderMatch = dict[HeaderName, HeaderValue]
SetHeaders = dict[SetHeaderName, HeaderValue]
