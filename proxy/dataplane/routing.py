"""Which route a request takes, and which of its pool's members with which key: by path, model, and who made what."""

from proxy.dataplane.request import Head, Request
from proxy.model.errors import BadRequest, BodyTooLarge, ModelForbidden, ModelNotFound, RouteNotFound
from proxy.policy.model_field import ModelField, find_model, is_readable, names_others
from proxy.policy.named_models import check_unambiguous, models_in_path, models_in_query
from proxy.policy.stateful import ids_in_body
from proxy.state.makers import Maker, Makers
from proxy.state.snapshot import Client, Pool, Route, Way

QUOTED_CHARACTERS = 100
MODEL_WANTED = (
    "The body must name its model here, in JSON (content-type: application/json) or in a form (multipart/form-data)."
)


def candidates_of(head: Head) -> list[Route]:
    """The routes that match path and headers, up to the first that asks for nothing more. Raises RouteNotFound."""
    found = []
    for route in head.snapshot.routes:
        if route.matches_path(head.target) and (not route.headers or route.matches_headers(head.fields.passed)):
            found.append(route)
            if route.model is None:
                break
    if not found:
        prefixes = sorted({route.prefix.decode() or "/" for route in head.snapshot.routes})
        raise RouteNotFound(f"No route leads from this path. The prefixes served are: {', '.join(prefixes)}.")
    return found


def model_named(head: Head) -> str | None:
    """The model that the target names, in its path or query, where anything hangs on it.

    Raises ModelForbidden where the client may not use it, and BadRequest where it cannot be known for certain.
    """
    held = head.held_client
    if held is None and head.candidates[0].model is None:
        return None
    in_path, in_query = models_in_path(head.method, head.target), models_in_query(head.target)
    if held is not None:
        check_unambiguous(head.target)
        for named in (*in_path, *in_query):
            _check_allowed(held, named)
        realtime = head.target.partition(b"?")[0].endswith(b"/realtime")
        if head.websocket and not (in_query and realtime):  # others name it in their messages, which nobody reads here
            raise BadRequest("For this client a WebSocket must name its model: /realtime?model=NAME.", param="model")
    return next(iter((*in_path, *in_query)), None)


def model_asked(request: Request, body: bytes, *, more: bool) -> ModelField | None:
    """The model that the body asks for. Raises BadRequest where it cannot be known for certain."""
    fields, held = request.head.fields, request.head.held_client
    if not body and not more:
        return None
    if more:
        raise BodyTooLarge("The body is larger than this route's buffer, and its model must be known to send it on.")
    if fields.encoded:
        raise BadRequest("The body is compressed, and its model must be known to send it on.")
    content_types = [value for name, value in fields.passed if name.lower() == b"content-type"]
    if len(content_types) > 1:
        raise BadRequest("Content-Type must be there once, for the body's model must be known to send it on.")
    content_type = content_types[0] if content_types else b""
    model = find_model(body, content_type)
    if held is not None:
        named = model is not None or models_in_path(request.head.method, request.head.target)
        if not (named and is_readable(content_type)):
            raise BadRequest(MODEL_WANTED, param="model", code="model_required")
        if names_others(body):
            raise BadRequest("The body names other models to fall back to: not for this client.", param="models")
        _check_allowed(held, None if model is None else model.value)
    return model


def _check_allowed(client: Client, model: str | None) -> None:
    if model is not None and not client.may_use(model):
        raise ModelForbidden(f"The client {client.name!r} may not use the model {_quoted(model)}.", param="model")


def choose(request: Request, makers: Makers, body: bytes, model: ModelField | None) -> tuple[Route, Way | None]:
    """The route, and the way if there is but one: back to who made what the request speaks of.

    Raises ModelNotFound, or BadRequest where a model must be named and is not.
    """
    head = request.head
    if head.ids or (head.may_refer and makers.made):
        maker = next(filter(None, map(makers.find, (*head.ids, *ids_in_body(body)))), None)
        if maker is not None and (way := _way_back(head.candidates, maker, model)) is not None:
            return way
    route = _match(request, head.named if model is None else model.value)
    if not head.ids:
        return route, None
    return route, route.pool.way(route.pool.first)


def _way_back(routes: list[Route], maker: Maker, model: ModelField | None) -> tuple[Route, Way] | None:
    """The way to who made what the request speaks of; None if no route that it may take leads there.

    To another target of that upstream, where the one that made it is gone: they may keep it together.
    """
    found: tuple[Route, Pool, int] | None = None
    for route in routes:
        if model is not None and not route.serves(model.value):
            continue
        for pool, index in [(each, index) for each in route.pools() for index in range(len(each.members))]:
            member = pool.members[index]
            upstream = member.upstream
            if upstream.name == maker.upstream and member.key in (None, maker.key):
                if upstream.target == maker.target:
                    return route, _with_key(pool, index, maker)
                found = found or (route, pool, index)
    return None if found is None else (found[0], _with_key(*found[1:], maker))


def _with_key(pool: Pool, index: int, maker: Maker) -> Way:
    """By this member, with the maker's key, if it still has that."""
    return pool.way(index, [way for way in pool.ways[index] if way.key and way.key.name == maker.key])


def _match(request: Request, model: str | None) -> Route:
    """The first candidate whose glob fits. A request that names no model goes where none is asked for."""
    candidates = request.head.candidates
    if model is None:
        return candidates[-1] if candidates[-1].model is None else _without_model(request)
    for route in candidates:
        if route.serves(model):
            return route
    globs = ", ".join(route.model_glob or "*" for route in candidates)
    raise ModelNotFound(
        f"The model {_quoted(model)} is not served here. The models served are: {globs}.", param="model"
    )


def _without_model(request: Request) -> Route:
    """Every candidate goes by the model. A request without a body (a list of models, say) has none: the first."""
    if request.head.fields.chunked or request.content_length:
        raise BadRequest(MODEL_WANTED, param="model", code="model_required")
    return request.head.candidates[0]


def _quoted(text: str) -> str:
    """A caller's word in our answer: some of it is enough."""
    return repr(text if len(text) <= QUOTED_CHARACTERS else text[:QUOTED_CHARACTERS] + "…")
