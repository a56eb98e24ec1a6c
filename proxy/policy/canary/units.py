"""Evidence where whole units are drawn (clients, conversations): one heavy client is one witness, not ten thousand.

All requests of a unit go to one arm for an epoch, so their labels are one throw of the coin. There is one bet for each
unit and epoch, on the share s of its requests that were bad, beside c, the share that was bad in epochs before:
1 + λω(s - c)D, with D = 1/w where it was drawn to the canary and -1/(1 - w) where not. D is 0 on average; if the canary
is no worse, s is no larger with it, and the mean of the factor is at most 1. ω = min(n, 50)/50 gives a unit of few
requests little say. λ = f·min(w/c, (1 - w)/(1 - c)) keeps the factor above 1 - f, whatever s is.

With a tolerance δ the canary's s - c is less by δ, and c counts as c + δ where it bounds λ. That the canary is no worse
is the same bet with the sign turned: (c - s)D, where the canary's c - s is more by δ.
Source of the form: Waudby-Smith, Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024),
https://arxiv.org/abs/2010.09686
"""

from collections import deque
from collections.abc import Callable, Mapping
from math import log1p
from typing import Any, NamedTuple

from proxy.policy.canary.counts import (
    CHUNK,
    EARLY,
    EARLY_TTFT,
    FINE,
    LATE,
    LATE_TTFT,
    NEXT_RANKS,
    SMOOTH,
    Counts,
    Harvest,
)
from proxy.policy.canary.metrics import NEXT_QUANTILES, tails
from proxy.policy.canary.strata import QUANTILES
from proxy.policy.canary.terms import ALWAYS_ASKED, ASKED_SHARE, FAMILIES, LATENCIES, P50, P90, Terms
from proxy.policy.canary.wealth import Wealth

FRACTIONS = (0.03, 0.1, 0.3)
BOLDER = (0.1, 0.3, 0.9)  # that the canary is no worse: rates are small, and a tolerance of .01 gains .01·f a witness
FULL_SAY = 50  # requests
PRIOR = 10  # requests that a unit is taken to have made at the nominal rate
LEAST = 0.05  # of a bound that a tolerance has used up
READ_AT_ONCE, READ_IN = 20, 60  # so many units a tick, and all that wait in so many ticks
MOST_PAST = 20_000  # units whose past is remembered


class Share(NamedTuple):
    """Of a unit's requests in an epoch."""

    bad: int
    of: int


def log_factors(
    share: Share, expected: float, canary: bool, weight: float, delta: float = 0.0, *, better: bool = False
) -> list[float]:
    """ln of the factor for each of FRACTIONS. `expected` (c) is in (0, 1).

    `better` turns the sign: the bet is then that the canary is not `delta` worse, for each of BOLDER.
    """
    say = min(share.of, FULL_SAY) / FULL_SAY
    difference = share.bad / share.of - expected - (delta if canary else 0.0)
    direction = 1 / weight if canary else -1 / (1 - weight)
    if better:
        difference = -difference
        most = min(weight / max(1 - expected - delta, LEAST), (1 - weight) / expected)
    else:
        most = min(weight / (expected + delta), (1 - weight) / (1 - expected))
    fractions = BOLDER if better else FRACTIONS
    return [log1p(fraction * most * say * difference * direction) for fraction in fractions]


class Measure(NamedTuple):
    """One yes or no of each request: what is usual (c without a past), and what is tolerated."""

    name: str  # of the process, as in FAMILIES
    rank: int  # of the threshold, for latencies
    usual: float
    delta: float = 0.0


class Past:
    """How often each unit's requests were bad in epochs before, by measure. Bounded; the units seen last are kept."""

    __slots__ = ("_units",)

    def __init__(self) -> None:
        self._units: dict[str, dict[tuple[str, int], list[int]]] = {}

    def expected(self, unit: str, measure: Measure) -> float:
        bad, of = self._units.get(unit, {}).get(measure[:2], (0, 0))
        return (bad + PRIOR * measure.usual) / (of + PRIOR)

    def add(self, unit: str, shares: Mapping[Measure, Share]) -> None:
        """Another epoch of this unit."""
        measures = self._units.pop(unit, {})
        self._units[unit] = measures
        for measure, share in shares.items():
            total = measures.setdefault(measure[:2], [0, 0])
            total[0] += share.bad
            total[1] += share.of
        if len(self._units) > MOST_PAST:
            del self._units[next(iter(self._units))]


