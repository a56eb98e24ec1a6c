"""Errors as the SDKs raise them, answers that break off, callers that leave, upstreams that go down and come back."""

import asyncio
import random

import aiohttp
import anthropic as anthropic_sdk
import httpx2
import openai as openai_sdk
import pytest

from proxy.simulation import Behaviour, SimulatedUpstream

MESSAGES = [{"role": "user", "content": "What do you hear?"}]


async def never(_seconds: float) -> None:
    await asyncio.get_running_loop().create_future()


@pytest.fixture
async def slow():
    """An upstream that never comes to its second token."""
    async with SimulatedUpstream(Behaviour(per_token_s=1.0), random.Random(1), sleep=never) as running:
        yield running


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai_sdk.BadRequestError),
        (401, openai_sdk.AuthenticationError),
        (403, openai_sdk.PermissionDeniedError),
        (404, openai_sdk.NotFoundError),
        (422, openai_sdk.UnprocessableEntityError),
        (429, openai_sdk.RateLimitError),
        (500, openai_sdk.InternalServerError),
        (502, openai_sdk.InternalServerError),
        (503, openai_sdk.InternalServerError),
        (529, openai_sdk.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_models_name_asks_openai_for_an_error(openai, status, error, stream):
    with pytest.raises(error) as caught:
        await openai.chat.completions.create(model=f"status-{status}", messages=MESSAGES, stream=stream)
    assert caught.value.status_code == status
    assert str(status) in caught.value.body["message"]
    assert caught.value.type
    assert caught.value.request_id.startswith("req_")
    assert caught.value.response.headers.get("retry-after") == ("1" if status == 429 else None)


@pytest.mark.parametrize(
    ("status", "error", "type_"),
    [
        (400, anthropic_sdk.BadRequestError, "invalid_request_error"),
        (401, anthropic_sdk.AuthenticationError, "authentication_error"),
        (403, anthropic_sdk.PermissionDeniedError, "permission_error"),
        (404, anthropic_sdk.NotFoundError, "not_found_error"),
        (422, anthropic_sdk.UnprocessableEntityError, "invalid_request_error"),
        (429, anthropic_sdk.RateLimitError, "rate_limit_error"),
        (500, anthropic_sdk.InternalServerError, "api_error"),
        (502, anthropic_sdk.InternalServerError, "api_error"),
        (503, anthropic_sdk.ServiceUnavailableError, "api_error"),
        (529, anthropic_sdk.OverloadedError, "overloaded_error"),
    ],
)
async def test_a_models_name_asks_anthropic_for_an_error(anthropic, status, error, type_):
    with pytest.raises(error) as caught:
        await anthropic.messages.create(model=f"status-{status}", max_tokens=5, messages=MESSAGES)
    assert (caught.value.status_code, caught.value.type) == (status, type_)
    assert caught.value.request_id == caught.value.body["request_id"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda client, model: client.responses.create(model=model, input="Hi"),
        lambda client, model: client.embeddings.create(model=model, input="Hi"),
        lambda client, model: client.audio.speech.create(model=model, input="Hi", voice="alloy"),
        lambda client, model: client.audio.transcriptions.create(model=model, file=("talk.wav", b"x")),
    ],
    ids=["responses", "embeddings", "speech", "transcriptions"],
)
async def test_every_endpoint_knows_the_names_that_fail(openai, ask):
    with pytest.raises(openai_sdk.RateLimitError):
        await ask(openai, "status-429")
    with pytest.raises(openai_sdk.APIConnectionError):
        await ask(openai, "cut")


async def test_errors_come_at_their_rate_with_their_status(openai, behave):
    behave(error_rate=1.0, error_status=503)
    with pytest.raises(openai_sdk.InternalServerError) as caught:
        await openai.models.list()
    assert caught.value.status_code == 503
    behave(error_rate=0.0)
    await openai.models.list()


async def test_a_seed_decides_which_requests_fail(openai, behave):
    behave(error_rate=0.5)
    failed = 0
    for _ in range(40):
        try:
            await openai.models.list()
        except openai_sdk.InternalServerError:
            failed += 1
    assert 10 < failed < 30


