"""A provider's limits, kept by us: another key is taken, or the request waits for its turn, and no 429 is drawn."""

import asyncio
from collections import Counter

import pytest

from proxy.model.secret import Secret
from tests.dataplane.test_resting_keys import PLAIN, code, used_by
from tests.support.raw import RawCaller, ask, get, post
from tests.support.scripted import Conversation, answering, whole

USAGE = b'{"usage":{"total_tokens":%d}}'


def config(url: str, keys: str, *, limits: str = "", pool: str = "retry: {max_wait: 0s}", more: str = "") -> str:
    """`keys`: their names, and after a slash the requests they may send a minute."""
    listed = []
    for key in keys.split():
        name, _, rate = key.partition("/")
        limited = f", limits: {{requests_per_minute: {rate}}}" if rate else ""
        listed.append(f"{{name: {name}, value: key-{name}{limited}}}")
    held = f", keys: [{', '.join(listed)}]" if listed else ""
    return f"""
upstreams:
  up: {{base_url: '{url}'{held}{f", limits: {{{limits}}}" if limits else ""}}}
  spare: {{base_url: '{url}/spare'}}
pools:
  chat: {{members: [{{upstream: up}}], balance: smooth_rr, slow_start: 0s, {pool}}}
  spare: {{members: [{{upstream: spare}}]}}
routes: [{{prefix: /v1, pool: chat}}]
{more}
"""


@pytest.fixture
def start(scripted, proxy):
    async def start(keys: str, body: bytes = b"{}", **options):
        upstream = await scripted(answering(whole(body)))
        return await proxy(config(upstream.url, keys, **options)), upstream

    return start


async def test_a_key_that_has_used_up_its_limit_is_passed_over(start):
    running, upstream = await start("a/2 b")
    for _ in range(6):
        assert (await ask(running.port, post())).status == 200
    assert Counter(map(used_by, upstream.requests)) == {"a": 2, "b": 4}
    running.pass_time(30)  # in which one flows back
    for _ in range(4):
        assert (await ask(running.port, post())).status == 200
    assert Counter(map(used_by, upstream.requests)) == {"a": 3, "b": 7}


async def test_where_all_are_used_up_and_no_wait_is_allowed_it_is_a_429_of_ours(start):
    running, upstream = await start("a/1 b/2")
    for _ in range(3):
        assert (await ask(running.port, post())).status == 200
    answer = await ask(running.port, post())
    assert code(answer) == (429, b"rate_limit_exceeded")
    assert answer.field(b"retry-after") == b"30"  # b's
    assert len(upstream.requests) == 3


