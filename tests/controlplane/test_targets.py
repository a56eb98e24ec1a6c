"""Every address of an upstream's name a member of its own, as the name comes to mean other machines."""

from collections import Counter

import pytest

from proxy.controlplane.reload import Applied
from tests.support.raw import ask, get
from tests.support.replicas import ALL, ONE, THREE, TWO, begun, config, lives, looked, naming, served, targets
from tests.support.running import config_for
from tests.support.scripted import Held

TOP = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\n"


# --- which there are -------------------------------------------------------------------------------------------------


async def test_first_requests_are_spread_over_all_addresses(machines, proxy):
    one, two, three = await machines({}, ONE, TWO, THREE)
    running = await proxy(config(one))
    assert await served(running, 6) == {ONE: 2, TWO: 2, THREE: 2}
    for machine in (one, two, three):
        assert machine.requests[0].field(b"host") == f"localhost:{one.port}".encode()
    assert Counter(line["target"] for line in running.requests_logged) == {ONE: 2, TWO: 2, THREE: 2}
    assert {line["upstream"] for line in running.requests_logged} == {"up0"}
    assert running.serinus.reloader.generation == 1


async def test_without_it_all_is_one_target_and_logs_name_none(machines, proxy):
    one, two = await machines({}, ONE, TWO)
    running = await proxy(config(one, upstream="resolve: {interval: 30s}"))
    await looked(running)
    assert await served(running, 2) == {ONE: 2}
    assert (two.requests, targets(running), lives(running)) == ([], {}, {"up0"})
    assert not any("target" in line for line in running.requests_logged)


async def test_each_target_has_its_members_weight(machines, proxy, scripted):
    one, _ = await machines({}, ONE, TWO)
    other = await scripted(naming("other"))
    text = f"""
clients: [{{name: tester, key: client-key}}]
upstreams: {{up0: {{base_url: 'http://localhost:{one.port}/v1', {ALL}}}, other: {{base_url: '{other.url}'}}}}
pools: {{chat: {{members: [{{upstream: up0, weight: 3}}, {{upstream: other, weight: 2}}], balance: smooth_rr}}}}
routes: [{{prefix: /v1, pool: chat}}]
"""
    running = await proxy(text)
    answers = Counter([(await ask(running.port, get())).payload.decode() for _ in range(8)])
    assert answers == {ONE: 3, TWO: 3, "other": 2}
    members = running.serinus.admin.status(60).pools["chat"].members
    assert [(each.upstream, each.weight, each.share_percent) for each in members] == [("up0", 3, 75), ("other", 2, 25)]


async def test_machine_that_joins_is_used_and_begins_slowly(machines, proxy, name):
    one, _, three = await machines({}, ONE, TWO, THREE)
    name(ONE, TWO)
    running = await proxy(config(one, pool="balance: smooth_rr, slow_start: 30s"))
    name(THREE, TWO, ONE)
    assert await served(running, 4) == {ONE: 2, TWO: 2}
    await looked(running)
    assert 1 <= (await served(running, 21))[THREE] <= 3
    running.pass_time(31)
    assert await served(running, 6) == {ONE: 2, TWO: 2, THREE: 2}
    (event,) = running.events.named("targets_changed")
    assert (event["upstream"], event["added"], event["removed"]) == ("up0", [THREE], [])
    assert (running.serinus.reloader.generation, running.serinus.metrics.reloads["applied"]) == (2, 0)
    assert len(three.requests) >= 3


async def test_stream_on_a_machine_that_leaves_ends_whole(machines, proxy, name):
    held = Held()
    one, two = await machines({TWO: held}, ONE, TWO)
    running = await proxy(config(one))
    await served(running, 1)
    caller = await begun(running)
    name(ONE)
    await looked(running)
    assert await served(running, 4) == {ONE: 4}
    assert targets(running) == {ONE: ("up", 0), TWO: ("leaving", 1)}
    assert running.serinus.admin.status(60).upstreams["up0"].inflight == 1
    held.may_end.set()
    assert await caller.read_until(b"0\r\n\r\n") == Held.LAST
    await two.until(lambda: two.open == 0)
    await running.until(lambda: running.inflight() == 0)
    assert targets(running) == {ONE: ("up", 0)}
    caller.close()
    name(ONE, THREE)
    await looked(running)
    assert lives(running) == {"up0", f"up0@{ONE}", f"up0@{THREE}"}


async def test_machine_that_comes_back_begins_slowly(machines, proxy, name):
    held = Held()
    one, two = await machines({TWO: held}, ONE, TWO)
    running = await proxy(config(one, pool="balance: smooth_rr, slow_start: 30s"))
    await served(running, 1)
    caller = await begun(running)
    name(ONE)
    await looked(running)
    held.may_end.set()
    await caller.read_until(Held.LAST)
    two.script = naming(TWO)
    name(ONE, TWO)
    await looked(running)
    assert 1 <= (await served(running, 11))[TWO] <= 3
    caller.close()


async def test_others_keep_what_is_known_of_them(machines, proxy, name):
    one, two, _ = await machines({}, ONE, TWO, THREE)
    name(ONE, TWO)
    running = await proxy(config(one, pool="balance: smooth_rr, outlier: {consecutive_failures: 1, base_ejection: 2m}"))
    await two.stop()
    while targets(running)[TWO][0] != "ejected":
        await served(running, 1)
    name(ONE, TWO, THREE)
    await looked(running)
    assert {address: state for address, (state, _) in targets(running).items()} == {
        ONE: "up",
        TWO: "ejected",
        THREE: "up",
    }
    assert running.serinus.registry.pools["chat"].members[f"up0@{ONE}///1"].load.since_s < running.clock() - 30


