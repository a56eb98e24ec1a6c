"""Shadows: copies of requests go to the canary, and their answers are measured and thrown away. Callers notice nothing.

A copy is an exchange like any other, whose caller is nobody. It has its own upstream, lease and record; what becomes of
it is told to the rollout and counted for the upstream, and neither the request's metrics nor its log know of it.
"""

import asyncio
from typing import Any

from proxy.dataplane.arms import sample_of
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.plan import first_way
from proxy.dataplane.request import Request
from proxy.dataplane.tools import Tools
from proxy.model.errors import ProxyError
from proxy.model.outcome import FAULTLESS, Outcome
from proxy.policy.canary import Arm
from proxy.policy.model_field import ModelField
from proxy.state.live import CanaryLive
from proxy.state.snapshot import Canary, Route


class _Nowhere(asyncio.Transport):
    """Takes all that is written, at once."""

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class _Nobody:
    """A copy's caller."""

    def __init__(self, live: CanaryLive) -> None:
        self.wire: asyncio.Transport = _Nowhere()
        self.exchange: Exchange | None = None
        self.writing_paused = False
        self._live = live
        live.copies += 1
        live.copies_sent += 1

    def is_draining(self) -> bool:
        return False

    def exchange_ended(self, *, keep_alive: bool) -> None:
        self._live.copies -= 1


class Shadow(Exchange):
    """A copy under way."""

    __slots__ = ("_live",)
    _live: CanaryLive

    def _account(self, outcome: Outcome, reason: str, now_s: float) -> None:
        if outcome not in FAULTLESS:
            self._live.copies_failed += 1

    def _account_for_try(self, reason: str) -> None:
        pass


def send_copy(
    tools: Tools, request: Request, route: Route, canary: Canary, body: bytes, model: ModelField | None
) -> None:
    """Send a copy of the request to the canary. Does not fail: its caller has an answer to wait for."""
    try:
        _send(tools, request, route, canary, body, model)
    except Exception as error:
        tools.log.exception("copy_failed", exc_info=error)


def _send(tools: Tools, request: Request, route: Route, canary: Canary, body: bytes, model: ModelField | None) -> None:
    now_s = tools.clock()
    copy = Request(request.head, request.content_length, request.request_id, request.traceparent, now_s, request.peer)
    copy.route, copy.ready_s, copy.tokens, copy.arm = route, now_s, request.tokens, Arm.CANARY
    copy.trace = request.trace
    copy.sample = sample_of(copy, canary, Arm.CANARY, body, model, request.copied_unit)
    try:
        way, plan = first_way(copy, canary.pool, body, model, now_s)
    except ProxyError as error:
        copy.sample.refused(error, now_s)
        canary.live.copies_failed += 1
        return
    caller = _Nobody(canary.live)
    exchange = caller.exchange = Shadow(tools, caller, copy, route, body, model, plan)
    exchange._live = canary.live  # noqa: SLF001
    try:
        exchange.start(way, more=False)
    except Exception:
        exchange.abort("the proxy failed; its log says why")
        raise
