"""Where a request may go: one way after another, until an upstream answers or nobody is left to ask."""

import math
from typing import NamedTuple

from proxy.dataplane.request import Request
from proxy.model.errors import BadRequest, NobodyLeft, ProxyError, UpstreamCredentialsExhausted, UpstreamRateLimited
from proxy.model.outcome import Outcome
from proxy.policy.load import estimated_work
from proxy.policy.model_field import ModelField, find_model
from proxy.policy.outlier import FAILURES
from proxy.policy.prefix import prompt_prefix
from proxy.policy.retry import Failure
from proxy.state.lease import Lease
from proxy.state.snapshot import Key, Member, Pool, Route

_OK = Outcome.OK
OF_THE_KEY = (401, 429)  # another key of the same upstream may do


class Way(NamedTuple):
    member: Member
    key: Key | None


class Plan:
    """The ways of one request. What has failed it is not asked again."""

    __slots__ = (
        "_body",
        "_bound",
        "_looked",
        "_model",
        "_named",
        "_on_retry",
        "_request",
        "_spent",
        "_way",
        "pool",
        "tries",
    )

    def __init__(
        self, request: Request, route: Route, body: bytes, model: ModelField | None, bound: Way | None
    ) -> None:
        """`bound`: the only way that there is, back to who made what the request speaks of."""
        self._request, self._body, self._model, self._bound = request, body, model, bound
        self._spent: tuple[object, ...] = ()  # members and keys
        self._on_retry = self._looked = False
        self._named: str | None = None
        self.tries = 0  # in this pool
        self._enter(route.pool)

    def first(self, now_s: float) -> Way:
        """Raises NobodyLeft, UpstreamRateLimited or UpstreamCredentialsExhausted."""
        way = self._bound or self._pick(now_s) or self._fall_back(now_s) or self._pick_anyway(now_s)
        if way is None:
            raise self._nobody(now_s)
        return way

    def another(self, failure: Failure, now_s: float, deadline_s: float) -> Way | None:
        """The way to take after a try that failed before its answer began; None if there is none."""
        pool, rule = self.pool, self.pool.retry
        if self._bound is not None or now_s >= deadline_s or rule.attempts == 1:
            return None
        if failure not in rule.on and failure != 401:
            return None
        if not (self._on_retry or pool.live.budget.allows(pool.live.requests)):
            return None
        self._spend(failure)
        way = self._pick(now_s) if self.tries < rule.attempts else None
        way = way or self._fall_back(now_s)
        if way is not None:
            pool.live.retries[failure] = pool.live.retries.get(failure, 0) + 1
            self._retrying()
        return way

    def may_wait(self, wait_s: float, now_s: float, deadline_s: float) -> bool:
        """May the quota of the upstream that was just asked be waited for?"""
        rule = self.pool.retry
        return 429 in rule.on and self.tries < rule.attempts and rule.wait_s(wait_s, now_s, deadline_s) is not None

    def _spend(self, failure: Failure) -> None:
        member, key = self._way
        if failure in OF_THE_KEY and member.key is None and key is not None:
            self._spent += (key,)
        else:
            self._spent += (member,)

    def _retrying(self) -> None:
        if not self._on_retry:
            self._on_retry = True
            self.pool.live.budget.began()

    # --- picking -------------------------------------------------------------------------------------------------

    def _pick(self, now_s: float) -> Way | None:
        """Who is next of those that are well; None if there is nobody."""
        pool = self.pool
        if not self._spent and (way := self._next(now_s)) is not None:
            return way
        usable = [index for index, member in enumerate(pool.members) if self._is_usable(member, now_s)]
        return self._way_by(self._turn(now_s, usable), now_s) if usable else None

    def _next(self, now_s: float) -> Way | None:
        """Who is next, if all is well with it, as it nearly always is; so nobody else is looked at."""
        member = self._turn(now_s, None)
        upstream, live = member.upstream, member.upstream.live
        if live.inflight >= upstream.max_connections or not (
            member.live.outlier.out_until_s <= now_s and live.health.healthy
        ):
            return None
        key = member.key or upstream.next_key()
        if key is not None and (key.live.resting or key.live.account.cool_until_s):
            return None
        return Way(member, key)

    def _pick_anyway(self, now_s: float) -> Way | None:
        """All are out: one of them may be well again, and to ask is better than to refuse."""
        members = self.pool.members
        left = [index for index, member in enumerate(members) if member.weight and self._has_way(member, now_s)]
        if not left:
            return None
        self.pool.live.panics += 1
        return self._way_by(self._turn(now_s, left), now_s)

    def _turn(self, now_s: float, usable: list[int] | None) -> Member:
        pool, size = self.pool, len(self._body)
        prefix = prompt_prefix(self._body) if pool.by_prefix else b""
        work = estimated_work(size, pool.members[0].live.load.output_bytes)
        return pool.members[pool.balancer.pick(now_s, work, prefix, usable)]

    def _is_usable(self, member: Member, now_s: float) -> bool:
        return member.weight > 0 and member.is_up(now_s) and member not in self._spent and self._has_way(member, now_s)

    def _has_way(self, member: Member, now_s: float) -> bool:
        """Is there room, and a key that may be used?"""
        upstream = member.upstream
        if upstream.live.inflight >= upstream.max_connections:
            return False
        keys = upstream.keys if member.key is None else (member.key,)
        return not keys or any(self._may_use(key, now_s) for key in keys)

    def _may_use(self, key: Key, now_s: float) -> bool:
        live = key.live
        if not live.resting and not live.account.cool_until_s and not self._spent:
            return True
        return key not in self._spent and live.is_usable(self.model, now_s)

    def _way_by(self, member: Member, now_s: float) -> Way | None:
        if not self._has_way(member, now_s):
            return None
        upstream = member.upstream
        if member.key is not None or not upstream.keys:
            return Way(member, member.key)
        return Way(member, upstream.next_key([key for key in upstream.keys if self._may_use(key, now_s)]))

    def _fall_back(self, now_s: float) -> Way | None:
        """Nobody is left here: go on in the pool that is named for this."""
        while (fallback := self.pool.fallback) is not None:
            self._leave()
            self._enter(fallback)
            if (way := self._pick(now_s)) is not None:
                return way
        return None

    def _nobody(self, now_s: float) -> ProxyError:
        """Why there is nobody to ask."""
        keys = [key for member in self.pool.members for key in member.upstream.keys]
        if keys and all(key.live.resting for key in keys):
            return UpstreamCredentialsExhausted(f"No key of pool {self.pool.name} is accepted upstream.")
        cool_s = [key.live.account.cool_until_s.get(self.model, 0.0) - now_s for key in keys if not key.live.resting]
        if cool_s and min(cool_s) > 0:
            said = f"Every key of pool {self.pool.name} has used up its quota for now."
            return UpstreamRateLimited(said, retry_after_s=math.ceil(min(cool_s)))
        return NobodyLeft(f"Nobody in pool {self.pool.name} can take the request now.")

    # --- one try after the other ---------------------------------------------------------------------------------

    @property
    def model(self) -> str | None:
        """The model that is asked for, where it can be known; quotas are kept by it."""
        if not self._looked:
            self._looked, self._named = True, self._find_model()
        return self._named

    def _find_model(self) -> str | None:
        named = self._request.head.named
        if self._model is not None:
            return self._model.value
        if named is not None or not self._body:
            return named
        types = [value for name, value in self._request.head.fields.passed if name.lower() == b"content-type"]
        try:
            found = find_model(self._body, types[0] if types else b"")
        except BadRequest:  # for the upstream to judge, since nothing here hangs on its model
            return None
        return None if found is None else found.value

    def begin(self, way: Way) -> Lease:
        """A try begins."""
        self._way = way
        self.tries += 1
        self._request.tries += 1
        member, key = way
        cost = estimated_work(len(self._body), member.live.load.output_bytes)
        return Lease(member.upstream.live, None if key is None else key.live, member.live.load, cost)

    def tried(self, outcome: Outcome, began_s: float, now_s: float) -> bool:
        """A try that began at `began_s` has ended. True if its member is left out for a while from now on."""
        member = self._way.member
        record = member.live.outlier
        if outcome is _OK:
            if record.failures:
                record.succeeded(began_s)
        elif outcome in FAILURES and self.pool.judge(member, began_s, now_s):
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
