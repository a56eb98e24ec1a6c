"""Traces: one span for a request, and one for each try at an upstream, which is what the upstream sees as its parent.

Nothing is recorded while a request runs but two ids. When it, or a try, has ended, its span is made of what accounting
knows anyway. A caller who has a trace decides whether ours are in it (W3C's `sampled` flag): half a trace is worth
little. Without a trace of the caller's, one begins here, and of those the configured share is recorded; the id itself
is the die, so that others who go by it decide alike.

https://www.w3.org/TR/trace-context/, https://opentelemetry.io/docs/specs/semconv/http/http-spans/,
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/.
"""

from collections.abc import Callable

from proxy.dataplane.request import Attempt, Request, Trace
from proxy.dataplane.ways import model_of
from proxy.model.outcome import Outcome
from proxy.model.telemetry_settings import Tracing
from proxy.obs.spans import Span, Spans
from proxy.policy.genai import operation_of, provider_of
from proxy.policy.model_field import ModelField

PATH_MOST = 1024  # characters: callers choose it, and spans are queued by the thousand while a collector is slow
_SAMPLED, _RANDOM = 1, 2  # the flags that are known: others are not passed on by who takes part in a trace
_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
_NO_FAILURES = frozenset((Outcome.OK.value, Outcome.CLIENT_GONE.value, Outcome.HEDGED.value, "refused"))
Attributes = dict[str, str | int | float | None]


class Tracer:
    def __init__(self, spans: Spans, dice: Callable[[int], int], sample_percent: int) -> None:
        """`dice(n)` throws n bits."""
        self._spans, self._dice = spans, dice
        self._below = sample_percent * 2**64 // 100

    @classmethod
    def to(cls, spans: Spans | None, dice: Callable[[int], int], settings: Tracing | None) -> "Tracer | None":
        """One who records for them, if there is any recording."""
        return None if spans is None or settings is None else cls(spans, dice, settings.sample_percent)

    # --- while it runs -------------------------------------------------------------------------------------------

    def begin(self, request: Request, *, begins: bool) -> None:
        """Is the request recorded? `begins`: its trace begins here."""
        trace = request.traceparent
        if begins and int(trace[19:35], 16) >= self._below:
            request.traceparent = trace[:53] + b"00"
        elif begins:
            request.trace = Trace(trace[3:35], trace[36:52], None, _SAMPLED)
        elif (flags := int(trace[53:55], 16) & (_SAMPLED | _RANDOM)) & _SAMPLED:
            request.trace = Trace(trace[3:35], self._span_id(), trace[36:52], flags)
        if request.trace is not None:
            request.looked_into = True  # for its tokens

    def begin_try(self, request: Request, body: bytes, model: ModelField | None) -> None:
        """The request goes its way, as a span of its own."""
        trace, way = request.trace, request.way
        assert trace is not None and way is not None  # noqa: S101, PT018 - its caller looked
        if request.tries == 1:
            trace.model = model_of(request, body, model)
        span_id = self._span_id()
        request.attempt = Attempt(span_id, request.tries, request.ready_s, way.member.model or trace.model)
        request.traceparent = b"00-%b-%b-%02x" % (trace.trace_id, span_id, trace.flags)

    def _span_id(self) -> bytes:
        return b"%016x" % (self._dice(64) | 1)

    # --- when it has ended ---------------------------------------------------------------------------------------

    def tried(self, request: Request, outcome: Outcome, reason: str, status: int, now_s: float) -> None:
        """A try has ended; `status`: that the upstream answered, 0 for none."""
        trace, attempt = request.trace, request.attempt
        assert trace is not None and attempt is not None  # noqa: S101, PT018 - it was begun
        attributes = _of_try(request, attempt) | {
            "http.response.status_code": status or None,
            "serinus.outcome": outcome.value,
        }
        failed = outcome.value not in _NO_FAILURES or status >= 400
        if failed:
            attributes["error.type"] = _error(outcome.value, status)
        operation, model = attributes["gen_ai.operation.name"], attempt.model
        span = Span(
            name=f"{operation} {model}" if operation and model else str(operation or _method(request)),
            kind="client",
            trace_id=trace.trace_id,
            span_id=attempt.span_id,
            parent_id=trace.span_id,
            parent_is_remote=False,
            flags=trace.flags,
            began_s=attempt.began_s,
            ended_s=now_s,
            attributes=attributes,
            failure=reason if failed else None,
        )
        self._spans.take(span, now_s)

    def served(self, request: Request, outcome: str, reason: str, now_s: float) -> None:
        """A request has ended, with an answer or without."""
        trace, status = request.trace, request.status
        assert trace is not None  # noqa: S101 - its caller looked
        attributes = _of_request(request) | {"serinus.outcome": outcome}
        failed = status >= 500 or (outcome not in _NO_FAILURES and status < 400)
        if failed:
            attributes["error.type"] = _error(outcome, status)
        route = attributes["http.route"]
        span = Span(
            name=_method(request) if route is None else f"{_method(request)} {route}",
            kind="server",
            trace_id=trace.trace_id,
            span_id=trace.span_id,
            parent_id=trace.parent_id,
            parent_is_remote=True,
            flags=trace.flags,
            began_s=request.received_s,
            ended_s=now_s,
            attributes=attributes,
            failure=reason if failed else None,
        )
        self._spans.take(span, now_s)


def _of_try(request: Request, attempt: Attempt) -> Attributes:
    way, usage = request.way, request.usage
    assert way is not None  # noqa: S101 - it was taken
    operation, endpoint = operation_of(_path(request)), way.upstream.endpoint
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": operation and (provider_of(endpoint.host) or way.upstream.name),
        "gen_ai.request.model": attempt.model,
        "gen_ai.usage.input_tokens": None if usage is None else usage.input,
        "gen_ai.usage.output_tokens": None if usage is None else usage.output,
        "gen_ai.response.time_to_first_chunk": request.first_byte_wait_s if request.chunks else None,
        "http.request.method": _method(request),
        "http.request.resend_count": attempt.number - 1 or None,
        "server.address": endpoint.host,
        "server.port": endpoint.port,
        "serinus.pool": way.pool.name,
        "serinus.upstream": way.upstream.name,
        "serinus.target": way.upstream.target or None,
        "serinus.key": None if way.key is None else way.key.name,
        "serinus.arm": None if request.arm is None else request.arm.value,
    }


def _of_request(request: Request) -> Attributes:
    head, way = request.head, request.way
    route = request.route or (head.candidates[0] if head.candidates else None)
    return {
        "http.request.method": _method(request),
        "http.response.status_code": request.status or None,
        "http.route": None if route is None else (route.prefix.decode("ascii") or "/"),
        "url.path": _path(request)[:PATH_MOST].decode("ascii"),
        "client.address": request.peer or None,
        "serinus.request_id": request.request_id.decode("ascii"),
        "serinus.route": None if route is None else route.label,
        "serinus.client": None if head.client is None else head.client.name,
        "serinus.pool": None if way is None else way.pool.name,
        "serinus.upstream": None if way is None else way.upstream.name,
        "serinus.arm": None if request.arm is None else request.arm.value,
        "serinus.attempts": request.tries,
        "serinus.generation": head.snapshot.generation,
    }


def _path(request: Request) -> bytes:
    """Without the query, which is the caller's alone."""
    return request.head.target.partition(b"?")[0]


def _method(request: Request) -> str:
    """Callers choose it: what is none is called as the conventions have it."""
    method = request.head.method
    return method.decode("ascii") if method in _METHODS else "_OTHER"


def _error(outcome: str, status: int) -> str:
    return str(status) if status >= 400 else outcome
