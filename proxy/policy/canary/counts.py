"""What a recorder counts of a slice, and how counts of several workers become one.

A slice is five seconds of starts. It is read twice: early, when first bytes and quick failures are known, and late,
when streams have ended. Both are plain lists of whole numbers, half of each the baseline's, half the canary's, so
that a request costs a few increments, and merging is adding. Nothing here says which arm is worse.

Latencies are not kept but ranked: how many of a stratum's thresholds did it exceed? Ranks of all strata add up, for
each stratum's p-th threshold is exceeded equally often.
"""

from collections.abc import Sequence

from proxy.policy.canary.strata import Key

SLICE_S = 5.0
EARLY_S = 15.0  # after a slice's end: first bytes and errors
LATE_S = 300.0  # time per chunk, stalls, late failures

# One latency, in each arm: ranks by the thresholds of this step, then by those of the next (median and p90); then both
# again for callers who left: such a one exceeds what it already exceeded, and says no more.
RANKS, NEXT_RANKS, LEFT, LATENCY = 0, 6, 9, 18
# Early: did it fail? Then by the SLO, and the wait for the first byte.
FINE, FAILED, SLO_FINE, SLO_SLOW, SLO_FAILED, EARLY_TTFT = 0, 1, 2, 3, 4, 5
EARLY = EARLY_TTFT + LATENCY
# Late: did it fail by now, did it stall, the wait where it is long by nature, the time per chunk.
SMOOTH, STALLED, LATE_TTFT, CHUNK = 2, 3, 4, 4 + LATENCY
LATE = CHUNK + LATENCY

# How requests ended, of each arm, since the last harvest.
TALLIED = ("fine", "refused", "failed", "gone", "stalled", "started")
TALLY = len(TALLIED)

Counts = list[int]


def _sum(into: Counts, other: Sequence[int]) -> None:
    for i, count in enumerate(other):
        into[i] += count


class Harvest:
    """What closed since the last harvest. Of one step: what was counted of another is worth nothing as evidence."""

    __slots__ = ("early", "late", "latencies", "means", "open", "step", "tally", "units")

    def __init__(self, step: int) -> None:
        self.step = step
        self.early: dict[int, Counts] = {}  # by number of the slice
        self.late: dict[int, Counts] = {}
        self.units: dict[tuple[int, str], tuple[Counts, Counts]] = {}  # by epoch and unit: early, late
        # Samples, as numbers of buckets, of the baseline by kind ("ttft", "chunk") and stratum; the canary's, of all
        # strata in one, under "canary_ttft".
        self.latencies: dict[str, dict[Key, list[int]]] = {}
        self.means: dict[int, list[float]] = {}  # by number of a piece of a window: sum and count of both arms
        self.tally: Counts = [0] * (2 * TALLY)
        self.open = [0, 0]  # requests under way

    def merge(self, other: "Harvest") -> None:
        """Another worker's harvest joins this one."""
        if other.step == self.step:
            for mine, theirs in ((self.early, other.early), (self.late, other.late)):
                for number, counts in theirs.items():
                    _sum(mine.setdefault(number, [0] * len(counts)), counts)
            for unit, (early, late) in other.units.items():
                mine_early, mine_late = self.units.setdefault(unit, ([0] * len(early), [0] * len(late)))
                _sum(mine_early, early)
                _sum(mine_late, late)
        for kind, by_key in other.latencies.items():
            mine_by_key = self.latencies.setdefault(kind, {})
            for key, samples in by_key.items():
                mine_by_key[key] = mine_by_key.get(key, []) + samples
        for number, sums in other.means.items():
            mine_sums = self.means.setdefault(number, [0.0] * len(sums))
            for i, each in enumerate(sums):
                mine_sums[i] += each
        _sum(self.tally, other.tally)
        _sum(self.open, other.open)


def tallied(tally: Sequence[int], canary: bool) -> dict[str, int]:
    return {name: tally[i + TALLY * canary] for i, name in enumerate(TALLIED)}


def merged(harvests: Sequence[Harvest]) -> Harvest:
    """Of several workers at one step; there is at least one. The newest step counts where they differ."""
    total = Harvest(max(each.step for each in harvests))
    for each in harvests:
        total.merge(each)
    return total
