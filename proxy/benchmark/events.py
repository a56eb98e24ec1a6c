"""Server-sent events out of blocks of bytes that are cut anywhere.

Lines end with LF, CRLF or CR, and an empty one ends an event: html.spec.whatwg.org/multipage/server-sent-events.html.
"""

import re

_LINE = re.compile(rb"\r\n|\n|\r")


class Events:
    """Feed it blocks; it returns the data of the events that are whole."""

    __slots__ = ("_data", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, block: bytes) -> list[bytes]:
        rest = self._rest + block
        if rest.endswith(b"\r"):  # it may be half of a CRLF
            rest, held = rest[:-1], b"\r"
        else:
            held = b""
        *lines, last = _LINE.split(rest) if b"\r" in rest else rest.split(b"\n")
        self._rest = last + held
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            elif not line and self._data:
                if data := b"\n".join(self._data):  # an event without data is none
                    events.append(data)
                self._data.clear()
        return events
