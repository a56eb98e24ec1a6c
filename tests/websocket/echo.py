"""A WebSocket server that sends every message back, and answers each frame by itself.

What it answers hangs on the frames alone, never on the pieces that they come in: two runs of one case have one verdict.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Message, Ping, Request
from wsproto.extensions import PerMessageDeflate


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._websocket = WSConnection(ConnectionType.SERVER)
        self._pieces: list[str | bytes] = []
        self._closing = False

    def data_received(self, data: bytes) -> None:
        if self._closing:  # what the peer sent before it saw our end
            return
        self._websocket.receive_data(data)
        for event in self._websocket.events():
            self._answer(event)

    def _answer(self, event: Event) -> None:
        match event:
            case Request():
                self._send(AcceptConnection(extensions=[PerMessageDeflate()]))
            case Message():
                self._echo(event)
            case Ping():
                self._send(event.response())
            case CloseConnection():
                self._send(event.response())
                self._end()

    def _echo(self, message: Message) -> None:
        self._pieces.append(message.data)
        if message.message_finished:
            whole = type(message.data)().join(self._pieces)
            self._pieces.clear()
            self._send(type(message)(data=whole))

    def _send(self, event: Event) -> None:
        self._transport.write(self._websocket.send(event))

    def _end(self) -> None:
        """Only our own direction: bytes that nobody has read would turn the end into a reset."""
        self._closing = True
        self._transport.write_eof()


@asynccontextmanager
async def echo_server() -> AsyncIterator[str]:
    """Yields the server's `host:port`."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
