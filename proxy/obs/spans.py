"""One piece of work as a trace shows it, by our own word: who makes spans needs no OpenTelemetry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from proxy.model.telemetry_settings import Tracing
from proxy.obs.log import Log
from proxy.obs.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Span:
    """Ids in hex, times by the proxy's clock. Attributes that are None are left out."""

    name: str
    kind: Literal["server", "client"]
    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    parent_is_remote: bool
    flags: int
    began_s: float
    ended_s: float
    attributes: Mapping[str, str | int | float | None]
    failure: str | None  # None: it did not fail; else in words, if there are any


class Spans(Protocol):
    """Takes spans of what has ended, and sends them to where they are wanted."""

    deadline_s: float

    def take(self, span: Span, now_s: float) -> None: ...
    def expired(self, now_s: float) -> None: ...
    async def flush(self) -> None: ...
    async def close(self) -> None: ...


def spans_to(settings: Tracing | None, wall_clock: Callable[[], float], metrics: Metrics, log: Log) -> Spans | None:
    """Who takes them, where any are wanted. The libraries are read then only: they take 15 MB."""
    if settings is None:
        return None
    from proxy.obs.traces import Traces

    return Traces(settings, wall_clock, metrics, log)
