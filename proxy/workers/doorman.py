"""Takes callers' connections, and hands each to the worker that has the fewest.

Workers that accepted for themselves would share badly: the kernel wakes whoever waited last, or sorts by a hash, and
eight long streams may all be one worker's. Here each connection costs a message, and none of its requests anything. A
connection that a worker has not confirmed goes to another one if that worker dies; and while there is no worker at
all, connections wait in the kernel, whose sockets are this process's and outlive every worker.

It has a thread of its own, for the process above may be busy with a configuration for longer than a caller should wait.
"""

import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

from proxy.dataplane.sockets import take_no_more

TAKEN = struct.Struct(
    "!II"
)  # by a worker: how many connections it took over since it last said so, and how many it has
LISTENER = struct.Struct("!I")  # to a worker, with each connection: which listener it came by
BACKLOG = 4096  # connections the kernel may hold while we are busy
_AT_ONCE = 64
_SHORT_OF_DESCRIPTORS_S = 0.1


@dataclass(eq=False, slots=True)
class _Worker:
    door: socket.socket
    has: int = 0  # connections, as it last said
    handed: deque[tuple[int, socket.socket]] = field(default_factory=deque)  # to it, and not confirmed yet
    is_full: bool = False  # its socket takes no more for now

    @property
    def load(self) -> int:
        return self.has + len(self.handed)


