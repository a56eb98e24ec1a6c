"""Ids of what an upstream keeps: read off paths, bodies and answers, and off nothing that only looks like one."""

import gzip
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.stateful import hands_out, ids_in_answer, ids_in_body, ids_in_path, may_store

ID = st.from_regex(r"[A-Za-z0-9_.:=-]{1,512}", fullmatch=True)
REFERS = re.compile(r"[a-z_]+_ids?|conversation|container|id")
MARKED = re.compile(r"[a-z_]+_ids?|conversation|container")
LOOK_ALIKES = [
    '"file_id":"file-1"',
    '{"id":"a"}',
    '\\"id\\":\\"a',
    "previous_response_id: resp_1",
    '"conversation"',
    '\\"',
]

texts = st.text(max_size=12) | st.sampled_from(LOOK_ALIKES) | ID
keys = st.sampled_from(["file_id", "file_ids", "conversation", "container", "id", "Id", "model", "ids", "a b_id"])
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
)
bodies = st.dictionaries(keys, documents, max_size=5)
separators = st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n\t", "\n:\t ")])


def referred_to(document: object) -> list[str]:
    """What the keys of a document refer to, in its order."""
    if isinstance(document, list):
        return [found for one in document for found in referred_to(one)]
    if not isinstance(document, dict):
        return []
    found = []
    for key, value in document.items():
        first = value[0] if isinstance(value, list) and value else value
        if REFERS.fullmatch(key) and isinstance(first, str) and re.fullmatch("[A-Za-z0-9_.:=-]{1,512}", first):
            found.append(first)
        found += referred_to(value)
    return found


@given(bodies, separators)
def test_finds_what_the_keys_of_a_body_refer_to_and_nothing_else(document, between):
    body = json.dumps(document, separators=between)
    found = [one.decode() for one in ids_in_body(body.encode())]
    wanted = referred_to(document)
    assert found == wanted or (not found and not any(MARKED.search(key) for key in re.findall('"([^"]*)" *', body)))


@given(st.binary(max_size=80))
def test_any_bytes_are_looked_at(data):
    ids_in_path(b"/v1/files/" + data)
    ids_in_body(b'"file_id":' + data)
    ids_in_answer(data)
    ids_in_answer(b"\x1f\x8b" + data)


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_what_a_caller_quotes_is_no_reference(text):
    assert ids_in_body(json.dumps({"input": text, "user_id": 1}).encode()) == []


