"""From valid settings to a snapshot: everything worked out that requests should not have to."""

import math
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from hashlib import sha256
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote

from proxy.controlplane.certificates import read_all
from proxy.controlplane.clients import Clients
from proxy.controlplane.globs import compiled
from proxy.controlplane.problems import ConfigInvalid, Problem
from proxy.controlplane.serving import Serving, as_configured
from proxy.model import settings as s
from proxy.obs.metrics import Metrics, SeriesLabels
from proxy.policy.balance import Node, balancer
from proxy.policy.canary import Arm, Enrolment
from proxy.policy.cors import Cors
from proxy.policy.key_turns import KeyTurns
from proxy.policy.limits import Limits
from proxy.policy.outlier import Ejection
from proxy.policy.retry import RetryRule
from proxy.state.live import Registry, UpstreamLive
from proxy.state.snapshot import (
    CallerLimits,
    Canary,
    ClientKeys,
    Endpoint,
    Key,
    Member,
    Pool,
    Route,
    Snapshot,
    Upstream,
)

KeysInForce = Callable[[str, s.UpstreamKey], Iterable[Serving]]  # of an upstream's key
RolloutsInForce = Callable[[s.Settings], Mapping[str, Enrolment]]  # by the canary's name
ClientsInForce = Callable[[s.Settings], ClientKeys | None]
Addresses = Mapping[str, tuple[str, ...]]
"""By upstream. One that has none here is a single target, reached by its name."""


class InForce(NamedTuple):
    """What a configuration begins with, as it is by now: by rotations, by hand, by evidence."""

    keys: KeysInForce
    clients: ClientsInForce
    rollouts: RolloutsInForce


_Targets = Mapping[str, tuple[Upstream, ...]]


def build(
    settings: s.Settings,
    registry: Registry,
    metrics: Metrics,
    generation: int,
    addresses: Addresses = MappingProxyType({}),
    in_force: InForce | None = None,
) -> Snapshot:
    """The snapshot of `settings`. Raises ConfigInvalid where a TLS file cannot be used; then nothing has changed.

    `in_force`: what was changed since the settings were written.
    """
    in_force = in_force or unchanged(settings, registry)
    problems: list[Problem] = []
    endpoints = {name: _endpoint(name, upstream, problems) for name, upstream in settings.upstreams.items()}
    if problems:
        raise ConfigInvalid(tuple(problems))
    whole = {
        name: _upstream(name, upstream, endpoints[name], registry.upstream(name), in_force.keys, registry.clock())
        for name, upstream in settings.upstreams.items()
    }
    targets = {
        name: _targets(whole[name], addresses.get(name, ()), registry) for name, upstream in settings.upstreams.items()
    }
    pools = _pools(settings, targets, registry)
    canaries = _canaries(in_force.rollouts(settings), pools, registry)
    deployment_id = _deployment_id(settings)
    return Snapshot(
        generation=generation,
        deployment_id=deployment_id,
        via_line=b"via: 1.1 %b\r\n" % deployment_id,
        clients=in_force.clients(settings),
        routes=tuple(_route(route, pools, canaries, metrics) for route in settings.routes),
        pools=tuple(pools.values()),
        upstreams={target.live.name: target for each in targets.values() for target in each},
        unrouted_series=metrics.series(SeriesLabels()),
        fast_lane=settings.fast_lane,
        cors=_cors(settings.cors),
        caller_limits=CallerLimits(**settings.downstream.model_dump()),
        counts_tokens=settings.metrics.tokens == "all",
        logs_access=settings.log.access and settings.log.level in ("debug", "info"),
    )


def unchanged(settings: s.Settings, registry: Registry) -> InForce:
    """As the configuration has it."""
    clients = Clients(settings, registry, wall_clock=float)
    return InForce(partial(as_configured, registry), clients.in_force, lambda settings: {})


def _cors(cors: s.Cors | None) -> Cors | None:
    if cors is None:
        return None
    return Cors(frozenset(origin.encode() for origin in cors.origins), any_origin="*" in cors.origins)


def prove(settings: s.Settings) -> None:
    """Build everything and throw it away. Raises ConfigInvalid, as serving these settings would."""
    attempts: list[Callable[[], object]] = [partial(build, settings, Registry(), Metrics(), generation=0)]
    attempts.append(partial(read_all, settings))
    problems: list[Problem] = []
    for attempt in attempts:
        try:
            attempt()
        except ConfigInvalid as invalid:
            problems += invalid.problems
    if problems:
        raise ConfigInvalid(tuple(problems))


