"""When an answer's parts come: a wait before the first token, and one between each two.

Each wait is computed and slept on its own, so that a caller that leaves stops the answer at the next one. A wait of
nothing does not sleep at all: a benchmark of the proxy must not measure the simulator's event loop.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from proxy.simulation.behaviour import Behaviour

Sleep = Callable[[float], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Pace:
    behaviour: Behaviour
    rng: random.Random
    sleep: Sleep

    async def first(self) -> None:
        await self._wait(self.behaviour.ttft_s)

    async def whole(self, tokens: int) -> None:
        """Waits for as long as a stream of so many tokens would take."""
        await self._wait(self.behaviour.ttft_s + (tokens - 1) * self.behaviour.per_token_s)

    async def next(self) -> None:
        await self._wait(self.behaviour.per_token_s)

    async def _wait(self, seconds: float) -> None:
        if seconds <= 0:
            return
        if self.behaviour.jitter:
            seconds *= 1 + self.behaviour.jitter * self.rng.uniform(-1, 1)
        await self.sleep(seconds)
