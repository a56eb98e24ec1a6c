"""A call to try: the admin listener hands it to the proxy's own public listener and the answer back, as it comes.

The status page is of the admin listener's origin, and a browser lets it call no other; to open the public listener to
it would open that to a web page. So the page posts the call here. Where it goes is never in the request: the address
is the one where callers are served, over loopback where that is listened on, and the path is one of those that the
routes in force make. It is a call like any other from there on, with a client's key, limits and a line in the log.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp import web

from proxy import __version__
from proxy.controlplane.admin_keys import answer, body, refused
from proxy.model.headers import carries
from proxy.model.settings import Route, Settings

MOST = 100  # calls at once
CONNECT_S = 5.0  # until there is a connection, TLS and the wait for one of those included
READS_S = 30.0  # who reads nothing for so long is not answered any more
RELAYED = "x-serinus-playground"  # tells the proxy's answer, a refusal too, from one of the admin API's own
_SHOWN = ("retry-after", "x-request-id", "x-serinus-", "x-ratelimit-", "anthropic-ratelimit-")
_KINDS = ("text/event-stream", "application/json")
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where one listens on all addresses, one is called on this


@dataclass(frozen=True, slots=True)
class Own:
    """A listener of ours: `fingerprint` of the certificate that it shows, if it shows one."""

    host: str
    port: int
    fingerprint: bytes | None = None
    wants_certificate: bool = False

    @property
    def origin(self) -> str:
        host = _ANY.get(self.host, self.host)
        shown = f"[{host}]" if ":" in host else host
        return f"http{'' if self.fingerprint is None else 's'}://{shown}:{self.port}"


class Place(msgspec.Struct, frozen=True):
    """What can be called."""

    path: str
    dialect: str  # chat, as OpenAI has it; messages, as Anthropic has it
    models: str  # the path of the list of models


class _Call(msgspec.Struct, forbid_unknown_fields=True):
    path: str
    body: msgspec.Raw = msgspec.Raw()  # none: it is a GET
    client_key: str = ""


class Playground:
    def __init__(self, listeners: Callable[[], Iterable[Own]], settings: Callable[[], Settings]) -> None:
        """`listeners`: where callers are served. `settings`: those in force."""
        self._listeners, self._settings = listeners, settings
        self._session: aiohttp.ClientSession | None = None

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/playground", self._places), web.post("/playground", self._call)]

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _places(self, request: web.Request) -> web.Response:
        settings = self._settings()
        return answer({"places": list(places(settings)), "clients": bool(settings.clients)})

    async def _call(self, request: web.Request) -> web.StreamResponse:
        wanted = await body(request, _Call)
        place = next((each for each in places(self._settings()) if wanted.path in (each.path, each.models)), None)
        if place is None:
            raise refused(HTTPStatus.BAD_REQUEST, "path: none that the routes in force make; GET /playground has them")
        if not carries(wanted.client_key):
            raise refused(HTTPStatus.BAD_REQUEST, "client_key: no header can carry it")
        listener = self._own_listener()
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MOST),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        try:
            async with self._session.request(
                "POST" if wanted.body else "GET",
                listener.origin + wanted.path,
                data=bytes(wanted.body) or None,
                headers=_headers(place, wanted.client_key),
                ssl=True if listener.fingerprint is None else aiohttp.Fingerprint(listener.fingerprint),
                allow_redirects=False,
            ) as called:
                return await _relayed(request, called)
        except (aiohttp.ServerFingerprintMismatch, ssl.SSLError):
            raise refused(HTTPStatus.BAD_GATEWAY, "the listener shows another certificate: try again") from None
        except aiohttp.ClientError as error:
            raise refused(
                HTTPStatus.BAD_GATEWAY, f"the proxy did not answer on {listener.origin}: {type(error).__name__}"
            ) from None

    def _own_listener(self) -> Own:
        """One that a call can be made to, without TLS before others."""
        usable = [each for each in self._listeners() if not each.wants_certificate]
        if not usable:
            raise refused(
                HTTPStatus.CONFLICT,
                "every listener wants a caller's certificate (client_ca), and the playground has none to show: "
                "add a listener on loopback without tls",
            )
        return min(usable, key=lambda each: each.fingerprint is not None)


def _headers(place: Place, client_key: str) -> dict[str, str]:
    headers = {
        "accept": "text/event-stream, application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": f"serinus-playground/{__version__}",
    }
    if place.dialect == "messages":
        headers["anthropic-version"] = "2023-06-01"
    if client_key:
        bearer = {"authorization": f"Bearer {client_key}"}
        headers |= {"x-api-key": client_key} if place.dialect == "messages" else bearer
    return headers


async def _relayed(request: web.Request, called: aiohttp.ClientResponse) -> web.StreamResponse:
    """Of its fields only those that are shown; and nothing that a browser would take for a page."""
    kind = called.content_type if called.content_type in _KINDS else "text/plain"
    shown = {name: value for name, value in called.headers.items() if name.lower().startswith(_SHOWN)}
    fixed = {"cache-control": "no-store", "x-content-type-options": "nosniff", RELAYED: "relayed"}
    relayed = web.StreamResponse(status=called.status, headers=shown | fixed | {"content-type": kind})
    await relayed.prepare(request)
    try:
        async for block in called.content.iter_any():
            async with asyncio.timeout(READS_S):
                await relayed.write(block)
    except (aiohttp.ClientError, ConnectionError, TimeoutError):
        if request.transport is not None:
            request.transport.abort()  # what was cut is cut for the page, too
    return relayed


def places(settings: Settings) -> Iterator[Place]:
    """As the SDKs would call each route's prefix. A pool of Anthropic's is called in its own words only."""
    return iter(sorted(_places(settings), key=lambda place: place.dialect))  # chat comes first


def _places(settings: Settings) -> Iterator[Place]:
    seen: set[str] = set()
    for route in settings.routes:
        if route.prefix in seen:
            continue
        seen.add(route.prefix)
        base, is_anthropic = _base(route, settings)
        if not is_anthropic:
            yield Place(f"{base}/chat/completions", "chat", f"{base}/models")
        yield Place(f"{base}/messages", "messages", f"{base}/models")


def _base(route: Route, settings: Settings) -> tuple[str, bool]:
    """What stands before `/messages`: with `/v1` where neither the prefix nor the upstream's base_url has it."""
    upstream = settings.upstreams[settings.pools[route.pool].members[0].upstream]
    url, prefix = str(upstream.base_url), route.prefix.rstrip("/")
    versioned = prefix.endswith("/v1") or urlsplit(url).path.rstrip("/").endswith("/v1")
    return prefix if versioned else f"{prefix}/v1", any("anthropic" in each for each in (url, prefix))
