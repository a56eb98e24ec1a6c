"""Makes one call and writes down when its parts came.

The connections are aiohttp's: kept alive, as many as there are calls at once. When a part came is when this process
got round to reading it, so a client without a core to itself measures itself; run.py says when that is so.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import aiohttp

from proxy import __version__
from proxy.benchmark.dialects import UNREADABLE, Dialect, Message, error_text
from proxy.benchmark.events import Events, EventTooLong
from proxy.benchmark.sample import Clock, Failure, Sample
from proxy.benchmark.target import Target
from proxy.model.reasons import reason

KEPT_S = 3600.0  # while other arms have their turn
ERROR_BYTES_MAX = 64 * 1024
SAID_MAX = 200
_OURS = {
    "user-agent": f"serinus-bench/{__version__}",
    "accept-encoding": "identity",  # compressed, several events come at once
    "content-type": "application/json",
}


class Client:
    """Asynchronous context manager; `ask` may run many times at once."""

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def __aenter__(self) -> Self:
        # No cookies, redirects or proxies of the environment: what is measured is the address that was given.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=None, keepalive_timeout=KEPT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            headers=_OURS,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(
        self, target: Target, messages: Sequence[Message], tokens: int, *, stream: bool, due_s: float
    ) -> Sample:
        """One call, for at most so many tokens. Never raises for what the target does."""
        sample = Sample(due_s, sent_s=self._clock())
        try:
            await self._ask(target, target.body(messages, tokens, stream=stream), stream, sample)
        except TimeoutError:
            sample.fail(Failure.TIMEOUT, f"no end within {self._timeout.total:g} s")
        except (aiohttp.ClientError, OSError) as error:
            unanswered = Failure.CONNECT if isinstance(error, aiohttp.ClientConnectorError) else Failure.NO_ANSWER
            sample.fail(Failure.CUT if sample.status else unanswered, reason(error))
        except (*UNREADABLE, EventTooLong) as error:
            sample.fail(Failure.UNREADABLE, str(error))
        if sample.failure is not None:
            sample.ended_s = self._clock()
            sample.said = _shown(target.without_secrets(sample.said))
        return sample

    async def _ask(self, target: Target, body: bytes, stream: bool, sample: Sample) -> None:
        async with self._session.post(
            target.url, data=body, headers=target.all_headers, allow_redirects=False
        ) as answer:
            sample.status = answer.status
            if 300 <= answer.status < 400:
                sample.fail(Failure.STATUS, f"it leads to {answer.headers.get('location', 'nowhere')}")
            elif answer.status != 200:
                sample.fail(Failure.STATUS, error_text(await _beginning(answer)))
            elif stream:
                await self._read_stream(answer, target.dialect, sample)
            else:
                body_read = await answer.read()
                sample.ended_s = self._clock()
                whole = target.dialect.whole(body_read)
                sample.tokens = whole.tokens or 0
                if whole.error is not None:
                    sample.fail(Failure.ERROR_IN_ANSWER, whole.error)

    async def _read_stream(self, answer: aiohttp.ClientResponse, dialect: Dialect, sample: Sample) -> None:
        if answer.content_type != "text/event-stream":
            sample.fail(Failure.UNREADABLE, f"no event stream, but {answer.content_type}")
            return
        clock, feed, read = self._clock, Events().feed, dialect.event
        counted, said, ended = 0, None, False
        async for block in answer.content.iter_any():
            now_s = clock()
            for data in feed(block):
                event = read(data)
                if event.token:
                    counted += 1
                    if sample.first_token_s is None:
                        sample.first_token_s = now_s
                    else:
                        sample.gaps_s.append(now_s - sample.last_token_s)
                    sample.last_token_s = now_s
                if event.tokens is not None:
                    said = event.tokens
                if event.error is not None:
                    sample.fail(Failure.ERROR_IN_ANSWER, event.error)
                    return
                ended = ended or event.ends
        sample.ended_s = clock()
        sample.tokens = counted if said is None else said
        if not ended:
            sample.fail(Failure.NO_END, f"after {counted} events with tokens")
        elif not counted:
            sample.fail(Failure.NO_TOKENS)


async def _beginning(answer: aiohttp.ClientResponse) -> bytes:
    """Its body, or the first ERROR_BYTES_MAX of it."""
    body = b""
    while len(body) < ERROR_BYTES_MAX and (block := await answer.content.readany()):
        body += block
    return body[:ERROR_BYTES_MAX]


def _shown(said: str) -> str:
    """One short line, without what would move a terminal's cursor."""
    line = " ".join(said.split())[:SAID_MAX]
    return "".join(each if each.isprintable() else "\ufffd" for each in line)
