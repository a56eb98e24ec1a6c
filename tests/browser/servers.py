"""What stands on either side of the proxy: the pages that call it, and an upstream that speaks WebSocket."""

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web

LISTED, STRANGER = "app.example", "stranger.example"
_PAGE = (Path(__file__).parent / "page.html").read_bytes()


class Pages:
    """One page that is opened at two origins in turn, and what it finds out at each."""

    def __init__(self) -> None:
        self.findings: dict[str, dict[str, Any]] = {LISTED: {}, STRANGER: {}}
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/page.html", self._page)
        app.router.add_post("/findings/{name}", self._finding)
        app.router.add_get("/next", self._next)
        return app

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(body=_PAGE, content_type="text/html")

    async def _finding(self, request: web.Request) -> web.Response:
        host, _, _ = request.host.partition(":")
        self.findings[host][request.match_info["name"]] = await request.json()
        return web.Response()

    async def _next(self, request: web.Request) -> web.Response:
        if request.host.startswith(STRANGER) and not self.over.done():
            self.over.set_result(None)
        return web.Response(text=request.host.replace(LISTED, STRANGER))


def realtime() -> web.Application:
    app = web.Application()
    app.router.add_get("/v1/realtime", _echo)
    app.router.add_post("/v1/realtime/client_secrets", _allow_another_origin)
    return app


async def _echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=("realtime",))
    await socket.prepare(request)
    async for message in socket:
        if message.data == "leave":
            await socket.close(code=4001, message=b"session over")
        else:
            await socket.send_str(message.data)
    return socket


async def _allow_another_origin(_: web.Request) -> web.Response:
    fields = {"access-control-allow-origin": "https://elsewhere.example", "access-control-expose-headers": "x-other"}
    return web.json_response({"value": "ek_1"}, headers=fields)
