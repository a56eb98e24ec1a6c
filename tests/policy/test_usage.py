"""Usage as the vendors' answers tell it, whole, cut, chunked, and talked about."""

import gzip
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.policy.usage import HEAD_BYTES, TAIL_BYTES, Meter, Usage, usage_told


def used_tokens(head: bytes, tail: bytes) -> int | None:
    """What rate limits count of it."""
    told = usage_told(head, tail)
    return None if told is None else told.limited


def events(*payloads: object, line_end: str = "\n", named: bool = False, spaced: bool = False) -> bytes:
    """Server-sent events as vendors write them, with a space behind each comma or without."""
    text = ""
    for payload in payloads:
        written = payload if isinstance(payload, str) else compact(payload, spaced=spaced)
        name = f"event: {payload['type']}{line_end}" if named else ""
        text += f"{name}data: {written}{line_end}{line_end}"
    return text.encode()


def compact(payload: object, *, spaced: bool = False) -> str:
    return json.dumps(payload, ensure_ascii=False, separators=(", ", ": ") if spaced else (",", ":"))


def read(body: bytes) -> int | None:
    """What is read of a whole body by one who keeps no more of it than is asked for."""
    return used_tokens(body[:HEAD_BYTES], body[-TAIL_BYTES:])


def chunked(body: bytes, sizes: list[int]) -> bytes:
    """The body in HTTP's chunks of these sizes, again and again."""
    sent, at, turn = b"", 0, 0
    while at < len(body):
        piece = body[at : at + sizes[turn % len(sizes)]]
        sent += b"%x\r\n%b\r\n" % (len(piece), piece)
        at, turn = at + len(piece), turn + 1
    return sent + b"0\r\n\r\n"


CHAT_USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 12, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 4, "accepted_prediction_tokens": 0},
}
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}],
    "usage": CHAT_USAGE,
    "service_tier": "default",
}
CHAT_CHUNK = {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": "Hel"}}], "usage": None}
CHAT_LAST = {"id": "chatcmpl-1", "choices": [], "usage": CHAT_USAGE}

RESPONSES_USAGE = {
    "input_tokens": 37,
    "input_tokens_details": {"cached_tokens": 30},
    "output_tokens": 11,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 48,
}
RESPONSE = {"id": "resp_1", "object": "response", "tools": [], "usage": RESPONSES_USAGE, "user": None, "metadata": {}}
RESPONSES_STREAM = (
    {"type": "response.created", "response": {**RESPONSE, "usage": None}},
    {"type": "response.output_text.delta", "delta": "Hi"},
    {"type": "response.completed", "response": RESPONSE},
)

ANTHROPIC_USAGE = {
    "input_tokens": 25,
    "cache_creation_input_tokens": 100,
    "cache_read_input_tokens": 5000,
    "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 15,
    "service_tier": "standard",
}
MESSAGE = {"model": "claude", "id": "msg_1", "type": "message", "content": [{"type": "text", "text": "Hello!"}]}
MESSAGE_START = {"type": "message_start", "message": {**MESSAGE, "usage": {**ANTHROPIC_USAGE, "output_tokens": 1}}}
TEXT_DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}
MESSAGE_STOP = {"type": "message_stop"}


def message_stream(usage: object, deltas: int = 2) -> bytes:
    ending = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    return events(MESSAGE_START, *[TEXT_DELTA] * deltas, ending, MESSAGE_STOP, named=True)


