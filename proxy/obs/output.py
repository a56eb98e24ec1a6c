"""Standard error that nobody is ever waited for at: a pipe whose reader has stopped, a full disk, a stopped terminal.

The lines of a container go through a pipe. When what reads it stops, the pipe is full after 64 KiB, and the next write
waits: for one log line, every caller would. To make the descriptor non-blocking would make it so for the terminal or
the process that shares it. A thread could do the waiting; but what it holds when the process dies is lost, and those
are the lines that say why. So the system is asked whether there is room before each write, and a write is as small as
that promise: where there is room at all, there is some for PIPE_BUF bytes (poll(2), pipe(7)). A file always has room.

What cannot be written is held, up to a bound, and goes first later on: so no line is torn. What is too much is dropped,
and a line says how much that was.
"""

import os
import select
import stat
from collections.abc import Callable
from typing import Protocol

MOST_HELD_BYTES = 1024 * 1024  # some 2,000 lines of the access log
LAST_WAIT_MS = 500  # for each piece of what is left at the end: a reader that reads is quicker


class Stream(Protocol):
    """As much of a text file as a log needs."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...
    def isatty(self) -> bool: ...


class Output:
    """A stream at which only `close` waits, and nothing raises. A watch calls `expired` at each of its ticks."""

    def __init__(self, descriptor: int, on_lost: Callable[[int], None] = lambda _: None) -> None:
        """`on_lost`: is told how many lines were dropped, as soon as there is room for saying so."""
        self._descriptor, self.on_lost = descriptor, on_lost
        self.deadline_s = 0.0
        self._held = bytearray()
        self._lost = 0  # lines
        self._room = select.poll()
        self._room.register(descriptor, select.POLLOUT)
        try:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        except OSError:  # there is none: started with it closed
            is_file = False
        self._piece_bytes = MOST_HELD_BYTES if is_file else select.PIPE_BUF

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, text: str, /) -> None:
        """Add whole lines, which `flush` writes."""
        data = text.encode(errors="backslashreplace")
        if len(self._held) + len(data) > MOST_HELD_BYTES:
            self._lost += data.count(b"\n")
        else:
            self._held += data

    def flush(self) -> None:
        """Write what there is room for."""
        self._write_held()
        if self._lost and not self._held:
            lost, self._lost = self._lost, 0
            self.on_lost(lost)

    def expired(self, now_s: float) -> None:
        """Perhaps there is room again."""
        if self._held:
            self.flush()

    def close(self) -> None:
        """Write the last lines, for as long as somebody takes them. The descriptor stays open: it is the process's."""
        self._write_held(LAST_WAIT_MS)
        self.flush()

    def _write_held(self, wait_ms: int = 0) -> None:
        while self._held and self._room.poll(wait_ms):
            try:
                written = os.write(self._descriptor, self._held[: self._piece_bytes])
            except OSError:  # a full disk, or nobody at the other end; either may change
                return
            del self._held[:written]