async def test_an_upstreams_limit_counts_for_all_of_its_keys(start):
    running, _ = await start("a b", limits="requests_per_minute: 3")
    statuses = [(await ask(running.port, post())).status for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


async def test_callers_own_keys_count_in_an_upstreams_limit_too(start):
    running, _ = await start("", limits="requests_per_minute: 1")
    assert [(await ask(running.port, post())).status for _ in range(2)] == [200, 429]


async def test_a_fallback_comes_before_a_wait(start):
    running, upstream = await start("a/1", pool="retry: {max_wait: 60s}, fallback: spare")
    for _ in range(2):
        assert (await ask(running.port, post())).status == 200
    lines = [request.line.partition(b" HTTP")[0] for request in upstream.requests]
    assert lines == [b"POST /v1/chat/completions", b"POST /v1/spare/chat/completions"]


async def waiting_at(running, count: int) -> list[RawCaller]:
    """So many requests, each sent when the one before has its turn."""
    callers = []
    for _ in range(count):
        callers.append(await RawCaller.connect(running.port))
        before = running.inflight()
        await callers[-1].send(post())
        await running.until(lambda before=before: running.inflight() == before + 1)
    return callers


async def test_requests_wait_for_their_turn_and_each_has_its_own(start):
    running, upstream = await start("a/2", pool="retry: {max_wait: 100s}")
    for _ in range(2):
        assert (await ask(running.port, post())).status == 200
    callers = await waiting_at(running, 3)
    answer = await ask(running.port, post())
    assert (answer.status, answer.field(b"retry-after")) == (429, b"120")
    for sent, caller in enumerate(callers, 3):
        assert len(upstream.requests) == sent - 1
        running.pass_time(30)
        assert (await caller.answer()).status == 200
    await running.until_logged(6)
    waited = [line["waited_ms"] for line in running.requests_logged if line["waited_ms"]]
    assert waited == [30_000, 60_000, 90_000]
    assert not any(line["overhead_ms"] for line in running.requests_logged)


async def test_who_leaves_while_it_waits_is_never_sent(start):
    running, upstream = await start("a/1", pool="retry: {max_wait: 100s}")
    assert (await ask(running.port, post())).status == 200
    (caller,) = await waiting_at(running, 1)
    caller.close()
    await running.until(lambda: running.inflight() == 0)
    running.pass_time(61)
    assert len(upstream.requests) == 1


async def test_who_waits_while_the_proxy_stops_is_told(start):
    running, _ = await start("a/1", pool="retry: {max_wait: 100s}")
    assert (await ask(running.port, post())).status == 200
    (caller,) = await waiting_at(running, 1)
    await running.stop()
    assert (await caller.read_rest(), caller.closed) == (b"", True)


async def test_nobody_waits_beyond_the_time_that_a_request_may_take(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    text = config(upstream.url, "a/1", pool="retry: {max_wait: 100s}")
    running = await proxy(
        text.replace("limits: {requests", "limits: {requests").replace(
            f"up: {{base_url: '{upstream.url}'", f"up: {{timeouts: {{total: 10s}}, base_url: '{upstream.url}'"
        )
    )
    assert [(await ask(running.port, post())).status for _ in range(2)] == [200, 429]


async def test_a_hedged_pool_waits_as_well_and_hedges_from_when_it_was_sent(start):
    running, upstream = await start("a/1", pool="hedge: {after: 1s}, retry: {max_wait: 100s}")
    assert (await ask(running.port, post())).status == 200
    (caller,) = await waiting_at(running, 1)
    running.pass_time(30)
    assert (len(upstream.requests), running.inflight()) == (1, 1)
    running.pass_time(30)
    assert (await caller.answer()).status == 200


async def test_a_request_bound_to_an_upstream_waits_for_it_or_is_told(start):
    running, upstream = await start("a/1", pool="retry: {max_wait: 30s}, fallback: spare")
    lookup = get(b"/v1/responses/resp_1")
    assert (await ask(running.port, lookup)).status == 200
    answer = await ask(running.port, lookup)
    assert (answer.status, answer.field(b"retry-after")) == (429, b"60")
    running.pass_time(35)
    caller = await RawCaller.connect(running.port)
    await caller.send(lookup)
    await running.until(lambda: running.inflight() == 1)
    assert len(upstream.requests) == 1
    running.pass_time(25)
    assert (await caller.answer()).status == 200


async def test_tokens_are_estimated_and_corrected_by_usage(start):
    prompt = post(b'{"model":"m","messages":"%b"}' % (b"x" * 371), fields=PLAIN)  # 100 tokens
    running, _ = await start("", USAGE % 700, limits="tokens_per_minute: 1000")
    assert (await ask(running.port, prompt)).status == 200
    await running.until_logged(1)
    assert running.serinus.registry.upstreams["up"].limits.tokens.remaining(running.clock()) == 300
    assert (await ask(running.port, prompt)).status == 200
    await running.until_logged(2)
    answer = await ask(running.port, prompt)  # 400 too many, and 100 for itself
    assert (answer.status, answer.field(b"retry-after")) == (429, b"30")


async def test_a_try_that_fails_gives_its_tokens_back(scripted, proxy):
    prompt = post(b'{"model":"m","messages":"%b"}' % (b"x" * 2000), fields=PLAIN)

    async def vendor(talk: Conversation) -> None:
        while True:
            request = await talk.request()
            refused = used_by(request) == "a"
            await talk.send(whole(b"{}", status=b"503 Busy" if refused else b"200 OK"))

    upstream = await scripted(vendor)
    text = f"""
upstreams:
  one: {{base_url: '{upstream.url}', keys: [{{name: a, value: key-a}}], limits: {{tokens_per_minute: 1000}}}}
  two: {{base_url: '{upstream.url}', keys: [{{name: b, value: key-b}}]}}
pools: {{chat: {{members: [{{upstream: one}}, {{upstream: two}}], balance: smooth_rr, slow_start: 0s}}}}
routes: [{{prefix: /v1, pool: chat}}]
"""
    running = await proxy(text)
    for _ in range(4):
        assert (await ask(running.port, prompt)).status == 200
    assert Counter(map(used_by, upstream.requests)) == {"a": 2, "b": 4}
    assert running.serinus.registry.upstreams["one"].limits.under_way == 0


async def test_a_rotated_key_goes_on_with_what_the_old_value_had_used(start):
    running, _ = await start("a/2")
    assert (await ask(running.port, post())).status == 200
    ring = running.serinus.keyring.rotate("up", "a", Secret("key-new"), "tester", kept=False)
    await running.look()
    await running.until(lambda: ring.current.secret.reveal() == "key-new" or ring.overlap is not None)
    statuses = [(await ask(running.port, post())).status for _ in range(2)]
    assert statuses == [200, 429]


async def test_a_large_upload_waits_before_it_is_sent(start):
    running, upstream = await start("a/1", pool="retry: {max_wait: 100s}")
    assert (await ask(running.port, post())).status == 200
    caller = await RawCaller.connect(running.port)
    body = b"x" * (3 * 2**20)
    sending = asyncio.get_running_loop().create_task(caller.send(post(body)))
    await running.until(lambda: running.inflight() == 1)
    assert len(upstream.requests) == 1
    running.pass_time(61)
    assert (await caller.answer()).status == 200
    await sending
    assert upstream.requests[-1].body == body
