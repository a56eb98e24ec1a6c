"""What is counted about an upstream and its keys while requests are under way; by name, so that it outlives reloads."""

from proxy.model.outcome import Outcome


class KeyLive:
    """One key of one upstream."""

    __slots__ = ("inflight", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.inflight = 0  # requests that hold it, from pick to last byte


class UpstreamLive:
    """One upstream, and the keys it has been used with."""

    __slots__ = ("inflight", "keys", "name", "outcomes")

    def __init__(self, name: str) -> None:
        self.name = name
        self.inflight = 0
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.keys: dict[str, KeyLive] = {}

    def key(self, name: str) -> KeyLive:
        """The live state of the key called `name`, begun when it is first asked for."""
        return self.keys.get(name) or self.keys.setdefault(name, KeyLive(name))


class Registry:
    """The live state of all upstreams, by name."""

    def __init__(self) -> None:
        self.upstreams: dict[str, UpstreamLive] = {}

    def upstream(self, name: str) -> UpstreamLive:
        """The live state of the upstream called `name`, begun when it is first asked for."""
        return self.upstreams.get(name) or self.upstreams.setdefault(name, UpstreamLive(name))

    def inflight(self) -> list[tuple[str, int]]:
        """Open requests, by upstream."""
        return [(name, live.inflight) for name, live in self.upstreams.items()]

    def outcomes(self) -> list[tuple[str, str, int]]:
        """How many exchanges of which upstream ended how."""
        return [
            (name, outcome.value, count)
            for name, live in self.upstreams.items()
            for outcome, count in live.outcomes.items()
        ]

    def forget_except(self, names: frozenset[str]) -> None:
        """Drop the state of upstreams that no configuration names and no request holds any more."""
        for name in self.upstreams.keys() - names:
            if self.upstreams[name].inflight == 0:
                del self.upstreams[name]