async def test_only_its_own_key_is_taken(openai, anthropic, behave):
    behave(api_key="sk-right")
    with pytest.raises(openai_sdk.AuthenticationError) as wrong_openai:
        await openai.models.list()
    with pytest.raises(anthropic_sdk.AuthenticationError) as wrong_anthropic:
        await anthropic.messages.create(model="any", max_tokens=5, messages=MESSAGES)
    assert wrong_openai.value.code == "invalid_api_key"
    assert wrong_anthropic.value.type == "authentication_error"

    await openai.with_options(api_key="sk-right").models.list()
    await anthropic.with_options(api_key="sk-right").messages.create(model="any", max_tokens=5, messages=MESSAGES)


async def test_azures_header_holds_a_key_too(upstream, behave):
    behave(api_key="sk-right")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{upstream.url}/v1/models", headers={"api-key": "sk-right"}) as answer:
            assert answer.status == 200
        async with session.get(f"{upstream.url}/v1/models") as answer:
            assert answer.status == 401


async def test_strict_models_are_the_only_ones(openai, behave):
    behave(models=("canary-1",), strict_models=True)
    await openai.embeddings.create(model="canary-1", input="Hi")
    with pytest.raises(openai_sdk.NotFoundError) as caught:
        await openai.embeddings.create(model="canary-2", input="Hi")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b'{"model":"any"}', 400),
        ("POST", "/v1/chat/completions", b'{"messages":[{}]}', 400),
        ("POST", "/v1/chat/completions", b'{"model":"any","messages":[{}],"max_tokens":0}', 400),
        ("POST", "/v1/chat/completions", b'{"model":"any","messages":[{}],"tools":[1]}', 400),
        ("POST", "/v1/responses", b'{"model":"any"}', 400),
        ("POST", "/v1/responses", b'{"model":"any","input":"a","tools":[{}]}', 400),
        ("POST", "/v1/embeddings", b'{"model":"any","input":[]}', 400),
        ("POST", "/v1/embeddings", b'{"model":"any","input":"a","encoding_format":"hex"}', 400),
        ("POST", "/v1/embeddings", b'{"model":"any","input":"a","dimensions":4000}', 400),
        ("POST", "/v1/audio/speech", b'{"model":"any","input":"a"}', 400),
        ("POST", "/v1/files", b"{}", 400),
        ("POST", "/v1/nothing", b"{}", 404),
        ("GET", "/v1/chat/completions", b"", 405),
    ],
)
async def test_a_wrong_request_is_an_error_in_openais_words(upstream, method, path, body, status):
    async with aiohttp.ClientSession() as session, session.request(method, upstream.url + path, data=body) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body", [b"{", b'{"model":"any"}', b'{"model":"any","messages":[{}]}', b'{"model":"any","max_tokens":1}']
)
async def test_a_wrong_request_is_an_error_in_anthropics_words(upstream, body):
    async with aiohttp.ClientSession() as session, session.post(f"{upstream.url}/v1/messages", data=body) as answer:
        assert answer.status == 400
        error = await answer.json()
    assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")


async def before_the_break(stream, *errors: type[Exception]) -> list:
    """What a stream yields until one of these errors, which has to come."""
    got = []
    try:
        async for one in stream:
            got.append(one)  # noqa: PERF401 - a comprehension would lose them
    except errors:
        return got
    pytest.fail("the stream ended as if it were whole")


async def test_cut_streams_three_tokens_and_breaks_off(openai, anthropic):
    stream = await openai.chat.completions.create(model="cut", messages=MESSAGES, stream=True)
    chunks = await before_the_break(stream, openai_sdk.APIConnectionError)
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "A ", "canary ", "sings "]

    stream = await anthropic.messages.create(model="cut", max_tokens=9, messages=MESSAGES, stream=True)
    events = await before_the_break(stream, httpx2.RemoteProtocolError)  # which this SDK lets through
    kinds = [event.type for event in events]
    assert kinds == ["message_start", "content_block_start", *["content_block_delta"] * 3]


