"""In shadow mode callers have the baseline's answers, and the canary has copies of their requests."""

import asyncio

import pytest

from proxy.dataplane import shadow
from tests.dataplane.test_arms import config, seen
from tests.support.raw import RawCaller, ask, post
from tests.support.running import RunningProxy
from tests.support.scripted import Conversation, answering, whole

SHADOW = "mode: shadow, weight: 100"


@pytest.fixture
def start(scripted, proxy):
    async def start(spec: str = SHADOW, *, old=None, new=None):
        baseline, canary = (
            await scripted(old or answering(whole(b"old"))),
            await scripted(new or answering(whole(b"new"))),
        )
        return await proxy(config(baseline.url, canary.url, spec)), baseline, canary

    return start


def live(running: RunningProxy):
    return running.serinus.registry.canaries["trial"]


async def copies_ended(running: RunningProxy) -> None:
    await running.until(lambda: live(running).copies == 0)


async def test_callers_have_the_baselines_answers_and_the_canary_has_copies(start):
    running, old, new = await start()
    running.pass_time(60)  # it is looked at, and goes on at 100 %
    request = post(b'{"model":"m","messages":[]}', fields=b"X-Mine: 1\r\n")
    for _ in range(20):
        answer = await ask(running.port, request)
        assert (answer.payload, answer.field(b"x-serinus-arm")) == (b"old", b"baseline")
        await copies_ended(running)
    assert [copy.body for copy in new.requests] == [one.body for one in old.requests]
    assert [copy.field(b"x-mine") for copy in new.requests] == [b"1"] * 20
    assert (live(running).copies_sent, live(running).copies_failed) == (20, 0)
    arms = seen(running)
    assert (arms["baseline"]["started"], arms["canary"]["fine"]) == (
        0,
        20,
    )  # a copied one is no evidence for the baseline
    assert len(running.requests_logged) == 20


async def test_those_that_are_not_copied_are_the_baselines_evidence(start):
    running, _, _ = await start("mode: shadow, weight: 50")
    for _ in range(60):
        await ask(running.port, post())
        await copies_ended(running)
    arms = seen(running)
    assert arms["baseline"]["fine"] + arms["canary"]["fine"] == 60
    assert min(arms["baseline"]["fine"], arms["canary"]["fine"]) > 10


ENDS = {
    "refuses": whole(b"no", status=b"500 Oh"),
    "breaks": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1",
    "is no HTTP": b"zebra\r\n\r\n",
}


@pytest.mark.parametrize("said", ENDS.values(), ids=ENDS)
async def test_a_canary_that_fails_touches_nobody(start, said):
    async def new(talk: Conversation) -> None:
        await talk.request()
        await talk.send(said)
        talk.close()

    running, _, _ = await start(new=new)
    for _ in range(5):
        assert (await ask(running.port, post())).payload == b"old"
        await copies_ended(running)
    assert live(running).copies_failed == 5
    counted = [line for line in (await metrics(running)).splitlines() if line.startswith("serinus_requests_total{")]
    assert [('code="200"' in line, line.endswith(" 5.0")) for line in counted] == [(True, True)]
    assert seen(running)["canary"]["failed"] == 5


async def metrics(running: RunningProxy) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.serinus.admin_address[1])
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    return page


async def test_a_canary_that_is_gone_touches_nobody(start):
    running, _, new = await start()
    await new.stop()
    assert (await ask(running.port, post())).payload == b"old"
    await copies_ended(running)
    assert live(running).copies_failed == 1


async def test_no_more_copies_than_allowed_are_under_way_and_those_beyond_are_no_evidence(start):
    release = asyncio.Event()

    async def new(talk: Conversation) -> None:
        await talk.request()
        await release.wait()
        await talk.send(whole(b"new"))

    running, _, upstream = await start(SHADOW + ", max_concurrent: 2", new=new)
    for _ in range(6):
        assert (await ask(running.port, post())).payload == b"old"
    await upstream.until(lambda: len(upstream.requests) == 2)
    assert (live(running).copies, live(running).copies_sent) == (2, 2)
    release.set()
    await copies_ended(running)
    arms = seen(running)
    assert (arms["baseline"]["started"], arms["canary"]["started"]) == (0, 2)


async def test_large_uploads_and_what_makes_something_are_not_copied(start):
    running, old, new = await start()
    caller = await RawCaller.connect(running.port)
    await caller.send(post(b"x" * (2 * 2**20)))
    assert (await caller.answer()).payload == b"old"
    assert (await ask(running.port, post(target=b"/v1/files"))).payload == b"old"
    assert (await ask(running.port, post(target=b"/v1/responses"))).payload == b"old"
    assert (len(old.requests), len(new.requests)) == (3, 0)


async def test_a_caller_that_leaves_does_not_end_its_copy(start):
    hold = asyncio.Event()

    async def slow(talk: Conversation) -> None:
        await talk.request()
        await hold.wait()
        await talk.send(whole(b"late"))

    running, old, _ = await start(old=slow, new=slow)
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    await old.until(lambda: bool(old.requests))
    caller.close()
    await running.until_logged()
    assert live(running).copies == 1
    hold.set()
    await copies_ended(running)
    assert seen(running)["canary"]["fine"] == 1


async def test_a_bug_of_ours_in_copying_touches_nobody(start, monkeypatch):
    running, _, new = await start()

    def broken(*_args: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(shadow, "sample_of", broken)
    for _ in range(2):
        assert (await ask(running.port, post())).payload == b"old"
    assert (len(new.requests), len(running.events.named("copy_failed"))) == (0, 2)
