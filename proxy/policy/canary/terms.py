"""What a step is measured by: its weight, the next one's, and what is tolerated at each."""

from typing import NamedTuple

from proxy.policy.canary.strata import QUANTILES

MOST_DELTA = 0.5
HARM_LATENCY = 0.05  # how much slower, times the next weight, all callers together may become by a step
HARM_ERRORS = 0.001
ASKED_SHARE = 0.05  # of the baseline's requests: what measures fewer of them is not asked before a step

# The families of evidence share alike, and this is how each spreads its share over its processes.
FAMILIES: dict[str, dict[str, float]] = {
    "ttft": {"ttft": 0.75, "ttft_late": 0.25},
    "time_per_chunk": {"time_per_chunk": 1.0},
    "errors": {"errors": 0.5, "late_errors": 0.25, "stalls": 0.25},
}
LATENCIES = ("ttft", "time_per_chunk")
RATES = ("errors", "stalls")
ALWAYS_ASKED = ("late_errors", "stalls")
P50, P90 = QUANTILES.index(0.5), QUANTILES.index(0.9)


class Terms(NamedTuple):
    """`slower` and `worse` are what is tolerated, by metric: a factor of its latency, a difference of its rate.

    `rates` are the baseline's, a guess by metric. `periods`: slices in the longest step, for sticky units epochs.
    """

    weight: float
    next_weight: float | None
    periods: int
    slower: dict[str, float]
    worse: dict[str, float]
    rates: dict[str, float]
    warming: bool = False  # latency is not judged

    def slower_then(self, metric: str) -> float:
        """The factor of latency that is to be disproved before the next weight: a small step needs little proof."""
        tolerated = self.slower.get(metric, 1.0)
        return tolerated if self.next_weight is None else max(tolerated, 1 + HARM_LATENCY / self.next_weight)

    def worse_then(self, metric: str) -> float:
        """The difference of rates that is to be disproved before the next weight."""
        tolerated = self.worse[metric]
        if self.next_weight is None:
            return tolerated
        return min(MOST_DELTA, max(tolerated, HARM_ERRORS / self.next_weight))

    def measures(self, metric: str) -> bool:
        return metric in self.worse or (metric in self.slower and not self.warming)

    def shares(self, names: frozenset[str]) -> dict[str, float]:
        """Of the wealth, by process: 1 in all over those that are there."""
        families = [{name: share for name, share in family.items() if name in names} for family in FAMILIES.values()]
        families = [family for family in families if family]
        return {
            name: share / sum(family.values()) / len(families) for family in families for name, share in family.items()
        }
