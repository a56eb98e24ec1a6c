"""What bodies and events say: regular expressions and msgspec beside the json module and the standard."""

import json
import re
from typing import Any

from hypothesis import strategies as st

from proxy.benchmark.events import Events
from proxy.model.errors import BadRequest
from proxy.policy.model_field import find_model, names_others
from proxy.policy.stateful import ID, ids_in_answer, ids_in_body
from tests.fuzz.mutation import mutated, pieces

JSON_ROWS = (
    b'{"model":"m"}',
    b'{"model": "gpt-4.1", "messages": [{"role": "user", "content": "Sing!"}], "stream": true}',
    b'{"a":{"model":"inner"},"model" : "outer","n":[1,2.5e3,null,true]}',
    b'{"mod\\u0065l":"escaped","Model":"capital"}',
    b'{"messages":[{"content":"say \\"model\\": \\"x\\" and \\\\"}],"model":"m\\u00e9"}',
    b'{"models":["a","b"],"fallbacks":[],"model":null}',
    '{"model":"gpt-é","text":"\u017f \u212a 😀"}'.encode(),
    b'{"previous_response_id":"resp_1","model":"m","file_ids":["file-1","file-2"]}',
    b'{"conversation":{"id":"conv_1"},"container":"cntr_1","input":[{"type":"input_file","file_id":"file-9"}]}',
    b'{"id":"resp_2","output_file_id":"file-3","thread_id":"thread_1","error_file_id":null}',
)
JSON_TOKENS = (
    *(
        b'"',
        b"\\",
        b'\\"',
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b" ",
        b"\n",
        b"\t",
        b"\0",
        b"\xff",
        b"\xc3",
        b"1",
        b"-0",
    ),
    *(b"01", b"NaN", b"null", b"\\u0065", b"\\ud800", b"\\x", b"\xef\xbb\xbf", b'"model":"evil",', b'"MODEL":"evil",'),
    *(b'"mod\\u0065l":"evil",', b'"model"', b'"file_id":"file-7",', b'\\"model\\":\\"evil\\"', b"/*", b"'", b'"":0,'),
    *(
        "İ".encode(),
        "\u017f".encode(),
        "\u2028".encode(),
        b"\\u006D",
        b'"\\u006dodel":"evil",',
        b'"model":{"model":"evil"},',
    ),
)

_KEPT = re.compile(r"[a-z_]+_ids?|conversation|container|id")
_KEPT_BY_ANSWERS = re.compile("id|thread_id|file_id|output_file_id|error_file_id")
_ID = re.compile(ID.decode())


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, with all of its keys."""


def _no_constant(text: str) -> None:
    raise ValueError(text)


def parsed(body: bytes) -> Any:
    """What RFC 8259 says; raises ValueError or RecursionError."""
    return json.loads(body.decode(errors="surrogateescape"), object_pairs_hook=_Pairs, parse_constant=_no_constant)


def check_model(body: bytes) -> None:
    names_others(body)
    try:
        found = find_model(body, b"application/json")
    except BadRequest:
        return  # to refuse is always safe
    value = parsed(body)
    assert isinstance(value, _Pairs), "no object was taken for one"
    models = [item for key, item in value if key.lower() == "model"]
    if found is None:
        assert "model" not in dict(value), "a model was not found"
        return
    assert models == [found.value], "another model than the one that is named, or more than one"
    assert json.loads(body[found.start : found.end]) == found.value
    other = parsed(found.replaced(body, 'o"ther'))
    assert other == _Pairs((key, 'o"ther' if key.lower() == "model" else item) for key, item in value)


def _strings(value: Any, keys: re.Pattern[str]) -> list[str]:
    """The plain texts under such keys, whether alone or first in a list."""
    found: list[str] = []
    if isinstance(value, _Pairs):
        for key, item in value:
            first = item[0] if isinstance(item, list) and not isinstance(item, _Pairs) and item else item
            if keys.fullmatch(key) and isinstance(first, str) and _ID.fullmatch(first):
                found.append(first)
            found += _strings(item, keys)
    elif isinstance(value, list):
        for item in value:
            found += _strings(item, keys)
    return found


def check_ids(body: bytes) -> None:
    """Every id that is written plainly is found; to find more is to ask a maker in vain."""
    in_body, in_answer = ids_in_body(body), ids_in_answer(body)
    try:
        value = parsed(body)
    except (ValueError, RecursionError):
        return
    if b"\\" in body:
        return  # ids and keys have no escapes
    marked = any(mark in body for mark in (b"_id", b'"conversation"', b'"container"'))
    expected = _strings(value, _KEPT) if marked else []
    assert {text.encode() for text in expected} == set(in_body), "other ids than the body's"
    given = [text for text in _strings_alone(value) if not text.startswith("msg_")][:8]
    assert [text.encode() for text in given] == in_answer, "other ids than the answer's"


def _strings_alone(value: Any) -> list[str]:
    found: list[str] = []
    if isinstance(value, _Pairs):
        for key, item in value:
            if _KEPT_BY_ANSWERS.fullmatch(key) and isinstance(item, str) and _ID.fullmatch(item):
                found.append(item)
            found += _strings_alone(item)
    elif isinstance(value, list):
        for item in value:
            found += _strings_alone(item)
    return found


EVENT_ROWS = (
    b'data: {"a":1}\n\ndata: [DONE]\n\n',
    b"event: message_start\r\ndata: 1\r\ndata: 2\r\n\r\n: comment\r\n\r\nid: 7\r\ndata:3\r\n\r\n",
    b"\xef\xbb\xbfdata: a\rdata: b\r\rdata: c\r\r",
    b"data:\n\ndata: \n\ndata:x\nretry: 5\n\n",
)
EVENT_TOKENS = (
    b"\n",
    b"\r",
    b"\r\n",
    b"data:",
    b"data: ",
    b"data",
    b":",
    b" ",
    b"\xef\xbb\xbf",
    b"event: a",
    b"\n\n",
    b"x",
)


def standard_events(raw: bytes) -> list[bytes]:
    """html.spec.whatwg.org, 9.2.6. An event without data is none here, nor is a `data` without a colon any."""
    lines = re.split(rb"\r\n|\n|\r", raw.removeprefix(b"\xef\xbb\xbf"))[:-1]  # the last has not ended
    events, data = [], []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not line:
            if any(data) or len(data) > 1:
                events.append(b"\n".join(data))
            data = []
        elif name == b"data" and colon:
            data.append(value.removeprefix(b" "))
    return events


def check_events(parts: list[bytes]) -> None:
    raw = b"".join(parts)
    parts = [part for part in parts if part]  # no socket gives an empty one
    for cut in (parts, [raw], [raw[at : at + 1] for at in range(len(raw))]):
        events = Events()
        assert [event for part in cut for event in events.feed(part)] == standard_events(raw), cut


MODELS = mutated(JSON_ROWS, JSON_TOKENS)
EVENTS = pieces(mutated(EVENT_ROWS, EVENT_TOKENS))
JSON_IDS: st.SearchStrategy[bytes] = mutated(JSON_ROWS[-3:], JSON_TOKENS)
