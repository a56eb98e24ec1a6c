"""Exchanges that end at odd moments: none lives for ever, is done twice, or leaves something behind for the next."""

import asyncio
import errno

import pytest

from tests.support.raw import RawCaller, ask, get, post
from tests.support.running import config_for
from tests.support.scripted import Conversation, answering, whole

MIB = 1024 * 1024


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.3"])
async def test_what_comes_behind_an_offer_to_upgrade_is_nobodys_request(protocol, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    hidden = get(b"/v1/hidden")
    offer = get(fields=b"Connection: Upgrade\r\nUpgrade: %b\r\n" % protocol)
    await caller.send(offer + post(b"x" * len(hidden))[: -len(hidden)])
    answer = await caller.answer()
    assert (answer.status, answer.field(b"connection")) == (200, b"close")
    await caller.send(hidden)
    assert await caller.read_rest() == b""
    assert [request.line for request in upstream.requests] == [b"GET /v1/models HTTP/1.1"]


async def test_connection_that_still_holds_some_of_a_body_is_not_used_again(scripted, proxy):
    async def refusing(talk: Conversation) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        talk.writer.transport.pause_reading()
        await talk.send(whole(b"{}", status=b"413 Too Large"))
        await asyncio.Event().wait()

    upstream = await scripted(refusing)
    running = await proxy(config_for(upstream.url, route="buffer: 32MiB"))
    caller = await RawCaller.connect(running.port)
    sending = asyncio.get_running_loop().create_task(caller.send(post(b"x" * 20 * MIB)))
    assert (await caller.answer()).status == 413
    await sending
    await running.until_logged()
    assert [len(pool) for pool in running.serinus.data_plane._pools._pools.values()] == [0]
    await caller.send(post())  # the caller's own connection goes on: its request was read to the end
    assert (await caller.answer()).status == 413
    caller.close()


@pytest.mark.parametrize(("worked_s", "tries"), [(0, 2), (300, 1)])
async def test_request_is_sent_again_only_where_its_upstream_cannot_have_worked_on_it(worked_s, tries, scripted, proxy):
    told_to_close = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(whole(b"{}"))
        await talk.request()
        if talk.upstream.connections == 1:
            await told_to_close.wait()
            talk.close()
        else:
            await talk.send(whole(b"{}"))

    upstream = await scripted(script)
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    await caller.answer()
    await caller.send(post(b"second"))
    await upstream.until(lambda: len(upstream.requests) == 2)
    running.pass_time(worked_s)
    told_to_close.set()
    assert (await caller.answer()).status == (200 if tries == 2 else 502)
    assert [request.body for request in upstream.requests].count(b"second") == tries


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
async def test_host_that_cannot_be_looked_up_is_an_error_at_once(host, proxy, monkeypatch):
    monkeypatch.setattr("proxy.model.address._is_host", lambda _: True)  # as if the configuration had let it through
    running = await proxy(config_for(f"http://{host}/v1"))
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # it is logged there, as it should not happen
    assert (await ask(running.port, get())).status == 503


async def test_upstream_that_answers_and_ends_before_it_took_the_request_is_heard(scripted, proxy):
    async def script(talk: Conversation) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        talk.writer.transport.pause_reading()
        talk.writer.write(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\n\r\ntoo large")
        talk.writer.write_eof()
        await asyncio.Event().wait()

    upstream = await scripted(script)
    running = await proxy(config_for(upstream.url, route="buffer: 32MiB"))
    caller = await RawCaller.connect(running.port)
    sending = asyncio.get_running_loop().create_task(caller.send(post(b"x" * 20 * MIB)))
    answer = await caller.answer()
    assert (answer.status, answer.payload, answer.whole) == (413, b"too large", True)
    await sending
    caller.close()


@pytest.mark.parametrize("shown", [b"client-key", b"Token client-key", b"Bearer\tclient-key"])
async def test_clients_key_in_a_form_that_is_not_asked_for_goes_no_further_either(shown, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, keys=False))
    fields = b"x-api-key: client-key\r\nAuthorization: %b\r\n" % shown
    answer = await ask(running.port, b"GET /v1/models HTTP/1.1\r\nHost: a\r\n%b\r\n" % fields)
    assert answer.status == 200
    assert b"client-key" not in upstream.requests[0].raw_head


async def test_connection_that_the_system_does_not_grant_speaks_against_no_upstream(proxy, monkeypatch):
    async def refuse(*args, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    running = await proxy(config_for("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1", pool="balance: smooth_rr"))
    caller = await RawCaller.connect(running.port)
    monkeypatch.setattr(type(asyncio.get_running_loop()), "create_connection", refuse)
    for _ in range(12):
        await caller.send(post())
        answer = await caller.answer()
        assert (answer.status, answer.field(b"x-serinus-attempts")) == (503, None)
    status = running.serinus.admin.status(60)
    assert [member.state for member in status.pools["chat"].members] == ["up", "up"]
    assert {line["reason"] for line in running.requests_logged} == {"EMFILE"}
