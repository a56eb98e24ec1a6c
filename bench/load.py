"""The load that faults are measured under: 500 requests a second and 100 open streams."""

import asyncio
import time
from collections import Counter

import stand

RATE, CALLERS, STREAMS = 500, 25, 100
EVENT_EVERY_S = 0.5
PLAIN_BODY = b'{"model":"m"}'
PLAIN = stand.REQUEST.replace(b"Content-Length: %d" % len(stand.BODY), b"Content-Length: %d" % len(PLAIN_BODY))
PLAIN = PLAIN.replace(stand.BODY, PLAIN_BODY)
LAST = b"\r\n0\r\n\r\n"


class Vendor:
    """Streams to who asks for a stream, for so long or until told to end; answers others at once."""

    def __init__(self, stream_s: float = 3600.0) -> None:
        self._stream_s = stream_s
        self.may_end = asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if b'"stream":true' in await reader.readexactly(length):
                await self._stream(writer)
            else:
                writer.write(stand.ANSWER)

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(stand.STREAM_HEAD + stand.CHUNK)
        ends_s = time.monotonic() + self._stream_s  # noqa: TID251 - a benchmark has the clock
        while time.monotonic() < ends_s and not self.may_end.is_set():  # noqa: TID251
            await asyncio.sleep(EVENT_EVERY_S)
            writer.write(stand.CHUNK)
            await writer.drain()
        writer.write(b"0\r\n\r\n")


class Streams:
    """Callers in the middle of a stream."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._begun = asyncio.Semaphore(0)
        self._callers: list[asyncio.Task[str]] = []

    async def begin(self) -> None:
        self._callers = [asyncio.get_running_loop().create_task(self._stream()) for _ in range(STREAMS)]
        for _ in range(STREAMS):
            await self._begun.acquire()

    async def _stream(self) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(stand.REQUEST)
        got = await reader.readuntil(stand.CHUNK)
        self._begun.release()
        try:
            while not got.endswith(LAST) and (piece := await reader.read(65536)):
                got = got[-len(LAST) :] + piece
        except ConnectionError:
            pass
        finally:
            writer.close()
        return "whole" if got.endswith(LAST) else "cut"

    async def ended(self) -> Counter[str]:
        """How they ended: whole, or cut."""
        return Counter(await asyncio.gather(*self._callers))


class Requests:
    """Callers who ask at a rate on kept connections, and connect anew where an answer was the last one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.seen: Counter[str] = Counter()
        self.stopped = asyncio.Event()
        self.refused_s = 0.0  # when a connect was, by time.monotonic()

    @property
    def failed(self) -> int:
        return self.seen.total() - self.seen["200"]

    async def run(self, seconds: float | None = None) -> None:
        """Ask for so long, or until stopped or refused."""
        self.stopped.clear()
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self.stopped.set)
        async with asyncio.TaskGroup() as asking:
            for _ in range(CALLERS):
                asking.create_task(self._ask())

    async def _ask(self) -> None:
        wires: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        due_s = time.monotonic()  # noqa: TID251
        while not self.stopped.is_set():
            try:
                wires = wires or await asyncio.open_connection("127.0.0.1", self._port)
            except ConnectionError:
                self.refused_s = self.refused_s or time.monotonic()  # noqa: TID251
                self.stopped.set()
                return
            if await self._is_last(*wires):
                wires[1].close()
                wires = None
            due_s += CALLERS / RATE
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))  # noqa: TID251
        if wires is not None:
            wires[1].close()

    async def _is_last(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Ask once. Was the answer the connection's last?"""
        try:
            writer.write(PLAIN)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        except (ConnectionError, asyncio.IncompleteReadError):
            self.seen["no answer"] += 1
            return True
        self.seen[head[9:12].decode()] += 1
        return b"\r\nconnection: close\r\n" in head
