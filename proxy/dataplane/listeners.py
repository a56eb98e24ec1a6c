"""Where callers are served: opened and closed while others are, all that is asked for or nothing.

What may fail comes first: addresses are bound, and the system holds whoever comes there. Callers are accepted when all
else of the change is in force.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial

from proxy.dataplane.callers import Door
from proxy.dataplane.sockets import take_no_more
from proxy.model.address import Address
from proxy.model.reasons import reason
from proxy.obs.log import Log
from proxy.state.listening import CannotListen, Wanted

BACKLOG = 4096  # connections the kernel may hold while we are busy

Protocols = Callable[[Door], asyncio.Protocol]


class _Listener:
    """One that is bound. `sockets`: one for each address that its name has."""

    def __init__(self, wanted: Wanted, door: Door, sockets: list[socket.socket]) -> None:
        self.wanted, self.door, self.sockets = wanted, door, sockets
        self._servers: list[asyncio.Server] = []

    @property
    def bound(self) -> tuple[str, int]:
        host, port, *_ = self.sockets[0].getsockname()
        return str(host), int(port)

    async def prepare(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """All but accepting callers. Raises OSError."""
        for each in self.sockets:
            server = await asyncio.get_running_loop().create_server(
                protocol,
                sock=each.dup(),
                backlog=BACKLOG,
                ssl=self.wanted.tls,
                ssl_handshake_timeout=self.wanted.handshake_timeout_s,
                ssl_shutdown_timeout=self.wanted.shutdown_timeout_s,
                start_serving=False,
            )
            self._servers.append(server)

    async def serve(self) -> None:
        for server in self._servers:
            await server.start_serving()

    def close(self) -> None:
        """Listen no more."""
        for server in self._servers:
            server.close()
        for each in self.sockets:
            each.close()


class Listeners:
    def __init__(self, protocol: Protocols, closed: Callable[[Door], None], log: Log) -> None:
        """`closed`: is told of a door by which nobody comes in any more."""
        self._protocol, self._closed, self._log = protocol, closed, log
        self._open: list[_Listener] = []
        self._ended = False

    @property
    def bound(self) -> list[tuple[str, int]]:
        """The addresses, as the system has them."""
        return [listener.bound for listener in self._open]

    @asynccontextmanager
    async def listening_on(self, wanted: Sequence[Wanted]) -> AsyncIterator[None]:
        """Bind what is new; at the end serve there, and no more where it is not wanted.

        Raises CannotListen; then, and if the block raises, all is as it was. After `close`, nothing is opened any more.
        """
        before, gone = self._open, list(self._open)
        kept = [_taken_out(gone, each) for each in wanted]
        made: list[_Listener] = []
        in_the_way: list[_Listener] = []
        try:
            for each, listener in zip(wanted, kept, strict=True):
                if listener is None and not self._ended:
                    made.append(await self._bind(each, gone, in_the_way))
            yield
        except BaseException:
            for listener in made:
                listener.close()
            for listener in () if self._ended else in_the_way:
                await self._again(listener)
            raise
        if self._ended:  # perhaps meanwhile
            for listener in made:
                listener.close()
            return
        new = iter(made)
        self._open = [listener or next(new) for listener in kept]
        for listener in gone:
            listener.close()
        for door in {listener.door for listener in gone} - {listener.door for listener in self._open}:
            self._closed(door)
        for listener in made:
            await listener.serve()
        if before and (made or gone):
            self._log.info("listening", listen=self.bound)

    async def _bind(self, wanted: Wanted, gone: Collection[_Listener], in_the_way: list[_Listener]) -> _Listener:
        """Raises CannotListen. `in_the_way`: takes those of `gone` that had to be closed for it."""
        before = next((each for each in gone if each.wanted.address == wanted.address), None)
        door = (
            before.door
            if before is not None and before.wanted.tls is wanted.tls
            else Door(not wanted.address.is_loopback)
        )
        try:
            if before is not None:  # the same address, served otherwise: whoever waits there is not turned away
                return await self._listener(wanted, door, [each.dup() for each in before.sockets])
            try:
                return await self._listener(wanted, door, await _bound(wanted.address))
            except OSError as error:
                overlapping = [each for each in gone if each.wanted.address.port == wanted.address.port]
                if error.errno != errno.EADDRINUSE or not overlapping:
                    raise
            for listener in overlapping:  # as 127.0.0.1:8080 is in the way of 0.0.0.0:8080
                listener.close()
            in_the_way += overlapping
            return await self._listener(wanted, door, await _bound(wanted.address))
        except OSError as error:
            raise CannotListen.on(wanted.address, error, "listen") from None

    async def _again(self, listener: _Listener) -> None:
        """It was closed for another, which came to nothing."""
        self._open.remove(listener)
        address = listener.wanted.address
        try:
            reopened = await self._listener(listener.wanted, listener.door, await _bound(address))
        except OSError as error:
            self._log.error("listener_lost", address=str(address), reason=reason(error))
            return
        self._open.append(reopened)
        await reopened.serve()

    async def _listener(self, wanted: Wanted, door: Door, sockets: list[socket.socket]) -> _Listener:
        """Owns `sockets` from here on. Raises OSError."""
        listener = _Listener(wanted, door, sockets)
        try:
            await listener.prepare(partial(self._protocol, door))
        except BaseException:
            listener.close()
            raise
        return listener

    def take_no_more(self) -> None:
        """Whoever is waiting to be accepted will be; nobody else."""
        for listener in self._open:
            for each in listener.sockets:
                take_no_more(each)

    def close(self) -> None:
        """Listen nowhere any more."""
        self._ended = True
        for listener in self._open:
            listener.close()
        self._open = []


def _taken_out(listeners: list[_Listener], wanted: Wanted) -> _Listener | None:
    """One that is just as wanted, if there is one."""
    for listener in listeners:
        if listener.wanted == wanted:
            listeners.remove(listener)
            return listener
    return None


async def _bound(address: Address) -> list[socket.socket]:
    """Sockets that listen: from here on the system holds callers who come. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, where in dict.fromkeys(found):
            made = socket.socket(family, kind, protocol)
            sockets.append(made)
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(where)
            made.listen(BACKLOG)
    except BaseException:
        for made in sockets:
            made.close()
        raise
    return sockets
