"""One request's hold on a pool, its member, an upstream and a key, from pick to last byte.

Load, key draining and canary samples all hang on the end of this one object, so it ends exactly once and says how.
Releasing the load earlier, when the head arrives, is the classic mistake: a stream of an hour would count for nothing.
"""

from proxy.model.outcome import FAULTLESS, Outcome
from proxy.policy.load import estimated_work
from proxy.state.snapshot import Way

_OK = Outcome.OK  # an Enum's attribute costs 70 ns


class LeaseEnded(RuntimeError):
    """A lease was finished a second time: a bug in its holder."""


class Lease:
    __slots__ = ("_cost", "_tokens", "_way", "outcome")

    def __init__(self, way: Way, prompt_bytes: int, tokens: int = 0, now_s: float = 0.0) -> None:
        """`tokens`: that it may use, where its provider limits them."""
        self._way, self._tokens = way, tokens
        self.outcome: Outcome | None = None
        load = way.member.live.load
        self._cost = estimated_work(prompt_bytes, load.output_bytes)
        load.began(self._cost)
        way.pool.live.requests += 1
        way.upstream.live.inflight += 1
        if way.key is not None:
            way.key.live.inflight += 1
        for limits in way.limits:
            limits.began(tokens, now_s)

    def finish(
        self,
        outcome: Outcome,
        now_s: float,
        first_byte_wait_s: float | None = None,
        output_bytes: int = 0,
        tokens: int | None = None,
    ) -> None:
        """Let go of all of it. `tokens`: that were used; None: nobody knows better than when it began.

        Raises LeaseEnded, and changes nothing, if that was done before.
        """
        way, upstream = self._way, self._way.upstream.live
        if self.outcome is not None:
            raise LeaseEnded(f"a lease on {upstream.name} ended as {self.outcome.name}, then again as {outcome.name}")
        self.outcome = outcome
        way.pool.live.requests -= 1
        upstream.inflight -= 1
        upstream.outcomes[outcome] += 1
        if way.key is not None:
            key = way.key.live
            key.inflight -= 1
            key.last_used_s = now_s
            if outcome is _OK:
                key.answers += 1
        for limits in way.limits:
            limits.ended(self._tokens, tokens, now_s)
        failed = outcome is not _OK and outcome not in FAULTLESS
        way.member.live.load.ended(self._cost, now_s, first_byte_wait_s, failed, output_bytes)
