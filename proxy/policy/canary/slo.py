"""Where both arms are bad: a shared cause is no fault of the canary's.

Each arm is compared with the service level that was promised, one process for each of its numbers. A canary that
breaks it is rolled back only if the baseline is proved to keep it in the same time: its reverse bet begins anew
whenever the canary's own evidence stands no higher than where it began. (Two separate tests cross at different
moments: with arms that are alike, the canary's is the first half the time.) Where the canary breaks it and the
baseline is not proved to keep it, or the baseline breaks it, the rollout holds, and goes on when that is over.

Nulls here are of rates, not of labels: that bad requests come with a chance of at most p0, whatever came before.
"""

from collections.abc import Mapping
from math import exp, inf, log
from typing import Any

from proxy.policy.canary.counts import EARLY, SLO_FAILED, SLO_FINE, SLO_SLOW, Counts
from proxy.policy.canary.wealth import Wealth

MULTIPLES = (1.5, 2.0, 4.0, 10.0)  # of the promised rate
_HIGHEST = 0.95


def log_factors(promised: float, believed: float) -> tuple[float, float]:
    """What ln(wealth) gains with a bad request, and with a good one, where `believed` stands against `promised`."""
    return log(believed / promised), log((1 - believed) / (1 - promised))


class Excess:
    """Bad requests are more than promised. Null: their chance is at most `promised`."""

    __slots__ = ("_bets", "_most", "_slices", "wealth")

    def __init__(self, promised: float, slices: int, most: float = inf) -> None:
        """With `most` the evidence is kept near it: it says that there is a cause, and is soon over when that is."""
        beliefs = [min(_HIGHEST, promised * multiple) for multiple in MULTIPLES]
        self._bets = [log_factors(promised, each) for each in beliefs if each > promised]
        self._most = most * len(self._bets)  # of one bet: their mean is the evidence
        self._slices = slices
        self.restart()

    def restart(self) -> None:
        self.wealth = Wealth(len(self._bets), self._slices)

    def read(self, number: int, bad: int, good: int) -> None:
        if bad or good:
            self.wealth.multiply(number, [bad * ifbad + good * ifgood for ifbad, ifgood in self._bets])
            if max(self.wealth.sums) > self._most:
                self.wealth.cap(self._most)

    @property
    def value(self) -> float:
        return self.wealth.value


class Kept:
    """Bad requests are fewer than promised: a plain product since the last `restart`. Null: at least `promised`."""

    __slots__ = ("_bets", "logs")

    def __init__(self, promised: float) -> None:
        self._bets = [log_factors(promised, promised / multiple) for multiple in MULTIPLES]
        self.logs = [0.0] * len(self._bets)

    def restart(self) -> None:
        self.logs = [0.0] * len(self._bets)

    def read(self, bad: int, good: int) -> None:
        for i, (ifbad, ifgood) in enumerate(self._bets):
            self.logs[i] = min(600.0, self.logs[i] + bad * ifbad + good * ifgood)

    @property
    def value(self) -> float:
        return sum(map(exp, self.logs)) / len(self.logs)


class Promise:
    """One number of the SLO: is it broken by the canary alone, or is there a shared cause?"""

    __slots__ = (
        "_alarm",
        "_at_bad",
        "baseline_broke",
        "baseline_kept",
        "canary_broke",
        "canary_worse",
        "name",
        "shared",
    )

    def __init__(self, name: str, promised: float, slices: int, alpha: float) -> None:
        self.name = name
        self.shared = False  # the baseline broke it, and has not recovered
        self._at_bad = SLO_SLOW if name == "ttft" else SLO_FAILED
        self._alarm = 1 / alpha
        self.canary_worse = Excess(promised, slices)
        self.baseline_kept = Kept(promised)
        self.canary_broke = Excess(promised, slices, self._alarm)
        self.baseline_broke = Excess(promised, slices, self._alarm)

    def read(self, number: int, counts: Counts) -> None:
        baseline_bad, baseline_good = self._split(counts, 0)
        canary_bad, canary_good = self._split(counts, EARLY)
        self.canary_worse.read(number, canary_bad, canary_good)
        self.canary_broke.read(number, canary_bad, canary_good)
        self.baseline_broke.read(number, baseline_bad, baseline_good)
        if self.canary_worse.value <= 1:
            self.baseline_kept.restart()
        else:
            self.baseline_kept.read(baseline_bad, baseline_good)

    def _split(self, counts: Counts, at: int) -> tuple[int, int]:
        bad = counts[at + self._at_bad]
        return bad, counts[at + SLO_FINE] + counts[at + SLO_SLOW] - bad

    def canary_alone(self, threshold: float) -> bool:
        return self.canary_worse.value >= threshold and self.baseline_kept.value >= self._alarm

    def broken(self, holding: bool) -> bool:
        """By either arm, and until it is over.

        A shared cause is over with the baseline, which has more requests to tell; the canary then begins anew.
        """
        if self.baseline_broke.value >= self._alarm:
            self.shared = True
        if self.shared:
            self.shared = self.baseline_broke.value > 1
            if not self.shared:
                self.canary_broke.restart()
            return self.shared
        return self.canary_broke.value > 1 if holding else self.canary_broke.value >= self._alarm

    def dump(self, slice_now: int) -> dict[str, Any]:
        wealths = (self.canary_worse, self.canary_broke, self.baseline_broke)
        return {
            "wealths": [each.wealth.dump(slice_now) for each in wealths],
            "kept": self.baseline_kept.logs,
            "shared": self.shared,
        }

    def restore(self, dumped: Mapping[str, Any], slice_now: int) -> None:
        wealths = (self.canary_worse, self.canary_broke, self.baseline_broke)
        for each, kept in zip(wealths, dumped["wealths"], strict=True):
            each.wealth.restore(kept, slice_now)
        self.baseline_kept.logs = list(dumped["kept"])
        self.shared = dumped["shared"]


class Bake:
    """Promoted: there is no arm left to compare with, only the promise. Its alarm is an event, and comes once."""

    __slots__ = ("_excess", "alarmed")

    def __init__(self, promised: Mapping[str, float], slices: int) -> None:
        self._excess = {name: Excess(rate, slices) for name, rate in promised.items()}
        self.alarmed = False

    def read(self, number: int, counts: Counts) -> None:
        for name, excess in self._excess.items():
            bad = counts[EARLY + (SLO_SLOW if name == "ttft" else SLO_FAILED)]
            excess.read(number, bad, counts[EARLY + SLO_FINE] + counts[EARLY + SLO_SLOW] - bad)

    @property
    def value(self) -> float:
        """The mean over the promised numbers."""
        return sum(each.value for each in self._excess.values()) / len(self._excess) if self._excess else 1.0

    def dump(self, slice_now: int) -> dict[str, Any]:
        wealths = {name: each.wealth.dump(slice_now) for name, each in self._excess.items()}
        return {"wealths": wealths, "alarmed": self.alarmed}

    def restore(self, dumped: Mapping[str, Any], slice_now: int) -> None:
        for name, each in self._excess.items():
            each.wealth.restore(dumped["wealths"][name], slice_now)
        self.alarmed = dumped["alarmed"]
