"""The status page: files of this package, which a browser gets at `/` without a token, for they hold nothing.

What the page shows it asks the admin API for, with the token that its reader types. It may load nothing from elsewhere,
run no script that is not one of these files, send nothing elsewhere, and stand in no other page's frame.
"""

from hashlib import sha256
from importlib.resources import files

from aiohttp import web

PLACE = "/page/"
_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # to be asked for by its ETag: after an upgrade no half is of the version before
}


class AdminPage:
    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}
        for file in (files("proxy.controlplane") / "page").iterdir():
            kind = _KINDS.get(file.name.rpartition(".")[2])
            if kind is not None:
                content = file.read_bytes()
                self._files[file.name] = content, kind, sha256(content).hexdigest()[:16]

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/", self._index), web.get(PLACE + "{name}", self._file)]

    async def _index(self, request: web.Request) -> web.Response:
        return self._answer(request, "index.html")

    async def _file(self, request: web.Request) -> web.Response:
        return self._answer(request, request.match_info["name"])

    def _answer(self, request: web.Request, name: str) -> web.Response:
        if name not in self._files:
            raise web.HTTPNotFound
        content, kind, tag = self._files[name]
        headers = _HEADERS | {"content-type": kind, "etag": f'"{tag}"'}
        if any(each.value == tag for each in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, headers=headers)


def is_of_the_page(path: str) -> bool:
    """Whether it may be had without a token."""
    return path == "/" or path.startswith(PLACE)
