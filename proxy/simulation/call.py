"""One request as an endpoint sees it: what was asked, how its upstream behaves, and the ways to answer."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from proxy.simulation.behaviour import Behaviour
from proxy.simulation.errors import ApiError, CutShort
from proxy.simulation.memory import Memory
from proxy.simulation.pace import Pace

Part = TypeVar("Part")

CUT_MODEL = "cut"
HANG_MODEL = "hang"
_STATUS_MODEL = re.compile(r"status-([45]\d\d)")
_CUT_AFTER_PARTS = 3


@dataclass(slots=True)
class Call:
    request: web.Request
    behaviour: Behaviour
    pace: Pace
    memory: Memory
    new_id: Callable[[str], str]  # from a prefix
    now_s: int
    model: str = ""  # once `admit` has seen it

    async def json(self) -> dict[str, Any]:
        try:
            body = msgspec.json.decode(await self.request.read())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ApiError(400, f"We could not parse the JSON body of your request: {error}") from None
        if not isinstance(body, dict):
            raise ApiError(400, "The body of the request must be a JSON object")
        return body

    async def admit(self, model: object) -> None:
        """Goes on only for a model that is served; see the package for the names that ask for failures."""
        if not isinstance(model, str) or not model:
            raise ApiError(400, "model: Field required", param="model")
        if status := _STATUS_MODEL.fullmatch(model):
            raise ApiError(int(status[1]), f"The model asked for status {status[1]}")
        if model == HANG_MODEL:
            await asyncio.get_running_loop().create_future()
        if self.behaviour.strict_models and model not in (*self.behaviour.models, CUT_MODEL):
            raise ApiError(404, f"The model `{model}` does not exist", code="model_not_found", param="model")
        self.model = model

    async def pour(self, answer: web.StreamResponse, parts: Iterable[Part], encode: Callable[[Part], bytes]) -> None:
        """Writes each part when it is due, one write each."""
        for index, part in enumerate(parts):
            if index:
                await self.pace.next()
            if index == _CUT_AFTER_PARTS and self.model == CUT_MODEL:
                break
            await answer.write(encode(part))
        if self.model == CUT_MODEL:
            raise CutShort(answer)

    async def answer(self, payload: Mapping[str, Any] | bytes) -> web.StreamResponse:
        body = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
        if self.model == CUT_MODEL:
            return await self._half(body)
        return web.Response(body=body, content_type="application/json")

    async def _half(self, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json"})
        response.content_length = len(body)
        await response.prepare(self.request)
        await response.write(body[: len(body) // 2])
        raise CutShort(response)


Endpoint = Callable[[Call], Awaitable[web.StreamResponse]]
