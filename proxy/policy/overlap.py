"""Is an upstream's new key worse than the old one? Both serve for a while, and their refusals are compared.

A new key may pass its probe and still lack a model, a region or a quota that the old one has. A threshold on its rate
of refusals must be guessed for each upstream; the old key, asked by the same callers in the same minutes, is the
measure. A test made for one look (Fisher's, a z-score) errs far more often than it says when it is looked at after
each answer, and waiting for the last answer leaves callers with hundreds of refusals. So this is a sequential test: it
may be looked at whenever one likes, and takes keys that are alike for different at most as often as `_MAY_ERR` says.

The method is a likelihood ratio. Above, the chance of what was seen under a mixture of stories: half of it "all the
new one's answers are refusals, and none of the old one's", which is what a wrong key looks like, half any two rates, by
the estimator of Krichevsky and Trofimov. Below, its chance at that one rate for both which explains it best. Whatever
rate they have in common, the ratio is at most a martingale that begins at 1, so it ever reaches 1/e with a chance of at
most e (Ville's inequality). Who is asked next may hang on what was seen: a key that rests after a 429 spoils nothing.
Sources: Wasserman, Ramdas, Balakrishnan, "Universal inference", PNAS 117 (2020), https://arxiv.org/abs/1912.11436;
Krichevsky, Trofimov, "The performance of universal encoding", IEEE Transactions on Information Theory 27 (1981).

Where the old one has served little or nothing there is hardly a comparison. One thing is taken for granted: a key in
service is refused at most half of its calls, until it shows otherwise (up to there the chances above hold). So a new
key that draws nothing but 401s goes back after 9 of them where the old one was never asked, after 6 where it was asked
3 times; and one that is refused less than half the time does not, but is left to probes and to quarantine.
"""

import math
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

# How often keys that are alike may be taken for different, for each status: 6 of 1,000 overlaps in all. The largest is
# that of the 401, which is to tell soonest.
_MAY_ERR = {401: 0.004, 403: 0.001, 429: 0.001}
_LEAST_REFUSALS = 3  # an accident and its retry are two
_MOST_PRESUMED = 0.5  # of its calls are refused to a key in service of which little is known


class Verdict(Enum):
    GO_ON = "go_on"  # not enough was seen
    PROMOTE = "promote"  # the new one takes over
    GO_BACK = "go_back"  # the new one is given up; the old one is still warm


class Drawn(NamedTuple):
    """What a value has drawn in all: answers, but 5xx, which say nothing of a key; and of those refusals, by status."""

    answers: int
    refusals: Mapping[int, int]


class Answers:
    """What one value drew. `refusals` are counted by status."""

    __slots__ = ("refusals", "total")

    def __init__(self) -> None:
        self.total = 0
        self.refusals = dict.fromkeys(_MAY_ERR, 0)

    @property
    def refused(self) -> int:
        """How many answers were refusals of any kind."""
        return sum(self.refusals.values())


