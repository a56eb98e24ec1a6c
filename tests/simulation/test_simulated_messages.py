import pytest

TEXT = "A canary sings in the "
ASK = {"model": "any", "max_tokens": 100, "messages": [{"role": "user", "content": "What do you hear?"}]}
WEATHER = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
}
ARGUMENTS = {"city": "canary", "days": 1}


async def test_a_message_has_text_and_usage(anthropic, valid):
    message = valid(await anthropic.messages.create(**ASK))

    assert message.content[0].text == TEXT
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (6, 5)


async def test_max_tokens_is_a_limit_and_not_a_length(anthropic):
    message = await anthropic.messages.create(**ASK | {"max_tokens": 2})
    assert (message.content[0].text, message.stop_reason) == ("A canary ", "max_tokens")


async def test_a_stream_sends_every_event_in_its_order(anthropic, valid):
    events = [valid(event) async for event in await anthropic.messages.create(**ASK, stream=True)]

    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 5,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert "".join(event.delta.text for event in events[2:7]) == TEXT
    assert events[-2].delta.stop_reason == "end_turn"
    assert events[-2].usage.output_tokens == 5


async def test_a_stream_names_its_events_and_pings(anthropic):
    async with anthropic.messages.with_streaming_response.create(**ASK, stream=True) as response:
        body = await response.read()
    assert b'\n\nevent: ping\ndata: {"type":"ping"}\n\nevent: content_block_delta\n' in body


async def test_the_sdks_own_accumulation_is_the_message(anthropic):
    async with anthropic.messages.stream(**ASK) as stream:
        message = await stream.get_final_message()
    assert (message.content[0].text, message.usage.output_tokens) == (TEXT, 5)


async def test_a_tool_is_used(anthropic, valid):
    message = valid(await anthropic.messages.create(**ASK, tools=[WEATHER]))

    (block,) = message.content
    assert (block.type, block.name, block.input) == ("tool_use", "weather", ARGUMENTS)
    assert message.stop_reason == "tool_use"


async def test_a_tool_use_is_streamed_in_pieces_of_its_input(anthropic):
    async with anthropic.messages.stream(**ASK, tools=[WEATHER]) as stream:
        pieces = [event async for event in stream if event.type == "input_json"]
        message = await stream.get_final_message()

    assert len(pieces) > 3
    assert message.content[0].input == ARGUMENTS
    assert message.stop_reason == "tool_use"


@pytest.mark.parametrize(
    "changes",
    [
        {"tool_choice": {"type": "none"}},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "sunny"}]}]},
    ],
    ids=["forbidden", "result is in"],
)
async def test_no_tool_is_used_when_forbidden_or_when_its_result_is_in(anthropic, changes):
    message = await anthropic.messages.create(**ASK | changes, tools=[WEATHER])
    assert message.content[0].text == TEXT


async def test_tokens_are_counted_as_the_answers_usage_counts_them(anthropic, valid):
    asked = {"model": "any", "messages": ASK["messages"], "system": "Listen.", "tools": [WEATHER]}
    counted = valid(await anthropic.messages.count_tokens(**asked))
    message = await anthropic.messages.create(**asked, max_tokens=9)
    assert counted.input_tokens == message.usage.input_tokens > 6


async def test_models_are_listed_in_anthropics_words(anthropic, behave, valid):
    behave(models=("canary-1", "canary-2"))
    page = await anthropic.models.list()
    assert [valid(model).id for model in page.data] == ["canary-1", "canary-2"]
    assert valid(await anthropic.models.retrieve("canary-1")).display_name == "canary-1"
