"""How much evidence is asked for: a canary that is no worse is to be rolled back with a chance of alpha, and no more.

A rollout is judged many times over: in its warm-up, in each step with fresh evidence. Each judgement may err with a
chance of alpha/K, of which there are K: one for each step, one for the warm-up, for sticky units one for the guard, and
one in reserve. Fresh evidence by hand (a retry, a weight set) is paid out of the reserve, the i-th with 1/(i(i+1)) of
it: these add up to 1 however many there are. What the first 99 leave of it pays for comparisons with the SLO, in the
same way.
"""

from typing import Any

MOST_BY_HAND = 99


class Spending:
    """Each name (a step's number) may be judged once at the price that was planned, again only by hand."""

    __slots__ = ("_alpha", "_judged", "_slos", "by_hand", "planned")

    def __init__(self, alpha: float, planned: int) -> None:
        """`planned`: K."""
        self._alpha = alpha
        self.planned = planned
        self._judged: set[str] = set()
        self.by_hand = 0
        self._slos = 0

    def threshold(self, name: str) -> float:
        """What the evidence of a judgement that begins now must reach. Raises ValueError where nothing is left."""
        if name not in self._judged:
            self._judged.add(name)
            return self.planned / self._alpha
        if self.by_hand >= MOST_BY_HAND:
            raise ValueError(f"evidence was begun anew {self.by_hand} times: begin a new rollout by a changed spec")
        self.by_hand += 1
        return self.planned * self.by_hand * (self.by_hand + 1) / self._alpha

    def slo_threshold(self) -> float:
        """For a comparison with the SLO that begins now. It runs through the rollout, unless it is what ends it."""
        self._slos += 1
        return self.planned * (MOST_BY_HAND + 1) * self._slos * (self._slos + 1) / self._alpha

    def dump(self) -> dict[str, Any]:
        return {"judged": sorted(self._judged), "by_hand": self.by_hand, "slos": self._slos}

    def restore(self, dumped: dict[str, Any]) -> None:
        self._judged = set(dumped["judged"])
        self.by_hand = dumped["by_hand"]
        self._slos = dumped["slos"]
