import gzip
import itertools
import json
import socket
from collections.abc import Awaitable, Callable

import pytest

from proxy.benchmark.client import Client
from proxy.benchmark.run import Arm, Measured
from proxy.benchmark.sample import Failure, Sample
from proxy.benchmark.summary import summed_up
from tests.benchmark.conftest import ASK, SSE, Time, target_of
from tests.support.scripted import Conversation, ScriptedUpstream, answering, whole

Asked = Callable[..., Awaitable[Sample]]
Scripted = Callable[..., Awaitable[ScriptedUpstream]]

JSON = b"Content-Type: application/json\r\n"
HTML = b"Content-Type: text/html; charset=utf-8\r\n"


def chunk(text: str = "zebra", **more: object) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}], **more}).encode() + b"\n\n"


STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
DEEP = b"[" * 100_000


async def test_it_asks_as_an_application_does(client: Client, scripted: Scripted) -> None:
    upstream = await scripted(answering(whole(b"{}")))
    target = target_of(upstream.url, key="sk-1", headers={"x-team": "search"})
    await client.ask(target, ASK, 8, stream=True, due_s=0.0)
    (request,) = upstream.requests
    assert request.line == b"POST /v1/chat/completions HTTP/1.1"
    assert request.field(b"content-type") == b"application/json"
    assert request.field(b"accept-encoding") == b"identity"
    assert request.field(b"authorization") == b"Bearer sk-1"
    assert request.field(b"x-team") == b"search"
    assert request.field(b"user-agent").startswith(b"serinus-bench/")
    assert json.loads(request.body)["messages"] == ASK


async def test_connections_are_kept(client: Client, scripted: Scripted) -> None:
    upstream = await scripted(answering(whole(b'{"usage": {"completion_tokens": 3}}')))
    for _ in range(3):
        got = await client.ask(target_of(upstream.url), ASK, 8, stream=False, due_s=0.0)
        assert (got.failure, got.tokens) == (None, 3)
    assert (upstream.connections, len(upstream.requests)) == (1, 3)


async def test_an_answer_of_two_events(asked: Asked) -> None:
    got = await asked(SSE, chunk(), chunk(), STOP, DONE)
    assert (got.failure, got.tokens, got.status, got.gaps_s) == (None, 2, 200, [0.0])


async def test_an_answer_may_say_how_many_tokens_it_has(asked: Asked) -> None:
    usage = b'data: {"choices":[],"usage":{"completion_tokens":7}}\n\n'
    got = await asked(SSE, chunk(), chunk(), STOP, usage, DONE)
    assert (got.failure, got.tokens) == (None, 7)


async def test_a_stream_may_end_without_done(asked: Asked) -> None:
    assert (await asked(SSE, chunk(), STOP)).failure is None


async def test_nobody_listens(client: Client) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        got = await client.ask(target_of(f"http://127.0.0.1:{unused.getsockname()[1]}"), ASK, 8, stream=True, due_s=0.0)
    assert (got.failure, got.kind) == (Failure.CONNECT, "no connection")
    assert got.said == "connection refused"


async def test_an_answer_that_never_comes_times_out(time: Time, scripted: Scripted) -> None:
    async def silent(talk: Conversation) -> None:
        await talk.request()
        await talk.gone()

    upstream: ScriptedUpstream = await scripted(silent)
    async with Client(time, 0.02) as hasty:
        got = await hasty.ask(target_of(upstream.url), ASK, 8, stream=True, due_s=0.0)
    assert (got.failure, got.said) == (Failure.TIMEOUT, "no end within 0.02 s")


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"
SHORT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{}"
ERROR = b'data: {"error":{"message":"out of memory","code":500}}\n\n'
BUSY = b'{"error":{"message":"Slow down.","type":"rate_limit"}}'

