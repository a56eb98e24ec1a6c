"""Where an upstream's answer ends, byte for byte, without holding or changing any of it.

A proxy that splices bytes must know three things of an answer: where its head ends, where its body ends, and whether it
was cut. llhttp (httptools) is the judge of the grammar, in its strict mode and without callbacks for fields or body, which
would cost more than everything else. It does not tell *where* in a block a message ended. So a chunked body is fed to it
in pieces that end where a message could end (after CRLF CRLF), which for nearly every block is one piece.

`AnswerReader.feed(data)` takes what the socket gave and returns what the caller should get. Everything here is
synchronous and free of I/O, so that a test can cut any answer at any byte.
"""

import re
from dataclasses import dataclass
from typing import Protocol

import httptools

MAX_HEAD_BYTES = 64 * 1024
MAX_FIELDS = 128
MAX_INTERIM_ANSWERS = 10


class BadAnswer(Exception):
    """The upstream's bytes are not one valid HTTP/1.x answer. The text says what was found, without quoting it."""


class Truncated(BadAnswer):
    """The connection ended before the answer did."""


class _Completion:
    """The parser's listener that learns of a message's end."""

    __slots__ = ("complete",)

    def __init__(self) -> None:
        self.complete = False

    def on_message_complete(self) -> None:
        self.complete = True


class _Payload(_Completion):
    """The listener for callers that cannot read chunks: it also collects the payload."""

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def on_body(self, piece: bytes) -> None:
        self.pieces.append(piece)


@dataclass(slots=True)
class AnswerHead:
    """The head of a final answer. `reason` is as sent; `fields` begins with CRLF before each field and ends without one."""

    status: int
    reason: bytes
    fields: bytes
    content_length: int | None
    chunked: bool
    keep_alive: bool
    event_stream: bool
    seen: dict[bytes, bytes]  # the fields that were looked at, all in lower case


class Body(Protocol):
    """How one answer's body is delimited. `done` once its last byte was seen, `excess` if bytes came after that."""

    done: bool
    excess: bool

    def feed(self, data: bytes) -> bytes:
        """What the caller should get of `data`."""

    def end(self) -> bytes:
        """The upstream closed: what the caller should still get. Raises Truncated if the body is not whole."""


class Nothing:
    """A HEAD's answer, a 204 or a 304: the end of the head is the end, whatever its fields say (RFC 9112 6.3)."""

    __slots__ = ("done", "excess")

    def __init__(self) -> None:
        self.done, self.excess = True, False

    def feed(self, data: bytes) -> bytes:
        self.excess = self.excess or bool(data)
        return b""

    def end(self) -> bytes:
        return b""


class Length:
    """A body of as many bytes as Content-Length says."""

    __slots__ = ("done", "excess", "remaining_bytes")

    def __init__(self, length_bytes: int) -> None:
        self.remaining_bytes = length_bytes
        self.done, self.excess = length_bytes == 0, False

    def feed(self, data: bytes) -> bytes:
        left = self.remaining_bytes = self.remaining_bytes - len(data)
        if left > 0:
            return data
        self.done = True
        if left < 0:
            self.excess = True
            self.remaining_bytes = 0
            return data[:left]
        return data

    def end(self) -> bytes:
        raise Truncated(f"{self.remaining_bytes} bytes of the body are missing")


class Chunked:
    """A chunked body, handed on with its framing: chunk sizes, extensions and trailers as they came."""

    __slots__ = ("_listener", "_parser", "done", "excess")

    def __init__(self, parser: httptools.HttpResponseParser, listener: _Completion) -> None:
        self._parser, self._listener = parser, listener
        self.done, self.excess = False, False

    def feed(self, data: bytes) -> bytes:
        if self.done:
            self.excess = self.excess or bool(data)
            return b""
        end = self._feed(data)
        return data if end == len(data) else data[:end]

    def _feed(self, data: bytes) -> int:
        """Feed up to the message's end, and say where in `data` that is (or its length)."""
        parser, listener, size = self._parser, self._listener, len(data)
        try:
            at = 0
            if data[:1] in (b"\r", b"\n"):  # the closing CRLF CRLF may lie across two blocks
                for at in range(1, min(4, size) + 1):
                    parser.feed_data(data[at - 1 : at])
                    if listener.complete:
                        return self._complete(at, size)
            while (mark := data.find(b"\r\n\r\n", max(at - 3, 0))) >= 0 and mark + 4 < size:
                parser.feed_data(data[at : mark + 4])
                at = mark + 4
                if listener.complete:
                    return self._complete(at, size)
            parser.feed_data(data[at:] if at else data)
        except httptools.HttpParserError as error:
            raise BadAnswer(f"broken chunked framing ({error})") from None
        if listener.complete:
            self.done = True
        return size

    def _complete(self, at: int, size: int) -> int:
        self.done = True
        self.excess = at < size
        return at

    def end(self) -> bytes:
        raise Truncated("the last chunk is missing")


