"""What a client may use: requests and tokens a minute, and requests at once; told in each answer, refused beyond."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import anthropic
import httpx2
import openai
import pytest

from tests.support.raw import Answer, RawCaller, ask, get, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Conversation, Script, ScriptedUpstream, answering, whole

JSON = b"Content-Type: application/json\r\n"
PROMPT = b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % (b"x" * 343)  # 400 bytes: 100 tokens
Start = Callable[..., Awaitable[tuple[RunningProxy, ScriptedUpstream]]]


def config(url: str, limits: str, *, more: str = "", keys: bool = True) -> str:
    client = f"clients: [{{name: tester, keys: [client-key, second-key], limits: {{{limits}}}{more}}}]"
    return config_for(url, clients=False, keys=keys, top=client)


@pytest.fixture
def start(scripted, proxy) -> Start:
    async def start(limits: str, script: Script, **options: object) -> tuple[RunningProxy, ScriptedUpstream]:
        upstream = await scripted(script)
        return await proxy(config(upstream.url, limits), **options), upstream

    return start


class Gated:
    """Answers when a test says so."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, talk: Conversation) -> None:
        while True:
            await talk.request()
            await self.open.wait()
            await talk.send(whole(b"{}"))


def told(answer: Answer, name: bytes) -> tuple[bytes | None, bytes | None]:
    """The limit and what is left of it."""
    return answer.field(b"x-ratelimit-limit-" + name), answer.field(b"x-ratelimit-remaining-" + name)


def prompt(body: bytes = PROMPT) -> bytes:
    return post(body, fields=JSON)


def used(total: int) -> bytes:
    return b'{"id":"x","usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":%d}}' % total


# --- requests --------------------------------------------------------------------------------------------------------


async def test_requests_beyond_the_limit_are_refused_and_each_answer_says_what_is_left(start):
    running, upstream = await start("requests_per_minute: 2", answering(whole(b"{}")))
    caller = await RawCaller.connect(running.port)
    for left in (b"1", b"0"):
        await caller.send(post())
        answer = await caller.answer()
        assert (answer.status, told(answer, b"requests")) == (200, (b"2", left))
    await caller.send(post())
    answer = await caller.answer()
    assert (answer.status, told(answer, b"requests")) == (429, (b"2", b"0"))
    assert answer.field(b"retry-after") == b"30"
    assert b'"code":"rate_limit_exceeded"' in answer.payload
    assert b"The client 'tester' may send 2 requests a minute: try again in " in answer.payload
    assert answer.field(b"connection") is None
    assert len(upstream.requests) == 2
    assert running.serinus.registry.clients["tester"].limited == {"requests": 1, "tokens": 0, "concurrent": 0}
    running.pass_time(30)
    await caller.send(post())
    assert (await caller.answer()).status == 200


async def test_all_keys_of_a_client_share_its_limits(start):
    running, _ = await start("requests_per_minute: 1", answering(whole(b"{}")))
    assert (await ask(running.port, post())).status == 200
    assert (await ask(running.port, post().replace(b"client-key", b"second-key"))).status == 429


async def test_an_sdk_sees_a_rate_limit_in_its_own_words(start):
    running, _ = await start("requests_per_minute: 1", answering(whole(b'{"id":"m","usage":{"total_tokens":3}}')))
    async with openai.AsyncOpenAI(
        base_url=f"{running.url}/v1", api_key="client-key", max_retries=0, http_client=httpx2.AsyncClient()
    ) as client:
        raw = await client.chat.completions.with_raw_response.create(model="m", messages=[])
        assert raw.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="m", messages=[])
    assert caught.value.code == "rate_limit_exceeded"
    async with anthropic.AsyncAnthropic(
        base_url=f"{running.url}/anthropic", api_key="client-key", max_retries=0, http_client=httpx2.AsyncClient()
    ) as client:
        with pytest.raises(anthropic.RateLimitError) as refused:
            await client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "?"}])
    assert refused.value.body["error"]["type"] == "rate_limit_error"


async def test_what_is_refused_otherwise_uses_nothing(start):
    running, _ = await start("requests_per_minute: 1", answering(whole(b"{}")))
    assert (await ask(running.port, post(target=b"/v2"))).status == 404
    assert (await ask(running.port, b"GET /livez HTTP/1.1\r\nHost: p\r\n\r\n")).status == 200
    assert (await ask(running.port, post())).status == 200


