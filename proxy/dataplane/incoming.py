"""The request that the parser is in, or was in last: can its body still come, and does too much come for it?

The body's reader is told by an exception, which whoever reads it meets, were it whole meanwhile.
"""

from collections.abc import Sequence
from typing import Any

from aiohttp import EMPTY_PAYLOAD, StreamReader

from proxy.dataplane.parsing import MAX_OVERHEAD_BYTES, as_proxy_error


class Incoming:
    """Counts what surely came for one request.

    A block that may be of another too counts for neither: of a request between others, its first and its last.
    """

    __slots__ = ("_bytes", "_chunked", "_content", "_held_bytes", "_open")

    def __init__(self) -> None:
        self._content: StreamReader = EMPTY_PAYLOAD
        self._chunked = False
        self._open = False  # is its end still to come?
        self._bytes = 0  # what came for it,
        self._held_bytes = 0  # and what did since, which may be of the next one, or not be parsed yet

    def read(self, size: int, begun: Sequence[tuple[Any, StreamReader]], *, paused: bool, whole: bool) -> None:
        """The parser has read on: `size` more bytes came, and these messages or errors with them.

        `paused`: the parser may hold some of what came. `whole`: what came last was the end of a message.
        """
        was_open = self._open
        self._held_bytes += size
        if begun:
            if was_open and not self._content.is_eof():  # before its end, all that can begin is an error
                self._content.set_exception(as_proxy_error(getattr(begun[0][0], "exc", None)))
            if was_open or len(begun) > 1:
                self._held_bytes = 0
            message, self._content = begun[-1]
            self._chunked, self._bytes = getattr(message, "chunked", False), 0
        self._open = not self._content.is_eof()
        if not paused and (self._open or whole):
            self._bytes += self._held_bytes
        if not (paused and self._open):
            self._held_bytes = 0
        if (was_open or begun) and self._chunked and self._is_too_much():
            self._content.set_exception(as_proxy_error(None))
        if not self._open:
            self._content = EMPTY_PAYLOAD  # a reader holds its connection, which holds this

    def _is_too_much(self) -> bool:
        return self._bytes > MAX_OVERHEAD_BYTES + 16 * self._content.total_bytes
