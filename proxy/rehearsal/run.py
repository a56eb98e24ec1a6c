"""Time passes from tick to tick, and what happens between two is told to the rollout then.

Within a tick the order of different requests' events means nothing to a rollout: its weight and its thresholds change
with ticks only. So events wait in the list of their tick, and a minute of 600 requests takes milliseconds.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import accumulate
from math import cos, exp, log, pi
from random import Random
from typing import NamedTuple

from proxy.model.outcome import Outcome
from proxy.policy.canary import Arm, CanaryEvent, CanarySpec, Rollout, Stratum
from proxy.policy.canary.states import OVER
from proxy.rehearsal.scenario import Scenario

TICK_S = 5.0
MEDIAN_TOKENS = 600
STALL_SEEN_S = 15.0
MOST_CHUNKS, CHUNK_S = 200, 0.02  # of a stream, and from one to the next
MODEL = "model"


class Moment(NamedTuple):
    """After one tick."""

    now_s: float
    weight: float
    state: str
    sent: tuple[int, int]  # requests so far: baseline, canary
    events: list[CanaryEvent]


class Rehearsal:
    """`play` until it is over. The same seed gives the same rollout."""

    def __init__(self, spec: CanarySpec, scenario: Scenario, seed: int) -> None:
        self._rng = Random(seed)  # noqa: S311 - dice, not secrets
        self._scenario = scenario
        self.rollout = Rollout(spec, self._rng, 0.0)
        self.sent = [0, 0]
        self._tick = 0
        self._later: dict[int, list[Callable[[], None]]] = defaultdict(list)
        self._clients = [f"client-{i}" for i in range(scenario.clients)]
        self._shares = list(accumulate((i + 1) ** -scenario.zipf for i in range(scenario.clients)))
        self._own = [exp(0.3 * self._rng.gauss(0, 1)) for _ in self._clients]  # some ask for more than others

    def play(self) -> Iterator[Moment]:
        """Tick by tick, until the rollout or the scenario ends."""
        scenario, rollout = self._scenario, self.rollout
        before = int(scenario.before_s / TICK_S)
        start_s = 0.0
        while self._tick * TICK_S < scenario.duration_s:
            self._tick += 1
            end_s = self._tick * TICK_S
            latency, errors, rate = self._weather(end_s)
            while start_s < end_s:
                self._request(start_s, latency, errors)
                start_s += self._rng.expovariate(rate)
            for happens in self._later.pop(self._tick, ()):
                happens()
            if self._tick <= before:
                continue
            events = rollout.tick(end_s)
            yield Moment(end_s, rollout.weight, rollout.state.value, (self.sent[0], self.sent[1]), events)
            if rollout.state in OVER:
                return

    def _weather(self, now_s: float) -> tuple[float, float, float]:
        """What noise does to both arms: a factor of latency, a share of errors, requests a second."""
        noise = self._scenario.noise
        latency = 1.0 + noise.follows_weight * self.rollout.weight
        errors = 0.0
        if noise.burst_every_s and now_s % noise.burst_every_s >= noise.burst_every_s - noise.burst_s:
            latency *= noise.burst_latency
            errors = noise.burst_errors
        swing = 1.0 - noise.diurnal * cos(2 * pi * now_s / noise.day_s)
        return latency * swing, errors, self._scenario.per_minute / 60 * swing

    def _request(self, now_s: float, shared: float, shared_errors: float) -> None:
        rng, scenario, rollout = self._rng, self._scenario, self.rollout
        unit, own = None, 1.0
        if self._clients:
            i = rng.choices(range(len(self._clients)), cum_weights=self._shares)[0]
            unit, own = self._clients[i], self._own[i]
        arm = rollout.draw(unit)
        canary = arm is Arm.CANARY
        behaviour = scenario.canary if canary else scenario.baseline
        self.sent[canary] += 1
        token = self.sent[0] + self.sent[1]
        gauss, random = rng.gauss, rng.random
        tokens = min(32_000.0, max(8.0, exp(log(MEDIAN_TOKENS) + 1.1 * gauss(0, 1)) * own))
        stream = scenario.streams >= 1.0 or random() < scenario.streams
        rollout.started(token, arm, Stratum(int(tokens * 4), stream, MODEL), now_s, unit)
        ttft_s = (0.12 + 0.00015 * tokens) * exp(0.45 * gauss(0, 1))
        if random() < 0.03:
            ttft_s += 0.5 * rng.paretovariate(1.5)
        ttft_s *= behaviour.latency * shared
        luck = random()
        if luck < behaviour.hangs:
            self._finish(token, Outcome.TIMEOUT, now_s + behaviour.timeout_s)
        elif (luck := luck - behaviour.hangs) < behaviour.fast_failures:
            self._finish(token, Outcome.UPSTREAM_ERROR, now_s + behaviour.fast_s)
        elif (luck := luck - behaviour.fast_failures) < behaviour.refuses:
            self._finish(token, Outcome.OK, now_s + 0.05, status=404)
        elif luck - behaviour.refuses < behaviour.errors + shared_errors:
            self._finish(token, Outcome.UPSTREAM_ERROR, now_s + ttft_s)
        else:
            stall_s = behaviour.stall_s if random() < behaviour.stalls else 0.0
            self._answer(token, now_s + ttft_s, behaviour.chunk * shared, stall_s, stream)

    def _answer(self, token: int, first_s: float, slower: float, stall_s: float, stream: bool) -> None:
        """What is not streamed comes whole, when a stream would have ended."""
        chunks = 1 + int(MOST_CHUNKS * self._rng.random())
        end_s = first_s + chunks * CHUNK_S * slower * exp(0.2 * self._rng.gauss(0, 1)) + stall_s
        rollout = self.rollout
        if stream:
            self._at(first_s, lambda: rollout.first_byte(token, first_s))
            if stall_s > STALL_SEEN_S:
                self._at(first_s + STALL_SEEN_S, lambda: rollout.stalled(token, first_s + STALL_SEEN_S))
        gap_s = max(stall_s, CHUNK_S)
        self._at(end_s, lambda: rollout.finished(token, Outcome.OK, end_s, chunks if stream else 0, gap_s))

    def _finish(self, token: int, outcome: Outcome, at_s: float, status: int = 200) -> None:
        rollout = self.rollout
        self._at(at_s, lambda: rollout.finished(token, outcome, at_s, status=status))

    def _at(self, at_s: float, happens: Callable[[], None]) -> None:
        """In the tick that ends next after `at_s`; what is due within this one happens now."""
        tick = int(at_s / TICK_S) + 1
        if tick <= self._tick:
            happens()
        else:
            self._later[tick].append(happens)


def timeline(moments: Iterator[Moment]) -> Iterator[str]:
    """A line for each event: minutes since the first, the weight, and what was told."""
    began_s: float | None = None
    for moment in moments:
        for event in moment.events:
            began_s = event.at_s if began_s is None else began_s
            yield f"{(event.at_s - began_s) / 60:7.1f} min  {moment.weight:6.1%}  {event.text}"
