"""One request's hold on an upstream and a key, from pick to last byte.

Load, key draining and canary samples all hang on the end of this one object, so it ends exactly once and says how.
Releasing the load earlier, when the head arrives, is the classic mistake: a stream of an hour would count for nothing.
"""

from proxy.model.outcome import Outcome
from proxy.policy.load import Load
from proxy.state.live import KeyLive, UpstreamLive

_OK, _CLIENT_GONE, _STOPPED = Outcome.OK, Outcome.CLIENT_GONE, Outcome.STOPPED  # an Enum's attribute costs 70 ns


class LeaseEnded(RuntimeError):
    """A lease was finished a second time: a bug in its holder."""


class Lease:
    __slots__ = ("_cost", "_key", "_load", "_upstream", "outcome")

    def __init__(
        self, upstream: UpstreamLive, key: KeyLive | None, load: Load | None = None, cost: float = 0.0
    ) -> None:
        """`load`: of the pool's member that was picked, if one was; `cost`: the request's work there."""
        self._upstream, self._key, self._load, self._cost = upstream, key, load, cost
        self.outcome: Outcome | None = None
        upstream.inflight += 1
        if load is not None:
            load.began(cost)
        if key is not None:
            key.inflight += 1

    def finish(
        self, outcome: Outcome, now_s: float = 0.0, first_byte_wait_s: float | None = None, output_bytes: int = 0
    ) -> None:
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
        if self._load is not None:
            failed = outcome is not _OK and outcome is not _CLIENT_GONE and outcome is not _STOPPED
            self._load.ended(self._cost, now_s, first_byte_wait_s, failed, output_bytes)
