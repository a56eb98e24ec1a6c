"""What is counted about an upstream and its keys while requests are under way; by name, so that it outlives reloads."""

import math
import random
from collections.abc import Callable, Collection, Mapping

from proxy.model.outcome import Outcome
from proxy.policy import outlier
from proxy.policy.balance import Dice
from proxy.policy.checks import Health
from proxy.policy.limits import Limits, Name
from proxy.policy.load import Load
from proxy.policy.retry import Budget, Failure, cooling_s

MOST_MODELS = 64
LimitsOf = Callable[[str], Limits]


def _own_limits(name: str) -> Limits:
    return Limits()


class AccountLive:
    """A provider's account, which all its keys draw on: what it was refused for lack of quota, by model."""

    __slots__ = ("cool_until_s", "last_cool_s", "refusals")

    def __init__(self) -> None:
        self.cool_until_s: dict[str | None, float] = {}  # None: of requests whose model is not known
        self.last_cool_s = 0.0  # when the last of them is over
        self.refusals: dict[str | None, int] = {}  # in a row

    def cool(self, model: str | None, until_s: float, now_s: float) -> None:
        if len(self.cool_until_s) >= MOST_MODELS:  # callers choose the names
            self.cool_until_s = {each: over_s for each, over_s in self.cool_until_s.items() if over_s > now_s}
            self.refusals.clear()
        self.cool_until_s[model] = max(until_s, self.cool_until_s.get(model, 0.0))
        self.last_cool_s = max(until_s, self.last_cool_s)

    def is_cooling(self, model: str | None, now_s: float) -> bool:
        if self.cool_until_s.get(model, 0.0) > now_s:
            return True
        if self.last_cool_s <= now_s:
            self.cool_until_s.clear()
        return False

    def refused(self, model: str | None, wait_s: float | None, now_s: float, dice: Callable[[], float]) -> bool:
        """A 429 came, with a word on how long to wait or without. Returns whether it had not been cooling before."""
        had_rested = self.cool_until_s.get(model, 0.0) <= now_s
        refusals = self.refusals[model] = self.refusals.get(model, 0) + 1
        self.cool(model, now_s + (cooling_s(refusals, dice) if wait_s is None else wait_s), now_s)
        return had_rested

    def answered(self, model: str | None) -> None:
        """It was not refused."""
        if self.refusals:
            self.refusals.pop(model, None)


class KeyLive:
    """One value of a key of one upstream."""

    __slots__ = (
        "account",
        "answers",
        "doubted",
        "fingerprint",
        "inflight",
        "last_used_s",
        "name",
        "refusals",
        "resting",
        "told_s",
        "used",
    )

    def __init__(self, name: str, account: AccountLive, fingerprint: str = "") -> None:
        self.name = name
        self.account = account
        self.fingerprint = fingerprint
        self.answers = 0  # that it drew, but 5xx
        self.refusals = {401: 0, 403: 0, 429: 0}  # of those
        self.last_used_s = -math.inf
        self.inflight = 0  # requests that hold it, from pick to last byte
        self.used = 0.0  # the share of its quota, as the upstream last told it
        self.told_s = 0.0
        self.resting = ""  # why it is not used until a check has spoken
        self.doubted = False  # a 403 came, which may be the caller's doing: a check is to tell, and it serves meanwhile

    def is_usable(self, model: str | None, now_s: float) -> bool:
        return not self.resting and not self.account.is_cooling(model, now_s)


class CanaryLive:
    """One canary, besides its rollout."""

    __slots__ = ("copies", "copies_failed", "copies_sent")

    def __init__(self) -> None:
        self.copies = 0  # of requests, under way in shadow mode
        self.copies_sent = 0
        self.copies_failed = 0


class ClientLive:
    """One client: how much it has used."""

    __slots__ = ("limited", "limits", "name", "requests", "tokens")

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.limited: dict[Name, int] = {"requests": 0, "tokens": 0, "concurrent": 0}  # requests refused, by limit
        self.requests = 0  # that have ended
        self.tokens = 0  # that they used; counted only while a limit of tokens asks for it


