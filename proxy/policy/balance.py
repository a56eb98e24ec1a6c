"""Which of several weighted members carries the next request?

Weights say who should; load says who can. Plain weights go on sending to a member that stalls. The least loaded of all
is a herd's choice, drawn by one lucky moment; and the better of two at random knows weights only roughly. So the turn
is smooth round robin's, exact, and another member, drawn by weight, takes it only if it is better off. What members
take of each other is remembered, and counts as load: among equals the differences cancel out, and shares stay exact.
Balancers know no metric from another (`load.py`), and metrics no balancer.
Source: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001; Finagle's P2C.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from math import log
from typing import Protocol

from proxy.policy.load import Load, Metric, Seat, least_request, least_work, peak_ewma

START_PERCENT = 10  # of its weight, for a member that has just joined
LOOK_EVERY_S = 0.1  # how often slow starts go on, and means are taken
MOST_OWED = 5  # turns, by weight: makes up for requests being whole, and is no burst for one that was avoided for long
OWED_OF_LOAD = 0.25  # and so much of a member's part of what is under way: makes up for noise in waits
LOAD_FACTOR = 1.25  # how far above its fair part of what is under way a member may be filled for its prefixes' sake


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

    def pick_among(self, usable: Sequence[int]) -> int:
        """The index that is next of these only; the others' turns wait. Where all weigh 0, they take equal turns."""
        best, most, total = -1, 0, 0
        owed = self._credits
        weights = self._weights if any(self._weights[index] for index in usable) else (1,) * len(owed)
        for index in usable:
            weight = weights[index]
            if weight == 0:
                continue
            total += weight
            credit = owed[index] = owed[index] + weight
            if best < 0 or credit > most:
                best, most = index, credit
        if best < 0:
            raise ValueError("no member is usable")
        owed[best] -= total
        return best

    def reweigh(self, weights: Sequence[int]) -> None:
        """Go on with other weights for the same members."""
        self._weights, self._total = tuple(weights), sum(weights)


@dataclass(frozen=True, slots=True)
class Node:
    """A member as balancers see it."""

    name: str
    weight: int
    load: Load


class Dice(Protocol):
    def random(self) -> float:
        """At least 0, below 1."""


class Balancer:
    """Picks by turns alone (`smooth_rr`), and looks after weights and slow starts for those that do more."""

    __slots__ = ("_look_s", "_slow_start_s", "_turns", "_weights", "nodes")

    def __init__(self, nodes: Sequence[Node], slow_start_s: float = 0.0) -> None:
        """One of `nodes` at least must have a weight above 0: ValueError. In `slow_start_s` after it joined or
        returned, a member's weight grows from a tenth to the whole."""
        self.nodes = tuple(nodes)
        self._slow_start_s = slow_start_s
        self._look_s = float("-inf")  # when weights are worked out again
        self._weights = [node.weight * 100 for node in nodes]
        self._turns = SmoothRoundRobin(self._weights)

    def pick(self, now_s: float, cost: float = 1.0, prefix: bytes = b"", usable: Sequence[int] | None = None) -> int:
        """The index of the node for a request of `cost` work (above 0) whose prompt begins with `prefix`.

        `usable` are those that may be picked, None: all. One of weight 0 is picked only where all usable ones are.
        Raises ValueError where `usable` is empty. What was picked must be told to the node's load (`began`).
        """
        if now_s >= self._look_s:
            self._look(now_s)
        return self._turns.pick() if usable is None else self._turns.pick_among(usable)

    def _look(self, now_s: float) -> None:
        self._look_s = now_s + LOOK_EVERY_S
        weights = [node.weight * self._percent(max(now_s - node.load.since_s, 0.0)) for node in self.nodes]
        if weights != self._weights:
            self._weights = weights
            self._turns.reweigh(weights)
            self._reweighed()

    def _percent(self, age_s: float) -> int:
        if age_s >= self._slow_start_s:
            return 100
        return START_PERCENT + int((100 - START_PERCENT) * age_s / self._slow_start_s)

    def _reweighed(self) -> None:
        """Work out anew what hangs on the weights."""


