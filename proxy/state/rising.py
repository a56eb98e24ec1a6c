"""Counts that only rise, of what has no series: what a window tells of clients, keys and ejections."""

from proxy.state.live import Registry

Place = tuple[str, ...]  # what is counted, and of whom


def rising(registry: Registry) -> dict[Place, int]:
    """Of clients only those that ever called."""
    counts: dict[Place, int] = {}
    for name, client in registry.clients.items():
        limited = sum(client.limited.values())
        if client.requests or limited:
            counts["requests", name], counts["tokens", name] = client.requests, client.tokens
            counts["limited", name] = limited
    for name, upstream in registry.upstreams.items():
        if upstream.upstream == name:  # its targets share the keys
            for (key, _), live in upstream.keys.items():
                place = "answers", name, key
                counts[place] = counts.get(place, 0) + live.answers
    for name, pool in registry.pools.items():
        for upstream_name, count in pool.ejections.items():
            counts["ejections", name, upstream_name] = count
    return counts
