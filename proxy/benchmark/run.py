"""A whole measurement: arms that take turns, so that a machine or a provider that slows down slows down all of them.

With one arm there is one block of calls. With several, each round has a block of every arm, in an order that turns
round each time (A B, B A, …); differences are then taken within rounds.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from proxy.benchmark.client import Client
from proxy.benchmark.dialects import Message
from proxy.benchmark.load import AtOnce, Extent, Load, Sleep
from proxy.benchmark.sample import Clock, Sample
from proxy.benchmark.target import Target

ROUNDS_MOST = 20
ROUND_SECONDS_LEAST = 2.0  # shorter, and most of a round would be its beginning and its end
BEAT_S = 0.05


@dataclass(frozen=True, slots=True)
class Arm:
    target: Target
    stream: bool
    tokens: int  # the most an answer may have


@dataclass(slots=True)
class Measured:
    """What came of one arm."""

    arm: Arm
    rounds: list[list[Sample]] = field(default_factory=list)
    lasted_s: float = 0.0  # its blocks together

    @property
    def samples(self) -> list[Sample]:
        return [sample for samples in self.rounds for sample in samples]


@dataclass(slots=True)
class ClientLoad:
    """What the client itself was busy with: figures from a client that could not keep up are its own."""

    busy: float = 0.0  # the share of one core
    late_s: list[float] = field(default_factory=list)  # by how much its own timer came too late, each time


def rounds_for(load: Load, extent: Extent, arms: int) -> int:
    """How many rounds to make of `extent`: many, but none too short to have a middle."""
    if arms == 1:
        return 1
    most = float(ROUNDS_MOST)
    if extent.calls is not None:
        most = min(most, extent.calls / (load.callers if isinstance(load, AtOnce) else 1))
    if extent.seconds is not None:
        most = min(most, extent.seconds / ROUND_SECONDS_LEAST)
    return max(1, math.floor(most))


class Run:
    """One measurement."""

    def __init__(
        self,
        client: Client,
        prompts: Sequence[Sequence[Message]],
        *,
        clock: Clock,
        cpu_clock: Clock,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`cpu_clock`: seconds of CPU time that this process has used."""
        self._client, self._prompts = client, prompts
        self._clock, self._cpu_clock, self._sleep = clock, cpu_clock, sleep
        self._whole, self._began_s = Extent(0, None), 0.0
        self.measured: list[Measured] = []  # what there is so far, also when `measure` is cancelled
        self.client_load = ClientLoad()

    @property
    def done(self) -> float:
        """Which share of `measure` is done, from 0 to 1."""
        calls, seconds = self._whole.calls, self._whole.seconds
        by_calls = sum(len(samples) for one in self.measured for samples in one.rounds) / calls if calls else 0.0
        by_time = (self._clock() - self._began_s) / seconds if seconds else 0.0
        return min(1.0, max(by_calls, by_time))

    async def warm_up(self, arm: Arm, calls: int) -> list[Sample]:
        """So many calls at once, that count for nothing: connections are opened, and mistakes come to light."""
        warming = Measured(arm)
        await self._block(warming, AtOnce(calls), Extent(calls, None), 0)
        return warming.samples

    async def measure(self, arms: Sequence[Arm], load: Load, extent: Extent) -> None:
        """Let the arms take turns until each has had `extent`."""
        count = rounds_for(load, extent, len(arms))
        block = extent.part(count)
        self.measured = [Measured(arm) for arm in arms]
        self._whole, self._began_s = block.times(count * len(arms)), self._clock()
        began_cpu_s = self._cpu_clock()
        heart = asyncio.get_running_loop().create_task(self._beat())
        try:
            for number in range(count):
                first = max(len(one.samples) for one in self.measured)
                for one in self.measured if number % 2 == 0 else reversed(self.measured):
                    await self._block(one, load, block, first)
        finally:
            heart.cancel()
            lasted_s = self._clock() - self._began_s
            self.client_load.busy = (self._cpu_clock() - began_cpu_s) / lasted_s if lasted_s else 0.0

    async def _block(self, measured: Measured, load: Load, extent: Extent, first: int) -> None:
        """`first`: with which prompt to begin. The arms of a round are asked the same in the same order."""
        arm, begun = measured.arm, first
        samples: list[Sample] = []
        measured.rounds.append(samples)

        async def begin(due_s: float) -> None:
            nonlocal begun
            messages = self._prompts[begun % len(self._prompts)]
            begun += 1
            samples.append(await self._client.ask(arm.target, messages, arm.tokens, stream=arm.stream, due_s=due_s))

        began_s = self._clock()
        try:
            await load.run(begin, extent, self._clock, self._sleep)
        finally:
            measured.lasted_s += self._clock() - began_s

    async def _beat(self) -> None:
        while True:
            due_s = self._clock() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self.client_load.late_s.append(max(0.0, self._clock() - due_s))
