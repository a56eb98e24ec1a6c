"""Tunnels behind TLS, on either side or both. TLS ends both ways at once: what was said before must still arrive."""

import asyncio

import pytest

from tests.dataplane.test_tls import authority, listening, secured
from tests.support.lanes import the_connection
from tests.support.raw import RawCaller
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Conversation
from tests.support.tunnels import (
    KIB,
    MIB,
    SWITCH,
    Directed,
    Ends,
    asked,
    at_caller,
    at_upstream,
    narrow,
    numbered,
    opened,
    pass_both_ways,
    pushed,
    reset,
    rest_at_upstream,
    tunnel_of,
    upgrade,
)

EXAMPLE = numbered(0, 3 * MIB)
__all__ = ["authority", "listening", "secured"]  # fixtures
SIDES = {"caller": (True, False), "upstream": (False, True), "both": (True, True)}


@pytest.fixture
def fast_lane() -> bool:
    """A tunnel is in the aiohttp lane however it got there; `test_tunnel.py` runs both ways."""
    return True


class Secured:
    """Starts tunnels with TLS on some of their sides."""

    def __init__(self, sides, scripted, proxy, secured, authority, listening):
        self._at_caller, self._at_upstream = sides
        self._scripted, self._proxy, self._secured = scripted, proxy, secured
        self._authority, self._listening = authority, listening

    async def __call__(self, how=opened, request: bytes = b"", **config) -> tuple[RunningProxy, Ends]:
        upstream = await (self._secured(Directed(), "localhost") if self._at_upstream else self._scripted(Directed()))
        extra = ", ".join(filter(None, (f"tls: {{ca: '{self._authority.ca_file}'}}", config.pop("upstream", ""))))
        top = self._listening if self._at_caller else ""
        running = await self._proxy(config_for(upstream.url, upstream=extra, top=top, **config))
        context = self._authority.trusting() if self._at_caller else None
        return running, await how(upstream, running, request, ssl=context)


@pytest.fixture(params=SIDES.values(), ids=SIDES)
def tunnel(request, scripted, proxy, secured, authority, listening):
    return Secured(request.param, scripted, proxy, secured, authority, listening)


@pytest.fixture(params=[SIDES["caller"], SIDES["both"]], ids=["caller", "both"])
def from_tls(request, scripted, proxy, secured, authority, listening):
    """The caller's side has TLS, at least."""
    return Secured(request.param, scripted, proxy, secured, authority, listening)


@pytest.fixture(params=[SIDES["upstream"], SIDES["both"]], ids=["upstream", "both"])
def to_tls(request, scripted, proxy, secured, authority, listening):
    return Secured(request.param, scripted, proxy, secured, authority, listening)


def say_no_more(side: RawCaller | Conversation) -> None:
    """End the connection, but go on reading where that can be: to close over unread bytes is to reset."""
    if side.writer.can_write_eof():
        side.writer.write_eof()
    else:
        side.close()


async def ended(running: RunningProxy) -> dict[str, object]:
    await running.until_logged()
    (line,) = running.requests_logged
    return line


async def test_bytes_pass_both_ways_as_they_are(tunnel):
    _, ends = await tunnel()
    for text in (b"z", bytes(range(256)), EXAMPLE):
        await pass_both_ways(ends, text)


async def test_bytes_sent_too_early_follow_the_switch(tunnel):
    running, ends = await tunnel(asked, upgrade() + EXAMPLE[: 32 * KIB])
    await ends.caller.send(EXAMPLE[32 * KIB : 48 * KIB])
    await running.until(lambda: len(tunnel_of(running)._early) == 48 * KIB)
    await ends.talk.send(SWITCH + b"hello")
    assert (await ends.caller.answer()).status == 101
    assert await at_upstream(ends, 48 * KIB) == EXAMPLE[: 48 * KIB]
    assert await at_caller(ends, 5) == b"hello"