class Overlap:
    """The record of one overlap. Raises ValueError for numbers that make none."""

    __slots__ = ("at_most_s", "began_s", "new", "old", "requests")

    def __init__(self, requests: int, began_s: float, at_most_s: float) -> None:
        """`requests`: how many answers of the new value are wanted. After `at_most_s` what there is must do."""
        if requests < 1 or not at_most_s > 0 or not math.isfinite(began_s):
            raise ValueError(
                f"an overlap of {requests} requests from {began_s} s for at most {at_most_s} s: "
                "it needs at least 1 request, a beginning, and a time above 0 s"
            )
        self.requests = requests
        self.began_s = began_s
        self.at_most_s = at_most_s
        self.new = Answers()
        self.old = Answers()

    def answered(self, new: bool, status: int) -> None:
        """One of the two values drew an answer. A 5xx says nothing of a key, and is not counted."""
        if status >= 500:
            return
        answers = self.new if new else self.old
        answers.total += 1
        if status in answers.refusals:
            answers.refusals[status] += 1

    def count(self, new: Drawn, old: Drawn, old_before: Drawn) -> None:
        """Both have drawn so much by now; the old one `old_before` when the overlap began."""
        for answers, now, before in ((self.new, new, Drawn(0, {})), (self.old, old, old_before)):
            answers.refusals = {each: now.refusals[each] - before.refusals.get(each, 0) for each in answers.refusals}
            answers.total = max(now.answers - before.answers, answers.refused)  # a 403 is one before it has ended

    def verdict(self, now_s: float) -> Verdict:
        """To be asked after each answer of the new value and now and then; the first that is not GO_ON holds.

        At its end a new value that was never accepted goes back, unless it was never asked (its probe passed), or the
        old one was asked and never accepted either: there is nothing to go back to.
        """
        if self._worse():
            return Verdict.GO_BACK
        new, old = self.new, self.old
        if new.total < self.requests and now_s - self.began_s < self.at_most_s:
            return Verdict.GO_ON
        never_accepted = new.refused == new.total > 0
        old_is_no_better = old.refused == old.total > 0
        return Verdict.GO_BACK if never_accepted and not old_is_no_better else Verdict.PROMOTE

    def explain(self) -> str:
        """The numbers behind the verdict, for an operator: of what is worse, else of all that was refused."""
        new, old = self.new, self.old
        statuses = self._worse() or [status for status in _MAY_ERR if new.refusals[status] or old.refusals[status]]
        if not statuses:
            return f"the new key was refused in 0 of {new.total} answers, the old one in 0 of {old.total}"
        return "; ".join(
            f"the new key drew {status} in {new.refusals[status]} of {new.total} answers, "
            f"the old one in {old.refusals[status]} of {old.total}"
            for status in statuses
        )

    def _worse(self) -> list[int]:
        """The statuses that the new value draws more often, beyond doubt.

        None where it is refused less often in all: an old key that is dead draws 401s only, and none of the 429s that
        a key draws now and then that works.
        """
        new, old = self.new, self.old
        if not _above(new.refused, new.total, old.refused, old.total):
            return []
        return [status for status in _MAY_ERR if self._is_worse(status)]

    def _is_worse(self, status: int) -> bool:
        refused, total = self.new.refusals[status], self.new.total
        refused_old, total_old = self.old.refusals[status], self.old.total
        if refused < _LEAST_REFUSALS or not _above(refused, total, refused_old, total_old):
            return False
        return _log_ratio(refused, total, refused_old, total_old) >= -math.log(_MAY_ERR[status])


def _above(refused: int, total: int, refused_old: int, total_old: int) -> bool:
    """Is the new one's rate of refusals the higher one? Yes where the old one was never asked."""
    return total_old == 0 or refused * total_old > refused_old * total


def _log_ratio(refused: int, total: int, refused_old: int, total_old: int) -> float:
    """How much better two rates explain what was seen than one for both does, as a natural logarithm.

    To be asked only where the new one's rate is above the old one's: the best single rate is then also the best of all
    pairs in which the new one is not worse.
    """
    rate = (refused + refused_old) / (total + total_old)
    if 2 * refused_old <= total_old:
        rate = min(rate, _MOST_PRESUMED)
    alike = _log_likelihood(refused + refused_old, total + total_old, rate)
    any_two = _log_mixture(refused, total) + _log_mixture(refused_old, total_old)
    if refused == total and not refused_old:
        return math.log((1.0 + math.exp(any_two)) / 2) - alike
    return any_two - math.log(2) - alike


def _log_likelihood(refused: int, total: int, rate: float) -> float:
    """Of one order of so many refusals among so many answers at this rate, above 0 and below 1."""
    return refused * math.log(rate) + (total - refused) * math.log1p(-rate)


def _log_mixture(refused: int, total: int) -> float:
    """The same at a rate of which nothing is known: over Jeffreys' prior, Beta(1/2, 1/2)."""
    return math.lgamma(refused + 0.5) + math.lgamma(total - refused + 0.5) - math.lgamma(total + 1) - math.log(math.pi)
