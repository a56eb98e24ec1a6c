"""What both a worker and the process above may find out, and all are to know: a key that was refused, an account whose
quota is used up, a member that was ejected, a target that is unhealthy.

Each side compares what it has with what was said last, and says what is new. What was heard is no news.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from proxy.state.live import KeyLive, Registry
from proxy.workers.counts import Place

# By workers: a key's last use is news too; whether targets are healthy is for checks to find, which are made above.
OF_WORKERS = frozenset(("resting", "doubted", "cooling", "ejected", "used", "last_used"))
FROM_ABOVE = frozenset(("resting", "cooling", "ejected", "used", "healthy"))


class Notebook:
    def __init__(self, registry: Registry, kinds: frozenset[str]) -> None:
        """`kinds`: of which there is to be told."""
        self._registry, self._kinds = registry, kinds
        self._known: dict[Place, Any] = {}

    def news(self) -> dict[Place, Any]:
        """Since the last time, without what was heard meanwhile."""
        found = {}
        for place, value, usual in self._read():
            if place[0] in self._kinds and self._known.get(place, usual) != value:
                found[place] = self._known[place] = value
        for place in [place for place in found if place[0] == "doubted"]:
            self._write(place, False)
            self._known[place] = False
        return found

    def all(self) -> dict[Place, Any]:
        """For who knows nothing yet."""
        return {p: value for p, value, usual in self._read() if p[0] in self._kinds and value != usual}

    def heard(self, notes: Mapping[Place, Any]) -> None:
        for place, value in notes.items():
            known = self._known.get(place, {})
            self._known[place] = _later(known, value) if place[0] == "cooling" else value
            self._write(place, value)

    def _read(self) -> Iterator[tuple[Place, Any, Any]]:
        for name, upstream in self._registry.upstreams.items():
            yield ("healthy", name), upstream.health.healthy, True
            if upstream.upstream != name:
                continue
            for (key, fingerprint), live in upstream.keys.items():
                place = (name, key, fingerprint)
                yield ("resting", *place), live.resting, ""
                yield ("doubted", *place), live.doubted, False
                yield ("used", *place), (live.used, live.told_s), (0.0, 0.0)
                yield ("last_used", *place), live.last_used_s, float("-inf")
        for name, account in self._registry.accounts.items():
            yield ("cooling", name), dict(account.cool_until_s), {}
        for name, pool in self._registry.pools.items():
            for identity, member in pool.members.items():
                yield ("ejected", name, identity), member.outlier.out_until_s, float("-inf")

    def _write(self, place: Place, value: Any) -> None:
        kind, *names = place
        if kind == "healthy":
            live = self._registry.upstreams.get(names[0])
            if live is not None:
                live.health.healthy = value
        elif kind == "cooling":
            account = self._registry.account(names[0])
            for model, until_s in value.items():
                account.cool(model, until_s, self._registry.clock())
        elif kind == "ejected":
            pool = self._registry.pools.get(names[0])
            member = None if pool is None else pool.members.get(names[1])
            if member is not None and member.outlier.out_until_s != value:
                member.outlier.out_until_s = value
                member.load.returned(value)
        else:
            self._write_key(self._key(place), str(kind), value)

    @staticmethod
    def _write_key(key: KeyLive | None, kind: str, value: Any) -> None:
        if key is None:
            return
        if kind == "used":
            if value[1] >= key.told_s:
                key.used, key.told_s = value
        elif kind == "last_used":
            key.last_used_s = max(key.last_used_s, value)
        else:
            setattr(key, kind, value)

    def _key(self, place: Place) -> KeyLive | None:
        upstream = self._registry.upstreams.get(str(place[1]))
        return None if upstream is None else upstream.keys.get((str(place[2]), str(place[3])))


def _later(one: Mapping[Any, float], other: Mapping[Any, float]) -> dict[Any, float]:
    """Of each model's moments the later one."""
    return {model: max(each.get(model, 0.0) for each in (one, other)) for model in (*one, *other)}