async def test_flood_before_the_switch_is_held_and_then_sent(tunnel):
    running, ends = await tunnel(asked)
    sending = asyncio.get_running_loop().create_task(pushed(ends.caller.send, 16 * MIB))
    await running.until(lambda: not the_connection(running).wire.is_reading())
    for _ in range(500):  # turns of the loop in which more could be read
        await asyncio.sleep(0)
    assert len(tunnel_of(running)._early) <= MIB
    await ends.talk.send(SWITCH)
    assert await at_upstream(ends, 16 * MIB) == numbered(0, 16 * MIB)
    await sending


async def test_last_words_of_a_caller_arrive(tunnel):
    running, ends = await tunnel()
    ends.caller.writer.write(EXAMPLE)
    ends.caller.close()
    assert await rest_at_upstream(ends) == EXAMPLE
    ends.talk.close()
    await ended(running)


async def test_last_words_of_an_upstream_arrive(tunnel):
    running, ends = await tunnel()
    ends.talk.writer.write(EXAMPLE)
    ends.talk.close()
    assert (await ends.caller.read_rest(), ends.caller.closed) == (EXAMPLE, False)
    ends.caller.close()
    assert (await ended(running))["outcome"] == "ok"


async def test_last_words_of_an_upstream_arrive_while_its_caller_sends(tunnel):
    running, ends = await tunnel()
    ends.caller.writer.transport.pause_reading()
    ends.talk.writer.write(EXAMPLE)
    await running.until(lambda: the_connection(running).wire.get_write_buffer_size() > 0)
    sending = asyncio.get_running_loop().create_task(pushed(ends.caller.send, MIB))
    say_no_more(ends.talk)
    for _ in range(200):  # turns of the loop in which the proxy may close too soon
        await asyncio.sleep(0)
    ends.caller.writer.transport.resume_reading()
    assert await ends.caller.read_rest() == EXAMPLE
    ends.caller.close()
    ends.talk.close()
    await asyncio.gather(sending, return_exceptions=True)
    await ended(running)


async def test_last_words_of_a_caller_arrive_at_a_slow_upstream(tunnel):
    running, ends = await tunnel(asked)
    narrow(tunnel_of(running)._connection.transport)
    narrow(ends.talk.writer)
    await ends.talk.send(SWITCH)
    await ends.caller.answer()
    ends.talk.writer.transport.pause_reading()
    to_upstream = tunnel_of(running)._connection.transport
    await ends.caller.send(EXAMPLE[: 48 * KIB])
    ends.caller.close()
    await running.until(lambda: to_upstream.is_closing() or running.inflight() == 0 or tunnel_of(running)._caller_ended)
    ends.talk.writer.transport.resume_reading()
    assert await rest_at_upstream(ends) == EXAMPLE[: 48 * KIB]
    ends.talk.close()
    await ended(running)


async def test_last_words_of_a_caller_arrive_while_its_upstream_sends(tunnel):
    running, ends = await tunnel()
    ends.caller.writer.transport.pause_reading()
    sending = asyncio.get_running_loop().create_task(pushed(ends.talk.send, 16 * MIB))
    await running.until(lambda: the_connection(running).writing_paused)
    ends.talk.writer.transport.pause_reading()
    ends.caller.writer.write(EXAMPLE)
    ends.caller.writer.write(b"goodbye")
    say_no_more(ends.caller)
    ends.talk.writer.transport.resume_reading()
    assert await rest_at_upstream(ends) == EXAMPLE + b"goodbye"
    ends.caller.close()
    ends.talk.close()
    await asyncio.gather(sending, return_exceptions=True)
    await ended(running)


@pytest.mark.parametrize("size", [64 * KIB, 512 * KIB])
async def test_last_words_of_a_caller_arrive_though_its_upstream_said_more(size, from_tls):
    running, ends = await from_tls()
    tunnel_of(running)._connection.transport.pause_reading()
    await ends.talk.send(b"never read")
    ends.talk.writer.transport.pause_reading()
    await ends.caller.send(numbered(0, size))
    ends.caller.close()
    await ended(running)
    ends.talk.writer.transport.resume_reading()
    rest = RawCaller(ends.talk.reader, ends.talk.writer)
    assert (await rest.read_rest(), rest.closed) == (numbered(0, size), False)


