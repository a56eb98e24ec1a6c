"""The APIs that can be measured: how each is asked, and where its answers have their tokens.

A token is counted where an event carries some text, reasoning or arguments of a tool: the events that open an answer
(a role, an empty block) are no tokens, though many benchmarks time the first of them.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

import msgspec

Message = Mapping[str, Any]
ANTHROPIC_VERSION = "2023-06-01"


class Read(msgspec.Struct, frozen=True):
    """What one event means."""

    token: bool = False  # it carries at least one
    tokens: int | None = None  # how many the whole answer has so far, if it says so
    ends: bool = False
    error: str | None = None


# What a decoder makes of bytes that are not of the dialect: invalid UTF-8 and bottomless nesting among them.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
NOTHING = Read()
_TOKEN = Read(token=True)
_END = Read(ends=True)


class Dialect(Protocol):
    """One API. The readers raise one of UNREADABLE for what is not of it."""

    path: str  # below the base URL that an SDK of the vendor's takes

    def headers(self, key: str | None) -> dict[str, str]: ...

    def body(self, model: str, messages: Sequence[Message], tokens: int, *, stream: bool) -> dict[str, Any]: ...

    def event(self, data: bytes) -> Read:
        """What the data of one server-sent event means."""

    def whole(self, body: bytes) -> Read:
        """What an answer that was not streamed says."""


Tokens = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]


class _Usage(msgspec.Struct):
    completion_tokens: Tokens | None = None  # of chat completions
    output_tokens: Tokens | None = None  # of the others


class _Error(msgspec.Struct):
    message: str = "no message"


class _ErrorBody(msgspec.Struct):
    error: _Error | str


def error_text(body: bytes) -> str:
    """What the body of an error says, in any of the dialects; as it stands where it is none of theirs."""
    try:
        error = msgspec.json.decode(body, type=_ErrorBody).error
    except UNREADABLE:
        return body.decode(errors="replace")
    return error if isinstance(error, str) else error.message


class _Delta(msgspec.Struct):
    content: Any = None
    refusal: Any = None
    reasoning: Any = None
    reasoning_content: Any = None
    tool_calls: Any = None

    def has_token(self) -> bool:
        return bool(self.content or self.reasoning_content or self.reasoning or self.refusal) or any(
            map(_has_arguments, self.tool_calls or ())
        )


def _has_arguments(call: object) -> bool:
    """The name of a tool alone opens the answer, as a role does."""
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and bool(function.get("arguments"))


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None

    def has_token(self) -> bool:
        return self.delta is not None and self.delta.has_token()


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class _Counted(msgspec.Struct):
    usage: _Usage | None = None
    error: Any = None

    def output_tokens(self) -> int | None:
        return None if self.usage is None else self.usage.output_tokens


def _whole(body: bytes, count: str) -> Read:
    """`count`: which of the fields of `usage` has the answer's tokens."""
    counted = msgspec.json.decode(body, type=_Counted)
    if counted.error is not None:
        return Read(error=error_text(body))
    return Read(tokens=None if counted.usage is None else getattr(counted.usage, count), ends=True)


def _bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"authorization": f"Bearer {key}"}


class Chat:
    """OpenAI's chat completions, which most others speak too."""

    path = "/chat/completions"

    def __init__(self, tokens_field: str = "max_tokens") -> None:
        self._tokens_field = tokens_field
        self._chunk = msgspec.json.Decoder(_Chunk)

    def headers(self, key: str | None) -> dict[str, str]:
        return _bearer(key)

    def body(self, model: str, messages: Sequence[Message], tokens: int, *, stream: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"model": model, "messages": messages, self._tokens_field: tokens}
        return {**body, "stream": True, "stream_options": {"include_usage": True}} if stream else body

    def event(self, data: bytes) -> Read:
        if data == b"[DONE]":
            return _END
        chunk = self._chunk.decode(data)
        if chunk.error is not None:
            return Read(error=error_text(data))
        usage = None if chunk.usage is None else chunk.usage.completion_tokens
        if not chunk.choices:
            return NOTHING if usage is None else Read(tokens=usage)
        choice = chunk.choices[0]
        if choice.finish_reason is None and usage is None:  # nearly all of them
            return _TOKEN if choice.has_token() else NOTHING
        return Read(token=choice.has_token(), tokens=usage, ends=choice.finish_reason is not None)

    def whole(self, body: bytes) -> Read:
        return _whole(body, "completion_tokens")


class _Response(_Counted):
    pass


class _ResponseEvent(msgspec.Struct):
    type: str
    delta: Any = None
    response: _Response | None = None


class Responses:
    """OpenAI's responses."""

    path = "/responses"

    def headers(self, key: str | None) -> dict[str, str]:
        return _bearer(key)

    def body(self, model: str, messages: Sequence[Message], tokens: int, *, stream: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"model": model, "input": messages, "max_output_tokens": tokens, "store": False}
        return {**body, "stream": True} if stream else body

    def event(self, data: bytes) -> Read:
        event = msgspec.json.decode(data, type=_ResponseEvent)
        if event.type.endswith(".delta"):
            return _TOKEN if event.delta else NOTHING
        if event.type in ("response.completed", "response.incomplete"):
            return Read(tokens=event.response.output_tokens() if event.response else None, ends=True)
        if event.type == "error":
            return Read(error=_message(msgspec.json.decode(data)))  # the error itself, or around it
        if event.type == "response.failed":
            return Read(error=_message(event.response and event.response.error))
        return NOTHING

    def whole(self, body: bytes) -> Read:
        return _whole(body, "output_tokens")


class _Block(msgspec.Struct):
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None


class _MessageEvent(_Counted, kw_only=True):
    type: str
    delta: _Block | None = None


class Messages:
    """Anthropic's messages. Its SDK's base URL has no `/v1`; one that has it is understood as well."""

    path = "/v1/messages"

    def __init__(self) -> None:
        self._event = msgspec.json.Decoder(_MessageEvent)

    def headers(self, key: str | None) -> dict[str, str]:
        version = {"anthropic-version": ANTHROPIC_VERSION}
        return version if key is None else {"x-api-key": key, **version}

    def body(self, model: str, messages: Sequence[Message], tokens: int, *, stream: bool) -> dict[str, Any]:
        system = [block for message in messages if message["role"] == "system" for block in _blocks(message["content"])]
        turns = [message for message in messages if message["role"] != "system"]
        body: dict[str, Any] = {"model": model, "messages": turns, "max_tokens": tokens}
        return body | ({"system": system} if system else {}) | ({"stream": True} if stream else {})

    def event(self, data: bytes) -> Read:
        event = self._event.decode(data)
        match event.type:
            case "content_block_delta":
                delta = event.delta
                return _TOKEN if delta and (delta.text or delta.thinking or delta.partial_json) else NOTHING
            case "message_delta":
                return Read(tokens=event.output_tokens())
            case "message_stop":
                return _END
            case "error":
                return Read(error=error_text(data))
            case _:
                return NOTHING

    def whole(self, body: bytes) -> Read:
        return _whole(body, "output_tokens")


def _blocks(content: object) -> list[object]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _message(error: object) -> str:
    """The message of an error object."""
    if not isinstance(error, dict):
        return "no message"
    return str(error["message"]) if "message" in error else _message(error.get("error"))


DIALECTS: Mapping[str, type[Chat] | type[Responses] | type[Messages]] = {
    "chat": Chat,
    "responses": Responses,
    "messages": Messages,
}
