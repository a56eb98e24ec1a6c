"""One way after another for a request, until an upstream answers or nobody is left to ask."""

from itertools import islice

from proxy.dataplane.request import Request
from proxy.dataplane.ways import Search, turn, way_at_once
from proxy.policy.model_field import ModelField
from proxy.policy.retry import HEDGE, Failure
from proxy.state.snapshot import Pool, Way


def first_way(
    request: Request, pool: Pool, body: bytes, model: ModelField | None, now_s: float
) -> tuple[Way, "Plan | None"]:
    """The way to take first, and the plan that found it, if one was needed.

    Raises NobodyLeft, UpstreamRateLimited or UpstreamCredentialsExhausted.
    """
    turned = turn(pool, body, now_s)
    way = way_at_once(request, pool, turned, now_s)
    if way is not None:
        return way, None
    plan = Plan(request, pool, body, model)
    return plan.first(turned, now_s), plan


class Plan(Search):
    """What is done where the first member is not well, or has failed; most requests need none."""

    __slots__ = ("_bound", "_on_retry", "_pool", "_tries")

    def __init__(
        self, request: Request, pool: Pool, body: bytes, model: ModelField | None, *, bound: bool = False
    ) -> None:
        """`bound`: there is one way only, back to who made what the request speaks of."""
        super().__init__(request, body, model)
        self._pool = pool  # that is asked now
        self._tries = 0  # there, that have failed
        self._bound = bound
        self._on_retry = False

    def first(self, turned: int, now_s: float) -> Way:
        """The way to take first, where it is the turn of the member with the index `turned`. It may have to be waited
        for, within what the provider allows.

        Raises NobodyLeft, UpstreamRateLimited or UpstreamCredentialsExhausted.
        """
        pool = self._pool
        if self._is_usable(pool, turned, now_s):
            return self._by(pool, turned, now_s)
        way = self._find(pool, now_s) or self._fall_back(now_s) or self._find_soonest(pool, now_s)
        way = way or self._find_anyway(pool, turned, now_s)
        if way is None:
            raise self._nobody(pool, now_s)
        self._move(way.pool)
        return way

    def only(self, way: Way, now_s: float) -> Way:
        """There is but this one. Raises UpstreamRateLimited where it would have to be waited for too long."""
        wait_s = way.wait_s(self._request.tokens, now_s)
        if wait_s and not self._may_wait(way, wait_s, now_s):
            raise self._too_soon(way.pool, wait_s)
        return way

    def another(self, way: Way, failure: Failure, now_s: float, deadline_s: float) -> Way | None:
        """The way to take after this one, which failed before its answer began; None if there is none."""
        self._tries += 1
        if self._bound or now_s >= deadline_s or not self._may_repeat(failure):
            return None
        self.spend(way, failure)
        other = self._find(self._pool, now_s) if self._tries < self._pool.retry.attempts else None
        other = other or self._fall_back(now_s)
        if other is not None:
            self._repeats(failure)
            self._move(other.pool)
        return other

    def waits(self, wait_s: float, now_s: float, deadline_s: float) -> bool:
        """Who was just asked has no quota, and nobody else is left. Is it waited for? Then that is another try."""
        rule = self._pool.retry
        if self._tries >= rule.attempts or not self._may_repeat(429) or rule.wait_s(wait_s, now_s, deadline_s) is None:
            return False
        self._repeats(429)
        return True

    def beside(self, way: Way, now_s: float) -> Way | None:
        """Another way to take at the same time as this one, which is slow; None if there is none."""
        if self._bound or self._tries + 1 >= self._pool.retry.attempts or not self._within_budget():
            return None
        self._spend(way.member)
        other = self._find(self._pool, now_s)
        if other is not None:
            self._tries += 1
            self._repeats(HEDGE)
        return other

    def repeats(self, failure: Failure) -> bool:
        """Is this a failure after which another try is made at all?"""
        return failure in self._pool.retry.on or failure == 401

    def _may_repeat(self, failure: Failure) -> bool:
        return self._pool.retry.attempts > 1 and self.repeats(failure) and self._within_budget()

    def _within_budget(self) -> bool:
        live = self._pool.live
        return self._on_retry or live.budget.allows(live.requests)

    def _repeats(self, failure: Failure) -> None:
        live = self._pool.live
        live.retries[failure] = live.retries.get(failure, 0) + 1
        if not self._on_retry:
            self._on_retry = True
            live.budget.began()

    def _fall_back(self, now_s: float) -> Way | None:
        """Nobody is left here: who is, in the pool that is named for this?"""
        fallbacks = islice(self._pool.chain(), 1, None)
        return next((way for pool in fallbacks if (way := self._find(pool, now_s)) is not None), None)

    def _move(self, pool: Pool) -> None:
        """Go on in this pool."""
        if pool is self._pool:
            return
        if self._on_retry:
            self._pool.live.budget.ended()
            pool.live.budget.began()
        self._pool, self._tries = pool, 0

    def settled(self) -> None:
        """An answer has begun: no other try can follow, and a stream may last for hours."""
        self._body = b""

    def over(self) -> None:
        """The request is over."""
        if self._on_retry:
            self._pool.live.budget.ended()
