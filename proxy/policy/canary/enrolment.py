"""Whom a rollout takes in: arms are drawn, and what becomes of requests is recorded, by what was decided last.

Each worker has one, the process that decides as well. It decides nothing: what follows comes from the decider, as a
`Standing`, and what was seen goes there, as a `Harvest`.
"""

from typing import NamedTuple

from proxy.policy.canary.arms import Arm, Dice, place
from proxy.policy.canary.counts import Harvest
from proxy.policy.canary.plan import Plan, Watch
from proxy.policy.canary.recorder import Recorder
from proxy.policy.canary.spec import CanarySpec

_BASELINE, _CANARY = Arm.BASELINE, Arm.CANARY


class Standing(NamedTuple):
    """What was decided."""

    weight: float  # the canary's share of requests, 0..1
    salt: bytes  # of the draws of sticky units
    is_over: bool  # nothing is to be learnt any more
    plan: Plan


class Enrolment:
    """Times are seconds of one monotonic clock, the same for all workers and the decider."""

    def __init__(self, spec: CanarySpec, rng: Dice, standing: Standing, now_s: float) -> None:
        self.spec = spec
        self.standing = standing
        self.is_over = standing.is_over
        self._random = rng.random
        self._sticky = spec.sticky
        self._weight, self._salt = standing.weight, standing.salt
        self._recorder = recorder = Recorder(watch_of(spec), standing.plan, now_s)
        self.started, self.first_byte, self.finished = recorder.started, recorder.first_byte, recorder.finished

    @property
    def weight(self) -> float:
        """The canary's share of requests, 0..1."""
        return self._weight

    def draw(self, unit_id: str | None) -> Arm:
        """An arm at the present weight. The same for a unit while the epoch lasts, unless the weight passes over it."""
        if self._sticky and unit_id is not None:
            return _CANARY if place(self._salt, unit_id) < self._weight else _BASELINE
        return _CANARY if self._random() < self._weight else _BASELINE

    def stalled(self, token: int, now_s: float) -> None:
        """No byte for `max_gap`, and still open."""
        self._recorder.stalled(token)

    def follow(self, standing: Standing, now_s: float) -> None:
        """From now on by this."""
        self.standing = standing
        self._weight, self._salt, self.is_over = standing.weight, standing.salt, standing.is_over
        self._recorder.follow(standing.plan, now_s)

    def harvest(self, now_s: float) -> Harvest:
        """What closed since the last call."""
        return self._recorder.harvest(now_s)


def watch_of(spec: CanarySpec) -> Watch:
    """What recorders are to count."""
    stalls = spec.metric("stalls")
    bands = spec.analysis.bands
    return Watch(
        max_gap_s=stalls.max_gap_s if stalls is not None else float("inf"),
        sticky=spec.sticky,
        slo_ttft_s=None if spec.slo is None else spec.slo.ttft_s,
        slo=spec.slo is not None,
        piece_s=None if bands is None else bands.piece_s,
        mean_of="ttft" if bands is None else bands.metric,
    )
