"""The walk of a request, from its head to an open exchange. Each step reads as one line of `Handler`.

identify the client → find the routes that may take it → (its body) → match the route by model → pick the upstream →
pick the key → open the lease → send. What can be refused is refused before anything is sent: as a ProxyError that names
what was wrong.
"""

import math
from collections.abc import Callable
from itertools import count

from proxy.dataplane import client_limits
from proxy.dataplane.arms import pool_for
from proxy.dataplane.auth import identify
from proxy.dataplane.callers import Caller
from proxy.dataplane.creation import Creation
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.hedged import Hedged
from proxy.dataplane.plan import Plan, first_way
from proxy.dataplane.request import Head, Local, Request
from proxy.dataplane.routing import candidates_of, choose, model_asked, model_named
from proxy.dataplane.shadow import send_copy
from proxy.dataplane.tools import Tools
from proxy.dataplane.tracer import Tracer
from proxy.dataplane.tunnel import Tunnel
from proxy.model.errors import (
    BodyTooLarge,
    MethodNotAllowed,
    OriginForbidden,
    ProxyError,
    UpstreamCredentialsExhausted,
)
from proxy.policy import stateful
from proxy.policy.cors import origin_of
from proxy.policy.fields import Pair, read_fields
from proxy.policy.model_field import ModelField
from proxy.policy.named_models import is_model_list
from proxy.policy.target import check_inside, origin_form
from proxy.policy.usage import is_json
from proxy.state.snapshot import Route, Snapshots, Way


