"""The data plane as a whole: its parts put together, listening, drained, closed."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace

from proxy.dataplane.account import Account
from proxy.dataplane.aiohttp_lane import AiohttpLane
from proxy.dataplane.callers import Callers, Door
from proxy.dataplane.deadlines import Watch
from proxy.dataplane.fast_lane import FastLane
from proxy.dataplane.handler import Handler
from proxy.dataplane.listeners import Listeners
from proxy.dataplane.local_answers import LocalAnswers
from proxy.dataplane.tools import Tools
from proxy.dataplane.tracer import Tracer
from proxy.dataplane.upstream import ConnectionPools
from proxy.model.settings import Settings
from proxy.obs.log import AccessLog, Log
from proxy.state.listening import Wanted
from proxy.state.live import KeyLive
from proxy.state.makers import Makers
from proxy.state.snapshot import ClientKeys, Snapshot, Snapshots
from proxy.state.tasks import Tasks

DRAIN_LOOK_S = 0.05
ACCEPT_S = 0.01  # for whom the kernel has taken and the loop has not


class DataPlane:
    def __init__(
        self,
        snapshots: Snapshots,
        clock: Callable[[], float],
        log: Log,
        access_log: AccessLog | None,
        dice: Callable[[int], int],
        id_prefix: str,
        wall_clock: Callable[[], float] = lambda: 0.0,
        makers: Makers | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._snapshots, self._clock = snapshots, clock
        self._tasks = Tasks()
        self.watch = Watch(clock)
        self._pools = ConnectionPools(clock, self._tasks)
        self._account, self._access_log = Account(snapshots, clock, None), access_log
        self.callers = Callers(snapshots.current.caller_limits, self.watch, self._account, clock, log)
        tools = Tools(
            clock,
            self._pools,
            self.watch,
            self._account,
            makers or Makers(clock),
            self.callers,
            wall_clock=wall_clock,
            dice=lambda: dice(32) / 2**32,
            log=log,
            tracer=tracer,
        )
        self._account.tracer = tracer
        handler = Handler(snapshots, tools, clock, dice, id_prefix, tracer)
        self._full_lane = AiohttpLane(handler, LocalAnswers(tools), self.callers)
        self._fast_lane = FastLane(handler, self.callers, self._full_lane.protocol)
        self._listeners = Listeners(self._protocol, self._closed, log)
        self._elsewhere = Door()  # of another process
        self._use(snapshots.current)

    def start(self) -> None:
        self._pools.keep_only(tuple(self._snapshots.current.upstreams.values()))
        self.watch.add(self._pools)
        self.watch.start()

    def listening_on(self, wanted: Sequence[Wanted]) -> AbstractAsyncContextManager[None]:
        """Bind what is new; at the end of the block serve there, and no more where it is not wanted.

        Raises CannotListen; then, and if the block raises, all is as it was.
        """
        return self._listeners.listening_on(wanted)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where callers are served."""
        return self._listeners.bound

    async def take(self, connection: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Serve a caller whose connection another process accepted. Raises OSError where it left."""
        limits = self.callers.limits
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: self._protocol(self._elsewhere),
            connection,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else limits.head_timeout_s,
            ssl_shutdown_timeout=None if tls is None else limits.stall_timeout_s,
        )

    def _protocol(self, door: Door) -> asyncio.Protocol:
        return (self._fast_lane if self._snapshots.current.fast_lane else self._full_lane).protocol(door)

    def _closed(self, door: Door) -> None:
        self.callers.close(door, open_to_anyone=self._snapshots.current.clients is None)

    def swap(self, snapshot: Snapshot, settings: Settings, addresses: Mapping[str, tuple[str, ...]]) -> None:
        """Requests that come from now on use `snapshot`, built from the other two; those under way keep theirs."""
        self._use(snapshot)
        self._pools.keep_only(tuple(snapshot.upstreams.values()))

    def _use(self, snapshot: Snapshot) -> None:
        self._snapshots.current = snapshot
        self.callers.limits = snapshot.caller_limits
        self._account.access_log = self._access_log if snapshot.logs_access else None

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

    async def drain(self, pre_drain_s: float, timeout_s: float, expects: Callable[[], bool] = lambda: False) -> None:
        """Be taken out of service, let what runs come to its end, stop listening.

        `expects`: may connections still be handed over?
        """
        self.begin_drain()
        await asyncio.sleep(pre_drain_s)
        self._listeners.take_no_more()
        await asyncio.sleep(ACCEPT_S)
        await asyncio.sleep(0)  # a loop that was kept waiting looks at its timers before its sockets
        self.stop_listening()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(DRAIN_LOOK_S)  # who was accepted last appears
                while self.callers.remain or expects():  # noqa: ASYNC110 - an event would be paid for on every request
                    await asyncio.sleep(DRAIN_LOOK_S)

    def stop_listening(self) -> None:
        self._listeners.close()
        self.callers.drain()

    async def close(self) -> None:
        """End everything that is left, visibly for those who wait for an answer."""
        self.stop_listening()
        self.callers.cut_all("the proxy is stopping")
        await self._full_lane.close()
        self._pools.close()
        self.watch.stop()
        await self._tasks.close()
