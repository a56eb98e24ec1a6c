"""A try that fails before its answer has begun is made again elsewhere, and the caller sees nothing of it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.faults import FaultProxy
from tests.support.lanes import the_connection
from tests.support.raw import Answer, RawCaller, ask, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Conversation, Held, ScriptedUpstream, answering, whole
from tests.support.tunnels import SWITCH, upgrade

IN_TURN = "balance: smooth_rr"
BUSY = whole(b"busy", status=b"503 Busy")
LONG = b"HTTP/1.1 503 Busy\r\nContent-Length: 99999999\r\n\r\n"
CHUNKED = b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n"


async def silent(talk: Conversation) -> None:
    await talk.request()
    await talk.gone()


def cut(piece: bytes = b"", *, rst: bool = False):
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(piece)
        talk.reset() if rst else talk.close()

    return script


@pytest.fixture
async def refusing() -> AsyncIterator[str]:
    """Where nobody listens."""
    nobody = FaultProxy(0)
    yield nobody.url
    await nobody.close()


@pytest.fixture
async def good(scripted) -> ScriptedUpstream:
    return await scripted(answering(whole(b'{"id":"resp_1"}')))


def tried(running: RunningProxy) -> list[str]:
    """Of the last request."""
    return list(running.requests_logged[-1]["tried"] or ())


def traffic(running: RunningProxy) -> dict[str, tuple[int, int]]:
    """Of each upstream, its requests and its failures."""
    counts = {}
    for labels, series in running.serinus.metrics.all_series():
        if labels.upstream:
            before = counts.get(labels.upstream, (0, 0))
            counts[labels.upstream] = (
                before[0] + sum(series.codes.values()) + series.retried,
                before[1] + series.failures,
            )
    return counts


# --- what is tried again ---------------------------------------------------------------------------------------------

FAILURES = {
    "closed": cut(),
    "reset": cut(rst=True),
    "cut in its head": cut(b"HTTP/1.1 200 OK\r\nContent-"),
    "cut after an interim answer": cut(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "not HTTP": answering(b"SSH-2.0-OpenSSH_9.6\r\n"),
    **{str(status): answering(whole(b"busy", status=b"%d Busy" % status)) for status in (429, 502, 503, 504, 529)},
    "429 without a body": answering(b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n"),
    "503 after interim answers": answering(b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + BUSY),
    "503 in several pieces": answering(LONG, b"x" * 1000, b"y" * 1000),
    "503 without an end": answering(CHUNKED, b"5\r\nhello\r\n"),
    "503 in chunks": answering(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"),
    "503 up to the close": cut(b"HTTP/1.0 503 Busy\r\n\r\nbusy"),
    "503 of many bytes": answering(LONG + b"x" * 2**20),
    "503 with more behind it": answering(BUSY + whole(b"not asked for")),
}
KEPT = ("429", "502", "503", "504", "529", "429 without a body", "503 after interim answers", "503 in chunks")


@pytest.mark.parametrize("name", FAILURES)
async def test_failed_try_is_made_again_with_the_same_bytes(name, good, scripted, proxy):
    bad = await scripted(FAILURES[name])
    running = await proxy(config_for(bad.url, good.url, keys=False, pool=IN_TURN))
    body = bytes(range(256)) * 100
    caller = await RawCaller.connect(running.port)
    await caller.send(post(body, fields=b"X-Own: 1\r\n"))
    answer = await caller.answer()
    assert (answer.status, answer.payload, answer.field(b"x-serinus-upstream")) == (200, b'{"id":"resp_1"}', b"up1")
    assert (answer.field(b"connection"), answer.field(b"x-serinus-attempts")) == (None, b"2")
    (first,), (second,) = bad.requests, good.requests
    assert first.body == second.body == body
    assert [pair for pair in first.fields if pair[0].lower() != b"host"] == [
        pair for pair in second.fields if pair[0].lower() != b"host"
    ]
    assert {name.lower() for name, _ in first.fields} >= {b"x-request-id", b"traceparent", b"x-own"}
    await running.until_logged()
    assert [each.partition(":")[0] for each in tried(running)] == ["up0"]
    assert traffic(running) == {"up0": (1, 1), "up1": (1, 0)}
    upstreams = running.serinus.admin.status(60).upstreams
    assert [upstreams[name].traffic.failed_percent for name in ("up0", "up1")] == [100, 0]
    assert [sum(upstreams[name].outcomes.values()) for name in ("up0", "up1")] == [1, 1]
    pools = running.serinus.data_plane._pools._pools.values()
    await running.until(lambda: sum(map(len, pools)) == (2 if name in KEPT else 1))
    await caller.send(post(b"next"))  # goes to the second by its turn, on the same connections
    assert (await caller.answer()).field(b"x-serinus-attempts") is None
    assert good.requests[-1].body == b"next"


async def test_upstream_that_cannot_be_reached_is_one_failed_try(refusing, good, proxy):
    running = await proxy(config_for(refusing, good.url, pool=IN_TURN))
    assert (await ask(running.port, post())).status == 200
    await running.until_logged()
    assert tried(running) == ["up0: ECONNREFUSED"]
    assert running.serinus.registry.pools["chat"].retries == {"connect": 1}
    assert traffic(running) == {"up0": (1, 1), "up1": (1, 0)}


async def test_times_are_those_of_the_last_try(refusing, scripted, proxy):
    bad = await scripted(answering(BUSY))
    running = await proxy(config_for(bad.url, refusing, pool=IN_TURN))
    answer = await ask(running.port, post())
    assert (answer.status, b"upstream_unavailable" in answer.payload) == (503, True)
    await running.until_logged()
    (line,) = running.requests_logged
    assert (line["upstream"], line["ttfb_ms"], line["tried"]) == ("up1", None, ("up0: status 503",))


async def test_body_is_not_kept_while_its_answer_lasts(scripted, proxy):
    bad = await scripted(answering(BUSY))
    running = await proxy(config_for(bad.url, (await scripted(held := Held())).url, pool=IN_TURN))
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    await caller.read_until(Held.FIRST)
    exchange = the_connection(running).exchange
    assert (exchange._body, exchange._plan._body) == (b"", b"")
    held.may_end.set()
    await caller.read_until(Held.LAST)


async def test_refused_head_request_is_made_again(good, scripted, proxy):
    bad = await scripted(answering(b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\n"))
    ok = await scripted(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"))
    running = await proxy(config_for(bad.url, ok.url, pool=IN_TURN))
    assert (await ask(running.port, post(b"").replace(b"POST", b"HEAD"))).status == 200
    assert sum(map(len, running.serinus.data_plane._pools._pools.values())) == 2


@pytest.mark.parametrize(
    "answer",
    [whole(b"own words", status=b"%d Own" % status) for status in (400, 403, 404, 413, 422, 500, 501, 505)]
    + [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nown", CHUNKED.replace(b"503", b"200") + b"5\r\nown"],
    ids=lambda answer: answer[9:12].decode(),
)
async def test_what_the_caller_has_seen_or_must_mend_itself_is_not_tried_again(answer, good, scripted, proxy):
    bad = await scripted(cut(answer))
    running = await proxy(config_for(bad.url, good.url, pool=IN_TURN))
    got = await ask(running.port, post())
    assert answer.endswith(got.body)
    assert b"own" in got.body or not got.whole
    await running.until_logged()
    assert (got.field(b"x-serinus-upstream"), tried(running), good.requests) == (b"up0", [], [])


@pytest.mark.parametrize("attempts", [1, 2, 3, 10])
async def test_attempts_are_all_there_are_and_the_last_answer_is_the_upstreams_own(attempts, scripted, proxy):
    bad = [await scripted(answering(whole(b"busy %d" % number, status=b"503 B"))) for number in range(4)]
    urls = [upstream.url for upstream in bad]
    pool = f"{IN_TURN}, retry: {{attempts: {attempts}}}"
    running = await proxy(config_for(*urls, pool=pool))
    answer = await ask(running.port, post())
    asked = [len(upstream.requests) for upstream in bad]
    assert (sum(asked), max(asked)) == (min(attempts, 4), 1)
    assert (answer.status, answer.reason, answer.payload) == (503, b"B", b"busy %d" % (sum(asked) - 1))
    assert answer.field(b"retry-after") is None


@pytest.mark.parametrize(("failure", "word"), [("503", "502"), ("429", "connect"), ("closed", "timeout")])
async def test_only_what_the_pool_names_is_tried_again(failure, word, good, scripted, proxy):
    bad = await scripted(FAILURES[failure])
    running = await proxy(config_for(bad.url, good.url, pool=f"{IN_TURN}, retry: {{on: [{word}]}}"))
    assert (await ask(running.port, post())).status == (502 if failure == "closed" else int(failure))
    assert good.requests == []


@pytest.mark.parametrize("refusal", [BUSY, whole(b"busy", status=b"429 Slow", fields=b"retry-after: 1\r\n")])
async def test_body_beyond_the_buffer_is_sent_once(refusal, good, scripted, proxy):
    bad = await scripted(answering(refusal))
    running = await proxy(config_for(bad.url, good.url, pool=IN_TURN, route="buffer: 1KiB"))
    assert (await ask(running.port, post(b"x" * 2**22))).payload == b"busy"
    assert good.requests == []


async def test_caller_goes_on_after_a_retry_in_the_order_it_asked(scripted, proxy):
    async def echo(talk: Conversation) -> None:
        while True:
            await talk.send(whole((await talk.request()).body))

    bad, ok = await scripted(answering(BUSY)), await scripted(echo)
    running = await proxy(config_for(bad.url, ok.url, pool=IN_TURN))
    caller = await RawCaller.connect(running.port)
    await caller.send(b"".join(post(b"%d" % number) for number in range(6)))
    assert [(await caller.answer()).payload for _ in range(6)] == [b"%d" % number for number in range(6)]
    assert (bad.connections, ok.connections) == (1, 1)


async def test_stale_connection_and_its_replacement_are_one_try(good, scripted, proxy):
    async def script(talk: Conversation) -> None:
        await talk.request()
        if talk.upstream.connections == 1:
            await talk.send(whole(b"{}"))
            await talk.request()

    bad = await scripted(script)
    running = await proxy(config_for(bad.url, good.url, pool=IN_TURN))
    for _ in range(3):
        assert (await ask(running.port, post())).status == 200
    await running.until_logged(3)
    assert (bad.connections, len(bad.requests), len(tried(running))) == (2, 3, 1)
    assert traffic(running) == {"up0": (2, 1), "up1": (2, 0)}


async def test_connection_that_holds_some_of_a_body_is_not_kept_after_a_refusal(good, scripted, proxy):
    async def script(talk: Conversation) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        talk.writer.transport.pause_reading()
        await talk.send(BUSY)
        await asyncio.Event().wait()

    bad = await scripted(script)
    running = await proxy(config_for(bad.url, good.url, pool=IN_TURN, route="buffer: 32MiB"))
    assert (await ask(running.port, post(b"x" * 20 * 2**20))).status == 200
    assert [len(pool) for pool in running.serinus.data_plane._pools._pools.values()] == [0, 1]


async def test_websocket_is_tried_again_before_it_is_open(scripted, proxy):
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(SWITCH)
        await talk.send(await talk.reader.readexactly(5))

    bad, ok = await scripted(answering(BUSY)), await scripted(script)
    running = await proxy(config_for(bad.url, ok.url, pool=IN_TURN))
    caller = await RawCaller.connect(running.port)
    await caller.send(upgrade() + b"early")
    assert ((await caller.answer()).status, await caller.read_until(b"early")) == (101, b"early")


async def test_who_made_it_after_a_retry_is_asked_for_it_and_nobody_else(good, scripted, proxy):
    bad = await scripted(answering(BUSY))
    running = await proxy(config_for(bad.url, good.url, pool=IN_TURN))
    for _ in range(2):
        assert (await ask(running.port, post(target=b"/v1/responses"))).status == 200
    good.script = bad.script
    again = post(b'{"previous_response_id":"resp_1"}', target=b"/v1/responses")
    for request in (again, post(target=b"/v1/responses/resp_1/cancel")):
        assert (await asked_afresh(running, good, request)).payload == b"busy"
    assert len(bad.requests) == 1


async def asked_afresh(running: RunningProxy, upstream: ScriptedUpstream, request: bytes) -> Answer:
    """On a connection to the upstream that has its new script."""
    for pool in running.serinus.data_plane._pools._pools.values():
        while (idle := pool.take()) is not None:
            idle.abort()
    return await ask(running.port, request)


async def test_second_member_gets_its_own_model(scripted, proxy):
    bad, ok = await scripted(answering(BUSY)), await scripted(answering(whole(b"{}")))
    config = config_for(bad.url, ok.url, pool=IN_TURN)
    config = config.replace("{upstream: up0}", "{upstream: up0, model: one}")
    config = config.replace("{upstream: up1}", "{upstream: up1, model: another-name}")
    running = await proxy(config)
    await ask(running.port, post(b'{ "x":"\xc3\xa9", "model" : "m"  }'))
    assert bad.requests[0].body == b'{ "x":"\xc3\xa9", "model" : "one"  }'
    assert ok.requests[0].body == b'{ "x":"\xc3\xa9", "model" : "another-name"  }'


@pytest.mark.parametrize("body", [b"no JSON", b'{"model":"a","model":"b"}', b'{"model":7}', b'{"model":"a"}', b""])
async def test_body_whose_model_nobody_knows_is_tried_again_too(body, good, scripted, proxy):
    bad = await scripted(answering(whole(b"{}", status=b"429 Slow", fields=b"retry-after: 30\r\n")))
    running = await proxy(config_for(bad.url, good.url, pool=IN_TURN))
    for _ in range(3):  # the second and the third find the key cooling
        assert (await ask(running.port, post(body))).status == 200
    assert (len(bad.requests), [request.body for request in good.requests]) == (1, [body] * 3)
