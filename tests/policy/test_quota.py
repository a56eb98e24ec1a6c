"""Quotas and waits as the vendors' answers tell them, and as nobody should."""

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.quota import LONGEST_WAIT_S, used_share, wait_s

NOW = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)
WALL_S = NOW.timestamp()

OPENAI = {
    "x-ratelimit-limit-requests": "5000",
    "x-ratelimit-limit-tokens": "160000",
    "x-ratelimit-remaining-requests": "4000",
    "x-ratelimit-remaining-tokens": "40000",
    "x-ratelimit-reset-requests": "12ms",
    "x-ratelimit-reset-tokens": "6m0s",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2026-11-21T10:00:01Z",
    "anthropic-ratelimit-input-tokens-limit": "40000",
    "anthropic-ratelimit-input-tokens-remaining": "10000",
    "anthropic-ratelimit-input-tokens-reset": "2026-11-21T10:00:45Z",
    "anthropic-ratelimit-output-tokens-limit": "8000",
    "anthropic-ratelimit-output-tokens-remaining": "8000",
    "anthropic-ratelimit-output-tokens-reset": "2026-11-21T10:00:00Z",
}


def head(fields: dict[str, str] | None = None, **more: str) -> bytes:
    """Fields as an answer has them, among others; `retry_after` is `retry-after`."""
    fields = {"Date": "x", **(fields or {}), **{name.replace("_", "-"): value for name, value in more.items()}}
    return b"".join(f"\r\n{name}: {value}".encode("latin-1") for name, value in fields.items())


# --- used_share ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fields", "share"), [(OPENAI, 0.75), (ANTHROPIC, 0.75), ({}, None)])
def test_scarcest_quota_is_what_counts(fields, share):
    assert used_share(head(fields)) == share


def test_case_of_names_and_blanks_about_values_do_not_matter():
    assert used_share(b"\r\nX-RateLimit-LIMIT-Tokens:\t 10 \r\nX-Ratelimit-Remaining-Tokens:5") == 0.5


@pytest.mark.parametrize(
    ("limit", "left", "share"),
    [
        ("100", "0", 1.0),
        ("100", "100", 0.0),
        ("100", "150", 0.0),
        ("0", "0", None),
        ("-1", "-1", None),
        ("100", "-1", None),
        ("", "5", None),
        ("100, 100;w=60", "5", None),
        ("nan", "nan", None),
        ("1e3", "5", None),
        ("9" * 64, "0", 1.0),
        ("1", "9" * 64, 0.0),
        ("\xb2", "0", None),
        ("9" * 5000, "0", None),
    ],
)
def test_share_of_odd_numbers(limit, left, share):
    assert used_share(head({"x-ratelimit-limit-tokens": limit, "x-ratelimit-remaining-tokens": left})) == share


def test_a_limit_without_its_remainder_says_nothing():
    assert used_share(head({"x-ratelimit-limit-tokens": "10", "x-ratelimit-remaining-requests": "1"})) is None
    assert used_share(head({"x-ratelimit-reset-tokens": "1s"})) is None


def test_a_reset_in_plain_seconds_is_no_limit():
    assert used_share(head({"x-ratelimit-reset-tokens": "60", "x-ratelimit-remaining-tokens": "6"})) is None


def test_vendors_are_not_mixed_up():
    mixed = {"x-ratelimit-limit-requests": "10", "anthropic-ratelimit-requests-remaining": "1"}
    assert used_share(head(mixed)) is None


@pytest.mark.parametrize("name", ["", "-project-tokens", "-tokens_usage_based", "-tokens-minute", "-tokens-5h"])
def test_any_name_is_a_quota(name):
    assert used_share(head({f"x-ratelimit-limit{name}": "10", f"x-ratelimit-remaining{name}": "1"})) == 0.9


def test_only_whole_names_count():
    assert used_share(head({"my-x-ratelimit-limit-a": "10", "my-x-ratelimit-remaining-a": "1"})) is None
    assert used_share(head({"note": "x-ratelimit-limit-a: 10 x-ratelimit-remaining-a: 1"})) is None


@given(st.integers(1, 10**17), st.integers(0, 10**17))
def test_share_is_a_share(limit, left):
    share = used_share(head({"x-ratelimit-limit-a": str(limit), "x-ratelimit-remaining-a": str(left)}))
    assert share is not None
    assert 0 <= share <= 1
    assert share == pytest.approx(max(0.0, 1 - left / limit))


# --- wait_s --------------------------------------------------------------------------------------------------------


def wait(fields: dict[str, str] | None = None, **more: str) -> float | None:
    return wait_s(head(fields, **more), WALL_S)


def test_answer_that_does_not_say():
    assert wait() is None
    assert wait(OPENAI) is None, "nothing is used up"
    assert wait_s(b"", WALL_S) is None


def test_milliseconds_go_before_seconds_and_these_before_resets():
    used_up = {**OPENAI, "x-ratelimit-remaining-tokens": "0"}
    assert wait(used_up) == 360
    assert wait(used_up, retry_after="20") == 20
    assert wait(used_up, retry_after="20", retry_after_ms="19500") == 19.5
    assert wait(used_up, retry_after_ms="soon", retry_after="later") == 360


