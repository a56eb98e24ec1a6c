"""When an answer's parts come: a wait before the first token, and one between each two.

Each part is due a wait after the one before was due, not after it was sent: a timer that comes late by a part of a
millisecond, as they all do, would else make a long answer late by many. Each wait is slept on its own, so that a caller
that leaves stops the answer at the next one. A part that is due already does not sleep at all: a benchmark of the proxy
must not measure the simulator's event loop.
"""

import random
from collections.abc import Awaitable, Callable

from proxy.simulation.behaviour import Behaviour

Sleep = Callable[[float], Awaitable[object]]
Clock = Callable[[], float]


class Pace:
    """Of one answer, which begins now."""

    __slots__ = ("_behaviour", "_clock", "_due_s", "_rng", "_sleep")

    def __init__(self, behaviour: Behaviour, rng: random.Random, sleep: Sleep, clock: Clock) -> None:
        self._behaviour, self._rng, self._sleep, self._clock = behaviour, rng, sleep, clock
        self._due_s = clock()

    async def first(self) -> None:
        await self._wait(self._behaviour.ttft_s)

    async def whole(self, tokens: int) -> None:
        """Waits for as long as a stream of so many tokens would take."""
        await self._wait(self._behaviour.ttft_s + (tokens - 1) * self._behaviour.per_token_s)

    async def next(self) -> None:
        await self._wait(self._behaviour.per_token_s)

    async def _wait(self, seconds: float) -> None:
        if seconds <= 0:
            return
        if self._behaviour.jitter:
            seconds *= 1 + self._behaviour.jitter * self._rng.uniform(-1, 1)
        self._due_s += seconds
        left_s = self._due_s - self._clock()
        if left_s > 0:
            await self._sleep(left_s)