class UpstreamLive:
    """One upstream, and the keys it has been used with; or one of its targets, which share its keys and outcomes."""

    __slots__ = (
        "_limits_of",
        "cooldowns",
        "health",
        "inflight",
        "key_limits",
        "keys",
        "limits",
        "name",
        "outcomes",
        "pending",
        "upstream",
    )

    def __init__(self, name: str, whole: "UpstreamLive | None" = None, limits_of: LimitsOf = _own_limits) -> None:
        """`whole`: the upstream whose target it is."""
        self.name = name
        self.upstream = name if whole is None else whole.name  # as it is configured
        self.inflight = 0
        self.pending = 0  # of those, how many wait for a new connection
        # Shared, for counts that went with a target would seem to fall.
        self.outcomes: dict[Outcome, int] = dict.fromkeys(Outcome, 0) if whole is None else whole.outcomes
        self.cooldowns: dict[str, int] = {} if whole is None else whole.cooldowns  # by the key whose refusal began it
        self.health = Health()  # as active checks see it
        self.keys: dict[tuple[str, str], KeyLive] = {} if whole is None else whole.keys  # by name and fingerprint
        self.limits: Limits = limits_of(f"upstream/{name}") if whole is None else whole.limits  # the provider's
        self._limits_of = limits_of
        self.key_limits: dict[str, Limits] = {} if whole is None else whole.key_limits  # by name, whatever the value

    def limits_of_key(self, name: str) -> Limits:
        """The provider's for the key of that name, begun when they are first asked for."""
        made = self.key_limits.get(name)
        return made or self.key_limits.setdefault(name, self._limits_of(f"key/{self.upstream}/{name}"))

    def key(self, name: str, account: AccountLive, fingerprint: str = "") -> KeyLive:
        """The live state of this value of the key called `name`, begun when it is first asked for."""
        live = self.keys.get((name, fingerprint))
        if live is None:
            live = self.keys[name, fingerprint] = KeyLive(name, account, fingerprint)
        live.account = account
        return live


class MemberLive:
    """One member of one pool: what its balancer knows of it, and how it fares."""

    __slots__ = ("has_left", "load", "outlier")

    def __init__(self, load: Load) -> None:
        self.load = load
        self.outlier = outlier.Record()
        self.has_left = False  # it is no member any more, but requests on it still run


class PoolLive:
    """One pool, its members by what tells them apart."""

    __slots__ = ("budget", "ejections", "members", "name", "panics", "requests", "retries")

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = 0  # under way
        self.budget = Budget()
        self.retries: dict[Failure, int] = {}  # tries that failed and were followed by another, by why
        self.panics = 0  # picks among members all of whom were out
        self.ejections: dict[str, int] = {}  # by upstream
        self.members: dict[str, MemberLive] = {}

    def member(self, identity: str, now_s: float) -> MemberLive:
        """The live state of a member, begun when it is first asked for; and anew, save for what is still under way,
        when it comes back after it had left."""
        live = self.members.get(identity) or self.members.setdefault(identity, MemberLive(Load(now_s)))
        if live.has_left:
            live.load.returned(now_s)
            live.outlier, live.has_left = outlier.Record(), False
        return live

    def forget_except(self, members: Collection[MemberLive]) -> None:
        """Drop the state of who is no member any more, once no request holds it."""
        for identity, live in tuple(self.members.items()):
            if live not in members:
                live.has_left = True
                if live.load.inflight == 0:
                    del self.members[identity]


