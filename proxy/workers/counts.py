"""What a worker counted since it last said so, and how that joins the counts above.

Counts and gauges are read alike, and what is told are differences: whoever adds them up has the sums of all workers,
and what a worker that died had counted stays. Only what it had open is taken back.
"""

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any, NamedTuple

from proxy.obs.metrics import Metrics, Series
from proxy.state.live import CanaryLive, ClientLive, KeyLive, PoolLive, Registry, UpstreamLive

Place = tuple[Any, ...]  # a kind, and names; it can be hashed


class Change(NamedTuple):
    """By how much numbers of one place have changed: those with a name, or in a list."""

    place: Place
    by: dict[Any, float]


_GAUGES = {
    "upstream": ("inflight", "pending"),
    "key": ("inflight",),
    "pool": ("requests",),
    "canary": ("copies",),
    "client": (),
}
_COUNTS = {
    "upstream": (),
    "key": ("answers",),
    "pool": ("panics",),
    "canary": ("copies_sent", "copies_failed"),
    "client": ("requests", "tokens"),
}
_SUMS = ("disconnects", "failures", "retried", "input_tokens", "output_tokens")  # of a series
_HISTOGRAMS = ("duration", "first_byte", "overhead", "per_chunk")
_Live = UpstreamLive | KeyLive | PoolLive | CanaryLive | ClientLive


class Counted:
    """Of a worker: what has changed since the last look."""

    def __init__(self, registry: Registry, metrics: Metrics) -> None:
        self._registry, self._metrics = registry, metrics
        self._before: dict[Place, Any] = {}

    def changes(self) -> list[Change]:
        """Small where little happened. To be asked before anything is forgotten, too, or what is new of it is lost."""
        found, seen = [], {}
        for place, now in _read(self._registry, self._metrics):
            seen[place] = now
            before = self._before.get(place)
            if now != before and (by := _since(now, before)):
                found.append(Change(place, by))
        self._before = seen  # what is forgotten and comes back begins anew
        return found


def _since(now: Any, before: Any) -> dict[Any, float]:
    if isinstance(now, dict):
        known = before or {}
        return {name: count - known.get(name, 0) for name, count in now.items() if count != known.get(name, 0)}
    known = before or (0,) * len(now)
    return {i: count - was for i, (count, was) in enumerate(zip(now, known, strict=True)) if count != was}


def _read(registry: Registry, metrics: Metrics) -> Iterator[tuple[Place, Any]]:
    for labels, series in metrics.all_series():
        yield ("series", labels), tuple(getattr(series, name) for name in _SUMS)
        yield ("codes", labels), dict(series.codes)
        for name in _HISTOGRAMS:
            histogram = getattr(series, name)
            yield (name, labels), (histogram.sum_s, *histogram.counts)
    for name, upstream in registry.upstreams.items():
        yield ("upstream", name), _numbers("upstream", upstream)
        if upstream.upstream == name:  # its targets share the rest
            yield ("outcomes", name), dict(upstream.outcomes)
            yield ("cooldowns", name), dict(upstream.cooldowns)
            for (key, fingerprint), live in upstream.keys.items():
                yield ("key", name, key, fingerprint), _numbers("key", live)
                yield ("refusals", name, key, fingerprint), dict(live.refusals)
    for name, pool in registry.pools.items():
        yield ("pool", name), _numbers("pool", pool)
        yield ("retries", name), dict(pool.retries)
        yield ("ejections", name), dict(pool.ejections)
    for name, client in registry.clients.items():
        if any(client.limited.values()):
            yield ("limited", name), dict(client.limited)
        if client.requests:
            yield ("client", name), _numbers("client", client)
    yield ("spans",), dict(metrics.spans)
    for name, canary in registry.canaries.items():
        yield ("canary", name), _numbers("canary", canary)


def _numbers(kind: str, live: _Live) -> tuple[float, ...]:
    return tuple(getattr(live, name) for name in (*_GAUGES[kind], *_COUNTS[kind]))


class Sums:
    """Of the process above: what all workers counted, in its own registry and metrics."""

    def __init__(self, registry: Registry, metrics: Metrics) -> None:
        self._registry, self._metrics = registry, metrics
        self._open: dict[int, dict[Place, dict[int, float]]] = {}  # by worker: gauges as it last told them

    def add(self, worker: int, changes: Sequence[Change]) -> None:
        for place, by in changes:
            gauges = len(_GAUGES.get(str(place[0]), ()))
            if gauges:
                known = self._open.setdefault(worker, {}).setdefault(place, {})
                for i in range(gauges):
                    known[i] = known.get(i, 0) + by.get(i, 0)
            self._add(place, by)

    def gone(self, worker: int) -> None:
        """What it had open, it has no more."""
        for place, known in self._open.pop(worker, {}).items():
            self._add(place, known)

    def _add(self, place: Place, by: dict[Any, float]) -> None:
        kind, *names = place
        if kind in ("series", "codes", *_HISTOGRAMS):
            _add_to_series(self._metrics.series(names[0]), str(kind), by)
        elif kind in _GAUGES:
            live, gauges = self._live(str(kind), names), _GAUGES[str(kind)]
            attributes = (*gauges, *_COUNTS[str(kind)])
            for i, count in by.items():
                if live is None:
                    break
                # Gauges are added up anew: a key that was forgotten here and came back may be held by workers still.
                now = self._in_all(place, i) if i < len(gauges) else getattr(live, attributes[i]) + count
                setattr(live, attributes[i], now)
        else:
            counts = self._counts(str(kind), names)
            for name, count in by.items():
                counts[name] = counts.get(name, 0) + count

    def _in_all(self, place: Place, gauge: int) -> float:
        return sum(told[place][gauge] for told in self._open.values() if place in told)

    def _live(self, kind: str, names: list[Any]) -> _Live | None:
        registry = self._registry
        if kind == "upstream":
            upstream, _, address = names[0].partition("@")
            return registry.target(upstream, address) if address else registry.upstream(upstream)
        if kind == "key":
            return registry.upstream(names[0]).keys.get((names[1], names[2]))
        if kind == "client":
            return registry.client(names[0])
        return registry.pool(names[0]) if kind == "pool" else registry.canary(names[0])

    def _counts(self, kind: str, names: list[Any]) -> MutableMapping[Any, Any]:
        registry = self._registry
        if kind == "spans":
            return self._metrics.spans
        if kind == "outcomes":
            return registry.upstream(names[0]).outcomes
        if kind == "cooldowns":
            return registry.upstream(names[0]).cooldowns
        if kind == "refusals":
            key = registry.upstream(names[0]).keys.get((names[1], names[2]))
            return {} if key is None else key.refusals
        if kind == "limited":
            return registry.client(names[0]).limited
        pool = registry.pool(names[0])
        return pool.retries if kind == "retries" else pool.ejections


def _add_to_series(series: Series, kind: str, by: dict[Any, float]) -> None:
    if kind == "series":
        for i, count in by.items():
            setattr(series, _SUMS[i], getattr(series, _SUMS[i]) + int(count))
    elif kind == "codes":
        for status, count in by.items():
            series.codes[status] = series.codes.get(status, 0) + int(count)
    else:
        histogram = getattr(series, kind)
        for i, count in by.items():
            if i == 0:
                histogram.sum_s += count
            else:
                histogram.counts[i - 1] += int(count)
