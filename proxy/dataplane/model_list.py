"""The list of models where no single upstream has it: several routes share the path, or a client may use only some."""

import asyncio
from typing import Any

import msgspec

from proxy.dataplane.fetch import Fetch, FetchFailed
from proxy.dataplane.heads import request_head
from proxy.dataplane.request import Head, Request
from proxy.dataplane.tools import Tools
from proxy.model.errors import UpstreamFailed
from proxy.model.outcome import Outcome, outcome_of
from proxy.policy.fields import RequestFields
from proxy.state.lease import Lease
from proxy.state.snapshot import Member, Route

LIST_TIMEOUT_S = 10.0  # an upstream that takes longer is left out
_ANTHROPIC_PAGE = b"?limit=1000"  # all that it has; 20 otherwise

Model = dict[str, Any]


class ModelLists:
    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def merged(self, request: Request, *, anthropic: bool) -> Model:
        """What this client may ask for, in the routes' order, as the upstreams describe it. Raises UpstreamFailed."""
        head = request.head
        to_ask = {route: member for route in head.candidates if (member := _knows_its_models(route))}
        lists = await asyncio.gather(*(self._list(request, *way, anthropic=anthropic) for way in to_ask.items()))
        if lists and all(found is None for found in lists):
            raise UpstreamFailed("No upstream gave a list of its models.")
        by_route = dict(zip(to_ask, lists, strict=True))
        merged: dict[str, Model] = {}
        for route in head.candidates:
            for model in (*(by_route.get(route) or ()), *_spelt_out(route, anthropic=anthropic)):
                if _leads_to(route, head, model["id"]):
                    merged.setdefault(model["id"], model)
        return _as_list(list(merged.values()), anthropic=anthropic)

    async def _list(self, request: Request, route: Route, member: Member, *, anthropic: bool) -> list[Model] | None:
        """The models of one upstream; None where it gives no list."""
        way = route.pool.way(route.pool.members.index(member))
        upstream = way.upstream
        lease, outcome = Lease(way, prompt_bytes=0), Outcome.UPSTREAM_ERROR
        try:
            asking = _request_for_list(request, anthropic=anthropic)
            fetch = Fetch(self._tools.pools.of(upstream), request_head(asking, route, way, 0))
            status, payload = await fetch.answer(min(LIST_TIMEOUT_S, upstream.first_byte_timeout_s))
            outcome = outcome_of(status)
            return _read_list(payload) if status == 200 else None
        except FetchFailed:
            return None
        finally:
            lease.finish(outcome, self._tools.clock())


def _knows_its_models(route: Route) -> Member | None:
    """A member whose models are called what callers call them; where each has a name of its own, no list tells."""
    return next((member for member in route.pool.members if member.model is None), None)


def _request_for_list(request: Request, *, anthropic: bool) -> Request:
    head = request.head
    passed = [pair for pair in head.fields.passed if pair[0].lower().startswith(b"anthropic-")]
    fields = RequestFields(passed=[(b"Accept", b"application/json"), *passed])
    target = head.target.partition(b"?")[0] + (_ANTHROPIC_PAGE if anthropic else b"")
    ours = Head(head.snapshot, b"GET", target, True, True, fields, client=head.client, credentials=head.credentials)
    return Request(ours, None, request.request_id, request.traceparent, request.received_s, request.peer)


def _read_list(payload: bytes) -> list[Model] | None:
    try:
        models = msgspec.json.decode(payload)["data"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return None
    if not isinstance(models, list):
        return None
    return [model for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)]


def _spelt_out(route: Route, *, anthropic: bool) -> list[Model]:
    """The model of a route for just one: it is served whether or not an upstream lists it by that name."""
    name = route.model_glob
    if name is None or any(mark in name for mark in "*?["):
        return []
    if anthropic:
        return [{"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}]
    return [{"id": name, "object": "model", "created": 0, "owned_by": route.pool.name}]


def _leads_to(route: Route, head: Head, model: str) -> bool:
    """Would a request of this client for the model take this route?"""
    first = next((candidate for candidate in head.candidates if candidate.serves(model)), None)
    return first is route and (head.client is None or head.client.may_use(model))


def _as_list(models: list[Model], *, anthropic: bool) -> Model:
    if not anthropic:
        return {"object": "list", "data": models}
    ids = [model["id"] for model in models]
    ends = {"first_id": ids[0], "last_id": ids[-1]} if ids else {"first_id": None, "last_id": None}
    return {"data": models, "has_more": False, **ends}
