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


class _Silent:
    """The parser's listener for heads: it wants no callback at all."""


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
    names: frozenset[bytes]  # which of the fields in `_LOOKED_AT` were there, in lower case


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
                if mark + 4 > at:
                    parser.feed_data(data[at : mark + 4])
                    at = mark + 4
                    if listener.complete:
                        return self._complete(at, size)
                else:  # pragma: no cover - the mark always lies beyond what was fed
                    break
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


_LOOKED_AT = (
    b"content-length|transfer-encoding|connection|content-type|x-accel-buffering|cache-control|x-request-id"
    b"|keep-alive|proxy-connection|upgrade|x-serinus-[^:\r]*"
)
_FIELD = re.compile(rb"\r\n(%b):[ \t]*([^\r]*)" % _LOOKED_AT, re.IGNORECASE)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([^\r]*))?\Z")
_NOT_PASSED = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"upgrade"))
_NEVER_NOMINATED = frozenset((b"content-length", b"transfer-encoding", b"content-type", b"set-cookie"))


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
        listener: _Completion = _Payload() if self._http10 else _Completion()
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
        self.head = head = parse_head(buffer[:end], keep_alive=parser.should_keep_alive())
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


def parse_head(head: bytes, *, keep_alive: bool) -> AnswerHead:
    """Read a head that llhttp has accepted (without its closing CRLF CRLF) and take out what concerns one hop only.

    Checks what llhttp leaves: the status line's version and range, the number of fields, the transfer coding.
    """
    line_end = head.find(b"\r\n")
    line, fields = (head, b"") if line_end < 0 else (head[:line_end], head[line_end:])
    match = _STATUS_LINE.match(line)
    if match is None:
        raise BadAnswer("a status line that is not HTTP/1.0 or 1.1 with a status from 100 to 599")
    if fields.count(b"\r\n") > MAX_FIELDS:
        raise BadAnswer(f"more than {MAX_FIELDS} fields")
    seen: dict[bytes, bytes] = {}
    cuts: list[tuple[int, int]] = []
    for found in _FIELD.finditer(fields):
        name = found[1].lower()
        if name == b"transfer-encoding" and (name in seen or match[1] == b"0"):
            raise BadAnswer("more than one Transfer-Encoding, or one from an HTTP/1.0 upstream")
        if name == b"connection" and name in seen:
            seen[name] += b"," + found[2]
        else:
            seen[name] = found[2]
        if name in _NOT_PASSED or name.startswith(b"x-serinus-"):
            cuts.append(found.span())
    coding = seen.get(b"transfer-encoding")
    if coding is not None and coding.strip().lower() != b"chunked":
        raise BadAnswer("a transfer coding other than chunked")
    status = int(match[2])
    if status == 204 and (coding is not None or b"content-length" in seen):
        cuts.extend(
            found.span()
            for found in _FIELD.finditer(fields)
            if found[1].lower() in (b"transfer-encoding", b"content-length")
        )
        cuts.sort()
    length = seen.get(b"content-length")
    kept = _without(fields, cuts) if cuts else fields
    if b"connection" in seen:
        kept = _without_nominated(kept, seen[b"connection"])
    return AnswerHead(
        status=status,
        reason=match[3] or b"",
        fields=kept,
        content_length=None if length is None else int(length),
        chunked=coding is not None,
        keep_alive=keep_alive,
        event_stream=seen.get(b"content-type", b"")[:17].lower() == b"text/event-stream",
        names=frozenset(seen),
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
