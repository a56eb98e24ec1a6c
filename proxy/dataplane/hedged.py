"""Hedging: a call that waits long for its answer is made once more elsewhere, and whoever answers first has the caller.

Both are exchanges like any other, each with its own upstream, lease and record of the request, and a plan in common.
The one that fails leaves everything to the other; the one that is slower is let go when the other's answer begins.
"""
# ruff: noqa: SLF001 - the two see into each other

import math
from copy import copy

from proxy.dataplane.exchange import Exchange
from proxy.dataplane.upstream import UpstreamConnection
from proxy.model.errors import ProxyError
from proxy.model.outcome import Outcome
from proxy.policy.hedge import may_be_hedged
from proxy.policy.retry import Failure
from proxy.state.snapshot import Way


class Hedged(Exchange):
    __slots__ = ("_due_s", "_rival")

    def start(self, way: Way, *, more: bool) -> None:
        self._rival: Hedged | None = None  # the other exchange of the same request
        super().start(way, more=more)

    def _go(self) -> None:
        self._due_s = self._request.ready_s + self._way.pool.hedge_after_s  # when another is asked as well
        super()._go()
        self.deadline_s = min(self.deadline_s, self._due_s)

    def _send(self, connection: UpstreamConnection) -> None:
        super()._send(connection)
        self.deadline_s = min(self.deadline_s, self._due_s)

    def expired(self, now_s: float) -> None:
        waits = not (self.ended or self._waiting or self._relaying)
        if waits and self._due_s <= now_s < self._total_deadline_s:
            self._due_s = math.inf
            self._rearm(self._last_byte_s)
            self._hedge(now_s)
        else:
            super().expired(now_s)

    def _hedge(self, now_s: float) -> None:
        """No answer for so long: ask another as well, if the call is fit for it and the pool's rule allows a try."""
        if self._rival is not None or self.upload is not None:
            return
        if not may_be_hedged(self._request.head.method, self._body):
            return
        way = self._planned().beside(self._way, now_s)
        if way is not None:
            self._begin_rival(way, now_s)

    def _begin_rival(self, way: Way, now_s: float) -> None:
        request = copy(self._request)
        request.ready_s = now_s
        rival = Hedged(self._tools, self._caller, request, self._route, self._body, self._model, self._plan)
        rival._began_s, rival._total_deadline_s = self._began_s, self._total_deadline_s
        try:
            rival.start(way, more=False)
        except Exception:
            rival._let_go(Outcome.STOPPED, now_s)
            raise
        self._request.tries = request.tries
        self._rival, rival._rival = rival, self

    # --- how it ends ---------------------------------------------------------------------------------------------

    def _settled(self, now_s: float) -> None:
        """The answer begins here: the other is not needed any more."""
        rival = self._rival
        if rival is not None:
            self._part()
            rival._let_go(Outcome.HEDGED, now_s)
            self._request.tried += (f"{rival._upstream.live.name}: slower",)
            self._caller.exchange = self
        super()._settled(now_s)

    def _try_again(self, failure: Failure, outcome: Outcome, reason: str) -> bool:
        if self._rival is not None and (isinstance(failure, str) or self._planned().repeats(failure)):
            self._planned().spend(self._way, failure)
            self._leave_to_rival(outcome, reason)
            return True
        return super()._try_again(failure, outcome, reason)

    def _refuse(self, error: ProxyError, outcome: Outcome, reason: str) -> None:
        if self._rival is not None:
            self._leave_to_rival(outcome, reason)
        else:
            super()._refuse(error, outcome, reason)

    def _end(self, outcome: Outcome, *, keep_alive: bool, reason: str = "") -> None:
        rival = self._rival
        if rival is not None:
            self._part()
            rival._let_go(outcome, self._tools.clock())
        super()._end(outcome, keep_alive=keep_alive, reason=reason)

    def _leave_to_rival(self, outcome: Outcome, reason: str) -> None:
        """This one has failed; the other has all of it now, and may try again when it fails too."""
        rival = self._part()
        self._retire()
        self._end_try(outcome, reason, self._tools.clock())
        rival._request.tried = self._request.tried
        self._caller.exchange = rival

    def _let_go(self, outcome: Outcome, now_s: float) -> None:
        """This one is not needed any more. That it took so long is noted of its upstream all the same."""
        self._retire()
        self._drop_connection()
        sent_s = self._request.sent_s
        self._lease.finish(outcome, now_s, now_s - sent_s if sent_s else None)
        self._trace(outcome, "", now_s)

    def _part(self) -> "Hedged":
        """From now on there is no race."""
        rival, self._rival = self._rival, None
        assert rival is not None  # noqa: S101 - its callers looked
        rival._rival = None
        return rival

    def _retire(self) -> None:
        self.ended = True
        self.deadline_s = math.inf
        self._tools.watch.discard(self)
