import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.prefix import PREFIX_BYTES, prompt_prefix

MESSAGES = [{"role": "system", "content": "You are a canary." * 100}, {"role": "user", "content": "Sing!"}]
small_fields = st.dictionaries(
    st.sampled_from(["model", "stream", "temperature", "max_tokens", "user", "seed"]),
    st.one_of(st.booleans(), st.integers(), st.text(max_size=30)),
)


@given(small_fields, small_fields)
def test_small_fields_before_the_prompt_do_not_matter(some, others):
    one, two = (json.dumps(fields | {"messages": MESSAGES}).encode() for fields in (some, others))
    assert prompt_prefix(one) == prompt_prefix(two) != b""


@given(small_fields, st.text(min_size=1))
def test_fields_and_turns_behind_a_long_beginning_do_not_matter(fields, text):
    longer = [*MESSAGES, {"role": "assistant", "content": text}]
    one = json.dumps({"messages": MESSAGES}).encode()
    two = json.dumps({"messages": longer} | fields).encode()
    assert prompt_prefix(one) == prompt_prefix(two)


@given(st.text(min_size=1, max_size=100), st.text(min_size=1, max_size=100))
def test_prompts_that_begin_differently_differ(one, two):
    prefixes = {prompt_prefix(json.dumps({"model": "m", "input": text}).encode()) for text in (one, two)}
    assert len(prefixes) == len({one, two})


@pytest.mark.parametrize("key", ["messages", "input", "prompt", "system", "instructions", "tools"])
@pytest.mark.parametrize("space", ["", " ", "\r\n\t "])
def test_every_key_that_can_hold_a_prompt_is_found(key, space):
    body = f'{{"model"{space}:"m",{space}"{key}"{space}:{space}"Sing!"}}'.encode()
    assert prompt_prefix(body) == body[body.index(f'"{key}"'.encode()) :]


def test_the_first_of_them_counts():
    assert prompt_prefix(b'{"tools":[],"messages":[]}') == b'"tools":[],"messages":[]}'


def test_a_text_that_looks_like_a_key_is_none():
    body = json.dumps({"user": 'a "messages": b', "model": "input", "prompt": "Sing!"}).encode()
    assert prompt_prefix(body) == b'"prompt": "Sing!"}'


@given(st.binary(max_size=4000))
def test_any_bytes_are_taken_and_no_more_than_the_limit_given(body):
    assert len(prompt_prefix(b'{"input":' + body)) == min(9 - 1 + len(body), PREFIX_BYTES)
    assert prompt_prefix(body) in body


@pytest.mark.parametrize("body", [b"", b"{}", b"[1, 2]", b"\xff\x00", b'{"model": "m"}', b"x" * 100_000])
def test_where_there_is_no_prompt_there_is_no_prefix(body):
    assert prompt_prefix(body) == b""