class Registry:
    """The live state of all upstreams and pools, by name."""

    def __init__(
        self, clock: Callable[[], float] = float, dice: Dice | None = None, limits_of: LimitsOf = _own_limits
    ) -> None:
        """`limits_of`: makes the limits of a client, an upstream or a key, named `kind/name`."""
        self.clock, self.dice = clock, dice or random.Random()  # noqa: S311 - for balancing
        self._limits_of = limits_of
        self.upstreams: dict[str, UpstreamLive] = {}
        self.pools: dict[str, PoolLive] = {}
        self.accounts: dict[str, AccountLive] = {}
        self.clients: dict[str, ClientLive] = {}
        self.canaries: dict[str, CanaryLive] = {}

    def upstream(self, name: str) -> UpstreamLive:
        """The live state of the upstream called `name`, begun when it is first asked for."""
        return self.upstreams.get(name) or self.upstreams.setdefault(name, UpstreamLive(name, None, self._limits_of))

    def target(self, upstream: str, address: str) -> UpstreamLive:
        """That of an upstream's target at one address of its name."""
        name = f"{upstream}@{address}"
        return self.upstreams.get(name) or self.upstreams.setdefault(name, UpstreamLive(name, self.upstream(upstream)))

    def targets(self, upstream: str) -> list[UpstreamLive]:
        """All that is known of an upstream: what it is by its name, and its targets, those too that are leaving."""
        return [live for live in self.upstreams.values() if live.upstream == upstream]

    def pool(self, name: str) -> PoolLive:
        """The live state of the pool called `name`, begun when it is first asked for."""
        return self.pools.get(name) or self.pools.setdefault(name, PoolLive(name))

    def account(self, name: str) -> AccountLive:
        return self.accounts.get(name) or self.accounts.setdefault(name, AccountLive())

    def client(self, name: str) -> ClientLive:
        """The live state of the client called `name`, begun when it is first asked for."""
        return self.clients.get(name) or self.clients.setdefault(
            name, ClientLive(name, self._limits_of(f"client/{name}"))
        )

    def canary(self, name: str) -> CanaryLive:
        """The live state of the canary called `name`, begun when it is first asked for."""
        return self.canaries.get(name) or self.canaries.setdefault(name, CanaryLive())

    def inflight(self) -> list[tuple[str, int]]:
        """Open requests, by upstream."""
        inflight: dict[str, int] = {}
        for live in self.upstreams.values():
            inflight[live.upstream] = inflight.get(live.upstream, 0) + live.inflight
        return list(inflight.items())

    def outcomes(self) -> list[tuple[str, str, int]]:
        """How many exchanges of which upstream ended how."""
        return [
            (name, outcome.value, count)
            for name, live in self.upstreams.items()
            if live.upstream == name  # its targets count there too
            for outcome, count in live.outcomes.items()
        ]

    def cooldowns(self) -> list[tuple[str, str, int]]:
        """How often which key of which upstream began to cool down; of all keys that there are, or that ever did."""
        return [
            (name, key, live.cooldowns.get(key, 0))
            for name, live in self.upstreams.items()
            if live.upstream == name  # its targets share its keys
            for key in dict.fromkeys((*live.cooldowns, *(key for key, _ in live.keys)))
        ]

    def limited(self) -> list[tuple[str, str, int]]:
        """How many requests of which client were refused by which limit; of those that it has, or that refused any."""
        return [
            (name, limit, count)
            for name, live in self.clients.items()
            for limit, count in live.limited.items()
            if count or live.limits.has(limit)
        ]

    def forget_clients_except(self, clients: Collection[str]) -> None:
        """Drop the state of those that there are no more, once nothing of theirs is under way."""
        for name in self.clients.keys() - clients:
            if self.clients[name].limits.under_way == 0:
                del self.clients[name]

    def forget_except(self, upstreams: Collection[str], pools: Mapping[str, Collection[MemberLive]]) -> None:
        """Drop the state of what is not in force and no request holds any more.

        `upstreams`: those in force, targets by their own names; `pools`: with their members.
        """
        held = {name for name, live in self.upstreams.items() if name in upstreams or live.inflight}
        held |= {self.upstreams[name].upstream for name in held}
        for name in self.upstreams.keys() - held:
            del self.upstreams[name]
        for name in self.upstreams.keys() - upstreams:
            self.upstreams[name].health.reset()  # it is not checked any more
        for name, pool in tuple(self.pools.items()):
            if name not in pools and pool.requests == 0:
                del self.pools[name]
            else:
                pool.forget_except(pools.get(name, ()))
