"""The tries of one request: one way after another, until an upstream answers or nobody is left to ask."""

from itertools import islice

from proxy.dataplane.request import Request
from proxy.dataplane.ways import Search, Way
from proxy.model.outcome import Outcome
from proxy.policy.load import estimated_work
from proxy.policy.model_field import ModelField
from proxy.policy.outlier import FAILURES
from proxy.policy.retry import Failure
from proxy.state.lease import Lease
from proxy.state.snapshot import Member, Pool, Route

_OK = Outcome.OK


class Plan(Search):
    __slots__ = ("_bound", "_on_retry", "pool", "tries", "way")
    way: Way  # that is being tried

    def __init__(
        self, request: Request, route: Route, body: bytes, model: ModelField | None, bound: Way | None
    ) -> None:
        """`bound`: the only way that there is, back to who made what the request speaks of."""
        super().__init__(request, body, model)
        self._bound = bound
        self._on_retry = False
        self.tries = 0  # in this pool
        self._enter(route.pool if bound is None else bound.pool)

    def first(self, now_s: float) -> Way:
        """Raises NobodyLeft, UpstreamRateLimited or UpstreamCredentialsExhausted."""
        pool = self.pool
        way = self._bound or self._find(pool, now_s) or self._fall_back(now_s) or self._find_anyway(pool, now_s)
        if way is None:
            raise self._nobody(pool, now_s)
        return way

    def another(self, failure: Failure, now_s: float, deadline_s: float) -> Way | None:
        """The way to take after a try that failed before its answer began; None if there is none."""
        pool, rule = self.pool, self.pool.retry
        if self._bound is not None or now_s >= deadline_s or not self._may_repeat(failure):
            return None
        self._spend(self.way, failure)
        way = self._find(pool, now_s) if self.tries < rule.attempts else None
        way = way or self._fall_back(now_s)
        if way is not None:
            self._repeats(failure)
        return way

    def waits(self, wait_s: float, now_s: float, deadline_s: float) -> bool:
        """Who was just asked has no quota, and nobody else is left. Is it waited for? Then that is another try."""
        rule = self.pool.retry
        if self.tries >= rule.attempts or not self._may_repeat(429) or rule.wait_s(wait_s, now_s, deadline_s) is None:
            return False
        self._repeats(429)
        return True

    def _may_repeat(self, failure: Failure) -> bool:
        live, rule = self.pool.live, self.pool.retry
        if rule.attempts == 1 or not (failure in rule.on or failure == 401):
            return False
        return self._on_retry or live.budget.allows(live.requests)

    def _repeats(self, failure: Failure) -> None:
        live = self.pool.live
        live.retries[failure] = live.retries.get(failure, 0) + 1
        if not self._on_retry:
            self._on_retry = True
            live.budget.began()

    def _fall_back(self, now_s: float) -> Way | None:
        """Nobody is left here: who is, in the pool that is named for this?"""
        fallbacks = islice(self.pool.chain(), 1, None)
        return next((way for pool in fallbacks if (way := self._find(pool, now_s)) is not None), None)

    # --- one try after the other ---------------------------------------------------------------------------------

    def begin(self, way: Way) -> Lease:
        """A try begins."""
        if way.pool is not self.pool:
            self._leave()
            self._enter(way.pool)
        self.way = way
        self.tries += 1
        self._request.tries += 1
        member, key = way.member, way.key
        self._held = member.upstream
        cost = estimated_work(len(self._body), member.live.load.output_bytes)
        return Lease(member.upstream.live, None if key is None else key.live, member.live.load, cost)

    def tried(self, outcome: Outcome, began_s: float, now_s: float) -> bool:
        """A try that began at `began_s` has ended. True if its member is left out for a while from now on."""
        self._held = None
        member = self.way.member
        record = member.live.outlier
        if outcome is _OK:
            if record.failures:
                record.succeeded(began_s)
        elif outcome in FAILURES and self.way.pool.judge(member, began_s, now_s):
            member.live.ejections += 1
            return True
        return False

    def body_for(self, member: Member) -> bytes:
        """The body as this member is to get it."""
        if member.model is None or self._model is None:
            return self._body
        return self._model.replaced(self._body, member.model)

    def settled(self) -> None:
        """An answer has begun: no other try can follow, and a stream may last for hours."""
        self._body = b""

    def over(self) -> None:
        """The request is over."""
        self._leave()

    def _enter(self, pool: Pool) -> None:
        self.pool, self.tries = pool, 0
        pool.live.requests += 1
        if self._on_retry:
            pool.live.budget.began()

    def _leave(self) -> None:
        self.pool.live.requests -= 1
        if self._on_retry:
            self.pool.live.budget.ended()
