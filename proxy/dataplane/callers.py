"""The open connections of callers, in whichever lane: what they are held to, and how they are drained."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

from proxy.dataplane.account import Account
from proxy.dataplane.deadlines import Timed, Watch
from proxy.model.settings import Downstream
from proxy.obs.log import Log

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange


LAST_REQUEST_S = 1.0  # a request may be on its way to a connection that was opened, or answered, less long ago


@dataclass(frozen=True, slots=True)
class Limits:
    """What a caller may take its time for, in seconds, and how many there may be."""

    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0
    stall_timeout_s: float = 60.0
    max_connections: int = 10_000

    @classmethod
    def of(cls, settings: Downstream) -> Self:
        return cls(
            settings.head_timeout_s,
            settings.body_timeout_s,
            settings.idle_timeout_s,
            settings.stall_timeout_s,
            settings.max_connections,
        )


class Caller(Protocol):
    """What an exchange needs of the caller's connection."""

    wire: asyncio.Transport
    exchange: "Exchange | None"

    @property
    def writing_paused(self) -> bool: ...
    def is_draining(self) -> bool: ...
    def exchange_ended(self, *, keep_alive: bool) -> None: ...


class CallerConnection(Timed, Protocol):
    wire: asyncio.Transport
    exchange: "Exchange | None"

    @property
    def busy(self) -> bool: ...
    def close_if_idle(self) -> None: ...
    def cut(self, reason: str) -> None: ...


@dataclass(slots=True)
class Callers:
    limits: Limits
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

    def cut_all(self, reason: str) -> None:
        """End what is left, visibly."""
        for connection in tuple(self.open):
            connection.cut(reason)
