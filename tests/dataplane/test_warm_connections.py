"""`keepalive: {min_idle: N}`: connections to an upstream that are open before anybody asks for one."""

import asyncio

import pytest

from tests.support.raw import RawCaller, ask, post
from tests.support.running import config_for
from tests.support.scripted import ScriptedUpstream, answering, whole

TOP = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\n"
OK = whole(b"{}")


def warm(url, count=3, *, keepalive=""):
    return config_for(url, upstream=f"keepalive: {{min_idle: {count}{keepalive}}}")


def idle(running):
    """How many connections wait in the proxy's pools."""
    return sum(len(pool) for pool in running.serinus.data_plane._pools._pools.values())


async def until_warm(running, count=3):
    """Wait until so many are open; the proxy looks ten times a second, and now."""
    running.pass_time(0)
    await running.until(lambda: idle(running) == count)


async def settled(running, upstream, count):
    """Nothing is being opened any more, and the upstream has so many connections."""
    running.pass_time(0)
    pools = running.serinus.data_plane._pools._pools.values()
    await running.until(lambda: all(pool.warming == 0 for pool in pools))
    await running.until(lambda: upstream.open == count)


async def test_connections_are_open_before_the_first_request(scripted, proxy):
    upstream = await scripted(answering(OK))
    running = await proxy(warm(upstream.url))
    await until_warm(running)
    await settled(running, upstream, 3)
    assert upstream.requests == []
    assert (await ask(running.port, post())).status == 200
    assert upstream.connections == 3
    await running.until_logged()
    assert idle(running) == 3


@pytest.mark.parametrize("count", [0, 1, 8])
async def test_as_many_as_were_asked_for(count, scripted, proxy):
    upstream = await scripted(answering(OK))
    running = await proxy(warm(upstream.url, count))
    for _ in range(5):
        await settled(running, upstream, count)
    assert (upstream.connections, idle(running)) == (count, count)


async def test_connections_in_use_are_replaced_and_the_surplus_is_kept(scripted, proxy):
    async def silent(talk):
        await talk.request()
        await talk.gone()

    upstream = await scripted(silent)
    running = await proxy(warm(upstream.url, 2))
    await until_warm(running, 2)
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    await upstream.until(lambda: len(upstream.requests) == 1)
    await settled(running, upstream, 3)
    assert idle(running) == 2
    caller.close()
    await running.until(lambda: running.inflight() == 0)


async def test_connection_that_the_upstream_closes_is_replaced(scripted, proxy):
    close_all = asyncio.Event()

    async def script(talk):
        await close_all.wait()

    upstream = await scripted(script)
    running = await proxy(warm(upstream.url))
    await until_warm(running)
    close_all.set()
    await running.until(lambda: idle(running) == 0)
    upstream.script = answering(OK)
    running.pass_time(2)
    await until_warm(running)
    await running.until(lambda: upstream.connections == 6)
    assert (await ask(running.port, post())).status == 200


async def test_connection_that_grew_old_is_replaced(scripted, proxy):
    upstream = await scripted(answering(OK))
    running = await proxy(warm(upstream.url, keepalive=", idle_timeout: 10s"))
    await until_warm(running)
    running.pass_time(11)
    await running.until(lambda: upstream.connections == 6)
    await settled(running, upstream, 3)
    assert idle(running) == 3


async def test_first_request_on_a_connection_that_was_just_closed_is_sent_again(scripted, proxy):
    async def closing(talk):
        await talk.reader.read(1)
        talk.close()

    upstream = await scripted(closing)
    running = await proxy(warm(upstream.url, 1))
    await until_warm(running, 1)
    await running.until(lambda: upstream.connections == 1)
    upstream.script = answering(OK)
    assert (await ask(running.port, post())).status == 200
    assert len(upstream.requests) == 1


async def test_upstream_that_talks_before_it_was_asked_is_not_believed(scripted, proxy):
    async def talking(talk):
        await talk.send(whole(b"not asked for"))
        await talk.gone()

    upstream = await scripted(talking)
    running = await proxy(warm(upstream.url, 1))
    running.pass_time(0)
    await running.until(lambda: upstream.connections >= 1 and upstream.open == 0)
    upstream.script = answering(OK)
    assert (await ask(running.port, post())).payload == b"{}"


# --- an upstream that is down -----------------------------------------------------------------------------------------