async def test_cut_breaks_even_an_answer_shorter_than_itself(openai, upstream, behave):
    behave(tokens=2)
    stream = await openai.chat.completions.create(model="cut", messages=MESSAGES, stream=True)
    assert len(await before_the_break(stream, openai_sdk.APIConnectionError)) == 3
    assert upstream.cancelled == 0


async def test_cut_halves_a_whole_answer(upstream):
    ask = {"model": "cut", "messages": MESSAGES}
    url = f"{upstream.url}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=ask) as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_hang_answers_nothing_until_the_caller_goes(openai, upstream):
    asking = asyncio.gather(openai.chat.completions.create(model="hang", messages=MESSAGES))
    await upstream.until(lambda: upstream.inflight == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await upstream.until(lambda: upstream.cancelled == 1)
    assert upstream.inflight == 0


@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages", "audio/speech"])
async def test_a_caller_that_leaves_ends_its_stream(slow, path):
    ask = {"model": "any", "messages": MESSAGES, "input": "Hi", "voice": "alloy", "max_tokens": 9, "stream": True}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{slow.url}/v1/{path}", json=ask) as answer:
            await answer.content.readany()
            assert slow.inflight == 1
            answer.close()
        await slow.until(lambda: slow.cancelled == 1)
    assert (slow.inflight, slow.requests) == (0, 1)


async def test_a_caller_that_leaves_ends_a_whole_answer(slow):
    async with openai_sdk.AsyncOpenAI(base_url=f"{slow.url}/v1", api_key="sk", max_retries=0) as client:
        asking = asyncio.gather(client.chat.completions.create(model="any", messages=MESSAGES))
        await slow.until(lambda: slow.inflight == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await slow.until(lambda: slow.inflight == 0)
    assert slow.cancelled == 1


async def test_stopping_drops_what_is_in_flight_and_starting_takes_the_address_back(slow):
    url = slow.url
    async with aiohttp.ClientSession() as session:
        ask = {"model": "any", "messages": MESSAGES, "stream": True}
        async with session.post(f"{url}/v1/chat/completions", json=ask) as answer:
            await answer.content.readany()
            await slow.stop()
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(f"{url}/v1/models")
        await slow.start()
        assert slow.url == url
        async with session.get(f"{url}/v1/models") as answer:
            assert answer.status == 200


async def test_requests_are_seen_with_their_headers_and_bodies(openai, upstream):
    await openai.embeddings.create(model="any", input="Hi", extra_headers={"x-mine": "4"}, extra_query={"a": "b"})

    seen = upstream.seen[-1]
    assert (seen.method, seen.path_qs) == ("POST", "/v1/embeddings?a=b")
    assert b'"Hi"' in seen.body
    assert upstream.last_headers["X-Mine"] == "4"
    assert upstream.last_headers["authorization"] == "Bearer sk-test"


async def test_an_answer_tells_which_upstream_made_it(openai, anthropic):
    stream = await openai.chat.completions.with_raw_response.create(model="any", messages=MESSAGES, stream=True)
    assert stream.headers["x-simulated-upstream"] == "east"
    assert stream.headers["x-request-id"].startswith("req_")
    async for _ in stream.parse():
        pass
    message = await anthropic.messages.create(model="any", max_tokens=5, messages=MESSAGES)
    assert message._request_id.startswith("req_")


def test_upstreams_of_one_seed_make_ids_of_their_own():
    east, west = (SimulatedUpstream(Behaviour(name), random.Random(1)) for name in ("east", "west"))
    again = SimulatedUpstream(Behaviour("east"), random.Random(1))
    assert east._new_id("a") == again._new_id("a") != west._new_id("a")


@pytest.mark.parametrize(
    "wrong", [{"ttft_s": -1}, {"error_rate": 2}, {"jitter": 2}, {"error_status": 200}, {"tokens": 0}]
)
def test_impossible_behaviour_is_refused(wrong):
    with pytest.raises(ValueError, match=r"cannot|shares|status|token"):
        Behaviour(**wrong)
