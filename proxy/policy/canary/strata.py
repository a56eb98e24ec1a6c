"""What is compared with what: latencies within a size class, and how long the baseline takes in each.

A prompt of 30,000 tokens takes longer than one of 300, wherever it is sent. Over all requests the mix of sizes would
drown a slow canary; within a stratum (size of prompt x streamed or not x model) a latency has a threshold of its own.

Latencies are counted in buckets 2 % wide: bounded, and counts of several workers add up, which samples do not. A
threshold need not be exact, only fixed before the requests that it judges.
"""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from itertools import accumulate
from math import exp, log
from typing import NamedTuple

WINDOW_S = 1800.0  # of the baseline's latencies
BLOCK_S = 300.0  # in steps of which it moves on
QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)
ENOUGH = 200  # samples; with fewer the parent's quantiles are borrowed
ENOUGH_AT_ALL = 50  # of all strata together, for there is nobody left to borrow from
MOST_MODELS = 64  # callers name models: beyond so many they have one stratum in common
BYTES_PER_TOKEN = 4
SIZES = tuple(tokens * BYTES_PER_TOKEN for tokens in (250, 600, 1400, 4000))  # bytes of prompt

BUCKETS_PER_E = 50.0  # 2 % each
BUCKET_OF_1S = 1000.5  # a microsecond is in bucket 309
SHORTEST_S = 1e-6

Histogram = Counter[int]  # of buckets


class Stratum(NamedTuple):
    prompt_bytes: int
    stream: bool
    model: str


class Key(NamedTuple):
    """A size class, streamed or not, a model. None where a parent leaves the difference out."""

    size: int | None
    stream: bool | None
    model: str | None


def ancestry(key: Key) -> tuple[Key, Key, Key, Key]:
    """A stratum, and whose quantiles it borrows: without model, then without stream, then without size."""
    return key, Key(key.size, key.stream, None), Key(key.size, None, None), Key(None, None, None)


def bucket(latency_s: float) -> int:
    if latency_s < SHORTEST_S:  # max() costs as much as the rest of it
        latency_s = SHORTEST_S
    return int(log(latency_s) * BUCKETS_PER_E + BUCKET_OF_1S)


class Edges(NamedTuple):
    """Of the bucket that a quantile lies in, in seconds. Above `high` are at most 1 - p, above `low` as many.

    They differ by 2 %, and by much where latencies hardly vary: then nothing of the baseline is above `high`, and all
    of it above `low`.
    """

    low: float
    high: float


def _place(numbers: list[int], below: list[int], p: float) -> int:
    """The first bucket up to which there are `p` of all."""
    return min(max(bisect_left(below, p * below[-1]) - 1, 0), len(numbers) - 1)


def _sorted(histogram: Mapping[int, int]) -> tuple[list[int], list[int]]:
    """Numbers of buckets, and how many samples lie below each, and in all."""
    numbers = sorted(histogram)
    return numbers, [0, *accumulate(histogram[number] for number in numbers)]


def edges(histogram: Mapping[int, int], wanted: Iterable[float]) -> list[Edges]:
    """`histogram` is not empty."""
    numbers, below = _sorted(histogram)
    found = (numbers[_place(numbers, below, p)] - BUCKET_OF_1S for p in wanted)
    return [Edges(exp(each / BUCKETS_PER_E), exp((each + 1) / BUCKETS_PER_E)) for each in found]


def quantiles(histogram: Mapping[int, int], wanted: Iterable[float]) -> list[float]:
    """Latencies in seconds, evenly spread within a bucket. `histogram` is not empty."""
    numbers, below = _sorted(histogram)
    found = []
    for p in wanted:
        i = _place(numbers, below, p)
        within = (p * below[-1] - below[i]) / histogram[numbers[i]]
        found.append(exp((numbers[i] + within - BUCKET_OF_1S) / BUCKETS_PER_E))
    return found


class Window:
    """Latencies of one kind by stratum over the last 30 minutes, in blocks of 5."""

    __slots__ = ("_blocks", "samples")

    def __init__(self) -> None:
        self._blocks: deque[tuple[int, dict[Key, Histogram]]] = deque()
        self.samples: dict[Key, int] = {}  # in the window, by stratum

    def add(self, samples: Mapping[Key, list[int]], now_s: float) -> None:
        """Samples of the seconds before `now_s`, as numbers of buckets."""
        self.expire(now_s)
        block_number = int(now_s // BLOCK_S)
        if samples and (not self._blocks or self._blocks[-1][0] < block_number):
            self._blocks.append((block_number, {}))
        for key, buckets in samples.items():
            block = self._blocks[-1][1]
            if key not in block:
                block[key] = Counter()
            block[key].update(buckets)
            self.samples[key] = self.samples.get(key, 0) + len(buckets)

    def expire(self, now_s: float) -> None:
        first = int((now_s - WINDOW_S) // BLOCK_S)
        while self._blocks and self._blocks[0][0] < first:
            for key, histogram in self._blocks.popleft()[1].items():
                self.samples[key] -= histogram.total()
                if not self.samples[key]:
                    del self.samples[key]

    def whole(self) -> Histogram:
        """Of all strata."""
        found: Counter[int] = Counter()
        for _, block in self._blocks:
            for histogram in block.values():
                found.update(histogram)
        return found

    def all(self) -> dict[Key, Histogram]:
        """By stratum and by parent."""
        found: dict[Key, Histogram] = {}
        for _, block in self._blocks:
            for key, histogram in block.items():
                for each in ancestry(key):
                    found.setdefault(each, Counter()).update(histogram)
        return found


def borrowed(known: Mapping[Key, Mapping[int, int]], key: Key) -> tuple[list[Edges] | None, bool]:
    """A stratum's quantiles, or None where even all strata together have too few samples.

    And whether they are its own, not a parent's.
    """
    *strata, everything = ancestry(key)
    for each in strata:
        histogram = known.get(each)
        if histogram is not None and sum(histogram.values()) >= ENOUGH:
            return edges(histogram, QUANTILES), each is key
    histogram = known.get(everything)
    if histogram is not None and sum(histogram.values()) >= ENOUGH_AT_ALL:
        return edges(histogram, QUANTILES), False
    return None, False
