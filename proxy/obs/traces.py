"""Spans to an OpenTelemetry collector, over OTLP and HTTP.

What OpenTelemetry's SDK would do while a request runs (contexts, samplers, live spans) costs more than the proxy's
whole budget for it. So a request keeps two ids, and its spans are made when it has ended, of what is known by then.
From the SDK comes what happens behind: the queue, the thread, the encoding, the collector's protocol and the variables
`OTEL_…` that everybody knows. A collector that is slow or gone costs spans, which are counted, and never a request.
"""

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from proxy import __version__
from proxy.model.telemetry_settings import Tracing
from proxy.obs.log import Log
from proxy.obs.metrics import Metrics
from proxy.obs.spans import Span, Spans

QUEUE_SPANS = 8192  # some 10 MB
BATCH_SPANS = 512
EVERY_S = 2.0
TIMEOUT_S = 5.0  # of one batch, its repetitions included
SAID_EVERY_S = 60.0
TURN_S = 0.0005  # of the thread that encodes, while the loop waits for the interpreter; Python's own is ten times that
CLOSING_S = 3.0  # at most, for what is still to be sent at the end

_KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT}
_LIBRARY = logging.getLogger("opentelemetry")


class _LastWords(logging.Handler):
    """Keeps what the library says of its troubles: said once for each batch, it would fill the log."""

    def __init__(self) -> None:
        super().__init__()
        self.said = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.said = record.getMessage()


@dataclass(slots=True)
class _Sent:
    """By the exporter's thread, which alone writes here."""

    taken: int = 0  # off the queue
    exported: int = 0
    failed: int = 0


class _Counting(SpanExporter):
    def __init__(self, exporter: SpanExporter, sent: _Sent) -> None:
        self._exporter, self._sent = exporter, sent

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._sent.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is SpanExportResult.SUCCESS:
                self._sent.exported += len(spans)
            else:
                self._sent.failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class Traces(Spans):
    """Takes spans, and sends them in batches. A watch calls `expired`."""

    def __init__(self, settings: Tracing, wall_clock: Callable[[], float], metrics: Metrics, log: Log) -> None:
        self._wall_clock, self._metrics, self._log = wall_clock, metrics, log
        self._sent = _Sent()
        self._queued = self._dropped = 0
        self._lost, self._said_s = 0, float("-inf")  # that the log knows of, and since when
        self.deadline_s = 0.0
        self._words = _LastWords()
        _LIBRARY.handlers[:], _LIBRARY.propagate = [self._words], False
        sys.setswitchinterval(TURN_S)
        headers = {name: value.reveal() for name, value in settings.headers.items()}
        exporter = OTLPSpanExporter(endpoint=settings.endpoint, headers=headers or None, timeout=TIMEOUT_S)
        self._processor = BatchSpanProcessor(
            _Counting(exporter, self._sent),
            max_queue_size=QUEUE_SPANS,
            max_export_batch_size=BATCH_SPANS,
            schedule_delay_millis=EVERY_S * 1000,
        )
        self._resource = Resource.create(_named(settings.service_name))
        self._scope = InstrumentationScope("serinus", __version__)

    def take(self, span: Span, now_s: float) -> None:
        if self._queued - self._sent.taken >= QUEUE_SPANS:
            self._dropped += 1
            return
        self._queued += 1
        self._processor.on_end(self._made(span, self._wall_clock() - now_s))

    def _made(self, span: Span, zero_s: float) -> ReadableSpan:
        """`zero_s`: what the wall clock said when ours began."""
        trace_id = int(span.trace_id, 16)
        flags = TraceFlags(span.flags)
        parent = None
        if span.parent_id is not None:
            parent = SpanContext(trace_id, int(span.parent_id, 16), span.parent_is_remote, flags)
        return ReadableSpan(
            span.name,
            context=SpanContext(trace_id, int(span.span_id, 16), False, flags),
            parent=parent,
            resource=self._resource,
            attributes={name: value for name, value in span.attributes.items() if value is not None},
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR, span.failure) if span.failure is not None else Status(),
            start_time=int((span.began_s + zero_s) * 1e9),
            end_time=int((span.ended_s + zero_s) * 1e9),
            instrumentation_scope=self._scope,
        )

    # --- what became of them -------------------------------------------------------------------------------------

    def expired(self, now_s: float) -> None:
        """Time to say how it goes."""
        self.deadline_s = now_s + 1.0
        self.count()
        lost = self._sent.failed + self._dropped
        if lost > self._lost and now_s >= self._said_s + SAID_EVERY_S:
            self._log.warning("spans_lost", spans=lost - self._lost, reason=self._words.said or "too many at once")
            self._lost, self._said_s, self._words.said = lost, now_s, ""

    def count(self) -> None:
        spans, sent = self._metrics.spans, self._sent
        spans["exported"], spans["failed"], spans["dropped"] = sent.exported, sent.failed, self._dropped

    async def flush(self) -> None:
        """Send what there is, however long that takes."""
        await _within(None, self._processor.force_flush)
        self.count()

    async def close(self) -> None:
        """Send what there is, if that is done within CLOSING_S; no more after that."""
        await _within(CLOSING_S, self._processor.shutdown)
        self.count()


def _named(service_name: str | None) -> Mapping[str, str]:
    """The configuration's word comes before OTEL_SERVICE_NAME's, which comes before our own name."""
    if service_name is not None:
        return {"service.name": service_name}
    named = Resource.create().attributes.get("service.name", "")
    return {"service.name": "serinus"} if str(named).startswith("unknown_service") else {}


async def _within(limit_s: float | None, work: Callable[[], object]) -> None:
    """Not in the loop's pool of threads: its end would be waited for, however long it took."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try:
            work()
        finally:
            try:
                loop.call_soon_threadsafe(done.set)
            except RuntimeError:  # the loop was closed meanwhile: nobody waits any more
                pass

    threading.Thread(target=run, daemon=True).start()
    try:
        async with asyncio.timeout(limit_s):
            await done.wait()
    except TimeoutError:
        pass
