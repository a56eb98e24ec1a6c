"""What an SDK returns through the proxy is what it returns without: every call, asked of two upstreams, twins."""

import pytest

MESSAGES = [{"role": "user", "content": "What do you hear?"}]
CHAT = {"model": "simulated", "messages": MESSAGES}
RESPONSE = {"model": "simulated", "input": "What do you hear?"}
MESSAGE = {"model": "simulated", "messages": MESSAGES, "max_tokens": 100}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
RESPONSE_TOOL = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}
TOOL = {"name": "weather", "input_schema": SCHEMA}
SPEECH = {"model": "simulated", "voice": "alloy", "input": "Listen"}
BYTES = bytes(range(256)) * 256


async def everything(stream):
    return [one async for one in stream]


async def chat_stream(openai, **more):
    return await everything(await openai.chat.completions.create(**CHAT, stream=True, **more))


async def chat_accumulated(openai):
    async with openai.chat.completions.stream(**CHAT, tools=[FUNCTION]) as stream:
        return [event.type async for event in stream], await stream.get_final_completion()


async def raw_chat_stream(openai):
    async with openai.chat.completions.with_streaming_response.create(**CHAT, stream=True) as response:
        return await response.read()


async def kept_response(openai):
    made = await openai.responses.create(**RESPONSE)
    later = await openai.responses.create(**RESPONSE, previous_response_id=made.id)
    return made, later, await openai.responses.retrieve(made.id), await openai.responses.delete(made.id)


async def response_stream(openai):
    return await everything(await openai.responses.create(**RESPONSE, stream=True))


async def response_accumulated(openai):
    async with openai.responses.stream(**RESPONSE, tools=[RESPONSE_TOOL]) as stream:
        return await everything(stream), await stream.get_final_response()


async def file_there_and_back(openai, content=b"a line\n"):
    made = await openai.files.create(file=("mine.bin", content), purpose="user_data")
    back = (await openai.files.content(made.id)).content
    assert back == content
    listed = [one async for one in openai.files.list()]
    return made, back, listed, await openai.files.delete(made.id)


async def speech(openai):
    async with openai.audio.speech.with_streaming_response.create(**SPEECH) as response:
        return response.headers["content-type"], await response.read()


async def models(client):
    return [one async for one in client.models.list()], await client.models.retrieve("mine/simulated")


OPENAI = {
    "chat": lambda openai: openai.chat.completions.create(**CHAT),
    "chat stream": lambda openai: chat_stream(openai, stream_options={"include_usage": True}),
    "chat stream raw": raw_chat_stream,
    "tool": lambda openai: openai.chat.completions.create(**CHAT, tools=[FUNCTION]),
    "tool stream": lambda openai: chat_stream(openai, tools=[FUNCTION]),
    "tool accumulated": chat_accumulated,
    "embeddings": lambda openai: openai.embeddings.create(model="simulated", input=["one", "two"]),
    "response": kept_response,
    "response stream": response_stream,
    "response accumulated": response_accumulated,
    "file": file_there_and_back,
    "file beyond the buffer": lambda openai: file_there_and_back(openai, BYTES),
    "speech": speech,
    "transcription": lambda openai: openai.audio.transcriptions.create(model="simulated", file=("talk.wav", BYTES)),
    "models": models,
}


async def message_stream(anthropic, **more):
    return await everything(await anthropic.messages.create(**MESSAGE, stream=True, **more))


async def message_accumulated(anthropic):
    async with anthropic.messages.stream(**MESSAGE, tools=[TOOL]) as stream:
        return [event.type async for event in stream], await stream.get_final_message()


async def message_text(anthropic):
    async with anthropic.messages.stream(**MESSAGE) as stream:
        return await everything(stream.text_stream), await stream.get_final_message()


async def raw_message_stream(anthropic):
    async with anthropic.messages.with_streaming_response.create(**MESSAGE, stream=True) as response:
        return await response.read()


ANTHROPIC = {
    "message": lambda anthropic: anthropic.messages.create(**MESSAGE),
    "message stream": message_stream,
    "message stream raw": raw_message_stream,
    "message text": message_text,
    "tool": lambda anthropic: anthropic.messages.create(**MESSAGE, tools=[TOOL]),
    "tool stream": lambda anthropic: message_stream(anthropic, tools=[TOOL]),
    "tool accumulated": message_accumulated,
    "count": lambda anthropic: anthropic.messages.count_tokens(model="simulated", messages=MESSAGES, tools=[TOOL]),
    "models": models,
}


@pytest.fixture
def route() -> str:
    """A buffer that the larger uploads exceed."""
    return "buffer: 16KiB"


@pytest.mark.parametrize("call", OPENAI.values(), ids=OPENAI)
async def test_openais_sdk_sees_no_difference(openai, twin, connect, call):
    direct = connect("openai", f"{twin.url}/v1", "upstream-key")
    assert await call(openai) == await call(direct)


@pytest.mark.parametrize("call", ANTHROPIC.values(), ids=ANTHROPIC)
async def test_anthropics_sdk_sees_no_difference(anthropic, twin, connect, call):
    direct = connect("anthropic", twin.url, "upstream-key")
    assert await call(anthropic) == await call(direct)


@pytest.mark.parametrize("call", [ANTHROPIC["message"], ANTHROPIC["message stream"], ANTHROPIC["count"]])
async def test_anthropics_api_may_share_a_prefix_with_openais(running, twin, connect, call):
    shared, direct = connect("anthropic", running.url), connect("anthropic", twin.url, "upstream-key")
    assert await call(shared) == await call(direct)


async def test_an_answer_names_its_request_and_upstream(openai, anthropic, upstream):
    answer = await openai.chat.completions.with_raw_response.create(**CHAT)
    assert answer.headers["x-serinus-upstream"] == "openai"
    assert answer.headers["x-simulated-upstream"] == "east"
    assert answer.headers["x-serinus-request-id"] == upstream.last_headers["x-request-id"]
    answer = await anthropic.messages.with_raw_response.create(**MESSAGE, extra_headers={"x-request-id": "mine-1"})
    assert answer.headers["x-serinus-upstream"] == "claude"
    assert answer.headers["x-request-id"] == upstream.last_headers["x-request-id"] == "mine-1"


async def test_a_model_can_be_replaced_for_the_sdk_too(upstream, proxy, connect):
    running = await proxy(
        f"""
upstreams: {{up: {{base_url: '{upstream.url}/v1', keys: [{{name: main, value: upstream-key}}]}}}}
pools: {{chat: {{members: [{{upstream: up, model: mine/simulated}}]}}}}
routes: [{{prefix: /v1, pool: chat}}]
"""
    )
    openai = connect("openai", f"{running.url}/v1")
    assert (await openai.chat.completions.create(**CHAT)).model == "mine/simulated"
    asked = {"model": "simulated", "file": ("talk.wav", b"x")}
    await openai.audio.transcriptions.create(**asked)
    assert len(await chat_stream(openai)) == 7
