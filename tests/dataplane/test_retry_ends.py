"""What ends a request between two tries leaves nothing behind; limits of time, budget and quota hold over all tries."""

import asyncio

import pytest

from tests.support.lanes import the_connection
from tests.support.raw import RawCaller, ask, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Conversation, answering, whole

IN_TURN = "balance: smooth_rr, slow_start: 0s"
BUSY = whole(b"busy", status=b"503 Busy")


async def silent(talk: Conversation) -> None:
    await talk.request()
    await talk.gone()


async def never_open(talk: Conversation) -> None:
    """Of TLS: the handshake has begun."""
    await talk.gone()


def refused(field: bytes) -> bytes:
    return whole(b"own", status=b"429 Slow", fields=field + b"\r\n")


def waits(running: RunningProxy) -> bool:
    """For quota?"""
    exchange = the_connection(running).exchange
    return exchange is not None and exchange._waiting


# --- ends ------------------------------------------------------------------------------------------------------------

STATES = {  # what the first upstream does, and the second
    "connecting": (never_open, None),
    "before the first answer": (silent, None),
    "connecting again": (answering(BUSY), never_open),
    "before the second answer": (answering(BUSY), silent),
    "after an interim answer": (answering(BUSY), answering(b"HTTP/1.1 102 Processing\r\n\r\n")),
    "waiting for quota": (answering(refused(b"retry-after: 2")), None),
    "waiting for quota after a retry": (answering(BUSY), answering(refused(b"retry-after: 2"))),
}


@pytest.mark.parametrize("end", ["the caller leaves", "the proxy stops", "a reload, then the caller leaves"])
@pytest.mark.parametrize("state", STATES)
async def test_nothing_is_left_of_a_request_that_ends(state, end, scripted, proxy, tmp_path):
    scripts = [script for script in STATES[state] if script is not None]
    upstreams = [await scripted(script) for script in scripts]
    urls = [
        one.url.replace("http:", "https:" if script is never_open else "http:")
        for one, script in zip(upstreams, scripts, strict=True)
    ]
    path = tmp_path / "serinus.yaml"
    running = await proxy(config_for(*urls, pool=f"{IN_TURN}, retry: {{attempts: 3}}"), path=path)
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    last = upstreams[-1]
    await running.until(lambda: last.connections == 1)
    if "waiting" in state:
        await running.until(lambda: waits(running))
    elif scripts[-1] is not never_open:
        await last.until(lambda: len(last.requests) == 1)
    assert running.inflight() == 1
    if "reload" in end:
        path.write_text(
            path.read_text().replace("pools: {chat:", "pools: {other:").replace("pool: chat", "pool: other")
        )
        await running.serinus.reloader.reload()
    if end == "the proxy stops":
        await running.stop()
    else:
        caller.writer.transport.abort()
    await running.until_logged()
    running.pass_time(5)
    (line,) = running.requests_logged
    assert (line["status"], line["outcome"]) == (499, "stopped" if end == "the proxy stops" else "client_gone")
    assert len(line["tried"] or ()) == len(scripts) - 1
    if scripts[-1] is silent:
        await last.until(lambda: last.open == 0)
    assert len(last.requests) <= 1


async def test_tries_share_one_limit_of_time(scripted, proxy):
    upstreams = [await scripted(silent) for _ in range(5)]
    limits = "timeouts: {first_byte: 4s, total: 10s}"
    pool = f"{IN_TURN}, retry: {{attempts: 10}}"
    running = await proxy(config_for(*(one.url for one in upstreams), upstream=limits, pool=pool))
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    for upstream in upstreams[:3]:
        await upstream.until(lambda one=upstream: len(one.requests) == 1)
        running.pass_time(4)
    answer = await caller.answer()
    assert (answer.status, b"upstream_timeout" in answer.payload) == (504, True)
    assert [len(one.requests) for one in upstreams] == [1, 1, 1, 0, 0]
    await upstreams[2].until(lambda: upstreams[2].open == 0)
    assert running.serinus.registry.pools["chat"].retries == {"timeout": 2}


async def test_time_that_an_upstream_lost_is_not_the_proxys_own(scripted, proxy):
    slow, good = await scripted(silent), await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(slow.url, good.url, pool=IN_TURN, upstream="timeouts: {first_byte: 1h}"))
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    await slow.until(lambda: len(slow.requests) == 1)
    running.pass_time(3600)
    assert (await caller.answer()).status == 200
    await running.until_logged()
    (line,) = running.requests_logged
    assert (line["overhead_ms"], line["ttfb_ms"], line["duration_ms"]) == (0, 0, 3_600_000)


async def test_no_try_begins_when_the_time_is_over(scripted, proxy):
    may_answer = asyncio.Event()

    async def late(talk: Conversation) -> None:
        await talk.request()
        await may_answer.wait()
        await talk.send(BUSY)

    bad, good = await scripted(late), await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(bad.url, good.url, pool=IN_TURN, upstream="timeouts: {total: 10s}"))
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    await bad.until(lambda: len(bad.requests) == 1)
    running.serinus.data_plane.watch.stop()  # nobody has looked at the time when the answer comes
    running.clock.ahead_s += 10
    may_answer.set()
    assert ((await caller.answer()).payload, good.requests) == (b"busy", [])


