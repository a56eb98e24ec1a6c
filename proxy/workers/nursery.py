"""Where workers come from: a process that has everything loaded and does nothing but fork.

A fresh interpreter takes a second to import all there is, in which a worker that died would be missed; a fork takes
milliseconds, and shares the memory of what is loaded. The process above runs a loop and threads, of which a fork would
be half a copy; so the nursery is forked from it before it begins those.
"""

import asyncio
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

_BORN, _ENDED = b"b", b"e"
_SAID = struct.Struct("!cii")
Run = Callable[[int, socket.socket, socket.socket], None]


class Nursery:
    """The end in the process above."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        self._control, self.pid = control, pid
        self.on_born: Callable[[int, int], None] = lambda worker, pid: None
        self.on_ended: Callable[[int, int], None] = lambda pid, status: None
        self.on_lost: Callable[[], None] = lambda: None

    @classmethod
    def begin(cls, run: Run) -> "Nursery":
        """Fork it now. `run` is what a worker does, with its number and its two sockets."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            ours.close()
            _never_return(_tend, theirs, run)
        theirs.close()
        ours.setblocking(False)
        return cls(ours, pid)

    def listen(self) -> None:
        """Hear of births and ends, in the running loop."""
        asyncio.get_running_loop().add_reader(self._control, self._hear)

    def bear(self, worker: int, link: socket.socket, door: socket.socket) -> None:
        """A new worker with this number is to be born. Raises OSError where the nursery is gone."""
        socket.send_fds(self._control, [b"%d" % worker], [link.fileno(), door.fileno()])

    def _hear(self) -> None:
        while True:
            try:
                said = self._control.recv(_SAID.size)
            except BlockingIOError:
                return
            except OSError:
                said = b""
            if not said:
                self.close()
                self.on_lost()
                return
            kind, one, other = _SAID.unpack(said)
            (self.on_born if kind == _BORN else self.on_ended)(one, other)

    def close(self) -> None:
        """It ends as it notices. Workers go on."""
        if self._control.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()


def _never_return(do: Callable[..., None], *arguments: object) -> NoReturn:
    """This process is a copy: what follows here is for the one it was copied from."""
    code = 1
    try:
        do(*arguments)
        code = 0
    except BaseException:  # noqa: BLE001 - as above
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _tend(control: socket.socket, run: Run) -> None:
    """Bear workers and tell of their ends, until nobody is left to tell."""
    woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # they are for the process above, which says what follows
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    watched: list[socket.socket | int] = [control, woken]
    while True:
        readable = select.select(watched, [], [])[0]
        if woken in readable:
            os.read(woken, 512)
            _bury(control)
        if control in readable:
            try:
                said, sockets, _, _ = socket.recv_fds(control, 16, 2)
            except ConnectionResetError:  # it was killed with something unread
                return
            if not said:
                return
            worker = int(said)
            try:
                pid = os.fork()
            except OSError:  # no more processes for now: it is heard that the worker's link ended, and another is sent
                pid = -1
            if pid == 0:
                control.close()
                os.close(woken)
                _never_return(_live, run, worker, sockets)
            for each in sockets:
                os.close(each)
            if pid > 0:
                _say(control, _BORN, worker, pid)


def _bury(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say(control, _ENDED, pid, os.waitstatus_to_exitcode(status))


def _say(control: socket.socket, kind: bytes, one: int, other: int) -> None:
    try:
        control.send(_SAID.pack(kind, one, other))
    except OSError:
        os._exit(0)


def _live(run: Run, worker: int, sockets: list[int]) -> None:
    """As the worker."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    link, door = sockets
    run(worker, socket.socket(fileno=link), socket.socket(fileno=door))
