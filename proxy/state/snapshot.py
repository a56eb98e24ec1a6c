"""One valid configuration, ready to be used: immutable, numbered, and built whole or not at all.

Everything a request needs is worked out here once (header lines as bytes, globs compiled, metric series bound), so that
the request path looks things up and never computes them. A request takes `current` once and keeps to it to its end.
Records are compared by identity (`eq=False`): two snapshots share them only where nothing but who may call has changed.
"""

import math
import re
import ssl
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hmac import compare_digest

from proxy.model.client_keys import digest
from proxy.model.outcome import Outcome
from proxy.obs.metrics import Series
from proxy.policy.balance import Balancer
from proxy.policy.canary import Enrolment
from proxy.policy.cors import Cors
from proxy.policy.fields import Pair
from proxy.policy.key_turns import KeyTurns
from proxy.policy.limits import Limits
from proxy.policy.outlier import FAILURES, Ejection
from proxy.policy.retry import RetryRule
from proxy.state.live import CanaryLive, ClientLive, KeyLive, MemberLive, PoolLive, UpstreamLive

_OK = Outcome.OK


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where connections go, and how. Equal endpoints share their idle connections, across reloads too."""

    host: str
    port: int
    server_name: str | None  # the name asked for and verified; None: no TLS
    tls_identity: tuple[str, ...] = ()  # what the TLS context was made from, for comparison
    tls: ssl.SSLContext | None = field(default=None, compare=False)
    connect_timeout_s: float = 5.0
    max_idle: int = 64
    idle_timeout_s: float = 60.0
    min_idle: int = 0
    resolve_interval_s: float = math.inf


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """A credential of an upstream; `line` is its whole header line, CRLF included."""

    name: str
    line: bytes = field(repr=False)
    live: KeyLive
    limits: Limits | None  # the provider's; None: not known


@dataclass(frozen=True, slots=True, eq=False)
class Upstream:
    """One upstream, or one of its targets where each address of its name is one."""

    name: str  # as it is configured
    target: str  # the address; empty: reached by its name
    in_logs: Mapping[str, str]  # what tells it there
    name_line: bytes  # a field for callers, with CRLF before it
    url: str  # its base URL
    endpoint: Endpoint
    base_path: bytes  # of base_url, without a trailing slash
    after_target: bytes  # the end of the request line, and the Host line, each with CRLF
    fixed_lines: bytes  # the configured headers, each with CRLF
    overridden: frozenset[bytes]  # names, in lower case, of a caller's fields that ours replace
    query: bytes  # configured query, encoded, without a question mark
    keys: tuple[Key, ...]  # targets share them, and their turns
    key_turns: KeyTurns
    limits: Limits | None  # the provider's, for all keys together; None: not known
    max_connections: int
    max_pending: int
    first_byte_timeout_s: float
    idle_timeout_s: float
    total_timeout_s: float  # infinite where there is none
    websocket_idle_s: float  # likewise
    tcp_keepalive_s: float | None
    live: UpstreamLive

    def has_room(self, held: int = 0) -> bool:
        """For another request of someone who holds so many places here already, and gives them up for it?"""
        return self.live.inflight - held < self.max_connections and self.live.pending < self.max_pending


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    place: int  # among the configured ones: the targets of one upstream have one place
    upstream: Upstream
    weight: int
    model: str | None  # sent in place of the caller's
    key: str | None  # the name of the only one to use
    keys: tuple[Key, ...]  # those that may be used, of one name too where one follows another; none: callers' own
    live: MemberLive

    def refused(self, key: Key) -> None:
        """It drew a 401. It rests if others are left; a check is to tell whether the key is at fault, or the caller."""
        key.live.doubted = True
        if key.live.resting == "" and any(other is not key and not other.live.resting for other in self.keys):
            key.live.resting = "401"

    def is_up(self, now_s: float) -> bool:
        """Neither ejected nor found unhealthy."""
        return self.live.outlier.out_until_s <= now_s and self.upstream.live.health.healthy


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """A way that a request may take: by a member of a pool, with a key of its upstream."""

    pool: "Pool"
    member: Member
    upstream: Upstream
    key: Key | None  # None: callers bring their own
    limits: tuple[Limits, ...] = field(init=False)  # the provider's that count on it
    metered: bool = field(init=False)  # do any of them count tokens?

    def __post_init__(self) -> None:
        both = (self.upstream.limits, None if self.key is None else self.key.limits)
        limits = tuple(each for each in both if each is not None)
        object.__setattr__(self, "limits", limits)
        object.__setattr__(self, "metered", any(each.tokens is not None for each in limits))

    def wait_s(self, tokens: int, now_s: float) -> float:
        """In how many seconds a request of so many tokens is within the provider's limits; 0.0: now."""
        refusals = [limits.refusal(tokens, now_s) for limits in self.limits]
        return max((refused.retry_after_s for refused in refusals if refused is not None), default=0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    name: str
    members: tuple[Member, ...]
    balancer: Balancer
    by_prefix: bool  # the balancer wants to know how prompts begin
    retry: RetryRule
    hedge_after_s: float  # infinite: never
    ejection: Ejection
    fallback: "Pool | None"
    first: int  # the member who is asked where only the maker would know, and it is not remembered who that is
    live: PoolLive
    ways: tuple[tuple[Way, ...], ...] = field(init=False)  # by each member, one with each of its keys

    def __post_init__(self) -> None:
        ways = [[Way(self, member, member.upstream, key) for key in member.keys or (None,)] for member in self.members]
        object.__setattr__(self, "ways", tuple(map(tuple, ways)))

    def way(self, index: int, usable: Sequence[Way] = ()) -> Way:
        """The way by this member with the key that is next, of `usable` if there are any, or of all."""
        ways = usable or self.ways[index]
        if len(ways) == 1:
            return ways[0]
        upstream = ways[0].upstream
        keys = [upstream.keys.index(way.key) for way in ways if way.key is not None]
        next_key = upstream.key_turns.pick([key.live.used for key in upstream.keys], keys)
        return ways[keys.index(next_key)]

    def chain(self) -> "Iterator[Pool]":
        """It, and those that it falls back on, one after the other."""
        pool: Pool | None = self
        while pool is not None:
            yield pool
            pool = pool.fallback

    def judge(self, member: Member, outcome: Outcome, began_s: float, now_s: float) -> bool:
        """A try at this member has ended. True if it is left out for a while from now on."""
        live = member.live
        if outcome is _OK:
            if live.outlier.failures:
                live.outlier.succeeded(began_s)
            return False
        if outcome not in FAILURES:
            return False
        out = sum(other.live.outlier.is_out(now_s) for other in self.members)
        if not self.ejection.failed(live.outlier, began_s, now_s, out, len(self.members)):
            return False
        ejections, name = self.live.ejections, member.upstream.name
        ejections[name] = ejections.get(name, 0) + 1
        live.load.returned(live.outlier.out_until_s)  # then, with a slow start
        return True


@dataclass(frozen=True, slots=True, eq=False)
class Canary:
    """A pool beside another one, that is to have its requests if it proves to be as good."""

    name: str
    rollout: Enrolment  # live: it goes on over reloads
    pool: Pool
    live: CanaryLive
    header: bytes  # the field, in lower case, that says what is drawn together; empty: another thing does
    draws_requests: bool  # each by itself
    is_shadow: bool  # it gets copies of them
    may_be_forced: bool  # may callers choose their arm?
    max_gap_s: float  # a longer silence amid an answer is a stall


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    label: str  # how metrics and logs call it
    prefix: bytes  # without a trailing slash: "" is everything
    model_glob: str | None
    model: re.Pattern[str] | None  # the glob, compiled
    headers: tuple[Pair, ...]  # names in lower case
    pool: Pool
    max_body_bytes: int
    buffer_bytes: int
    series: Mapping[Member, Series]  # of its pool's members, and of those of its fallbacks
    own_series: Series  # answers of our own to requests of this route
    replaces_model: bool  # some member of its pools has a model of its own
    canary: Canary | None  # beside its pool

    def pools(self) -> Iterator[Pool]:
        """All that its requests may come to."""
        yield from self.pool.chain()
        if self.canary is not None:
            yield from self.canary.pool.chain()

    def matches_path(self, path: bytes) -> bool:
        """Does the path begin with this prefix, at the boundary of a segment?"""
        prefix = self.prefix
        return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"/", b"?", b"")

    def serves(self, model: str) -> bool:
        return self.model is None or self.model.fullmatch(model) is not None

    def matches_headers(self, passed: list[Pair]) -> bool:
        return all(
            any(name.lower() == wanted and value == text for name, value in passed) for wanted, text in self.headers
        )


