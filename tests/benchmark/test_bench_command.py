"""`serinus bench`, as a shell sees it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import pytest

from tests.benchmark.conftest import KEY, SSE, run
from tests.support.scripted import Conversation, ScriptedUpstream, answering, whole

pytestmark = pytest.mark.usefixtures("shell")


def small(url: str, *more: str) -> tuple[str, ...]:
    return (url, "--model", "m", "--key", KEY, "--requests", "6", "--concurrency", "2", *more)


def test_what_was_measured_is_shown(simulated: str) -> None:
    result = run(*small(f"{simulated}/v1", "--tokens", "4"))
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "2 at once · waits in ms" in lines[0]
    assert "m · streamed · at most 4 tokens" in lines
    assert any(line.startswith("6 answers · ") for line in lines)
    for name in ("first token", "between two events with tokens", "a token, each answer's mean", "whole answer"):
        (line,) = [line for line in lines if line.startswith(name)]
        assert len(line.removeprefix(name).split()) == 4
    assert KEY not in result.output
    assert "Failures" not in result.output


@pytest.mark.parametrize(
    ("api", "base"), [("chat", "/v1"), ("responses", "/v1"), ("messages", ""), ("messages", "/v1/")]
)
@pytest.mark.parametrize("load", [("--requests", "4"), ("--rate", "200", "--requests", "4")])
def test_each_api_can_be_measured(api: str, base: str, load: tuple[str, ...], simulated: str) -> None:
    url = simulated + base
    result = run(url, "--model", "m", "--key", KEY, "--api", api, "--tokens", "4", "--stream", "both", "--json", *load)
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert [(arm["answered"], arm["failed"], arm["tokens"]) for arm in shown["arms"]] == [(4, [], 16)] * 2


SPREAD = {"mean", "p50", "p95", "p99"}


def test_json_has_all_that_programs_want(simulated: str) -> None:
    url = f"{simulated}/v1"
    result = run(*small(url, "--json", "--stream", "both", "--tokens", "2,4", "--compare", f"{url}/"))
    shown = json.loads(result.stdout)
    assert set(shown) == {"began_at", "load", "arms", "added_by_target", "added_by_streaming", "client", "notes"}
    assert [(arm["url"], arm["stream"], arm["max_tokens"]) for arm in shown["arms"]] == [
        (base, stream, tokens) for tokens in (2, 4) for stream in (True, False) for base in (url, f"{url}/")
    ]
    streamed, whole_ = shown["arms"][0], shown["arms"][2]
    for name in ("first_token_ms", "between_tokens_ms", "per_token_ms", "total_ms", "late_ms"):
        assert set(streamed[name]) == SPREAD
    assert (whole_["first_token_ms"], whole_["tokens_an_event"], streamed["tokens_an_event"]) == (None, None, 1.0)
    assert {"answered", "failed", "tokens", "answers_a_s", "tokens_a_s", "model"} <= set(streamed)
    assert len(shown["added_by_target"]) == 2 * (3 + 1)
    assert len(shown["added_by_streaming"]) == 2 * 2
    assert {"of", "to", "measure", "mean_ms", "mean_interval_ms", "p50_ms"} <= set(shown["added_by_target"][0])
    assert set(shown["client"]) == {"busy", "limit"}
    assert result.stderr == ""


def test_a_target_can_be_measured_against_itself(simulated: str) -> None:
    url = f"{simulated}/v1"
    result = run(*small(url, "--compare", url, "--compare-model", "other"))
    assert f"What m at {url} adds to other at {url}" in result.stdout


@pytest.mark.parametrize("url", [" {}/v1", "{}/v1 ", "{}/v1/", "{}/v1//"])
def test_blanks_and_slashes_around_a_url_do_no_harm(url: str, simulated: str) -> None:
    assert run(*small(url.format(simulated))).exit_code == 0


def test_a_wrong_key_is_told_in_the_upstreams_words(simulated: str) -> None:
    result = run(f"{simulated}/v1", "--model", "m", "--key", "sk-wrong-zebra")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "status 401: Incorrect API key provided." in result.stderr
    assert "zebra" not in result.output


def test_a_missing_path_is_told(simulated: str) -> None:
    result = run(*small(simulated))
    assert result.exit_code == 1
    assert f"{simulated}/chat/completions: status 404" in result.stderr


def test_nobody_listens() -> None:
    result = run(*small("http://127.0.0.1:1/v1"))
    assert result.exit_code == 1
    assert "http://127.0.0.1:1/v1/chat/completions: no connection: connection refused" in result.stderr


@pytest.mark.parametrize("more", [(), ("--json",)])
@pytest.mark.parametrize("status", [b"401 No", b"500 No"])
def test_the_key_is_never_shown_though_the_upstream_repeats_it(
    more: tuple[str, ...], status: bytes, answers: Callable[..., str]
) -> None:
    url = answers(whole(b'{"error":{"message":"Bad key: %b"}}' % KEY.encode(), status=status))
    result = run(*small(url, *more))
    assert result.exit_code == 1
    assert "Bad key" in result.output
    assert KEY not in result.output


@pytest.mark.parametrize(
    "said", ["[/INST] expected", "[type=missing, input={}]", "[bold]", "\\[red]x", "a [link=http://b]c"]
)
def test_what_an_upstream_says_is_shown_as_it_is(said: str, answers: Callable[..., str]) -> None:
    result = run(*small(answers(whole(json.dumps({"error": said}).encode(), status=b"500 No"))))
    assert result.exit_code == 1
    assert said in result.output
    assert "status 500" in result.output


def test_a_name_with_brackets_is_shown_as_it_is(simulated: str) -> None:
    url = f"{simulated}/v1"
    result = run(*small(url, "--compare", url, "--compare-model", "[red]b", "--stream", "both", "--tokens", "4"))
    assert result.stdout.count("[red]b at ") == 4


def test_an_answer_of_another_api_is_told(answers: Callable[..., str]) -> None:
    result = run(*small(answers(whole(b"<html>", fields=b"Content-Type: text/html\r\n"))))
    assert (result.exit_code, "unreadable: no event stream, but text/html" in result.stderr) == (1, True)


@pytest.mark.parametrize("status", [503, 429, 408])
def test_what_another_call_might_mend_is_measured(status: int, answers: Callable[..., str]) -> None:
    result = run(*small(answers(whole(b'{"error":"busy"}', status=b"%d No" % status))))
    assert result.exit_code == 1
    assert "0 answers, 6 failed" in result.stdout
    assert f"status {status}" in result.stdout


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--rate", "500"), "500 a second, at random"),
        (("--rate", "500", "--arrivals", "even"), "500 a second, evenly"),
        (("--concurrency", "3"), "3 at once"),
        ((), "5 at once"),
    ],
)
def test_the_load_is_said(more: tuple[str, ...], said: str, simulated: str) -> None:
    result = run(f"{simulated}/v1", "--model", "m", "--key", KEY, "--requests", "4", *more)
    assert said in result.stdout.splitlines()[0]


def test_a_duration_ends_it(simulated: str) -> None:
    result = run(*small(f"{simulated}/v1", "--requests", "1000000", "--duration", "50ms", "--json"))
    assert 0 < json.loads(result.stdout)["arms"][0]["answered"] < 1000000


async def test_the_other_target_has_its_own_key_and_model(
    scripted: Callable[..., Awaitable[ScriptedUpstream]],
) -> None:
    first, second = [await scripted(answering(whole(b"{}"))) for _ in range(2)]
    more = ("--key", "sk-1", "--compare", second.url, "--compare-key", "sk-2", "--compare-model", "n")
    process = await started(first.url, *more, "--stream", "no", "--requests", "2", "--header", "X-Team: a")
    await process.communicate()
    assert process.returncode == 0
    for upstream, key, model in ((first, b"Bearer sk-1", "m"), (second, b"Bearer sk-2", "n")):
        assert len(upstream.requests) == 1 + 2
        for request in upstream.requests:
            assert request.field(b"authorization") == key
            assert request.field(b"x-team") == b"a"
            assert json.loads(request.body)["model"] == model


async def test_figures_are_shown_where_letters_are_few(scripted: Callable[..., Awaitable[ScriptedUpstream]]) -> None:
    upstream = await scripted(answering(whole(b"{}")))
    process = await started(upstream.url, "--stream", "no", "--requests", "3", PYTHONIOENCODING="ascii")
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert b"3 answers" in out


async def test_a_call_that_takes_too_long_is_given_up(scripted: Callable[..., Awaitable[ScriptedUpstream]]) -> None:
    upstream = await scripted(Hanging(0))
    process = await started(upstream.url, "--timeout", "20ms", "--requests", "1")
    out, _ = await process.communicate()
    assert process.returncode == 1
    assert b"timeout" in out
    assert b"no end within 0.02 s" in out


async def started(url: str, *more: str, **environ: str) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "proxy", "bench", url, "--model", "m", "--concurrency", "1", *more)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env={**os.environ, **environ})


class Hanging:
    """Answers so many requests, and no more."""

    def __init__(self, answered: int) -> None:
        self.answered = answered

    async def __call__(self, talk: Conversation) -> None:
        while True:
            await talk.request()
            if len(talk.upstream.requests) > self.answered:
                await talk.gone()
                return
            await talk.send(whole(b'{"usage":{"completion_tokens":3}}'))


@pytest.mark.parametrize("more", [(), ("--json",)])
async def test_ctrl_c_ends_early_and_shows_what_there_is(
    more: tuple[str, ...], scripted: Callable[..., Awaitable[ScriptedUpstream]]
) -> None:
    upstream = await scripted(Hanging(4))
    process = await started(upstream.url, "--stream", "no", *more)
    await upstream.until(lambda: len(upstream.requests) == 5)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert (b'"answered": 3' if more else b"3 answers \xc2\xb7") in out


async def test_ctrl_c_before_the_first_answer_is_no_traceback(
    scripted: Callable[..., Awaitable[ScriptedUpstream]],
) -> None:
    upstream = await scripted(Hanging(0))
    process = await started(upstream.url)
    await upstream.until(lambda: len(upstream.requests) == 1)
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"Traceback" not in err


def test_a_stream_without_an_end_is_told(answers: Callable[..., str]) -> None:
    url = answers(SSE, b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', closing=True)
    result = run(*small(url))
    assert (result.exit_code, "no end: after 1 events with tokens" in result.stderr) == (1, True)
