"""An upstream's name comes to mean another machine: kept connections to the old one are not used again."""

import pytest

from tests.support.raw import RawCaller, get
from tests.support.running import config_for
from tests.support.scripted import Held, answering, whole

ANSWER = answering(whole(b"{}"))


@pytest.fixture
async def caller(scripted, proxy):
    """A caller whose first request was answered: its upstream's connection is kept."""
    upstream = await scripted(ANSWER)
    config = config_for(upstream.url.replace("127.0.0.1", "localhost"), upstream="keepalive: {idle_timeout: 1h}")
    running = await proxy(config)
    one = await RawCaller.connect(running.port)
    one.upstream, one.running = upstream, running
    await asked(one)
    await looked_up(running)
    return one


async def asked(caller):
    await caller.send(get())
    answer = await caller.answer()
    assert answer.status == 200
    return answer


async def looked_up(running):
    """Let the time pass after which a name is looked up, and the look-up come to its end."""
    running.pass_time(31)
    await running.until(lambda: len(running.serinus.data_plane._tasks) == 0)


async def test_connection_is_kept_as_long_as_the_name_means_the_same(name, caller):
    name("127.0.0.9", "127.0.0.1")
    await looked_up(caller.running)
    await asked(caller)
    assert caller.upstream.connections == 1


async def test_connection_to_a_machine_that_the_name_left_closes(name, caller):
    name("127.0.0.9")
    await looked_up(caller.running)
    await caller.upstream.until(lambda: caller.upstream.open == 0)
    name("127.0.0.1")
    await asked(caller)
    assert caller.upstream.connections == 2


async def test_connection_is_kept_where_the_name_cannot_be_looked_up(name, caller):
    name()
    await looked_up(caller.running)
    await asked(caller)
    assert caller.upstream.connections == 1


async def test_answer_under_way_comes_to_its_end_and_then_its_connection_closes(name, scripted, proxy):
    held = Held()
    upstream = await scripted(held)
    running = await proxy(config_for(upstream.url.replace("127.0.0.1", "localhost")))
    one = await RawCaller.connect(running.port)
    await one.send(get())
    await one.read_until(Held.FIRST)
    await looked_up(running)
    name("127.0.0.9")
    await looked_up(running)
    held.may_end.set()
    assert await one.read_until(Held.LAST) == Held.LAST
    await upstream.until(lambda: upstream.open == 0)


@pytest.mark.parametrize("setting", ["resolve: {interval: none}", "resolve: {interval: 1h}"])
async def test_name_is_looked_up_as_often_as_is_set(setting, name, scripted, proxy):
    upstream = await scripted(ANSWER)
    config = config_for(
        upstream.url.replace("127.0.0.1", "localhost"), upstream=f"{setting}, keepalive: {{idle_timeout: 1h}}"
    )
    running = await proxy(config)
    one = await RawCaller.connect(running.port)
    await asked(one)
    await looked_up(running)
    name("127.0.0.9")
    await looked_up(running)
    name("127.0.0.1")
    await asked(one)
    assert upstream.connections == 1
