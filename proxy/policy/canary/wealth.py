"""The wealth of one bettor over the slices of a step, begun anew a little with each slice.

A product of all factors since the step's start is worth little after a long good run: what a hundred good slices took
away, a bad one must first bring back. So half of the wealth is staked at once, and the other half, the cash, joins
slice by slice. The sum is a mixture over the moment when the canary went bad, and is still a fair game: its mean under
the null is at most 1 at any moment that one stops, so it ever reaches 1/e with a chance of at most e (Ville's
inequality). CUSUM, the usual answer to a late change, errs sooner or later however high its bar.

Several bets (odds, designs) share one wealth by equal parts. What has shrunk below the smallest float is lost, which
is no more than a bettor may do, and next to what drips in it was nothing.
"""

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

STAKED_AT_ONCE = 0.5
_LOG_MOST = 600.0  # a bad night is e^1000, and e^709 the largest float; beyond this nobody asks for more
_MOST = exp(_LOG_MOST)


class Wealth:
    """`sums` is what each bet has, the cash is theirs in common. Slices are numbered upwards, gaps allowed."""

    __slots__ = ("_drip", "_last", "cash", "sums")

    def __init__(self, bets: int, slices: int) -> None:
        """`slices` are so many as the longest step has: over them the cash is spent."""
        self.sums = [0.0] * bets
        self.cash = 1.0
        self._drip = (1.0 - STAKED_AT_ONCE) / max(1, slices)
        self._last: int | None = None  # the slice that was bet on last

    def multiply(self, number: int, log_factors: Sequence[float]) -> None:
        """Slice `number` has closed, and each bet's factor in it is known. A slice without requests needs no call."""
        put = self._put(number)
        sums = self.sums
        for i, log_factor in enumerate(log_factors):
            grown = (sums[i] + put) * (exp(log_factor) if log_factor < _LOG_MOST else _MOST)
            if grown > _MOST:
                grown = _MOST
            sums[i] = grown

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
        return sum(self.sums) / len(self.sums) + self.cash

    def cap(self, most: float) -> None:
        """No bet is to have more than this."""
        self.sums = [min(most, each) for each in self.sums]

    def dump(self, now: int) -> dict[str, Any]:
        """`now` is the number of the present slice: what is kept is how many slices ago the last bet was."""
        return {"sums": self.sums[:], "cash": self.cash, "ago": None if self._last is None else now - self._last}

    def restore(self, dumped: Mapping[str, Any], now: int) -> None:
        """Raises ValueError where another number of bets was dumped."""
        if len(dumped["sums"]) != len(self.sums):
            raise ValueError(
                f"a wealth of {len(dumped['sums'])} bets is dumped, one of {len(self.sums)} is to be restored"
            )
        self.sums = list(dumped["sums"])
        self.cash = dumped["cash"]
        self._last = None if dumped["ago"] is None else now - dumped["ago"]
