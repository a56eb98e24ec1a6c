"""Looking for a way: which member of a pool, and which of its keys, may take a request now."""

import math

from proxy.dataplane.request import Request
from proxy.model.errors import BadRequest, NobodyLeft, ProxyError, UpstreamCredentialsExhausted, UpstreamRateLimited
from proxy.policy.load import estimated_work
from proxy.policy.model_field import ModelField, find_model
from proxy.policy.prefix import prompt_prefix
from proxy.policy.retry import Failure
from proxy.state.snapshot import Key, Member, Pool, Upstream, Way

MODEL_NAME_MAX = 256  # callers choose it, and it is kept as long as a quota is used up
OF_THE_KEY = (401, 429)  # another key of the same upstream may do


def turn(pool: Pool, body: bytes, now_s: float, usable: list[int] | None = None) -> int:
    """The index of the member whose turn it is, of all or of those that are usable."""
    prefix = prompt_prefix(body) if pool.by_prefix else b""
    work = estimated_work(len(body), pool.members[0].live.load.output_bytes)
    return pool.balancer.pick(now_s, work, prefix, usable)


def way_at_once(request: Request, pool: Pool, index: int, now_s: float) -> Way | None:
    """The way by this member, if all is well with it, as it nearly always is; so nobody else is looked at."""
    member = pool.members[index]
    upstream, live = member.upstream, member.upstream.live
    if not (upstream.has_room() and live.health.healthy and member.live.outlier.out_until_s <= now_s):
        return None
    for key in member.keys:
        if key.live.resting or key.live.account.cool_until_s:
            return None
    way = pool.way(index)
    return None if way.limits and way.wait_s(request.tokens, now_s) else way


def model_of(request: Request, body: bytes, known: ModelField | None) -> str | None:
    """The model that is asked for, where it can be known. `known`: if it was looked for before, and found."""
    name = request.head.named
    if known is not None:
        name = known.value
    elif name is None and body:
        types = [value for name, value in request.head.fields.passed if name.lower() == b"content-type"]
        try:
            found = find_model(body, types[0] if types else b"")
        except BadRequest:  # for the upstream to judge, since nothing here hangs on its model
            return None
        name = None if found is None else found.value
    return None if name is None or len(name) > MODEL_NAME_MAX else name


class Search:
    """For one request. What has failed it is not found again."""

    __slots__ = ("_body", "_held", "_looked", "_model", "_named", "_request", "_spent")

    def __init__(self, request: Request, body: bytes, model: ModelField | None) -> None:
        self._request, self._body, self._model = request, body, model
        self._spent: tuple[object, ...] = ()  # members and keys
        self._held: Upstream | None = None  # where the request already has a place
        self._looked = False
        self._named: str | None = None

    @property
    def model(self) -> str | None:
        """The model that is asked for, where it can be known; quotas are kept by it."""
        if not self._looked:
            self._looked, self._named = True, model_of(self._request, self._body, self._model)
        return self._named

    def spend(self, way: Way, failure: Failure) -> None:
        """It failed: it, or its key alone, is not taken again."""
        of_the_key = failure in OF_THE_KEY and way.key is not None
        self._spend(way.key if of_the_key else way.member)
        self._held = way.upstream

    def _spend(self, what: Member | Key | None) -> None:
        self._spent += (what,)

    def _find(self, pool: Pool, now_s: float) -> Way | None:
        """Who is next of those that are well; None if there is nobody."""
        usable = [index for index in range(len(pool.members)) if self._is_usable(pool, index, now_s)]
        return self._by(pool, turn(pool, self._body, now_s, usable), now_s) if usable else None

    def _find_anyway(self, pool: Pool, turned: int, now_s: float) -> Way | None:
        """All are out: one of them may be well again, and to ask is better than to refuse.

        It was `turned`'s turn. If that had been in vain, others would wait for theirs for ever.
        """
        members = enumerate(pool.members)
        left = [index for index, member in members if member.weight and self._has_way(pool, index, now_s)]
        if not left:
            return None
        pool.live.panics += 1
        return self._by(pool, turned if turned in left else turn(pool, self._body, now_s, left), now_s)

    def _find_soonest(self, pool: Pool, now_s: float) -> Way | None:
        """All who are well have used up what their providers allow: by whom it goes soonest, if that is soon enough."""
        found: Way | None = None
        least_s = math.inf
        for index, member in enumerate(pool.members):
            if not self._is_well(member, now_s) or not member.upstream.has_room(self._held is member.upstream):
                continue
            for way in pool.ways[index]:
                wait_s = way.wait_s(self._request.tokens, now_s)
                if wait_s < least_s and self._may_use(way.key, now_s) and self._may_wait(way, wait_s, now_s):
                    found, least_s = way, wait_s
        return found

    def _may_wait(self, way: Way, wait_s: float, now_s: float) -> bool:
        return way.pool.retry.wait_s(wait_s, now_s, now_s + way.upstream.total_timeout_s) is not None

    def _is_well(self, member: Member, now_s: float) -> bool:
        return member.weight > 0 and member.is_up(now_s) and member not in self._spent

    def _is_usable(self, pool: Pool, index: int, now_s: float) -> bool:
        return self._is_well(pool.members[index], now_s) and self._has_way(pool, index, now_s)

    def _has_way(self, pool: Pool, index: int, now_s: float) -> bool:
        """Is there room, and a way that may be taken now?"""
        upstream = pool.members[index].upstream
        return upstream.has_room(self._held is upstream) and any(self._may_take(w, now_s) for w in pool.ways[index])

    def _may_take(self, way: Way, now_s: float) -> bool:
        return self._may_use(way.key, now_s) and not (way.limits and way.wait_s(self._request.tokens, now_s))

    def _may_use(self, key: Key | None, now_s: float) -> bool:
        if key is None:
            return True
        live = key.live
        if not live.resting and not live.account.cool_until_s and not self._spent:
            return True
        return key not in self._spent and live.is_usable(self.model, now_s)

    def _by(self, pool: Pool, index: int, now_s: float) -> Way:
        """By this member, which has a way, with the key that is next of those that may be used."""
        return pool.way(index, [way for way in pool.ways[index] if self._may_take(way, now_s)])

    def _nobody(self, pool: Pool, now_s: float) -> ProxyError:
        """Why there is nobody to ask."""
        keys = [key for member in pool.members for key in member.keys]
        if keys and all(key.live.resting for key in keys):
            return UpstreamCredentialsExhausted(f"No key of pool {pool.name} is accepted upstream.")
        ways = [way for ways in pool.ways for way in ways if way.key is None or not way.key.live.resting]
        waits_s = [self._quota_wait_s(way, now_s) for way in ways]
        if waits_s and min(waits_s) > 0:
            return self._too_soon(pool, min(waits_s))
        return NobodyLeft(f"Nobody in pool {pool.name} can take the request now.")

    def _quota_wait_s(self, way: Way, now_s: float) -> float:
        cool_until_s = 0.0 if way.key is None else way.key.live.account.cool_until_s.get(self.model, 0.0)
        return max(cool_until_s - now_s, way.wait_s(self._request.tokens, now_s))

    @staticmethod
    def _too_soon(pool: Pool, wait_s: float) -> ProxyError:
        said = f"Every key of pool {pool.name} has used up its quota for now."
        return UpstreamRateLimited(said, retry_after_s=math.ceil(wait_s))
