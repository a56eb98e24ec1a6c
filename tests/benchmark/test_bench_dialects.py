import json
from typing import Any

import msgspec
import pytest

from proxy.benchmark.dialects import DIALECTS, Read, error_text
from tests.benchmark.conftest import target_of

NOTHING, TOKEN, END = Read(), Read(token=True), Read(ends=True)


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


CALL = [{"index": 0, "function": {"arguments": '{"a'}}]
CHAT: list[tuple[Any, Read]] = [
    (delta(role="assistant"), NOTHING),
    (delta(role="assistant", content="", refusal=None), NOTHING),
    (delta(role="assistant", content=None, tool_calls=None), NOTHING),
    (delta(role="assistant", content="", tool_calls=[]), NOTHING),
    (delta(), NOTHING),
    (delta(content="zebra"), TOKEN),
    (delta(content=" "), TOKEN),
    (delta(role="assistant", content="zebra"), TOKEN),
    (delta(content=None, reasoning_content="hm"), TOKEN),
    (delta(content="", reasoning="hm"), TOKEN),
    (delta(tool_calls=CALL), TOKEN),
    (delta(refusal="no"), TOKEN),
    ({"choices": []}, NOTHING),
    ({"choices": [], "usage": None}, NOTHING),
    ({"choices": None, "usage": None}, NOTHING),
    ({"object": "chat.completion.chunk"}, NOTHING),
    ({"choices": [{"index": 0}]}, NOTHING),
    ({"choices": [{"index": 0, "delta": None}]}, NOTHING),
    ({"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}, END),
    ({"choices": [{"delta": {}, "finish_reason": "stop"}]}, END),
    ({"choices": [{"delta": {"content": "a"}, "finish_reason": "length"}]}, Read(token=True, ends=True)),
    ({**delta(content="a"), "usage": None}, TOKEN),
    ({**delta(content="a"), "usage": {"completion_tokens": 3}}, Read(token=True, tokens=3)),
    ({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 20}}, Read(tokens=20)),
    ({"choices": None, "usage": {"completion_tokens": 20}}, Read(tokens=20)),
    ({"usage": {"prompt_tokens": 9}}, NOTHING),
    ({**delta(content="a"), "error": None}, TOKEN),
    ({"error": {"message": "overloaded", "code": 502}}, Read(error="overloaded")),
    ({"error": {"message": "overloaded"}, "choices": []}, Read(error="overloaded")),
    ({"error": "overloaded"}, Read(error="overloaded")),
    ({"error": {"code": 502}}, Read(error="no message")),
]


def _typed(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


RESPONSES: list[tuple[Any, Read]] = [
    (_typed("response.created", response={"usage": None, "error": None}), NOTHING),
    (_typed("response.output_item.added", item={"type": "message"}), NOTHING),
    (_typed("response.content_part.added", part={"text": ""}), NOTHING),
    (_typed("response.output_text.delta", delta="zebra"), TOKEN),
    (_typed("response.output_text.delta", delta=""), NOTHING),
    (_typed("response.output_text.delta", delta=None), NOTHING),
    (_typed("response.output_text.done", text="zebra"), NOTHING),
    (_typed("response.reasoning_summary_text.delta", delta="hm"), TOKEN),
    (_typed("response.function_call_arguments.delta", delta="{"), TOKEN),
    (_typed("response.function_call_arguments.done", arguments="{}"), NOTHING),
    (_typed("response.refusal.delta", delta="no"), TOKEN),
    (_typed("response.completed", response={"usage": {"output_tokens": 20}}), Read(tokens=20, ends=True)),
    (_typed("response.incomplete", response={"usage": {"output_tokens": 7}}), Read(tokens=7, ends=True)),
    (_typed("response.completed", response={"usage": None}), END),
    (_typed("response.failed", response={"error": {"code": "server_error", "message": "no"}}), Read(error="no")),
    (_typed("response.failed", response={"error": None}), Read(error="no message")),
    (_typed("error", code="rate_limit", message="slow down"), Read(error="slow down")),
    (_typed("error", error={"message": "slow down"}), Read(error="slow down")),
]

BLOCK = "content_block_delta"
MESSAGES: list[tuple[Any, Read]] = [
    (_typed("message_start", message={"usage": {"output_tokens": 1}}), NOTHING),
    (_typed("content_block_start", index=0, content_block={"type": "text", "text": ""}), NOTHING),
    (_typed("ping"), NOTHING),
    (_typed(BLOCK, delta={"type": "text_delta", "text": "zebra"}), TOKEN),
    (_typed(BLOCK, delta={"type": "text_delta", "text": ""}), NOTHING),
    (_typed(BLOCK, delta={"type": "text_delta", "text": None}), NOTHING),
    (_typed(BLOCK, delta=None), NOTHING),
    (_typed(BLOCK, delta={"type": "thinking_delta", "thinking": "hm"}), TOKEN),
    (_typed(BLOCK, delta={"type": "signature_delta", "signature": "EqQ"}), NOTHING),
    (_typed(BLOCK, delta={"type": "input_json_delta", "partial_json": ""}), NOTHING),
    (_typed(BLOCK, delta={"type": "input_json_delta", "partial_json": '{"a'}), TOKEN),
    (_typed("content_block_stop", index=0), NOTHING),
    (_typed("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 20}), Read(tokens=20)),
    (_typed("message_delta", delta={"stop_reason": "end_turn"}, usage=None), NOTHING),
    (_typed("message_stop"), END),
    (_typed("error", error={"type": "overloaded_error", "message": "Overloaded"}), Read(error="Overloaded")),
    (_typed("something_new", delta={"kind": 1}), NOTHING),
]


@pytest.mark.parametrize(
    ("api", "event", "meant"),
    [(api, *row) for api, rows in (("chat", CHAT), ("responses", RESPONSES), ("messages", MESSAGES)) for row in rows],
    ids=lambda value: json.dumps(value)[:70] if isinstance(value, dict) else None,
)
def test_what_an_event_means(api: str, event: Any, meant: Read) -> None:
    assert DIALECTS[api]().event(json.dumps(event).encode()) == meant


def test_done_ends_a_chat() -> None:
    assert DIALECTS["chat"]().event(b"[DONE]") == END


@pytest.mark.parametrize("api", DIALECTS)
@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b"5", b"<html>", b'"zebra"'])
def test_what_is_not_of_the_api_is_no_json_of_it(api: str, data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        DIALECTS[api]().event(data)


@pytest.mark.parametrize(
    ("api", "fields", "said"),
    [
        ("chat", {"usage": {"prompt_tokens": 9, "completion_tokens": 5}}, Read(tokens=5, ends=True)),
        ("responses", {"error": None, "usage": {"input_tokens": 9, "output_tokens": 6}}, Read(tokens=6, ends=True)),
        ("messages", {"usage": {"input_tokens": 9, "output_tokens": 6}}, Read(tokens=6, ends=True)),
        ("chat", {"usage": {}}, END),
        ("chat", {"usage": None}, END),
        ("messages", {}, END),
        ("chat", {"error": {"message": "overloaded"}}, Read(error="overloaded")),
        ("messages", {"type": "error", "error": {"message": "overloaded"}}, Read(error="overloaded")),
    ],
)
def test_what_a_whole_answer_says(api: str, fields: Any, said: Read) -> None:
    assert DIALECTS[api]().whole(json.dumps({"id": "a", **fields}).encode()) == said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "no such model", "type": "x"}}', "no such model"),
        (b'{"type": "error", "error": {"type": "a", "message": "Overloaded"}}', "Overloaded"),
        (b'{"error": "no such model"}', "no such model"),
        (b'{"detail": "no such model"}', '{"detail": "no such model"}'),
        (b'{"error": {"message": null}}', '{"error": {"message": null}}'),
        (b'{"error": 5}', '{"error": 5}'),
        (b"<html>", "<html>"),
        (b"", ""),
        (b"\xff", "\ufffd"),
        (b'{"error": "\xff"}', '{"error": "\ufffd"}'),
        (b'{"error": {"message": "\xff"}}', '{"error": {"message": "\ufffd"}}'),
    ],
)
def test_the_body_of_an_error_says(body: bytes, said: str) -> None:
    assert error_text(body) == said