ANSWERS = {
    "chat": (compact(CHAT).encode(), 29),
    "chat, laid out for people": (json.dumps(CHAT, indent=2).encode(), 29),
    "chat, laid out for people on Windows": (json.dumps(CHAT, indent=2).replace("\n", "\r\n").encode(), 29),
    "chat stream": (events(CHAT_CHUNK, CHAT_CHUNK, CHAT_LAST, "[DONE]"), 29),
    "chat stream with CRLF": (events(CHAT_CHUNK, CHAT_LAST, "[DONE]", line_end="\r\n", spaced=True), 29),
    "responses": (compact(RESPONSE).encode(), 48),
    "responses stream": (events(*RESPONSES_STREAM, named=True), 48),
    "messages": (compact({**MESSAGE, "usage": ANTHROPIC_USAGE}).encode(), 140),
    "messages stream of old": (message_stream({"output_tokens": 15}), 140),
    "messages stream of today": (message_stream(ANTHROPIC_USAGE), 140),
    "long messages stream": (message_stream({"output_tokens": 15}, deltas=500), 140),
    "messages stream after a search": (message_stream({"input_tokens": 900, "output_tokens": 15}), 1015),
    "messages stream with nulls": (message_stream({"input_tokens": None, "output_tokens": 15}), 140),
    "embeddings": (
        compact({"data": [{"embedding": [0.25, -1e-5]}], "usage": {"prompt_tokens": 8, "total_tokens": 8}}).encode(),
        8,
    ),
    "gemini, which thinks": (
        compact({"choices": [], "usage": {"completion_tokens": 0, "prompt_tokens": 21, "total_tokens": 81}}).encode(),
        81,
    ),
    "vllm, counting on": (
        events(*[{**CHAT_LAST, "usage": {**CHAT_USAGE, "total_tokens": 19 + n}} for n in range(200)], "[DONE]"),
        218,
    ),
    "without a sum": (compact({"usage": {"prompt_tokens": 5, "completion_tokens": 3}}).encode(), 8),
    "rerank": (compact({"usage": {"total_tokens": 12}}).encode(), 12),
    "nothing used": (compact({"usage": {"total_tokens": 0}}).encode(), 0),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_each_vendors_answers_tell(name):
    body, tokens = ANSWERS[name]
    assert read(body) == tokens


@pytest.mark.parametrize(
    ("name", "usage"),
    {
        "chat": Usage(19, 10, 29),
        "chat stream": Usage(19, 10, 29),
        "responses": Usage(37, 11, 48),
        "messages": Usage(5125, 15, 140),
        "messages stream of old": Usage(5125, 15, 140),
        "messages stream of today": Usage(5125, 15, 140),
        "embeddings": Usage(8, 0, 8),
        "gemini, which thinks": Usage(21, 60, 81),
        "without a sum": Usage(5, 3, 8),
        "rerank": Usage(12, 0, 12),
        "nothing used": Usage(0, 0, 0),
    }.items(),
)
def test_prompt_and_output_are_told_apart(name, usage):
    """The prompt whole, though limits do not count what was read from a cache."""
    body, _ = ANSWERS[name]
    assert usage_told(body[:HEAD_BYTES], body[-TAIL_BYTES:]) == usage
    assert Meter(body, b"application/json").usage() == usage, "however it is found"


def test_parts_beyond_their_sum_are_cut_to_it():
    told = {"prompt_tokens": 50, "completion_tokens": -3, "total_tokens": 29}
    assert usage_told(b"", compact({"usage": told}).encode()) == Usage(29, 0, 29)
    assert Meter(compact({"usage": told}).encode(), b"").usage() == Usage(29, 0, 29)


def test_an_answer_without_a_word_is_estimated_by_its_events_or_its_length():
    assert Meter(b"x" * 400, b"application/json").estimate(7, events=0) == 107
    assert Meter(b"x" * 400, b"text/event-stream").estimate(7, events=3) == 10
    assert Meter(b"x" * 400, b"audio/mpeg").estimate(7, events=0) == 7


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 12, 16, 100, 4096])
def test_chunks_cut_anywhere_change_nothing(name, size):
    """Small ones are many, so their answers must be short to be read."""
    body, tokens = ANSWERS[name]
    if size < 16:
        body = body[:600] + body[-600:] if name == "long messages stream" else body[-2000:]
    assert used_tokens(chunked(body, [size]), chunked(body, [size])) == tokens


