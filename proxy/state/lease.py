"""One request's hold on an upstream and a key, from pick to last byte.

Load, key draining and canary samples all hang on the end of this one object, so it ends exactly once and says how.
Releasing the load earlier, when the head arrives, is the classic mistake: a stream of an hour would count for nothing.
"""

from proxy.model.outcome import Outcome
from proxy.state.live import KeyLive, UpstreamLive


class LeaseEnded(RuntimeError):
    """A lease was finished a second time: a bug in its holder."""


class Lease:
    __slots__ = ("_key", "_upstream", "outcome")

    def __init__(self, upstream: UpstreamLive, key: KeyLive | None) -> None:
        self._upstream, self._key = upstream, key
        self.outcome: Outcome | None = None
        upstream.inflight += 1
        if key is not None:
            key.inflight += 1

    def finish(self, outcome: Outcome) -> None:
        """Let go of the upstream and the key. Raises LeaseEnded, and changes nothing, if that was done before."""
        if self.outcome is not None:
            raise LeaseEnded(
                f"a lease on {self._upstream.name} ended as {self.outcome.name}, then again as {outcome.name}"
            )
        self.outcome = outcome
        self._upstream.inflight -= 1
        self._upstream.outcomes[outcome] += 1
        if self._key is not None:
            self._key.inflight -= 1
