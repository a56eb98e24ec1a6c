"""Where an upstream's answer ends, byte for byte, without holding or changing any of it.

A proxy that splices bytes must know three things of an answer: where its head ends, where its body ends, and whether it
was cut. llhttp (httptools) is the judge of the grammar, in its strict mode; `answer_head.py` and `bodies.py` know what
it leaves open.

`AnswerReader.feed(data)` takes what the socket gave and returns what the caller should get. Everything here is
synchronous and free of I/O, so that a test can cut any answer at any byte.
"""

import httptools

from proxy.dataplane.answer_head import AnswerHead, parse_head, read_status_line
from proxy.dataplane.bodies import Body, Chunked, Completion, Dechunked, Length, Nothing, Payload, UntilClose
from proxy.model.errors import BadAnswer, Truncated

MAX_HEAD_BYTES = 64 * 1024
MAX_INTERIM_ANSWERS = 10


class AnswerReader:
    """Reads one answer to one request. Feed it what the connection receives until `done`.

    `head_only`: the request was a HEAD. `http10`: the caller speaks HTTP/1.0 and cannot read chunks. `websocket`: the
    request asked for a tunnel.
    Raises BadAnswer; before `head` is set nothing has been handed on, so another try is possible.
    """

    __slots__ = ("_buffer", "_head_only", "_http10", "_interim", "_scanned", "_websocket", "body", "head", "reusable")

    def __init__(self, *, head_only: bool = False, http10: bool = False, websocket: bool = False) -> None:
        self._head_only, self._http10, self._websocket = head_only, http10, websocket
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

    def is_clean(self) -> bool:
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
            if (end if end >= 0 else len(buffer) - 3) > MAX_HEAD_BYTES:
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
        line_end = buffer.find(b"\r\n")
        http11, status, reason = read_status_line(buffer[:line_end])
        listener = Payload() if self._http10 else Completion()
        parser = httptools.HttpResponseParser(listener)
        try:
            parser.feed_data(buffer[: end + 4])
        except httptools.HttpParserUpgrade:
            pass  # a 101, whose other protocol begins behind it
        except httptools.HttpParserError as error:
            raise BadAnswer(f"not a valid HTTP head ({error})") from None
        if status < 200 and status != 101:
            self._interim += 1
            if self._interim > MAX_INTERIM_ANSWERS:
                raise BadAnswer(f"more than {MAX_INTERIM_ANSWERS} interim answers")
            return buffer[end + 4 :]
        head = parse_head(status, reason, buffer[line_end:end], http11=http11)
        self.body = self._delimit(head, parser, listener, http11=http11)
        self.head = head
        return buffer[end + 4 :]

    def _delimit(
        self, head: AnswerHead, parser: httptools.HttpResponseParser, listener: Completion, *, http11: bool
    ) -> Body:
        """RFC 9112 6.3, in its order."""
        if head.status == 101:
            if not (self._websocket and http11 and head.seen.get(b"upgrade", b"").strip() == b"websocket"):
                raise BadAnswer("a change of protocol nobody asked for")
            return UntilClose(rechunk=False)
        self.reusable = head.keep_alive
        if self._head_only or head.status in (204, 304):
            if head.status == 204 and (head.chunked or head.content_length):
                self.reusable = False  # it may be sending that body all the same
            return Nothing()
        if head.chunked:
            return Dechunked(parser, listener) if isinstance(listener, Payload) else Chunked(parser, listener)
        if head.content_length is not None:
            return Length(head.content_length)
        self.reusable = False
        return UntilClose(rechunk=not self._http10)


def _check_beginning(buffer: bytes) -> None:
    """Refuse at once what cannot become a head: HTTP/0.9, TLS, an error page of another protocol."""
    if not b"HTTP/".startswith(buffer[:5]):
        raise BadAnswer("bytes that are not HTTP")