@given(st.sampled_from(sorted(ANSWERS)), st.lists(st.integers(1, 400), min_size=1, max_size=8))
def test_chunks_of_any_sizes_change_nothing(name, sizes):
    body, tokens = ANSWERS[name]
    sent = chunked(body, [max(size, 5) for size in sizes])
    assert used_tokens(sent[:HEAD_BYTES], sent[-TAIL_BYTES:]) == tokens


@given(st.sampled_from(sorted(ANSWERS)), st.integers(0, 3000))
def test_a_tail_begun_anywhere_tells_the_same_or_nothing(name, missing):
    """Of a stream, "nothing" is what its head still tells."""
    body, tokens = ANSWERS[name]
    told = used_tokens(body[:HEAD_BYTES], body[missing:])
    if missing <= body.rfind(b'"usage"'):
        assert told == tokens
    else:
        assert told in (None, 126)


def test_a_chunk_size_may_have_an_extension():
    body = b'{"usage":{"total_tokens":1\r\n2;name=value\r\n2}\r\n1 ; x\r\n}\r\n0\r\n\r\n'
    assert used_tokens(b"", body) == 12


# --- what tells nothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"data: [DONE]\n\n",
        events(CHAT_CHUNK, CHAT_CHUNK, "[DONE]"),
        gzip.compress(ANSWERS["chat"][0]),
        compact({"usageMetadata": {"totalTokenCount": 5}}).encode(),
        compact({"usage": {"type": "duration", "seconds": 3}}).encode(),
        compact({"usage": {"inputTokens": 5, "outputTokens": 3}}).encode(),
        compact({"usage": [1, 2]}).encode(),
        compact({"usage": "12"}).encode(),
        compact({"usage": 12}).encode(),
        compact({"usage": {}}).encode(),
        compact({"usage": {"details": {"total_tokens": 5}}}).encode(),
        b'"usage"',
        b'"usage":',
        b'"usage":{',
        b'"usage":{"total_tokens":1',
        b'"usage":{"total_tokens":1,}',
        b'"usage":{"total_tokens":01}',
        b'"usage":{"total_tokens":-1}',
        b'"usage":{"total_tokens":1.5}',
        b'"usage":{"total_tokens":true}',
        b'"usage":{"total_tokens":"5"}',
        b'"usage":{"total_tokens":NaN}',
        b'"usage":{"total_tokens":100000001}',
        b'"usage":{"total_tokens":' + b"9" * 9000 + b"}",
        b'"usage":{"prompt_tokens":5,"completion_tokens":-4}',
        b'"usage":{"output_tokens":5}',
        b'"usage":' + b"[" * 20_000,
        b'"usage":{"a":' + b'{"a":' * 3000,
        b'"usage":{"a":' + b"[" * 4000,
    ],
)
def test_what_says_nothing_tells_nothing(body):
    for said in (body, body + b' "other_tokens":1'):
        assert used_tokens(b"", said) is None
        assert used_tokens(said, b"") is None
        assert used_tokens(said, said) is None


@pytest.mark.parametrize("keep", range(len(compact(CHAT_USAGE))))
def test_a_usage_cut_short_is_none(keep):
    body = b'{"usage":' + compact(CHAT_USAGE).encode()[:keep]
    assert used_tokens(body, body) is None


def test_a_messages_stream_that_ended_early_tells_its_prompt():
    body = events(MESSAGE_START, *[TEXT_DELTA] * 400, named=True)
    assert read(body) == 126
    assert used_tokens(b"", body[-TAIL_BYTES:]) is None


def test_only_the_ends_are_looked_at():
    body = ANSWERS["chat"][0]
    assert used_tokens(body, body + b" " * TAIL_BYTES) is None
    late = b" " * HEAD_BYTES + events(MESSAGE_START)
    assert used_tokens(late, events({"type": "message_delta", "usage": {"output_tokens": 5}})) is None


# --- usage that is only talked about -------------------------------------------------------------------------------

