"""What is written down of each request when it has ended: metrics always, an access log line and a trace where asked
for."""

import re
from collections.abc import Callable

from proxy.dataplane.request import Request
from proxy.dataplane.tracer import Tracer
from proxy.model.errors import ProxyError
from proxy.model.outcome import FAULTLESS, Outcome
from proxy.obs.log import AccessLog
from proxy.state.snapshot import Route, Snapshots

CLIENT_CLOSED_REQUEST = 499  # nginx's number for a caller that left before its answer began


_NOBODY = {"upstream": None}
_OK, _CLIENT_GONE = Outcome.OK, Outcome.CLIENT_GONE  # an Enum's attribute costs 70 ns


class Account:
    def __init__(self, snapshots: Snapshots, clock: Callable[[], float], access_log: AccessLog | None) -> None:
        self._snapshots, self._clock = snapshots, clock
        self.access_log = access_log
        self.tracer: Tracer | None = None

    def tried(self, request: Request, route: Route, reason: str) -> None:
        """A try has failed, and another upstream is asked: the caller knows nothing of it."""
        way = request.way
        assert way is not None  # noqa: S101 - it was tried
        series = route.series[way.member]
        series.retried += 1
        series.failures += 1
        request.tried += (f"{way.upstream.live.name}: {reason}",)

    def exchange(self, request: Request, route: Route, outcome: Outcome, reason: str, now_s: float) -> None:
        """An exchange with an upstream has ended."""
        assert request.way is not None  # noqa: S101 - it was asked
        series = route.series[request.way.member]
        duration_s = now_s - request.received_s
        first_byte_s, overhead_s = request.first_byte_wait_s, request.overhead_s
        if outcome is not _OK:
            if outcome is _CLIENT_GONE:
                series.disconnects += 1
            elif outcome not in FAULTLESS:
                series.failures += 1
        status = request.status = request.status or CLIENT_CLOSED_REQUEST
        series.count(status)
        series.duration.observe(duration_s)
        if first_byte_s is not None:
            series.first_byte.observe(first_byte_s)
            if request.chunks and outcome is _OK:  # a stream that was cut tells of its end, not of its pace
                series.per_chunk.observe((now_s - request.sent_s - first_byte_s) / request.chunks)
        if overhead_s is not None:
            series.overhead.observe(overhead_s)
        usage = request.usage
        if usage is not None and request.metered:  # those of traced requests are a sample
            series.input_tokens += usage.input
            series.output_tokens += usage.output
        if request.trace is not None and self.tracer is not None:
            self.tracer.served(request, outcome.value, reason, now_s)
        if self.access_log is not None:
            self._log(request, duration_s, outcome.value, reason)

    def refused(self, request: Request, error: ProxyError) -> None:
        """A request was answered with an error of our own, before an upstream was picked."""
        self._here(request, error.status, "refused", error.code or error.type)

    def _here(self, request: Request, status: int, outcome: str, reason: str) -> None:
        candidates = request.head.candidates
        series = candidates[0].own_series if candidates else request.head.snapshot.unrouted_series
        request.status = status
        series.count(status)
        if request.trace is not None and self.tracer is not None:
            self.tracer.served(request, outcome, reason, self._clock())
        if self.access_log is not None:
            self._log(request, self._clock() - request.received_s, outcome, reason)

    def answered(self, request: Request, status: int) -> None:
        """A request of a route was answered here."""
        self._here(request, status, Outcome.OK.value, "")

    def left(self, request: Request) -> None:
        """The caller left before its request was whole: nothing was sent upstream."""
        self._here(request, CLIENT_CLOSED_REQUEST, Outcome.CLIENT_GONE.value, "")

    def unread(self, status: int) -> None:
        """Something that is no valid request was answered with an error."""
        self._snapshots.current.unrouted_series.count(status)

    def _log(self, request: Request, duration_s: float, outcome: str, reason: str) -> None:
        head = request.head
        route = request.route or (head.candidates[0] if head.candidates else None)
        assert self.access_log is not None  # noqa: S101 - both callers asked
        self.access_log(
            request_id=request.request_id.decode("ascii"),
            trace_id=request.traceparent[3:35].decode("ascii"),
            upstream_request_id=_request_id_in(request.answer_fields),
            peer=request.peer,
            generation=head.snapshot.generation,
            client=head.client and head.client.name,
            method=head.method.decode("ascii"),
            path=head.target.partition(b"?")[0].decode("ascii"),
            route=route and route.label,
            pool=request.route and (request.way.pool if request.way else request.route.pool).name,
            arm=request.arm and request.arm.value,
            **(_NOBODY if request.way is None else request.way.upstream.in_logs),
            key=request.way and request.way.key and request.way.key.name,
            status=request.status,
            bytes=request.relayed_bytes,
            waited_ms=_ms(request.waited_s or None),
            ttfb_ms=_ms(request.first_byte_wait_s),
            overhead_ms=_ms(request.overhead_s),
            duration_ms=_ms(duration_s),
            outcome=outcome,
            reason=reason or None,
            tried=request.tried or None,
        )


_REQUEST_ID = re.compile(rb"\r\nx-request-id:[ \t]*([!-~]{1,128})[ \t]*(?:\r|$)", re.IGNORECASE)


def _request_id_in(fields: bytes) -> str | None:
    """The upstream's own id of the exchange: what its support asks for, and what an SDK shows."""
    found = _REQUEST_ID.search(fields)
    return None if found is None else found[1].decode("ascii")


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
