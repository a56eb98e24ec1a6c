"""What is going on: upstreams, pools, rates, waits. `GET /status` sends it; `serinus status` and `top` show it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from proxy import __version__
from proxy.controlplane.canaries import Canaries
from proxy.controlplane.canary_status import CanaryStatus, canary_status
from proxy.controlplane.certificates import Certificates, CertificateStatus
from proxy.controlplane.client_status import ClientTraffic, client_traffic
from proxy.controlplane.clients import Clients
from proxy.controlplane.key_status import KeyStatus, key_statuses
from proxy.controlplane.keyring import Keyring
from proxy.obs.metrics import KeyState, MemberState, PoolState
from proxy.obs.recent import Counts, Recent, Window
from proxy.state.live import Registry
from proxy.state.snapshot import Member, Pool, Snapshot, Snapshots, Upstream

FAILING_SHARE = 0.5  # of the requests in the window


class Quantiles(msgspec.Struct, frozen=True):
    """Milliseconds, within 5 %."""

    p50: float
    p95: float
    p99: float


class Traffic(msgspec.Struct, frozen=True):
    """What passed in the window."""

    requests_per_s: float
    failed_percent: float  # that count against the upstream: not those whose caller left
    first_byte_ms: Quantiles | None  # from sending the request upstream; None: nothing came back
    duration_ms: Quantiles | None  # from the request's head to its answer's last byte
    retries_per_s: float = 0.0  # tries that failed and were followed by another
    codes: dict[str, int] = {}  # answers by status; 499: the caller left before


class TargetStatus(msgspec.Struct, frozen=True):
    """One address of an upstream's name, where each is a target of its own."""

    inflight: int
    # up; ejected: left out of a pool for its failures; unhealthy: says a check; leaving: the name has it no more.
    state: str


class UpstreamStatus(msgspec.Struct, frozen=True):
    url: str
    # ok; failing: half of its requests or more failed in the window; idle: there were none; unhealthy: says a check.
    health: str
    inflight: int
    traffic: Traffic
    outcomes: dict[str, int]  # since the start
    keys: dict[str, KeyStatus]
    targets: dict[str, TargetStatus] = {}  # by address
    last_failure_ago_s: float | None = None  # to 2 s; None: it did not fail since the start


class MemberStatus(msgspec.Struct, frozen=True):
    """As it is configured, with all targets of its upstream: it is up if one of them is.

    Of an upstream that is several members of one pool, each shows the traffic of all.
    """

    upstream: str
    weight: int  # of each target
    share_percent: float  # that its weight asks for
    traffic: Traffic
    model: str | None = None
    key: str | None = None
    state: str = "up"  # ejected: left out for its failures; unhealthy: its upstream is
    ejected_s: float = 0.0  # how long still, until the first of its targets is back
    ejections: int = 0  # of its upstream from this pool, since the start


class PoolStatus(msgspec.Struct, frozen=True):
    traffic: Traffic
    members: list[MemberStatus]
    inflight: int = 0
    retries: dict[str, int] = {}  # since the start, by why the try before failed
    ejections_per_s: float = 0.0


class Status(msgspec.Struct, frozen=True):
    version: str
    ready: bool
    generation: int
    uptime_s: float
    window_s: float  # how much time `traffic` speaks of
    connections: int  # of callers
    traffic: Traffic  # all of it
    answered_here_per_s: float  # answers of our own: refusals, lists of models
    upstreams: dict[str, UpstreamStatus]
    pools: dict[str, PoolStatus]
    last_reload: dict[str, Any] | None = None
    certificates: dict[str, CertificateStatus] = {}  # by listener
    clients: dict[str, ClientTraffic] = {}  # that called since the start
    canaries: dict[str, CanaryStatus] = {}
    workers: int = 1  # processes that serve
    clients_quiet: int = 0  # how many may call besides
    limited_per_s: float = 0.0  # requests refused by clients' limits


