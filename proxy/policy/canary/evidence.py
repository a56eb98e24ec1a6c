"""Is the canary worse, and is it proved to be no worse? The evidence of one step, from counts alone.

**Worse.** Each measure is a process of its own (`metrics.py`), whose mean is at most 1 while the canary is no worse. A
family's evidence is the mean of its processes, and the families share alike. Slices close twice, and what a slice
showed early foretells what it will show late: a sum over both is no fair game in time. So there are two sums, each
with its part of the wealth, and the canary is worse when one of them reaches the threshold. Together they err no more
often than the threshold says, whatever one foretells of the other.

**No worse.** Each measure must show, by the tolerances of the next step, that the canary is *not* worse: the least of
them counts, and silence proves nothing. What measures hardly a request of the baseline (streams, where nobody streams)
is not asked.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from proxy.policy.canary.counts import CHUNK, EARLY, EARLY_TTFT, FINE, LATE, LATE_TTFT, SMOOTH, Counts, Harvest
from proxy.policy.canary.metrics import NotSlower, Rate, Slower, failing, not_failing
from proxy.policy.canary.terms import ALWAYS_ASKED, ASKED_SHARE, FAMILIES, Terms
from proxy.policy.canary.wealth import Wealth


class Process(Protocol):
    wealths: list[Wealth]

    def read(self, number: int, counts: Counts) -> None: ...

    @property
    def value(self) -> float: ...


class Measured(Process, Protocol):
    seen: int


class StepEvidence:
    """Of requests drawn one by one. What is sticky has `units.UnitEvidence`, which answers the same questions."""

    __slots__ = ("_early", "_late", "_shares", "no_worse", "requests", "terms", "worse")

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        early, late = _worse(terms)
        self.worse: dict[str, Process] = early | late
        self._shares = terms.shares(frozenset(self.worse))
        early_next, late_next = _no_worse(terms) if terms.next_weight is not None else ({}, {})
        self.no_worse: dict[str, Measured] = early_next | late_next
        self._early: list[Process] = [*early.values(), *early_next.values()]
        self._late: list[Process] = [*late.values(), *late_next.values()]
        self.requests = [0, 0, 0, 0]  # of slices that closed early: baseline's fine and failed, the canary's

    def read(self, harvest: Harvest) -> None:
        for slices, processes in ((harvest.early, self._early), (harvest.late, self._late)):
            for number in sorted(slices):
                for process in processes:
                    process.read(number, slices[number])
        for counts in harvest.early.values():
            for i, at in enumerate((FINE, FINE + 1, EARLY + FINE, EARLY + FINE + 1)):
                self.requests[i] += counts[at]

    @property
    def strength(self) -> float:
        """E: compare it with the threshold."""
        sums = [0.0, 0.0]
        for name, process in self.worse.items():
            sums[name in _EARLY] += self._shares[name] * process.value
        return max(sums)

    def families(self) -> dict[str, float]:
        """Each family's own evidence, for whoever wants to see what it was that became worse."""
        found = {}
        for family, names in FAMILIES.items():
            there = {name: self._shares[name] for name in names if name in self.worse}
            if there:
                weighed = sum(share * self.worse[name].value for name, share in there.items())
                found[family] = weighed / sum(there.values())
        return found

    def proofs(self) -> dict[str, float]:
        """That the canary is no worse, by what is asked."""
        asked = ASKED_SHARE * (self.requests[0] + self.requests[1])
        return {
            name: measure.value
            for name, measure in self.no_worse.items()
            if name in ALWAYS_ASKED or (measure.seen and measure.seen >= asked)
        }

    def dump(self, slice_now: int) -> dict[str, Any]:
        wealths = {name: [each.dump(slice_now) for each in one.wealths] for name, one in self.worse.items()}
        proofs = {
            name: {"seen": one.seen, "wealths": [each.dump(slice_now) for each in one.wealths]}
            for name, one in self.no_worse.items()
        }
        return {"worse": wealths, "no_worse": proofs, "requests": list(self.requests)}

    def restore(self, dumped: Mapping[str, Any], slice_now: int) -> None:
        for name, one in self.worse.items():
            for wealth, kept in zip(one.wealths, dumped["worse"][name], strict=True):
                wealth.restore(kept, slice_now)
        for name, measure in self.no_worse.items():
            measure.seen = dumped["no_worse"][name]["seen"]
            for wealth, kept in zip(measure.wealths, dumped["no_worse"][name]["wealths"], strict=True):
                wealth.restore(kept, slice_now)
        self.requests = list(dumped["requests"])


_EARLY = ("ttft", "errors")


def _worse(terms: Terms) -> tuple[dict[str, Process], dict[str, Process]]:
    """What closes early, and what late."""
    early: dict[str, Process] = {}
    late: dict[str, Process] = {}
    weight, slices = terms.weight, terms.periods
    if terms.measures("ttft"):
        early["ttft"] = Slower(weight, slices, EARLY_TTFT, EARLY)
        late["ttft_late"] = Slower(weight, slices, LATE_TTFT, LATE)
    if terms.measures("time_per_chunk"):
        late["time_per_chunk"] = Slower(weight, slices, CHUNK, LATE)
    if terms.measures("errors"):
        bets = failing(weight, terms.rates["errors"], terms.worse["errors"])
        early["errors"] = Rate(bets, slices, FINE, EARLY)
        late["late_errors"] = Rate(bets, slices, FINE, LATE)
    if terms.measures("stalls"):
        late["stalls"] = Rate(failing(weight, terms.rates["stalls"], terms.worse["stalls"]), slices, SMOOTH, LATE)
    return early, late


def _no_worse(terms: Terms) -> tuple[dict[str, Measured], dict[str, Measured]]:
    early: dict[str, Measured] = {}
    late: dict[str, Measured] = {}
    weight, slices = terms.weight, terms.periods
    if terms.measures("ttft"):
        early["ttft"] = NotSlower(weight, slices, EARLY_TTFT, EARLY)
        late["ttft_late"] = NotSlower(weight, slices, LATE_TTFT, LATE)
    if terms.measures("time_per_chunk"):
        late["time_per_chunk"] = NotSlower(weight, slices, CHUNK, LATE)
    for metric, name, good in (("errors", "late_errors", FINE), ("stalls", "stalls", SMOOTH)):
        if terms.measures(metric):
            bets = not_failing(weight, terms.rates[metric], terms.worse_then(metric))
            late[name] = Rate(bets, slices, good, LATE)
    return early, late


def failure_rate(bad: int, of: int) -> float:
    """The guess of a rate that bets are shaped by, from 30 minutes of the baseline; 1 % where nothing is known.

    Any number will do: it says how soon a bad canary is found, not how often a good one is taken for bad.
    """
    return min(0.2, max(0.001, bad / of)) if of else 0.01