def _deployment_id(settings: s.Settings) -> bytes:
    """The same for all replicas of one configuration, another for the next Serinus in the chain."""
    identity = [str(listener.address) for listener in settings.listen]
    identity += [f"{name}={upstream.base_url}" for name, upstream in sorted(settings.upstreams.items())]
    return b"serinus-" + sha256("\n".join(identity).encode()).hexdigest()[:8].encode()


def _upstream(
    name: str,
    upstream: s.Upstream,
    endpoint: Endpoint,
    live: UpstreamLive,
    keys_in_force: KeysInForce,
    now_s: float,
) -> Upstream:
    auth = upstream.auth
    serving = [(key, value) for key in upstream.keys for value in keys_in_force(name, key)]
    keys = tuple(
        Key(
            key.name,
            _line(auth.header, auth.prefix + value.secret.reveal()),
            value.live,
            _limits(live.limits_of_key(key.name), key.limits, now_s),
        )
        for key, value in serving
    )
    base_url, timeouts = upstream.base_url, upstream.timeouts
    overridden = {header.lower().encode() for header in upstream.headers}
    if keys:
        overridden.add(auth.header.lower().encode())
    return Upstream(
        name=name,
        target="",
        in_logs={"upstream": name},
        name_line=b"\r\nx-serinus-upstream: " + name.encode(),
        url=str(base_url),
        endpoint=endpoint,
        base_path=base_url.path.encode(),
        after_target=b" HTTP/1.1\r\n" + _line("Host", base_url.authority),
        fixed_lines=b"".join(_line(header, value) for header, value in upstream.headers.items()),
        overridden=frozenset(overridden),
        query="&".join(
            f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in upstream.query.items()
        ).encode(),
        keys=keys,
        key_turns=KeyTurns([value.weight for _, value in serving]),
        limits=_limits(live.limits, upstream.limits, now_s),
        max_connections=upstream.max_connections,
        max_pending=upstream.max_pending,
        first_byte_timeout_s=_limit(timeouts.first_byte_s),
        idle_timeout_s=_limit(timeouts.idle_s),
        total_timeout_s=_limit(timeouts.total_s),
        websocket_idle_s=_limit(upstream.websocket.idle_s),
        tcp_keepalive_s=upstream.websocket.tcp_keepalive_s,
        live=live,
    )


def _limits(live: Limits, rates: s.Rates, now_s: float) -> Limits | None:
    """None where there are none, so that nobody looks."""
    live.reconfigured(rates.requests_per_minute, rates.tokens_per_minute, None, now_s)
    return None if live.requests is None and live.tokens is None else live


def _targets(upstream: Upstream, addresses: tuple[str, ...], registry: Registry) -> tuple[Upstream, ...]:
    """One for each address; without any the upstream itself. Its certificate must have its name all the same."""
    return tuple(
        replace(
            upstream,
            target=address,
            in_logs={"upstream": upstream.name, "target": address},
            endpoint=replace(upstream.endpoint, host=address),
            live=registry.target(upstream.name, address),
        )
        for address in addresses
    ) or (upstream,)


def _line(name: str, value: str) -> bytes:
    return f"{name}: {value}\r\n".encode("latin-1")