class Dechunked(Chunked):
    """A chunked body for an HTTP/1.0 caller: the payload alone, the connection's end marks its end."""

    __slots__ = ("_pieces",)

    def __init__(self, parser: httptools.HttpResponseParser, listener: _Payload) -> None:
        super().__init__(parser, listener)
        self._pieces = listener.pieces

    def feed(self, data: bytes) -> bytes:
        super().feed(data)
        payload = b"".join(self._pieces)
        self._pieces.clear()
        return payload


class UntilClose:
    """A body that the upstream's close ends. For HTTP/1.1 callers it is framed as chunks, so that they can tell its end."""

    __slots__ = ("_rechunk", "done", "excess")

    def __init__(self, rechunk: bool) -> None:
        self._rechunk = rechunk
        self.done, self.excess = False, False

    def feed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._rechunk and data else data

    def end(self) -> bytes:
        self.done = True
        return b"0\r\n\r\n" if self._rechunk else b""


# What is looked at of an answer's head, in its lower-cased copy: half the price of a match that ignores case.
_FIELD = re.compile(
    rb"\r\n(content-length|transfer-encoding|connection|content-type|x-accel-buffering|cache-control|x-request-id"
    rb"|keep-alive|proxy-connection|upgrade|x-serinus-[^:\r]*):[ \t]*([^\r]*)"
)
_VERSIONS = (b"1.1", b"1.0")
_HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"upgrade"))
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
_NEVER_NOMINATED = _FRAMING | {b"content-type", b"set-cookie", b"", b"close", b"keep-alive"}


class AnswerReader:
    """Reads one answer to one request. Feed it what the connection receives until `done`.

    `head_only`: the request was a HEAD. `http10`: the caller speaks HTTP/1.0 and cannot read chunks.
    Raises BadAnswer; before `head` is set nothing has been handed on, so another try is possible.
    """

    __slots__ = ("_buffer", "_head_only", "_http10", "_interim", "_scanned", "body", "head", "reusable")

    def __init__(self, *, head_only: bool = False, http10: bool = False) -> None:
        self._head_only, self._http10 = head_only, http10
        self._buffer = b""
        self._scanned = 0
        self._interim = 0
        self.head: AnswerHead | None = None
        self.body: Body | None = None
        self.reusable = False  # may the connection carry another request, once this answer is done?

    @property
    def begun(self) -> bool:
        """Has the upstream sent anything at all?"""
        return bool(self._buffer) or self._interim > 0 or self.head is not None

    @property
    def done(self) -> bool:
        return self.body is not None and self.body.done

    @property
    def clean(self) -> bool:
        """May the connection carry another request? Only after a whole answer with nothing behind it."""
        body = self.body
        return body is not None and body.done and self.reusable and not body.excess

    def feed(self, data: bytes) -> bytes:
        """What the caller should get of `data` beyond the head, which is in `head` once it is whole."""
        if self.body is not None:
            return self.body.feed(data)
        self._buffer = buffer = self._buffer + data if self._buffer else data
        while True:
            end = buffer.find(b"\r\n\r\n", self._scanned)
            if end > MAX_HEAD_BYTES or (end < 0 and len(buffer) > MAX_HEAD_BYTES):
                raise BadAnswer("the head is larger than 64 KiB")
            if end < 0:
                _check_beginning(buffer)
                self._scanned = max(len(buffer) - 3, 0)
                return b""
            self._scanned = 0
            buffer = self._read_head(buffer, end)
            if self.body is not None:
                self._buffer = b""
                return self.body.feed(buffer) if buffer else b""
            self._buffer = buffer

    def end(self) -> bytes:
        """The connection ended. Returns what the caller should still get, or raises Truncated."""
        if self.body is None:
            raise Truncated(
                "the connection closed in the middle of the head"
                if self.begun
                else "the connection closed without an answer"
            )
        return b"" if self.body.done else self.body.end()

    def _read_head(self, buffer: bytes, end: int) -> bytes:
        """Take one head off the buffer, interim or final, and return the bytes behind it."""
        listener = _Payload() if self._http10 else _Completion()
        parser = httptools.HttpResponseParser(listener)
        try:
            parser.feed_data(buffer[: end + 4])
            status = parser.get_status_code()
        except httptools.HttpParserUpgrade:
            raise BadAnswer("a change of protocol nobody asked for") from None
        except httptools.HttpParserError as error:
            raise BadAnswer(f"not a valid HTTP head ({error})") from None
        if 100 <= status < 200:
            self._interim += 1
            if status == 101:
                raise BadAnswer("a change of protocol nobody asked for")
            if self._interim > MAX_INTERIM_ANSWERS:
                raise BadAnswer(f"more than {MAX_INTERIM_ANSWERS} interim answers")
            return buffer[end + 4 :]
        self.head = head = parse_head(buffer[:end], status, parser.should_keep_alive())
        self.body = self._delimit(head, parser, listener)
        return buffer[end + 4 :]

    def _delimit(self, head: AnswerHead, parser: httptools.HttpResponseParser, listener: _Completion) -> Body:
        """RFC 9112 6.3, in its order."""
        self.reusable = head.keep_alive
        if self._head_only or head.status in (204, 304):
            if head.status == 204 and (head.chunked or head.content_length):
                self.reusable = False  # it may be sending that body all the same
            return Nothing()
        if head.chunked:
            return Dechunked(parser, listener) if isinstance(listener, _Payload) else Chunked(parser, listener)
        if head.content_length is not None:
            return Length(head.content_length)
        self.reusable = False
        return UntilClose(rechunk=not self._http10)


