"""Where connections are handed over to a worker: it takes them in, and tells the doorman how many it has.

A connection counts from its taking over, before its handshake is done: few that come at once are spread evenly.
"""

import asyncio
import socket
from collections.abc import Callable

from proxy.controlplane.certificates import Certificates
from proxy.dataplane.server import DataPlane
from proxy.state.tasks import Tasks
from proxy.workers.doorman import LISTENER, TAKEN

_AT_ONCE = 64


class Door:
    def __init__(self, sock: socket.socket, tasks: Tasks, certificates: Callable[[], Certificates]) -> None:
        """`tasks`: whose those are that take a connection over."""
        self._socket, self._tasks, self._certificates = sock, tasks, certificates
        self._plane: DataPlane | None = None
        self._coming = self._untold = self._told = 0
        self._is_shut = False

    def open(self, plane: DataPlane) -> None:
        """From now on, `plane` is handed connections."""
        self._plane = plane
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self.take)

    def close(self) -> None:
        self._is_shut = True
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    @property
    def expects(self) -> bool:
        """May a connection still come, or is one being taken over?"""
        return not self._is_shut or self._coming > 0

    def take(self) -> None:
        """What waits there is taken over."""
        taken, plane = 0, self._plane
        assert plane is not None  # noqa: S101 - it was opened
        for _ in range(_AT_ONCE):
            try:
                said, descriptors, _, _ = socket.recv_fds(self._socket, LISTENER.size, 1)
            except (BlockingIOError, InterruptedError):
                break
            except ConnectionResetError:  # the doorman is gone, and what it had handed to us comes yet
                continue
            except OSError:
                said, descriptors = b"", []
            if not said:
                asyncio.get_running_loop().remove_reader(self._socket)
                self._is_shut = True
                break
            taken += 1
            if descriptors:  # none arrives where none can be had: the caller is gone when the doorman closes its own
                self._coming += 1
                self._tasks.spawn(self._take_over(plane, LISTENER.unpack(said)[0], descriptors[0]))
        if taken:
            self._tell(taken, self._has(plane))

    def look(self) -> None:
        """Tell the doorman if the number of connections is another one by now."""
        if self._plane is not None and (has := self._has(self._plane)) != self._told:
            self._tell(0, has)

    def _has(self, plane: DataPlane) -> int:
        return len(plane.callers.open) + self._coming

    async def _take_over(self, plane: DataPlane, listener: int, descriptor: int) -> None:
        connection = socket.socket(fileno=descriptor)
        try:
            connection.setblocking(False)
            await plane.take(connection, self._certificates().handshakes("listen", listener))
        except OSError:  # it left already, or its handshake failed
            connection.close()
        finally:
            self._coming -= 1

    def _tell(self, taken: int, has: int) -> None:
        self._told = has
        self._untold += taken
        try:
            self._socket.send(TAKEN.pack(self._untold, has))
        except OSError:
            self._told = -1  # to be told again
        else:
            self._untold = 0
