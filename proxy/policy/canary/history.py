"""The last 30 minutes of both arms: what thresholds are frozen from, and what a screen shows."""

from collections import deque
from typing import Any

from proxy.policy.canary.counts import EARLY_S, LATE_S, TALLY, Counts, Harvest
from proxy.policy.canary.endings import FAILED, FINE, REFUSED, STALLS
from proxy.policy.canary.plan import Limits
from proxy.policy.canary.strata import BLOCK_S, ENOUGH, QUANTILES, WINDOW_S, Edges, Key, Window, borrowed, quantiles
from proxy.policy.canary.terms import P50, P90


class Tolerance:
    """How much slower the canary may be: `now` is the step's, `then` what is to be shown before the next one."""

    __slots__ = ("now", "then")

    def __init__(self, now: float, then: float) -> None:
        self.now = now
        self.then = then


class History:
    __slots__ = ("_blocks", "canary", "chunk", "ttft")

    def __init__(self) -> None:
        self.ttft = Window()  # of the baseline, as `chunk` is
        self.chunk = Window()
        self.canary = Window()
        self._blocks: deque[tuple[int, Counts]] = deque()

    def read(self, harvest: Harvest, now_s: float) -> None:
        for window, kind in ((self.ttft, "ttft"), (self.chunk, "chunk"), (self.canary, "canary_ttft")):
            window.add(harvest.latencies.get(kind, {}), now_s)
        number = int(now_s // BLOCK_S)
        while self._blocks and self._blocks[0][0] < number - WINDOW_S // BLOCK_S:
            self._blocks.popleft()
        if not self._blocks or self._blocks[-1][0] < number:
            self._blocks.append((number, [0] * (2 * TALLY)))
        counts = self._blocks[-1][1]
        for i, count in enumerate(harvest.tally):
            counts[i] += count

    def _total(self, canary: bool, *endings: int) -> int:
        return sum(counts[TALLY * canary + ending] for _, counts in self._blocks for ending in endings)

    def error_rate(self, canary: bool = False) -> tuple[int, int]:
        """Requests that failed or were refused, and all that ended by themselves."""
        return self._total(canary, FAILED, REFUSED), self._total(canary, FINE, REFUSED, FAILED)

    def stall_rate(self, canary: bool = False) -> tuple[int, int]:
        return self._total(canary, STALLS), self._total(canary, FINE, REFUSED, FAILED)

    def ttft_quantiles(self, canary: bool) -> list[float] | None:
        """In seconds, by QUANTILES, over all strata."""
        histogram = (self.canary if canary else self.ttft).whole()
        return quantiles(histogram, QUANTILES) if histogram else None


class Thresholds:
    """What is slow, by stratum. Frozen when a step begins, so that a drift of the baseline cannot hide one of the
    canary.

    A stratum that borrows its parent's quantiles, or has none, is looked at again as samples come (`refine`): whatever
    was fixed before a request may judge it. What is its own stays.
    """

    __slots__ = ("_chunk", "_own", "_ttft", "limits")

    def __init__(self, ttft: Tolerance, chunk: Tolerance) -> None:
        self._ttft = ttft
        self._chunk = chunk
        self._own: set[Key] = set()
        self.limits: dict[Key, Limits] = {}

    def refine(self, history: History) -> bool:
        """True where something changed. Cheap where no stratum came to enough samples of its own."""
        if self.limits and not any(self._is_ripe(history, key) for key in history.ttft.samples):
            return False
        ttft, chunk = history.ttft.all(), history.chunk.all()
        changed = False
        for key in ttft:
            if key in self._own:
                continue
            waits, own = borrowed(ttft, key)
            if waits is None:
                continue
            chunks, own_chunk = borrowed(chunk, key)
            if own and (key.stream is False or own_chunk):
                self._own.add(key)
            limits = self._limits(waits, chunks)
            changed = changed or limits != self.limits.get(key)
            self.limits[key] = limits
        return changed

    def _is_ripe(self, history: History, key: Key) -> bool:
        """It has enough samples of its own, and its thresholds are not."""
        if key in self._own or history.ttft.samples[key] < ENOUGH:
            return False
        return key not in self.limits or not key.stream or history.chunk.samples.get(key, 0) >= ENOUGH

    def _limits(self, waits: list[Edges], chunks: list[Edges] | None) -> Limits:
        now, then = _thresholds(waits, self._ttft)
        chunk, chunk_next = (None, ([], [])) if chunks is None else _thresholds(chunks, self._chunk)
        longest_s = LATE_S / self._chunk.now, LATE_S
        return Limits(now, then, chunk, chunk_next, longest_s, late=now[1][P90] > EARLY_S)

    def dump(self) -> dict[str, Any]:
        return {
            "limits": [[list(key), list(limits)] for key, limits in self.limits.items()],
            "own": sorted(map(list, self._own), key=str),
        }

    def restore(self, dumped: dict[str, Any]) -> None:
        self._own = {Key(*key) for key in dumped["own"]}
        self.limits = {}
        for key, (ttft, ttft_next, chunk, chunk_next, longest_s, late) in dumped["limits"]:
            self.limits[Key(*key)] = Limits(
                _pair(ttft), _pair(ttft_next), _pair(chunk) if chunk else None, _pair(chunk_next), longest_s, late
            )


Pair = tuple[list[float], list[float]]


def _thresholds(quantiles: list[Edges], tolerance: Tolerance) -> tuple[Pair, Pair]:
    """Of this step, all, and of the next, the median and the 90th percentile: the baseline's and the canary's."""
    now = [each.high for each in quantiles]
    then = [quantiles[i].low for i in (P50, P90)]
    return (now, [tolerance.now * x for x in now]), (then, [tolerance.then * x for x in then])


def _pair(dumped: list[list[float]]) -> Pair:
    return dumped[0], dumped[1]