TALK = [
    '"usage":{"total_tokens":999999}',
    '{"usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 999999}}',
    'data: {"type":"message_start","message":{"usage":{"input_tokens":999999}}}',
    '\\"usage\\":{\\"total_tokens\\":999999}',
    '\r\n\r\n"usage":{"total_tokens":999999}\r\n',
    "usage",
    '"message_start"',
]


def answers_that_say(text: str) -> dict[str, tuple[bytes, int]]:
    """Answers of each vendor with a text of the model's, and what they used."""
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
    ending = {"type": "message_delta", "delta": {"stop_reason": text}, "usage": {"output_tokens": 15}}
    return {
        "chat": (compact({"content": text, "usage": CHAT_USAGE, "note": text}).encode(), 29),
        "chat stream": (events({**CHAT_CHUNK, "text": text}, CHAT_LAST, {**CHAT_CHUNK, "text": text}, "[DONE]"), 29),
        "messages": (events(MESSAGE_START, delta, ending, MESSAGE_STOP), 140),
        "key": (compact({"usage": {"total_tokens": 7}, text + '"usage': {"total_tokens": 999999}}).encode(), 7),
    }


@given(st.text(max_size=60) | st.sampled_from(TALK))
@example("\\")
def test_no_text_is_taken_for_usage(text):
    for body, tokens in answers_that_say(text).values():
        assert used_tokens(body, body) == tokens


@pytest.mark.parametrize("text", TALK)
def test_talk_without_usage_tells_nothing(text):
    body = compact({"content": text, text: 1}).encode()
    assert used_tokens(body, body) is None
    assert used_tokens(b"", events(CHAT_CHUNK, {"text": text})) is None


def test_a_schema_with_a_usage_in_it_is_none():
    schema = {"properties": {"usage": {"type": "object", "properties": {"total_tokens": {"type": "integer"}}}}}
    body = compact({"usage": CHAT_USAGE, "tools": [schema] * 3}).encode()
    assert used_tokens(b"", body) == 29


def test_the_last_usage_counts():
    told = [{"usage": {"total_tokens": tokens}} for tokens in (1, 2, 3)]
    assert used_tokens(b"", events(*told, CHAT_CHUNK)) == 3


def test_so_many_are_looked_into_and_no_more():
    schemas = [{"usage": {"properties": {"total_tokens": {"type": "integer"}}}}]
    assert used_tokens(b"", events({"usage": {"total_tokens": 5}}, *schemas * 7)) == 5
    assert used_tokens(b"", events({"usage": {"total_tokens": 5}}, *schemas * 8)) is None
    assert used_tokens(b"", events({"usage": {"total_tokens": 5}}, *[CHAT_CHUNK] * 50)) == 5, "a null costs nothing"


# --- whatever the bytes --------------------------------------------------------------------------------------------

WORDS = [b'"usage"', b'"message_start"', b'"total_tokens"', b'"output_tokens"', b"null", b"5", b"1e999", b"\r\n5\r\n"]
SIGNS = [b":", b"{", b"}", b",", b"\\", b"\r\n", b'"', b"[", b"]", b"-", b" ", b"\xff", b"\x00"]
SCRAPS = st.sampled_from(WORDS + SIGNS)
BYTES = st.binary(max_size=200) | st.lists(SCRAPS, max_size=40).map(b"".join)


@given(BYTES, BYTES)
def test_no_bytes_raise_or_tell_what_cannot_be(head, tail):
    tokens = used_tokens(head, tail)
    assert tokens is None or 0 <= tokens <= 500_000_000


@given(st.sampled_from(sorted(ANSWERS)), st.integers(0, 3000), st.binary(min_size=1, max_size=3))
def test_broken_bytes_raise_nothing(name, at, noise):
    body = ANSWERS[name][0]
    broken = body[:at] + noise + body[at + len(noise) :]
    tokens = used_tokens(broken[:HEAD_BYTES], broken[-TAIL_BYTES:])
    assert tokens is None or 0 <= tokens <= 500_000_000
