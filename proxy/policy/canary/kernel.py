"""One request's worth of evidence: which arm drew a bad request?

Arms are drawn by a coin that shows `canary` with a known probability w. If the canary is no worse, then a bad request
(slow, failed, stalled) is no likelier to carry the label `canary` than w says. Whoever bets on the label at these odds
does not get rich. No assumption is made of tails, of independence, or of a steady baseline: two rates estimated and
compared would need all three.

With s = 1 for a bad request and q_s the chance of the label `canary` that the bettor believes in, the wealth is
multiplied by q_s/w where the label is `canary`, by (1 - q_s)/(1 - w) where it is `baseline`. With bad rates a
(baseline) and b (canary) the expected factor is 1 + (b - a)(q1 - q0): never above 1 while b ≤ a, if q1 ≥ q0. It
depends on nothing else, so that any q will do which was fixed before the request; q only says for which canary the
wealth grows fastest.

Everything here is in natural logarithms, and per request: a slice's evidence is four counts times four numbers.
Source of the idea: testing by betting, Shafer, JRSS A 184 (2021), https://arxiv.org/abs/1903.06991; e-processes,
Ramdas, Grünwald, Vovk, Shafer, Statistical Science 38 (2023), https://arxiv.org/abs/2210.01948
"""

from math import log
from typing import NamedTuple


class Cells(NamedTuple):
    """What ln(wealth) gains with one request of each kind."""

    canary_bad: float
    canary_good: float
    baseline_bad: float
    baseline_good: float


class Belief(NamedTuple):
    """The chance of the label `canary` that the bettor sees in a bad (q1) and in a good request (q0)."""

    q1: float
    q0: float


def believe(weight: float, canary_rate: float, baseline_rate: float) -> Belief:
    """Bayes' rule: the label's chance where the arms' bad rates are these. All three are in (0, 1)."""
    bad = weight * canary_rate
    good = weight * (1 - canary_rate)
    return Belief(
        bad / (bad + (1 - weight) * baseline_rate),
        good / (good + (1 - weight) * (1 - baseline_rate)),
    )


def cells(weight: float, belief: Belief, allowed: float = 0.0) -> Cells:
    """The four increments; `allowed` is subtracted from each. Raises ValueError where 0 < weight < 1 does not hold."""
    if not 0.0 < weight < 1.0:
        raise ValueError(f"a bet on the arm at weight {weight}: it needs two arms, a weight between 0 and 1")
    q1, q0 = belief
    return Cells(
        log(q1 / weight) - allowed,
        log(q0 / weight) - allowed,
        log((1 - q1) / (1 - weight)) - allowed,
        log((1 - q0) / (1 - weight)) - allowed,
    )


def worse(weight: float, rate: float, odds: float, delta: float = 0.0) -> Cells:
    """A bet that the canary's odds of a bad request are `odds` times those of `rate`. Null: b ≤ a + `delta`.

    Under the null the factor's mean is at most 1 + delta·(q1 - q0), which each request pays back. With odds below 1 and
    no delta this is the bet that the canary is better (null: b ≥ a), since q1 < q0.
    """
    belief = believe(weight, odds * rate / (1 - rate + odds * rate), rate)
    return cells(weight, belief, log(1 + delta * (belief.q1 - belief.q0)))


def not_worse(weight: float, rates: tuple[float, float], caution: float, delta: float) -> Cells:
    """A bet that the canary's bad rate is not `delta` above the baseline's. Null: b ≥ a + delta.

    `rates` (canary's, baseline's) shape the belief, the first below the second; `caution` in (0, 1] draws it towards
    the coin. Under the null the factor's mean is at most 1 - delta·(q0 - q1), which each request is paid.
    """
    bold = believe(weight, *rates)
    belief = Belief(weight + caution * (bold.q1 - weight), weight + caution * (bold.q0 - weight))
    return cells(weight, belief, log(1 - delta * (belief.q0 - belief.q1)))