async def test_upstream_that_was_down_is_tried_again_but_not_all_the_time(proxy, monkeypatch, held_port):
    tries = []
    running = await proxy(warm(f"http://127.0.0.1:{held_port}/v1", 2))
    (pool,) = running.serinus.data_plane._pools._pools.values()
    opened = pool.open
    monkeypatch.setattr(pool, "open", lambda exchange: tries.append(exchange) or opened(exchange))
    for expected in (2, 4):
        running.pass_time(2)
        await running.until(lambda: pool.warming == 0)
        for _ in range(5):
            running.pass_time(0)
            await running.until(lambda: pool.warming == 0)
        assert len(tries) == expected
    assert len(pool) == 0


async def test_upstream_that_comes_back_gets_its_connections(scripted, proxy):
    upstream = await scripted(answering(OK))
    port = upstream.port
    upstream._server.close()
    await upstream._server.wait_closed()
    running = await proxy(warm(upstream.url))
    running.pass_time(0)
    (pool,) = running.serinus.data_plane._pools._pools.values()
    await running.until(lambda: pool.warm_again_s > 0 and pool.warming == 0)
    again = ScriptedUpstream(answering(OK))
    again._server = await asyncio.start_server(again._serve, "127.0.0.1", port)
    running.pass_time(2)
    await running.until(lambda: len(pool) == 3)
    assert (await ask(running.port, post())).status == 200
    await again.stop()


async def test_upstream_that_hangs_up_at_once_is_not_called_without_end(scripted, proxy):
    async def closing(talk):
        talk.close()

    upstream = await scripted(closing)
    running = await proxy(warm(upstream.url, 1))
    (pool,) = running.serinus.data_plane._pools._pools.values()
    for _ in range(20):
        running.pass_time(0)
        await running.until(lambda: pool.warming == 0)
        await running.until(lambda: len(pool) == 0)
        await running.until(lambda: upstream.open == 0)
    assert upstream.connections < 10


# --- reloads and ends -------------------------------------------------------------------------------------------------


async def test_upstream_that_is_removed_has_its_connections_closed_and_gets_no_more(scripted, proxy, tmp_path):
    first, second = await scripted(answering(OK)), await scripted(answering(OK))
    file = tmp_path / "serinus.yaml"
    running = await proxy(TOP + warm(first.url), path=file)
    await until_warm(running)
    file.write_text(TOP + warm(second.url, 2))
    await running.serinus.reloader.reload()
    await running.until(lambda: first.open == 0)
    for _ in range(3):
        running.pass_time(2)
        await settled(running, second, 2)
    assert (first.connections, second.connections) == (3, 2)


async def test_connection_that_is_being_opened_while_its_pool_goes_is_closed(scripted, proxy, tmp_path):
    first, second = await scripted(answering(OK)), await scripted(answering(OK))
    file = tmp_path / "serinus.yaml"
    running = await proxy(TOP + config_for(first.url), path=file)
    file.write_text(TOP + warm(first.url))
    await running.serinus.reloader.reload()
    running.pass_time(0)
    pool = next(pool for pool in running.serinus.data_plane._pools._pools.values() if pool.warming)
    file.write_text(TOP + config_for(second.url))
    await running.serinus.reloader.reload()
    await running.until(lambda: pool.warming == 0)
    await running.until(lambda: first.open == 0)
    assert len(pool) == 0


async def test_other_number_counts_from_the_next_look(scripted, proxy, tmp_path):
    upstream = await scripted(answering(OK))
    file = tmp_path / "serinus.yaml"
    running = await proxy(TOP + warm(upstream.url, 1), path=file)
    for count in (4, 2, 0):
        file.write_text(TOP + warm(upstream.url, count))
        await running.serinus.reloader.reload()
        await settled(running, upstream, count)
        assert idle(running) == count


async def test_same_number_keeps_its_connections(scripted, proxy, tmp_path):
    upstream = await scripted(answering(OK))
    file = tmp_path / "serinus.yaml"
    running = await proxy(TOP + warm(upstream.url), path=file)
    await until_warm(running)
    file.write_text(TOP + warm(upstream.url) + "pre_drain: 1s\n")
    await running.serinus.reloader.reload()
    await settled(running, upstream, 3)
    assert upstream.connections == 3


async def test_upstreams_at_one_address_share_them(scripted, proxy):
    upstream = await scripted(answering(OK))
    text = config_for(upstream.url, upstream.url, upstream="keepalive: {min_idle: 2}")
    running = await proxy(text)
    for _ in range(3):
        await settled(running, upstream, 2)
    assert upstream.connections == 2


async def test_end_of_the_proxy_closes_them(scripted, proxy):
    upstream = await scripted(answering(OK))
    running = await proxy(warm(upstream.url))
    await until_warm(running)
    await running.until(lambda: upstream.open == 3)
    await running.stop()
    await running.until(lambda: upstream.open == 0)
    assert upstream.connections == 3
