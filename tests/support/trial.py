"""A trial of the demo in made-up time: its providers, its rule, and the very rollout that would serve."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from random import Random

import yaml

from proxy.cli.demo.scene import CANARY, PROVIDERS, Trial
from proxy.model.outcome import Outcome
from proxy.policy.canary import Arm, CanarySpec, Rollout, Stratum
from proxy.policy.canary.states import OVER
from proxy.simulation import Behaviour

KINDS = ((True, "gpt-4.1"), (False, "gpt-4.1"), (True, "claude-sonnet-4-5"))  # as the demo's callers have them
KIND_WEIGHTS = (3, 1, 2)
PROMPT_BYTES = 150
TICK_S = 1.0
QUICKLY_S = 0.01  # an error is answered


class Played:
    """`until_over` plays it. The same seed gives the same rollout."""

    def __init__(self, trial: Trial, seed: int) -> None:
        self._trial, self._dice = trial, Random(seed)
        spec = CanarySpec.parse(yaml.safe_load(trial.rule)["canaries"][CANARY])
        self.rollout = Rollout(spec, self._dice, 0.0)
        self._later: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()

    def until_over(self, longest_s: float) -> float:
        """How long it took."""
        now_s = arrives_s = 0.0
        while self.rollout.state not in OVER and now_s < longest_s:
            now_s += TICK_S
            while arrives_s < now_s:
                self._happens_until(arrives_s)
                self._ask(arrives_s)
                arrives_s += self._dice.expovariate(self._trial.rate_per_s)
            self._happens_until(now_s)
            self.rollout.tick(now_s)
        return now_s

    def _ask(self, now_s: float) -> None:
        rollout, dice, token = self.rollout, self._dice, next(self._numbers)
        arm = rollout.draw(None)
        behaviour = self._trial.canary if arm is Arm.CANARY else self._provider()
        ((stream, model),) = dice.choices(KINDS, KIND_WEIGHTS)
        rollout.started(token, arm, Stratum(PROMPT_BYTES, stream, model), now_s)
        if arm is Arm.CANARY and dice.random() < behaviour.error_rate:  # the baseline's are tried again elsewhere
            self._at(now_s + QUICKLY_S, lambda at_s: rollout.finished(token, Outcome.OK, at_s, status=500))
            return
        first_s = now_s + self._wait_s(behaviour.ttft_s, behaviour)
        end_s = first_s + self._wait_s(behaviour.per_token_s * (behaviour.tokens - 1), behaviour)
        if stream:
            self._at(first_s, lambda at_s: rollout.first_byte(token, at_s))
        self._at(end_s, lambda at_s: rollout.finished(token, Outcome.OK, at_s, behaviour.tokens))

    def _provider(self) -> Behaviour:
        (found,) = self._dice.choices([each for each, _ in PROVIDERS], [weight for _, weight in PROVIDERS])
        return found

    def _wait_s(self, seconds: float, behaviour: Behaviour) -> float:
        return seconds * (1 + behaviour.jitter * self._dice.uniform(-1, 1))

    def _at(self, at_s: float, happens: Callable[[float], None]) -> None:
        heappush(self._later, (at_s, next(self._numbers), happens))

    def _happens_until(self, now_s: float) -> None:
        while self._later and self._later[0][0] <= now_s:
            at_s, _, happens = heappop(self._later)
            happens(at_s)
