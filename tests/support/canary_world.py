"""A rollout and its callers: ten requests a second, and arms that do as they are told."""

import random
from typing import Any

from proxy.model.outcome import Outcome
from proxy.policy.canary import Arm, CanaryEvent, CanarySpec, Rollout, State, Stratum

STREAM = Stratum(2000, True, "m")
TICK_S = 5.0
STEPS = [{"set_weight": 10}, {"set_weight": 50}, {"set_weight": 100}]


def spec(steps: list[dict[str, Any]] | None = None, **more: Any) -> CanarySpec:
    return CanarySpec.parse({"baseline": "a", "canary": "b", "steps": steps or STEPS} | more)


class World:
    """Ten requests a second, and a tick every five seconds. What an arm does is an outcome and a wait."""

    def __init__(self, asked: CanarySpec, seed: int = 1, now_s: float = 1000.0) -> None:
        self.rng = random.Random(seed)
        self.rollout = Rollout(asked, self.rng, now_s)
        self.now_s = now_s
        self.token = 0
        self.sent = {Arm.BASELINE: 0, Arm.CANARY: 0}
        self.events: list[CanaryEvent] = []
        self.does = {Arm.BASELINE: (Outcome.OK, 200, 1.0), Arm.CANARY: (Outcome.OK, 200, 1.0)}
        self.hangs: set[Arm] = set()
        self.per_tick = 50

    def tick(self) -> None:
        for i in range(self.per_tick):
            at_s = self.now_s + i * TICK_S / self.per_tick
            arm = self.rollout.draw(None)
            self.sent[arm] += 1
            self.token += 1
            self.rollout.started(self.token, arm, STREAM, at_s)
            if arm in self.hangs:
                continue
            outcome, status, slower = self.does[arm]
            ttft_s = 0.2 * slower * (1 + self.rng.random())
            self.rollout.first_byte(self.token, at_s + ttft_s)
            self.rollout.finished(self.token, outcome, at_s + ttft_s + 1.0, 50, 0.05, status)
        self.now_s += TICK_S
        self.events += self.rollout.tick(self.now_s)

    def run(self, seconds: float, until: State | None = None) -> State:
        end_s = self.now_s + seconds
        while self.now_s < end_s and self.rollout.state is not until:
            self.tick()
        return self.rollout.state

    def told(self) -> list[str]:
        return [event.name for event in self.events]
