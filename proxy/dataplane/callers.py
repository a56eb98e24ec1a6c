"""The open connections of callers, in whichever lane: what they are held to, and how they are drained."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from proxy.dataplane.account import Account
from proxy.dataplane.deadlines import Timed, Watch
from proxy.obs.log import Log
from proxy.state.snapshot import CallerLimits

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange


LAST_REQUEST_S = 1.0  # a request may be on its way to a connection that was opened, or answered, less long ago


class Caller(Protocol):
    """What an exchange needs of the caller's connection."""

    wire: asyncio.Transport
    exchange: "Exchange | None"

    @property
    def writing_paused(self) -> bool: ...
    def is_draining(self) -> bool: ...
    def exchange_ended(self, *, keep_alive: bool) -> None: ...


@dataclass(slots=True, eq=False)
class Door:
    """Where callers came in."""

    is_exposed: bool = False  # to others than this machine
    closed: bool = False  # whoever came by it may end what is under way


class CallerConnection(Timed, Protocol):
    wire: asyncio.Transport
    exchange: "Exchange | None"
    door: Door

    @property
    def busy(self) -> bool: ...
    def close_if_idle(self) -> None: ...
    def cut(self, reason: str) -> None: ...


@dataclass(slots=True)
class Callers:
    limits: CallerLimits  # of the configuration in force
    watch: Watch
    account: Account
    clock: Callable[[], float]
    log: Log
    draining: bool = False  # each answer that begins now is its connection's last, and says so
    closing: bool = False  # and so is each that ends now
    open: set[CallerConnection] = field(default_factory=set)

    def opened(self, connection: CallerConnection) -> bool:
        """Note a new connection. Returns False if it is one too many."""
        self.open.add(connection)
        self.watch.add(connection)
        connection.deadline_s = self.clock() + (LAST_REQUEST_S if self.closing else self.limits.idle_timeout_s)
        return len(self.open) <= self.limits.max_connections

    def closed(self, connection: CallerConnection) -> None:
        self.open.discard(connection)
        self.watch.discard(connection)

    def drain(self) -> None:
        """From now on a connection closes when nothing is under way, nor likely to be."""
        self.draining = self.closing = True
        now_s, earlier_s = self.clock(), self.limits.idle_timeout_s - LAST_REQUEST_S
        for connection in tuple(self.open):
            if not connection.busy:
                connection.deadline_s -= earlier_s
                if connection.deadline_s <= now_s:
                    connection.close_if_idle()

    @property
    def remain(self) -> bool:
        """Is there anybody who is served, or may still ask?"""
        return any(connection.busy or not connection.wire.is_closing() for connection in self.open)

    def close(self, door: Door, *, open_to_anyone: bool) -> None:
        """Nobody comes in by it any more: each answer is its connection's last, and idle connections close.

        `open_to_anyone`: without a key, too, from now on. Then nobody who came from elsewhere may even begin.
        """
        door.closed = True
        for connection in tuple(self.open):
            if connection.door is not door:
                continue
            if open_to_anyone and door.is_exposed and connection.exchange is None:
                connection.cut("its listener was closed")
            else:
                connection.close_if_idle()

    def cut_all(self, reason: str) -> None:
        """End what is left, visibly."""
        for connection in tuple(self.open):
            connection.cut(reason)