async def test_a_request_that_nobody_can_take_uses_nothing(scripted, proxy):
    upstream = await scripted(held := Gated())
    text = config(upstream.url, "requests_per_minute: 2").replace(
        f"base_url: '{upstream.url}'", f"base_url: '{upstream.url}', max_connections: 1"
    )
    running = await proxy(text)
    first = await RawCaller.connect(running.port)
    await first.send(post())
    await upstream.until(lambda: bool(upstream.requests))
    for _ in range(3):
        answer = await ask(running.port, post())
        assert (answer.status, told(answer, b"requests")) == (503, (None, None))
    held.open.set()
    assert told(await first.answer(), b"requests") == (b"2", b"1")


async def test_upstreams_own_limits_are_replaced_for_a_limited_client_alone(scripted, proxy):
    fields = JSON + b"X-RateLimit-Limit-Requests: 9\r\nx-ratelimit-remaining-tokens: 8\r\nx-other-limit: 7\r\n"
    upstream = await scripted(answering(whole(b"{}", fields=fields)))
    running = await proxy(config(upstream.url, "requests_per_minute: 5"))
    answer = await ask(running.port, post())
    assert (told(answer, b"requests"), told(answer, b"tokens")) == ((b"5", b"4"), (None, None))
    assert answer.field(b"x-other-limit") == b"7"
    running = await proxy(config(upstream.url, "concurrent: 5"))
    answer = await ask(running.port, post())
    assert (told(answer, b"requests"), told(answer, b"tokens")) == ((b"9", None), (None, b"8"))


# --- requests at once ------------------------------------------------------------------------------------------------


async def test_requests_at_once_are_held_to_the_last_byte(start):
    pieces = Gated()
    running, upstream = await start("concurrent: 1", pieces)
    streaming = await RawCaller.connect(running.port)
    await streaming.send(post())
    await upstream.until(lambda: bool(upstream.requests))
    answer = await ask(running.port, post())
    assert (answer.status, answer.field(b"retry-after")) == (429, b"1")
    assert b"has 1 requests under way, as many as it may" in answer.payload
    pieces.open.set()
    assert (await streaming.answer()).status == 200
    assert (await ask(running.port, post())).status == 200


async def test_a_caller_that_leaves_gives_its_place_back(start):
    running, upstream = await start("concurrent: 1", Gated())
    leaving = await RawCaller.connect(running.port)
    await leaving.send(post())
    await upstream.until(lambda: bool(upstream.requests))
    leaving.close()
    await running.until_logged()
    client = running.serinus.registry.clients["tester"]
    assert client.limits.under_way == 0


async def test_tries_of_one_request_count_once(scripted, proxy):
    busy, well = await scripted(answering(whole(b"", status=b"503 Busy"))), await scripted(answering(whole(b"{}")))
    text = config_for(
        busy.url,
        well.url,
        clients=False,
        top="clients: [{name: tester, key: client-key, limits: {concurrent: 1, requests_per_minute: 9}}]",
        pool="balance: smooth_rr, slow_start: 0s",
    )
    running = await proxy(text)
    for left in (b"8", b"7", b"6"):
        answer = await ask(running.port, post())
        assert (answer.status, told(answer, b"requests")) == (200, (b"9", left))


# --- tokens ----------------------------------------------------------------------------------------------------------


async def left_after(running: RunningProxy) -> int:
    """The tokens that are left when the request before has ended."""
    await running.until(lambda: running.serinus.registry.clients["tester"].limits.under_way == 0)
    tokens = running.serinus.registry.clients["tester"].limits.tokens
    assert tokens is not None
    return tokens.remaining(running.clock())


async def test_tokens_are_estimated_and_then_corrected_by_the_answers_usage(start):
    running, _ = await start("tokens_per_minute: 100000", answering(whole(used(40_000))))
    answer = await ask(running.port, prompt())
    assert told(answer, b"tokens") == (b"100000", b"99900")
    assert await left_after(running) == 60_000


STREAM = [
    b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":20000,"completion_tokens":20000,"total_tokens":40000}}\n\n',
    b"data: [DONE]\n\n",
]
MESSAGES = [
    (
        b"event: message_start\n"
        b'data: {"type":"message_start","message":{"usage":{"input_tokens":30000,"output_tokens":1}}}\n\n'
    ),
    b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"hi"}}\n\n' * 900,
    b'event: message_delta\ndata: {"type":"message_delta","delta":{},"usage":{"output_tokens":10000}}\n\n',
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
]


