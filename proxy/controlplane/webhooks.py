"""Whoever wants to know what becomes of a canary is told, by a POST as https://www.standardwebhooks.com has it.

A receiver may be down, slow, or gone, and none of that is the proxy's trouble: each has a queue with an end, one call
at a time, and a message is tried six times over ten minutes. What is not told by then is counted, logged, and shown
where the canary is shown. The queue is not kept over restarts: the audit log and the rollout's own events are.

Of a receiver's URL only the host is logged and shown: many have their credential in the path.
"""

import hmac
import math
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from secrets import token_hex
from urllib.parse import urlsplit

import aiohttp
import msgspec

from proxy import __version__
from proxy.controlplane.decisions import Decision
from proxy.model.canary_settings import Webhook, signing_key
from proxy.model.reasons import reason
from proxy.model.settings import Settings
from proxy.obs.log import Log
from proxy.state.tasks import Tasks

AGAIN_S = (5.0, 15.0, 60.0, 150.0, 370.0)  # after each try but the last: ten minutes in all
TIMEOUT_S = 10.0
WAITING = 256  # for one receiver; then the oldest is given up


class HookStatus(msgspec.Struct, frozen=True):
    """How a receiver fares. `gone`: it said so (410), and is not called any more."""

    host: str
    events: tuple[str, ...]
    waiting: int
    delivered: int
    given_up: int
    last: str  # what came of the last try
    gone: bool


@dataclass(slots=True, eq=False)
class _Message:
    id: str
    type: str
    body: bytes
    due_s: float
    tries: int = 0


class Hook:
    """One receiver of one canary's events, and what waits for it."""

    def __init__(self, canary: str, settings: Webhook) -> None:
        self.canary, self.settings = canary, settings
        parts = urlsplit(settings.url)
        self.host = parts.netloc.rpartition("@")[2]
        self.key = None if settings.secret is None else signing_key(settings.secret.reveal())
        self.waiting: dict[str, _Message] = {}  # by id, the oldest first
        self.sending: _Message | None = None
        self.delivered = self.given_up = 0
        self.last = ""
        self.gone = False

    def due(self, now_s: float) -> _Message | None:
        return next((message for message in self.waiting.values() if message.due_s <= now_s), None)

    @property
    def deadline_s(self) -> float:
        if self.sending is not None:
            return math.inf
        return min((message.due_s for message in self.waiting.values()), default=math.inf)

    def status(self) -> HookStatus:
        waiting = len(self.waiting)
        return HookStatus(self.host, self.settings.events, waiting, self.delivered, self.given_up, self.last, self.gone)


def signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """Of exactly these bytes, which the receiver must not have parsed and written anew."""
    signed = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, sha256)
    return f"v1,{b64encode(signed).decode()}"


class Webhooks:
    """A watch calls it when something is due; it never waits."""

    def __init__(
        self, settings: Settings, clock: Callable[[], float], wall_clock: Callable[[], float], log: Log
    ) -> None:
        self._clock, self._wall_clock, self._log = clock, wall_clock, log
        self._hooks: dict[tuple[str, Webhook], Hook] = {}
        self._tasks = Tasks()
        self._session: aiohttp.ClientSession | None = None
        self.deadline_s = math.inf
        self.take(settings)

    def take(self, settings: Settings) -> None:
        """These are told from now on. Whoever stays keeps what waits for it."""
        wanted = [(name, hook) for name, canary in settings.canaries.items() for hook in canary.webhooks]
        self._hooks = {key: self._hooks.get(key) or Hook(*key) for key in wanted}

    def tell(self, canary: str, event: str, decision: Decision) -> None:
        """Soon, whoever asked for this event."""
        for hook in self._hooks.values():
            if hook.canary == canary and event in hook.settings.events and not hook.gone:
                content = {"type": decision.type, "timestamp": decision.timestamp, "data": decision.data}
                body = msgspec.json.encode(content)
                message = _Message(f"msg_{token_hex(12)}", decision.type, body, self._clock())
                hook.waiting[message.id] = message
                if len(hook.waiting) > WAITING:
                    self._give_up(hook, next(iter(hook.waiting.values())), "too many wait")
        self._plan()

    def status(self, canary: str) -> list[HookStatus]:
        return [hook.status() for hook in self._hooks.values() if hook.canary == canary]

    def expired(self, now_s: float) -> None:
        """Begin what is due."""
        for hook in self._hooks.values():
            if hook.sending is None and (message := hook.due(now_s)) is not None:
                hook.sending = message
                self._tasks.spawn(self._send(hook, message))
        self._plan()

    def _plan(self) -> None:
        self.deadline_s = min((hook.deadline_s for hook in self._hooks.values()), default=math.inf)

    async def _send(self, hook: Hook, message: _Message) -> None:
        message.tries += 1
        try:
            status, hook.last = await self._post(hook, message)
        finally:
            hook.sending = None
        if 200 <= status < 300:
            hook.waiting.pop(message.id, None)
            hook.delivered += 1
            self._log.debug("webhook_delivered", canary=hook.canary, host=hook.host, type=message.type)
        elif status == HTTPStatus.GONE:
            hook.gone = True
            hook.waiting.clear()
            self._log.warning("webhook_gone", canary=hook.canary, host=hook.host)
        elif message.tries > len(AGAIN_S):
            self._give_up(hook, message, hook.last)
        else:
            again_s = AGAIN_S[message.tries - 1]
            message.due_s = self._clock() + again_s
            self._log.info(
                "webhook_failed",
                canary=hook.canary,
                host=hook.host,
                type=message.type,
                said=hook.last,
                tries=message.tries,
                again_s=again_s,
            )
        self._plan()

    def _give_up(self, hook: Hook, message: _Message, why: str) -> None:
        hook.waiting.pop(message.id, None)
        hook.given_up += 1
        self._log.warning(
            "webhook_given_up", canary=hook.canary, host=hook.host, type=message.type, said=why, tries=message.tries
        )

    async def _post(self, hook: Hook, message: _Message) -> tuple[int, str]:
        """The status, and what there is to say; 0 where none came. What the receiver says besides is not read."""
        timestamp = str(int(self._wall_clock()))
        fields = {
            "content-type": "application/json",
            "user-agent": f"Serinus/{__version__}",
            "webhook-id": message.id,
            "webhook-timestamp": timestamp,
        }
        if hook.key is not None:
            fields["webhook-signature"] = signature(hook.key, message.id, timestamp, message.body)
        if self._session is None:
            limit = aiohttp.ClientTimeout(total=TIMEOUT_S)
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=limit)
        try:
            async with self._session.post(
                hook.settings.url, data=message.body, headers=fields, allow_redirects=False
            ) as answer:
                return answer.status, f"status {answer.status}"
        except TimeoutError:
            return 0, f"no answer within {TIMEOUT_S:.0f} s"
        except (aiohttp.InvalidURL, aiohttp.ClientResponseError):  # their words have the URL in them
            return 0, "no valid answer"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return 0, reason(error)

    async def close(self) -> None:
        """What was not told yet is not told any more."""
        await self._tasks.close()
        if self._session is not None:
            await self._session.close()
