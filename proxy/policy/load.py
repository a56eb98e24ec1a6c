"""How loaded is a member of a pool?

Upstreams do not say; what they leave waiting does. A `Load` is kept for each member of each pool, by name and across
reloads: requests and work under way, how long the first byte takes, how long the answers are, whether calls failed of
late. A metric makes one number of it. Peaks count at once and fade: a plain average of waits hides that a member has
just begun to stall, and a last value forgets it with the next quick answer. Failures multiply the score, for a member
that refuses at once has nothing under way, and would draw all calls by being so fast.
"""

from collections.abc import Callable
from math import exp, inf

DECAY_S = 10.0  # peaks and penalties fall to 1/e in this time, if nothing new comes; as Finagle's PeakEwma
FAILURE_PENALTY = 10.0  # a failure counts as if there were eleven times as much to do: a lone one is felt for 23 s
MOST_PENALTY = 100.0  # is below 1 again after 46 s
NEW_SHARE = 0.1  # what a new answer's size adds to the average: the last ten or so count
PROMPT_FACTOR = 0.05
UNKNOWN_OUTPUT_BYTES = 2000.0  # some 500 tokens: until the first answer ends


def estimated_work(prompt_bytes: int, output_bytes: float) -> float:
    """A request's work, in bytes of output, from its body's size and from how much the upstream wrote of late.

    A byte of prompt counts for 1/20 of a byte of output. Prompt tokens are read in parallel, thousands a second, and
    output tokens written one after the other, 50 to 100 a second: 1/100 of the time. Vendors charge 1/4 to 1/8 for a
    prompt token, and 1/16 to 1/80 for one in their cache, as most of a long prompt is (2025). 1/20 lies between; what
    matters is that a long prompt counts for something, and never for as much as a long answer.
    """
    return prompt_bytes * PROMPT_FACTOR + (output_bytes or UNKNOWN_OUTPUT_BYTES) + 1.0


class Load:
    """What is under way at one member, and how it did of late. Times are of one clock, in seconds."""

    __slots__ = (
        "_failed_s",
        "_peak_s",
        "_sampled_s",
        "inflight",
        "mean_work",
        "output_bytes",
        "penalty",
        "since_s",
        "work",
    )

    def __init__(self, since_s: float = -inf) -> None:
        """`since_s`: when the member joined. Left out, it was always there."""
        self.inflight = 0
        self.work = 0.0  # outstanding, as `estimated_work` counts it
        self.mean_work = 0.0  # moving average of requests; 0: none yet
        self.output_bytes = 0.0  # moving average of answers; 0: none yet
        self.since_s = since_s
        self._peak_s = 0.0  # at _sampled_s; 0: no sample yet
        self._sampled_s = 0.0
        self.penalty = 0.0  # at _failed_s: see penalty_at
        self._failed_s = 0.0

    def began(self, cost: float) -> None:
        """A request of this much work was sent. `ended` must follow once, with the same cost."""
        self.inflight += 1
        self.work += cost
        old = self.mean_work or cost
        self.mean_work = old + (cost - old) * NEW_SHARE

    def ended(
        self, cost: float, now_s: float, first_byte_wait_s: float | None, failed: bool, output_bytes: int
    ) -> None:
        """It is over. `first_byte_wait_s` is None where none came; `failed`: by the upstream's doing, 429 included.

        How fast a failure came says nothing about how fast answers are, so it is no sample of either.
        """
        self.inflight -= 1
        self.work = self.work - cost if self.inflight else 0.0  # no rounding errors stay behind
        if failed:
            self.penalty = min(self.penalty_at(now_s) + FAILURE_PENALTY, MOST_PENALTY)
            self._failed_s = now_s
            return
        if first_byte_wait_s is not None:
            self._waited(first_byte_wait_s, now_s)
        if output_bytes:
            old = self.output_bytes or output_bytes
            self.output_bytes = old + (output_bytes - old) * NEW_SHARE

    def _waited(self, wait_s: float, now_s: float) -> None:
        """Take a sample: a peak counts whole, less than that by the time since the last (Finagle, PeakEwma.observe)."""
        kept = exp((self._sampled_s - now_s) / DECAY_S)
        self._peak_s = max(wait_s, self._peak_s * kept + wait_s * (1.0 - kept))
        self._sampled_s = now_s

    def latency_at(self, now_s: float) -> float:
        """Seconds to the first byte, as the recent peak has it; 0.0 where nothing is known.

        It fades without samples too (Finagle, PeakEwma.get): else a member that is avoided could never show that it
        is well again.
        """
        return self._peak_s and self._peak_s * exp((self._sampled_s - now_s) / DECAY_S)

    def penalty_at(self, now_s: float) -> float:
        """What is left of the penalties for failures, from 0.0 to MOST_PENALTY."""
        return self.penalty and self.penalty * exp((self._failed_s - now_s) / DECAY_S)

    def returned(self, now_s: float) -> None:
        """The member is back after an absence: what was known of its speed and failures is of no use any more."""
        self.since_s = now_s
        self._peak_s = self.penalty = 0.0


class Seat:
    """A member's place at a balancer: its load, and what the balancer adds to judge it."""

    __slots__ = ("load", "owed", "scale", "typical_s", "typical_work")

    def __init__(self, load: Load) -> None:
        self.load = load
        self.scale = 1.0  # mean weight / weight: a request under way counts less at a heavy member
        self.owed = 0  # turns that others took of it, less those that it took of others
        self.typical_s = 1.0  # the pool's mean latency
        self.typical_work = 1.0  # the pool's mean request


Metric = Callable[[Seat, float, float], float]
"""Of a seat, the time and a request's work, a score; the lower the better. Only ratios within a pool mean anything."""

LEAST = 0.5  # however many turns a member is owed, it is not judged better than that


def least_request(seat: Seat, now_s: float, _cost: float) -> float:
    """(Requests under way, by weight, + 1) * (1 + penalty)."""
    load = seat.load
    busy = (load.inflight - seat.owed) * seat.scale + 1.0
    return (max(LEAST, busy)) * (1.0 + load.penalty_at(now_s))


def least_work(seat: Seat, now_s: float, cost: float) -> float:
    """(Work under way, by weight, + this request's) * (1 + penalty), in units of the pool's mean request.

    A request smaller than that counts as one, or small ones would go to whoever fails and so has nothing under way.
    """
    load, unit = seat.load, seat.typical_work
    busy = (load.work / unit - seat.owed) * seat.scale + (cost / unit if cost > unit else 1.0)
    if busy < LEAST:
        busy = LEAST
    return busy * (1.0 + load.penalty_at(now_s)) if load.penalty else busy


def peak_ewma(seat: Seat, now_s: float, _cost: float) -> float:
    """Latency * (requests under way, by weight, + 1) * (1 + penalty). One without samples is as fast as the mean.

    Source: Finagle, com.twitter.finagle.loadbalancer.PeakEwma.
    """
    load = seat.load
    busy = (load.inflight - seat.owed) * seat.scale + 1.0
    latency_s = load.latency_at(now_s) or seat.typical_s
    return latency_s * (max(LEAST, busy)) * (1.0 + load.penalty_at(now_s))
