"""What `serinus bench` refuses before it has asked anybody."""

from pathlib import Path

import pytest

from tests.benchmark.conftest import run

pytestmark = pytest.mark.usefixtures("shell")

HERE = "http://127.0.0.1:1/v1"
WRONG: list[tuple[tuple[str, ...], str]] = [
    (("ftp://a/v1",), "no base URL"),
    (("127.0.0.1:8080/v1",), "no base URL"),
    (("localhost/v1",), "no base URL"),
    (("http://",), "no base URL"),
    (("",), "no base URL"),
    (("http:///v1",), "no base URL"),
    (("http://a/v1?key=b",), "no base URL"),
    (("http://a/v1#b",), "no base URL"),
    (("http://127.0.0.1:99999/v1",), "no base URL"),
    (("http://127.0.0.1:http/v1",), "no base URL"),
    (("http://[::1/v1",), "no base URL"),
    (("http://bob:zebra@127.0.0.1:1/v1",), "key"),
    (("http://bob:zebra@127.0.0.1:99999/v1",), "key"),
    (("http://bob:zebra@127.0.0.1:1/v1?a=b",), "key"),
    (("bob:zebra@127.0.0.1:1/v1",), "base URL"),
    ((HERE, "--compare", "http://bob:zebra@127.0.0.1:1/v1"), "key"),
    ((HERE, "--compare", "b"), "'b' is no base URL"),
    ((HERE, "--rate", "5", "--concurrency", "5"), "give one of them"),
    ((HERE, "--rate", "0"), "--rate"),
    ((HERE, "--rate", "-1"), "--rate"),
    ((HERE, "--rate", "nan"), "--rate"),
    ((HERE, "--rate", "inf"), "--rate"),
    ((HERE, "--concurrency", "0"), "--concurrency"),
    ((HERE, "--requests", "0"), "--requests"),
    ((HERE, "--warm-up", "0"), "--warm-up"),
    ((HERE, "--duration", "30"), "'30' is not a duration: write 30s"),
    ((HERE, "--duration", "0s"), "too short"),
    ((HERE, "--timeout", "soon"), "not a duration"),
    ((HERE, "--tokens", "0"), "no number of tokens"),
    ((HERE, "--tokens", "10,,50"), "no number of tokens"),
    ((HERE, "--tokens", "10,-5"), "no number of tokens"),
    ((HERE, "--tokens", "ten"), "no number of tokens"),
    ((HERE, "--body", "{"), "--body is no JSON"),
    ((HERE, "--body", "[]"), "--body is no JSON object"),
    ((HERE, "--body", "null"), "--body is no JSON object"),
    ((HERE, "--body", '{"a": "\\ud800"}'), "--body"),
    ((HERE, "--body", '{"a": NaN}'), "--body"),
    ((HERE, "--body", '{"a":' + "[" * 100_000), "--body"),
    ((HERE, "--header", "x-team"), "is no header"),
    ((HERE, "--header", ": a"), "is no header"),
    ((HERE, "--header", "x-team: a\nx: b"), "header"),
    ((HERE, "--header", "x team: a"), "header"),
    ((HERE, "--key", "env:SERINUS_BENCH_UNSET"), "SERINUS_BENCH_UNSET is not set"),
    ((HERE, "--key", "file:/none/there"), "cannot be read"),
    ((HERE, "--key", ""), "--key"),
    ((HERE, "--key", "zebra\nfinch"), "--key"),
    ((HERE, "--compare", HERE, "--compare-key", "env:SERINUS_BENCH_UNSET"), "--compare-key: "),
    ((HERE, "--compare-key", "zebra"), "which is not given"),
    ((HERE, "--compare-model", "b"), "which is not given"),
    ((HERE, "--prompts", "/none/there.txt"), "cannot be read: no such file"),
    ((HERE, "--api", "completions"), "--api"),
    ((HERE, "--stream", "maybe"), "--stream"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=[" ".join(row[0])[-60:] for row in WRONG])
def test_what_cannot_be_done_is_refused_at_once(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments, "--model", "m")
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "zebra" not in result.output


def test_a_model_is_needed() -> None:
    result = run(HERE)
    assert (result.exit_code, "'--model'" in result.output) == (2, True)


def test_prompts_that_cannot_be_read_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('"one"\n{}\n')
    result = run(HERE, "--model", "m", "--prompts", str(path))
    assert (result.exit_code, f"{path}:2: no prompt" in result.output) == (2, True)