# --- when the name does not answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [(), ("",)], ids=["failed", "empty"])
async def test_look_up_without_an_answer_changes_nothing(answer, machines, proxy, name):
    one, _ = await machines({}, ONE, TWO)
    running = await proxy(config(one))
    for count in (1, 2):
        name(*answer)
        await looked(running)
        await looked(running)
        assert len(running.events.named("targets_not_found")) == count
        name(ONE, TWO)
        await looked(running)
    assert running.events.named("targets_not_found")[0]["kept"] == (ONE, TWO)
    assert await served(running, 4) == {ONE: 2, TWO: 2}
    assert running.serinus.reloader.generation == 1


async def test_name_that_nobody_knows_is_one_target_until_somebody_does(machines, proxy, name):
    one, _ = await machines({}, ONE, TWO)
    name()
    running = await proxy(config(one))
    assert await served(running, 2) == {ONE: 2}
    assert lives(running) == {"up0"}
    name(ONE, TWO)
    await looked(running)
    assert await served(running, 4) == {ONE: 2, TWO: 2}


async def test_reload_keeps_what_is_known_where_the_name_does_not_answer(machines, proxy, name, tmp_path):
    one, _ = await machines({}, ONE, TWO)
    file = tmp_path / "serinus.yaml"
    running = await proxy(TOP + config(one), path=file)
    name()
    file.write_text(TOP + config(one, route="buffer: 2MiB"))
    assert isinstance(await running.serinus.reloader.reload(), Applied)
    assert await served(running, 4) == {ONE: 2, TWO: 2}


async def test_without_an_interval_the_name_is_looked_up_at_start_and_reload_only(machines, proxy, name, tmp_path):
    one, _ = await machines({}, ONE, TWO)
    name(ONE)
    file = tmp_path / "serinus.yaml"
    running = await proxy(TOP + config(one, upstream="resolve: {all: true, interval: none}"), path=file)
    name(ONE, TWO)
    await looked(running, after_s=86400)
    assert set(targets(running)) == {ONE}
    await running.serinus.reloader.reload()
    assert set(targets(running)) == {ONE, TWO}


async def test_address_for_a_base_url_is_one_target(scripted, proxy):
    upstream = await scripted(naming(ONE))
    running = await proxy(config_for(upstream.url, upstream=ALL))
    await looked(running)
    assert await served(running, 2) == {ONE: 2}
    assert lives(running) == {"up0"}


async def test_answer_for_settings_that_are_not_in_force_any_more_is_dropped(machines, proxy, tmp_path):
    one, _ = await machines({}, ONE, TWO)
    file = tmp_path / "serinus.yaml"
    running = await proxy(TOP + config(one), path=file)
    before = running.serinus.settings
    await running.serinus.reloader.reload()
    await running.serinus.reloader.rebuild(before, {"up0": (THREE,)})
    assert set(targets(running)) == {ONE, TWO}
    assert running.serinus.reloader.generation == 2


# --- reload, metrics -------------------------------------------------------------------------------------------------


async def test_reload_switches_it_on_and_off_under_a_running_stream(machines, proxy, tmp_path):
    held = Held()
    one, _ = await machines({ONE: held}, ONE, TWO)
    file = tmp_path / "serinus.yaml"
    running = await proxy(TOP + config(one, upstream="resolve: {all: false}"), path=file)
    key = running.key("up0", "main")
    caller = await begun(running)
    one.script = naming(ONE)
    file.write_text(TOP + config(one))
    await running.serinus.reloader.reload()
    assert await served(running, 4) == {ONE: 2, TWO: 2}
    assert key in running.serinus.registry.upstreams[f"up0@{TWO}"].keys.values()
    assert (key.inflight, running.serinus.admin.status(60).upstreams["up0"].inflight) == (1, 1)
    file.write_text(TOP + config(one, upstream="resolve: {all: false}"))
    await running.serinus.reloader.reload()
    assert await served(running, 2) == {ONE: 2}
    assert (targets(running), lives(running)) == ({}, {"up0"})
    held.may_end.set()
    assert await caller.read_until(b"0\r\n\r\n") == Held.LAST
    caller.close()


async def test_metrics_speak_of_the_upstream_and_of_no_address(machines, proxy, name):
    held = Held()
    one, _ = await machines({ONE: held, TWO: held}, ONE, TWO)
    running = await proxy(config(one, pool="balance: smooth_rr, outlier: {consecutive_failures: 1}"))
    callers = [await begun(running), await begun(running)]
    name(ONE)
    await looked(running)
    text = running.serinus.metrics.render("")[0].decode()
    assert 'serinus_upstream_inflight{upstream="up0"} 2.0' in text
    assert 'serinus_upstream_healthy{pool="chat",upstream="up0"} 1.0' in text
    assert "127.0.0" not in text
    held.may_end.set()
    for caller in callers:
        await caller.read_until(Held.LAST)
        caller.close()
    await running.until(lambda: running.inflight() == 0)
    name(ONE, THREE)
    await looked(running)
    text = running.serinus.metrics.render("")[0].decode()
    assert 'serinus_upstream_outcomes_total{outcome="ok",upstream="up0"} 2.0' in text


async def test_ejections_are_still_counted_when_their_target_is_gone(machines, proxy, name):
    one, two = await machines({}, ONE, TWO)
    running = await proxy(config(one, pool="balance: smooth_rr, outlier: {consecutive_failures: 1}"))
    await two.stop()
    await served(running, 2)
    counted = 'serinus_upstream_ejections_total{pool="chat",upstream="up0"} 1.0'
    assert counted in running.serinus.metrics.render("")[0].decode()
    name(ONE)
    await looked(running)
    assert counted in running.serinus.metrics.render("")[0].decode()
