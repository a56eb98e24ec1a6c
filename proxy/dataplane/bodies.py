"""How the body of an answer is delimited, and where in a block of bytes it ends.

llhttp does not tell *where* in a block a message ended. So a chunked body is fed to it in pieces that end where a
message could end (after CRLF CRLF), which for nearly every block is one piece. It gets no callbacks for fields or body,
which would cost more than everything else, save for callers that cannot read chunks.
"""

from typing import Protocol

import httptools

from proxy.model.errors import BadAnswer, Truncated

_LINE_ENDS = (b"\r", b"\n")


class Completion:
    """The parser's listener that learns of a message's end."""

    __slots__ = ("complete",)

    def __init__(self) -> None:
        self.complete = False

    def on_message_complete(self) -> None:
        self.complete = True


class Payload(Completion):
    """The listener for callers that cannot read chunks: it also collects the payload."""

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def on_body(self, piece: bytes) -> None:
        self.pieces.append(piece)


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

    def __init__(self, parser: httptools.HttpResponseParser, listener: Completion) -> None:
        self._parser, self._listener = parser, listener
        self.done, self.excess = False, False

    def feed(self, data: bytes) -> bytes:
        if self.done:
            self.excess = self.excess or bool(data)
            return b""
        mark = data.find(b"\r\n\r\n")
        if (mark < 0 or mark + 4 == len(data)) and data[:1] > b"\r":  # no end of a line
            try:  # as in `_parse`, without the call: nearly every block, and if the message ends in it, then at its end
                self._parser.feed_data(data)
            except httptools.HttpParserError as error:
                raise _broken(error) from None
            self.done = self._listener.complete
            return data
        end = self._feed_in_pieces(data)
        return data if end == len(data) else data[:end]

    def _parse(self, piece: bytes) -> bool:
        """Feed a piece that ends where the message may end. Did it?"""
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserError as error:
            raise _broken(error) from None
        self.done = self._listener.complete
        return self.done

    def _feed_in_pieces(self, data: bytes) -> int:
        """Feed up to the message's end, and say where in `data` that is (or its length)."""
        at, size = 0, len(data)
        if data[:1] in _LINE_ENDS:  # the closing CRLF CRLF may lie across two blocks
            for at in range(1, min(3, size) + 1):
                if self._parse(data[at - 1 : at]):
                    self.excess = at < size
                    return at
        while (mark := data.find(b"\r\n\r\n", max(at - 3, 0))) >= 0 and mark + 4 < size:
            piece, at = data[at : mark + 4], mark + 4
            if self._parse(piece):
                self.excess = True
                return at
        self._parse(data[at:])
        return size

    def end(self) -> bytes:
        raise Truncated("the last chunk is missing")


def _broken(error: httptools.HttpParserError) -> BadAnswer:
    return BadAnswer(f"broken chunked framing ({error})")


class Dechunked(Chunked):
    """A chunked body for an HTTP/1.0 caller: the payload alone, the connection's end marks its end."""

    __slots__ = ("_pieces",)

    def __init__(self, parser: httptools.HttpResponseParser, listener: Payload) -> None:
        super().__init__(parser, listener)
        self._pieces = listener.pieces

    def feed(self, data: bytes) -> bytes:
        super().feed(data)
        payload = b"".join(self._pieces)
        self._pieces.clear()
        return payload


class UntilClose:
    """A body that the upstream's close ends. HTTP/1.1 callers get it in chunks, so that they can tell its end."""

    __slots__ = ("_rechunk", "done", "excess")

    def __init__(self, rechunk: bool) -> None:
        self._rechunk = rechunk
        self.done, self.excess = False, False

    def feed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._rechunk and data else data

    def end(self) -> bytes:
        self.done = True
        return b"0\r\n\r\n" if self._rechunk else b""
