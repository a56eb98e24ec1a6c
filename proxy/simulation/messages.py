"""Anthropic's messages, and their token count.

`max_tokens` is a limit here and never a length, unlike in OpenAI's APIs: it is required, so callers set it generously.
"""

from typing import Any

import msgspec
from aiohttp import web

from proxy.simulation.call import Call
from proxy.simulation.errors import ApiError
from proxy.simulation.events import HOLE, EventStream, TokenEvent, event
from proxy.simulation.generation import Generation, Tool, call_tool, choose, count_tokens, requested_length, say

_PING = event({"type": "ping"}, "ping")
_BLOCK_STOP = event({"type": "content_block_stop", "index": 0}, "content_block_stop")
_MESSAGE_STOP = event({"type": "message_stop"}, "message_stop")


async def messages(call: Call) -> web.StreamResponse:
    body = await call.json()
    await call.admit(body.get("model"))
    generation = _generate(call, body)
    if body.get("stream"):
        return await _stream(call, generation)
    await call.pace.whole(generation.tokens)
    return await call.answer(_message(call, generation))


async def count_message_tokens(call: Call) -> web.StreamResponse:
    body = await call.json()
    await call.admit(body.get("model"))
    await call.pace.first()
    return await call.answer({"input_tokens": count_tokens(_prompt(body))})


def _prompt(body: dict[str, Any]) -> list[Any]:
    turns = body.get("messages")
    if not isinstance(turns, list) or not turns:
        raise ApiError(400, "messages: at least one message is required")
    return [body.get("system"), body.get("tools"), turns]


def _generate(call: Call, body: dict[str, Any]) -> Generation:
    prompt = _prompt(body)
    limit = requested_length(body, "max_tokens")
    if limit is None:
        raise ApiError(400, "max_tokens: Field required")
    tools = _tools(body)
    choice = body.get("tool_choice")
    choice = choice if isinstance(choice, dict) else {}
    if tools and choice.get("type") != "none" and not _ends_with_result(body["messages"][-1]):
        return call_tool(choose(tools, choice.get("name")), prompt=prompt)
    default = call.behaviour.tokens
    return say(min(limit, default), limited=limit < default, prompt=prompt)


def _tools(body: dict[str, Any]) -> list[Tool]:
    try:
        return [Tool(str(tool["name"]), tool.get("input_schema")) for tool in body.get("tools") or ()]
    except (AttributeError, KeyError, TypeError):
        raise ApiError(400, "tools: expected tools, each with a name") from None


def _ends_with_result(turn: object) -> bool:
    content = turn.get("content") if isinstance(turn, dict) else None
    return isinstance(content, list) and any(
        isinstance(block, dict) and block.get("type") == "tool_result" for block in content
    )


def _stop_reason(generation: Generation) -> str:
    if generation.tool is not None:
        return "tool_use"
    return "max_tokens" if generation.limited else "end_turn"


def _usage(generation: Generation, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": generation.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
    }


def _envelope(call: Call, generation: Generation, output_tokens: int) -> dict[str, Any]:
    return {
        "id": call.new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**_usage(generation, output_tokens), "service_tier": "standard"},
    }


def _message(call: Call, generation: Generation) -> dict[str, Any]:
    block: dict[str, Any]
    if generation.tool is None:
        block = {"type": "text", "text": generation.text}
    else:
        arguments = msgspec.Raw(generation.text.encode())
        block = {"type": "tool_use", "id": call.new_id("toolu_"), "name": generation.tool, "input": arguments}
    envelope = _envelope(call, generation, generation.tokens)
    return {**envelope, "content": [block], "stop_reason": _stop_reason(generation)}


async def _stream(call: Call, generation: Generation) -> web.StreamResponse:
    block: dict[str, Any] = {"type": "text", "text": ""}
    delta = {"type": "text_delta", "text": HOLE}
    if generation.tool is not None:
        block = {"type": "tool_use", "id": call.new_id("toolu_"), "name": generation.tool, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": HOLE}
    token = TokenEvent({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")
    opening = {"type": "message_start", "message": _envelope(call, generation, 1)}
    ending = {
        "type": "message_delta",
        "delta": {"stop_reason": _stop_reason(generation), "stop_sequence": None},
        "usage": _usage(generation, generation.tokens),
    }
    await call.pace.first()
    stream = await EventStream.begin(call.request)
    block_start = {"type": "content_block_start", "index": 0, "content_block": block}
    await stream.send(event(opening, "message_start"), event(block_start, "content_block_start"), _PING)
    await call.pour(stream, generation.pieces, token.fill)
    await stream.send(_BLOCK_STOP, event(ending, "message_delta"), _MESSAGE_STOP)
    return stream
