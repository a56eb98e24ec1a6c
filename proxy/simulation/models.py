"""The list of models, in the words of whichever API asks: both vendors have it at the same address."""

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from proxy.simulation.call import Call
from proxy.simulation.errors import ApiError


async def list_models(call: Call) -> web.StreamResponse:
    names = call.behaviour.models
    data = [_shown(call, name) for name in names]
    if not _asks_anthropic(call.request):
        return await call.answer({"object": "list", "data": data})
    ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
    return await call.answer({"data": data, "has_more": False, **ends})


async def get_model(call: Call) -> web.StreamResponse:
    name = call.request.match_info["id"]
    if name not in call.behaviour.models:
        raise ApiError(404, f"The model '{name}' does not exist", code="model_not_found", param="model")
    return await call.answer(_shown(call, name))


def _asks_anthropic(request: web.Request) -> bool:
    return "anthropic-version" in request.headers  # which Anthropic requires and nobody else knows


def _shown(call: Call, name: str) -> dict[str, Any]:
    if not _asks_anthropic(call.request):
        return {"id": name, "object": "model", "created": call.now_s, "owned_by": call.behaviour.name}
    created_at = datetime.fromtimestamp(call.now_s, UTC).isoformat()
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": created_at,
        "lifecycle": "active",
    }
