"""One tiny streamed call to an upstream, as an application would make it: does the key work, does the stream stream?"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import msgspec

from proxy.controlplane import asking
from proxy.controlplane.build import upstream_tls
from proxy.model.reasons import reason
from proxy.model.settings import Settings, Upstream, UpstreamKey

PROBE_TIMEOUT_S = 20.0
ANSWER_BYTES_MAX = 64 * 1024
_NOT_FOR_CHAT = ("audio", "dall-e", "embed", "image", "moderation", "realtime", "sora", "transcribe", "tts", "whisper")


@dataclass(frozen=True, slots=True)
class Probed:
    """What came back. `first_byte_s` is None where nothing did."""

    upstream: str
    key: str | None
    ok: bool
    said: str
    first_byte_s: float | None = None


async def probe_all(settings: Settings, clock: Callable[[], float]) -> list[Probed]:
    """Probe each upstream with each of its keys, one after the other; without one where callers bring their own."""
    results = []
    for name, upstream in settings.upstreams.items():
        model = _configured_model(settings, name)
        for key in upstream.keys or (None,):
            results.append(await probe(name, upstream, key, model, clock))  # noqa: PERF401 - one at a time
    return results


def _configured_model(settings: Settings, upstream: str) -> str | None:
    """A model that the configuration itself names for this upstream."""
    for pool in settings.pools.values():
        for member in pool.members:
            if member.upstream == upstream and member.model is not None:
                return member.model
    return None


async def probe(
    name: str, upstream: Upstream, key: UpstreamKey | None, model: str | None, clock: Callable[[], float]
) -> Probed:
    """Ask `upstream` for one token. Never raises for what the upstream does."""
    label = None if key is None else key.name
    try:
        # No redirects, cookies or proxies of the environment: a probe goes where a request would.
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S), cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            call = _Call(session, upstream, key)
            model = model or await call.some_model()
            if model is None:
                return Probed(
                    name, label, ok=False, said="it lists no model: name one with `model:` in a pool's member"
                )
            began_s = clock()
            status, said = await call.one_token(model)
            return Probed(name, label, status == 200, f"{status} from {model}: {said}", clock() - began_s)
    except _Refused as refused:
        return Probed(name, label, ok=False, said=str(refused))
    except TimeoutError:
        return Probed(name, label, ok=False, said=f"no answer within {PROBE_TIMEOUT_S:.0f} s")
    except (aiohttp.ClientError, OSError) as error:
        return Probed(name, label, ok=False, said=f"no connection: {reason(error)}")


class _Refused(Exception):
    """The list of models could not be had. The message is for the operator."""


class _Call:
    """Calls to one upstream under one key."""

    def __init__(self, session: aiohttp.ClientSession, upstream: Upstream, key: UpstreamKey | None) -> None:
        self._session, self._upstream = session, upstream
        self._tls: ssl.SSLContext | bool = upstream_tls(upstream) or True
        self._headers = asking.headers(upstream, None if key is None else key.value)
        self._anthropic = asking.speaks_anthropic(upstream)

    def _request(self, method: str, path: str, body: object = None) -> "aiohttp.client._RequestContextManager":
        upstream = self._upstream
        return self._session.request(
            method,
            asking.url(upstream, path),
            params=upstream.query,
            headers=self._headers,
            json=body,
            ssl=self._tls,
            server_hostname=upstream.tls.server_name,
            allow_redirects=False,
        )

    async def some_model(self) -> str | None:
        """A model from the upstream's own list that looks as if it could talk."""
        async with self._request("GET", "/models") as answer:
            body = await answer.content.read(ANSWER_BYTES_MAX)
            if answer.status != 200:
                raise _Refused(f"{answer.status} for the list of models: {_message(body)}")
            try:
                listed = [model.id for model in msgspec.json.decode(body, type=_Models).data]
            except _NO_JSON:
                return None
        return next((name for name in listed if not any(word in name for word in _NOT_FOR_CHAT)), None)

    async def one_token(self, model: str) -> tuple[int, str]:
        """The status of a streamed answer, and what it began with."""
        body = {"model": model, "max_tokens": 1, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
        async with self._request("POST", "/messages" if self._anthropic else "/chat/completions", body) as answer:
            first = await answer.content.read(4096)
            if answer.status != 200:
                return answer.status, _message(first)
            kind = answer.headers.get("content-type", "no content type").partition(";")[0]
            return 200, "it streams" if kind == "text/event-stream" else f"no event stream, but {kind}"


_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what decoding raises of what an upstream sends


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class _Error(msgspec.Struct):
    message: str = ""


class _ErrorBody(msgspec.Struct):
    error: _Error


def _message(body: bytes) -> str:
    """What a vendor's error says, in one short line, with nothing in it that moves a terminal's cursor.

    OpenAI quotes part of a wrong key, already starred out.
    """
    try:
        text = msgspec.json.decode(body, type=_ErrorBody).error.message
    except _NO_JSON:
        return "its body is no error that is known"
    return "".join(letter for letter in " ".join(text.split())[:200] if letter.isprintable())
