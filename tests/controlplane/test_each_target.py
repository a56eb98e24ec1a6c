"""Targets of one upstream, one by one: how each of them fares, and what they share."""

import aiohttp

from tests.support.raw import ask, get, post
from tests.support.replicas import ALL, ONE, THREE, TWO, config, looked, served, targets
from tests.support.scripted import answering, whole


async def test_machine_that_dies_is_ejected_alone(machines, proxy):
    one, two, _ = await machines({}, ONE, TWO, THREE)
    running = await proxy(config(one, pool="balance: smooth_rr, outlier: {consecutive_failures: 2}"))
    await two.stop()
    answered = await served(running, 12)
    assert set(answered) == {ONE, THREE}
    assert {address: state for address, (state, _) in targets(running).items()} == {
        ONE: "up",
        TWO: "ejected",
        THREE: "up",
    }
    (event,) = running.events.named("upstream_ejected")
    assert (event["upstream"], event["target"]) == ("up0", TWO)
    tried = [line["tried"] for line in running.requests_logged if line["tried"]]
    assert tried == [(f"up0@{TWO}: ECONNREFUSED",)] * 2
    assert running.serinus.admin.status(60).pools["chat"].members[0].state == "up"


async def test_each_machine_is_checked_by_itself(machines, proxy):
    one, two = await machines({TWO: answering(whole(b"", status=b"500 Oh"))}, ONE, TWO)
    running = await proxy(config(one, upstream=f"{ALL}, health: {{path: /ok, unhealthy_after: 1}}"))
    checks = running.serinus.checks
    async with aiohttp.ClientSession() as session:
        checks.look(session)
        await running.until(lambda: not checks._running)
    for machine in (one, two):
        (request,) = machine.requests
        assert request.line == b"GET /v1/ok HTTP/1.1"
        assert request.field(b"host") == f"localhost:{one.port}".encode()
    assert targets(running) == {ONE: ("up", 0), TWO: ("unhealthy", 0)}
    assert running.serinus.admin.status(60).upstreams["up0"].health == "idle"
    (event,) = running.events.named("upstream_unhealthy")
    assert (event["upstream"], event["target"], event["reason"]) == ("up0", TWO, "status 500")
    assert await served(running, 3) == {ONE: 3}


async def test_key_without_quota_rests_for_all_of_them(machines, proxy):
    refusing = answering(whole(b"{}", status=b"429 Slow", fields=b"Retry-After: 60\r\n"))
    one, two = await machines({ONE: refusing, TWO: refusing}, ONE, TWO)
    running = await proxy(config(one, pool="balance: smooth_rr, retry: {attempts: 3}"))
    assert (await ask(running.port, post())).status == 429
    assert (await ask(running.port, post())).status == 429
    assert len(one.requests) + len(two.requests) == 1


async def test_refused_key_is_not_tried_at_the_next_machine(machines, proxy):
    refusing = answering(whole(b"{}", status=b"401 No"))
    one, two = await machines({ONE: refusing, TWO: refusing}, ONE, TWO)
    running = await proxy(config(one, pool="balance: smooth_rr, retry: {attempts: 3}"))
    await ask(running.port, post())
    assert len(one.requests) + len(two.requests) == 1


async def test_connections_are_opened_ahead_to_each(machines, proxy):
    started = await machines({}, ONE, TWO)
    running = await proxy(config(started[0], upstream=f"{ALL}, keepalive: {{min_idle: 2}}"))
    running.pass_time(1)
    await running.until(lambda: [machine.connections for machine in started] == [2, 2])


async def test_prefixes_are_spread_and_stay_where_they_are(machines, proxy):
    one, *_ = await machines({}, ONE, TWO, THREE)
    running = await proxy(config(one, pool="balance: prefix_hash"))
    found = set()
    for number in range(24):
        body = b'{"model":"m","messages":[{"role":"user","content":"%d %b"}]}' % (number, b"x" * 600)
        served_by = await served(running, 2, post(body))
        assert len(served_by) == 1
        found |= set(served_by)
    assert found == {ONE, TWO, THREE}


async def test_calls_on_what_a_machine_made_go_back_to_it(machines, proxy, name):
    scripts = {address: answering(whole(b'{"id":"resp_%b"}' % address[-1].encode())) for address in (ONE, TWO, THREE)}
    one, *others = await machines(scripts, ONE, TWO, THREE)
    running = await proxy(config(one))
    for _ in range(3):
        await ask(running.port, post(target=b"/v1/responses"))
    for _ in range(3):
        await ask(running.port, get(b"/v1/responses/resp_2"))
    assert [len(machine.requests) for machine in (one, *others)] == [1, 4, 1]
    name(ONE, THREE)
    await looked(running)
    assert (await ask(running.port, get(b"/v1/responses/resp_2"))).status == 200
    assert [len(machine.requests) for machine in (one, *others)] == [2, 4, 1]
