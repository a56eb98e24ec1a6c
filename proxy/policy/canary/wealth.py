"""The wealth of one bettor over the slices of a step, begun anew a little with each slice.

A product of all factors since the step's start is worth little after a long good run: what a hundred good slices took
away, a bad one must first bring back. So half of the wealth is staked at once, and the other half, the cash, joins
slice by slice. The sum is a mixture over the moment when the canary went bad, and is still a fair game: its mean under
the null is at most 1 at any moment that one stops, so it ever reaches 1/e with a chance of at most e (Ville's
inequality). CUSUM, the usual answer to a late change, errs sooner or later however high its bar.

Several bets (odds, designs) share one wealth by equal parts. Sums are kept in logarithms: a bad night is e^1000.
"""

from collections.abc import Mapping, Sequence
from math import exp, inf, log, log1p
from typing import Any

STAKED_AT_ONCE = 0.5
_LOG_MOST = 600.0  # e^709 is the largest float; beyond this nobody asks for more


def log_sum(a: float, b: float) -> float:
    """ln(e^a + e^b)."""
    if a < b:
        a, b = b, a
    return a if b == -inf else a + log1p(exp(b - a))


class Wealth:
    """`logs` are ln S of each bet, the cash is theirs in common. Slices are numbered upwards, gaps allowed."""

    __slots__ = ("_drip", "_last", "_sums", "cash", "logs")

    def __init__(self, bets: int, slices: int) -> None:
        """`slices` are so many as the longest step has: over them the cash is spent."""
        self.logs = [-inf] * bets
        self._sums = [0.0] * bets  # their exponentials
        self.cash = 1.0
        self._drip = (1.0 - STAKED_AT_ONCE) / max(1, slices)
        self._last: int | None = None  # the slice that was bet on last

    def multiply(self, number: int, log_factors: Sequence[float]) -> None:
        """Slice `number` has closed, and each bet's factor in it is known. A slice without requests needs no call."""
        put = self._put(number)
        logs, sums = self.logs, self._sums
        for i, log_factor in enumerate(log_factors):
            staked = sums[i]
            if staked > put:
                log_staked = logs[i] + log1p(put / staked) + log_factor
            else:
                log_staked = log_sum(logs[i], log(put) if put > 0.0 else -inf) + log_factor
            if log_staked > _LOG_MOST:
                log_staked = _LOG_MOST
            logs[i] = log_staked
            sums[i] = exp(log_staked)

    def _put(self, number: int) -> float:
        """What of the cash joins now. A worker that is late adds to what was bet."""
        last = self._last
        if last is None:
            put = STAKED_AT_ONCE
        elif number > last:
            put = (number - last) * self._drip
            if put > self.cash:
                put = self.cash
        else:
            return 0.0
        self._last = number
        self.cash -= put
        return put

    @property
    def value(self) -> float:
        """The evidence: 1 at the start, and on average never above it while the null holds."""
        return sum(self._sums) / len(self._sums) + self.cash

    def cap(self, log_most: float) -> None:
        """No bet is to have more than this."""
        self.logs = [min(log_most, each) for each in self.logs]
        self._sums = list(map(exp, self.logs))

    def dump(self, now: int) -> dict[str, Any]:
        """`now` is the number of the present slice: what is kept is how many slices ago the last bet was."""
        logs = [None if each == -inf else each for each in self.logs]
        return {"logs": logs, "cash": self.cash, "ago": None if self._last is None else now - self._last}

    def restore(self, dumped: Mapping[str, Any], now: int) -> None:
        """Raises ValueError where another number of bets was dumped."""
        if len(dumped["logs"]) != len(self.logs):
            raise ValueError(
                f"a wealth of {len(dumped['logs'])} bets is dumped, one of {len(self.logs)} is to be restored"
            )
        self.logs = [-inf if each is None else each for each in dumped["logs"]]
        self._sums = list(map(exp, self.logs))
        self.cash = dumped["cash"]
        self._last = None if dumped["ago"] is None else now - dumped["ago"]
