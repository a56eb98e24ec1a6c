"""The admin API's part about canaries: the numbers behind each decision, an operator's own, and the log of all."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from proxy.controlplane.admin_keys import HOLDER, answer, refused
from proxy.controlplane.canaries import Canaries, CanaryNotFound
from proxy.controlplane.canary_status import COMMANDS, canary_status, change_to_make, in_percent, percent, possible
from proxy.controlplane.decisions import KEPT, Decision, Decisions
from proxy.controlplane.recorder import Recorder
from proxy.controlplane.webhooks import Webhooks
from proxy.model.settings import Settings
from proxy.policy.canary import CanaryEvent, IllegalTransition, Rollout, State
from proxy.state.live import Registry

DEFAULT_EVENTS = "20"
KEEP_ALIVE_S = 15.0  # shorter than what sits between a follower and us will wait
READS_S = 30.0  # who reads nothing for so long follows no more
REASON_MOST = 500  # characters: it goes into a line of the audit log


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    reason: str = ""
    full: bool | None = None  # of promote alone


class _Weight(msgspec.Struct, forbid_unknown_fields=True):
    weight: float
    reason: str = ""


class AdminCanaries:
    def __init__(
        self,
        canaries: Canaries,
        recorder: Recorder,
        decisions: Decisions,
        webhooks: Webhooks,
        registry: Registry,
        settings: Callable[[], Settings],
    ) -> None:
        """`settings`: those in force."""
        self._canaries, self._recorder, self._decisions = canaries, recorder, decisions
        self._webhooks, self._registry, self._settings = webhooks, registry, settings

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/canaries", self._list),
            web.get("/canaries/{name}", self._show),
            web.post("/canaries/{name}/{command}", self._command),
            web.put("/canaries/{name}/weight", self._weight),
            web.get("/events", self._events),
        ]

    def close(self) -> None:
        """Let those go who follow the log."""
        self._decisions.close()

    # --- how they fare -------------------------------------------------------------------------------------------

    async def _list(self, request: web.Request) -> web.Response:
        return answer({"canaries": {name: canary_status(one) for name, one in self._canaries.rollouts.items()}})

    async def _show(self, request: web.Request) -> web.Response:
        name, rollout = self._found(request)
        live, spec = self._registry.canary(name), rollout.spec
        more: dict[str, Any] = {
            "mode": spec.mode,
            "commands": possible(rollout),
            "change": change_to_make(rollout, name, self._settings()),
            "webhooks": self._webhooks.status(name),
        }
        if spec.mode == "shadow":
            more["copies"] = {"open": live.copies, "sent": live.copies_sent, "failed": live.copies_failed}
        return answer({"name": name} | in_percent(rollout.explain()) | more)

    def _found(self, request: web.Request) -> tuple[str, Rollout]:
        name = request.match_info["name"]
        try:
            return name, self._canaries.find(name)
        except CanaryNotFound as error:
            raise refused(HTTPStatus.NOT_FOUND, str(error)) from None

    # --- what an operator wants of them --------------------------------------------------------------------------

    async def _command(self, request: web.Request) -> web.Response:
        command = request.match_info["command"]
        if command not in COMMANDS or command == "weight":
            there = ", ".join(each for each in COMMANDS if each != "weight")
            raise refused(HTTPStatus.NOT_FOUND, f"POST one of {there}; or PUT weight")
        wanted = await _body(request, _Wanted, "reason, and full for promote")
        if wanted.full is not None and command != "promote":
            raise refused(HTTPStatus.BAD_REQUEST, "full is for promote: leave it out")
        options: dict[str, Any] = {} if wanted.full is None else {"full": wanted.full}
        return await self._done(request, command, wanted.reason, options)

    async def _weight(self, request: web.Request) -> web.Response:
        wanted = await _body(request, _Weight, "weight, in percent, and reason")
        return await self._done(request, "weight", wanted.reason, {"weight": wanted.weight})

    async def _done(self, request: web.Request, command: str, reason: str, options: dict[str, Any]) -> web.Response:
        """It is done, kept, and written down by whom."""
        name, rollout = self._found(request)
        if len(reason) > REASON_MOST or not reason.isprintable():
            raise refused(HTTPStatus.BAD_REQUEST, f"reason: write one line, {REASON_MOST} characters at most")
        given = options | ({"reason": reason} if reason else {})
        events = self._commanded(name, rollout, command, request[HOLDER], given)
        not_kept = await self._recorder.save_canaries(self._canaries.kept)
        said = [event.text for event in events]
        about = {"canary": name, "said": "; ".join(said)} | {key: str(value) for key, value in given.items()}
        await self._recorder.done(f"canary_{command}", request[HOLDER], request.remote or "", about)
        state, weight = rollout.state.value, percent(rollout.weight)
        return answer({"name": name, "state": state, "weight": weight, "said": said, "not_kept": not_kept})

    def _commanded(
        self, name: str, rollout: Rollout, command: str, holder: str, options: dict[str, Any]
    ) -> list[CanaryEvent]:
        try:
            return self._canaries.command(name, command, holder, **options)
        except IllegalTransition as error:
            may = possible(rollout)
            why = str(error) if command in may else f"it is {rollout.state.value}, no time for {command}"
            later = "nothing; once it has failed, retry" if rollout.state is State.ROLLING_BACK else "nothing"
            message = f"{name}: {why}. Possible now: {', '.join(may) or later}"
            raise refused(HTTPStatus.CONFLICT, message) from None
        except ValueError as error:
            raise refused(HTTPStatus.BAD_REQUEST, str(error)) from None

    # --- the log -------------------------------------------------------------------------------------------------

    async def _events(self, request: web.Request) -> web.StreamResponse:
        last = request.query.get("last", DEFAULT_EVENTS)
        if not last.isdecimal() or int(last) > KEPT:
            raise refused(HTTPStatus.BAD_REQUEST, f"last: write a number up to {KEPT}")
        if "text/event-stream" in request.headers.get("accept", ""):
            return await self._follow(request, int(last))
        return answer({"events": self._decisions.last(int(last))})

    async def _follow(self, request: web.Request, last: int) -> web.StreamResponse:
        """Server-sent events: the last ones, or those after `last-event-id`, then each as it comes."""
        stream = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-store"})
        seen = request.headers.get("last-event-id", "")
        with self._decisions.followed() as follower:
            known = self._decisions.after(int(seen)) if seen.isdecimal() else self._decisions.last(last)
            await stream.prepare(request)
            try:
                await _written(stream, b"".join(map(_event, known)) or b": nothing yet\n\n")
                while True:
                    try:
                        decision = await asyncio.wait_for(follower.next(), KEEP_ALIVE_S)
                    except TimeoutError:
                        await _written(stream, b": still here\n\n")
                        continue
                    if decision is None:
                        break
                    await _written(stream, _event(decision))
            except ConnectionError:
                pass  # it left
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()  # it reads nothing, so nothing can be ended
        return stream


def _event(decision: Decision) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (decision.number, decision.type.encode(), msgspec.json.encode(decision))


async def _written(stream: web.StreamResponse, text: bytes) -> None:
    async with asyncio.timeout(READS_S):
        await stream.write(text)


async def _body(request: web.Request, kind: type[Any], fields: str) -> Any:
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=kind)
    except msgspec.DecodeError:
        raise refused(HTTPStatus.BAD_REQUEST, f"send one JSON object with: {fields}") from None