class Doorman:
    """Methods may be called from any thread; they are done by its own."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._woken, self._wakes = socket.socketpair()
        self._woken.setblocking(False)
        self._jobs: deque[Callable[[], None]] = deque()
        self._workers: list[_Worker] = []
        self._listeners: list[tuple[int, socket.socket]] = []
        self._waiting: deque[tuple[int, socket.socket]] = deque()  # for a worker
        self._accepts = False
        self._pause_s: float | None = None
        self._done: Callable[[], object] | None = None  # is called when all who have come are handed over
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="doorman", daemon=True)

    def start(self) -> None:
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._thread.start()

    def _do(self, job: Callable[[], None]) -> None:
        if not self._ended:
            self._jobs.append(job)
            self._wakes.send(b"w")

    # --- what it is told -----------------------------------------------------------------------------------------

    def listen(self, number: int, listening: socket.socket) -> None:
        """Accept here too. The socket is its own from now on, until `leave`."""
        self._do(lambda: self._listen(number, listening))

    def leave(self, number: int) -> None:
        """Accept no more there, and close the sockets."""
        self._do(lambda: self._leave(number))

    def take_no_more(self) -> None:
        """Let nobody else come; who has come is still handed over."""
        self._do(self._take_no_more)

    def finish(self, done: Callable[[], object]) -> None:
        """Once all who have come are handed over, tell the workers that nobody else comes, and then call `done`.

        It is called in its own thread, and not before there is a worker that can take them.
        """
        self._do(lambda: self._finish(done))

    def welcome(self, door: socket.socket) -> None:
        """A worker is ready."""
        self._do(lambda: self._welcome(_Worker(door)))

    def end(self) -> list[tuple[int, socket.socket]]:
        """Stop, and return the sockets that it listened on: they still collect callers. Once it has, there are none."""
        if self._thread.is_alive():
            self._do(self._end)
            self._thread.join()
        for each in (self._selector, self._woken, self._wakes):
            each.close()
        listeners, self._listeners = self._listeners, []
        return listeners

    # --- its thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended:
            paused = self._pause_s is not None
            for key, _ in self._selector.select(self._pause_s):
                if key.data is None:
                    self._woken.recv(4096)
                elif isinstance(key.data, _Worker):
                    self._hear(key.data)
                else:
                    self._accept(*key.data)
            if paused:
                self._pause_s = None
                self._look()
            while self._jobs:
                self._jobs.popleft()()
            if self._done is not None and not self._waiting and self._are_all_in():
                self._say_that_all_have_come(self._done)

    def _end(self) -> None:
        self._ended = True
        for _, connection in chain(self._waiting, *(worker.handed for worker in self._workers)):
            connection.close()

    def _take_no_more(self) -> None:
        for _, listening in self._listeners:
            take_no_more(listening)

    def _finish(self, done: Callable[[], object]) -> None:
        self._done = done

    def _are_all_in(self) -> bool:
        return all(self._accept(*each) for each in self._listeners)

    def _say_that_all_have_come(self, done: Callable[[], object]) -> None:
        for worker in self._workers:
            with suppress(OSError):  # it is gone, as will be heard
                worker.door.shutdown(socket.SHUT_WR)
        self._done = None
        done()

    def _listen(self, number: int, listening: socket.socket) -> None:
        listening.setblocking(False)
        self._listeners.append((number, listening))
        if self._accepts:
            self._selector.register(listening, selectors.EVENT_READ, (number, listening))

    def _leave(self, number: int) -> None:
        for each, listening in self._listeners:
            if each == number:
                if self._accepts:
                    self._selector.unregister(listening)
                listening.close()
        self._listeners = [each for each in self._listeners if each[0] != number]

    def _look(self) -> None:
        """Accept while there is somebody to hand connections to."""
        accepts = any(not worker.is_full for worker in self._workers) and self._pause_s is None and not self._waiting
        if accepts != self._accepts:
            self._accepts = accepts
            for number, listening in self._listeners:
                if accepts:
                    self._selector.register(listening, selectors.EVENT_READ, (number, listening))
                else:
                    self._selector.unregister(listening)

    def _welcome(self, worker: _Worker) -> None:
        worker.door.setblocking(False)
        self._workers.append(worker)
        self._selector.register(worker.door, selectors.EVENT_READ, worker)
        self._hand_out()

    def _gone(self, worker: _Worker) -> None:
        """What it was handed and did not confirm is for others."""
        self._workers.remove(worker)
        self._selector.unregister(worker.door)
        worker.door.close()
        self._waiting.extend(worker.handed)
        self._hand_out()

    def _accept(self, number: int, listening: socket.socket) -> bool:
        """Returns whether all who have come there are handed over."""
        for _ in range(_AT_ONCE):
            if not self._accepts or listening.fileno() < 0:
                return False
            try:
                connection, _ = listening.accept()
            except (InterruptedError, ConnectionAbortedError):
                continue
            except BlockingIOError:
                return True
            except OSError:  # no descriptors left: some may be closed soon
                self._pause_s = _SHORT_OF_DESCRIPTORS_S
                self._look()
                return False
            connection.setblocking(False)
            self._waiting.append((number, connection))
            self._hand_out()
        return False

    def _hand_out(self) -> None:
        while self._waiting:
            open_to = [worker for worker in self._workers if not worker.is_full]
            if not open_to:
                break
            worker = min(open_to, key=_load)
            number, connection = self._waiting[0]
            try:
                socket.send_fds(worker.door, [LISTENER.pack(number)], [connection.fileno()])
            except (BlockingIOError, InterruptedError):
                worker.is_full = True
                continue
            except OSError:
                worker.is_full = True  # it is gone, as will be heard
                continue
            worker.handed.append(self._waiting.popleft())
            self._workers.remove(worker)  # among equals whoever waited longest is next
            self._workers.append(worker)
        self._look()

    def _hear(self, worker: _Worker) -> None:
        try:
            said = worker.door.recv(TAKEN.size)
        except (BlockingIOError, InterruptedError, ConnectionResetError):
            return  # reset: it died with something unread, and what it said before that comes yet
        except OSError:
            said = b""
        if not said:
            self._gone(worker)
            return
        taken, worker.has = TAKEN.unpack(said)
        for _ in range(taken):
            worker.handed.popleft()[1].close()
        worker.is_full = False
        self._hand_out()


def _load(worker: _Worker) -> int:
    return worker.load


def bound(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen, one for each address that the name has. Raises OSError."""
    sockets: list[socket.socket] = []
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            chosen = sockets[0].getsockname()[1]  # by the system, where the port is 0
            listening.bind((address[0], chosen or port, *address[2:]))
            listening.listen(BACKLOG)
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets
