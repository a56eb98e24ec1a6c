"""An upstream that does exactly what a script says, byte for byte, and keeps what it was sent."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.support.patience import PATIENCE_S


@dataclass
class Received:
    """One request as it arrived."""

    line: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    raw_head: bytes

    def field(self, name: bytes) -> bytes | None:
        """The value of the only field of that name, in any case; None where there is none."""
        found = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(found) <= 1, f"{name!r} came {len(found)} times"
        return found[0] if found else None


@dataclass
class Conversation:
    """One connection, from the upstream's side."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    upstream: "ScriptedUpstream"
    requests: list[Received] = field(default_factory=list)

    async def request(self) -> Received:
        """The next whole request. Raises IncompleteReadError when the connection ends before that."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        line, *lines = head[:-4].split(b"\r\n")
        fields = [tuple(text.split(b": ", 1)) for text in lines]
        received = Received(line, fields, b"", head)  # type: ignore[arg-type]
        if (length := received.field(b"content-length")) is not None:
            received.body = await self.reader.readexactly(int(length))
        elif received.field(b"transfer-encoding") is not None:
            received.body = await self._chunks()
        self.requests.append(received)
        self.upstream.requests.append(received)
        self.upstream.changed.set()
        return received

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            body += (await self.reader.readexactly(size + 2))[:-2]
            if size == 0:
                return body

    async def send(self, *pieces: bytes) -> None:
        """Send each piece by itself: the next one only when the system has taken it."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def gone(self) -> None:
        """Wait until the peer has ended the connection."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """End with RST instead of FIN."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Conversation], Awaitable[None]]


def answering(*pieces: bytes) -> Script:
    """Answers every request with the same pieces, each sent by itself, on a connection that stays open."""

    async def script(talk: Conversation) -> None:
        while True:
            await talk.request()
            await talk.send(*pieces)

    return script


def answering_then_closing(*pieces: bytes) -> Script:
    """Answers one request with the pieces, and closes."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(*pieces)
        talk.close()

    return script


def whole(body: bytes, *, status: bytes = b"200 OK", fields: bytes = b"Content-Type: application/json\r\n") -> bytes:
    """A plain answer."""
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, fields, len(body), body)


class Held:
    """A script that begins a stream, and ends it when a test says so."""

    HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    FIRST, LAST = b"7\r\ndata: 1\r\n", b"7\r\ndata: 2\r\n0\r\n\r\n"

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def __call__(self, talk: Conversation) -> None:
        await talk.request()
        await talk.send(self.HEAD, self.FIRST)
        ending = asyncio.get_running_loop().create_task(self.may_end.wait())
        leaving = asyncio.get_running_loop().create_task(talk.gone())
        await asyncio.wait([ending, leaving], return_when=asyncio.FIRST_COMPLETED)
        if self.may_end.is_set():
            await talk.send(self.LAST)
        ending.cancel()
        await leaving


class ScriptedUpstream:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Received] = []
        self.connections = 0
        self.open = 0
        self.failures: list[BaseException] = []  # of the script itself: a wrong test
        self.changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, host, port, limit=2**24)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://{host}:{self.port}/v1"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert not self.failures, self.failures

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            await self.script(Conversation(reader, writer, self))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the proxy closed the connection, or the test is over
        except BaseException as error:  # noqa: BLE001
            self.failures.append(error)
        finally:
            writer.close()
            self.open -= 1
            self._tasks.discard(task)
            self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that the upstream has seen makes `condition` true."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()
