"""A caller that writes bytes and reads bytes: what an SDK would hide, it shows."""

import asyncio
import socket
from dataclasses import dataclass, field

from tests.support.patience import PATIENCE_S

CLIENT = b"Authorization: Bearer client-key\r\n"


def post(body: bytes = b'{"model":"m"}', *, target: bytes = b"/v1/chat/completions", fields: bytes = b"") -> bytes:
    """A plain request of a client that may call."""
    return b"POST %b HTTP/1.1\r\nHost: proxy\r\n%b%bContent-Length: %d\r\n\r\n%b" % (
        target,
        CLIENT,
        fields,
        len(body),
        body,
    )


def get(target: bytes = b"/v1/models", *, fields: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: proxy\r\n%b%b\r\n" % (target, CLIENT, fields)


@dataclass
class Answer:
    """One answer as it arrived. `body` is framed as it was sent; `payload` is what it means."""

    status: int
    reason: bytes
    fields: list[tuple[bytes, bytes]]
    head: bytes
    body: bytes
    payload: bytes
    whole: bool  # it came to the end that its framing announces

    def field(self, name: bytes) -> bytes | None:
        found = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(found) <= 1, f"{name!r} came {len(found)} times"
        return found[0] if found else None

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name.lower()]


@dataclass
class RawCaller:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    closed: bool = field(default=False)

    @classmethod
    async def connect(cls, port: int, *, receive_buffer_bytes: int = 0, ssl: object = None) -> "RawCaller":
        raw = socket.socket()
        if receive_buffer_bytes:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        options = {"ssl": ssl, "server_hostname": "localhost"} if ssl else {}
        return cls(*await asyncio.open_connection(sock=raw, limit=2**26, **options))

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def read_until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readuntil(mark)

    async def read_rest(self) -> bytes:
        """All bytes until the connection ends; a reset counts as an end."""
        got = b""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while piece := await self.reader.read(65536):
                    got += piece
            except ConnectionError:
                self.closed = True
        return got

    async def answer(self, *, to_head: bool = False) -> Answer:
        """The next answer, read as its own framing says. `to_head`: the request was a HEAD."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            line, *lines = head[:-4].split(b"\r\n")
            version, status, *reason = line.split(b" ", 2)
            assert version == b"HTTP/1.1", line
            fields = [tuple(text.split(b": ", 1)) if b": " in text else tuple(text.split(b":", 1)) for text in lines]
            answer = Answer(int(status), b"".join(reason), fields, head, b"", b"", whole=True)  # type: ignore[arg-type]
            if to_head or answer.status in (204, 304) or 100 <= answer.status < 200:
                return answer
            try:
                await self._body(answer)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                answer.whole = False
                answer.body += getattr(error, "partial", b"")
        return answer

    async def _body(self, answer: Answer) -> None:
        if (length := answer.field(b"content-length")) is not None:
            answer.body = answer.payload = await self.reader.readexactly(int(length))
        elif answer.field(b"transfer-encoding") is not None:
            await self._chunks(answer)
        else:
            while piece := await self.reader.read(65536):
                answer.body += piece
            answer.payload = answer.body

    async def _chunks(self, answer: Answer) -> None:
        while True:
            line = await self.reader.readuntil(b"\r\n")
            answer.body += line
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            piece = await self.reader.readexactly(size + 2)
            answer.body += piece
            answer.payload += piece[:-2]
        while True:
            line = await self.reader.readuntil(b"\r\n")
            answer.body += line
            if line == b"\r\n":
                return

    def close(self) -> None:
        self.writer.close()


async def ask(port: int, request: bytes) -> Answer:
    """One request on a connection of its own."""
    caller = await RawCaller.connect(port)
    try:
        await caller.send(request)
        return await caller.answer(to_head=request.startswith(b"HEAD "))
    finally:
        caller.close()
