"""Requests are drawn to the arms of a canary, keep to them, and are what it decides by."""

from collections import Counter

import pytest

from proxy.policy.canary import State
from tests.support.raw import RawCaller, ask, get, post
from tests.support.running import RunningProxy
from tests.support.scripted import Conversation, answering, whole


def config(baseline: str, canary: str, spec: str = "weight: 50", *, pools: str = "", more: str = "") -> str:
    """`chat` is the baseline, `next` its canary."""
    return f"""
upstreams: {{old: {{base_url: '{baseline}'}}, new: {{base_url: '{canary}'}}}}
pools:
  chat: {{members: [{{upstream: old}}], balance: smooth_rr, slow_start: 0s{pools}}}
  next: {{members: [{{upstream: new}}], balance: smooth_rr, slow_start: 0s, retry: {{attempts: 1}}}}
routes: [{{prefix: /v1, pool: chat, canary: trial}}]
canaries: {{trial: {{baseline: chat, canary: next, {spec}}}}}
{more}
"""


@pytest.fixture
def start(scripted, proxy):
    async def start(spec: str, *, old=None, new=None, **options):
        baseline, canary = (
            await scripted(old or answering(whole(b"{}"))),
            await scripted(new or answering(whole(b"{}"))),
        )
        return await proxy(config(baseline.url, canary.url, spec, **options)), baseline, canary

    return start


def seen(running: RunningProxy) -> dict[str, dict[str, int]]:
    rollout = running.serinus.canaries.rollouts["trial"]
    running.pass_time(30)
    return rollout.explain()["arms"]


async def asked(running: RunningProxy, count: int, request: bytes = post()) -> Counter[bytes | None]:
    """Which arms so many requests came to."""
    caller, arms = await RawCaller.connect(running.port), Counter()
    for _ in range(count):
        await caller.send(request)
        arms[(await caller.answer()).field(b"x-serinus-arm")] += 1
    caller.close()
    return arms


async def test_requests_are_drawn_by_weight_and_each_answer_names_its_arm(start):
    running, old, new = await start("weight: 50")
    arms = await asked(running, 200)
    assert arms == {b"baseline": len(old.requests), b"canary": len(new.requests)}
    assert 60 < arms[b"canary"] < 140
    counts = seen(running)
    assert {arm: counts[arm]["fine"] for arm in counts} == {
        "baseline": arms[b"baseline"], "canary": arms[b"canary"],
    }  # fmt: skip
    assert {line["arm"] for line in running.requests_logged} == {"baseline", "canary"}
    assert {(line["arm"], line["pool"]) for line in running.requests_logged} == {
        ("baseline", "chat"),
        ("canary", "next"),
    }