@pytest.mark.parametrize("events", [STREAM, MESSAGES], ids=["chat", "messages"])
async def test_streams_are_corrected_by_their_usage_too(start, events):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    running, _ = await start("tokens_per_minute: 100000", answering(head, *chunks, b"0\r\n\r\n"))
    answer = await ask(running.port, prompt())
    assert answer.payload == b"".join(events)
    assert await left_after(running) == 60_000


async def test_a_stream_without_usage_counts_an_event_a_token(start):
    events = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n' * 30_000
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(events)
    running, _ = await start("tokens_per_minute: 100000", answering(head, events))
    assert (await ask(running.port, prompt())).status == 200
    assert 69_900 <= await left_after(running) <= 70_000  # an event that two reads cut apart is not seen


async def test_who_used_too_many_tokens_waits_until_they_have_flowed_back(start):
    running, _ = await start("tokens_per_minute: 6000", answering(whole(used(9_000))))
    assert (await ask(running.port, prompt())).status == 200
    await left_after(running)
    answer = await ask(running.port, prompt())
    assert (answer.status, told(answer, b"tokens")) == (429, (b"6000", b"0"))
    assert answer.field(b"retry-after") == b"31"  # for the debt of 3,000 and the 100 that it may use
    assert b"may use 6000 tokens a minute" in answer.payload
    running.pass_time(31)
    assert (await ask(running.port, prompt())).status == 200


async def test_an_error_uses_no_tokens(start):
    running, _ = await start("tokens_per_minute: 6000", answering(whole(b"no", status=b"500 Oh")))
    assert (await ask(running.port, prompt())).status == 500
    assert await left_after(running) == 6000


async def test_uploads_are_no_prompts(start):
    running, _ = await start("tokens_per_minute: 6000", answering(whole(b'{"text":"hi"}')))
    form = b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\n%b\r\n--b--\r\n" % (b"\0" * 50_000)
    answer = await ask(running.port, post(form, fields=b"Content-Type: multipart/form-data; boundary=b\r\n"))
    assert (answer.status, told(answer, b"tokens")) == (200, (b"6000", b"6000"))
    assert await left_after(running) == 5996  # for the answer


async def test_answers_that_are_counted_come_uncompressed(scripted, proxy):
    async def vendor(talk: Conversation) -> None:
        request = await talk.request()
        coded = b"gzip" in (request.field(b"accept-encoding") or b"")
        body = gzip.compress(used(50_000)) if coded else used(50_000)
        await talk.send(whole(body, fields=JSON + (b"Content-Encoding: gzip\r\n" if coded else b"")))

    upstream = await scripted(vendor)
    running = await proxy(config(upstream.url, "tokens_per_minute: 100000"))
    await ask(running.port, post(PROMPT, fields=JSON + b"Accept-Encoding: gzip, deflate\r\n"))
    assert await left_after(running) == 50_000


# --- reload ----------------------------------------------------------------------------------------------------------


async def test_a_reload_keeps_what_was_used_and_what_is_under_way(scripted, proxy, tmp_path):
    upstream = await scripted(held := Gated())
    path = tmp_path / "config.yaml"
    running = await proxy(config(upstream.url, "requests_per_minute: 10, concurrent: 2"), path=path)
    first = await RawCaller.connect(running.port)
    await first.send(post())
    await upstream.until(lambda: bool(upstream.requests))
    path.write_text(path.read_text().replace("concurrent: 2", "concurrent: 1").replace("minute: 10", "minute: 20"))
    assert "problems" not in str(await running.serinus.reloader.reload())
    assert (await ask(running.port, post())).status == 429
    held.open.set()
    assert told(await first.answer(), b"requests") == (b"10", b"9")  # as it was when it began
    await running.until_logged(2)
    second = await RawCaller.connect(running.port)
    await second.send(post())
    assert told(await second.answer(), b"requests") == (b"20", b"18")


async def test_a_client_that_has_expired_is_refused_though_its_head_is_known(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config(upstream.url, "requests_per_minute: 10", more=", expires: 2126-01-01"))
    for _ in range(2):
        assert (await ask(running.port, post())).status == 200
    running.pass_time(101 * 366 * 86400)
    answer = await ask(running.port, post())
    assert (answer.status, b"invalid_api_key" in answer.payload) == (401, True)


async def test_model_lists_are_free(start):
    running, _ = await start("requests_per_minute: 1", answering(whole(b'{"data":[]}')))
    assert (await ask(running.port, get())).status == 200
