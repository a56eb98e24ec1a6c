import json

import openai as sdk
import pytest

TEXT = "A canary sings in the "
ASK = {"model": "any", "input": "What do you hear?"}
WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "sunny": {"type": "boolean"}}},
    "strict": True,
}
ARGUMENTS = {"city": "canary", "sunny": True}


async def test_a_response_has_text_and_usage(openai, valid):
    response = valid(await openai.responses.create(**ASK, instructions="Listen.", metadata={"mine": "4"}))

    assert response.output_text == TEXT
    assert response.status == "completed"
    assert response.usage.output_tokens == 5
    assert (response.instructions, response.metadata) == ("Listen.", {"mine": "4"})


async def test_a_stream_sends_every_event_in_its_order(openai, valid):
    events = [valid(event) async for event in await openai.responses.create(**ASK, stream=True)]

    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 5,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(13))
    assert events[0].response.status == "in_progress"
    assert events[-1].response.output_text == TEXT


async def test_the_sdks_own_accumulation_agrees_with_the_last_event(openai):
    async with openai.responses.stream(**ASK) as stream:
        text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
        final = await stream.get_final_response()

    assert text == final.output_text == TEXT


async def test_a_function_is_called(openai, valid):
    response = valid(await openai.responses.create(**ASK, tools=[WEATHER]))

    (call,) = response.output
    assert (call.type, call.name, call.status) == ("function_call", "weather", "completed")
    assert json.loads(call.arguments) == ARGUMENTS


async def test_a_function_call_is_streamed_in_pieces_of_its_arguments(openai, valid):
    events = [valid(event) async for event in await openai.responses.create(**ASK, tools=[WEATHER], stream=True)]

    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert len(pieces) > 3
    assert json.loads("".join(pieces)) == ARGUMENTS
    assert events[-1].response.output[0].arguments == "".join(pieces)


async def test_no_function_is_called_once_its_result_is_in(openai):
    result = {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}
    response = await openai.responses.create(model="any", input=[result], tools=[WEATHER])
    assert response.output_text == TEXT


async def test_a_limit_below_the_usual_length_leaves_the_response_incomplete(openai, valid):
    response = valid(await openai.responses.create(**ASK, max_output_tokens=2))
    streamed = [event async for event in await openai.responses.create(**ASK, max_output_tokens=2, stream=True)]

    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.output_text == "A canary "
    assert streamed[-1].type == "response.incomplete"


async def test_a_response_is_remembered_until_it_is_deleted(openai, valid):
    made = await openai.responses.create(**ASK)
    assert valid(await openai.responses.retrieve(made.id)) == made

    await openai.responses.delete(made.id)
    with pytest.raises(sdk.NotFoundError, match=made.id):
        await openai.responses.retrieve(made.id)
    with pytest.raises(sdk.NotFoundError):
        await openai.responses.delete(made.id)


async def test_a_streamed_response_is_remembered_too(openai):
    events = [event async for event in await openai.responses.create(**ASK, stream=True)]
    assert await openai.responses.retrieve(events[-1].response.id) == events[-1].response


async def test_a_response_is_not_stored_against_the_callers_will(openai):
    made = await openai.responses.create(**ASK, store=False)
    with pytest.raises(sdk.NotFoundError):
        await openai.responses.retrieve(made.id)


async def test_a_conversation_goes_on_only_where_it_began(openai):
    made = await openai.responses.create(**ASK)
    assert (await openai.responses.create(**ASK, previous_response_id=made.id)).previous_response_id == made.id

    with pytest.raises(sdk.BadRequestError) as caught:
        await openai.responses.create(**ASK, previous_response_id="resp_of_another")
    assert caught.value.code == "previous_response_not_found"