class Reporter:
    """Brings it together."""

    def __init__(
        self,
        snapshots: Snapshots,
        registry: Registry,
        recent: Recent,
        clock: Callable[[], float],
        connections: Callable[[], int],
        workers: Callable[[], int],
        keyring: Keyring,
        certificates: Certificates,
        canaries: Canaries,
        clients: Clients,
    ) -> None:
        self._snapshots, self._registry, self._recent, self._keyring = snapshots, registry, recent, keyring
        self._certificates, self._canaries, self._clients = certificates, canaries, clients
        self._clock, self._connections, self._workers = clock, connections, workers
        self._started_s = clock()

    def members(self) -> Iterator[MemberState]:
        """One record for each upstream of each pool: it is up if one of its members there is."""
        now_s = self._clock()
        for pool in self._snapshots.current.pools:
            by_upstream: dict[str, list[Member]] = {}
            for member in pool.members:
                by_upstream.setdefault(member.upstream.name, []).append(member)
            for name, members in by_upstream.items():
                ejections = pool.live.ejections.get(name, 0)
                yield MemberState(pool.name, name, any(member.is_up(now_s) for member in members), ejections)

    def keys(self) -> Iterator[KeyState]:
        for key in key_statuses(self._keyring, self._clock()):
            yield KeyState(key.upstream, key.key, key.state)

    def pools(self) -> Iterator[PoolState]:
        for pool in self._snapshots.current.pools:
            yield PoolState(pool.name, pool.live.retries, pool.live.panics)

    def status(self, window_s: float, *, ready: bool, last_reload: dict[str, Any] | None) -> Status:
        """`window_s`: how far back to look; a proxy that runs for less time looks back to its start."""
        snapshot, window, now_s = self._snapshots.current, self._recent.over(window_s), self._clock()
        keys: dict[str, dict[str, KeyStatus]] = {}
        for key in key_statuses(self._keyring, now_s, window):
            keys.setdefault(key.upstream, {})[key.key] = key
        clients = client_traffic(self._clients, self._registry, window, now_s)
        return Status(
            version=__version__,
            ready=ready,
            generation=snapshot.generation,
            uptime_s=round(now_s - self._started_s, 1),
            window_s=round(window.lasted_s, 1),
            connections=self._connections(),
            traffic=_traffic(window, window.whole),
            answered_here_per_s=round(window.rate(window.answered_here.requests), 2),
            upstreams={
                name: self._upstream(targets, window, now_s, keys.get(name, {}))
                for name, targets in _by_name(snapshot).items()
            },
            pools={pool.name: _pool(pool, window, now_s) for pool in snapshot.pools},
            last_reload=last_reload,
            certificates=self._certificates.status(),
            clients=clients,
            canaries={name: canary_status(rollout, now_s) for name, rollout in self._canaries.rollouts.items()},
            workers=self._workers(),
            clients_quiet=len(self._clients.names()) - len(clients),
            limited_per_s=round(sum(client.refused_per_s for client in clients.values()), 2),
        )

    def _upstream(
        self, targets: list[Upstream], window: Window, now_s: float, keys: dict[str, KeyStatus]
    ) -> UpstreamStatus:
        first = targets[0]
        counts, failed_s = window.of_upstream(first.name), self._recent.last_failure_s(first.name)
        return UpstreamStatus(
            url=first.url,
            health=_health(targets, counts),
            inflight=sum(live.inflight for live in self._registry.targets(first.name)),
            traffic=_traffic(window, counts),
            outcomes={outcome.value: count for outcome, count in first.live.outcomes.items() if count},
            keys=keys,
            targets=self._targets(targets, now_s),
            last_failure_ago_s=None if failed_s is None else round(now_s - failed_s, 1),
        )

    def _targets(self, targets: list[Upstream], now_s: float) -> dict[str, TargetStatus]:
        """By address: those in force, then those whose last requests still run."""
        members = [member for pool in self._snapshots.current.pools for member in pool.members]
        out = {member.upstream for member in members if member.live.outlier.is_out(now_s)}
        shown = {}
        for target in targets:
            if target.target:
                state = "ejected" if target in out else "up" if target.live.health.healthy else "unhealthy"
                shown[target.target] = TargetStatus(target.live.inflight, state)
        for live in self._registry.targets(targets[0].name):
            address = live.name.partition("@")[2]
            if address and address not in shown and live.inflight:
                shown[address] = TargetStatus(live.inflight, "leaving")
        return shown


def _by_name(snapshot: Snapshot) -> dict[str, list[Upstream]]:
    """The upstreams' targets, which nearly always is one each."""
    by_name: dict[str, list[Upstream]] = {}
    for upstream in snapshot.upstreams.values():
        by_name.setdefault(upstream.name, []).append(upstream)
    return by_name


def _health(targets: list[Upstream], counts: Counts) -> str:
    if not any(target.live.health.healthy for target in targets):
        return "unhealthy"
    if not counts.requests:
        return "idle"
    return "failing" if counts.failures >= counts.requests * FAILING_SHARE else "ok"


def _state(member: Member, now_s: float) -> str:
    if member.live.outlier.is_out(now_s):
        return "ejected"
    return "up" if member.upstream.live.health.healthy else "unhealthy"


def _pool(pool: Pool, window: Window, now_s: float) -> PoolStatus:
    by_place: dict[int, list[Member]] = {}
    for member in pool.members:
        by_place.setdefault(member.place, []).append(member)
    members = [_member(pool, targets, window, now_s) for targets in by_place.values()]
    return PoolStatus(
        _traffic(window, window.of_pool(pool.name)),
        members,
        pool.live.requests,
        {str(reason): count for reason, count in pool.live.retries.items() if count},
        round(window.rate(sum(window.other("ejections", pool.name, name) for name in pool.live.ejections)), 2),
    )


def _member(pool: Pool, targets: list[Member], window: Window, now_s: float) -> MemberStatus:
    first = targets[0]
    weights, states = sum(member.weight for member in pool.members), [_state(target, now_s) for target in targets]
    out_s = [target.live.outlier.out_until_s - now_s for target in targets if target.live.outlier.is_out(now_s)]
    return MemberStatus(
        upstream=first.upstream.name,
        weight=first.weight,
        share_percent=round(100 * first.weight * len(targets) / weights, 1),
        traffic=_traffic(window, window.of_member(pool.name, first.upstream.name)),
        model=first.model,
        state=_best(states),
        key=first.key,
        ejected_s=round(min(out_s, default=0.0), 1),
        ejections=pool.live.ejections.get(first.upstream.name, 0),
    )


def _best(states: Iterable[str]) -> str:
    """Of several targets."""
    return max(states, key=lambda state: state == "up")


def _traffic(window: Window, counts: Counts) -> Traffic:
    return Traffic(
        requests_per_s=round(window.rate(counts.requests), 2),
        failed_percent=round(100 * counts.failures / counts.requests, 2) if counts.requests else 0.0,
        first_byte_ms=_quantiles(counts.first_byte_s),
        duration_ms=_quantiles(counts.duration_s),
        retries_per_s=round(window.rate(counts.retried), 2),
        codes={str(status): count for status, count in sorted(counts.codes.items())},
    )


def _quantiles(quantile_s: Callable[[float], float | None]) -> Quantiles | None:
    p50_s, p95_s, p99_s = map(quantile_s, (0.5, 0.95, 0.99))
    if p50_s is None or p95_s is None or p99_s is None:
        return None
    return Quantiles(*(round(seconds * 1000, 2) for seconds in (p50_s, p95_s, p99_s)))
