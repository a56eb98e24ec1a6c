"""Counts of durations, in classes fine enough that quantiles can be told from them.

Prometheus is given the few bounds that dashboards need. Between those lie more, each at most a tenth above the one
below: a quantile read off them strays by 5 % and seldom by more.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate, pairwise

FINEST_S = 0.001  # finer classes begin here
STEP = 1.1


@cache
def finer(bounds_s: tuple[float, ...]) -> tuple[float, ...]:
    """These bounds, and others between them and down to FINEST_S, each at most STEP times the one before."""
    outer = (FINEST_S, *bounds_s) if bounds_s[0] > FINEST_S else bounds_s
    inner = []
    for low, high in pairwise(outer):
        parts = math.ceil(math.log(high / low) / math.log(STEP))
        inner += [low, *(low * (high / low) ** (part / parts) for part in range(1, parts))]
    return (*inner, outer[-1])


class Histogram:
    __slots__ = ("bounds_s", "counts", "exported_s", "sum_s")

    def __init__(self, exported_s: tuple[float, ...]) -> None:
        self.exported_s, self.bounds_s = exported_s, finer(exported_s)
        self.counts = [0] * (len(self.bounds_s) + 1)  # of each class, its upper bound in it; the last has none
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Pairs of upper bound and count below it, as Prometheus wants them."""
        below = dict(zip(self.bounds_s, accumulate(self.counts), strict=False))
        pairs = [(str(bound), float(below[bound])) for bound in self.exported_s]
        return [*pairs, ("+Inf", float(sum(self.counts)))]


def added_up(histograms: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """The counts of several histograms of the same bounds together."""
    return tuple(map(sum, zip(*histograms, strict=True)))


def quantile(bounds_s: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Below which so large a share of the observations lies, as if they were spread evenly within their class.

    The last bound if it lies beyond that; None of no observations.
    """
    wanted = share * sum(counts)
    if not wanted:
        return None
    below = 0
    for index, count in enumerate(counts[:-1]):
        if below + count >= wanted:
            low = bounds_s[index - 1] if index else 0.0
            return low + (bounds_s[index] - low) * (wanted - below) / count
        below += count
    return bounds_s[-1]
