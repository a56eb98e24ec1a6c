"""The server: routes, admission, counters, and a life that can be ended and begun again on the same address.

A request is in flight from its head until its answer is made. A caller that goes away cancels its handler at
once: that is what a proxy under test has to bring about, so it is counted apart. Stopping drops every connection, as a
machine that dies does, rather than letting answers end.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from aiohttp import web

from proxy.simulation import audio, chat, embeddings, files, messages, models, responses
from proxy.simulation.behaviour import Behaviour
from proxy.simulation.call import Call, Endpoint
from proxy.simulation.errors import ApiError, CutShort, Dialect, error_response
from proxy.simulation.memory import Memory
from proxy.simulation.pace import Clock, Pace, Sleep

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES = 512 << 20  # OpenAI's own limit for a file
_SEEN_REQUESTS = 64
_SHUTDOWN_S = 1.0  # for handlers that are cancelled already
_ID_BITS = 96
_EPOCH_S = 1_700_000_000.0

_ROUTES: tuple[tuple[str, str, Endpoint], ...] = (
    ("POST", "/v1/chat/completions", chat.chat_completions),
    ("POST", "/v1/responses", responses.create_response),
    ("GET", "/v1/responses/{id}", responses.get_response),
    ("DELETE", "/v1/responses/{id}", responses.delete_response),
    ("POST", "/v1/embeddings", embeddings.embeddings),
    ("GET", "/v1/models", models.list_models),
    ("GET", "/v1/models/{id:.+}", models.get_model),
    ("POST", "/v1/files", files.create_file),
    ("GET", "/v1/files", files.list_files),
    ("GET", "/v1/files/{id}", files.get_file),
    ("DELETE", "/v1/files/{id}", files.delete_file),
    ("GET", "/v1/files/{id}/content", files.get_file_content),
    ("POST", "/v1/audio/speech", audio.speech),
    ("POST", "/v1/audio/transcriptions", audio.transcriptions),
    ("POST", "/v1/messages", messages.messages),
    ("POST", "/v1/messages/count_tokens", messages.count_message_tokens),
)


@dataclass(slots=True)
class Seen:
    """A request as it came; `body` once it has come, and empty for forms."""

    method: str
    path_qs: str
    headers: Mapping[str, str]
    body: bytes = b""


_ID = web.RequestKey("id", str)
_SEEN = web.RequestKey("seen", Seen)


class SimulatedUpstream:
    def __init__(
        self,
        behaviour: Behaviour,
        rng: random.Random,
        *,
        sleep: Sleep = asyncio.sleep,
        clock: Clock = time.perf_counter,  # that `sleep` goes by
        wall_clock: Callable[[], float] = lambda: _EPOCH_S,
    ) -> None:
        self.behaviour = behaviour
        self.requests = 0
        self.cancelled = 0  # whose caller left, or whose connection `stop` dropped, before the end
        self.seen: deque[Seen] = deque(maxlen=_SEEN_REQUESTS)
        self._rng = rng
        # Two upstreams of one seed must not make the same ids: what one remembers, the other must not know.
        self._ids = random.Random(f"{behaviour.name}/{rng.getrandbits(64)}")  # noqa: S311 - ids, not secrets
        self._sleep, self._clock = sleep, clock
        self._wall_clock = wall_clock
        self._memory = Memory()
        self._inflight: dict[str, web.Request] = {}
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._address: tuple[str, int] | None = None

    @property
    def inflight(self) -> int:
        return len(self._inflight)

    @property
    def last_headers(self) -> Mapping[str, str]:
        return self.seen[-1].headers

    @property
    def url(self) -> str:
        """Scheme, host and port; an SDK of OpenAI's wants `/v1` after it, one of Anthropic's does not."""
        if self._address is None:
            raise RuntimeError("the upstream has not been started")
        host, port = self._address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._serve], client_max_size=MAX_BODY_BYTES)
        app.on_response_prepare.append(self._sign)
        for method, path, endpoint in _ROUTES:
            app.router.add_route(method, path, self._handler(endpoint))
        return app

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> Self:
        """Listens; port 0 is any free one at first, and after a stop the one it had."""
        if self._runner is not None:
            raise RuntimeError("the upstream is running")
        if port == 0 and self._address is not None:
            host, port = self._address
        runner = web.AppRunner(
            self.app(), handler_cancellation=True, access_log=None, shutdown_timeout=_SHUTDOWN_S, keepalive_timeout=75.0
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self._address = (host, runner.addresses[0][1])
        return self

    async def stop(self) -> None:
        """Drops every connection, whatever it is in the middle of; memory and counters stay."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for site in list(runner.sites):
            await site.stop()
        for request in list(self._inflight.values()):
            if request.transport is not None:
                request.transport.abort()
        await self.until(lambda: not self._inflight)
        await runner.cleanup()

    async def __aenter__(self) -> Self:
        return self if self._runner is not None else await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for a condition on the counters, looking again whenever one changes."""
        while not condition():
            await self._changed.wait()

    def _count(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @web.middleware
    async def _serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        seen = Seen(request.method, request.path_qs, request.headers)
        request[_SEEN] = seen
        request[_ID] = self._new_id("req_")
        self.seen.append(seen)
        self.requests += 1
        self._inflight[request[_ID]] = request
        self._count()
        try:
            return await self._answer(request, handler)
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled += 1
            raise asyncio.CancelledError from None  # nobody is left to answer, and nothing went wrong here
        finally:
            del self._inflight[request[_ID]]
            self._count()

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check_key(request)
            self._throw_dice()
            return await handler(request)
        except CutShort as cut:
            if request.transport is not None:
                request.transport.close()  # and not abort(), which would lose what was written
            return cut.response
        except web.HTTPException as error:
            answer = ApiError(error.status, f"{error.reason}: {request.method} {request.path}")
        except ApiError as error:
            answer = error
        return error_response(answer, _dialect(request), request[_ID])

    def _check_key(self, request: web.Request) -> None:
        expected = self.behaviour.api_key
        if expected is None:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = [request.headers.get("x-api-key"), request.headers.get("api-key")]
        if scheme.lower() == "bearer":
            given.append(token)
        if expected not in given:
            wrong = any(given)
            raise ApiError(401, "Incorrect API key provided." if wrong else "You didn't provide an API key.")

    def _throw_dice(self) -> None:
        if self._rng.random() < self.behaviour.error_rate:
            raise ApiError(self.behaviour.error_status, "The simulated upstream failed, as its error rate has it")

    def _handler(self, endpoint: Endpoint) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if request.content_type != "multipart/form-data":  # which its endpoint reads part by part
                request[_SEEN].body = await request.read()
            behaviour = self.behaviour
            pace = Pace(behaviour, self._rng, self._sleep, self._clock)
            return await endpoint(Call(request, behaviour, pace, self._memory, self._new_id, int(self._wall_clock())))

        return handle

    async def _sign(self, request: web.Request, response: web.StreamResponse) -> None:
        header = "x-request-id" if _dialect(request) is Dialect.OPENAI else "request-id"
        response.headers[header] = request[_ID]
        response.headers["x-simulated-upstream"] = self.behaviour.name

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}{self._ids.getrandbits(_ID_BITS):024x}"


def _dialect(request: web.Request) -> Dialect:
    # At the one address that both vendors have, only Anthropic's callers send its version.
    if request.path.startswith("/v1/messages") or "anthropic-version" in request.headers:
        return Dialect.ANTHROPIC
    return Dialect.OPENAI
