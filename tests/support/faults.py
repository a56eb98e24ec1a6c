"""A wire that misbehaves: a TCP proxy in this process, between Serinus and an upstream.

    async with FaultProxy(upstream.port) as faults:
        running = await proxy(config_for(faults.url))
        faults.mode = cut_after(120, rst=True)

A fault is a coroutine that is given the connection; `mode` is that of every new connection, `then(...)` says what the
next ones get before that. No fault knows of time: what waits, waits for the test.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self

from tests.support.patience import PATIENCE_S

BLOCK_BYTES = 65536


class Link:
    """One connection: its near side leads to Serinus, its far side, once there is one, to the upstream."""

    def __init__(self, proxy: "FaultProxy", reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        self.proxy, self._from_near, self.near = proxy, reader, near
        self._far: asyncio.StreamWriter | None = None
        self._ticked_bytes = 0  # that a throttled answer may still send
        self._ticked = asyncio.Event()

    @asynccontextmanager
    async def upstream(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """Pass everything on to the upstream; what comes back is for the fault to pass on."""
        from_far, self._far = await asyncio.open_connection("127.0.0.1", self.proxy.upstream_port)
        self._carrying = asyncio.get_running_loop().create_task(self._carry_up(self._far))
        try:
            yield _blocks(from_far)
        finally:
            self._carrying.cancel()
            await self.gone()

    async def _carry_up(self, far: asyncio.StreamWriter) -> None:
        try:
            async for block in _blocks(self._from_near):
                far.write(block)
                await far.drain()
                self.proxy.count(up=len(block))
            far.write_eof()
        except ConnectionError:
            far.transport.abort()

    async def down(self, block: bytes) -> None:
        """Send to Serinus, as fast as it takes it."""
        self.near.write(block)
        await self.near.drain()
        self.proxy.count(down=len(block))

    async def swallow(self) -> None:
        """Read what comes, until Serinus ends its side."""
        async for block in _blocks(self._from_near):
            self.proxy.count(swallowed=len(block))

    async def gone(self) -> None:
        """Wait until Serinus has ended its side."""
        await asyncio.wait([self._carrying])

    def all_sent(self) -> bool:
        return self.near.transport.get_write_buffer_size() == 0

    def tick(self, size: int) -> None:
        self._ticked_bytes += size
        self._ticked.set()

    async def down_by_ticks(self, block: bytes) -> None:
        while block:
            await self._ticked.wait()
            piece, block = block[: self._ticked_bytes], block[self._ticked_bytes :]
            self._ticked_bytes -= len(piece)
            if not self._ticked_bytes:
                self._ticked.clear()
            await self.down(piece)

    def reset(self) -> None:
        """End with RST instead of FIN."""
        raw: socket.socket | None = self.near.get_extra_info("socket")
        if raw is not None and not self.near.is_closing():
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.near.transport.abort()

    def close(self) -> None:
        self.near.close()
        if self._far is not None:
            self._far.transport.abort()


async def _blocks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while block := await reader.read(BLOCK_BYTES):
        yield block


Fault = Callable[[Link], Awaitable[None]]


# --- faults -----------------------------------------------------------------------------------------------------------


async def pass_through(link: Link) -> None:
    async with link.upstream() as answer:
        async for block in answer:
            await link.down(block)
    link.near.close()


async def drop(link: Link) -> None:
    """Accept, and close at once."""


async def rst(link: Link) -> None:
    """Accept, and reset at once."""
    link.reset()


async def black_hole(link: Link) -> None:
    """Take everything, and never answer."""
    await link.swallow()


def delay(until: asyncio.Event) -> Fault:
    """Hold every answer back until the test sets `until`."""

    async def fault(link: Link) -> None:
        async with link.upstream() as answer:
            async for block in answer:
                await until.wait()
                await link.down(block)

    return fault


async def _down_to(link: Link, answer: AsyncIterator[bytes], size: int) -> None:
    """Pass on so many bytes of the answer, or all there are. None: wait for its first byte all the same."""
    async for block in answer:
        if piece := block[:size]:
            await link.down(piece)
        size -= len(piece)
        if size == 0:
            return


def cut_after(size: int, *, rst: bool = False) -> Fault:
    """Pass on so many bytes of the answer, and end the connection; 0: as soon as there is an answer."""

    async def fault(link: Link) -> None:
        async with link.upstream() as answer:
            await _down_to(link, answer, size)
        if rst:
            await link.proxy.until(link.all_sent)
            link.reset()

    return fault


def half_close(size: int = 0) -> Fault:
    """Pass on so many bytes of the answer, and end this direction alone; 0: as soon as there is an answer."""

    async def fault(link: Link) -> None:
        async with link.upstream() as answer:
            await _down_to(link, answer, size)
            link.near.write_eof()
            await link.gone()

    return fault


def throttle(size: int) -> Fault:
    """Pass on so many bytes of the answer at each `tick` of the test."""

    async def fault(link: Link) -> None:
        async with link.upstream() as answer, link.proxy.ticking(link, size):
            async for block in answer:
                await link.down_by_ticks(block)

    return fault


# --- the proxy --------------------------------------------------------------------------------------------------------


class FaultProxy:
    """Listens on a port of its own, and keeps it though it should refuse for a while."""

    def __init__(self, upstream_port: int, mode: Fault = pass_through) -> None:
        self.upstream_port, self.mode = upstream_port, mode
        self.connections = self.open = 0
        self.up_bytes = self.down_bytes = self.swallowed_bytes = 0
        self._then: deque[Fault] = deque()
        self._throttled: dict[Link, int] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._held = _bound(0)  # bound and not listening: it keeps the port, and refuses
        self.port: int = self._held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self.refuse()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._held.close()

    async def listen(self) -> None:
        """Accept connections (again), on the same port as before."""
        self._server = await asyncio.start_server(self._serve, sock=_bound(self.port))

    def refuse(self) -> None:
        """Accept no more; open connections go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    @property
    def throttled(self) -> int:
        """How many answers wait for ticks."""
        return len(self._throttled)

    def then(self, *faults: Fault) -> None:
        """What the next connections get, each one of these; those that follow get `mode` again."""
        self._then.extend(faults)

    def tick(self) -> None:
        """Let each throttled answer send a little more."""
        for link, size in self._throttled.items():
            link.tick(size)

    def count(self, *, up: int = 0, down: int = 0, swallowed: int = 0) -> None:
        self.up_bytes += up
        self.down_bytes += down
        self.swallowed_bytes += swallowed

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that has passed here makes `condition` true."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - any state may be asked for
                await asyncio.sleep(0)

    @asynccontextmanager
    async def ticking(self, link: Link, size: int) -> AsyncIterator[None]:
        self._throttled[link] = size
        try:
            yield
        finally:
            del self._throttled[link]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        link = Link(self, reader, writer)
        fault = self._then.popleft() if self._then else self.mode
        try:
            await fault(link)
        except (ConnectionError, asyncio.CancelledError):
            link.reset()  # one side was reset, so the other is; or the test is over
        finally:
            link.close()
            self.open -= 1
            self._tasks.discard(task)


def _bound(port: int) -> socket.socket:
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    raw.bind(("127.0.0.1", port))
    return raw
