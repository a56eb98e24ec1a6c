"""Which arm of a rollout a request goes to, and what the rollout hears of it."""

import re
from itertools import count

from proxy.dataplane.request import Request
from proxy.dataplane.ways import MODEL_NAME_MAX
from proxy.model.errors import ProxyError
from proxy.model.outcome import Outcome, outcome_of
from proxy.policy.canary import Arm, Stratum
from proxy.policy.conversation import conversation
from proxy.policy.model_field import ModelField
from proxy.state.snapshot import Canary, Pool

_STREAMED = re.compile(rb'"stream"[ \t\r\n]*:[ \t\r\n]*true')
_MODEL = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*"([^"\\]{1,%d})"' % MODEL_NAME_MAX)
_FORCED = {b"canary": Arm.CANARY, b"baseline": Arm.BASELINE}
_BASELINE, _CANARY = Arm.BASELINE, Arm.CANARY  # an Enum's attribute costs 70 ns
_tokens = count()


class Sample:
    """One request as a rollout sees it: which arm it was drawn to, and what became of it."""

    __slots__ = ("_canary", "_last_s", "_longest_gap_s", "_token", "is_stalled", "max_gap_s")

    def __init__(self, canary: Canary, arm: Arm, stratum: Stratum, now_s: float, unit: str | None) -> None:
        self._canary, self._token = canary, next(_tokens)
        self._longest_gap_s, self._last_s = 0.0, now_s
        self.is_stalled, self.max_gap_s = False, canary.max_gap_s
        canary.rollout.started(self._token, arm, stratum, now_s, unit)

    def first_byte(self, now_s: float) -> None:
        self._canary.rollout.first_byte(self._token, now_s)
        self._last_s = now_s

    def piece(self, now_s: float) -> None:
        """More of the answer."""
        gap_s = now_s - self._last_s
        if gap_s > self._longest_gap_s:
            self._longest_gap_s = gap_s
        self._last_s = now_s

    def stalls(self, now_s: float) -> None:
        """It was silent for longer than the rollout allows, and may still go on."""
        self.is_stalled = True
        self._canary.rollout.stalled(self._token, now_s)

    def finished(self, outcome: Outcome, status: int, now_s: float, chunks: int = 0) -> None:
        self._canary.rollout.finished(self._token, outcome, now_s, chunks, self._longest_gap_s, status)

    def refused(self, error: ProxyError, now_s: float) -> None:
        """Nobody in its arm could take it, which is the arm's doing."""
        self.finished(outcome_of(error.status), error.status, now_s)


def pool_for(
    request: Request, canary: Canary, baseline: Pool, body: bytes, model: ModelField | None, *, more: bool
) -> Pool:
    """The pool of the arm that the request is drawn to, or may choose itself; it is a sample unless it chose.

    `more` of the body is to follow.
    """
    rollout, asked = canary.rollout, request.head.fields.arm
    if canary.is_shadow:
        request.arm = _BASELINE
        _draw_copy(request, canary, body, model, more=more)
        return baseline
    forced = _FORCED.get(asked) if asked and canary.may_be_forced else None
    if forced is not None:
        request.arm = forced
    else:
        unit = None if canary.draws_requests else _unit(request, canary, body)
        request.arm = rollout.draw(unit)
        if not rollout.is_over and not request.head.websocket:
            request.sample = sample_of(request, canary, request.arm, body, model, unit)
    return canary.pool if request.arm is _CANARY else baseline


def _draw_copy(request: Request, canary: Canary, body: bytes, model: ModelField | None, *, more: bool) -> None:
    """Is the request to be copied? If not it is a sample; without a draw it is nothing, or the label were no coin."""
    rollout, head = canary.rollout, request.head
    if rollout.is_over or canary.live.copies >= rollout.spec.max_concurrent:
        return
    if more or head.websocket or head.hands_out or (head.may_store and b'"store"' in body):
        return  # too large to keep, or it would make something twice
    unit = _unit(request, canary, body)
    if rollout.draw(unit) is _CANARY:
        request.copied_unit, request.copied = unit, True
    else:
        request.sample = sample_of(request, canary, _BASELINE, body, model, unit)


def sample_of(
    request: Request, canary: Canary, arm: Arm, body: bytes, model: ModelField | None, unit: str | None
) -> Sample:
    """The request, begun as a sample of this arm; it was drawn as this unit."""
    name = model.value if model is not None else request.head.named or _model_in(body)
    at = body.find(b'"stream"')
    streamed = at >= 0 and _STREAMED.match(body, at) is not None
    return Sample(canary, arm, Stratum(len(body), streamed, name), request.ready_s, unit)


def _model_in(body: bytes) -> str:
    """What is behind the key's first place: good enough for sorting samples, and cheaper than to parse all of it."""
    at = body.find(b'"model"')
    found = None if at < 0 else _MODEL.match(body, at)
    return "" if found is None else found[1].decode("utf-8", "replace")


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
