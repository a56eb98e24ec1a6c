import json

import pytest

TEXT = "A canary sings in the "  # five tokens
ASK = {"model": "any", "messages": [{"role": "user", "content": "What do you hear?"}]}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "unit": {"enum": ["C", "F"]},
                "hours": {"type": "array", "items": {"type": "number"}},
            },
        },
    },
}
ARGUMENTS = {"city": "canary", "days": 1, "unit": "C", "hours": [1.5]}


async def test_completion_has_text_usage_and_the_upstreams_name(openai, valid):
    answer = valid(await openai.chat.completions.create(**ASK))

    assert answer.model == "any"
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (6, 5, 11)
    assert answer.system_fingerprint == "fp_east"


async def test_stream_sends_the_role_then_each_token_then_its_reason(openai, valid):
    stream = await openai.chat.completions.create(**ASK, stream=True)
    chunks = [valid(chunk) async for chunk in stream]

    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "A ", "canary ", "sings ", "in ", "the ", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


async def test_stream_ends_with_its_usage_when_asked_to(openai, valid):
    stream = await openai.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    *chunks, last = [valid(chunk) async for chunk in stream]

    assert last.choices == []
    assert last.usage.completion_tokens == 5
    assert all(chunk.usage is None for chunk in chunks)


async def test_stream_is_one_event_per_write_and_ends_with_done(openai):
    async with openai.chat.completions.with_streaming_response.create(**ASK, stream=True) as response:
        body = await response.read()

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = body.split(b"\n\n")
    assert all(event.startswith(b'data: {"id":"chatcmpl-') for event in events[:-2])
    assert events[-2:] == [b"data: [DONE]", b""]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_the_requests_limit_is_the_answers_length(openai, field):
    short = await openai.chat.completions.create(**ASK, **{field: 2})
    long = await openai.chat.completions.create(**ASK, **{field: 100})

    assert (short.choices[0].message.content, short.choices[0].finish_reason) == ("A canary ", "length")
    assert (long.usage.completion_tokens, long.choices[0].finish_reason) == (100, "stop")


async def test_a_tool_is_called_with_arguments_of_its_schema(openai, valid):
    answer = valid(await openai.chat.completions.create(**ASK, tools=[WEATHER]))

    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == ARGUMENTS
    assert answer.choices[0].message.content is None
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_a_tool_call_is_streamed_in_pieces_of_its_arguments(openai):
    async with openai.chat.completions.stream(**ASK, tools=[WEATHER]) as stream:
        pieces = [event.arguments_delta async for event in stream if event.type.endswith("arguments.delta")]
        answer = await stream.get_final_completion()

    assert len(pieces) > 3
    assert json.loads("".join(pieces)) == ARGUMENTS
    assert answer.choices[0].message.tool_calls[0].function.name == "weather"
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_the_named_tool_is_called(openai):
    other = {"type": "function", "function": {"name": "time"}}
    choice = {"type": "function", "function": {"name": "time"}}
    answer = await openai.chat.completions.create(**ASK, tools=[WEATHER, other], tool_choice=choice)

    assert answer.choices[0].message.tool_calls[0].function.name == "time"
    assert answer.choices[0].message.tool_calls[0].function.arguments == "{}"


async def test_no_tool_is_called_when_forbidden_or_when_its_result_is_in(openai):
    forbidden = await openai.chat.completions.create(**ASK, tools=[WEATHER], tool_choice="none")
    result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    done = await openai.chat.completions.create(model="any", messages=[*ASK["messages"], result], tools=[WEATHER])

    assert forbidden.choices[0].message.content == TEXT
    assert done.choices[0].message.content == TEXT


async def test_a_stream_waits_before_its_first_token_and_between_the_others(openai, behave, naps):
    behave(ttft_s=0.2, per_token_s=0.02)
    async for _ in await openai.chat.completions.create(**ASK, stream=True):
        pass
    assert naps.taken_s == pytest.approx([0.2, 0.02, 0.02, 0.02, 0.02])


async def test_a_whole_answer_waits_as_long_as_its_stream(openai, behave, naps):
    behave(ttft_s=0.2, per_token_s=0.02)
    await openai.chat.completions.create(**ASK)
    assert naps.taken_s == [pytest.approx(0.28)]


async def test_no_wait_is_no_sleep(openai, naps):
    await openai.chat.completions.create(**ASK)
    assert naps.taken_s == []


async def test_jitter_strays_no_further_than_its_share(openai, behave, naps):
    behave(per_token_s=1.0, jitter=0.2, tokens=50)
    async for _ in await openai.chat.completions.create(**ASK, stream=True):
        pass
    assert all(0.8 <= nap_s <= 1.2 for nap_s in naps.taken_s)
    assert len(set(naps.taken_s)) == 49
