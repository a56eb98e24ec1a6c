"""What passed in the last seconds, out of counts that only ever rise.

The request path counts and knows nothing of windows: every other second the counts are read, and what passed in a
window is the difference between now and a reading at its beginning. An average that decays would cost every request
something, and would hide bursts.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from proxy.obs.histogram import added_up, finer, quantile
from proxy.obs.metrics import DURATION_BUCKETS_S, FIRST_BYTE_BUCKETS_S, Metrics, Series

READING_S = 2.0
LONGEST_S = 60.0
_FIRST_BYTE_S, _DURATION_S = finer(FIRST_BYTE_BUCKETS_S), finer(DURATION_BUCKETS_S)


class Member(NamedTuple):
    """Whose traffic it is. Without an upstream: answers of our own."""

    pool: str
    upstream: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Since the start, or in a window."""

    requests: int
    failures: int
    first_byte: tuple[int, ...]
    duration: tuple[int, ...]

    def since(self, earlier: "Counts | None") -> "Counts":
        if earlier is None:
            return self
        return Counts(
            self.requests - earlier.requests,
            self.failures - earlier.failures,
            tuple(map(int.__sub__, self.first_byte, earlier.first_byte)),
            tuple(map(int.__sub__, self.duration, earlier.duration)),
        )

    def first_byte_s(self, share: float) -> float | None:
        """A quantile of the waits for an upstream's first byte."""
        return quantile(_FIRST_BYTE_S, self.first_byte, share)

    def duration_s(self, share: float) -> float | None:
        """A quantile of the times from a request's head to its answer's last byte."""
        return quantile(_DURATION_S, self.duration, share)


NOTHING = Counts(0, 0, (0,) * (len(_FIRST_BYTE_S) + 1), (0,) * (len(_DURATION_S) + 1))


def together(counts: list[Counts]) -> Counts:
    """Of several members."""
    if not counts:
        return NOTHING
    return Counts(
        sum(each.requests for each in counts),
        sum(each.failures for each in counts),
        added_up(each.first_byte for each in counts),
        added_up(each.duration for each in counts),
    )


Reading = dict[Member, Counts]


class Window:
    """What passed in it."""

    def __init__(self, lasted_s: float, by_member: Reading) -> None:
        self.lasted_s, self._by_member = lasted_s, by_member
        self._by_pool: dict[str, list[Counts]] = {}
        self._by_upstream: dict[str, list[Counts]] = {}
        for member, counts in by_member.items():
            self._by_pool.setdefault(member.pool, []).append(counts)
            self._by_upstream.setdefault(member.upstream, []).append(counts)

    @property
    def whole(self) -> Counts:
        return together(list(self._by_member.values()))

    @property
    def answered_here(self) -> Counts:
        """Answers of our own."""
        return self.of_upstream("")

    def of_pool(self, name: str) -> Counts:
        return together(self._by_pool.get(name, []))

    def of_upstream(self, name: str) -> Counts:
        """Through all pools."""
        return together(self._by_upstream.get(name, []))

    def of_member(self, pool: str, upstream: str) -> Counts:
        return self._by_member.get(Member(pool, upstream), NOTHING)

    def rate(self, count: int) -> float:
        """A second."""
        return count / self.lasted_s if self.lasted_s else 0.0


class Recent:
    """Takes the readings. A watch calls `expired` at its ticks."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics, self._clock = metrics, clock
        self._readings: deque[tuple[float, Reading]] = deque([(clock(), {})], maxlen=int(LONGEST_S / READING_S) + 1)
        self.deadline_s = 0.0

    def expired(self, now_s: float) -> None:
        self._readings.append((now_s, read(self._metrics)))
        self.deadline_s = now_s + READING_S

    def over(self, seconds: float) -> Window:
        """The last so many seconds, to the nearest reading; less where there are no readings that old."""
        now_s, newest = self._clock(), read(self._metrics)
        began_s, oldest = min(self._readings, key=lambda reading: abs(now_s - seconds - reading[0]))
        passed = {member: counts.since(oldest.get(member)) for member, counts in newest.items()}
        return Window(now_s - began_s, passed)


def read(metrics: Metrics) -> Reading:
    """The counts as they are."""
    by_member: dict[Member, list[Counts]] = {}
    for labels, series in metrics.all_series():
        by_member.setdefault(Member(labels.pool, labels.upstream), []).append(_counts(series))
    return {member: counts[0] if len(counts) == 1 else together(counts) for member, counts in by_member.items()}


def _counts(series: Series) -> Counts:
    requests = sum(series.codes.values()) + series.retried
    return Counts(requests, series.failures, tuple(series.first_byte.counts), tuple(series.duration.counts))
