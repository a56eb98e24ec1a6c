"""What passed in the last seconds, out of counts that only ever rise.

The request path counts and knows nothing of windows: every other second the counts are read, and what passed in a
window is the difference between now and a reading at its beginning. An average that decays would cost every request
something, and would hide bursts.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping
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

    requests: int  # tries too that the caller never saw
    failures: int
    retried: int  # those of them that another upstream was asked after
    codes: Counter[int]  # answers, by status
    first_byte: tuple[int, ...]
    duration: tuple[int, ...]

    def since(self, earlier: "Counts | None") -> "Counts":
        if earlier is None:
            return self
        return Counts(
            self.requests - earlier.requests,
            self.failures - earlier.failures,
            self.retried - earlier.retried,
            self.codes - earlier.codes,
            tuple(map(int.__sub__, self.first_byte, earlier.first_byte)),
            tuple(map(int.__sub__, self.duration, earlier.duration)),
        )

    def first_byte_s(self, share: float) -> float | None:
        """A quantile of the waits for an upstream's first byte."""
        return quantile(_FIRST_BYTE_S, self.first_byte, share)

    def duration_s(self, share: float) -> float | None:
        """A quantile of the times from a request's head to its answer's last byte."""
        return quantile(_DURATION_S, self.duration, share)


NOTHING = Counts(0, 0, 0, Counter(), (0,) * (len(_FIRST_BYTE_S) + 1), (0,) * (len(_DURATION_S) + 1))


def together(counts: list[Counts]) -> Counts:
    """Of several members."""
    if not counts:
        return NOTHING
    return Counts(
        sum(each.requests for each in counts),
        sum(each.failures for each in counts),
        sum(each.retried for each in counts),
        sum((each.codes for each in counts), Counter()),
        added_up(each.first_byte for each in counts),
        added_up(each.duration for each in counts),
    )


Place = tuple[str, ...]  # what is counted besides, and of whom
Others = Mapping[Place, int]


class Reading(NamedTuple):
    """The counts at one moment."""

    taken_s: float
    by_member: dict[Member, Counts]
    others: Others


class Window:
    """What passed in it."""

    def __init__(self, lasted_s: float, by_member: dict[Member, Counts], others: Others) -> None:
        self.lasted_s, self._by_member, self._others = lasted_s, by_member, others
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

    def other(self, *place: str) -> int:
        """By how much another count rose."""
        return self._others.get(place, 0)

    def rate(self, count: int) -> float:
        """A second."""
        return count / self.lasted_s if self.lasted_s else 0.0


class Recent:
    """Takes the readings. A watch calls `expired` at its ticks."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float], others: Callable[[], Others] = dict) -> None:
        """`others`: counts that only rise, of what has no series."""
        self._metrics, self._clock, self._others = metrics, clock, others
        self._readings = deque([Reading(clock(), {}, {})], maxlen=int(LONGEST_S / READING_S) + 1)
        self._failed_s: dict[str, float] = {}
        self.deadline_s = 0.0

    def expired(self, now_s: float) -> None:
        self._readings.append(self._read(now_s))
        self.deadline_s = now_s + READING_S

    def last_failure_s(self, upstream: str) -> float | None:
        """When it last failed, up to `READING_S` late; None: it never did."""
        return self._failed_s.get(upstream)

    def over(self, seconds: float) -> Window:
        """The last so many seconds, to the nearest reading; less where there are no readings that old."""
        now_s = self._clock()
        newest = self._read(now_s)
        oldest = min(self._readings, key=lambda reading: abs(now_s - seconds - reading.taken_s))
        passed = {member: counts.since(oldest.by_member.get(member)) for member, counts in newest.by_member.items()}
        # What was forgotten meanwhile, and came back, begins anew.
        others = {place: max(0, count - oldest.others.get(place, 0)) for place, count in newest.others.items()}
        return Window(now_s - oldest.taken_s, passed, others)

    def _read(self, now_s: float) -> Reading:
        by_member, before = read(self._metrics), self._readings[-1].by_member
        for member, counts in by_member.items():
            if counts.failures > before.get(member, NOTHING).failures:
                self._failed_s[member.upstream] = now_s
        return Reading(now_s, by_member, self._others())


def read(metrics: Metrics) -> dict[Member, Counts]:
    """The counts as they are."""
    by_member: dict[Member, list[Counts]] = {}
    for labels, series in metrics.all_series():
        by_member.setdefault(Member(labels.pool, labels.upstream), []).append(_counts(series))
    return {member: counts[0] if len(counts) == 1 else together(counts) for member, counts in by_member.items()}


def _counts(series: Series) -> Counts:
    requests = sum(series.codes.values()) + series.retried
    first_byte, duration = tuple(series.first_byte.counts), tuple(series.duration.counts)
    return Counts(requests, series.failures, series.retried, Counter(series.codes), first_byte, duration)