def _limit(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


def _endpoint(name: str, upstream: s.Upstream, problems: list[Problem]) -> Endpoint:
    """Where it is, and how it is reached. It is of no use if that added a problem."""
    context, identity = None, tuple[str, ...]()
    try:
        context = upstream_tls(upstream)
        if context is not None:
            # The authorities' content counts, not their file's name: a renewed file is another endpoint.
            authorities = upstream.tls.ca.read_bytes() if upstream.tls.ca is not None else b""
            identity = (sha256(authorities).hexdigest(), str(upstream.tls.verify))
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        found = f"{upstream.tls.ca} holds no PEM certificates of authorities"
        problems.append(Problem(("upstreams", name, "tls", "ca"), None, found))
    base_url = upstream.base_url
    return Endpoint(
        host=base_url.host,
        port=base_url.port,
        server_name=(upstream.tls.server_name or base_url.host) if context is not None else None,
        tls_identity=identity,
        tls=context,
        connect_timeout_s=upstream.timeouts.connect_s,
        max_idle=upstream.keepalive.max_idle,
        idle_timeout_s=upstream.keepalive.idle_timeout_s,
        min_idle=upstream.keepalive.min_idle,
        resolve_interval_s=_limit(upstream.resolve.interval_s),
    )


def upstream_tls(upstream: s.Upstream) -> ssl.SSLContext | None:
    """How to reach it over TLS; None for plain HTTP. Raises OSError or ValueError for authorities that are none."""
    if upstream.base_url.scheme != "https":
        return None
    tls = upstream.tls
    return _client_tls(None if tls.ca is None else tls.ca.read_text(), tls.verify)


@lru_cache(maxsize=256)  # reading the system's authorities takes 20 ms, in which no stream would move
def _client_tls(authorities: str | None, verify: bool) -> ssl.SSLContext:
    """`authorities`: PEM certificates; None: the system's."""
    if authorities == "":
        raise ValueError("empty: ssl would trust the system's instead")
    context = ssl.create_default_context(cadata=authorities)
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _pools(settings: s.Settings, targets: _Targets, registry: Registry) -> dict[str, Pool]:
    """The pools, each after the one that it falls back on. A circle is broken where it closes."""
    built: dict[str, Pool] = {}
    for name in settings.pools:
        chain: list[str] = []
        following: str | None = name
        while following is not None and following not in built and following not in chain:
            chain.append(following)
            following = settings.pools[following].fallback
        for each in reversed(chain):
            pool = settings.pools[each]
            fallback = None if pool.fallback is None else built.get(pool.fallback)
            built[each] = _pool(each, pool, targets, registry, fallback)
    return built


def _canaries(rollouts: Mapping[str, Enrolment], pools: Mapping[str, Pool], registry: Registry) -> dict[str, Canary]:
    """By their names."""
    return {
        name: Canary(
            name=name,
            rollout=rollout,
            pool=pools[rollout.spec.canary],
            live=registry.canary(name),
            is_shadow=rollout.spec.mode == "shadow",
            may_be_forced=rollout.spec.force_header,
            draws_requests=rollout.spec.unit == "request",
            header=rollout.spec.unit.partition("header:")[2].lower().encode(),
            max_gap_s=stalls.max_gap_s if (stalls := rollout.spec.metric("stalls")) else math.inf,
        )
        for name, rollout in rollouts.items()
    }


def _pool(name: str, pool: s.Pool, targets: _Targets, registry: Registry, fallback: Pool | None) -> Pool:
    live = registry.pool(name)
    live.budget.percent = pool.retry.budget_percent
    members: list[Member] = []
    seen: Counter[str] = Counter()
    for place, member in enumerate(pool.members):
        for upstream in targets[member.upstream]:
            identity = "/".join((upstream.live.name, member.model or "", member.key or ""))
            seen[identity] += 1
            member_live = live.member(f"{identity}/{seen[identity]}", registry.clock())
            keys = tuple(key for key in upstream.keys if member.key in (None, key.name))
            members.append(Member(place, upstream, member.weight, member.model, member.key, keys, member_live))
    nodes = [Node(member.upstream.live.name, member.weight, member.live.load) for member in members]
    retry, outlier = pool.retry, pool.outlier
    return Pool(
        name=name,
        members=tuple(members),
        balancer=balancer(pool.balance, nodes, registry.dice, pool.slow_start_s),
        by_prefix=pool.balance == "prefix_hash",
        retry=RetryRule(retry.attempts, frozenset(retry.on), retry.max_wait_s),
        hedge_after_s=math.inf if pool.hedge is None else pool.hedge.after_s,
        ejection=Ejection(outlier.consecutive_failures, outlier.base_ejection_s, outlier.max_ejected_percent),
        fallback=fallback,
        first=next(index for index, member in enumerate(members) if member.weight),
        live=live,
    )


def _route(route: s.Route, pools: dict[str, Pool], canaries: dict[str, Canary], metrics: Metrics) -> Route:
    pool, canary = pools[route.pool], None if route.canary is None else canaries.get(route.canary)
    arms = [(pool, "" if canary is None else Arm.BASELINE.value)]
    if canary is not None:
        arms.append((canary.pool, Arm.CANARY.value))
    reached = [(each, arm) for first, arm in arms for each in first.chain()]
    label = f"{route.prefix} {route.model}" if route.model else route.prefix
    return Route(
        label=label,
        prefix=b"" if route.prefix == "/" else route.prefix.encode(),
        model_glob=route.model,
        model=None if route.model is None else compiled([route.model]),
        headers=tuple((name.lower().encode(), value.encode("latin-1")) for name, value in route.headers.items()),
        pool=pool,
        max_body_bytes=route.max_body_bytes,
        buffer_bytes=route.buffer_bytes,
        series={
            member: metrics.series(SeriesLabels(label, each.name, member.upstream.name, arm))
            for each, arm in reached
            for member in each.members
        },
        own_series=metrics.series(SeriesLabels(label, pool.name)),
        replaces_model=any(member.model is not None for each, _ in reached for member in each.members),
        canary=canary,
    )
