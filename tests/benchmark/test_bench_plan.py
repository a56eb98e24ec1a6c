"""What `serinus bench` makes of its options, and what it refuses before it has asked anybody."""

import json
from pathlib import Path

import pytest

from proxy.cli.bench import bench
from proxy.cli.bench.plan import Plan, plan_of
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
    ((HERE, "--api", "messages", "--tokens-field", "max_completion_tokens"), "--tokens-field is about --api chat"),
    ((HERE, "--arrivals", "even"), "--rate come, which is not given"),
    ((HERE + "/chat/completions",), "is the URL of a call"),
    ((HERE, "--compare", "http://127.0.0.1:1/anthropic/v1/messages/"), "is the URL of a call"),
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


def planned(*arguments: str) -> Plan:
    context = bench.make_context("bench", [*arguments, "--model", "m"])
    return plan_of(context.params.pop("url"), context.params)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((HERE,), [HERE]),
        ((HERE, "--compare", "http://127.0.0.1:2/v1"), [HERE, "http://127.0.0.1:2/v1"]),
        ((HERE, "--compare", HERE, "--compare-model", "n"), [f"m at {HERE}", f"n at {HERE}"]),
        ((HERE, "--compare", HERE), [f"{HERE} (first)", f"{HERE} (second)"]),
    ],
)
def test_targets_are_told_apart(arguments: tuple[str, ...], names: list[str]) -> None:
    assert [arm.target.name for arm in planned(*arguments).arms] == names


@pytest.mark.parametrize(
    ("compare_key", "sent"), [((), "a"), (("--compare-key", "b"), "b"), (("--compare-key", "none"), None)]
)
def test_the_other_url_has_the_same_key_another_or_none(compare_key: tuple[str, ...], sent: str | None) -> None:
    plan = planned(HERE, "--key", "a", "--compare", "http://127.0.0.1:2/v1", *compare_key)
    assert [arm.target.key for arm in plan.arms] == ["a", sent]


def test_the_field_of_the_tokens_can_be_named() -> None:
    (arm,) = planned(HERE, "--tokens", "7", "--tokens-field", "max_completion_tokens").arms
    body = json.loads(arm.target.body([], arm.tokens, stream=False))
    assert (body.get("max_completion_tokens"), "max_tokens" in body) == (7, False)


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [((), 5), (("--concurrency", "200"), 50), (("--rate", "7.5"), 8), (("--rate", "7.5", "--warm-up", "3"), 3)],
)
def test_as_many_calls_warm_up_as_are_at_once_or_in_a_second(arguments: tuple[str, ...], calls: int) -> None:
    assert planned(HERE, *arguments).warm_up == calls


def test_both_ways_are_measured_at_three_lengths_unless_others_are_named() -> None:
    def kinds(*arguments: str) -> list[tuple[int, bool]]:
        return [(arm.tokens, arm.stream) for arm in planned(HERE, *arguments).arms]

    assert kinds() == [(64, True)]
    assert kinds("--stream", "no") == [(64, False)]
    assert kinds("--stream", "both") == [(10, True), (10, False), (50, True), (50, False), (200, True), (200, False)]
    assert kinds("--stream", "both", "--tokens", "5") == [(5, True), (5, False)]
