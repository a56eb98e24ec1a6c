"""Which of several weighted members carries the next request."""

from collections.abc import Sequence


class SmoothRoundRobin:
    """Smooth weighted round robin, nginx's: exact shares over any whole cycle, and the heavy member's turns spread out.

    Each pick adds every member's weight to its credit; the richest is picked and pays the sum of all weights. With
    weights 5, 1, 1 the order is a a b a c a a, not a a a a a b c.
    Source: nginx, src/http/ngx_http_upstream_round_robin.c, `ngx_http_upstream_get_peer`.
    """

    __slots__ = ("_credits", "_total", "_weights")

    def __init__(self, weights: Sequence[int]) -> None:
        """`weights` are whole numbers of at least 0, one of them at least above it. A weight of 0 is never picked."""
        if not weights or min(weights) < 0 or sum(weights) == 0:
            raise ValueError("at least one member needs a weight above 0")
        self._weights = tuple(weights)
        self._total = sum(weights)
        self._credits = [0] * len(weights)

    def pick(self) -> int:
        """The index of the member that is next."""
        if len(self._weights) == 1:
            return 0
        best, most = -1, 0
        owed = self._credits
        for index, weight in enumerate(self._weights):
            if weight == 0:
                continue
            credit = owed[index] = owed[index] + weight
            if best < 0 or credit > most:
                best, most = index, credit
        owed[best] -= self._total
        return best
