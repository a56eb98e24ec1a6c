"""The data plane as a whole: its parts put together, listening, drained, closed."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace

from proxy.dataplane.account import Account
from proxy.dataplane.aiohttp_lane import AiohttpLane
from proxy.dataplane.callers import Callers, Limits
from proxy.dataplane.deadlines import Watch
from proxy.dataplane.fast_lane import FastLane
from proxy.dataplane.handler import Handler
from proxy.dataplane.local_answers import LocalAnswers
from proxy.dataplane.sockets import take_no_more
from proxy.dataplane.tools import Tools
from proxy.dataplane.upstream import ConnectionPools
from proxy.model.settings import Settings
from proxy.obs.log import AccessLog, Log
from proxy.state.live import KeyLive
from proxy.state.makers import Makers
from proxy.state.snapshot import ClientKeys, Snapshot, Snapshots
from proxy.state.tasks import Tasks

DRAIN_LOOK_S = 0.05
ACCEPT_S = 0.01  # for whom the kernel has taken and the loop has not
BACKLOG = 4096  # connections the kernel may hold while we are busy


class DataPlane:
    def __init__(
        self,
        snapshots: Snapshots,
        limits: Limits,
        clock: Callable[[], float],
        log: Log,
        access_log: AccessLog | None,
        dice: Callable[[int], int],
        id_prefix: str,
        wall_clock: Callable[[], float] = lambda: 0.0,
        makers: Makers | None = None,
    ) -> None:
        self._snapshots, self._clock = snapshots, clock
        self._tasks = Tasks()
        self.watch = Watch(clock)
        self._pools = ConnectionPools(clock, self._tasks)
        account = Account(snapshots, clock, access_log)
        self.callers = Callers(limits, self.watch, account, clock, log)
        tools = Tools(
            clock,
            self._pools,
            self.watch,
            account,
            makers or Makers(clock),
            stall_timeout_s=limits.stall_timeout_s,
            wall_clock=wall_clock,
            dice=lambda: dice(32) / 2**32,
            log=log,
        )
        handler = Handler(snapshots, tools, clock, dice, id_prefix)
        self._full_lane = AiohttpLane(handler, LocalAnswers(tools), self.callers)
        self._fast_lane = FastLane(handler, self.callers, self._full_lane.protocol)
        self._servers: list[asyncio.Server] = []

    def start(self) -> None:
        self._pools.keep_only(tuple(self._snapshots.current.upstreams.values()))
        self.watch.add(self._pools)
        self.watch.start()

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> tuple[str, int]:
        """Serve callers on an address; port 0 lets the system choose. Returns what it became. Raises OSError."""
        loop = asyncio.get_running_loop()
        limits = self.callers.limits
        server = await loop.create_server(
            self._protocol,
            host,
            port,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else limits.head_timeout_s,
            ssl_shutdown_timeout=None if tls is None else limits.stall_timeout_s,
        )
        self._servers.append(server)
        bound = server.sockets[0].getsockname()
        return str(bound[0]), int(bound[1])

    async def take(self, connection: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Serve a caller whose connection another process accepted. Raises OSError where it left."""
        limits = self.callers.limits
        await asyncio.get_running_loop().connect_accepted_socket(
            self._protocol,
            connection,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else limits.head_timeout_s,
            ssl_shutdown_timeout=None if tls is None else limits.stall_timeout_s,
        )

    def _protocol(self) -> asyncio.Protocol:
        return (self._fast_lane if self._snapshots.current.fast_lane else self._full_lane).protocol()

    def swap(self, snapshot: Snapshot, settings: Settings, addresses: Mapping[str, tuple[str, ...]]) -> None:
        """Requests that come from now on use `snapshot`, built from the other two; those under way keep theirs."""
        self._snapshots.current = snapshot
        self._pools.keep_only(tuple(snapshot.upstreams.values()))

    def swap_clients(self, clients: ClientKeys | None) -> None:
        """The same configuration, but who may call: nothing else is built anew, so nothing can stand in the way."""
        self._snapshots.current = replace(self._snapshots.current, clients=clients)

    @property
    def busy(self) -> int:
        """How many callers are being served."""
        return sum(connection.busy for connection in self.callers.open)

    @property
    def connections(self) -> int:
        """Open ones of callers."""
        return len(self.callers.open)

    async def cut_holders(self, keys: Collection[KeyLive]) -> int:
        """End, visibly, what is under way with one of these keys. Returns how many there were."""
        held = [exchange for caller in self.callers.open if (exchange := caller.exchange) and exchange.holds(keys)]
        for exchange in held:
            exchange.abort("its key was revoked")
        return len(held)

    async def cut_clients(self, digests: Collection[bytes]) -> int:
        """Likewise, what came with one of these clients' keys."""
        clients = self._snapshots.current.clients
        open_now = [exchange for caller in self.callers.open if (exchange := caller.exchange) and not exchange.ended]
        held = [] if clients is None else [each for each in open_now if each.came_with(digests, clients)]
        for exchange in held:
            exchange.abort("its client's key was revoked")
        return len(held)

    def begin_drain(self) -> None:
        """Go on serving, but let each answer that begins be its connection's last."""
        self.callers.draining = True

    async def drain(self, pre_drain_s: float, timeout_s: float) -> None:
        """Be taken out of service, let what runs come to its end, stop listening."""
        self.begin_drain()
        await asyncio.sleep(pre_drain_s)
        for server in self._servers:
            for each in server.sockets:
                take_no_more(each)
        await asyncio.sleep(ACCEPT_S)
        self.stop_listening()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(DRAIN_LOOK_S)  # who was accepted last appears
                while self.callers.remain:  # noqa: ASYNC110 - an event would be paid for on every request
                    await asyncio.sleep(DRAIN_LOOK_S)

    def stop_listening(self) -> None:
        for server in self._servers:
            server.close()
        self.callers.drain()

    async def close(self) -> None:
        """End everything that is left, visibly for those who wait for an answer."""
        self.stop_listening()
        self.callers.cut_all("the proxy is stopping")
        await self._full_lane.close()
        self._pools.close()
        self.watch.stop()
        await self._tasks.close()
