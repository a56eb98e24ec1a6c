"""The admin API: health, metrics, status, reload, a page that shows them. On its own listener, never the public one."""

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

from aiohttp import web

from proxy.controlplane.admin_canaries import AdminCanaries
from proxy.controlplane.admin_clients import AdminClients
from proxy.controlplane.admin_keys import HOLDER, AdminKeys, answer
from proxy.controlplane.admin_page import AdminPage, is_of_the_page
from proxy.controlplane.effective import effective
from proxy.controlplane.event_stream import is_wanted, send
from proxy.controlplane.follow import audited
from proxy.controlplane.playground import Playground
from proxy.controlplane.recorder import Recorder
from proxy.controlplane.reload import Applied, Outcome, Reloader
from proxy.controlplane.status import Reporter, Status
from proxy.controlplane.status_feed import StatusFeed
from proxy.model.quantities import parse_wait
from proxy.model.settings import Admin as AdminSettings
from proxy.obs.metrics import Metrics
from proxy.obs.recent import LONGEST_S

MOST_AUDITED = 1000  # entries in one answer
DEFAULT_WINDOW = "60s"  # of what /status tells
LAST_WAIT_S = 1.0  # for an answer under way, when the process ends: nobody waits for a minute, as aiohttp would
_PROBES = frozenset(("/livez", "/readyz"))  # which say nothing of anything
_OPEN_PATHS = _PROBES | {"/metrics"}


class Admin:
    """Its routes, and the facts they report."""

    def __init__(
        self,
        settings: AdminSettings,
        metrics: Metrics,
        reporter: Reporter,
        reloader: Reloader,
        keys: AdminKeys,
        clients: AdminClients,
        canaries: AdminCanaries,
        playground: Playground,
        recorder: Recorder,
        ready: Callable[[], bool],
        refresh: Callable[[], Awaitable[None]],
    ) -> None:
        """`refresh`: has those who serve tell what they counted."""
        self._settings, self._metrics, self._reporter = settings, metrics, reporter
        self._reloader, self._recorder, self._ready = reloader, recorder, ready
        self._refresh = refresh
        self._keys, self._clients, self._canaries, self._playground = keys, clients, canaries, playground
        self._feed = StatusFeed(self.status, canaries.all_shown, canaries.decisions, refresh)
        self._page = AdminPage()
        self._tokens = {sha256(token.value.reveal().encode()).digest(): token.name for token in settings.tokens}
        self._runner: web.AppRunner | None = None

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.on_response_prepare.append(_for_no_other_page)
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics_page),
                web.get("/status", self._status),
                web.get("/config", self._config),
                web.post("/reload", self._reload),
                web.get("/audit", self._audit),
                *self._keys.routes(),
                *self._clients.routes(),
                *self._canaries.routes(),
                *self._playground.routes(),
                *self._page.routes(),
            ]
        )
        return app

    async def start(self, tls: ssl.SSLContext | None) -> tuple[str, int]:
        """Listen on the configured address. Returns what it became. Raises OSError."""
        self._runner = web.AppRunner(
            self.app(), access_log=None, handler_cancellation=True, shutdown_timeout=LAST_WAIT_S
        )
        await self._runner.setup()
        address = self._settings.listen
        await web.TCPSite(self._runner, address.host, address.port, ssl_context=tls).start()
        bound = self._runner.addresses[0]
        return str(bound[0]), int(bound[1])

    async def close(self) -> None:
        self._canaries.close()
        await self._feed.close()
        if self._runner is not None:
            await self._runner.cleanup()
        await self._playground.close()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Tokens where there are any; and no requests that a web page made a browser send."""
        path, of_the_page = request.path, is_of_the_page(request.path)
        if not self._tokens and not of_the_page and path not in _PROBES and not _is_local_name(request.host):
            why = f"the Host {request.host!r} is not this machine: set admin.tokens to allow other names"
            return answer({"error": why}, 403)
        if path not in _OPEN_PATHS and not of_the_page:
            holder = self._holder(request)
            if holder is None:
                return answer({"error": "send a token of admin.tokens as `Authorization: Bearer TOKEN`"}, 401)
            request[HOLDER] = holder
            if isinstance(request.match_info.http_exception, web.HTTPNotFound):
                return answer({"error": self._nowhere(request.path)}, 404)
            if request.method not in ("GET", "HEAD") and request.content_type != "application/json":
                return answer({"error": "changes need `content-type: application/json`"}, 415)
        try:
            return await handler(request)
        except web.HTTPException as error:
            return answer({"error": error.reason}, error.status)

    def _nowhere(self, path: str) -> str:
        """Whoever calls a model here has taken this listener for the other."""
        settings = self._reloader.settings
        prefixes = ["/v1", *(route.prefix for route in settings.routes)]
        if any(path.startswith(f"{prefix.rstrip('/')}/") for prefix in prefixes if prefix != "/"):
            return f"this is the admin listener: callers use {settings.listen[0].address}"
        return "the admin API has no such path"

    def _holder(self, request: web.Request) -> str | None:
        """Whose token it came with, by its name; None where one is needed and is not there."""
        if not self._tokens:
            return "anyone"
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        digest = sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        return self._tokens.get(digest) if scheme.lower() == "bearer" else None

    async def _livez(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self._ready() else web.Response(text="draining\n", status=503)

    async def _metrics_page(self, request: web.Request) -> web.Response:
        await self._refresh()
        body, content_type = self._metrics.render(request.headers.get("accept", ""))
        return web.Response(body=body, headers={"content-type": content_type})

    async def _status(self, request: web.Request) -> web.StreamResponse:
        try:
            window_s = min(parse_wait(request.query.get("window", DEFAULT_WINDOW)), LONGEST_S)
        except ValueError as error:
            return answer({"error": f"window: {error}"}, 400)
        if is_wanted(request):
            return await send(request, self._feed.follow(window_s))
        await self._refresh()
        return answer(self.status(window_s))

    def status(self, window_s: float) -> Status:
        last = self._reloader.last
        return self._reporter.status(
            window_s, ready=self._ready(), last_reload=None if last is None else _outcome(last)
        )

    async def _config(self, request: web.Request) -> web.Response:
        return answer(effective(self._reloader.settings))

    async def _audit(self, request: web.Request) -> web.Response:
        last = request.query.get("last", "20")
        if not last.isdecimal() or int(last) > MOST_AUDITED:
            return answer({"error": f"last: {last!r} is no number up to {MOST_AUDITED}"}, 400)
        return answer(await self._recorder.audited(int(last)))

    async def _reload(self, request: web.Request) -> web.Response:
        result = await self._reloader.reload()
        await self._recorder.done("configuration_reloaded", request[HOLDER], request.remote or "", audited(result))
        return answer(_outcome(result), 200 if isinstance(result, Applied) else 422)


def _outcome(result: Outcome) -> dict[str, Any]:
    return {"result": "applied" if isinstance(result, Applied) else "rejected", **asdict(result)}


async def _for_no_other_page(request: web.Request, response: web.StreamResponse) -> None:
    """An answer is what it says it is, and no page of another origin may have it loaded, not as an image or script."""
    response.headers.setdefault("x-content-type-options", "nosniff")
    response.headers.setdefault("cross-origin-resource-policy", "same-origin")


def _is_local_name(host: str) -> bool:
    """Is this Host header a name that only this machine goes by? Another one may be a web page's, rebound to us."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
