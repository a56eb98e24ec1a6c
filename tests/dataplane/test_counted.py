"""What is counted of answers as they pass: their tokens, a stream's pace, and how often a key had to rest."""

import asyncio
from collections import Counter

import pytest
from prometheus_client import parser

from tests.support.raw import RawCaller, ask, get, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Conversation, answering, whole

ALL = "metrics: {tokens: all}"
USAGE = b'{"usage":{"prompt_tokens":140,"completion_tokens":90,"total_tokens":230}}'
STREAMED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"data: {}\n\n"
TOKENS, PACE, COOLDOWNS = "tokens_total", "time_per_output_chunk_seconds", "key_cooldowns_total"
BIG = post(b'{"model":"big"}', fields=b"Content-Type: application/json\r\n")


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def exported(running: RunningProxy, name: str, *labels: str) -> Counter[tuple[str, ...]]:
    """A metric's samples, added up by the values of these labels."""
    text, found = running.serinus.metrics.render("")[0].decode(), Counter()
    for family in parser.text_string_to_metric_families(text):
        for one in family.samples:
            if one.name == f"serinus_{name}":
                found[tuple(one.labels[label] for label in labels)] += one.value
    return found


def tokens(running: RunningProxy) -> Counter[tuple[str, ...]]:
    return exported(running, TOKENS, "upstream", "direction")


# --- tokens ----------------------------------------------------------------------------------------------------------


async def test_all_tokens_are_counted_where_that_is_asked_for(scripted, proxy):
    upstream = await scripted(answering(whole(USAGE)))
    running = await proxy(config_for(upstream.url, top=ALL))
    for _ in range(2):
        assert (await ask(running.port, get(fields=b"Accept-Encoding: gzip\r\n"))).status == 200
    assert tokens(running) == {("up0", "input"): 280, ("up0", "output"): 180}
    assert upstream.requests[0].field(b"accept-encoding") == b"identity", "or they could not be read"


async def test_a_streams_tokens_are_counted_too(scripted, proxy):
    upstream = await scripted(answering(STREAMED, chunk(EVENT), chunk(b"data: " + USAGE + b"\n\n") + b"0\r\n\r\n"))
    running = await proxy(config_for(upstream.url, top=ALL))
    assert (await ask(running.port, post())).whole
    assert tokens(running) == {("up0", "input"): 140, ("up0", "output"): 90}


async def test_else_those_of_limited_clients_are_counted_and_nobodys_request_is_changed(scripted, proxy):
    upstream = await scripted(answering(whole(USAGE)))
    clients = """clients:
  - {name: free, key: free-key}
  - {name: held, key: client-key, limits: {tokens_per_minute: 100000}}"""
    running = await proxy(config_for(upstream.url, clients=False, top=clients))
    asks = get(fields=b"Accept-Encoding: gzip\r\n")
    await ask(running.port, asks.replace(b"client-key", b"free-key"))
    assert tokens(running) == {}
    assert upstream.requests[0].field(b"accept-encoding") == b"gzip"
    await ask(running.port, asks)
    assert tokens(running) == {("up0", "input"): 140, ("up0", "output"): 90}


@pytest.mark.parametrize("answer", [whole(b'{"id":"x"}'), whole(USAGE, status=b"500 Oops")], ids=["silent", "failed"])
async def test_what_an_answer_does_not_tell_is_not_made_up(scripted, proxy, answer):
    upstream = await scripted(answering(answer))
    running = await proxy(config_for(upstream.url, top=ALL))
    await ask(running.port, post())
    assert tokens(running) == {}


# --- the pace of a stream --------------------------------------------------------------------------------------------


class Paced:
    """Streams four events, each block when a test says so."""

    def __init__(self, *blocks: bytes) -> None:
        self.blocks, self.turns = blocks, asyncio.Queue[None]()

    async def __call__(self, talk: Conversation) -> None:
        await talk.request()
        await talk.send(STREAMED + chunk(EVENT))
        for block in self.blocks:
            await self.turns.get()
            await talk.send(block)


async def test_a_whole_stream_is_observed_once_by_the_mean_time_between_its_events(scripted, proxy):
    upstream = await scripted(paced := Paced(chunk(EVENT * 2), chunk(EVENT) + b"0\r\n\r\n"))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    await caller.read_until(chunk(EVENT))
    running.pass_time(0.5)
    paced.turns.put_nowait(None)
    await caller.read_until(chunk(EVENT * 2))
    running.pass_time(0.3)
    paced.turns.put_nowait(None)
    await caller.read_until(b"0\r\n\r\n")
    await running.until_logged()
    assert exported(running, f"{PACE}_count") == {(): 1}
    assert exported(running, f"{PACE}_sum")[()] == pytest.approx(0.8 / 4), "four events, in whatever blocks they came"


async def test_an_answer_that_is_no_stream_has_no_pace(scripted, proxy):
    upstream = await scripted(answering(whole(b'"data: data: "')))
    running = await proxy(config_for(upstream.url))
    await ask(running.port, post())
    assert exported(running, f"{PACE}_count") == {(): 0}


async def test_a_stream_that_is_cut_has_none_either(scripted, proxy):
    async def cut(talk: Conversation) -> None:
        await talk.request()
        await talk.send(STREAMED + chunk(EVENT))
        talk.reset()

    upstream = await scripted(cut)
    running = await proxy(config_for(upstream.url))
    assert not (await ask(running.port, post())).whole
    assert exported(running, f"{PACE}_count") == {(): 0}


# --- keys that rest --------------------------------------------------------------------------------------------------


async def test_a_rest_is_counted_for_the_key_that_was_refused_and_others_have_none(scripted, proxy):
    async def script(talk: Conversation) -> None:
        while True:
            refused = (await talk.request()).field(b"authorization") == b"Bearer a"
            slow = whole(b"slow", status=b"429 Slow", fields=b"retry-after: 30\r\n")
            await talk.send(slow if refused else whole(b"{}"))

    upstream = await scripted(script)
    running = await proxy(f"""
upstreams: {{up: {{base_url: '{upstream.url}', keys: [{{name: main, value: a}}, {{name: spare, value: b}}]}}}}
pools: {{chat: {{members: [{{upstream: up}}], balance: smooth_rr}}}}
routes: [{{prefix: /v1, pool: chat}}]
""")
    counted = {("up", "main"): 0, ("up", "spare"): 0}
    assert exported(running, COOLDOWNS, "upstream", "key") == counted
    for rests in (1, 2):
        for _ in range(4):
            assert (await ask(running.port, BIG)).status == 200
        assert exported(running, COOLDOWNS, "upstream", "key") == counted | {("up", "main"): rests}
        running.pass_time(31)


async def test_refusals_of_what_was_under_way_are_one_rest(scripted, proxy):
    both, asked = asyncio.Event(), 0

    async def script(talk: Conversation) -> None:
        nonlocal asked
        await talk.request()
        asked += 1
        if asked == 2:
            both.set()
        await both.wait()
        await talk.send(whole(b"slow", status=b"429 Slow", fields=b"retry-after: 30\r\n"))

    upstream = await scripted(script)
    running = await proxy(config_for(upstream.url))
    answers = await asyncio.gather(ask(running.port, BIG), ask(running.port, BIG))
    assert [answer.status for answer in answers] == [429, 429]
    assert exported(running, COOLDOWNS, "upstream", "key") == {("up0", "main"): 1}