@dataclass(frozen=True, slots=True, eq=False)
class Client:
    name: str
    models: re.Pattern[str] | None  # None: all
    live: ClientLive
    limited: bool = False  # in requests or tokens a minute, of which answers tell what is left
    metered: bool = False  # in tokens

    def may_use(self, model: str) -> bool:
        return self.models is None or self.models.fullmatch(model) is not None


@dataclass(frozen=True, slots=True, eq=False)
class ClientKey:
    digest: bytes = field(repr=False)
    client: Client


@dataclass(frozen=True, slots=True, eq=False)
class ClientKeys:
    """Whose key is it?"""

    by_digest: Mapping[bytes, ClientKey] = field(repr=False)
    peppers: tuple[bytes | None, ...] = field(default=(None,), repr=False)  # None: plain SHA-256

    def find(self, key: bytes) -> Client | None:
        """The client who has this key.

        It is found by the whole of its digest, so it costs the same however many there are, and the time it takes says
        nothing of a key that is nearly right.
        """
        for pepper in self.peppers:
            made = digest(key, pepper)
            held = self.by_digest.get(made)
            if held is not None and compare_digest(held.digest, made):
                return held.client
        return None

    def is_one_of(self, key: bytes, digests: Collection[bytes]) -> bool:
        return any(digest(key, pepper) in digests for pepper in self.peppers)


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """What a caller may take its time for, in seconds, and how many connections there may be."""

    head_timeout_s: float
    body_timeout_s: float
    idle_timeout_s: float
    stall_timeout_s: float
    max_connections: int


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    generation: int
    deployment_id: bytes  # signs Via; the same for all replicas of one configuration
    via_line: bytes  # with CRLF
    clients: ClientKeys | None  # None: anyone may call
    routes: tuple[Route, ...]
    pools: tuple[Pool, ...]
    upstreams: Mapping[str, Upstream]  # by the names of their live state: each target is one
    unrouted_series: Series
    fast_lane: bool
    cors: Cors | None  # pages of which origins may call
    caller_limits: CallerLimits
    logs_access: bool
    counts_tokens: bool  # of all answers; else of those that somebody's limits count


class Snapshots:
    """Holds the snapshot in force."""

    __slots__ = ("current",)

    def __init__(self, first: Snapshot) -> None:
        self.current = first
