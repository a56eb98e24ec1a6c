"""Server-sent events of the admin API: written block by block to whoever reads them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from aiohttp import web

READS_S = 30.0  # who reads nothing for so long follows no more
STILL_HERE = b": still here\n\n"


def event(name: str, content: object, number: int | None = None) -> bytes:
    """One event, its data as JSON. `number`: what a follower that comes back says it has seen."""
    numbered = b"" if number is None else b"id: %d\n" % number
    return numbered + b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(content))


def is_wanted(request: web.Request) -> bool:
    """Not of a HEAD: its answer has no body, so that who reads on would take events for the next answer."""
    return request.method == "GET" and "text/event-stream" in request.headers.get("accept", "")


async def send(request: web.Request, blocks: AsyncGenerator[bytes, None]) -> web.StreamResponse:
    """Answer with these until they end or the reader leaves."""
    stream = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-store"})
    await stream.prepare(request)
    async with aclosing(blocks):
        async for block in blocks:
            try:
                async with asyncio.timeout(READS_S):
                    await stream.write(block)
            except ConnectionError:
                break  # it left
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()  # it reads nothing, so nothing can be ended
                break
    return stream
