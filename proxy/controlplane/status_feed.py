"""What `GET /status` tells, followed: an event every second, worked out once for all who look on.

Status is a picture of now, so who reads too slowly misses pictures and nothing else: no queue is kept for anybody, each
follower takes the newest when it is ready for one. Nothing is worked out while nobody looks.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

from proxy.controlplane.decisions import Decision, Decisions
from proxy.controlplane.event_stream import event
from proxy.controlplane.status import Status
from proxy.state.tasks import Tasks

EVERY_S = 1.0
DECISIONS = 50  # that a new follower is told


class _Told:
    """What one follower was told already."""

    def __init__(self) -> None:
        self.canaries: dict[str, bytes] = {}
        self._number = -1  # of a decision

    def next(self, decisions: Decisions) -> list[Decision]:
        """Those that it was not told: the last ones, to begin with."""
        news = decisions.last(DECISIONS) if self._number < 0 else decisions.after(self._number)
        self._number = news[-1].number if news else max(0, self._number)
        return news


class StatusFeed:
    def __init__(
        self,
        status: Callable[[float], Status],
        canaries: Callable[[], Mapping[str, object]],
        decisions: Decisions,
        refresh: Callable[[], Awaitable[None]],
    ) -> None:
        """`status`: of so many seconds. `canaries`: the numbers behind each. `refresh`: has those who serve tell."""
        self._status, self._canaries, self._decisions, self._refresh = status, canaries, decisions, refresh
        self._tasks, self._turn = Tasks(), asyncio.Event()
        self._followers, self._running, self._closed = 0, False, False
        self._by_window: dict[float, bytes] = {}  # of this turn
        self._by_canary: dict[str, bytes] = {}

    async def follow(self, window_s: float) -> AsyncGenerator[bytes, None]:
        """`status` events; a `canary` event for each canary of which there is news, a `decision` event for each."""
        self._followers += 1
        try:
            told = _Told()
            if not self._running and not self._closed:
                self._running = True
                self._tasks.spawn(self._run())
            elif self._by_window:
                yield self._news(window_s, told)
            while not self._closed:
                await self._turn.wait()
                if not self._closed:
                    yield self._news(window_s, told)
        finally:
            self._followers -= 1

    def _news(self, window_s: float, told: _Told) -> bytes:
        if window_s not in self._by_window:
            self._by_window[window_s] = event("status", self._status(window_s))
        news = [block for name, block in self._by_canary.items() if told.canaries.get(name) != block]
        told.canaries = self._by_canary
        decided = told.next(self._decisions)
        return b"".join((self._by_window[window_s], *news, *(event("decision", each) for each in decided)))

    async def _run(self) -> None:
        try:
            while self._followers:
                await self._refresh()
                self._by_window.clear()
                self._by_canary = {name: event("canary", shown) for name, shown in self._canaries().items()}
                turn, self._turn = self._turn, asyncio.Event()
                turn.set()
                await asyncio.sleep(EVERY_S)
        finally:
            self._running = False
            self._by_window.clear()  # what was, when somebody comes later

    async def close(self) -> None:
        """Let all followers go."""
        self._closed = True
        self._turn.set()
        await self._tasks.close()
