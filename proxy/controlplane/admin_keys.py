"""The admin API's part about keys: how they fare, rotate one, revoke one."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus
from typing import TypeVar

import msgspec
from aiohttp import web

from proxy.controlplane.key_status import key_statuses
from proxy.controlplane.keyring import KeyNotFound, Keyring, Ring, ValueRefused
from proxy.controlplane.recorder import Recorder
from proxy.model.headers import carries
from proxy.model.secret import Secret
from proxy.state.live import KeyLive

T = TypeVar("T", bound=msgspec.Struct)
NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what decoding raises of what a caller sends
LOOK_S = 0.05
WAIT_S = 7.0  # for a probe to begin and to end
HOLDER = web.RequestKey("holder", str)  # the name of the token that a request came with
_STATUS = {"validating": 202, "overlapping": 200, "rotated": 200}
_NO_MASTER_KEY = "without a master key the value cannot be kept across restarts: set master_keys, or say until_restart"


class _Rotate(msgspec.Struct, forbid_unknown_fields=True):
    value: str
    until_restart: bool = False


class _Revoke(msgspec.Struct, forbid_unknown_fields=True):
    fingerprint: str = ""  # none: the value in force
    now: bool = False  # end what holds it, too


class AdminKeys:
    def __init__(
        self,
        keyring: Keyring,
        recorder: Recorder,
        clock: Callable[[], float],
        cut: Callable[[Collection[KeyLive]], Awaitable[int]],
    ) -> None:
        """`cut` ends the requests that hold one of these values, and says how many."""
        self._keyring, self._recorder, self._clock, self._cut = keyring, recorder, clock, cut

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/keys", self._list),
            web.post("/keys/{upstream}/{key}/rotate", self._rotate),
            web.post("/keys/{upstream}/{key}/revoke", self._revoke),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        return answer({"keys": list(key_statuses(self._keyring, self._clock()))})

    async def _rotate(self, request: web.Request) -> web.Response:
        wanted = await body(request, _Rotate)
        if not wanted.value or not carries(wanted.value):
            raise refused(HTTPStatus.BAD_REQUEST, "the value is empty, or no header can carry it")
        if not wanted.until_restart and self._recorder.keys.vault is None:
            raise refused(HTTPStatus.CONFLICT, _NO_MASTER_KEY)
        secret, holder = Secret(wanted.value), request[HOLDER]
        try:
            ring = self._keyring.rotate(*_place(request), secret, holder, kept=not wanted.until_restart)
        except KeyNotFound as error:
            raise refused(HTTPStatus.NOT_FOUND, str(error)) from None
        except ValueRefused as error:
            raise refused(HTTPStatus.CONFLICT, str(error)) from None
        about = {"key": "/".join(_place(request)), "fingerprint": secret.fingerprint}
        await self._recorder.done("key_rotation_asked", holder, request.remote or "", about)
        return await self._how_it_goes(ring, secret)

    async def _how_it_goes(self, ring: Ring, secret: Secret) -> web.Response:
        """As soon as it is known whether the upstream accepts the value."""
        until_s = self._clock() + WAIT_S
        while (last := ring.last) is not None and last.fingerprint == secret.fingerprint:
            if last.result != "validating" or self._clock() >= until_s:
                break
            await asyncio.sleep(LOOK_S)
        if last is None or last.fingerprint != secret.fingerprint:
            raise refused(HTTPStatus.CONFLICT, "another value came meanwhile")
        result = {"result": last.result, "fingerprint": last.fingerprint, "said": last.said}
        return answer(result, _STATUS.get(last.result, HTTPStatus.UNPROCESSABLE_ENTITY))

    async def _revoke(self, request: web.Request) -> web.Response:
        wanted = await body(request, _Revoke)
        try:
            hit = self._keyring.revoke(*_place(request), request[HOLDER], wanted.fingerprint)
        except KeyNotFound as error:
            raise refused(HTTPStatus.NOT_FOUND, str(error)) from None
        cut = await self._cut(hit) if wanted.now else 0
        about = {"key": "/".join(_place(request)), "fingerprint": wanted.fingerprint or "in force", "cut": str(cut)}
        kept = self._recorder.save(self._keyring)
        audited = self._recorder.done("key_revocation_asked", request[HOLDER], request.remote or "", about)
        not_kept, _ = await kept, await audited
        return answer({"result": "revoked", "cut": cut, "not_kept": not_kept})


def _place(request: web.Request) -> tuple[str, str]:
    return request.match_info["upstream"], request.match_info["key"]


async def body(request: web.Request, kind: type[T]) -> T:
    """Nothing of it is quoted: it may hold a secret."""
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=kind)
    except NO_JSON as error:
        fields = ", ".join(field.name for field in msgspec.structs.fields(kind))
        # What msgspec says of types quotes nothing; all else it says may.
        wrong = f" ({str(error)[:1].lower()}{str(error)[1:]})" if str(error).startswith("Expected ") else ""
        raise refused(HTTPStatus.BAD_REQUEST, f"send one JSON object with: {fields}{wrong}") from None


def answer(content: object, status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), status=status, content_type="application/json")


def refused(status: int, why: str) -> web.HTTPException:
    """To be raised. A line break in it may be of a name that the caller sent: aiohttp takes none."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in why)
    error = web.HTTPException(reason=shown)
    error.set_status(status, shown)
    return error
