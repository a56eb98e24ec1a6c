"""Connections to upstreams: opened, kept for the next request, and let go.

Not aiohttp's ClientSession: it parses every header into objects, decompresses, follows redirects and queues behind a
limit of 100 connections. A proxy wants none of it; it wants the bytes, and the pauses.
"""

import asyncio
import errno
import math
import ssl
from collections.abc import Callable, Collection
from typing import Protocol, cast

from proxy.dataplane.addresses import Addresses
from proxy.state.snapshot import Endpoint, Upstream
from proxy.state.tasks import Tasks

WRITE_HIGH_WATER_BYTES = 64 * 1024
READ_BYTES = 64 * 1024
WARM_AGAIN_S = 1.0  # after an attempt to open ahead that failed


class Carried(Protocol):
    """What a connection tells the exchange it carries."""

    def connected(self, connection: "UpstreamConnection") -> None: ...
    def connect_failed(self, reason: str, *, timed_out: bool) -> None: ...
    def received(self, data: bytes) -> None: ...
    def upstream_closed(self, error: Exception | None) -> None: ...
    def upstream_writable(self, writable: bool) -> None: ...
    def upstream_eof(self) -> bool:
        """The upstream sends no more. Is our side to stay open?"""


class UpstreamConnection(asyncio.BufferedProtocol):
    """One connection, carrying one exchange at a time.

    It says where its bytes are read to, for the loop's own buffer holds 256 KB: so much of a flood would be read for a
    caller who takes nothing, before there is a moment to pause it.
    """

    __slots__ = ("_pool", "_read_into", "address", "exchange", "idle_since_s", "transport", "uses")

    def __init__(self, pool: "ConnectionPool") -> None:
        self._pool = pool
        self._read_into = pool.read_into
        self.exchange: Carried | None = None
        self.idle_since_s = 0.0
        self.uses = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        self.address = str((transport.get_extra_info("peername") or ("",))[0])

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._read_into

    def buffer_updated(self, nbytes: int) -> None:
        exchange = self.exchange
        if exchange is None:  # bytes nobody asked for: whatever they are, they are no answer to the next request
            self.transport.abort()
        else:
            exchange.received(self._read_into[:nbytes].tobytes())

    def eof_received(self) -> bool:
        exchange = self.exchange
        if exchange is None:
            return False
        if exchange.upstream_eof():
            return True
        if self.exchange is exchange and self.transport.get_write_buffer_size() > 0:
            self.abort()  # the transport would first wait until all of the request is taken, which may be never
            exchange.upstream_closed(None)
        return False  # the transport closes, and connection_lost follows

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.lost(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.upstream_closed(error)

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.upstream_writable(False)

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.upstream_writable(True)

    def abort(self) -> None:
        """End the connection now, without a word to the exchange."""
        self.exchange = None
        self.transport.abort()


class ConnectionPool:
    """The connections to one endpoint. The one used last is used next, so that the surplus grows old and is closed."""

    def __init__(self, endpoint: Endpoint, clock: Callable[[], float], tasks: Tasks, read_into: memoryview) -> None:
        self._endpoint, self._clock, self._tasks = endpoint, clock, tasks
        self.read_into = read_into
        self._idle: list[UpstreamConnection] = []
        self._addresses = Addresses(endpoint.host, endpoint.port, endpoint.resolve_interval_s)
        self._closed = self._moved = False
        self.warming = 0  # connections that are being opened ahead
        self.warm_again_s = 0.0  # not before

    def __len__(self) -> int:
        return len(self._idle)

    def take(self) -> UpstreamConnection | None:
        """An idle connection, if there is one that is not closing."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                connection.uses += 1
                return connection
        return None

    def give(self, connection: UpstreamConnection) -> None:
        """Keep a connection that is in between two answers."""
        connection.exchange = None
        if (
            self._closed
            or len(self._idle) >= self._endpoint.max_idle
            or connection.transport.is_closing()
            or (self._moved and self._addresses.has_left(connection.address))
        ):
            connection.transport.close()
            return
        connection.idle_since_s = self._clock()
        self._idle.append(connection)

    def open(self, exchange: Carried) -> asyncio.Task[None]:
        """Open a connection for `exchange`, which is told of it, or why there is none."""
        return self._tasks.spawn(self._open(exchange))

    async def _open(self, exchange: Carried) -> None:
        endpoint = self._endpoint
        try:
            async with asyncio.timeout(endpoint.connect_timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: UpstreamConnection(self),
                    endpoint.host,
                    endpoint.port,
                    ssl=endpoint.tls,
                    server_hostname=endpoint.server_name if endpoint.tls is not None else None,
                )
        except TimeoutError:
            exchange.connect_failed("no connection in time", timed_out=True)
        except OSError as error:  # ssl.SSLError and socket.gaierror are among them
            exchange.connect_failed(_reason(error), timed_out=False)
        except Exception as error:  # a host name that is none, say: the exchange must not wait for ever
            exchange.connect_failed(type(error).__name__, timed_out=False)
            raise
        else:
            connection.uses = 1
            if connection.transport.is_closing():
                exchange.connect_failed("closed as soon as it was open", timed_out=False)
            else:
                self._hand_over(connection, exchange)

    def _hand_over(self, connection: UpstreamConnection, exchange: Carried) -> None:
        try:
            exchange.connected(connection)
        except Exception:
            connection.abort()
            exchange.connect_failed("the proxy failed; its log says why", timed_out=False)
            raise

    def lost(self, connection: UpstreamConnection) -> None:
        if connection.exchange is None:
            try:
                self._idle.remove(connection)
                now_s = self._clock()
                if now_s < connection.idle_since_s + WARM_AGAIN_S:  # it keeps none: do not call without end
                    self.warm_again_s = now_s + WARM_AGAIN_S
            except ValueError:
                pass  # it was in use, or on its way out

    def tend(self, now_s: float) -> None:
        """Close what has been idle for too long (the oldest stand first), and open ahead what is wanted."""
        oldest_s = now_s - self._endpoint.idle_timeout_s
        while self._idle and self._idle[0].idle_since_s <= oldest_s:
            self._idle.pop(0).transport.close()
        if self._addresses.is_due(now_s):
            self._tasks.spawn(self._look_up())
        if now_s >= self.warm_again_s:
            for _ in range(self._endpoint.min_idle - len(self._idle) - self.warming):
                self.warming += 1
                self.open(_OpenedAhead(self, now_s + WARM_AGAIN_S))

    async def _look_up(self) -> None:
        """Where is the name now? Idle connections to elsewhere close at once, others when they fall idle."""
        if await self._addresses.ask():
            self._moved = True
            for connection in self._idle[:]:
                if self._addresses.has_left(connection.address):
                    connection.transport.close()

    def close(self) -> None:
        """Close what is idle, and later what now is in use."""
        self._closed = True
        while self._idle:
            self._idle.pop().transport.close()


class _OpenedAhead:
    """Stands in for the exchange that a connection will carry one day."""

    def __init__(self, pool: ConnectionPool, again_s: float) -> None:
        self._pool, self._again_s = pool, again_s

    def connected(self, connection: UpstreamConnection) -> None:
        self._pool.warming -= 1
        self._pool.give(connection)

    def connect_failed(self, reason: str, *, timed_out: bool) -> None:
        self._pool.warming -= 1
        self._pool.warm_again_s = self._again_s

    def received(self, data: bytes) -> None: ...
    def upstream_closed(self, error: Exception | None) -> None: ...
    def upstream_writable(self, writable: bool) -> None: ...
    def upstream_eof(self) -> bool:
        return False


class _LastBytes:
    """What a connection carries when its exchange is over and its last bytes must still arrive: they have a while.

    What comes meanwhile is read and thrown away: to close over unread bytes is to reset, and what the system has not
    sent yet would be lost.
    """

    def __init__(self, connection: UpstreamConnection, until_s: float, leaving: "set[_LastBytes]") -> None:
        self.connection, self.until_s, self._leaving = connection, until_s, leaving
        leaving.add(self)

    def upstream_closed(self, error: Exception | None) -> None:
        self._leaving.discard(self)

    def upstream_eof(self) -> bool:
        self.connection.transport.close()  # when all is sent
        return True

    def connected(self, connection: UpstreamConnection) -> None: ...
    def connect_failed(self, reason: str, *, timed_out: bool) -> None: ...
    def received(self, data: bytes) -> None: ...
    def upstream_writable(self, writable: bool) -> None: ...


class ConnectionPools:
    """The pools of all upstreams of the configuration in force. Upstreams with equal endpoints share one."""

    def __init__(self, clock: Callable[[], float], tasks: Tasks) -> None:
        self._clock, self._tasks = clock, tasks
        self._read_into = memoryview(bytearray(READ_BYTES))  # one for all: what is read is handed on before the next
        self._pools: dict[Endpoint, ConnectionPool] = {}
        self._by_upstream: dict[Upstream, ConnectionPool] = {}  # hashing an endpoint on each request would cost more
        self._leaving: set[_LastBytes] = set()
        self.deadline_s = 0.0  # a watch looks at the idle ones at each of its ticks

    def of(self, upstream: Upstream) -> ConnectionPool:
        pool = self._by_upstream.get(upstream)
        if pool is None:
            endpoint = upstream.endpoint
            pool = self._pools.get(endpoint) or self._pools.setdefault(
                endpoint, ConnectionPool(endpoint, self._clock, self._tasks, self._read_into)
            )
            self._by_upstream[upstream] = pool
        return pool

    def keep_only(self, upstreams: Collection[Upstream]) -> None:
        """Have pools for these. Connections to endpoints that none of them names close, each when it falls idle."""
        self._by_upstream.clear()
        for endpoint in self._pools.keys() - {upstream.endpoint for upstream in upstreams}:
            self._pools.pop(endpoint).close()
        for upstream in upstreams:
            self.of(upstream)

    def expired(self, now_s: float) -> None:
        for pool in self._pools.values():
            pool.tend(now_s)
        self._end_leaving(now_s)

    def let_go(self, connection: UpstreamConnection, until_s: float, *, ended: bool) -> None:
        """End a connection, but not before its last bytes have arrived or it is `until_s`.

        `ended`: the upstream has ended its side.
        """
        connection.exchange = _LastBytes(connection, until_s, self._leaving)
        transport = connection.transport
        if ended or not transport.can_write_eof():
            transport.close()
        else:
            transport.write_eof()
            transport.resume_reading()

    def _end_leaving(self, now_s: float) -> None:
        for last in [last for last in self._leaving if last.until_s <= now_s]:
            self._leaving.discard(last)
            last.connection.abort()

    def close(self) -> None:
        self.keep_only(())
        self._end_leaving(math.inf)


def _reason(error: OSError) -> str:
    """Why a connection failed, for logs: the system's or OpenSSL's own word for it, without addresses."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):  # its errno is OpenSSL's, not the system's
        return error.reason or type(error).__name__
    if error.errno is not None and error.errno in errno.errorcode:
        return errno.errorcode[error.errno]
    return type(error).__name__