def parse_head(head: bytes, status: int, keep_alive: bool) -> AnswerHead:
    """Read a head that llhttp has accepted (without its closing CRLF CRLF) and take out what concerns one hop only.

    Checks what llhttp leaves: the status line's version and range, the number of fields, the transfer coding.
    """
    line_end = head.find(b"\r\n")
    if line_end < 0:
        line_end = len(head)
    version, reason, fields = head[5:8], head[13:line_end], head[line_end:]
    if version not in _VERSIONS or not 100 <= status <= 599:
        raise BadAnswer("a status line that is not HTTP/1.0 or 1.1 with a status from 100 to 599")
    if fields.count(b"\r\n") > MAX_FIELDS:
        raise BadAnswer(f"more than {MAX_FIELDS} fields")
    seen: dict[bytes, bytes] = {}
    cuts: list[tuple[int, int]] = []
    unframed = status == 204  # its framing fields, if any, are wrong, and would be to the caller
    for found in _FIELD.finditer(fields.lower()):
        name, value = found.groups()
        if name in _HOP_BY_HOP or name[:10] == b"x-serinus-" or (unframed and name in _FRAMING):
            cuts.append(found.span())
        if name in seen:
            if name == b"transfer-encoding":
                raise BadAnswer("more than one Transfer-Encoding")
            value = seen[name] + b"," + value
        seen[name] = value
    coding, length = seen.get(b"transfer-encoding"), seen.get(b"content-length")
    if coding is not None:
        if version == b"1.0":
            raise BadAnswer("a Transfer-Encoding from an HTTP/1.0 upstream")
        if coding.strip() != b"chunked":
            raise BadAnswer("a transfer coding other than chunked")
    if cuts:
        fields = _without(fields, cuts)
        if b"connection" in seen:
            fields = _without_nominated(fields, seen[b"connection"])
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


def _without(fields: bytes, cuts: list[tuple[int, int]]) -> bytes:
    kept, at = [], 0
    for start, end in cuts:
        kept.append(fields[at:start])
        at = end
    kept.append(fields[at:])
    return b"".join(kept)


def _without_nominated(fields: bytes, connection: bytes) -> bytes:
    """Take out the fields that `Connection` names, never those that frame the message (RFC 9110 7.6.1)."""
    names = (
        {name.strip().lower() for name in connection.split(b",")} - _NEVER_NOMINATED - {b"", b"close", b"keep-alive"}
    )
    if not names:
        return fields
    lines = fields.split(b"\r\n")
    return b"\r\n".join(line for line in lines if line.partition(b":")[0].lower() not in names)


def _check_beginning(buffer: bytes) -> None:
    """Refuse at once what cannot become a head: HTTP/0.9, TLS, an error page of another protocol."""
    beginning = buffer[:5]
    if not b"HTTP/".startswith(beginning) and beginning != b"HTTP/":
        raise BadAnswer("bytes that are not HTTP")