class TwoChoices(Balancer):
    """The one whose turn it is, or another, drawn by weight, that the metric finds better.

    Who was passed over is owed a turn, which counts as one request less under way, and who took it as one more: whole
    requests and noise in waits would else favour light members, which are idle more often. Without that shares are off
    by 35 points with 10 requests under way at weights of 100, 1, 1, 1, 1, 1, 1, 1; with it, by less than one.
    """

    __slots__ = ("_bounds", "_metric", "_most_owed", "_random", "_seats", "_total")

    def __init__(self, nodes: Sequence[Node], metric: Metric, dice: Dice, slow_start_s: float = 0.0) -> None:
        super().__init__(nodes, slow_start_s)
        self._metric, self._random = metric, dice.random
        self._most_owed = float(MOST_OWED)
        self._seats = [Seat(node.load) for node in nodes]
        self._reweighed()

    def pick(self, now_s: float, cost: float = 1.0, prefix: bytes = b"", usable: Sequence[int] | None = None) -> int:
        if now_s >= self._look_s:
            self._look(now_s)
        if usable is None:
            first = self._turns.pick()
            second = self._other(first)
        else:
            first = self._turns.pick_among(usable)
            second = self._other_among(first, usable)
        if first == second:
            return first
        mine, theirs = self._seats[first], self._seats[second]
        metric = self._metric
        if metric(theirs, now_s, cost) >= metric(mine, now_s, cost):
            return first
        most = self._most_owed  # beyond it a turn is lost: to one that is slow or failing nobody owes more
        if mine.owed * mine.scale < most and (theirs.owed > -MOST_OWED or theirs.owed * theirs.scale > -most):
            mine.owed += 1
            theirs.owed -= 1
        return second

    def _other(self, first: int) -> int:
        """Any but `first`, by weight; `first` if there is no other."""
        weight = self._weights[first]
        others = self._total - weight
        if others == 0:
            return first
        mark = int(self._random() * others)  # whole, so that no rounding reaches beyond the last bound
        bounds = self._bounds
        return bisect_right(bounds, mark if mark < bounds[first] - weight else mark + weight)

    def _other_among(self, first: int, usable: Sequence[int]) -> int:
        weights = self._weights
        mark = int(self._random() * (sum([weights[index] for index in usable]) - weights[first]))
        for index in usable:
            if index != first:
                mark -= weights[index]
                if mark < 0:
                    return index
        return first

    def _look(self, now_s: float) -> None:
        super()._look(now_s)
        loads = [node.load for node in self.nodes]
        typical_s = _mean([load.latency_at(now_s) for load in loads])
        typical_work = _mean([load.mean_work for load in loads])
        for seat in self._seats:
            seat.typical_s, seat.typical_work = typical_s, typical_work
        self._most_owed = MOST_OWED + OWED_OF_LOAD * sum(load.inflight for load in loads) / len(loads)

    def _reweighed(self) -> None:
        self._bounds = list(accumulate(self._weights))
        self._total = self._bounds[-1]
        weighing = sum(weight > 0 for weight in self._weights)
        for seat, weight in zip(self._seats, self._weights, strict=True):
            seat.scale = self._total / weighing / weight if weight else 1.0


class PrefixHash(TwoChoices):
    """The same prefix to the same member, as long as that one has room: its prompt cache knows it.

    Weighted rendezvous hashing: each member scores -weight / ln(hash of prefix and name), the highest has it, so one
    that leaves or comes moves no prefixes but its own (Schindelhauer & Schomaker, Weighted Distributed Hash Tables,
    2005, the logarithmic method). None is filled beyond 1.25 times its part of what is under way: its next prefixes go
    to the second in their order (Mirrokni, Thorup & Zadimoghaddam, Consistent Hashing with Bounded Loads, 2018).
    Where there is no prefix, load decides.
    """

    __slots__ = ("_seeds",)

    def __init__(self, nodes: Sequence[Node], dice: Dice, slow_start_s: float = 0.0) -> None:
        super().__init__(nodes, least_work, dice, slow_start_s)
        self._seeds = [_hash(node.name.encode()) for node in nodes]

    def pick(self, now_s: float, cost: float = 1.0, prefix: bytes = b"", usable: Sequence[int] | None = None) -> int:
        if not prefix:
            return super().pick(now_s, cost, prefix, usable)
        if now_s >= self._look_s:
            self._look(now_s)
        index = self._highest(now_s, _hash(prefix), range(len(self.nodes)) if usable is None else usable)
        return super().pick(now_s, cost, prefix, usable) if index < 0 else index

    def _highest(self, now_s: float, key: int, usable: Sequence[int]) -> int:
        """The first in the order of `key` that has room; -1 where none has, which only failures can bring about."""
        weights, seats, seeds = self._weights, self._seats, self._seeds
        inflight = total = 0
        for index in usable:
            inflight += seats[index].load.inflight
            total += weights[index]
        if total == 0:  # only such are usable: all the same
            weights, total = [1] * len(weights), len(usable) or 1
        room = LOAD_FACTOR * (inflight + 1)  # times total: a division may round up to one request too many
        best, most = -1, 0.0
        for index in usable:
            weight = weights[index]
            load = seats[index].load
            # Full: inflight + 1 > ceil(room * weight / total). A member that fails never fills: its penalty counts as
            # requests.
            if (load.inflight + load.penalty_at(now_s)) * total >= room * weight:
                continue
            score = weight / -log(_fraction(key ^ seeds[index]))
            if score > most:
                best, most = index, score
        return best


def _mean(figures: Sequence[float]) -> float:
    """The mean of those that are known, which is to say not 0; 1.0 where none is."""
    known = [figure for figure in figures if figure]
    return sum(known) / len(known) if known else 1.0


def _hash(text: bytes) -> int:
    """64 bits, the same in every process."""
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def _fraction(mixed: int) -> float:
    """Above 0 and below 1, from 64 bits, of which each changes all: SplitMix64's finaliser (Steele et al., 2014)."""
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return ((mixed ^ (mixed >> 31)) >> 12) * 2.0**-52 + 2.0**-53


METRICS: dict[str, Metric] = {"least_request": least_request, "least_work": least_work, "peak_ewma": peak_ewma}
KINDS = ("smooth_rr", *METRICS, "prefix_hash")


def balancer(kind: str, nodes: Sequence[Node], dice: Dice, slow_start_s: float = 0.0) -> Balancer:
    """A balancer of one of KINDS over these nodes. Raises ValueError where none of them has a weight above 0."""
    if kind == "smooth_rr":
        return Balancer(nodes, slow_start_s)
    if kind == "prefix_hash":
        return PrefixHash(nodes, dice, slow_start_s)
    return TwoChoices(nodes, METRICS[kind], dice, slow_start_s)
