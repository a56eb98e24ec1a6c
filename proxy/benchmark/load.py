"""When calls begin.

`AtOnce`, the closed loop: so many callers, each of whom asks again when it has its answer. A slow target is asked less
often, which flatters it. `ArrivalRate`, the open loop: callers come when they come, and one who has to wait for the
client waits like any other: each call counts from when it was due, so none is omitted in coordination with the target
(Gil Tene, "How NOT to Measure Latency", 2013).
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from proxy.benchmark.sample import Clock

Begin = Callable[[float], Awaitable[None]]
"""Makes one call, due at that time; returns when it has ended."""
Sleep = Callable[[float], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much: no call begins after so many, or so long; those that have begun are awaited."""

    calls: int | None
    seconds: float | None

    def __post_init__(self) -> None:
        if self.calls is None and self.seconds is None:
            raise ValueError("a load without an end")

    def part(self, of: int) -> "Extent":
        """One of so many equal parts, its calls rounded up."""
        calls = None if self.calls is None else math.ceil(self.calls / of)
        return Extent(calls, None if self.seconds is None else self.seconds / of)

    def times(self, count: int) -> "Extent":
        """So many of these, one after the other."""
        seconds = None if self.seconds is None else self.seconds * count
        return Extent(None if self.calls is None else self.calls * count, seconds)


@dataclass(frozen=True, slots=True)
class AtOnce:
    callers: int

    async def run(self, begin: Begin, extent: Extent, clock: Clock, sleep: Sleep) -> None:
        began_s, left = clock(), math.inf if extent.calls is None else extent.calls
        lasts_s = math.inf if extent.seconds is None else extent.seconds

        async def caller() -> None:
            nonlocal left
            while left > 0 and (now_s := clock()) < began_s + lasts_s:
                left -= 1
                await begin(now_s)

        async with asyncio.TaskGroup() as callers:
            for _ in range(int(min(self.callers, left))):
                callers.create_task(caller())

    def __str__(self) -> str:
        return f"{self.callers} at once"


@dataclass(frozen=True, slots=True)
class ArrivalRate:
    per_s: float
    dice: random.Random | None  # how long it is between arrivals: exponential, a Poisson process; None: always the same

    async def run(self, begin: Begin, extent: Extent, clock: Clock, sleep: Sleep) -> None:
        began_s, count = clock(), 0
        due_s = began_s + (0.0 if self.dice is None else self._gap_s())
        most = math.inf if extent.calls is None else extent.calls
        lasts_s = math.inf if extent.seconds is None else extent.seconds
        async with asyncio.TaskGroup() as calls:
            while count < most and due_s < began_s + lasts_s:
                await sleep(max(0.0, due_s - clock()))  # also where it is late: others must get their turn
                calls.create_task(_coroutine(begin, due_s))
                due_s += self._gap_s()
                count += 1

    def _gap_s(self) -> float:
        return 1 / self.per_s if self.dice is None else self.dice.expovariate(self.per_s)

    def __str__(self) -> str:
        return f"{self.per_s:g} a second, {'evenly' if self.dice is None else 'at random'}"


async def _coroutine(begin: Begin, due_s: float) -> None:
    await begin(due_s)


Load = AtOnce | ArrivalRate