def test_the_body_of_an_error_may_be_nested_deeply() -> None:
    body = b'{"a":' * 100_000
    assert error_text(body) == body.decode()


BRIEF, GERMAN = {"type": "text", "text": "Be brief."}, {"type": "text", "text": "In German."}
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "zebra"},
    {"role": "system", "content": "In German."},
]
SHARED = {"model": "m", "messages": TURNS}
INPUT = {"model": "m", "input": TURNS, "max_output_tokens": 5, "store": False}
CLAUDE = {"model": "m", "messages": TURNS[1:2], "system": [BRIEF, GERMAN], "max_tokens": 5}


@pytest.mark.parametrize(
    ("api", "stream", "body"),
    [
        ("chat", False, {**SHARED, "max_tokens": 5}),
        ("chat", True, {**SHARED, "max_tokens": 5, "stream": True, "stream_options": {"include_usage": True}}),
        ("responses", False, INPUT),
        ("responses", True, {**INPUT, "stream": True}),
        ("messages", False, CLAUDE),
        ("messages", True, {**CLAUDE, "stream": True}),
    ],
)
def test_each_api_is_asked_in_its_own_words(api: str, stream: bool, body: dict[str, Any]) -> None:
    assert json.loads(target_of("http://a", api).body(TURNS, 5, stream=stream)) == body


