"""Server-sent events out of blocks of bytes that are cut anywhere.

Lines end with LF, CRLF or CR, and an empty one ends an event: html.spec.whatwg.org/multipage/server-sent-events.html.
"""

import re

EVENT_BYTES_MAX = 8 << 20  # an image in base64; without a bound, an event that never ends takes all memory

_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLong(ValueError):
    """An event, or a line, has more than EVENT_BYTES_MAX."""


class Events:
    """Feed it blocks; it returns the data of the events that are whole."""

    __slots__ = ("_after_cr", "_begun", "_data", "_data_bytes", "_rest", "_rest_bytes")

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # of a line whose end has not come
        self._rest_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._after_cr = self._begun = False

    def feed(self, block: bytes) -> list[bytes]:
        """Raises EventTooLong."""
        if not block:
            return []
        if self._after_cr and block.startswith(b"\n"):  # the second half of an end
            block = block[1:]
        self._after_cr = block.endswith(b"\r")
        first, *others = _END.split(block) if b"\r" in block else block.split(b"\n")
        self._hold(first)
        if not others:
            return []
        whole, last = [b"".join(self._rest), *others[:-1]], others[-1]
        self._rest, self._rest_bytes = [], 0
        self._hold(last)
        return self._read(whole)

    def _hold(self, part: bytes) -> None:
        self._rest.append(part)
        self._rest_bytes += len(part)
        if self._rest_bytes + self._data_bytes > EVENT_BYTES_MAX:
            raise EventTooLong(f"an event of more than {EVENT_BYTES_MAX >> 20} MiB")

    def _read(self, lines: list[bytes]) -> list[bytes]:
        if not self._begun:
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
            self._begun = True
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                self._data_bytes += len(line)
            elif not line and self._data:
                if data := b"\n".join(self._data):  # an event without data is none
                    events.append(data)
                self._data.clear()
                self._data_bytes = 0
        return events