STREAMS: dict[str, tuple[list[bytes], Failure, str]] = {
    "nothing at all": ([], Failure.NO_ANSWER, ""),
    "half of a head": ([b"HTTP/1.1 200 OK\r\nContent-"], Failure.NO_ANSWER, ""),
    "no http": ([b"SSH-2.0-OpenSSH_9.6\r\n\r\n"], Failure.NO_ANSWER, ""),
    "cut by its chunks": ([CHUNKED, b"%x\r\n%b\r\n" % (len(chunk()), chunk())], Failure.CUT, ""),
    "cut by its length": ([LONG, chunk()], Failure.CUT, ""),
    "cut after its last event": ([LONG, chunk(), STOP, DONE], Failure.CUT, ""),
    "no end": ([SSE, chunk(), chunk()], Failure.NO_END, "after 2 events with tokens"),
    "empty stream": ([SSE], Failure.NO_END, "after 0 events with tokens"),
    "no blank line at the end": ([SSE, chunk(), DONE.strip()], Failure.NO_END, "after 1 events"),
    "no tokens": ([SSE, STOP, DONE], Failure.NO_TOKENS, ""),
    "error event": ([SSE, chunk(), ERROR], Failure.ERROR_IN_ANSWER, "out of memory"),
    "error event first": ([SSE, ERROR, chunk(), STOP, DONE], Failure.ERROR_IN_ANSWER, "out of memory"),
    "error event as text": ([SSE, b'data: {"error":"overloaded"}\n\n'], Failure.ERROR_IN_ANSWER, "overloaded"),
    "whole answer": ([whole(b"{}")], Failure.UNREADABLE, "no event stream, but application/json"),
    "html": ([whole(b"<html>", fields=HTML)], Failure.UNREADABLE, "no event stream, but text/html"),
    "no content type": ([whole(b"<html>", fields=b"")], Failure.UNREADABLE, "no event stream"),
    "odd content type": ([whole(b"", fields=b"Content-Type: ;;=/\xff\r\n")], Failure.UNREADABLE, "no event stream"),
    "malformed json": ([SSE, chunk(), b"data: {\n\n", STOP, DONE], Failure.UNREADABLE, ""),
    "html in an event": ([SSE, b"data: <html>\n\n"], Failure.UNREADABLE, ""),
    "invalid utf-8": ([SSE, b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n'], Failure.UNREADABLE, ""),
    "invalid utf-8 in a field": ([SSE, b'data: {"\xff":1}\n\n', STOP], Failure.NO_TOKENS, ""),
    "deep json": ([SSE, b'data: {"x":' + DEEP + b"\n\n"], Failure.UNREADABLE, ""),
    "deep delta": ([SSE, b'data: {"choices":[{"delta":{"content":' + DEEP + b"\n\n"], Failure.UNREADABLE, ""),
    "deep error": ([SSE, b'data: {"error":' + DEEP + b"\n\n"], Failure.UNREADABLE, ""),
    "numbers for texts": ([SSE, b'data: {"choices":[{"finish_reason":1}]}\n\n'], Failure.UNREADABLE, ""),
    "a text for choices": ([SSE, b'data: {"choices":"zebra"}\n\n'], Failure.UNREADABLE, ""),
    "no gzip though it says so": (
        [SSE.replace(b"Connection", b"Content-Encoding: gzip\r\nConnection"), chunk()],
        Failure.CUT,
        "",
    ),
    "429": ([whole(BUSY, status=b"429 Too Many")], Failure.STATUS, "Slow down."),
    "503 of a load balancer": ([whole(b"<h1>503</h1>\n  busy", status=b"503 No", fields=HTML)], Failure.STATUS, "busy"),
    "529 of Anthropic": (
        [whole(b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', status=b"529 Over")],
        Failure.STATUS,
        "Overloaded",
    ),
    "error with a body that is cut": ([SHORT.replace(b"200 OK", b"500 No")], Failure.CUT, ""),
    "error nested deeply": ([whole(b'{"error":' + DEEP, status=b"500 No")], Failure.STATUS, '{"error":[['),
    "error of no utf-8": ([whole(b'{"error":"\xff"}', status=b"500 No")], Failure.STATUS, "error"),
    "huge error": ([whole(b"zebra " * 1_000_000, status=b"500 No")], Failure.STATUS, "zebra zebra"),
    "redirect": (
        [whole(b"", status=b"302 Found", fields=b"Location: http://127.0.0.1:1/\r\n")],
        Failure.STATUS,
        "",
    ),
    "204": ([b"HTTP/1.1 204 No Content\r\n\r\n"], Failure.STATUS, ""),
    "201": ([whole(b"{}", status=b"201 Created")], Failure.STATUS, "{}"),
}


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_fails_is_named_for_how(name: str, asked: Asked) -> None:
    pieces, failure, said = STREAMS[name]
    got = await asked(*pieces)
    assert got.failure is failure, got
    assert said in got.said
    assert len(got.said) <= 200
    assert got.ended_s == 1024.0


WHOLE: dict[str, tuple[list[bytes], Failure]] = {
    "html": ([whole(b"<html>", fields=HTML)], Failure.UNREADABLE),
    "empty": ([whole(b"")], Failure.UNREADABLE),
    "null": ([whole(b"null")], Failure.UNREADABLE),
    "invalid utf-8": ([whole(b'{"usage":{"x":"\xff"},"usage":"\xff"}')], Failure.UNREADABLE),
    "deep": ([whole(b'{"x":' + DEEP)], Failure.UNREADABLE),
    "cut": ([SHORT], Failure.CUT),
    "a stream": ([SSE, chunk(), STOP, DONE], Failure.UNREADABLE),
    "an error in a 200": ([whole(b'{"error":{"message":"overloaded","code":502}}')], Failure.ERROR_IN_ANSWER),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_a_whole_answer_that_fails_is_named_for_how(name: str, asked: Asked) -> None:
    pieces, failure = WHOLE[name]
    got = await asked(*pieces, stream=False)
    assert got.failure is failure, got


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503, 529])
async def test_a_status_is_a_kind_of_its_own(status: int, asked: Asked) -> None:
    got = await asked(whole(b"", status=b"%d No" % status))
    assert (got.kind, got.status) == (f"status {status}", status)


async def test_a_compressed_stream_is_read_all_the_same(asked: Asked) -> None:
    head = SSE.replace(b"Connection", b"Content-Encoding: gzip\r\nConnection")
    got = await asked(head, gzip.compress(chunk() + chunk() + STOP + DONE))
    assert (got.failure, got.tokens) == (None, 2)


async def test_a_long_event_is_read(asked: Asked) -> None:
    assert (await asked(SSE, chunk("z" * 3_000_000), STOP, DONE)).failure is None


@pytest.mark.parametrize("endless", [b"x" * 2**20, b"data: xx\n" * 2**17], ids=["line", "event"])
async def test_what_has_no_end_is_not_kept(endless: bytes, asked: Asked) -> None:
    got = await asked(SSE, b"data: ", *[endless] * 20)
    assert got.failure is Failure.UNREADABLE, got


async def test_what_comes_in_one_block_came_at_once(scripted: Scripted) -> None:
    upstream = await scripted(answering(whole(chunk() + chunk() + STOP + DONE, fields=SSE.split(b"\r\n")[1] + b"\r\n")))
    ticks = itertools.count(1.0)
    async with Client(lambda: next(ticks), 30.0) as client:
        got = await client.ask(target_of(upstream.url), ASK, 8, stream=True, due_s=0.0)
    assert (got.failure, got.sent_s, got.first_token_s, got.last_token_s, got.gaps_s) == (None, 1.0, 2.0, 2.0, [0.0])
    assert got.ended_s == 3.0


async def test_a_redirect_is_not_followed(client: Client, scripted: Scripted) -> None:
    elsewhere = await scripted(answering(whole(b"{}")))
    location = b"Location: %b/chat/completions\r\n" % elsewhere.url.encode()
    upstream = await scripted(answering(whole(b"", status=b"307 Moved", fields=location)))
    got = await client.ask(target_of(upstream.url, key="sk-1"), ASK, 8, stream=True, due_s=0.0)
    assert (got.kind, elsewhere.requests) == ("status 307", [])


@pytest.mark.parametrize("tokens", [b"9" * 400, b"-5", b"18446744073709551616"])
async def test_an_absurd_number_of_tokens_does_no_harm(tokens: bytes, asked: Asked) -> None:
    got = await asked(SSE, chunk(), chunk(), b'data: {"usage":{"completion_tokens":%b}}\n\n' % tokens, STOP, DONE)
    arm = Arm(target_of("http://a"), stream=True, tokens=8)
    assert summed_up(Measured(arm, [[got]], 1.0)).tokens >= 0


async def test_nothing_that_steers_a_terminal_is_kept(asked: Asked) -> None:
    got = await asked(whole(b'{"error":"\\u001b[2Jgone\\u0007"}', status=b"500 No"))
    assert got.said.isprintable()
    assert "gone" in got.said


async def test_a_key_that_the_upstream_repeats_is_not_kept(asked: Asked) -> None:
    got = await asked(whole(b'{"error":"Incorrect API key: sk-zebra"}', status=b"401 No"), key="sk-zebra")
    assert "Incorrect API key" in got.said
    assert "zebra" not in got.said


@pytest.mark.parametrize(
    ("header", "said", "shown"),
    [
        ({"api-key": "sk-zebra"}, b"Incorrect API key: sk-zebra", "Incorrect API key: ***"),
        ({"authorization": "Bearer sk-zebra"}, b"Incorrect API key: sk-zebra", "Incorrect API key: ***"),
        ({"x-team": "a", "x-empty": "", "x-version": "1"}, b"a bad call 1", "a bad call 1"),
    ],
)
async def test_of_headers_what_may_be_a_key_is_not_kept(
    header: dict[str, str], said: bytes, shown: str, client: Client, scripted: Scripted
) -> None:
    upstream = await scripted(answering(whole(said, status=b"401 No")))
    got = await client.ask(target_of(upstream.url, headers=header), ASK, 8, stream=True, due_s=0.0)
    assert got.said == shown


async def test_no_half_of_a_key_is_kept_either(asked: Asked) -> None:
    for before in range(180, 200):
        got = await asked(whole(b"x" * before + b"sk-zebra", status=b"401 No"), key="sk-zebra")
        assert "sk-" not in got.said


async def test_the_environment_names_no_proxy_for_it(
    client: Client, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    upstream = await scripted(answering(whole(b"{}")))
    assert (await client.ask(target_of(upstream.url), ASK, 8, stream=False, due_s=0.0)).failure is None
