"""The demo's callers: applications that come when they come, of both vendors, most of them reading streams."""

import math
import random
from collections import deque
from collections.abc import Callable

from proxy.benchmark.client import Client
from proxy.benchmark.dialects import Chat, Messages
from proxy.benchmark.load import ArrivalRate, Extent, Sleep
from proxy.benchmark.prompts import OWN
from proxy.benchmark.run import Arm
from proxy.benchmark.sample import Sample
from proxy.benchmark.target import Target

WINDOW_S = 10.0
TOKENS = 40
TIMEOUT_S = 60.0
MOST_KEPT = 2000


class Traffic:
    def __init__(self, root: str, rate_per_s: float, dice: random.Random, clock: Callable[[], float]) -> None:
        """`root`: where the proxy answers, without a path."""
        openai = Target("openai", f"{root}/v1", "gpt-4.1", None, Chat(), {}, {})
        anthropic = Target("anthropic", f"{root}/anthropic", "claude-sonnet-4-5", None, Messages(), {}, {})
        self._kinds = (Arm(openai, True, TOKENS), Arm(openai, False, TOKENS), Arm(anthropic, True, TOKENS))
        self._weights = (3, 1, 2)
        self._load = ArrivalRate(rate_per_s, dice)
        self._dice, self._clock = dice, clock
        self._ended: deque[Sample] = deque(maxlen=MOST_KEPT)
        self._began_s = clock()

    async def run(self, sleep: Sleep) -> None:
        """Call until cancelled."""
        async with Client(self._clock, TIMEOUT_S) as client:

            async def call(due_s: float) -> None:
                (kind,) = self._dice.choices(self._kinds, self._weights)
                prompt = self._dice.choice(OWN)
                sample = await client.ask(kind.target, prompt, kind.tokens, stream=kind.stream, due_s=due_s)
                self._ended.append(sample)

            await self._load.run(call, Extent(None, math.inf), self._clock, sleep)

    def recent(self) -> tuple[float, list[Sample]]:
        """The calls that ended in the last WINDOW_S, or since the start; and how long that is, in seconds."""
        now_s = self._clock()
        since_s = max(self._began_s, now_s - WINDOW_S)
        return now_s - since_s, [sample for sample in self._ended if sample.ended_s >= since_s]
