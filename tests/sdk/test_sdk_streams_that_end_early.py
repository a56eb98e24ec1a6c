"""A stream that breaks off must never look as if it were whole, and one that nobody reads must not be generated."""

import anthropic as anthropic_sdk
import httpx2
import openai as openai_sdk
import pytest

from tests.sdk.conftest import vendors_config

MESSAGES = [{"role": "user", "content": "What do you hear?"}]
# What the SDKs raise for a broken connection; Anthropic's lets its HTTP library's own error through.
BROKEN = (openai_sdk.APIConnectionError, anthropic_sdk.APIConnectionError, httpx2.RemoteProtocolError, httpx2.ReadError)


async def chat(openai, model):
    return await openai.chat.completions.create(model=model, messages=MESSAGES, stream=True)


async def response(openai, model):
    return await openai.responses.create(model=model, input="What do you hear?", stream=True)


async def transcript(openai, model):
    return await openai.audio.transcriptions.create(model=model, file=("talk.wav", b"x"), stream=True)


async def message(anthropic, model):
    return await anthropic.messages.create(model=model, messages=MESSAGES, max_tokens=9, stream=True)


STREAMS = {"chat": ("openai", chat), "response": ("openai", response), "message": ("anthropic", message)}
CUT_AFTER = {"chat": 4, "response": 7, "message": 5}  # events that the simulated upstream sends before it cuts


@pytest.fixture(params=STREAMS)
def stream(request, connect):
    """Begins a stream through a running proxy: `await stream(running, model)`."""
    vendor, begin = STREAMS[request.param]
    prefix = "/v1" if vendor == "openai" else "/anthropic"

    async def start(running, model="simulated"):
        return await begin(connect(vendor, running.url + prefix), model)

    start.cut_after = CUT_AFTER[request.param]
    return start


async def before_the_break(stream):
    """What a stream yields until its error, which has to come."""
    got = []
    try:
        async for one in stream:
            got.append(one)  # noqa: PERF401 - a comprehension would lose them
    except BROKEN:
        return got
    pytest.fail("the stream ended as if it were whole")


async def test_stream_that_is_cut_upstream_breaks_after_its_last_event(stream, running):
    assert len(await before_the_break(await stream(running, "cut"))) == stream.cut_after
    await running.until_logged()
    assert running.requests_logged[0]["outcome"] == "truncated"


async def test_stream_breaks_when_its_upstream_dies(stream, slow, proxy):
    running = await proxy(vendors_config(slow.url))
    events = await stream(running)
    await slow.stop()
    assert len(await before_the_break(events)) > 0


async def test_stream_breaks_when_its_upstream_falls_silent(stream, slow, proxy):
    running = await proxy(vendors_config(slow.url))
    events = await stream(running)
    running.pass_time(301)
    assert len(await before_the_break(events)) > 0
    await slow.until(lambda: slow.cancelled == 1)


async def test_stream_breaks_when_the_proxy_is_stopped(stream, slow, proxy):
    running = await proxy(vendors_config(slow.url))
    events = await stream(running)
    await running.stop()
    await before_the_break(events)
    await slow.until(lambda: slow.cancelled == 1)


async def test_answer_that_is_cut_in_half_is_an_error(openai, anthropic):
    with pytest.raises(BROKEN):
        await openai.chat.completions.create(model="cut", messages=MESSAGES)
    with pytest.raises(BROKEN):
        await anthropic.messages.create(model="cut", messages=MESSAGES, max_tokens=9)
    with pytest.raises(BROKEN):
        await openai.audio.speech.create(model="cut", voice="alloy", input="Listen")


async def test_speech_that_is_cut_is_an_error_even_as_a_stream(openai):
    asked = {"model": "cut", "voice": "alloy", "input": "Listen"}
    async with openai.audio.speech.with_streaming_response.create(**asked) as speech:
        with pytest.raises(BROKEN):
            await speech.read()


async def test_anthropics_own_accumulation_never_ends_with_a_part(anthropic):
    with pytest.raises(BROKEN):
        async with anthropic.messages.stream(model="cut", messages=MESSAGES, max_tokens=9) as stream:
            await stream.get_final_message()


async def test_caller_that_closes_its_stream_ends_the_generation(stream, slow, proxy):
    running = await proxy(vendors_config(slow.url))
    events = await stream(running)
    await slow.until(lambda: slow.inflight == 1)
    await events.close()
    await slow.until(lambda: slow.cancelled == 1)
    await running.until_logged()
    assert running.requests_logged[0]["outcome"] == "client_gone"


async def test_caller_that_leaves_in_the_middle_of_a_loop_ends_the_generation(slow, proxy, connect):
    running = await proxy(vendors_config(slow.url))
    anthropic = connect("anthropic", f"{running.url}/anthropic")
    async with anthropic.messages.stream(model="simulated", messages=MESSAGES, max_tokens=9) as events:
        async for event in events:
            if event.type == "text":
                break
        assert slow.cancelled == 0
    await slow.until(lambda: slow.cancelled == 1)


async def test_caller_that_leaves_speech_ends_it(slow, proxy, connect):
    running = await proxy(vendors_config(slow.url))
    speech = connect("openai", f"{running.url}/v1").audio.speech.with_streaming_response
    async with speech.create(model="simulated", voice="alloy", input="Listen"):
        await slow.until(lambda: slow.inflight == 1)
    await slow.until(lambda: slow.cancelled == 1)