class Handler:
    def __init__(
        self,
        snapshots: Snapshots,
        tools: Tools,
        clock: Callable[[], float],
        dice: Callable[[int], int],
        id_prefix: str,
        tracer: Tracer | None = None,
    ) -> None:
        """`dice(n)` throws n bits. `id_prefix` begins the request ids made here; it must differ between processes."""
        self._snapshots, self._tools, self._clock, self._dice = snapshots, tools, clock, dice
        self._tracer = tracer
        self._id_prefix, self._ids = f"{id_prefix}-".encode(), count(1)

    def read(
        self, method: bytes, target: bytes, pairs: tuple[Pair, ...], *, http11: bool, keep_alive: bool, peer: str
    ) -> Request:
        """Check what the HTTP parser left unchecked. Raises MalformedRequest and its like."""
        if method == b"CONNECT":
            raise MethodNotAllowed("This is no tunnel: CONNECT is not served.")
        snapshot = self._snapshots.current
        fields = read_fields(pairs, http11=http11, via_id=snapshot.deployment_id)
        head = Head(snapshot, method, origin_form(target), http11, keep_alive, fields)
        request = self.begin(head, fields.content_length, fields.request_id, fields.traceparent, peer)
        head.websocket = fields.websocket and method == b"GET" and not request.has_body
        if head.target == b"/livez" and method in (b"GET", b"HEAD") and not request.has_body:
            head.local = Local.ALIVE
        if snapshot.cors is not None:
            head.cors = snapshot.cors.answer(fields.passed)
            preflight = snapshot.cors.preflight(method, fields.passed)
            if preflight and not fields.content_length and not fields.chunked:
                head.local, head.cors = Local.PREFLIGHT, preflight
        return request

    def begin(
        self, head: Head, content_length: int | None, request_id: bytes | None, traceparent: bytes | None, peer: str
    ) -> Request:
        """A request with this head has arrived; its own ids, where it brought any, go with it."""
        request = Request(
            head,
            content_length,
            request_id or self._id_prefix + b"%x" % next(self._ids),
            traceparent or self._trace(),
            self._clock(),
            peer,
        )
        if self._tracer is not None:
            self._tracer.begin(request, begins=not traceparent)
        return request

    def _read_anew(self, request: Request) -> None:
        """The request as the configuration that is in force now has it. Raises as `admit`."""
        head = request.head
        request.head = Head(
            self._snapshots.current, head.method, head.target, head.http11, head.keep_alive, head.fields, head.websocket
        )
        request.head.cors = head.cors
        self.admit(request)

    def _trace(self) -> bytes:
        """A trace that begins here: its id and the span's, at random but never zero, and sampled."""
        both = (self._dice(192) | 1 << 64 | 1).to_bytes(24).hex("-", -16)  # 16 bytes and 8
        return b"00-%b-01" % both.encode()

    def in_force(self, head: Head) -> bool:
        """Was this head admitted by the configuration that is in force now?"""
        return head.snapshot is self._snapshots.current

    def admit(self, request: Request) -> None:
        """Who is it, and which routes may take it?

        Raises Unauthenticated, OriginForbidden, RouteNotFound, ModelForbidden, BadRequest or BodyTooLarge.
        """
        head = request.head
        head.client, head.credentials = identify(head.snapshot, head.fields)
        if head.client is None:
            _check_origin(head)
        head.candidates = candidates = candidates_of(head)
        for route in candidates:
            check_inside(head.target, len(route.prefix))
        head.named = model_named(head)
        by_name = head.held_client is not None or candidates[0].model is not None
        head.goes_by_model = by_name or candidates[0].replaces_model
        if by_name and head.method == b"GET" and is_model_list(head.target):
            head.local = Local.MODELS
        within = head.target[len(candidates[0].prefix) :]
        head.ids = stateful.ids_in_path(within)
        head.hands_out = stateful.hands_out(head.method, within)
        head.may_store = stateful.may_store(head.method, within)
        head.may_refer = head.method == b"POST"
        head.counts_tokens = any(
            is_json(value) for name, value in head.fields.passed if name.lower() == b"content-type"
        )
        head.metered = head.snapshot.counts_tokens or (head.client is not None and head.client.metered)
        head.max_body_bytes = max(route.max_body_bytes for route in candidates)
        head.buffer_bytes = max(route.buffer_bytes for route in candidates)
        length = request.content_length
        if length is not None and length > head.max_body_bytes:
            raise BodyTooLarge(f"The body has {length} bytes; {head.max_body_bytes} are allowed here.")

    def dispatch(self, request: Request, caller: Caller, body: bytes, *, more: bool) -> Exchange:
        """Decide where the request goes, and send it there with `body`, of which `more` is to follow."""
        request.ready_s = now_s = self._clock()
        head = request.head
        if head.client is not None and not self.in_force(head):
            identify(self._snapshots.current, head.fields)  # its key may have ended while the body came
        client_limits.begin(request, body, now_s, more=more)
        try:
            return self._send(request, caller, body, more=more)
        except ProxyError as error:
            client_limits.undo(request, now_s)
            if isinstance(error, UpstreamCredentialsExhausted) and not self.in_force(head):
                self._read_anew(request)  # its keys have been replaced while its body came
                return self.dispatch(request, caller, body, more=more)
            raise

    def _send(self, request: Request, caller: Caller, body: bytes, *, more: bool) -> Exchange:
        model = model_asked(request, body, more=more) if request.head.goes_by_model else None
        route, only_way = choose(request, self._tools.makers, body, model)
        request.route = route
        if len(body) > route.max_body_bytes:
            raise BodyTooLarge(f"The body is larger than the {route.max_body_bytes} bytes that this route allows.")
        way, plan = self._way(request, route, only_way, body, model, more=more)
        kind = _kind(request, way, body)
        exchange = kind(self._tools, caller, request, route, body, model, plan)
        try:
            exchange.start(way, more=more)
        except Exception:
            exchange.abort("the proxy failed; its log says why")
            raise
        if request.copied and route.canary is not None:
            send_copy(self._tools, request, route, route.canary, body, model)
        return exchange

    def _way(
        self, request: Request, route: Route, only_way: Way | None, body: bytes, model: ModelField | None, *, more: bool
    ) -> tuple[Way, Plan | None]:
        """The way to take first, and the plan for those after it, if one was needed."""
        now_s, canary = request.ready_s, route.canary
        if only_way is not None:
            plan = Plan(request, only_way.pool, body, model, bound=True)
            return plan.only(only_way, now_s), plan
        if canary is None:
            return first_way(request, route.pool, body, model, now_s)
        pool = pool_for(request, canary, route.pool, body, model, more=more)
        try:
            return first_way(request, pool, body, model, now_s)
        except ProxyError as error:
            if request.sample is not None:
                request.sample.refused(error, now_s)
                request.sample = None
            raise


def _kind(request: Request, way: Way, body: bytes) -> type[Exchange]:
    head = request.head
    if head.websocket:
        return Tunnel
    if head.hands_out or (head.may_store and b'"store"' in body):
        request.looked_into = True
        return Creation
    return Exchange if way.pool.hedge_after_s == math.inf else Hedged


def _check_origin(head: Head) -> None:
    """Whoever reaches an open proxy may use it, and so may any web page in their browser, unless it is told not to.

    CORS keeps pages from reading answers, not from sending requests; and from WebSockets it keeps them not at all.
    """
    origin, cors = origin_of(head.fields.passed), head.snapshot.cors
    if origin and not (cors is not None and cors.allows(origin)):
        raise OriginForbidden("No web page may call here without a client key, but those listed in cors.origins.")
