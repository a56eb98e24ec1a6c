"""A plain exchange, from both ends: what arrives is what was sent."""

from tests.support.raw import RawCaller, ask, get, post
from tests.support.running import config_for
from tests.support.scripted import answering, whole


async def test_request_arrives_with_its_body_and_our_credential(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    answer = await ask(running.port, post(b'{"model":"m","n":1}', fields=b"X-Own: \xe9t\xe9\r\nAccept: */*\r\n"))
    assert (answer.status, answer.payload) == (200, b"{}")
    (request,) = upstream.requests
    assert request.line == b"POST /v1/chat/completions HTTP/1.1"
    assert request.body == b'{"model":"m","n":1}'
    assert request.field(b"authorization") == b"Bearer upstream-key-0"
    assert request.field(b"x-own") == b"\xe9t\xe9"
    assert request.field(b"host") == b"127.0.0.1:%d" % upstream.port


async def test_connections_are_kept_on_both_sides(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    for _ in range(5):
        await caller.send(get())
        assert (await caller.answer()).status == 200
    caller.close()
    assert upstream.connections == 1