def test_no_system_is_sent_where_there_is_none() -> None:
    assert "system" not in json.loads(target_of("http://a", "messages").body(TURNS[1:2], 5, stream=True))


def test_a_system_message_of_blocks_stays_blocks() -> None:
    turns = [{"role": "system", "content": [BRIEF, GERMAN]}, TURNS[1]]
    assert json.loads(target_of("http://a", "messages").body(turns, 5, stream=True))["system"] == [BRIEF, GERMAN]


def test_fields_replace_those_of_the_api_and_null_removes_one() -> None:
    fields = {"max_tokens": None, "max_completion_tokens": 9, "model": "other", "temperature": 0, "top_p": None}
    body = json.loads(target_of("http://a", fields=fields).body(TURNS, 5, stream=False))
    assert body == {"model": "other", "messages": TURNS, "max_completion_tokens": 9, "temperature": 0}


def test_null_within_a_field_or_a_message_stays() -> None:
    turns = [{"role": "assistant", "content": None}]
    body = json.loads(target_of("http://a", fields={"metadata": {"a": None}}).body(turns, 5, stream=False))
    assert (body["messages"], body["metadata"]) == (turns, {"a": None})


@pytest.mark.parametrize(
    ("api", "key", "headers"),
    [
        ("chat", "sk-1", {"authorization": "Bearer sk-1"}),
        ("responses", "sk-1", {"authorization": "Bearer sk-1"}),
        ("messages", "sk-1", {"x-api-key": "sk-1", "anthropic-version": "2023-06-01"}),
        ("chat", None, {}),
        ("responses", None, {}),
        ("messages", None, {"anthropic-version": "2023-06-01"}),
    ],
)
def test_the_key_goes_where_the_api_has_it(api: str, key: str | None, headers: dict[str, str]) -> None:
    target = target_of("http://a", api, key=key)
    assert target.all_headers == headers
    assert "sk-1" not in repr(target)
    own = target_of("http://a", api, key=key, headers={"x-team": "a", "anthropic-version": "2"})
    assert own.all_headers == {**headers, "x-team": "a", "anthropic-version": "2"}


@pytest.mark.parametrize(
    ("api", "base", "url"),
    [
        ("chat", "http://a/v1", "http://a/v1/chat/completions"),
        ("chat", "http://a/v1/", "http://a/v1/chat/completions"),
        ("chat", "http://a:1", "http://a:1/chat/completions"),
        ("responses", "http://a/v1//", "http://a/v1/responses"),
        ("chat", "http://a/openai/deployments/b", "http://a/openai/deployments/b/chat/completions"),
        ("messages", "http://a", "http://a/v1/messages"),
        ("messages", "http://a/", "http://a/v1/messages"),
        ("messages", "http://a/v1", "http://a/v1/messages"),
        ("messages", "http://a/v1/", "http://a/v1/messages"),
        ("messages", "http://a/anthropic", "http://a/anthropic/v1/messages"),
        ("messages", "http://a/nov1", "http://a/nov1/v1/messages"),
    ],
)
def test_a_base_url_is_taken_as_the_sdk_of_the_vendor_takes_it(api: str, base: str, url: str) -> None:
    assert target_of(base, api).url == url
