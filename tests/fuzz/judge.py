"""What RFC 9112 says of a row of bytes, in the strictest reading: written without a look at the proxy's own readers."""

import re
from dataclasses import dataclass
from enum import Enum, auto


class Verdict(Enum):
    WHOLE = auto()
    CUT = auto()  # right as far as it goes
    BAD = auto()


@dataclass(frozen=True, slots=True)
class Judged:
    verdict: Verdict
    payload: bytes = b""
    rest: bytes = b""  # behind its end
    until_close: bool = False


CUT, BAD = Judged(Verdict.CUT), Judged(Verdict.BAD)
_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
_NAME = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELD = re.compile(rb"(%b):(%b)" % (_NAME, _TEXT))
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: %b)?" % _TEXT)
_REQUEST = re.compile(rb"[A-Z]+ +[\x21-\x7e]+ +HTTP/1\.([01])")  # llhttp takes any number of blanks
_EMPTY_LINES = re.compile(rb"\A[\r\n]+")  # before a request: RFC 9112 2.2; llhttp takes half a CRLF for one
_SIZE = re.compile(rb"([0-9A-Fa-f]+)(?:;%b)?" % _TEXT)


def answer(raw: bytes, *, to_head: bool) -> Judged:
    """The answer that `raw` begins with, where the connection ends behind it."""
    while True:
        head, found, rest = raw.partition(b"\r\n\r\n")
        if not found:
            return CUT
        line, *lines = head.split(b"\r\n")
        status, fields = _STATUS.fullmatch(line), _fields(lines)
        if status is None or fields is None or status[2] == b"101":
            return BAD
        if not status[2].startswith(b"1"):
            break
        raw = rest
    if to_head or status[2] in (b"204", b"304"):
        return Judged(Verdict.WHOLE, rest=rest)
    framed = _framed(fields, rest, http11=status[1] == b"1")
    return Judged(Verdict.WHOLE, rest, until_close=True) if framed is None else framed


def requests(raw: bytes) -> tuple[list[bytes], Judged]:
    """The payloads of the requests that `raw` begins with, and what is wrong with what follows them, if anything is."""
    payloads: list[bytes] = []
    while raw:
        raw = _EMPTY_LINES.sub(b"", raw)
        head, found, rest = raw.partition(b"\r\n\r\n")
        if not found:
            return payloads, CUT
        line, *lines = head.split(b"\r\n")
        request, fields = _REQUEST.fullmatch(line), _fields(lines)
        if request is None or fields is None:
            return payloads, BAD
        judged = _framed(fields, rest, http11=request[1] == b"1") or Judged(Verdict.WHOLE, rest=rest)
        if judged.verdict is not Verdict.WHOLE:
            return payloads, judged
        payloads.append(judged.payload)
        raw = judged.rest
    return payloads, Judged(Verdict.WHOLE)


def _fields(lines: list[bytes]) -> dict[bytes, list[bytes]] | None:
    fields: dict[bytes, list[bytes]] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            return None
        fields.setdefault(found[1].lower(), []).append(found[2].strip(b" \t"))
    return fields


def _framed(fields: dict[bytes, list[bytes]], rest: bytes, *, http11: bool) -> Judged | None:
    """None where no field says how long the body is."""
    lengths, codings = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if codings is not None:
        if not http11 or lengths is not None or [coding.lower() for coding in codings] != [b"chunked"]:
            return BAD
        return _chunks(rest)
    if lengths is None:
        return None
    if len(lengths) > 1 or not re.fullmatch(rb"[0-9]+", lengths[0]):
        return BAD
    size = int(lengths[0])
    return Judged(Verdict.WHOLE, rest[:size], rest[size:]) if len(rest) >= size else CUT


def _chunks(rest: bytes) -> Judged:
    payload = b""
    while True:
        line, found, rest = rest.partition(b"\r\n")
        size = _SIZE.fullmatch(line)
        if not found or size is None:
            return BAD if found else CUT
        count = int(size[1], 16)
        if count == 0:
            break
        if len(rest) < count + 2:
            return CUT
        if rest[count : count + 2] != b"\r\n":
            return BAD
        payload, rest = payload + rest[:count], rest[count + 2 :]
    while True:  # trailers
        line, found, rest = rest.partition(b"\r\n")
        if not found:
            return CUT
        if not line:
            return Judged(Verdict.WHOLE, payload, rest)
        if _FIELD.fullmatch(line) is None:
            return BAD
