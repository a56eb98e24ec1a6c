"""An OpenTelemetry collector that keeps what it is sent, and does as a script says."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan


@dataclass
class Recorded:
    """One span as it arrived, ids in hex."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    failed: bool
    message: str
    lasted_s: float
    began_s: float
    attributes: dict[str, Any]
    resource: dict[str, Any]


def _value(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value"))


def _read(span: ProtoSpan, resource: dict[str, Any]) -> Recorded:
    return Recorded(
        name=span.name,
        kind=ProtoSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        failed=span.status.code == 2,
        message=span.status.message,
        lasted_s=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        began_s=span.start_time_unix_nano / 1e9,
        attributes={each.key: _value(each.value) for each in span.attributes},
        resource=resource,
    )


@dataclass
class Collector:
    status: int = 200
    url: str = ""
    spans: list[Recorded] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    held: asyncio.Event | None = None  # it answers once that is set

    async def take(self, request: web.Request) -> web.Response:
        body = ExportTraceServiceRequest.FromString(await request.read())
        self.headers.append(request.headers)
        if self.held is not None:
            await self.held.wait()
        if self.status == 200:
            for resource_spans in body.resource_spans:
                resource = {each.key: _value(each.value) for each in resource_spans.resource.attributes}
                self.spans += [_read(span, resource) for scope in resource_spans.scope_spans for span in scope.spans]
        return web.Response(status=self.status)

    def of_kind(self, kind: str) -> list[Recorded]:
        """In the order in which they began."""
        return sorted((span for span in self.spans if span.kind == kind), key=lambda span: span.began_s)

    @property
    def server(self) -> Recorded:
        (span,) = self.of_kind("server")
        return span


@asynccontextmanager
async def collecting(status: int = 200) -> AsyncIterator[Collector]:
    collector = Collector(status)
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    yield collector
    await runner.cleanup()
