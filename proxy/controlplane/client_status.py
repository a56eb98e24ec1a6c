"""Each client as an operator sees it: what it may do, what it does, and its keys."""

from collections.abc import Iterator

import msgspec

from proxy.controlplane.clients import ClientKeyStatus, Clients
from proxy.model.limit_settings import ClientLimits
from proxy.model.quantities import moment_text
from proxy.obs.recent import Window
from proxy.policy.limits import Limits
from proxy.state.live import ClientLive, Registry


class ClientKeyShown(msgspec.Struct, frozen=True):
    """Keys are told apart by their fingerprints: the first digits of their hashes."""

    fingerprint: str
    state: str  # active; expired; revoked; unlisted: issued to a listed client, who is listed no more
    listed: bool
    expires: str | None = None  # or its client does
    issued_at: str | None = None  # None: it was not issued here
    issued_by: str | None = None  # the name of the admin token


class ClientStatus(msgspec.Struct, frozen=True):
    name: str
    listed: bool
    models: list[str] | None  # globs; None: all
    limits: dict[str, int]  # those that there are
    left: dict[str, int]  # of the limits, now
    inflight: int  # requests
    refused: dict[str, int]  # requests since the start, by limit
    keys: list[ClientKeyShown]


class ClientTraffic(msgspec.Struct, frozen=True):
    """What a client does, in short."""

    inflight: int
    refused: int  # requests since the start
    requests_per_s: float = 0.0  # that ended in the window
    refused_per_s: float = 0.0
    tokens_per_minute: float | None = None  # None: no limit asks for them, and nobody counts
    limits: dict[str, int] = {}  # those that there are
    left: dict[str, int] = {}  # of the limits, now
    refused_by: dict[str, int] = {}  # requests since the start, by limit


def client_statuses(clients: Clients, registry: Registry, now_s: float, wall_s: float) -> Iterator[ClientStatus]:
    """By name. `wall_s`: seconds since 1970."""
    keys: dict[str, list[ClientKeyShown]] = {}
    for key in clients.all_keys():
        keys.setdefault(key.client, []).append(_key(key, wall_s))
    for name, listed, models, limits in clients.rules():
        live = registry.clients.get(name)
        yield ClientStatus(
            name,
            listed,
            None if models is None else list(models),
            _given(limits),
            _left(Limits(**limits.model_dump()) if live is None else live.limits, limits, now_s),
            0 if live is None else live.limits.in_all,
            {} if live is None else _refused(live),
            keys.get(name, []),
        )


def client_traffic(clients: Clients, registry: Registry, window: Window, now_s: float) -> dict[str, ClientTraffic]:
    """Of those that called since the start, by name."""
    found = {}
    for name, _, _, limits in clients.rules():
        live = registry.clients.get(name)
        if live is None or not (live.requests or live.limits.in_all or any(live.limited.values())):
            continue
        tokens = window.rate(window.other("tokens", name)) * 60
        found[name] = ClientTraffic(
            live.limits.in_all,
            sum(live.limited.values()),
            round(window.rate(window.other("requests", name)), 2),
            round(window.rate(window.other("limited", name)), 2),
            None if live.limits.tokens is None else round(tokens, 1),
            _given(limits),
            _left(live.limits, limits, now_s),
            _refused(live),
        )
    return found


def _key(key: ClientKeyStatus, wall_s: float) -> ClientKeyShown:
    state, issued = key.state(wall_s), key.issued
    return ClientKeyShown(
        key.fingerprint,
        state,
        key.is_listed,
        None if key.ends_s is None or state == "revoked" else moment_text(key.ends_s),
        None if issued is None else moment_text(int(issued.issued_s)),
        None if issued is None else issued.by,
    )


def _given(limits: ClientLimits) -> dict[str, int]:
    return {limit: number for limit, number in limits.model_dump().items() if number is not None}


def _refused(live: ClientLive) -> dict[str, int]:
    return {limit: count for limit, count in live.limited.items() if count}


def _left(live: Limits, limits: ClientLimits, now_s: float) -> dict[str, int]:
    left = {}
    if live.requests is not None:
        left["requests_per_minute"] = live.requests.remaining(now_s)
    if live.tokens is not None:
        left["tokens_per_minute"] = live.tokens.remaining(now_s)
    if live.concurrent is not None:
        left["concurrent"] = max(0, live.concurrent - live.in_all)
    return left
