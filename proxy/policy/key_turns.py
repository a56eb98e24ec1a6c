"""Which of an upstream's keys carries the next request: by weight, and by how much of its quota is left.

Two keys of equal weight with quotas of 100 and 1,000 calls a minute share the calls evenly until the small one is used
up, and then draw 429s from it. So a key's part shrinks with the share of its quota that is used, as its provider tells
it; a key of which nothing is told counts as unused.
"""

from collections.abc import Sequence

LEAST_LEFT = 0.01  # of its quota: a key that seems used up is still asked now and then, or it could not tell otherwise


class KeyTurns:
    """Smooth weighted turns (see `SmoothRoundRobin`), with weights that may change at each one."""

    __slots__ = ("_credits", "_weights")

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = tuple(weights)
        self._credits = [0.0] * len(self._weights)

    def pick(self, used: Sequence[float], usable: Sequence[int]) -> int:
        """The index of the key that is next.

        `used`: of each key, the share of its quota that is used, from 0 to 1. `usable`: the indices to choose among,
        one at least.
        """
        best, total, owed = usable[0], 0.0, self._credits
        for index in usable:
            weight = self._weights[index] * max(LEAST_LEFT, 1.0 - used[index])
            owed[index] += weight
            total += weight
            if owed[index] > owed[best]:
                best = index
        owed[best] -= total
        return best
