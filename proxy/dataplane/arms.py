"""Which arm of a rollout a request goes to, and what the rollout hears of it."""

import re
from itertools import count

from proxy.dataplane.request import Request
from proxy.dataplane.ways import model_of
from proxy.model.errors import ProxyError
from proxy.model.outcome import Outcome, outcome_of
from proxy.policy.canary import Arm, Stratum
from proxy.policy.canary.states import OVER
from proxy.policy.conversation import conversation
from proxy.policy.model_field import ModelField
from proxy.state.snapshot import Canary, Pool

_STREAM = re.compile(rb'"stream"[ \t\r\n]*:[ \t\r\n]*true')
_FORCED = {b"canary": Arm.CANARY, b"baseline": Arm.BASELINE}
_tokens = count()


class Sample:
    """One request as a rollout sees it: which arm it was drawn to, and what became of it."""

    __slots__ = ("_canary", "_chunks", "_last_s", "_longest_gap_s", "_token", "is_stalled", "max_gap_s")

    def __init__(self, canary: Canary, arm: Arm, stratum: Stratum, now_s: float, unit: str | None) -> None:
        self._canary, self._token = canary, next(_tokens)
        self._chunks, self._longest_gap_s, self._last_s = 0, 0.0, now_s
        self.is_stalled, self.max_gap_s = False, canary.max_gap_s
        canary.rollout.started(self._token, arm, stratum, now_s, unit)

    def first_byte(self, piece: bytes, now_s: float) -> None:
        self._canary.rollout.first_byte(self._token, now_s)
        self._last_s = now_s
        self._chunks = piece.count(b"data:")

    def piece(self, piece: bytes, now_s: float) -> None:
        """More of the answer. Its chunks are the events of a stream: how they come in pieces is the network's doing."""
        gap_s = now_s - self._last_s
        if gap_s > self._longest_gap_s:
            self._longest_gap_s = gap_s
        self._last_s = now_s
        self._chunks += piece.count(b"data:")

    def stalls(self, now_s: float) -> None:
        """It was silent for longer than the rollout allows, and may still go on."""
        self.is_stalled = True
        self._canary.rollout.stalled(self._token, now_s)

    def finished(self, outcome: Outcome, status: int, now_s: float) -> None:
        self._canary.rollout.finished(self._token, outcome, now_s, self._chunks, self._longest_gap_s, status)

    def refused(self, error: ProxyError, now_s: float) -> None:
        """Nobody in its arm could take it, which is the arm's doing."""
        self.finished(outcome_of(error.status), error.status, now_s)


def pool_for(request: Request, canary: Canary, baseline: Pool, body: bytes, model: ModelField | None) -> Pool:
    """The pool of the arm that the request is drawn to, or may choose itself; it is a sample unless it chose."""
    rollout, head = canary.rollout, request.head
    forced = _FORCED.get(head.fields.arm) if rollout.spec.force_header and head.fields.arm else None
    if forced is not None:
        request.arm = forced
    else:
        unit = _unit(request, canary, body)
        request.arm = rollout.draw(unit)
        if rollout.state not in OVER and not head.websocket:
            request.sample = Sample(canary, request.arm, _stratum(request, body, model), request.ready_s, unit)
    return canary.pool if request.arm is Arm.CANARY else baseline


def _stratum(request: Request, body: bytes, model: ModelField | None) -> Stratum:
    return Stratum(len(body), _STREAM.search(body) is not None, model_of(request, body, model) or "")


def _unit(request: Request, canary: Canary, body: bytes) -> str | None:
    """What is drawn: a request by itself is None."""
    kind, head = canary.rollout.spec.unit, request.head
    if kind == "request":
        return None
    if kind == "client":
        return None if head.client is None else head.client.name
    if kind == "conversation":
        return conversation(head.fields.passed, body)
    return next((value.decode("latin-1") for name, value in head.fields.passed if name.lower() == canary.header), None)
