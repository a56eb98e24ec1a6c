"""What `GET /status` says of traffic, over real sockets."""

from contextlib import asynccontextmanager

import msgspec

from proxy.controlplane.status import Status
from tests.support.raw import RawCaller, ask, get, post
from tests.support.running import config_for
from tests.support.scripted import Held, answering, whole

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def begun(port):
    """A caller in the middle of a stream, who leaves."""
    caller = await RawCaller.connect(port)
    await caller.send(get())
    await caller.read_until(Held.FIRST)
    yield
    caller.close()


def status_of(running, window_s=60.0):
    return running.serinus.admin.status(window_s)


async def test_traffic_is_told_by_upstream_and_pool(proxy, scripted):
    good, bad = await scripted(answering(whole(b"{}"))), await scripted(answering(BUSY))
    running = await proxy(config_for(good.url, bad.url))
    for _ in range(4):
        await ask(running.port, get())
    await ask(running.port, get(b"/nowhere"))
    running.pass_time(10)
    status = status_of(running)
    up0, up1 = status.upstreams["up0"], status.upstreams["up1"]
    assert (up0.health, up0.outcomes, up0.traffic.failed_percent) == ("ok", {"ok": 2}, 0)
    assert (up1.health, up1.outcomes, up1.traffic.failed_percent) == ("failing", {"upstream_error": 2}, 100)
    assert up0.traffic.requests_per_s == 0.2
    assert up0.traffic.first_byte_ms.p50 > 0
    pool = status.pools["chat"]
    assert pool.traffic.requests_per_s == 0.4
    assert pool.traffic.failed_percent == 50
    assert [(member.upstream, member.share_percent) for member in pool.members] == [("up0", 50), ("up1", 50)]
    assert status.answered_here_per_s == 0.1
    assert status.traffic.requests_per_s == 0.5


async def test_what_is_open_is_in_flight_on_its_upstream_and_key(proxy, scripted):
    upstream = await scripted(Held())
    running = await proxy(config_for(upstream.url))
    async with begun(running.port):
        up0 = status_of(running).upstreams["up0"]
        assert (up0.inflight, up0.keys["main"].inflight, status_of(running).connections) == (1, 1, 1)
    assert up0.traffic.requests_per_s == 0


async def test_old_traffic_is_forgotten_and_its_outcomes_are_not(proxy, scripted):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    await ask(running.port, get())
    for _ in range(50):
        running.pass_time(2)
    up0 = status_of(running).upstreams["up0"]
    assert (up0.health, up0.traffic.requests_per_s, up0.traffic.duration_ms) == ("idle", 0, None)
    assert up0.outcomes == {"ok": 1}


async def test_a_callers_leaving_is_nobodys_failure(proxy, scripted):
    upstream = await scripted(Held())
    running = await proxy(config_for(upstream.url))
    async with begun(running.port):
        pass
    await running.until_logged()
    up0 = status_of(running).upstreams["up0"]
    assert (up0.health, up0.outcomes, up0.traffic.failed_percent) == ("ok", {"client_gone": 1}, 0)


async def test_members_show_their_weights_models_and_keys(proxy):
    config = """
    upstreams:
      a: {base_url: 'http://127.0.0.1:1/v1', keys: [{name: main, value: k}]}
    pools:
      chat: {members: [{upstream: a, weight: 3, model: gpt-4.1}, {upstream: a, key: main}, {upstream: a, weight: 0}]}
    routes: [{prefix: /v1, pool: chat}]
    """
    running = await proxy("\n".join(line[4:] for line in config.splitlines()))
    members = status_of(running).pools["chat"].members
    assert [(each.weight, each.share_percent, each.model, each.key) for each in members] == [
        (3, 75, "gpt-4.1", None),
        (1, 25, None, "main"),
        (0, 0, None, None),
    ]


async def test_a_reload_shows_at_once(proxy, scripted, tmp_path):
    upstream = await scripted(answering(whole(b"{}")))
    path = tmp_path / "serinus.yaml"
    running = await proxy(config_for(upstream.url, upstream.url), path=path)
    await ask(running.port, get())
    path.write_text("listen: 127.0.0.1:0\n" + config_for(upstream.url) + "admin: {listen: 127.0.0.1:0}\n")
    await running.serinus.reloader.reload()
    status = status_of(running)
    assert (status.generation, list(status.upstreams), status.last_reload["result"]) == (2, ["up0"], "applied")
    assert status.upstreams["up0"].outcomes == {"ok": 1}


async def test_what_is_sent_can_be_read_again(proxy, scripted):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    await ask(running.port, get())
    status = status_of(running)
    assert msgspec.json.decode(msgspec.json.encode(status), type=Status) == status


async def test_clients_that_called_are_told_with_rates_and_what_is_left_of_their_limits(proxy, scripted):
    upstream = await scripted(answering(whole(b'{"usage":{"total_tokens":50}}')))
    clients = """clients:
  - {name: web, key: client-key, limits: {tokens_per_minute: 1000, concurrent: 5}}
  - {name: open, key: other-key}
  - {name: never, key: third-key}
"""
    running = await proxy(config_for(upstream.url, clients=False, top=clients))
    for _ in range(2):
        await ask(running.port, post())
    await ask(running.port, get().replace(b"client-key", b"other-key"))
    running.pass_time(10)
    seen = status_of(running)
    web = seen.clients["web"]
    assert (web.requests_per_s, web.tokens_per_minute, web.inflight, web.refused) == (0.2, 600, 0, 0)
    assert (web.limits, web.left["concurrent"]) == ({"tokens_per_minute": 1000, "concurrent": 5}, 5)
    assert (seen.clients["open"].requests_per_s, seen.clients["open"].tokens_per_minute) == (0.1, None)
    assert (list(seen.clients), seen.clients_quiet) == (["open", "web"], 1)


async def test_codes_retries_and_the_last_failure_are_told(proxy, scripted):
    good, bad = await scripted(answering(whole(b"{}"))), await scripted(answering(BUSY))
    running = await proxy(config_for(good.url, bad.url, pool="retry: {attempts: 2}"))
    for _ in range(4):
        await ask(running.port, get())
    running.pass_time(10)
    running.pass_time(20)
    seen = status_of(running)
    up1, pool = seen.upstreams["up1"], seen.pools["chat"]
    assert (up1.traffic.codes, pool.traffic.codes) == ({}, {"200": 4})
    assert sum(pool.retries.values()) == round(30 * pool.traffic.retries_per_s) == up1.outcomes["upstream_error"]
    assert (up1.last_failure_ago_s, seen.upstreams["up0"].last_failure_ago_s) == (20, None)


async def test_an_ejected_member_says_for_how_long(proxy, scripted):
    good, bad = await scripted(answering(whole(b"{}"))), await scripted(answering(BUSY))
    running = await proxy(config_for(good.url, bad.url, pool="outlier: {consecutive_failures: 1, base_ejection: 30s}"))
    for _ in range(2):
        await ask(running.port, get())
    running.pass_time(10)
    pool = status_of(running).pools["chat"]
    assert [(each.state, each.ejected_s, each.ejections) for each in pool.members] == [("up", 0, 0), ("ejected", 20, 1)]
    assert pool.ejections_per_s == 0.1
