"""OpenAI's chat completions."""

from typing import Any

from aiohttp import web

from proxy.simulation.call import Call
from proxy.simulation.errors import ApiError
from proxy.simulation.events import HOLE, EventStream, TokenEvent, event
from proxy.simulation.generation import Generation, Tool, call_tool, choose, requested_length, say

_DONE = b"data: [DONE]\n\n"


async def chat_completions(call: Call) -> web.StreamResponse:
    body = await call.json()
    await call.admit(body.get("model"))
    generation = _generate(call, body)
    if body.get("stream"):
        return await _stream(call, body, generation)
    await call.pace.whole(generation.tokens)
    return await call.answer(_completion(call, generation))


def _generate(call: Call, body: dict[str, Any]) -> Generation:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages: expected at least one message", param="messages")
    limit = requested_length(body, "max_completion_tokens", "max_tokens")
    tools = _tools(body)
    ends_with_result = isinstance(messages[-1], dict) and messages[-1].get("role") == "tool"
    if tools and body.get("tool_choice") != "none" and not ends_with_result:
        return call_tool(choose(tools, _named_choice(body.get("tool_choice"))), prompt=messages)
    default = call.behaviour.tokens
    return say(limit or default, limited=limit is not None and limit < default, prompt=messages)


def _tools(body: dict[str, Any]) -> list[Tool]:
    try:
        functions = [tool["function"] for tool in body.get("tools") or () if tool["type"] == "function"]
        return [Tool(str(function["name"]), function.get("parameters")) for function in functions]
    except (AttributeError, KeyError, TypeError):
        raise ApiError(400, "tools: expected functions, each with a name", param="tools") from None


def _named_choice(choice: object) -> object:
    function = choice.get("function") if isinstance(choice, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _finish_reason(generation: Generation) -> str:
    if generation.tool is not None:
        return "tool_calls"
    return "length" if generation.limited else "stop"


def _usage(generation: Generation) -> dict[str, Any]:
    return {
        "prompt_tokens": generation.prompt_tokens,
        "completion_tokens": generation.tokens,
        "total_tokens": generation.prompt_tokens + generation.tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _head(call: Call, object_: str) -> dict[str, Any]:
    return {
        "id": call.new_id("chatcmpl-"),
        "object": object_,
        "created": call.now_s,
        "model": call.model,
        "service_tier": "default",
        "system_fingerprint": f"fp_{call.behaviour.name}",
    }


def _completion(call: Call, generation: Generation) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    if generation.tool is None:
        message["content"] = generation.text
    else:
        function = {"name": generation.tool, "arguments": generation.text}
        message["tool_calls"] = [{"id": call.new_id("call_"), "type": "function", "function": function}]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(generation)}
    return {**_head(call, "chat.completion"), "choices": [choice], "usage": _usage(generation)}


async def _stream(call: Call, body: dict[str, Any], generation: Generation) -> web.StreamResponse:
    options = body.get("stream_options")
    include_usage = isinstance(options, dict) and bool(options.get("include_usage"))
    head = _head(call, "chat.completion.chunk")
    if include_usage:
        head["usage"] = None  # in every chunk but the last

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**head, "choices": [choice]}

    first, token = _deltas(call, generation)
    await call.pace.first()
    stream = await EventStream.begin(call.request)
    await stream.write(event(chunk(first)))
    await call.pour(stream, generation.pieces, TokenEvent(chunk(token)).fill)
    await stream.write(event(chunk({}, _finish_reason(generation))))
    if include_usage:
        await stream.write(event({**head, "choices": [], "usage": _usage(generation)}))
    await stream.write(_DONE)
    return stream


def _deltas(call: Call, generation: Generation) -> tuple[dict[str, Any], dict[str, Any]]:
    """The delta that opens the message, and the one for each token."""
    if generation.tool is None:
        return {"role": "assistant", "content": "", "refusal": None}, {"content": HOLE}
    function = {"name": generation.tool, "arguments": ""}
    opened = {"index": 0, "id": call.new_id("call_"), "type": "function", "function": function}
    first = {"role": "assistant", "content": None, "tool_calls": [opened]}
    return first, {"tool_calls": [{"index": 0, "function": {"arguments": HOLE}}]}
