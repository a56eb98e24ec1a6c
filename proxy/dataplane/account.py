"""What is written down of each request when it has ended: metrics always, an access log line where asked for."""

from collections.abc import Callable
from typing import Protocol

from proxy.dataplane.request import Request
from proxy.model.outcome import Outcome
from proxy.obs.log import AccessLog
from proxy.state.snapshot import Route, Snapshots

CLIENT_CLOSED_REQUEST = 499  # nginx's number for a caller that left before its answer began


class Ended(Protocol):
    """What the account reads of an exchange."""

    status: int
    answered: bool
    relayed_bytes: int

    @property
    def first_byte_wait_s(self) -> float | None: ...
    @property
    def overhead_s(self) -> float | None: ...


class Account:
    def __init__(self, snapshots: Snapshots, clock: Callable[[], float], access_log: AccessLog | None) -> None:
        self._snapshots, self._clock = snapshots, clock
        self.access_log = access_log

    def exchange(self, ended: Ended, request: Request, route: Route, outcome: Outcome, reason: str) -> None:
        """An exchange with an upstream has ended."""
        assert request.member is not None  # noqa: S101 - an exchange has picked its member
        upstream = request.member.upstream
        series = route.series[upstream.name]
        duration_s = self._clock() - request.received_s
        first_byte_s, overhead_s = ended.first_byte_wait_s, ended.overhead_s
        if outcome is Outcome.CLIENT_GONE:
            series.disconnects += 1
        series.count(ended.status or CLIENT_CLOSED_REQUEST)
        series.duration.observe(duration_s)
        if first_byte_s is not None:
            series.first_byte.observe(first_byte_s)
        if overhead_s is not None:
            series.overhead.observe(overhead_s)
        if self.access_log is not None:
            fields: dict[str, object] = {
                "pool": route.pool.name,
                "upstream": upstream.name,
                "key": request.key and request.key.name,
            }
            if first_byte_s is not None:
                fields |= {"ttfb_ms": _ms(first_byte_s)}
            if overhead_s is not None:
                fields |= {"overhead_ms": _ms(overhead_s)}
            if reason:
                fields |= {"reason": reason}
            self._log(
                request, ended.status or CLIENT_CLOSED_REQUEST, ended.relayed_bytes, duration_s, outcome.value, fields
            )

    def refused(self, request: Request, status: int, reason: str) -> None:
        """A request was answered with an error of our own, before an upstream was picked."""
        series = request.candidates[0].own_series if request.candidates else request.snapshot.unrouted_series
        series.count(status)
        if self.access_log is not None:
            self._log(request, status, 0, self._clock() - request.received_s, "refused", {"reason": reason})

    def unread(self, status: int) -> None:
        """Something that is no valid request was answered with an error."""
        self._snapshots.current.unrouted_series.count(status)

    def _log(
        self, request: Request, status: int, sent_bytes: int, duration_s: float, outcome: str, more: dict[str, object]
    ) -> None:
        route = request.route or (request.candidates[0] if request.candidates else None)
        assert self.access_log is not None  # noqa: S101 - asked for by both callers
        self.access_log(
            request_id=request.request_id.decode("ascii"),
            peer=request.peer,
            client=request.client and request.client.name,
            method=request.method.decode("ascii"),
            path=request.target.partition(b"?")[0].decode("ascii", "backslashreplace"),
            route=route and route.label,
            status=status,
            bytes=sent_bytes,
            duration_ms=_ms(duration_s),
            outcome=outcome,
            **more,
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
