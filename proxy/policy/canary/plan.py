"""What a decider tells its recorders: thresholds, and what is to be counted."""

from math import inf
from typing import NamedTuple

from proxy.policy.canary.strata import Key, ancestry


class Limits(NamedTuple):
    """A stratum's thresholds in seconds, of the baseline and of the canary, for this step and for the next.

    Those of this step are the upper edges of the baseline's quantiles, so that what never varies is not slow; those of
    the next are the lower edges, so that a baseline which never varies has something to show.

    `longest_s`: a stream that is open for longer is slow per chunk, in each arm. `late`: its first bytes take so long
    that they are counted with what closes late.
    """

    ttft: tuple[list[float], list[float]]
    ttft_next: tuple[list[float], list[float]]
    chunk: tuple[list[float], list[float]] | None
    chunk_next: tuple[list[float], list[float]]
    longest_s: tuple[float, float]
    late: bool


class Plan(NamedTuple):
    """A new `step` begins new slices; what is open then is no evidence. `limits` are of strata and of parents."""

    step: int
    limits: dict[Key, Limits]
    epoch: int = 0
    bets: bool = True  # sticky units: this epoch began at this weight
    guards: bool = False  # sticky units: the first request of each is a witness of its own
    floor: float = 0.0  # if it lies at or above this: below it, the unit's arm was known before this step
    salt: bytes = b""

    def limits_of(self, size: int, stream: bool, model: str) -> Limits | None:
        """A stratum's, or its nearest parent's. What is not streamed has no time per chunk."""
        for key in ancestry(Key(size, stream, model)):
            limits = self.limits.get(key)
            if limits is not None:
                return limits if stream else limits._replace(chunk=None)
        return None


class Watch(NamedTuple):
    """What the spec asks to be counted."""

    max_gap_s: float = inf
    sticky: bool = False
    slo_ttft_s: float | None = None
    slo: bool = False
    piece_s: float | None = None  # of a rolling window: sums are kept for each piece
    mean_of: str = "ttft"
