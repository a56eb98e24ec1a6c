"""What one measure of a step proves, read from the counts of its slices. Each quantile is a process of its own.

The constants are grids: which odds a bad canary will have is not known, so the wealth is spread over some, and what
grows fastest soon is the sum.
"""

from collections.abc import Sequence

from proxy.policy.canary.counts import LATENCY, LEFT, NEXT_RANKS
from proxy.policy.canary.kernel import Cells, not_worse, worse
from proxy.policy.canary.strata import QUANTILES
from proxy.policy.canary.wealth import Wealth

SLOWER_ODDS = (1.2, 1.5, 2.5, 6.0)
FASTER_ODDS = (0.9, 0.75, 0.5, 0.25)
FAILING_ODDS = (1.5, 3.0, 8.0, 25.0)
CAUTION = (0.1, 0.3, 1.0)
NEXT_QUANTILES = (0.5, 0.9)


def bet(wealth: Wealth, bets: Sequence[Cells], number: int, read: tuple[int, int, int, int]) -> None:
    """`read`: canary's bad and good, baseline's bad and good."""
    cb, cg, bb, bg = read
    if cb or cg or bb or bg:
        wealth.multiply(number, [cb * a + cg * b + bb * c + bg * d for a, b, c, d in bets])


def tails(counts: Sequence[int], at: int, thresholds: int) -> list[tuple[int, int]]:
    """For each threshold how many exceeded it, and how many did not. Who left is counted where it exceeded."""
    good = 0
    bad = sum(counts[at : at + thresholds + 1])
    left = sum(counts[at + LEFT : at + LEFT + thresholds + 1])
    found = []
    for i in range(at, at + thresholds):
        good += counts[i]
        bad -= counts[i]
        left -= counts[i + LEFT]
        found.append((bad + left, good))
    return found


def _any(counts: Sequence[int], at: int, span: int) -> bool:
    """Was this latency seen at all?"""
    return any(counts[at : at + LATENCY]) or any(counts[at + span : at + span + LATENCY])


class Slower:
    """The canary exceeds the baseline's quantiles more often than they are exceeded."""

    __slots__ = ("_at", "_bets", "_span", "wealths")

    def __init__(self, weight: float, slices: int, at: int, span: int) -> None:
        """`at`: where the baseline's counts of this latency begin; the canary's lie `span` further."""
        self._at = at
        self._span = span
        self._bets = [[worse(weight, 1 - p, odds) for odds in SLOWER_ODDS] for p in QUANTILES]
        self.wealths = [Wealth(len(SLOWER_ODDS), slices) for _ in QUANTILES]

    def read(self, number: int, counts: Sequence[int]) -> None:
        if not _any(counts, self._at, self._span):
            return
        canary = tails(counts, self._at + self._span, len(QUANTILES))
        baseline = tails(counts, self._at, len(QUANTILES))
        for i, wealth in enumerate(self.wealths):
            bet(wealth, self._bets[i], number, canary[i] + baseline[i])

    @property
    def value(self) -> float:
        return sum(wealth.value for wealth in self.wealths) / len(self.wealths)


class NotSlower:
    """The canary exceeds the median and the 90th percentile, times what the next step tolerates, more seldom."""

    __slots__ = ("_at", "_bets", "_span", "seen", "wealths")

    def __init__(self, weight: float, slices: int, at: int, span: int) -> None:
        self._at = at
        self._span = span
        self._bets = [[worse(weight, 1 - p, odds) for odds in FASTER_ODDS] for p in NEXT_QUANTILES]
        self.wealths = [Wealth(len(FASTER_ODDS), slices) for _ in NEXT_QUANTILES]
        self.seen = 0  # requests of the baseline

    def read(self, number: int, counts: Sequence[int]) -> None:
        if not _any(counts, self._at, self._span):
            return
        canary = tails(counts, self._at + self._span + NEXT_RANKS, len(NEXT_QUANTILES))
        baseline = tails(counts, self._at + NEXT_RANKS, len(NEXT_QUANTILES))
        for i, wealth in enumerate(self.wealths):
            bet(wealth, self._bets[i], number, canary[i] + baseline[i])
        self.seen += sum(baseline[0])

    @property
    def value(self) -> float:
        return min(wealth.value for wealth in self.wealths)


class Rate:
    """One yes or no a request: failed, stalled."""

    __slots__ = ("_good", "_span", "bets", "seen", "wealths")

    def __init__(self, bets: list[Cells], slices: int, good: int, span: int) -> None:
        """`good`: where the baseline's good are counted; the bad come next, the canary's lie `span` further."""
        self.bets = bets
        self._good = good
        self._span = span
        self.wealths = [Wealth(len(bets), slices)]
        self.seen = 0

    def read(self, number: int, counts: Sequence[int]) -> None:
        good = self._good
        canary = good + self._span
        bet(self.wealths[0], self.bets, number, (counts[canary + 1], counts[canary], counts[good + 1], counts[good]))
        self.seen += counts[good] + counts[good + 1]

    @property
    def value(self) -> float:
        return self.wealths[0].value


def failing(weight: float, rate: float, delta: float) -> list[Cells]:
    """Bets that the canary's rate is more than `delta` above the baseline's, of which `rate` is a guess."""
    return [worse(weight, rate, odds, delta) for odds in FAILING_ODDS]


def not_failing(weight: float, rate: float, delta: float) -> list[Cells]:
    """Bets that it is less than `delta` above: three designs, each at three degrees of caution."""
    designs = ((rate, rate + delta), (rate / 2, rate + delta), (rate + 0.3 * delta, rate + delta))
    return [not_worse(weight, rates, caution, delta) for rates in designs for caution in CAUTION]
