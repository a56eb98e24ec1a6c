"""OpenAI's responses: made, streamed, remembered, read again and deleted.

A response is remembered by the upstream that made it, and a `previous_response_id` that it does not know is refused: a
proxy in front of several upstreams has to send a conversation back to where it began.
"""

from typing import Any

import msgspec
from aiohttp import web

from proxy.simulation.call import Call
from proxy.simulation.errors import ApiError
from proxy.simulation.events import EventStream, event
from proxy.simulation.generation import Generation, Tool, call_tool, choose, requested_length, say

_FORMAT_TEXT = {"format": {"type": "text"}}


async def create_response(call: Call) -> web.StreamResponse:
    body = await call.json()
    await call.admit(body.get("model"))
    generation = _generate(call, body)
    response = _Response(call, body, generation)
    if body.get("stream"):
        return await response.stream()
    await call.pace.whole(generation.tokens)
    return await call.answer(response.remember())


async def get_response(call: Call) -> web.StreamResponse:
    response_id = call.request.match_info["id"]
    stored = call.memory.responses.get(response_id)
    if stored is None:
        raise _unknown(response_id)
    return await call.answer(stored)


async def delete_response(call: Call) -> web.StreamResponse:
    response_id = call.request.match_info["id"]
    if call.memory.responses.pop(response_id) is None:
        raise _unknown(response_id)
    return await call.answer({"id": response_id, "object": "response", "deleted": True})


def _unknown(response_id: str) -> ApiError:
    return ApiError(404, f"Response with id '{response_id}' not found.")


def _generate(call: Call, body: dict[str, Any]) -> Generation:
    asked = body.get("input")
    if not isinstance(asked, str | list) or not asked:
        raise ApiError(400, "input: expected text or items", param="input")
    previous = body.get("previous_response_id")
    if previous is not None and previous not in call.memory.responses:
        message = f"Previous response with id '{previous}' not found."
        raise ApiError(400, message, code="previous_response_not_found", param="previous_response_id")
    limit = requested_length(body, "max_output_tokens")
    tools = _tools(body)
    choice = body.get("tool_choice")
    if tools and choice != "none" and not _ends_with_result(asked):
        return call_tool(choose(tools, choice.get("name") if isinstance(choice, dict) else None), prompt=asked)
    default = call.behaviour.tokens
    return say(limit or default, limited=limit is not None and limit < default, prompt=asked)


def _tools(body: dict[str, Any]) -> list[Tool]:
    try:
        functions = [tool for tool in body.get("tools") or () if tool["type"] == "function"]
        return [Tool(str(function["name"]), function.get("parameters")) for function in functions]
    except (AttributeError, KeyError, TypeError):
        raise ApiError(400, "tools: expected tools, each with a type and a name", param="tools") from None


def _ends_with_result(asked: str | list[Any]) -> bool:
    last = asked[-1]
    return isinstance(last, dict) and last.get("type") == "function_call_output"


class _Response:
    """One response as it grows: begun, its one item added, filled and done, then completed or incomplete."""

    def __init__(self, call: Call, body: dict[str, Any], generation: Generation) -> None:
        self._call = call
        self._body = body
        self._generation = generation
        self._id = call.new_id("resp_")
        self._item_id = call.new_id("msg_" if generation.tool is None else "fc_")
        self._call_id = call.new_id("call_")
        self._sequence_number = 0

    def remember(self) -> bytes:
        response = msgspec.json.encode(self._ended())
        if self._body.get("store", True):
            self._call.memory.responses.put(self._id, response)
        return response

    async def stream(self) -> web.StreamResponse:
        await self._call.pace.first()
        stream = await EventStream.begin(self._call.request)
        begun = self._begun()
        await stream.send(self._event("response.created", response=begun))
        await stream.send(self._event("response.in_progress", response=begun))
        await stream.send(self._event("response.output_item.added", output_index=0, item=self._item("", "in_progress")))
        await (self._stream_text(stream) if self._generation.tool is None else self._stream_arguments(stream))
        item = self._item(self._generation.text, self._status)
        await stream.send(self._event("response.output_item.done", output_index=0, item=item))
        await stream.send(self._event(f"response.{self._status}", response=msgspec.Raw(self.remember())))
        return stream

    async def _stream_text(self, stream: EventStream) -> None:
        place = {"item_id": self._item_id, "output_index": 0, "content_index": 0}

        def delta(token: str) -> bytes:
            return self._event("response.output_text.delta", **place, delta=token, logprobs=[])

        text = self._generation.text
        await stream.send(self._event("response.content_part.added", **place, part=_part("")))
        await self._call.pour(stream, self._generation.pieces, delta)
        await stream.send(self._event("response.output_text.done", **place, text=text, logprobs=[]))
        await stream.send(self._event("response.content_part.done", **place, part=_part(text)))

    async def _stream_arguments(self, stream: EventStream) -> None:
        place = {"item_id": self._item_id, "output_index": 0}

        def delta(piece: str) -> bytes:
            return self._event("response.function_call_arguments.delta", **place, delta=piece)

        await self._call.pour(stream, self._generation.pieces, delta)
        done = {"name": self._generation.tool, "arguments": self._generation.text}
        await stream.send(self._event("response.function_call_arguments.done", **place, **done))

    def _event(self, name: str, /, **fields: Any) -> bytes:
        payload = {"type": name, "sequence_number": self._sequence_number, **fields}
        self._sequence_number += 1
        return event(payload, name)

    @property
    def _status(self) -> str:
        return "incomplete" if self._generation.limited else "completed"

    def _item(self, text: str, status: str) -> dict[str, Any]:
        if self._generation.tool is None:
            content = [_part(text)] if text else []
            return {"id": self._item_id, "type": "message", "status": status, "role": "assistant", "content": content}
        called = {"call_id": self._call_id, "name": self._generation.tool, "arguments": text}
        return {"id": self._item_id, "type": "function_call", "status": status, **called}

    def _begun(self) -> dict[str, Any]:
        body = self._body
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._call.now_s,
            "completed_at": None,
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "model": self._call.model,
            "output": [],
            "parallel_tool_calls": body.get("parallel_tool_calls", True),
            "previous_response_id": body.get("previous_response_id"),
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": body.get("store", True),
            "temperature": body.get("temperature", 1.0),
            "text": body.get("text") or _FORMAT_TEXT,
            "tool_choice": body.get("tool_choice") or "auto",
            "tools": body.get("tools") or [],
            "top_p": body.get("top_p", 1.0),
            "truncation": "disabled",
            "usage": None,
            "user": None,
            "metadata": body.get("metadata") or {},
        }

    def _ended(self) -> dict[str, Any]:
        generation = self._generation
        usage = {
            "input_tokens": generation.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": generation.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": generation.prompt_tokens + generation.tokens,
        }
        return {
            **self._begun(),
            "completed_at": None if generation.limited else self._call.now_s,
            "status": self._status,
            "incomplete_details": {"reason": "max_output_tokens"} if generation.limited else None,
            "output": [self._item(generation.text, self._status)],
            "usage": usage,
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
