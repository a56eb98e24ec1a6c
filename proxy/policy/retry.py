"""Which failures may be tried again, how many at once, and how long a key rests.

Only a failure before the first byte of an answer can be hidden from the caller. Calls of LLM APIs are POSTs and cost
money, so what counts is not the method but what the upstream may have done already:

- `connect`: no connection, nothing was sent. Always safe.
- a status: the upstream has said that it did not do it; 429, 502, 503, 504 are what says so and passes.
- `timeout`: no first byte in time. It is likely at work, and a second try is billed beside the first.
- `reset`: the connection ended, or no valid head came, behind a request sent whole. Done or not, nobody knows.

So the last two are only tried again by a rule that names them; the configuration's default does. Peers: nginx tries no
POST again once it was sent, unless told `non_idempotent`; HAProxy by default only what found no connection; Envoy has
conditions (`connect-failure`, `reset`, `gateway-error`) and no eye for the method. The vendors' SDKs try all of these
twice more by themselves, so a caller whose call is not tried again here may still pay twice, by its own decision.

Retries are what makes a small outage a large one. A number of tries for each request multiplies load just when there is
least room; a share of the requests that are live (Envoy's retry budget) bounds the whole.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

Failure = str | int  # one of the words below, or a status
CONNECT, RESET, TIMEOUT = "connect", "reset", "timeout"
HEDGE = "hedge"  # no failure yet: another try beside one that is slow

LEAST_RETRIES = 3  # Envoy's min_retry_concurrency: a share of few requests is none
COOLING_FIRST_S, COOLING_LONGEST_S = 1.0, 60.0
_DOUBLINGS = math.ceil(math.log2(COOLING_LONGEST_S / COOLING_FIRST_S))  # more change nothing, but overflow


@dataclass(frozen=True, slots=True)
class RetryRule:
    """The rule of a pool. Raises ValueError for numbers that make no rule."""

    attempts: int  # tries in all: 1 is no retry
    on: frozenset[Failure]
    max_wait_s: float  # how long a 429 may be waited out

    def __post_init__(self) -> None:
        if self.attempts < 1 or not self.max_wait_s >= 0:
            raise ValueError("a retry rule needs at least 1 try, and a wait of at least 0 s")

    def wait_s(self, retry_after_s: float, now_s: float, deadline_s: float) -> float | None:
        """How long to wait for an upstream that is free again in `retry_after_s`; None where that is too long.

        Waiting until the deadline is too long as well, and so is a time that is no number.
        """
        wait_s = max(0.0, retry_after_s)
        if math.isnan(retry_after_s) or wait_s > self.max_wait_s or now_s + wait_s >= deadline_s:
            return None
        return wait_s


class BudgetUnused(RuntimeError):
    """More retries ended than began: a bug in who counts them."""


class Budget:
    """How many retries are under way at once, of the requests that are."""

    __slots__ = ("percent", "under_way")

    def __init__(self, percent: int = 20) -> None:
        self.percent = percent
        self.under_way = 0

    def allows(self, live: int) -> bool:
        """May another retry begin while `live` requests are under way, retries among them?

        Source: Envoy's `retry_budget`: `budget_percent` of the active requests, at least `min_retry_concurrency`.
        """
        return self.under_way < LEAST_RETRIES or self.under_way < live * self.percent // 100

    def began(self) -> None:
        """A retry is under way, until `ended`."""
        self.under_way += 1

    def ended(self) -> None:
        """One is over, however it ended. Raises BudgetUnused, and changes nothing, if none was under way."""
        if self.under_way == 0:
            raise BudgetUnused("a retry ended that never began")
        self.under_way -= 1


def cooling_s(refusals: int, dice: Callable[[], float]) -> float:
    """How long a key rests after so many 429s in a row that did not say for how long, in seconds.

    From 0 to 1, 2, 4 ... at most 60 s: "full jitter", which keeps those who were refused together from coming back
    together. `dice` gives a number from 0 up to 1.
    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return dice() * min(COOLING_LONGEST_S, COOLING_FIRST_S * 2.0 ** min(max(refusals, 1) - 1, _DOUBLINGS))
