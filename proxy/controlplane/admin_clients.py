"""The admin API's part about clients: who they are, issue a key, let one expire, revoke them."""

from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus
from typing import Annotated

import msgspec
from aiohttp import web

from proxy.controlplane.admin_keys import HOLDER, answer, body, refused
from proxy.controlplane.client_status import client_statuses
from proxy.controlplane.clients import ClientNotFound, ClientRefused, Clients, digest_in
from proxy.controlplane.recorder import Recorder
from proxy.model.client_keys import NEEDED_BYTES
from proxy.model.limit_settings import ClientLimits
from proxy.model.quantities import moment_text, parse_name, parse_until
from proxy.state.live import Registry

_Most = Annotated[int, msgspec.Meta(ge=1)]
_Glob = Annotated[str, msgspec.Meta(min_length=1)]


class _Limits(msgspec.Struct, forbid_unknown_fields=True):
    requests_per_minute: _Most | None = None
    tokens_per_minute: _Most | None = None
    concurrent: _Most | None = None


class _Issue(msgspec.Struct, forbid_unknown_fields=True):
    expires: str | None = None
    models: Annotated[list[_Glob], msgspec.Meta(min_length=1)] | None = None  # these two for a client that is new
    limits: _Limits | None = None


class _Expire(msgspec.Struct, forbid_unknown_fields=True):
    fingerprint: str
    expires: str


class _Revoke(msgspec.Struct, forbid_unknown_fields=True):
    fingerprint: str | None = None  # none: all of the client's keys
    now: bool = False  # end what came with them, too


class AdminClients:
    def __init__(
        self,
        clients: Clients,
        registry: Registry,
        recorder: Recorder,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        cut: Callable[[Collection[bytes]], Awaitable[int]],
    ) -> None:
        """`cut` ends the requests that came with a key of these digests, and says how many."""
        self._clients, self._registry, self._recorder = clients, registry, recorder
        self._clock, self._wall_clock, self._random_bytes, self._cut = clock, wall_clock, random_bytes, cut

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/clients", self._list),
            web.post("/clients/{name}/keys", self._issue),
            web.post("/clients/{name}/expire", self._expire),
            web.post("/clients/{name}/revoke", self._revoke),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        found = client_statuses(self._clients, self._registry, self._clock(), self._wall_clock())
        return answer({"clients": list(found)})

    async def _issue(self, request: web.Request) -> web.Response:
        wanted, name = await body(request, _Issue), _name(request)
        ends_s = None if wanted.expires is None else self._moment(wanted.expires)
        limits = None if wanted.limits is None else ClientLimits(**msgspec.structs.asdict(wanted.limits))
        try:
            text, key = self._clients.issue(
                name,
                self._random_bytes(NEEDED_BYTES),
                request[HOLDER],
                ends_s=ends_s,
                models=wanted.models,
                limits=limits,
            )
        except ClientRefused as error:
            raise refused(HTTPStatus.CONFLICT, str(error)) from None
        about = {"client": name, "fingerprint": key.fingerprint}
        shown = about | {"key_hash": key.key_hash, "expires": _expires(key.ends_s)}
        kept = await self._kept(request, "client_key_issued", about | {"expires": _expires(key.ends_s) or "never"})
        return answer({"key": text, **shown, **kept}, HTTPStatus.CREATED)

    async def _expire(self, request: web.Request) -> web.Response:
        wanted, name = await body(request, _Expire), _name(request)
        if not wanted.fingerprint:
            raise refused(HTTPStatus.BAD_REQUEST, "say which key by its fingerprint: GET /clients shows them")
        try:
            key = self._clients.expire(name, wanted.fingerprint, self._moment(wanted.expires))
        except ClientNotFound as error:
            raise refused(HTTPStatus.NOT_FOUND, str(error)) from None
        except ClientRefused as error:
            raise refused(HTTPStatus.CONFLICT, str(error)) from None
        shown = {"client": name, "fingerprint": key.fingerprint, "expires": _expires(key.ends_s) or "never"}
        return answer(shown | await self._kept(request, "client_key_expires", shown))

    async def _revoke(self, request: web.Request) -> web.Response:
        wanted, name = await body(request, _Revoke), _name(request)
        if wanted.fingerprint == "":
            raise refused(HTTPStatus.BAD_REQUEST, "the fingerprint is empty: leave it out to revoke all keys")
        try:
            keys = self._clients.revoke(name, wanted.fingerprint or "")
        except ClientNotFound as error:
            raise refused(HTTPStatus.NOT_FOUND, str(error)) from None
        fingerprints = [key.fingerprint for key in keys]
        cut = await self._cut(frozenset(digest_in(key.key_hash) for key in keys)) if wanted.now else 0
        about = {"client": name, "fingerprints": " ".join(fingerprints), "cut": str(cut)}
        kept = await self._kept(request, "client_keys_revoked", about)
        return answer({"client": name, "revoked": fingerprints, "cut": cut, **kept})

    def _moment(self, text: str) -> float:
        try:
            return parse_until(text, self._wall_clock())
        except ValueError as error:
            raise refused(HTTPStatus.BAD_REQUEST, f"expires: {error}") from None

    async def _kept(self, request: web.Request, what: str, about: dict[str, str]) -> dict[str, str]:
        """Keep it and write it down. Says why the one or the other could not be; it is in force all the same."""
        kept = self._recorder.save_clients(self._clients.issued())
        audited = self._recorder.done(what, request[HOLDER], request.remote or "", about)
        return {"not_kept": await kept, "not_audited": await audited}


def _name(request: web.Request) -> str:
    try:
        return parse_name(request.match_info["name"])
    except ValueError as error:
        raise refused(HTTPStatus.BAD_REQUEST, f"the client's name: {error}") from None


def _expires(ends_s: float | None) -> str | None:
    return None if ends_s is None else moment_text(ends_s)
