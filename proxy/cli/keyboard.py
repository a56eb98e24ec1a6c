"""Single keys of a terminal, as they are pressed. Nothing where standard input is no terminal."""

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_ARROWS = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down"}


class Keyboard:
    def __init__(self, fd: int | None = None) -> None:
        """`fd`: a terminal's; None: there is none."""
        self._fd = fd

    def pressed(self, within_s: float) -> str | None:
        """The next key, `up` and `down` by name; None: there was none until then."""
        if self._fd is None:
            time.sleep(within_s)
            return None
        if not select.select([self._fd], [], [], within_s)[0]:
            return None
        # What cannot be read is a terminal that is gone: nobody looks any more.
        read = os.read(self._fd, 16) or b"q"
        return _ARROWS.get(read, read[:1].decode("ascii", "replace"))


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Of standard input, whose settings are as before afterwards."""
    try:
        import termios  # not there on every system
        import tty

        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd)
    except (ImportError, OSError, ValueError, termios.error):
        yield Keyboard()
        return
    try:
        tty.setcbreak(fd)
        yield Keyboard(fd)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
