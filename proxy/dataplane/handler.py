"""The walk of a request, from its head to an open exchange. Each step reads as one line of `Handler`.

identify the client → find the routes that may take it → (its body) → match the route by model → pick the upstream →
pick the key → open the lease → send. What can be refused is refused before anything is sent: as a ProxyError that names
what was wrong.
"""

from collections.abc import Callable
from itertools import count

from proxy.dataplane.auth import identify
from proxy.dataplane.callers import Caller
from proxy.dataplane.exchange import Exchange, Tools
from proxy.dataplane.request import Request
from proxy.model.errors import BadRequest, BodyTooLarge, MethodNotAllowed, ModelForbidden, ModelNotFound, RouteNotFound
from proxy.policy.fields import Pair, check_inside, origin_form, read_fields
from proxy.policy.model_field import ModelField, find_model, model_in_query, models_in_path
from proxy.state.lease import Lease
from proxy.state.snapshot import Client, Route, Snapshots

QUOTED_CHARACTERS = 100
MODEL_WANTED = (
    "The body must name its model here, in JSON (content-type: application/json) or in a form (multipart/form-data)."
)


class Handler:
    def __init__(self, snapshots: Snapshots, tools: Tools, clock: Callable[[], float], id_prefix: str) -> None:
        """`id_prefix` begins the request ids made here; it must differ between processes."""
        self._snapshots, self._tools, self._clock = snapshots, tools, clock
        self._id_prefix, self._ids = f"{id_prefix}-".encode(), count(1)

    def read(
        self, method: bytes, target: bytes, pairs: tuple[Pair, ...], *, http11: bool, keep_alive: bool, peer: str
    ) -> Request:
        """Check what the HTTP parser left unchecked. Raises MalformedRequest and its like."""
        if method == b"CONNECT":
            raise MethodNotAllowed("This is no tunnel: CONNECT is not served.")
        snapshot = self._snapshots.current
        fields = read_fields(pairs, http11=http11, via_id=snapshot.deployment_id)
        return Request(
            snapshot=snapshot,
            method=method,
            target=origin_form(target),
            http11=http11,
            keep_alive=keep_alive,
            request_id=fields.request_id or self._id_prefix + b"%x" % next(self._ids),
            received_s=self._clock(),
            fields=fields,
            peer=peer,
        )

    def admit(self, request: Request) -> None:
        """Who is it, and which routes may take it? Raises Unauthenticated, RouteNotFound or BodyTooLarge."""
        request.client = identify(request.snapshot, request.fields)
        request.candidates = candidates = self._candidates(request)
        for route in candidates:
            check_inside(request.target, len(route.prefix))
        length = request.fields.content_length
        if length is not None and length > (limit := self.max_body_bytes(request)):
            raise BodyTooLarge(f"The body has {length} bytes; {limit} are allowed here.")

    def _candidates(self, request: Request) -> list[Route]:
        """The routes that match path and headers, up to the first that asks for nothing more."""
        found = []
        for route in request.snapshot.routes:
            if route.matches_path(request.target) and (
                not route.headers or route.matches_headers(request.fields.passed)
            ):
                found.append(route)
                if route.model is None:
                    break
        if not found:
            prefixes = sorted({route.prefix.decode() or "/" for route in request.snapshot.routes})
            raise RouteNotFound(f"No route leads from this path. The prefixes served are: {', '.join(prefixes)}.")
        return found

    def buffer_bytes(self, request: Request) -> int:
        """How much of the body is to be kept before the request goes on."""
        return max(route.buffer_bytes for route in request.candidates)

    def max_body_bytes(self, request: Request) -> int:
        """How much of a body is let through: what its route allows, or the most that any route it may take does."""
        if request.route is not None:
            return request.route.max_body_bytes
        candidates = request.candidates
        return candidates[0].max_body_bytes if len(candidates) == 1 else max(r.max_body_bytes for r in candidates)

    def dispatch(self, request: Request, caller: Caller, body: bytes, *, more: bool) -> Exchange:
        """Decide where the request goes, and send it there with `body`, of which `more` is to follow."""
        request.ready_s = self._clock()
        model = self._model(request, body, more)
        route = request.route = self._match(request, model)
        if len(body) > route.max_body_bytes:
            raise BodyTooLarge(f"The body is larger than the {route.max_body_bytes} bytes that this route allows.")
        member = request.member = route.pool.pick()
        upstream = member.upstream
        key = request.key = member.key or upstream.next_key()
        if member.model is not None and model is not None:
            body = model.replaced(body, member.model)
        lease = Lease(upstream.live, None if key is None else key.live)
        exchange = Exchange(self._tools, caller, request, route, member, lease)
        try:
            exchange.start(body, more=more)
        except Exception:
            exchange.abort("the proxy failed; its log says why")
            raise
        return exchange

    def _model(self, request: Request, body: bytes, more: bool) -> ModelField | None:
        """The model asked for, where anything hangs on it. Raises BadRequest where it cannot be known for certain."""
        fields, client = request.fields, request.client
        restricted = client is not None and client.models is not None
        if restricted:
            for named in (model_in_query(request.target), *models_in_path(request.target)):
                self._check_allowed(client, named)
        if not restricted and request.candidates[0].model is None and not request.candidates[0].replaces_model:
            return None
        if not body and not more:
            return None
        if more:
            raise BodyTooLarge(
                "The body is larger than this route's buffer, and its model must be known to send it on."
            )
        if fields.encoded:
            raise BadRequest("The body is compressed, and its model must be known to send it on.")
        content_type = b""
        for name, value in fields.passed:
            if name.lower() == b"content-type":
                content_type = value
        model = find_model(body, content_type)
        if restricted:
            if model is None:
                raise BadRequest(MODEL_WANTED, param="model", code="model_required")
            if model.has_fallbacks:
                raise BadRequest("The body names other models under `models`: not for this client.", param="models")
            self._check_allowed(client, model.value)
        return model

    def _check_allowed(self, client: Client | None, model: str | None) -> None:
        if client is not None and model is not None and not client.may_use(model):
            raise ModelForbidden(f"The client {client.name!r} may not use the model {_quoted(model)}.", param="model")

    def _match(self, request: Request, model: ModelField | None) -> Route:
        """The first candidate whose glob fits. A request that names no model goes where none is asked for."""
        candidates = request.candidates
        if model is None:
            return candidates[-1] if candidates[-1].model is None else self._without_model(request)
        for route in candidates:
            if route.model is None or route.model.fullmatch(model.value):
                return route
        globs = ", ".join(route.model_glob or "*" for route in candidates)
        raise ModelNotFound(
            f"The model {_quoted(model.value)} is not served here. The models served are: {globs}.", param="model"
        )

    def _without_model(self, request: Request) -> Route:
        """Every candidate goes by the model. A request without a body (a list of models, say) has none: the first."""
        if request.fields.chunked or request.fields.content_length:
            raise BadRequest(MODEL_WANTED, param="model", code="model_required")
        return request.candidates[0]


def _quoted(text: str) -> str:
    """A caller's word in our answer: some of it is enough."""
    return repr(text if len(text) <= QUOTED_CHARACTERS else text[:QUOTED_CHARACTERS] + "…")