class Bets:
    """One wealth for each measure, over epochs."""

    __slots__ = ("_sums", "better", "measures", "wealths")

    def __init__(self, measures: list[Measure], epochs: int, *, better: bool) -> None:
        self.measures = measures
        self.better = better
        self.wealths = [Wealth(len(FRACTIONS), epochs) for _ in measures]
        self._sums = [[0.0] * len(FRACTIONS) for _ in measures]

    def bet(
        self, shares: Mapping[Measure, Share], expected: Mapping[tuple[str, int], float], arm: int, weight: float
    ) -> None:
        """One unit's epoch."""
        for measure, sums in zip(self.measures, self._sums, strict=True):
            share = shares[measure]
            if not share.of:
                continue
            gained = log_factors(share, expected[measure[:2]], bool(arm), weight, measure.delta, better=self.better)
            for i, each in enumerate(gained):
                sums[i] += each

    def close(self, epoch: int) -> None:
        for wealth, sums in zip(self.wealths, self._sums, strict=True):
            wealth.multiply(epoch, sums)
        self._sums = [[0.0] * len(FRACTIONS) for _ in self.measures]

    def by_name(self, of: Callable[[list[float]], float]) -> dict[str, float]:
        """The values of each process's thresholds, made one."""
        names: dict[str, list[float]] = {}
        for measure, wealth in zip(self.measures, self.wealths, strict=True):
            names.setdefault(measure.name, []).append(wealth.value)
        return {name: of(values) for name, values in names.items()}