BODIES: dict[str, tuple[bytes, list[bytes]]] = {
    "previous response": (b'{"model":"m","previous_response_id":"resp_1"}', [b"resp_1"]),
    "conversation": (b'{"conversation":"conv_1"}', [b"conv_1"]),
    "conversation as an object": (b'{"conversation":{"id":"conv_1"}}', [b"conv_1"]),
    "file in a message": (b'{"messages":[{"content":[{"type":"file","file":{"file_id":"file-1"}}]}]}', [b"file-1"]),
    "file of a batch": (b'{"input_file_id":"file-1","endpoint":"/v1/x"}', [b"file-1"]),
    "vector stores": (b'{"tools":[{"vector_store_ids": [ "vs_1", "vs_2" ]}]}', [b"vs_1"]),
    "training file": (b'{"training_file_id":"file-1","n":{"id":"x"}}', [b"file-1", b"x"]),
    "null": (b'{"previous_response_id":null}', []),
    "number": (b'{"file_id":1}', []),
    "empty": (b'{"file_id":""}', []),
    "blank inside": (b'{"file_id":"a b"}', []),
    "only an id": (b'{"id":"x"}', []),
    "no JSON": (b"file_id=file-1", []),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("name", BODIES)
def test_ids_in_body(name):
    body, ids = BODIES[name]
    assert ids_in_body(body) == ids


PATHS: dict[bytes, tuple[bytes, ...]] = {
    b"/v1/responses/resp_1": (b"resp_1",),
    b"/v1/responses/resp_1/input_items?limit=2": (b"resp_1",),
    b"/v1/files/file-1/content": (b"file-1",),
    b"/v1/threads/thread_1/runs/run_1/cancel": (b"thread_1", b"run_1"),
    b"/v1/vector_stores/vs_1/files/file-1": (b"vs_1", b"file-1"),
    b"/v1/chat/completions/chatcmpl-1/messages": (b"chatcmpl-1",),
    b"/v1/fine_tuning/jobs/ftjob-1/events": (b"ftjob-1",),
    b"/anthropic/v1/messages/batches/msgbatch_1/results": (b"msgbatch_1",),
    b"/v1/responses/resp_1/": (b"resp_1",),
    b"/v1/responses": (),
    b"/v1/responses/": (),
    b"/v1/chat/completions": (),
    b"/v1/models/files": (),
    b"/v1/chat/completions?next=/files/file-1": (),
    b"/v1/my-files/file-1": (),
}


@pytest.mark.parametrize("target", PATHS)
def test_ids_in_path(target):
    assert ids_in_path(target) == PATHS[target]


@pytest.mark.parametrize(
    "target", [b"/v1/threads/runs", b"/v1/responses/input_tokens", b"/v1/responses/compact"], ids=bytes.decode
)
def test_name_of_an_operation_is_no_id(target):
    assert ids_in_path(target) == ()


@pytest.mark.parametrize("length", [60, 250])  # another gateway before the provider writes its own into them
def test_long_ids_are_ids(length):
    made = b"resp_" + b"a" * length
    assert ids_in_path(b"/v1/responses/%b/input_items" % made) == (made,)
    assert ids_in_body(b'{"previous_response_id":"%b"}' % made) == [made]
    assert ids_in_answer(b'{"id":"%b"}' % made) == [made]


CREATES = {
    (b"POST", b"/v1/responses"): True,
    (b"POST", b"/v1/responses?stream=true"): True,
    (b"POST", b"/v1/files"): True,
    (b"POST", b"/v1/threads/runs"): True,
    (b"POST", b"/v1/threads/thread_1/runs"): True,
    (b"POST", b"/v1/fine_tuning/jobs"): True,
    (b"POST", b"/v1/messages/batches"): True,
    (b"GET", b"/v1/responses"): False,
    (b"POST", b"/v1/chat/completions"): False,
    (b"POST", b"/v1/messages"): False,
    (b"POST", b"/v1/embeddings?x=/files"): False,
    (b"POST", b"/v1/models/files"): True,  # costs a look at its answer, no more
}


@pytest.mark.parametrize(("method", "target"), CREATES)
def test_which_calls_create(method, target):
    assert hands_out(method, target) is CREATES[method, target]


STORES = {
    (b"POST", b"/v1/chat/completions"): True,
    (b"POST", b"/openai/deployments/d/chat/completions?api-version=1"): True,
    (b"GET", b"/v1/chat/completions"): False,
    (b"POST", b"/v1/completions"): False,
    (b"POST", b"/v1/chat/completions/chatcmpl-1"): False,
}


@pytest.mark.parametrize(("method", "target"), STORES)
def test_which_calls_may_store(method, target):
    assert may_store(method, target) is STORES[method, target]


ANSWERS: dict[str, tuple[bytes, list[bytes]]] = {
    "response": (b'{"id":"resp_1","object":"response","output":[{"id":"msg_1"}]}', [b"resp_1"]),
    "indented": (b'{\n  "id" : "resp_1"\n}', [b"resp_1"]),
    "stream": (
        b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1"}}\n\n',
        [b"resp_1"],
    ),
    "run": (b'{"id":"run_1","object":"thread.run","thread_id":"thread_1"}', [b"run_1", b"thread_1"]),
    "chat chunk": (b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk"}\n\n', [b"chatcmpl-1"]),
    "none": (b'{"object":"list"}', []),
    "number": (b'{"id":1}', []),
    "other ids": (b'{"request_id":"req_1"}', []),
    "what it quotes": (b'{"text":"\\"id\\":\\"resp_2\\"","id":"resp_1"}', [b"resp_1"]),
    "empty": (b"", []),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_ids_in_answer(name, packed):
    answer, ids = ANSWERS[name]
    assert ids_in_answer(gzip.compress(answer) if packed else answer) == ids


@given(ID, st.booleans(), st.data())
def test_beginning_of_an_answer_tells_all_of_an_id_or_nothing(made, packed, data):
    answer = b'{"object":"response","id":"%b","model":"m"}' % made.encode()
    answer = gzip.compress(answer) if packed else answer
    cut = data.draw(st.integers(0, len(answer)))
    assert ids_in_answer(answer[:cut]) in ([], [made.encode()])
    assert ids_in_answer(answer) == [made.encode()]


def test_what_gzip_unfolds_to_is_bounded():
    bomb = gzip.compress(b" " * 2**26 + b'"id":"resp_1"')
    assert ids_in_answer(bomb) == []
