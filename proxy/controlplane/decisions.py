"""What was decided, and why: the log that `GET /events` shows and follows.

It is for looking on, not for proof: it is kept in memory and has what happened since the start. What must not be lost
is in the audit log, and each rollout keeps its own last events. Who follows has a queue with an end: one that reads too
slowly is let go, for a log that waits for its readers would hold up what it tells of.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgspec

KEPT = 1000
QUEUED = 256  # for one follower


class Decision(msgspec.Struct, frozen=True):
    """`type` is its kind and name, as `canary.rolled_back`; `timestamp` is UTC. `number` counts from the start."""

    number: int
    type: str
    timestamp: str
    who: str
    data: dict[str, Any]


class Follower:
    """What is decided from now on, one after the other; None is the end."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Decision | None] = asyncio.Queue(QUEUED + 1)
        self.next = self._queue.get

    def tell(self, decision: Decision) -> bool:
        """False where it has too much to read already: that ends it."""
        if self._queue.qsize() < QUEUED:
            self._queue.put_nowait(decision)
            return True
        self.end()
        return False

    def end(self) -> None:
        if not self._queue.full():
            self._queue.put_nowait(None)


class Decisions:
    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._kept: deque[Decision] = deque(maxlen=KEPT)
        self._followers: set[Follower] = set()
        self._number = 0
        self._closed = False

    def add(self, kind: str, who: str, data: dict[str, Any]) -> Decision:
        moment = datetime.fromtimestamp(self._wall_clock(), UTC).isoformat(timespec="milliseconds")
        self._number += 1
        decision = Decision(self._number, kind, moment.replace("+00:00", "Z"), who, data)
        self._kept.append(decision)
        self._followers = {follower for follower in self._followers if follower.tell(decision)}
        return decision

    def last(self, count: int) -> list[Decision]:
        """The newest comes last."""
        return list(islice(self._kept, max(0, len(self._kept) - count), None))

    def after(self, number: int) -> list[Decision]:
        """All that is kept, where that number is of another process."""
        return [decision for decision in self._kept if decision.number > number or number > self._number]

    @contextmanager
    def followed(self) -> Iterator[Follower]:
        follower = Follower()
        self._followers.add(follower)
        if self._closed:
            follower.end()
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def close(self) -> None:
        """Let all followers go."""
        self._closed = True
        for follower in self._followers:
            follower.end()
