"""WebSocket calls: which requests become tunnels, what each side sees of the handshake, that bytes stay the same."""

import asyncio

import pytest

from tests.support.lanes import the_connection
from tests.support.raw import CLIENT, RawCaller, ask, get, post
from tests.support.running import config_for
from tests.support.scripted import Conversation, answering, whole
from tests.support.tunnels import (
    ACCEPT,
    ASKS,
    KEY_FIELDS,
    KIB,
    MIB,
    SWITCH,
    SWITCHED,
    Directed,
    Ends,
    asked,
    at_caller,
    at_upstream,
    numbered,
    opened,
    pass_both_ways,
    pushed,
    rest_at_upstream,
    tunnel_of,
    upgrade,
)

ID = b"X-Request-Id: id-1\r\n"
OURS = b"\r\nx-request-id: id-1\r\nx-serinus-upstream: up0"
UPGRADED = b"\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
ALL_BYTES = bytes(range(256))
HIDDEN = get(b"/v1/hidden")


# --- bytes -----------------------------------------------------------------------------------------------------------

TEXTS = {
    "one byte": b"z",
    "all bytes": ALL_BYTES,
    "a request": HIDDEN,
    "an answer": whole(b"{}"),
    "ends of chunks": b"0\r\n\r\n" * 3,
    "a head without end": b"GET / HTTP/1.1\r\n",
    "a megabyte": numbered(0, MIB),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_bytes_pass_both_ways_as_they_are(text, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    for _ in range(3):
        await pass_both_ways(ends, text)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("cut", range(0, 260, 9))
async def test_bytes_may_be_cut_anywhere(cut, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    pieces = [piece for piece in (ALL_BYTES[:cut], ALL_BYTES[cut:]) if piece]
    await ends.caller.send(*pieces)
    await ends.talk.send(*pieces)
    assert (await at_upstream(ends, 256), await at_caller(ends, 256)) == (ALL_BYTES, ALL_BYTES)


async def test_both_ways_are_independent(scripted, proxy):
    upstream, size = await scripted(Directed()), 8 * MIB
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(pushed(ends.caller.send, size))
        tasks.create_task(pushed(ends.talk.send, size))
        up, down = tasks.create_task(at_upstream(ends, size)), tasks.create_task(at_caller(ends, size))
    assert (up.result(), down.result()) == (numbered(0, size), numbered(0, size))


HANDSHAKE = upgrade(fields=b"X-Zebra: 1\r\n")


@pytest.mark.parametrize("cut", [1, 3, 20, len(HANDSHAKE) - 3, len(HANDSHAKE) - 1, len(HANDSHAKE), len(HANDSHAKE) + 2])
async def test_request_may_be_cut_anywhere_with_bytes_behind_it(cut, scripted, proxy):
    upstream, sent = await scripted(Directed()), HANDSHAKE + b"behind"
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(sent[:cut])
    await running.until(lambda: bool(running.serinus.data_plane.callers.open))
    await caller.send(sent[cut:])
    await upstream.until(lambda: bool(upstream.script.talks))
    (talk,) = upstream.script.talks
    await talk.send(SWITCH)
    assert (await caller.answer()).status == 101
    assert await talk.reader.readexactly(6) == b"behind"


@pytest.mark.parametrize("cut", [1, 8, 12, 34, len(SWITCH) - 4, len(SWITCH) - 1, len(SWITCH), len(SWITCH) + 2])
async def test_switch_may_be_cut_anywhere_with_bytes_behind_it(cut, scripted, proxy):
    upstream, sent = await scripted(Directed()), SWITCH + b"behind"
    running = await proxy(config_for(upstream.url))
    ends = await asked(upstream, running)
    await ends.talk.send(sent[:cut], sent[cut:])
    assert (await ends.caller.answer()).status == 101
    assert await at_caller(ends, 6) == b"behind"
    await pass_both_ways(ends)


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: <a>\r\n\r\n" * 3])
async def test_switch_may_follow_interim_answers(interim, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running, switch=interim + SWITCH)
    await pass_both_ways(ends)


# --- bytes of a caller that does not wait for the 101 ----------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 64 * KIB - 4, 64 * KIB, 64 * KIB + 4, MIB])
async def test_what_is_sent_with_the_request_follows_the_switch_in_its_order(size, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    caller, (first, second) = await RawCaller.connect(running.port), (numbered(0, size), numbered(size, 4))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(caller.send(upgrade() + first, second))
        await upstream.until(lambda: bool(upstream.script.talks))
        (talk,) = upstream.script.talks
        await talk.send(SWITCH)
        assert await talk.reader.readexactly(size + 4) == first + second
    assert (await caller.answer()).status == 101


async def test_what_is_sent_before_the_switch_is_held_until_then(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await asked(upstream, running)
    for number in range(5):
        await ends.caller.send(b"%d" % number)
        await running.until(lambda count=number + 1: len(tunnel_of(running)._early) == count)
    ends.talk.reader.feed_data(b"|")  # nothing came before this
    await ends.talk.send(SWITCH)
    await ends.caller.answer()
    await ends.caller.send(b"5")
    assert await at_upstream(ends, 7) == b"|012345"


@pytest.mark.parametrize("together", [True, False])
async def test_what_is_held_before_the_switch_is_bounded(together, scripted, proxy):
    upstream, size = await scripted(Directed()), 32 * MIB
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(upgrade() + b"z" * KIB * together)
    sending = asyncio.get_running_loop().create_task(pushed(caller.send, size))
    await upstream.until(lambda: bool(upstream.script.talks))
    await running.until(lambda: not the_connection(running).wire.is_reading())
    for _ in range(500):  # turns of the loop in which more could be read
        await asyncio.sleep(0)
    assert 64 * KIB < len(tunnel_of(running)._early) <= 512 * KIB
    assert not sending.done()
    (talk,) = upstream.script.talks
    await talk.send(SWITCH)
    assert await talk.reader.readexactly(KIB * together + size) == b"z" * KIB * together + numbered(0, size)
    await sending


async def test_what_was_held_goes_nowhere_if_the_tunnel_is_refused(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await asked(upstream, running, upgrade() + HIDDEN)
    await ends.caller.send(HIDDEN)
    await ends.talk.send(whole(b"no", status=b"403 Forbidden"))
    answer = await ends.caller.answer()
    assert (answer.status, answer.payload) == (403, b"no")
    await ends.caller.send(HIDDEN)
    assert await ends.caller.read_rest() == b""
    running.serinus.data_plane._pools.close()
    assert await rest_at_upstream(ends) == b""
    assert len(upstream.requests) == upstream.connections == 1


async def test_flood_before_a_refusal_does_not_keep_the_answer_back(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await asked(upstream, running)
    sending = asyncio.get_running_loop().create_task(pushed(ends.caller.send, 4 * MIB))
    await running.until(lambda: not the_connection(running).wire.is_reading())
    await ends.talk.send(whole(b"no", status=b"403 Forbidden"))
    await sending
    assert (await ends.caller.answer()).payload == b"no"


# --- what the upstream sees of the handshake -------------------------------------------------------------------------


async def sent_upstream(scripted, proxy, request, **config):
    """The request that arrives at an upstream."""
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url, **config))
    return (await asked(upstream, running, request)).request


async def test_request_is_the_callers_with_an_upgrade_of_our_own(scripted, proxy):
    extension = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    fields = (
        b"User-Agent: a/1\r\nsec-websocket-protocol: realtime, openai-beta.realtime-v1\r\n%bOrigin: https://a.example\r\n"
        b"X-Zebra: 1\r\nSEC-WEBSOCKET-EXTENSIONS: x-other\r\n" % extension
    )
    trace = b"traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01\r\n"
    request = upgrade(b"/v1/realtime?model=m", fields=ID + trace + fields)
    received = await sent_upstream(scripted, proxy, request)
    head = received.raw_head
    assert received.line == b"GET /v1/realtime?model=m HTTP/1.1"
    assert KEY_FIELDS + fields in head
    assert head.endswith(ID.lower() + trace + b"\r\n")
    assert (received.field(b"connection"), received.field(b"upgrade")) == (b"Upgrade", b"websocket")
    assert received.field(b"authorization") == b"Bearer upstream-key-0"
    assert received.field(b"content-length") is received.field(b"transfer-encoding") is None


ASKING = {
    "odd case": b"cOnNeCtIoN: uPgRaDe\r\nuPGRADE: WEBsocket\r\n",
    "upgrade first": b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    "with keep-alive": b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",
    "upgrade before others": b"Connection: upgrade ,\tkeep-alive\r\nUpgrade: websocket\r\n",
    "two Connection fields": b"Connection: keep-alive\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    "blanks": b"Connection:   Upgrade  \r\nUpgrade: \t websocket \t\r\n",
    "fields for one hop": b"Connection: Upgrade, X-One, Keep-Alive\r\nUpgrade: websocket\r\nX-One: 1\r\n"
    b"Keep-Alive: 5\r\nTE: trailers\r\nTrailer: a\r\n"
    b"Proxy-Connection: b\r\nProxy-Authorization: c\r\nX-Forwarded-For: 1.2.3.4\r\n",
}


@pytest.mark.parametrize("asks", ASKING.values(), ids=ASKING)
async def test_tunnel_may_be_asked_for_in_many_ways(asks, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running, upgrade(asks=asks) + b"early")
    assert await at_upstream(ends, 5) == b"early"
    await pass_both_ways(ends)
    received = ends.request
    assert (received.field(b"connection"), received.field(b"upgrade")) == (b"Upgrade", b"websocket")
    names = {name.lower() for name, _ in received.fields}
    assert not names & {b"x-one", b"keep-alive", b"te", b"trailer", b"proxy-connection", b"x-forwarded-for"}


OUR_KEY = b"openai-insecure-api-key.client-key"
THEIR_KEY = b"openai-insecure-api-key.their-key"

# What the caller offers, what the upstream is offered where we hold its key, and where the caller brings it.
OFFERS = {
    "only ours": (OUR_KEY, [], []),
    "ours first": (OUR_KEY + b", realtime", [b"realtime"], [b"realtime"]),
    "ours in between": (b"realtime, " + OUR_KEY + b",beta", [b"realtime, beta"], [b"realtime, beta"]),
    "ours last": (b"realtime , " + OUR_KEY, [b"realtime"], [b"realtime"]),
    "ours twice": (OUR_KEY + b", realtime, " + OUR_KEY, [b"realtime"], [b"realtime"]),
    "both": (b"realtime, %b, %b" % (OUR_KEY, THEIR_KEY), [b"realtime"], [b"realtime", THEIR_KEY]),
    "both, theirs first": (b"%b, realtime, %b" % (THEIR_KEY, OUR_KEY), [b"realtime"], [b"realtime", THEIR_KEY]),
}


@pytest.mark.parametrize("keys", [True, False], ids=["our upstream key", "the caller's"])
@pytest.mark.parametrize(("offer", "with_key", "without"), OFFERS.values(), ids=OFFERS)
async def test_key_among_the_subprotocols_is_the_clients(offer, with_key, without, keys, scripted, proxy):
    request = upgrade(fields=b"Sec-WebSocket-Protocol: %b\r\n" % offer, credential=b"")
    received = await sent_upstream(scripted, proxy, request, keys=keys)
    offered = [value for name, value in received.fields if name.lower() == b"sec-websocket-protocol"]
    assert offered == (with_key if keys else without)
    assert b"client-key" not in received.raw_head


async def test_key_in_a_field_of_its_own_is_the_clients(scripted, proxy):
    fields = b"Sec-WebSocket-Protocol: realtime\r\nSec-WebSocket-Protocol: %b\r\n" % OUR_KEY
    received = await sent_upstream(scripted, proxy, upgrade(fields=fields, credential=b""))
    assert received.field(b"sec-websocket-protocol") == b"realtime"


@pytest.mark.parametrize("credential", [CLIENT, b"X-Serinus-Key: client-key\r\n", b""], ids=["bearer", "ours", "none"])
async def test_callers_own_key_is_passed_on_where_there_is_no_other(credential, scripted, proxy):
    fields = b"Sec-WebSocket-Protocol: realtime, %b\r\n" % THEIR_KEY
    request = upgrade(fields=fields, credential=credential)
    received = await sent_upstream(scripted, proxy, request, keys=False, clients=bool(credential))
    assert [value for name, value in received.fields if name.lower() == b"sec-websocket-protocol"] == [
        b"realtime",
        THEIR_KEY,
    ]
    assert b"client-key" not in received.raw_head


@pytest.mark.parametrize("offer", [THEIR_KEY, b"openai-insecure-api-key.", b"realtime", b""])
async def test_nobodys_key_opens_no_tunnel(offer, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(upgrade(fields=b"Sec-WebSocket-Protocol: %b\r\n" % offer, credential=b"") + HIDDEN)
    assert (await caller.answer()).status == 401
    assert await caller.read_rest() == b""
    assert upstream.connections == 0


# --- what the caller sees of it --------------------------------------------------------------------------------------

FIELDS = {
    "as usual": (ACCEPT, ACCEPT),
    "subprotocol and extensions": (
        ACCEPT + b"Sec-WebSocket-Protocol: realtime\r\nsec-websocket-extensions: permessage-deflate\r\n",
    )
    * 2,
    "order and case": (b"b: 1\r\nSEC-WEBSOCKET-ACCEPT: x=\r\nA: 2\r\nb: 3\r\n",) * 2,
    "for one hop": (b"Keep-Alive: 5\r\n" + ACCEPT + b"Proxy-Connection: a\r\nX-Serinus-Upstream: x\r\n", ACCEPT),
    "nominated": (b"Connection: X-One\r\nX-One: 1\r\n" + ACCEPT, ACCEPT),
    "length": (b"Content-Length: 5\r\n" + ACCEPT, ACCEPT),
    "coding": (b"Transfer-Encoding: chunked\r\n" + ACCEPT, ACCEPT),
}


@pytest.mark.parametrize(("sent", "passed"), FIELDS.values(), ids=FIELDS)
async def test_switch_is_the_upstreams_with_an_upgrade_of_our_own(sent, passed, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running, upgrade(fields=ID), SWITCHED + sent + b"\r\n")
    expected = b"HTTP/1.1 101 Switching Protocols\r\n" + passed.removesuffix(b"\r\n") + OURS + UPGRADED
    assert ends.head.head == expected
    await pass_both_ways(ends)


async def test_upstreams_own_request_id_stays(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running, upgrade(fields=ID), SWITCHED + b"x-request-id: theirs\r\n\r\n")
    assert (ends.head.field(b"x-request-id"), ends.head.field(b"x-serinus-request-id")) == (b"theirs", b"id-1")


SWITCHES = {
    "lower case": b"HTTP/1.1 101 a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "upper case": b"HTTP/1.1 101 a\r\nCONNECTION: UPGRADE\r\nUPGRADE: WEBSOCKET\r\n\r\n",
    "no reason": b"HTTP/1.1 101\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "blanks": b"HTTP/1.1 101 a\r\nConnection:  Upgrade \r\nUpgrade:\t websocket \t\r\n\r\n",
    "keep-alive": b"HTTP/1.1 101 a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
}


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)
async def test_switch_may_be_written_in_many_ways(switch, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await opened(upstream, running, switch=switch)
    assert (ends.head.field(b"connection"), ends.head.field(b"upgrade")) == (b"Upgrade", b"websocket")
    await pass_both_ways(ends)


# --- refused, and broken ---------------------------------------------------------------------------------------------

REFUSALS = {
    "403 with a body": whole(b'{"error":"no"}', status=b"403 Forbidden"),
    "200": whole(b"hello"),
    "200 in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "302": whole(b"", status=b"302 Found", fields=b"Location: https://a.example/\r\n"),
    "400": whole(b"bad", status=b"400 Bad Request", fields=b"Sec-WebSocket-Version: 13\r\n"),
    "426": whole(b"", status=b"426 Upgrade Required", fields=b"Upgrade: websocket\r\nConnection: Upgrade\r\n"),
    "500": whole(b"oh", status=b"500 Internal Server Error"),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "200 that says it switches": whole(b"hi", fields=b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_refusal_is_relayed_and_ends_the_connection(refusal, scripted, proxy):
    upstream = await scripted(answering(refusal))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(upgrade())
    answer = await caller.answer()
    assert refusal.startswith(b"HTTP/1.1 %d " % answer.status)
    assert answer.whole
    assert refusal.endswith(answer.body)
    assert (answer.field(b"connection"), answer.field(b"upgrade")) == (b"close", None)
    await caller.send(HIDDEN)
    assert await caller.read_rest() == b""
    await running.until_logged()
    (line,) = running.requests_logged
    assert line["status"] == answer.status
    assert (await ask(running.port, get())).status == answer.status
    assert upstream.connections == 1  # its own connection was used again, for it carries nothing else
    assert [received.line for received in upstream.requests] == [
        b"GET /v1/realtime HTTP/1.1",
        b"GET /v1/models HTTP/1.1",
    ]


async def test_refusal_that_the_close_ends_is_whole(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await asked(upstream, running)
    await ends.talk.send(b"HTTP/1.0 403 No\r\n\r\nno entry")
    ends.talk.close()
    answer = await ends.caller.answer()
    assert (answer.status, answer.payload, answer.whole) == (403, b"no entry", True)


async def test_refusal_may_be_a_long_stream_and_what_comes_meanwhile_is_nobodys(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await asked(upstream, running)
    await ends.talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n")
    await ends.caller.read_until(b"hello\r\n")
    await ends.caller.send(HIDDEN * 5)
    await ends.talk.send(b"0\r\n\r\n")
    assert await ends.caller.read_rest() == b"0\r\n\r\n"
    running.serinus.data_plane._pools.close()
    assert await rest_at_upstream(ends) == b""


BROKEN = {
    "garbage": b"\x81\x05hello",
    "another upgrade": b"HTTP/1.1 101 a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "no upgrade": b"HTTP/1.1 101 a\r\nConnection: Upgrade\r\n\r\n",
    "no upgrade after a 100": b"HTTP/1.1 100 a\r\n\r\nHTTP/1.1 101 a\r\n\r\n",
    "two upgrades": b"HTTP/1.1 101 a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
    "a list of upgrades": b"HTTP/1.1 101 a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
    "nothing nominated": b"HTTP/1.1 101 a\r\nUpgrade: websocket\r\n\r\n",
    "another version": b"HTTP/1.0 101 a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "bare LF": SWITCH.replace(b"\r\nConn", b"\nConn"),
    "a head without end": SWITCHED + b"X-Zebra: " + b"z" * 66_000,
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_broken_handshake_is_answered_with_502(broken, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await asked(upstream, running, upgrade() + HIDDEN)
    await ends.talk.send(broken)
    answer = await ends.caller.answer()
    assert (answer.status, answer.field(b"connection"), answer.field(b"upgrade")) == (502, b"close", None)
    assert await ends.caller.read_rest() == b""
    assert await rest_at_upstream(ends) == b""
    await running.until_logged()
    assert running.requests_logged[0]["outcome"] == "upstream_error"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "request_", [get(), post(), upgrade(asks=b"Upgrade: websocket\r\n")], ids=["GET", "POST", "half"]
)
async def test_switch_that_nobody_asked_for_is_no_answer(request_, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await asked(upstream, running, request_)
    await ends.talk.send(SWITCH + whole(b"smuggled"))
    answer = await ends.caller.answer()
    assert (answer.status, b"smuggled" in answer.payload) == (502, False)
    assert await rest_at_upstream(ends) == b""


async def test_refused_key_ends_as_for_other_requests(scripted, proxy):
    upstream = await scripted(answering(whole(b"theirs", status=b"401 Unauthorized")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(upgrade() + b"early")
    answer = await caller.answer()
    assert (answer.status, b"theirs" in answer.payload) == (502, False)
    assert await caller.read_rest() == b""


async def test_close_before_an_answer_is_tried_again_only_on_a_connection_used_before(scripted, proxy):
    async def script(talk: Conversation) -> None:
        await talk.request()
        if talk.upstream.connections == 1:
            await talk.send(whole(b"{}"))
            await talk.request()
            return
        await talk.send(SWITCH)
        echoed.set_result(await talk.reader.readexactly(5))

    echoed = asyncio.get_running_loop().create_future()
    upstream = await scripted(script)
    running = await proxy(config_for(upstream.url))
    assert (await ask(running.port, get())).status == 200
    caller = await RawCaller.connect(running.port)
    await caller.send(upgrade() + b"early")
    assert (await caller.answer()).status == 101
    assert await echoed == b"early"
    assert upstream.connections == 2


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 101 Swi", SWITCHED])
async def test_close_before_an_answer_on_a_fresh_connection_is_answered_with_502(sent, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await asked(upstream, running)
    await ends.talk.send(sent)
    ends.talk.close()
    assert (await ends.caller.answer()).status == 502
    assert upstream.connections == 1


async def test_upstream_that_cannot_be_reached_is_answered_with_503(proxy):
    running = await proxy(config_for("http://127.0.0.1:1/v1"))
    caller = await RawCaller.connect(running.port)
    await caller.send(upgrade() + b"early")
    assert (await caller.answer()).status == 503
    assert await caller.read_rest() == b""


# --- requests that ask for no tunnel ---------------------------------------------------------------------------------

NO_TUNNEL = {
    "not nominated": upgrade(asks=b"Upgrade: websocket\r\n"),
    "nominated by keep-alive only": upgrade(asks=b"Connection: keep-alive\r\nUpgrade: websocket\r\n"),
    "nominated within another word": upgrade(asks=b"Connection: upgraded, x-upgrade\r\nUpgrade: websocket\r\n"),
    "nothing to upgrade to": upgrade(asks=b"Connection: Upgrade\r\n"),
    "h2c": upgrade(asks=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"),
    "a list": upgrade(asks=b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
    "a version": upgrade(asks=b"Connection: Upgrade\r\nUpgrade: websocket/13\r\n"),
    "two, websocket first": upgrade(asks=b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n"),
    "two, websocket last": upgrade(asks=b"Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n"),
    "twice": upgrade(asks=ASKS + b"Upgrade: websocket\r\n"),
    "no letters": upgrade(asks=b"Connection: Upgrade\r\nUpgrade: web\xc5\xbfocket\r\n"),
    "POST": upgrade().replace(b"GET", b"POST"),
    "POST with a body": post(b'{"a":1}', fields=ASKS + KEY_FIELDS),
    "POST in chunks": post(b"", fields=ASKS).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    + b"3\r\nabc\r\n0\r\n\r\n",
    "GET with a body": upgrade(fields=b"Content-Length: 5\r\n") + b"hello",
    "GET with an empty body": upgrade(fields=b"Content-Length: 0\r\n"),
    "PUT": upgrade().replace(b"GET", b"PUT"),
    "HTTP/1.0": upgrade().replace(b"HTTP/1.1", b"HTTP/1.0"),
}


@pytest.mark.parametrize("request_", NO_TUNNEL.values(), ids=NO_TUNNEL)
async def test_other_requests_are_ordinary_ones(request_, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(request_)
    assert (await caller.answer()).status == 200
    await caller.send(b"\x88\x80zero")
    await caller.read_rest()
    (received,) = upstream.requests
    names = {name.lower() for name, _ in received.fields}
    assert not names & {b"upgrade", b"connection", b"http2-settings", b"keep-alive"}


@pytest.mark.parametrize("request_", NO_TUNNEL.values(), ids=NO_TUNNEL)
async def test_other_requests_become_no_tunnel_whatever_is_answered(request_, scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    ends = await asked(upstream, running, request_ + HIDDEN)
    await ends.talk.send(SWITCH)
    answer = await ends.caller.answer()
    assert answer.status == 502
    await ends.caller.send(b"zebra")
    assert await rest_at_upstream(ends) == b""


@pytest.mark.parametrize("behind", [HIDDEN, post(b"x"), upgrade(b"/v1/hidden"), b"\x81\x80zero"])
@pytest.mark.parametrize("refusal", ["200", "403 with a body", "426"])
async def test_nothing_behind_a_refused_request_is_a_request(refusal, behind, scripted, proxy):
    upstream = await scripted(answering(REFUSALS[refusal]))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(upgrade() + behind)
    await caller.send(behind)
    await caller.answer()
    assert await caller.read_rest() == b""
    assert len(upstream.requests) == 1


# --- requests before it on the same connection -----------------------------------------------------------------------


@pytest.mark.parametrize("before", [1, 9, 100])
@pytest.mark.parametrize("together", [True, False], ids=["pipelined", "one by one"])
async def test_tunnel_may_follow_other_requests(together, before, scripted, proxy):
    async def script(talk: Conversation) -> None:
        while b"realtime" not in (await talk.request()).line:
            await talk.send(whole(b"{}"))
        await talk.send(SWITCH, b"hello")
        told.set_result(await talk.reader.readexactly(len(early)))

    told, early = asyncio.get_running_loop().create_future(), numbered(0, 256 * KIB)
    upstream = await scripted(script)
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    plain = [post(b"%d" % number) for number in range(before)]
    if together:
        await caller.send(b"".join(plain) + upgrade() + early)
    for request in plain:
        if not together:
            await caller.send(request)
        assert (await caller.answer()).status == 200
    if not together:
        await caller.send(upgrade(), early)
    assert (await caller.answer()).status == 101
    assert await caller.reader.readexactly(5) == b"hello"
    assert await told == early
    assert upstream.connections == 1


async def test_two_tunnels_are_two_connections(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    one, two = await opened(upstream, running), await opened(upstream, running)
    await one.caller.send(b"one")
    await two.caller.send(b"two")
    assert (await at_upstream(one, 3), await at_upstream(two, 3)) == (b"one", b"two")


async def test_tunnel_may_use_a_connection_that_was_kept(scripted, proxy):
    upstream = await scripted(Directed())
    running = await proxy(config_for(upstream.url))
    before = await asked(upstream, running, get())
    await before.talk.send(whole(b"{}"))
    assert (await before.caller.answer()).status == 200
    caller = await RawCaller.connect(running.port)
    await caller.send(upgrade())
    await before.talk.request()
    await before.talk.send(SWITCH)
    assert (await caller.answer()).status == 101
    await pass_both_ways(Ends(caller, before.talk))
    assert upstream.connections == 1
