"""Durations, sizes, addresses and URLs: what they accept, what they say otherwise, and that text and value agree."""

import re
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model.address import Address, BaseUrl
from proxy.model.quantities import (
    BYTES,
    DURATION_PATTERN,
    SECONDS,
    SIZE_PATTERN,
    duration_text,
    parse_duration,
    parse_limit,
    parse_name,
    parse_size,
    parse_wait,
    size_text,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=60),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=3,
)


@given(st.integers(0, 10**9 - 1), st.sampled_from(sorted(SECONDS)))
def test_duration_is_its_number_times_its_unit(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == pytest.approx(number * SECONDS[unit])


@pytest.mark.parametrize(("text", "seconds"), [("250ms", 0.25), ("30s", 30), ("5m", 300), ("2h", 7200), ("1.5s", 1.5)])
def test_duration_in_each_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.integers(0, 10**12 - 1).map(lambda milliseconds: milliseconds / 1000))
def test_duration_survives_being_written(seconds: float) -> None:
    text = duration_text(seconds)
    assert re.fullmatch(DURATION_PATTERN, text)
    assert parse_duration(text) == pytest.approx(seconds)


@given(st.integers(0, 2**39))
def test_size_survives_being_written(size: int) -> None:
    text = size_text(size)
    assert (re.fullmatch(SIZE_PATTERN, text) is not None) == (len(text.rstrip(string.ascii_letters)) < 10)
    if re.fullmatch(SIZE_PATTERN, text):
        assert parse_size(text) == size


@given(st.integers(0, 10**9 - 1), st.sampled_from(sorted(BYTES)))
def test_size_is_its_number_times_its_unit(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * BYTES[unit]


@given(json_values)
def test_anything_is_a_value_or_a_refusal_with_a_remedy(value: Any) -> None:
    for parse in (parse_duration, parse_wait, parse_limit, parse_size, parse_name, Address.parse, BaseUrl.parse):
        refusal = "write"
        try:
            parse(value)
        except ValueError as error:
            refusal = str(error)
        assert re.search(r"write|take it out|end it|begin it", refusal)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "5 is not a duration: write 5s, 250ms or 2m"),
        (2.5, "2.5 is not a duration: write 2.5s, 250ms or 2m"),
        ("30", "'30' is not a duration: write 30s"),
        ("10 min", "'10 min' is not a duration: write 10m"),
        ("1h30m", "'1h30m' is not a duration: write 90m"),
        ("5S", "'5S' is not a duration: write 5s"),
        ("soon", "'soon' is not a duration: write 30s, 250ms or 2m"),
        ("5s\n", r"'5s\n' is not a duration: write 5s"),
        (True, "true is not a duration: write 30s, 250ms or 2m"),
    ],
)
def test_refused_duration_says_what_would_be_right(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
        parse_duration(value)


def test_waits_are_longer_than_nothing_and_limits_may_be_none() -> None:
    assert parse_duration("0s") == 0
    for parse in (parse_wait, parse_limit):
        with pytest.raises(ValueError, match="too short"):
            parse("0ms")
    assert parse_limit("none") is None
    with pytest.raises(ValueError, match="not a duration"):
        parse_wait("none")


@pytest.mark.parametrize(
    ("value", "right"),
    [(1048576, "1MiB"), (1000, "1000B"), ("64KB", "64KiB"), ("64k", "64KiB"), ("1 GiB", "1GiB"), ("12b", "12B")],
)
def test_refused_size_says_what_would_be_right(value: Any, right: str) -> None:
    with pytest.raises(ValueError, match=rf"is not a size: write {right}\b"):
        parse_size(value)


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("127.8.8.8:0", "127.8.8.8", 0, True),
        ("[::1]:8080", "::1", 8080, True),
        ("localhost:80", "localhost", 80, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::]:65535", "::", 65535, False),
        ("proxy_1.internal:443", "proxy_1.internal", 443, False),
    ],
)
def test_address(text: str, host: str, port: int, loopback: bool) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.is_loopback, str(address)) == (host, port, loopback, text)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_address_gives_its_text_back(ip: Any, port: int) -> None:
    text = f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "8080",
        ":80",
        "*:80",
        "::1:80",
        "[::1]",
        "[127.0.0.1]:80",
        "a b:80",
        "1.2.3:80",
        "host:080",
        "host:65536",
        "[::1%lo]:1",
        "host:+80",
        "host:٣",
        "-a:80",
        "http://host:80",
        "host:80\n",
    ],
)
def test_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "parsed", "authority"),
    [
        ("https://api.openai.com/v1", ("https", "api.openai.com", 443, "/v1"), "api.openai.com"),
        ("https://api.openai.com/v1/", ("https", "api.openai.com", 443, "/v1"), "api.openai.com"),
        ("HTTPS://API.example.com:443", ("https", "api.example.com", 443, ""), "api.example.com"),
        ("http://127.0.0.1:8000/", ("http", "127.0.0.1", 8000, ""), "127.0.0.1:8000"),
        ("http://[::1]:80/v1", ("http", "::1", 80, "/v1"), "[::1]"),
        ("http://[fd00::1]:8000", ("http", "fd00::1", 8000, ""), "[fd00::1]:8000"),
        ("https://vllm_1:443/a%20b/@x", ("https", "vllm_1", 443, "/a%20b/@x"), "vllm_1"),
    ],
)
def test_base_url(text: str, parsed: tuple[str, str, int, str], authority: str) -> None:
    url = BaseUrl.parse(text)
    assert (url.scheme, url.host, url.port, url.path) == parsed
    assert url.authority == authority
    assert BaseUrl.parse(str(url)) == url


@pytest.mark.parametrize(
    "text",
    [
        "host/v1",
        "ws://host",
        "https://",
        "https:///v1",
        "https://user@host",
        "https://u:S3CR3T@host",
        "https://h?x=S3CR3T",
        "https://h/#S3CR3T",
        "https://h:0",
        "https://h:65536",
        "https://h:x",
        "https://h /",
        "https://h/\r\nx: y",
        "https://[::1",
        "https://[h]/",
        "https://1.2.3",
        "https://h/a/../b",
        "https://h/%2e%2E/b",
        "https://h/%",
        "https://h\\@i",
    ],
)
def test_no_base_url_and_none_of_it_in_the_error(text: str) -> None:
    with pytest.raises(ValueError, match="URL") as caught:
        BaseUrl.parse(text)
    assert "S3CR3T" not in str(caught.value)