async def test_request_that_is_on_a_retry_needs_no_more_of_the_budget(scripted, proxy):
    may_answer = asyncio.Event()

    async def late(talk: Conversation) -> None:
        await talk.request()
        await may_answer.wait()
        await talk.send(BUSY)

    upstreams = [await scripted(answering(BUSY)), await scripted(late), await scripted(answering(whole(b"{}")))]
    config = config_for(*(one.url for one in upstreams), pool=f"{IN_TURN}, retry: {{attempts: 3}}")
    weighed = config.replace("{upstream: up0}", "{upstream: up0, weight: 1000}")
    running = await proxy(weighed.replace("{upstream: up1}", "{upstream: up1, weight: 100}"))
    callers = [await RawCaller.connect(running.port) for _ in range(3)]
    for count, caller in enumerate(callers, 1):
        await caller.send(post())
        await upstreams[1].until(lambda count=count: len(upstreams[1].requests) == count)
    may_answer.set()
    assert [(await caller.answer()).status for caller in callers] == [200] * 3


async def test_budget_bounds_the_tries_that_are_under_way_again(scripted, proxy):
    may_answer = asyncio.Event()

    async def failing(talk: Conversation) -> None:
        while True:
            if (await talk.request()).body == b"hold":
                await may_answer.wait()
            await talk.send(BUSY)

    async def held(talk: Conversation) -> None:
        while True:
            await talk.request()
            await may_answer.wait()
            await talk.send(whole(b"{}"))

    bad, slow = await scripted(failing), await scripted(held)
    pool = f"{IN_TURN}, outlier: {{consecutive_failures: 100}}, retry: {{on: [503]}}"
    config = config_for(bad.url, slow.url, pool=pool)
    running = await proxy(config.replace("{upstream: up0}", "{upstream: up0, weight: 1000}"))
    live = running.serinus.registry.pools["chat"]
    callers = []

    async def begin(body: bytes) -> RawCaller:
        callers.append(await RawCaller.connect(running.port))
        await callers[-1].send(post(body))
        return callers[-1]

    for number in range(1, 4):
        await begin(b"fail")
        await slow.until(lambda count=number: len(slow.requests) == count)
    assert (await (await begin(b"fail")).answer()).payload == b"busy"  # three, however few there are
    for number in range(17):
        await begin(b"hold")
        await bad.until(lambda count=number + 5: len(bad.requests) == count)
    assert live.requests == 20
    await begin(b"fail")  # a fifth of 21
    await slow.until(lambda: len(slow.requests) == 4)
    assert (await (await begin(b"fail")).answer()).status == 503
    assert (live.budget.under_way, live.retries) == (4, {503: 4})
    may_answer.set()
    await running.until_logged(len(callers))
    assert (live.requests, live.budget.under_way) == (0, 0)


# --- a quota that is waited for --------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [b"retry-after: 1", b"retry-after-ms: 1500", b"Retry-After: 0", b"Retry-After: 2"])
async def test_quota_that_is_soon_there_again_is_waited_for(field, scripted, proxy):
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(refused(field))
        await talk.request()
        await talk.send(whole(b"{}"))

    upstream = await scripted(script)
    running = await proxy(config_for(upstream.url, pool=IN_TURN))
    caller = await RawCaller.connect(running.port)
    await caller.send(post(b'{"model":"m"}'))
    if field.endswith(b"0"):
        await upstream.until(lambda: len(upstream.requests) == 1)
    else:
        await running.until(lambda: waits(running))
    assert running.inflight() == 1
    running.pass_time(2)
    answer = await caller.answer()
    assert (answer.status, [request.body for request in upstream.requests]) == (200, [b'{"model":"m"}'] * 2)
    await running.until_logged()
    assert running.requests_logged[0]["tried"] == ("up0: 429, waited out",)


@pytest.mark.parametrize(
    ("field", "pool", "upstream"),
    [
        (b"retry-after: 3", "", ""),
        (b"x-own: 1", "", ""),
        (b"retry-after: soon", "", ""),
        (b"retry-after: 1", "retry: {attempts: 1}", ""),
        (b"retry-after: 1", "retry: {on: [503]}", ""),
        (b"retry-after: 1", "retry: {max_wait: 0s}", ""),
        (b"retry-after: 2", "", "timeouts: {total: 2s}"),
    ],
)
async def test_refusal_that_is_not_waited_out_passes_as_it_is(field, pool, upstream, scripted, proxy):
    one = await scripted(answering(refused(field)))
    running = await proxy(config_for(one.url, pool=f"{IN_TURN}, {pool}" if pool else IN_TURN, upstream=upstream))
    answer = await ask(running.port, post())
    name, _, value = field.partition(b": ")
    assert (answer.status, answer.reason, answer.payload) == (429, b"Slow", b"own")
    assert (answer.all(name), len(one.requests)) == ([value], 1)


async def test_second_refusal_is_not_waited_out_again(scripted, proxy):
    upstream = await scripted(answering(refused(b"retry-after: 1")))
    running = await proxy(config_for(upstream.url, pool=IN_TURN))
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    await running.until(lambda: waits(running))
    running.pass_time(1)
    assert ((await caller.answer()).payload, len(upstream.requests)) == (b"own", 2)
