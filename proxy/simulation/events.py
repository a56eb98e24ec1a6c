"""Server-sent events, one write each: a proxy that holds events back is seen at once.

Most of a stream is one event with another token in it. Its JSON is encoded once, with a hole where the token goes.
"""

from collections.abc import Mapping
from typing import Any, Self

import msgspec
from aiohttp import web

HOLE = "\x00token"  # no token has it
_HOLE_JSON = msgspec.json.encode(HOLE)
_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


def event(payload: Mapping[str, Any], name: str | None = None) -> bytes:
    data = b"data: " + msgspec.json.encode(payload) + b"\n\n"
    return data if name is None else b"event: " + name.encode() + b"\n" + data


class TokenEvent:
    """An event that differs from the next only in its token: the payload holds `HOLE` in its place."""

    __slots__ = ("_head", "_tail")

    def __init__(self, payload: Mapping[str, Any], name: str | None = None) -> None:
        # The last hole is ours: an earlier one would be a caller's, who named a model so.
        self._head, _, self._tail = event(payload, name).rpartition(_HOLE_JSON)

    def fill(self, token: str) -> bytes:
        return self._head + msgspec.json.encode(token) + self._tail


class EventStream(web.StreamResponse):
    """An answer of events; made with `begin`, ended by returning it."""

    @classmethod
    async def begin(cls, request: web.Request) -> Self:
        stream = cls(headers=_HEADERS)
        await stream.prepare(request)
        return stream

    async def send(self, *events: bytes) -> None:
        for data in events:
            await self.write(data)
