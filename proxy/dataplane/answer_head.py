"""The head of an upstream's answer: what it says of framing and connection, and what of it is the caller's.

llhttp has accepted its grammar. It also reads RTSP and HTTP/2.0, takes any byte in a reason, and forgets at a message's
end whether the connection stays open: the status line and `Connection` are read here.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from proxy.model.errors import BadAnswer

MAX_FIELDS = 128

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
# What is looked at of an answer's head, in its lower-cased copy: half the price of a match that ignores case.
_FIELD = re.compile(
    rb"\r\n(content-length|transfer-encoding|connection|content-type|x-accel-buffering|cache-control|x-request-id"
    rb"|keep-alive|proxy-connection|upgrade|x-serinus-[^:\r]*):[ \t]*([^\r]*)"
)
_HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"upgrade"))
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
# What is looked at, and passes.
_END_TO_END = _FRAMING | {b"content-type", b"x-accel-buffering", b"cache-control", b"x-request-id"}
_KEPT_ALIVE = _END_TO_END | {b"connection"}
_NEVER_NOMINATED = _FRAMING | {b"content-type", b"set-cookie", b"upgrade", b"", b"close", b"keep-alive"}
_MAX_LENGTH_DIGITS = 18  # what fits into 63 bits whatever the digits: callers read a length into those


@dataclass(slots=True)
class AnswerHead:
    """The head of a final answer. `reason` is as sent; in `fields` each field has its CRLF before it."""

    status: int
    reason: bytes
    fields: bytes
    content_length: int | None
    chunked: bool
    keep_alive: bool
    event_stream: bool
    seen: dict[bytes, bytes]  # the fields that were looked at, all in lower case


@lru_cache(maxsize=64)  # answers repeat few status lines
def read_status_line(line: bytes) -> tuple[bool, int, bytes]:
    """Is it HTTP/1.1, the status, the reason."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise BadAnswer("a status line that is not HTTP/1.0 or 1.1 with a status from 100 to 599")
    minor, status, reason = match.groups(b"")
    return minor == b"1", int(status), reason


def parse_head(status: int, reason: bytes, fields: bytes, *, http11: bool) -> AnswerHead:
    """Read the fields of a head that llhttp has accepted, and take out what concerns one hop only.

    Checks what llhttp leaves: the number of fields, the size of the length, the transfer coding.
    """
    if fields.count(b"\r\n") > MAX_FIELDS:
        raise BadAnswer(f"more than {MAX_FIELDS} fields")
    lowered = fields.lower()
    found = _FIELD.findall(lowered)
    seen: dict[bytes, bytes] = dict(found)
    if len(seen) < len(found):
        seen = _joined(found)
    coding, length = seen.get(b"transfer-encoding"), seen.get(b"content-length")
    if coding is not None:
        if not http11:
            raise BadAnswer("a Transfer-Encoding from an HTTP/1.0 upstream")
        if coding.rstrip(b" ") != b"chunked":  # llhttp takes a tab behind it for another coding
            raise BadAnswer("a transfer coding other than chunked")
    if length is not None and len(length.rstrip()) > _MAX_LENGTH_DIGITS:
        raise BadAnswer("a Content-Length beyond all measure")
    keep_alive = http11
    if seen.get(b"connection") == b"keep-alive" and status not in (101, 204) and _KEPT_ALIVE.issuperset(seen):
        fields, keep_alive = _without_connection(fields, lowered), True  # as most servers say it
    elif status in (101, 204) or not _END_TO_END.issuperset(seen):
        fields = _without_hop_by_hop(fields, lowered, unframed=status in (101, 204))
        if b"connection" in seen:
            options = {option.strip() for option in seen[b"connection"].split(b",")}
            keep_alive = b"close" not in options and (http11 or b"keep-alive" in options)
            fields = _without_nominated(fields, options - _NEVER_NOMINATED, seen)
    kind = seen.get(b"content-type")
    return AnswerHead(
        status,
        reason,
        fields,
        None if length is None else int(length),
        coding is not None,
        keep_alive,
        kind is not None and kind.startswith(b"text/event-stream"),
        seen,
    )


def _joined(found: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Fields of which some are there more than once, as one list each (RFC 9110 5.3)."""
    seen: dict[bytes, bytes] = {}
    for name, value in found:
        if name in seen and name == b"transfer-encoding":
            raise BadAnswer("more than one Transfer-Encoding")
        seen[name] = seen[name] + b"," + value if name in seen else value
    return seen


def _without_connection(fields: bytes, lowered: bytes) -> bytes:
    """Without the one field of that name."""
    start = lowered.index(b"\r\nconnection:")
    end = lowered.find(b"\r\n", start + 2)
    return fields[:start] if end < 0 else fields[:start] + fields[end:]


def _without_hop_by_hop(fields: bytes, lowered: bytes, *, unframed: bool) -> bytes:
    """`unframed`: without those of framing too, which are wrong there, and would be to the caller."""
    kept, at = [], 0
    for found in _FIELD.finditer(lowered):
        name = found[1]
        if name in _HOP_BY_HOP or name[:10] == b"x-serinus-" or (unframed and name in _FRAMING):
            kept.append(fields[at : found.start()])
            at = found.end()
    kept.append(fields[at:])
    return b"".join(kept)


def _without_nominated(fields: bytes, names: set[bytes], seen: dict[bytes, bytes]) -> bytes:
    """Take out the fields that `Connection` names (RFC 9110 7.6.1)."""
    if not names:
        return fields
    for name in names:
        seen.pop(name, None)
    lines = fields.split(b"\r\n")
    return b"\r\n".join(line for line in lines if line.partition(b":")[0].lower() not in names)
