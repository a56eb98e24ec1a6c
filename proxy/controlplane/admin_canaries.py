"""The admin API's part about canaries: the numbers behind each decision, an operator's own, and the log of all."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from proxy.controlplane.admin_keys import HOLDER, NO_JSON, answer, refused
from proxy.controlplane.canaries import Canaries, CanaryNotFound
from proxy.controlplane.canary_status import COMMANDS, canary_status, change_to_make, in_percent, percent, possible
from proxy.controlplane.decisions import KEPT, Decision, Decisions
from proxy.controlplane.event_stream import STILL_HERE, event, is_wanted, send
from proxy.controlplane.recorder import Recorder
from proxy.controlplane.webhooks import Webhooks
from proxy.model.settings import Settings
from proxy.policy.canary import CanaryEvent, IllegalTransition, Rollout, State
from proxy.state.live import Registry

DEFAULT_EVENTS = "20"
KEEP_ALIVE_S = 15.0  # shorter than what sits between a follower and us will wait
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
        self._canaries, self._recorder, self.decisions = canaries, recorder, decisions
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
        self.decisions.close()

    # --- how they fare -------------------------------------------------------------------------------------------

    async def _list(self, request: web.Request) -> web.Response:
        rollouts, now_s = self._canaries.rollouts, self._canaries.clock()
        return answer({"canaries": {name: canary_status(one, now_s) for name, one in rollouts.items()}})

    async def _show(self, request: web.Request) -> web.Response:
        name, rollout = self._found(request)
        shown = self.shown(name, rollout, self._canaries.clock())
        return answer(shown | {"history": self._canaries.history(name)})

    def all_shown(self) -> dict[str, dict[str, Any]]:
        """As of their last looks: whoever follows is told again where there is news, and growing older is none."""
        return {name: self.shown(name, rollout) for name, rollout in self._canaries.rollouts.items()}

    def shown(self, name: str, rollout: Rollout, now_s: float | None = None) -> dict[str, Any]:
        live, spec = self._registry.canary(name), rollout.spec
        more: dict[str, Any] = {
            "mode": spec.mode,
            "commands": possible(rollout),
            "change": change_to_make(rollout, name, self._settings()),
            "webhooks": self._webhooks.status(name),
        }
        if spec.mode == "shadow":
            more["copies"] = {"open": live.copies, "sent": live.copies_sent, "failed": live.copies_failed}
        explained: dict[str, Any] = in_percent(rollout.explain(now_s))
        return {"name": name} | explained | more

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
        if is_wanted(request):
            return await send(request, self._follow(request.headers.get("last-event-id", ""), int(last)))
        return answer({"events": self.decisions.last(int(last))})

    async def _follow(self, seen: str, last: int) -> AsyncGenerator[bytes, None]:
        """Server-sent events: the last ones, or those after `seen`, then each as it comes."""
        with self.decisions.followed() as follower:
            known = self.decisions.after(int(seen)) if seen.isdecimal() else self.decisions.last(last)
            yield b"".join(map(_event, known)) or b": nothing yet\n\n"
            while True:
                try:
                    decision = await asyncio.wait_for(follower.next(), KEEP_ALIVE_S)
                except TimeoutError:
                    yield STILL_HERE
                    continue
                if decision is None:
                    break
                yield _event(decision)


def _event(decision: Decision) -> bytes:
    return event(decision.type, decision, decision.number)


async def _body(request: web.Request, kind: type[Any], fields: str) -> Any:
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=kind)
    except NO_JSON:
        raise refused(HTTPStatus.BAD_REQUEST, f"send one JSON object with: {fields}") from None