@pytest.mark.parametrize(
    ("value", "wait_for_s"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("1.5", 1.5),
        ("Sat, 21 Nov 2026 10:00:30 GMT", 30.0),
        ("Saturday, 21-Nov-26 10:00:30 GMT", 30.0),
        ("Sat Nov 21 10:00:30 2026", 30.0),
        ("Sat, 21 Nov 2026 09:59:00 GMT", 0.0),
        ("2026-11-21T10:00:30Z", 30.0),
        ("Sat, 21 Nov 2099 10:00:00 GMT", LONGEST_WAIT_S),
        ("86401", LONGEST_WAIT_S),
        ("9" * 60, LONGEST_WAIT_S),
        ("9" * 65, None),
        ("9" * 60_000, None),
        ("-1", None),
        ("-0", None),
        ("+1", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("0x10", None),
        ("", None),
        ("5, 10", None),
        ("\xb2", None),
        ("\xb5" * 100, None),
        ("Sat, 32 Nov 2026 10:00:30 GMT", None),
        ("Sat, 21 Nov 99999999999 10:00:30 GMT", None),
        ("0001-01-01T00:00:00+23:59", 0.0),
        ("9999-12-31T23:59:59-23:59", LONGEST_WAIT_S),
    ],
)
def test_retry_after(value, wait_for_s):
    assert wait(retry_after=value) == wait_for_s


@pytest.mark.parametrize(
    ("value", "wait_for_s"), [("0", 0), ("250", 0.25), ("1e9", None), ("-5", None), ("9" * 50, 86400)]
)
def test_retry_after_ms(value, wait_for_s):
    assert wait(retry_after_ms=value) == wait_for_s


@pytest.mark.parametrize(
    ("value", "wait_for_s"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("20ms", 0.02),
        ("23h47m36.648s", 85656.648),
        ("1d2h", LONGEST_WAIT_S),
        ("120\xc2\xb5s", 0.00012),
        ("120us", 0.00012),
        ("50ns", 0.00000005),
        ("1M30S", 90),
        ("10", 10),
        ("0s", 0),
        (str(int(WALL_S) + 42), 42),
        (str((int(WALL_S) + 42) * 1000), 42),
        (str(int(WALL_S) - 42), 0),
        ("9" * 60 + "h", LONGEST_WAIT_S),
        ("1ms" * 20, 0.02),
        ("1s" * 30_000, None),
        ("-1s", None),
        ("s", None),
        ("1", 1),
        ("1 s", None),
        ("1y", None),
        ("1s?", None),
        (".5s", None),
    ],
)
def test_resets_of_openai(value, wait_for_s):
    fields = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": value}
    assert wait(fields) == (wait_for_s if wait_for_s is None else pytest.approx(wait_for_s))


@pytest.mark.parametrize(
    ("value", "wait_for_s"),
    [
        ("2026-11-21T10:00:45Z", 45),
        ("2026-11-21T10:00:45.500Z", 45.5),
        ("2026-11-21t10:00:45z", 45),
        ("2026-11-21T12:00:45+02:00", 45),
        ("2026-11-21T10:00:45", 45),
        ("2026-11-21T09:00:00Z", 0),
        ("2027-11-21T10:00:45Z", LONGEST_WAIT_S),
        ("2026-13-21T10:00:45Z", None),
        ("tomorrow", None),
    ],
)
def test_resets_of_anthropic(value, wait_for_s):
    assert wait({"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": value}) == wait_for_s


def test_latest_reset_of_what_is_used_up_counts():
    used_up = {**OPENAI, "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}
    assert wait(used_up) == 1, "tokens reset later, but there are some"
    assert wait({**used_up, "x-ratelimit-remaining-tokens": "0"}) == 360
    assert wait({**ANTHROPIC, "anthropic-ratelimit-input-tokens-remaining": "0"}) == 45
    assert wait({**used_up, **ANTHROPIC, "anthropic-ratelimit-input-tokens-remaining": "0"}) == 45


def test_a_reset_without_its_remainder_says_nothing():
    assert wait({"x-ratelimit-reset-tokens": "6m0s"}) is None


def test_nameless_quota_of_openrouter():
    assert wait({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str((int(WALL_S) + 5) * 1000)}) == 5


@given(st.integers(0, 86_400))
def test_each_way_to_write_a_wait_is_read_alike(seconds):
    moment = NOW + timedelta(seconds=seconds)
    written = [str(seconds), moment.isoformat(), format_datetime(moment, usegmt=True)]
    assert [wait(retry_after=value) for value in written] == [seconds] * 3
    duration = f"{seconds // 3600}h{seconds % 3600 // 60}m{seconds % 60}s"
    assert wait({"x-ratelimit-remaining-a": "0", "x-ratelimit-reset-a": duration}) == seconds


NAMES = st.sampled_from([*OPENAI, *ANTHROPIC, "retry-after", "retry-after-ms", "X-RateLimit-Reset"])
DATE_LIKE = st.text("0123456789-:+.,TZWMDGhmsn /", max_size=40) | st.from_regex(
    r"\A[A-Z][a-z]{2}, [0-9]{1,9} (Jan|Feb|Nov) [0-9]{1,12} [0-9:.]{0,20} [+-]?[0-9A-Z]{0,12}\Z"
)
VALUES = st.binary(max_size=40) | DATE_LIKE.map(str.encode) | st.integers().map(lambda number: b"%d" % number)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8), st.floats(0, 1e10))
def test_nothing_an_upstream_says_raises_or_leaves_the_bounds(fields, wall_s):
    said = b"".join(b"\r\n" + name.encode() + b": " + value for name, value in fields)
    share, wait_for_s = used_share(said), wait_s(said, wall_s)
    assert share is None or 0 <= share <= 1
    assert wait_for_s is None or (math.isfinite(wait_for_s) and 0 <= wait_for_s <= LONGEST_WAIT_S)


@given(VALUES, st.sampled_from(["retry-after", "x-ratelimit-reset-a"]))
def test_no_value_of_a_wait_raises(value, name):
    said = b"\r\nx-ratelimit-remaining-a: 0\r\n" + name.encode() + b": " + value
    wait_for_s = wait_s(said, WALL_S)
    assert wait_for_s is None or 0 <= wait_for_s <= LONGEST_WAIT_S