async def test_a_route_without_a_canary_says_nothing_of_arms(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(
        config(upstream.url, upstream.url)
        .replace("canary: trial}]", "canary: trial}, {prefix: /v2, pool: other}]")
        .replace("  next:", "  other: {members: [{upstream: old}]}\n  next:")
    )
    assert (await ask(running.port, post(target=b"/v2/x"))).field(b"x-serinus-arm") is None


@pytest.mark.parametrize("arm", [b"canary", b"baseline"])
async def test_callers_may_choose_an_arm_where_that_is_allowed_and_are_no_evidence(start, arm):
    running, old, new = await start("weight: 50, force_header: true")
    forced = post(fields=b"X-Serinus-Arm: %b\r\n" % arm.title())
    assert await asked(running, 20, forced) == {arm: 20}
    assert sum(sum(counts[name] for name in ("fine", "refused", "failed")) for counts in seen(running).values()) == 0
    upstream = new if arm == b"canary" else old
    assert all(request.field(b"x-serinus-arm") is None for request in upstream.requests)


async def test_callers_may_not_choose_an_arm_elsewhere(start):
    running, _, new = await start("weight: 0")
    assert await asked(running, 10, post(fields=b"X-Serinus-Arm: canary\r\n")) == {b"baseline": 10}
    assert not new.requests


# --- what is drawn ---------------------------------------------------------------------------------------------------

UNITS = {
    "client": lambda n: post().replace(b"client-key", b"key-%d" % n),
    "header:X-Team": lambda n: post(fields=b"x-team: t%d\r\n" % n),
    "conversation": lambda n: post(fields=b"X-Session-Id: s%d\r\n" % n),
    "conversation by user": lambda n: post(b'{"model":"m","user":"u%d"}' % n),
    "conversation by cache key": lambda n: post(b'{"prompt_cache_key":"u%d","user":"same"}' % n),
    "conversation by metadata": lambda n: post(b'{"metadata":{"user_id":"u%d"}}' % n),
}


@pytest.mark.parametrize("unit", UNITS)
async def test_what_is_drawn_together_stays_together(start, unit):
    clients = "clients: [" + ", ".join(f"{{name: c{n}, key: key-{n}}}" for n in range(40)) + "]"
    more = clients if unit == "client" else ""
    running, _, _ = await start(f"weight: 50, unit: '{unit.partition(' ')[0]}'", more=more)
    arms = {n: await asked(running, 3, UNITS[unit](n)) for n in range(40)}
    assert all(len(counts) == 1 for counts in arms.values())
    assert 5 < len([1 for counts in arms.values() if counts[b"canary"]]) < 35


@pytest.mark.parametrize(
    ("baseline", "canary"), [("key: main", "key: next"), ("model: old", "model: new")], ids=["keys", "models"]
)
async def test_two_keys_or_two_models_of_one_upstream_are_arms_of_two_pools(scripted, proxy, baseline, canary):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(f"""
upstreams:
  up: {{base_url: '{upstream.url}', keys: [{{name: main, value: key-main}}, {{name: next, value: key-next}}]}}
pools:
  a: {{members: [{{upstream: up, {baseline}}}]}}
  b: {{members: [{{upstream: up, {canary}}}]}}
routes: [{{prefix: /v1, pool: a, canary: trial}}]
canaries: {{trial: {{baseline: a, canary: b, weight: 50}}}}
""")
    arms = await asked(running, 60, post(fields=b"Content-Type: application/json\r\n"))
    if "key" in baseline:
        seen_upstream = Counter(one.field(b"authorization") for one in upstream.requests)
        assert seen_upstream == {b"Bearer key-main": arms[b"baseline"], b"Bearer key-next": arms[b"canary"]}
    else:
        seen_upstream = Counter(one.body for one in upstream.requests)
        assert seen_upstream == {b'{"model":"old"}': arms[b"baseline"], b'{"model":"new"}': arms[b"canary"]}
    assert min(arms.values()) > 10


# --- what is evidence ------------------------------------------------------------------------------------------------


async def test_what_becomes_of_requests_is_what_it_sees(start):
    async def new(talk: Conversation) -> None:
        while True:
            request = await talk.request()
            status = request.field(b"x-want") or b"200 OK"
            await talk.send(whole(b"{}", status=status))

    running, _, _ = await start("weight: 99", new=new)
    for status in (b"200 OK", b"404 Not Found", b"500 Oh", b"429 Slow"):
        await asked(running, 40, post(fields=b"X-Want: %b\r\n" % status))
    counts = seen(running)["canary"]
    assert counts["fine"] + counts["refused"] + counts["failed"] == counts["started"]
    assert counts["refused"] > 20
    assert counts["failed"] > 50


async def test_an_arm_that_nobody_can_reach_has_failed(start):
    running, _, new = await start("weight: 99")
    await new.stop()
    caller = await RawCaller.connect(running.port)
    for _ in range(30):
        await caller.send(post())
        assert (await caller.answer()).status in (200, 503)
    assert seen(running)["canary"]["failed"] > 20


async def test_a_retry_stays_in_its_arm(scripted, proxy):
    bad, good = await scripted(answering(whole(b"", status=b"503 Busy"))), await scripted(answering(whole(b"{}")))
    text = config(good.url, bad.url, "weight: 99").replace("retry: {attempts: 1}", "retry: {attempts: 3}")
    running = await proxy(text.replace("[{upstream: new}]", "[{upstream: new}, {upstream: new}]"))
    answer = await ask(running.port, post(fields=b"x: 1\r\n"))
    while answer.field(b"x-serinus-arm") != b"canary":
        answer = await ask(running.port, post())
    assert (answer.status, answer.field(b"x-serinus-attempts")) == (503, b"2")


async def test_a_stream_that_stalls_is_seen_before_it_ends(start):
    async def new(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await talk.send(b"9\r\ndata: 1\n\n\r\n")
        await talk.gone()

    running, _, upstream = await start("weight: 99, analysis: {metrics: [{name: stalls, max_gap: 3s}]}", new=new)
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    await caller.read_until(b"data: 1\n\n")
    sample = next(iter(running.serinus.data_plane.callers.open)).exchange._sample
    assert not sample.is_stalled
    running.pass_time(4)
    assert sample.is_stalled
    caller.close()
    await upstream.until(lambda: upstream.open == 0)


async def test_what_is_bound_to_an_upstream_is_no_evidence(start):
    running, old, new = await start("weight: 99")
    for _ in range(10):
        assert (await ask(running.port, get(b"/v1/responses/resp_1"))).field(b"x-serinus-arm") is None
    assert (len(old.requests), len(new.requests)) == (10, 0)


async def test_a_response_made_by_the_canary_is_looked_up_there(start):
    made = answering(whole(b'{"id":"resp_77","object":"response"}'))
    running, old, new = await start("weight: 99, force_header: true", new=made)
    create = post(b'{"model":"m"}', target=b"/v1/responses", fields=b"x-serinus-arm: canary\r\n")
    assert (await ask(running.port, create)).status == 200
    assert (await ask(running.port, get(b"/v1/responses/resp_77"))).status == 200
    assert (len(old.requests), len(new.requests)) == (0, 2)


# --- decisions -------------------------------------------------------------------------------------------------------


async def test_after_a_rollback_nobody_comes_to_the_canary(start):
    running, _, new = await start("steps: [{set_weight: 50}, {set_weight: 100}]")
    running.pass_time(6)
    await asked(running, 40)
    before = len(new.requests)
    assert before > 5
    running.serinus.canaries.command("trial", "abort", "tester")
    assert await asked(running, 40) == {b"baseline": 40}
    assert len(new.requests) == before
    assert running.serinus.canaries.rollouts["trial"].state is State.ABORTED


async def test_a_reload_keeps_the_rollout_unless_its_settings_are_others(scripted, proxy, tmp_path):
    upstream = await scripted(answering(whole(b"{}")))
    path = tmp_path / "serinus.yaml"
    running = await proxy(config(upstream.url, upstream.url), path=path)
    before = running.serinus.canaries.rollouts["trial"]
    path.write_text(path.read_text() + "\nx-note: another\n")
    await running.serinus.reloader.reload()
    assert running.serinus.canaries.rollouts["trial"] is before
    path.write_text(path.read_text().replace("weight: 50", "weight: 40"))
    await running.serinus.reloader.reload()
    assert running.serinus.canaries.rollouts["trial"].id != before.id
    await asked(running, 5)