class UnitEvidence:
    """Answers what `evidence.StepEvidence` answers. Its periods are epochs, and all closes at their end."""

    __slots__ = ("_next", "_past", "_reading", "_seen", "_shares", "_worse", "requests", "terms", "units", "waiting")

    def __init__(self, terms: Terms, past: Past) -> None:
        self.terms = terms
        self._past = past
        self._worse = Bets(_worse(terms), terms.periods, better=False)
        self._next = Bets(_no_worse(terms) if terms.next_weight is not None else [], terms.periods, better=True)
        self._shares = terms.shares(frozenset(measure.name for measure in self._worse.measures))
        self._seen = dict.fromkeys((measure.name for measure in self._next.measures), 0)  # requests of the baseline
        self.requests = [0, 0, 0, 0]  # of closed epochs: baseline's fine and failed, the canary's
        self.units = [0, 0]
        self.waiting: deque[tuple[int, str, Counts, Counts]] = deque()  # epoch, unit, and what was counted of it
        self._reading: int | None = None  # the epoch whose units are being read

    def read(self, harvest: Harvest) -> None:
        """A unit takes some 50 µs, and an epoch may have thousands: a tick reads a few of them, the next one goes on.

        What several workers counted of one unit must come in one harvest: in two it would be two witnesses.
        """
        waiting = self.waiting
        waiting.extend((*key, *harvest.units[key]) for key in sorted(harvest.units))
        for _ in range(min(len(waiting), READ_AT_ONCE + len(waiting) // READ_IN)):
            epoch, unit, early, late = waiting.popleft()
            if epoch != self._reading:
                self._close()
                self._reading = epoch
            self._read_unit(unit, early, late)
        if not waiting:
            self._close()

    def _close(self) -> None:
        """All of an epoch's units are read."""
        if self._reading is not None:
            self._worse.close(self._reading)
            self._next.close(self._reading)
            self._reading = None

    def _read_unit(self, unit: str, early: Counts, late: Counts) -> None:
        if any(late[:LATE]) == any(late[LATE:]):
            return  # nothing of it ended, or its arm was changed by hand
        arm = int(any(late[LATE:]))
        self.units[arm] += 1
        for i in (0, 1):
            self.requests[2 * arm + i] += late[LATE * arm + FINE + i]
        shares = _shares(self._worse.measures, early, late, arm, 0)
        then = _shares(self._next.measures, early, late, arm, NEXT_RANKS)
        expected = {measure[:2]: self._past.expected(unit, measure) for measure in self._worse.measures}
        self._worse.bet(shares, expected, arm, self.terms.weight)
        self._next.bet(then, expected, arm, self.terms.weight)
        self._past.add(unit, shares)
        if not arm:
            for name in self._seen:
                self._seen[name] += next(share.of for measure, share in then.items() if measure.name == name)

    @property
    def strength(self) -> float:
        """E: compare it with the threshold."""
        return sum(self._shares[name] * value for name, value in self._worse.by_name(_mean).items())

    def families(self) -> dict[str, float]:
        values = self._worse.by_name(_mean)
        found = {}
        for family, names in FAMILIES.items():
            there = [name for name in names if name in values]
            if there:
                share = sum(self._shares[name] for name in there)
                found[family] = sum(self._shares[name] * values[name] for name in there) / share
        return found

    def proofs(self) -> dict[str, float]:
        """That the canary is no worse, by what is asked."""
        asked = ASKED_SHARE * (self.requests[0] + self.requests[1])
        proofs = self._next.by_name(min)
        return {
            name: proofs[name] for name, seen in self._seen.items() if name in ALWAYS_ASKED or (seen and seen >= asked)
        }

    def dump(self, epoch_now: int) -> dict[str, Any]:
        return {
            "worse": [wealth.dump(epoch_now) for wealth in self._worse.wealths],
            "no_worse": [wealth.dump(epoch_now) for wealth in self._next.wealths],
            "seen": dict(self._seen),
            "requests": list(self.requests),
            "units": list(self.units),
        }

    def restore(self, dumped: Mapping[str, Any], epoch_now: int) -> None:
        for bets, kept in ((self._worse, dumped["worse"]), (self._next, dumped["no_worse"])):
            for wealth, each in zip(bets.wealths, kept, strict=True):
                wealth.restore(each, epoch_now)
        self._seen = dict(dumped["seen"])
        self.requests, self.units = list(dumped["requests"]), list(dumped["units"])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _shares(measures: list[Measure], early: Counts, late: Counts, arm: int, shift: int) -> dict[Measure, Share]:
    """Of one unit in one arm. What of the first bytes is counted early, and what late, is one; so are all failures."""
    latencies: dict[str, list[Share]] = {}
    found = {}
    for measure in measures:
        name = measure.name
        if name in _RATES:
            at = LATE * arm + _RATES[name]
            found[measure] = Share(late[at + 1], late[at] + late[at + 1])
            continue
        if name not in latencies:
            latencies[name] = _latency(name, early, late, arm, shift)
        found[measure] = latencies[name][(P50, P90).index(measure.rank) if shift else measure.rank]
    return found


def _latency(name: str, early: Counts, late: Counts, arm: int, shift: int) -> list[Share]:
    """By threshold."""
    thresholds = len(NEXT_QUANTILES) if shift else len(QUANTILES)
    at = LATE * arm + shift + (CHUNK if name == "time_per_chunk" else LATE_TTFT)
    found = tails(late, at, thresholds)
    if name == "ttft":
        also = tails(early, EARLY * arm + shift + EARLY_TTFT, thresholds)
        found = [(bad + b, good + g) for (bad, good), (b, g) in zip(found, also, strict=True)]
    return [Share(bad, bad + good) for bad, good in found]


_RATES = {"late_errors": FINE, "stalls": SMOOTH}
_PROCESSES = {"errors": "late_errors", "stalls": "stalls"}


def _worse(terms: Terms) -> list[Measure]:
    found = [
        Measure(name, rank, 1 - p) for name in LATENCIES if terms.measures(name) for rank, p in enumerate(QUANTILES)
    ]
    rates = [metric for metric in _PROCESSES if terms.measures(metric)]
    return found + [Measure(_PROCESSES[each], 0, terms.rates[each], terms.worse[each]) for each in rates]


def _no_worse(terms: Terms) -> list[Measure]:
    """Of latencies, only the median and the 90th percentile are asked."""
    kept = [each for each in _worse(terms) if each.name in _RATES or each.rank in (P50, P90)]
    deltas = {_PROCESSES[metric]: terms.worse_then(metric) for metric in _PROCESSES if terms.measures(metric)}
    return [each._replace(delta=deltas.get(each.name, 0.0)) for each in kept]
