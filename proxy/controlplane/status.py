"""What is going on: upstreams, pools, rates, waits. `GET /status` sends it; `serinus status` and `top` show it."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from proxy import __version__
from proxy.controlplane.key_status import KeyStatus, key_statuses
from proxy.controlplane.keyring import Keyring
from proxy.obs.metrics import KeyState, MemberState, PoolState
from proxy.obs.recent import Counts, Recent, Window
from proxy.state.snapshot import Member, Pool, Snapshots, Upstream

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


class UpstreamStatus(msgspec.Struct, frozen=True):
    url: str
    # ok; failing: half of its requests or more failed in the window; idle: there were none; unhealthy: says a check.
    health: str
    inflight: int
    traffic: Traffic
    outcomes: dict[str, int]  # since the start
    keys: dict[str, KeyStatus]


class MemberStatus(msgspec.Struct, frozen=True):
    """Of an upstream that is several members of one pool, each shows the traffic of all."""

    upstream: str
    weight: int
    share_percent: float  # that its weight asks for
    traffic: Traffic
    model: str | None = None
    key: str | None = None
    state: str = "up"  # ejected: left out for its failures; unhealthy: its upstream is


class PoolStatus(msgspec.Struct, frozen=True):
    traffic: Traffic
    members: list[MemberStatus]


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


class Reporter:
    """Brings it together."""

    def __init__(
        self,
        snapshots: Snapshots,
        recent: Recent,
        clock: Callable[[], float],
        connections: Callable[[], int],
        keyring: Keyring,
    ) -> None:
        self._snapshots, self._recent, self._keyring = snapshots, recent, keyring
        self._clock, self._connections = clock, connections
        self._started_s = clock()

    def members(self) -> Iterator[MemberState]:
        """One record for each upstream of each pool: it is up if one of its members there is."""
        now_s = self._clock()
        for pool in self._snapshots.current.pools:
            by_upstream: dict[str, list[Member]] = {}
            for member in pool.members:
                by_upstream.setdefault(member.upstream.name, []).append(member)
            for name, members in by_upstream.items():
                ejections = sum(member.live.ejections for member in members)
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
        for key in key_statuses(self._keyring, now_s):
            keys.setdefault(key.upstream, {})[key.key] = key
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
                name: _upstream(upstream, window, keys.get(name, {})) for name, upstream in snapshot.upstreams.items()
            },
            pools={pool.name: _pool(pool, window, now_s) for pool in snapshot.pools},
            last_reload=last_reload,
        )


def _upstream(upstream: Upstream, window: Window, keys: dict[str, KeyStatus]) -> UpstreamStatus:
    live, counts = upstream.live, window.of_upstream(upstream.name)
    return UpstreamStatus(
        url=upstream.url,
        health=_health(upstream, counts),
        inflight=live.inflight,
        traffic=_traffic(window, counts),
        outcomes={outcome.value: count for outcome, count in live.outcomes.items() if count},
        keys=keys,
    )


def _health(upstream: Upstream, counts: Counts) -> str:
    if not upstream.live.health.healthy:
        return "unhealthy"
    if not counts.requests:
        return "idle"
    return "failing" if counts.failures >= counts.requests * FAILING_SHARE else "ok"


def _state(member: Member, now_s: float) -> str:
    if member.live.outlier.is_out(now_s):
        return "ejected"
    return "up" if member.upstream.live.health.healthy else "unhealthy"


def _pool(pool: Pool, window: Window, now_s: float) -> PoolStatus:
    weights = sum(member.weight for member in pool.members)
    members = [
        MemberStatus(
            upstream=member.upstream.name,
            weight=member.weight,
            share_percent=round(100 * member.weight / weights, 1),
            traffic=_traffic(window, window.of_member(pool.name, member.upstream.name)),
            model=member.model,
            state=_state(member, now_s),
            key=member.key,
        )
        for member in pool.members
    ]
    return PoolStatus(_traffic(window, window.of_pool(pool.name)), members)


def _traffic(window: Window, counts: Counts) -> Traffic:
    return Traffic(
        requests_per_s=round(window.rate(counts.requests), 2),
        failed_percent=round(100 * counts.failures / counts.requests, 2) if counts.requests else 0.0,
        first_byte_ms=_quantiles(counts.first_byte_s),
        duration_ms=_quantiles(counts.duration_s),
    )


def _quantiles(quantile_s: Callable[[float], float | None]) -> Quantiles | None:
    p50_s, p95_s, p99_s = map(quantile_s, (0.5, 0.95, 0.99))
    if p50_s is None or p95_s is None or p99_s is None:
        return None
    return Quantiles(*(round(seconds * 1000, 2) for seconds in (p50_s, p95_s, p99_s)))