async def test_last_words_of_an_upstream_arrive_though_its_caller_said_more(to_tls):
    running, ends = await to_tls()
    size = 64 * KIB
    the_connection(running).wire.pause_reading()
    await ends.caller.send(b"never read")
    ends.caller.writer.transport.pause_reading()
    await ends.talk.send(numbered(0, size))
    ends.talk.close()
    await ended(running)
    for _ in range(200):  # turns of the loop in which the proxy may close too soon
        await asyncio.sleep(0)
    ends.caller.writer.transport.resume_reading()
    assert (await ends.caller.read_rest(), ends.caller.closed) == (numbered(0, size), False)


async def test_upstream_that_ends_ends_a_caller_with_tls(from_tls):
    running, ends = await from_tls()
    await ends.talk.send(b"goodbye")
    ends.talk.close()
    assert (await ends.caller.read_rest(), ends.caller.closed) == (b"goodbye", False)
    ends.caller.close()
    line = await ended(running)
    assert (line["status"], line["outcome"]) == (101, "ok")


async def test_half_of_a_caller_ends_an_upstream_with_tls(scripted, proxy, secured, authority, listening):
    running, ends = await Secured(SIDES["upstream"], scripted, proxy, secured, authority, listening)()
    await ends.caller.send(b"goodbye")
    ends.caller.writer.write_eof()
    assert await rest_at_upstream(ends) == b"goodbye"
    assert await ends.caller.read_rest() == b""
    line = await ended(running)
    assert (line["status"], line["outcome"]) == (101, "ok")


async def test_caller_that_is_reset_ends_the_upstreams_side(tunnel):
    running, ends = await tunnel()
    await pass_both_ways(ends)
    reset(ends.caller.writer)
    assert await rest_at_upstream(ends) == b""
    assert (await ended(running))["outcome"] == "client_gone"


async def test_upstream_that_is_reset_ends_the_callers_side(tunnel):
    running, ends = await tunnel()
    await pass_both_ways(ends)
    reset(ends.talk.writer)
    assert await ends.caller.read_rest() == b""
    await ended(running)


async def test_caller_that_does_not_read_pauses_the_upstream_until_it_does(tunnel):
    running, ends = await tunnel()
    ends.caller.writer.transport.pause_reading()
    sending = asyncio.get_running_loop().create_task(pushed(ends.talk.send, 32 * MIB))
    await running.until(lambda: the_connection(running).writing_paused)
    assert the_connection(running).wire.get_write_buffer_size() <= MIB
    ends.caller.writer.transport.resume_reading()
    assert await at_caller(ends, 32 * MIB) == numbered(0, 32 * MIB)
    await sending


async def test_upstream_that_does_not_read_pauses_the_caller_until_it_does(tunnel):
    running, ends = await tunnel()
    ends.talk.writer.transport.pause_reading()
    sending = asyncio.get_running_loop().create_task(pushed(ends.caller.send, 32 * MIB))
    await running.until(lambda: not the_connection(running).wire.is_reading())
    assert tunnel_of(running)._connection.transport.get_write_buffer_size() <= MIB
    ends.talk.writer.transport.resume_reading()
    assert await at_upstream(ends, 32 * MIB) == numbered(0, 32 * MIB)
    await sending


async def test_idle_tunnel_is_closed(tunnel):
    running, ends = await tunnel(upstream="websocket: {idle: 30s}")
    running.pass_time(31)
    assert await rest_at_upstream(ends) == b""
    assert await ends.caller.read_rest() == b""
    assert (await ended(running))["outcome"] == "stalled"


async def test_tunnel_is_cut_when_the_proxy_stops(tunnel):
    running, ends = await tunnel()
    await running.serinus.close()
    assert await ends.caller.read_rest() == b""
    assert await rest_at_upstream(ends) == b""
    assert (await ended(running))["outcome"] == "stopped"
