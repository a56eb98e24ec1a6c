"""A head that is known says what it said when it was read; what differs from call to call is each call's own."""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.controlplane.build import build
from proxy.controlplane.load import parse
from proxy.dataplane.handler import Handler
from proxy.dataplane.known_heads import MAX_KNOWN, KnownHeads
from proxy.dataplane.request import Request
from proxy.dataplane.tools import Tools
from proxy.obs.metrics import Metrics
from proxy.state.live import Registry
from proxy.state.snapshot import Snapshots
from tests.support.raw import CLIENT, RawCaller, get, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import ScriptedUpstream, answering, whole

URL = "http://127.0.0.1:1/v1"
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
LINE = b"POST /v1/chat/completions HTTP/1.1\r\nHost: proxy\r\n" + CLIENT
SNAPSHOT = build(parse(config_for(URL, route="max_body: 100B"), {}).settings, Registry(), Metrics(), generation=1)


def known_heads() -> KnownHeads:
    handler = Handler(Snapshots(SNAPSHOT), cast(Tools, None), clock=lambda: 0.0, dice=lambda _: 7, id_prefix="made")
    return KnownHeads(handler)


def said(request: Request | None) -> object:
    """All that a request says, whoever read it."""
    if request is None:
        return None
    head = request.head
    fields = replace(head.fields, content_length=None, request_id=None, traceparent=None)  # of the first with its head
    ours = request.request_id.startswith(b"made-")
    its_own = request.content_length, request.has_body, ours or request.request_id, request.traceparent, request.peer
    return head.method, head.target, head.client, head.credentials, head.candidates, fields, its_own


# --- any head ------------------------------------------------------------------------------------------------------

VALUES: dict[bytes, st.SearchStrategy[bytes]] = {
    b"Content-Length": st.integers(0, 120).map(lambda size: b"%d" % size)
    | st.sampled_from([b"0005", b"+5", b"5, 5", b"0x5", b"5 5", b"", b"-1", b"1_0", b"9" * 18, b"9" * 19, b"9" * 40]),
    b"X-Request-Id": st.from_regex(rb"[A-Za-z0-9._:/+=@-]{1,9}", fullmatch=True)
    | st.sampled_from([b"", b"a b", b"a,b", b"\xe9", b"a" * 128, b"a" * 129]),
    b"traceparent": st.sampled_from([b"a" * 32, b"b" * 32, b"A" * 32, b"0" * 32, b"a" * 31, b"g" * 32]).map(
        lambda trace: b"00-%b-00f067aa0ba902b7-01" % trace
    )
    | st.sampled_from([TRACE, TRACE + b"-more", b"cc" + TRACE[2:] + b"-a", b"ff" + TRACE[2:], b"", b"0" * 55]),
    b"tracestate": st.sampled_from([b"a=1", b"b=2"]),
    b"X-Other": st.sampled_from([b"", b"1", b"content-length: 5", b"a\x00b"]),
    b"Connection": st.sampled_from([b"keep-alive", b"close", b"X-Other"]),
}
spelt = st.sampled_from([bytes, bytes.lower, bytes.upper])
before = st.sampled_from([b" ", b"", b"\t", b" \t "])
behind = st.sampled_from([b"", b"", b"", b" "])


@st.composite
def alike(draw: st.DrawFn) -> list[bytes]:
    """Heads that differ in the values of their fields only, and not in all of these."""
    names = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4))
    shape = [(name, draw(spelt)(name) + b":" + draw(before), draw(VALUES[name]), draw(behind)) for name in names]
    heads = []
    for _ in range(3):
        lines = [LINE]
        for name, beginning, usual, end in shape:
            lines.append(beginning + draw(st.just(usual) | VALUES[name]) + end + b"\r\n")
        heads.append(b"".join(lines))
    return heads


@settings(max_examples=500, deadline=None)
@given(alike())
def test_a_head_says_the_same_whether_one_like_it_was_read_before_or_not(heads):
    known = known_heads()
    for head in (*heads, *heads):
        assert said(known.request(head, "peer")) == said(known_heads().request(head, "peer"))


USUAL = LINE + b"X-Request-Id: id-1\r\ntraceparent: %b\r\nContent-Length: 5\r\n" % TRACE


def test_usual_head_is_read_once():
    known = known_heads()
    first, second = known.request(USUAL, "peer"), known.request(USUAL.replace(b"id-1", b"id-2"), "peer")
    assert first is not second
    assert first.head is second.head
    assert (first.request_id, second.request_id) == (b"id-1", b"id-2")


NOT_PLAIN = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 5\r\n",
    "two lengths that differ": b"Content-Length: 5\r\ncontent-length: 6\r\n",
    "two lengths, one of them odd": b"Content-Length: 5\r\nContent-Length: +5\r\n",
    "list of lengths": b"Content-Length: 5, 5\r\n",
    "signed length": b"Content-Length: +5\r\n",
    "length in hex": b"Content-Length: 0x5\r\n",
    "length with an underscore": b"Content-Length: 1_0\r\n",
    "length with a blank before its colon": b"Content-Length : 5\r\n",
    "empty length": b"Content-Length:\r\n",
    "length of 2^63": b"Content-Length: 9223372036854775808\r\n",
    "length over the limit": b"Content-Length: 101\r\n",
    "folded length": b"Content-Length:\r\n 5\r\n",
    "length and coding": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "coding": b"Transfer-Encoding: chunked\r\n",
    "expectation": b"Content-Length: 5\r\nExpect: 100-continue\r\n",
    "close": b"Connection: close\r\n",
    "close in a list": b"Connection: keep-alive, close\r\n",
    "upgrade": b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    "old proxies' close": b"Proxy-Connection: close\r\n",
    "two Hosts": b"Host: proxy\r\n",
    "two content types": b"Content-Type: a/b\r\ncontent-type: a/b\r\n",
    "129 fields": b"X-A: 1\r\n" * 127,
    "end of the head inside": b"X-A: 1\r\n\r\nX-B: 1\r\n",
    "bare LF": b"X-A: 1\nX-B: 1\r\n",
    "folded": b"X-A: 1\r\n X-B: 1\r\n",
    "NUL": b"X-A: \0\r\n",
}


@pytest.mark.parametrize("fields", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_what_is_not_plain_never_becomes_so(fields):
    known = known_heads()
    assert all(known.request(LINE + more, "peer") for more in (b"", b"Content-Length: 5\r\n", b"X-A: 1\r\n"))
    assert [known.request(LINE + fields, "peer") for _ in range(2)] == [None, None]


@pytest.mark.parametrize("line", [b"GET / HTTP/1.0", b"GET /zebra HTTP/1.1", b"GET /livez HTTP/1.1", b"GET / HTTP/2.0"])
def test_other_versions_and_what_no_route_takes_are_not_plain(line):
    known = known_heads()
    head = line + b"\r\nHost: proxy\r\n" + CLIENT
    assert [known.request(head, "peer") for _ in range(2)] == [None, None]


def test_known_heads_are_bounded_and_the_oldest_go_first():
    known = known_heads()
    heads = [LINE + b"X-Number: %d\r\n" % number for number in range(MAX_KNOWN + 10)]
    first = {head: known.request(head, "peer").head for head in heads}
    assert len(known._known) == MAX_KNOWN
    assert all(known.request(head, "peer").head is first[head] for head in heads[10:])
    assert known.request(heads[0], "peer").head is not first[heads[0]]
    assert len(known._known) == MAX_KNOWN


# --- on the wire ---------------------------------------------------------------------------------------------------


def call(number: int, fields: bytes = b"") -> bytes:
    """Always the same head, but for the length, the ids and the trace."""
    ids = b"x-request-id: id-%d\r\ntraceparent: 00-%032x-%016x-01\r\n" % (number, number, number)
    return post(b"x" * 10**number, fields=fields + ids)


async def assert_each_is_its_own(upstream: ScriptedUpstream, fields: bytes, *callers: RawCaller) -> None:
    for caller in callers:
        for number in (1, 3, 2):
            await caller.send(call(number, fields))
            assert (await caller.answer()).field(b"x-request-id") == b"id-%d" % number
            request = upstream.requests[-1]
            assert request.body == b"x" * 10**number
            assert request.field(b"content-length") == b"%d" % 10**number
            assert request.field(b"x-request-id") == b"id-%d" % number
            assert request.field(b"traceparent") == b"00-%032x-%016x-01" % (number, number)


@pytest.mark.parametrize("size", [0, 100, 7900, 8192, 20_000])
async def test_same_head_on_one_connection_and_on_others(size, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    callers = [await RawCaller.connect(running.port) for _ in range(3)]
    await assert_each_is_its_own(upstream, b"X-Long: %b\r\n" % (b"a" * size), *callers)


async def test_ids_that_are_made_are_made_anew_for_each_call(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    for _ in range(5):
        await caller.send(post())
        assert (await caller.answer()).field(b"x-request-id") == upstream.requests[-1].field(b"x-request-id")
    for name in (b"x-request-id", b"traceparent"):
        assert len({request.field(name) for request in upstream.requests}) == 5


async def test_trace_that_is_none_is_not_believed_behind_one_that_is(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    for trace in (TRACE, TRACE.upper(), b"", TRACE):
        await caller.send(get(fields=b"traceparent: %b\r\ntracestate: a=1\r\n" % trace))
        await caller.answer()
    assert [request.field(b"tracestate") for request in upstream.requests] == [b"a=1", None, None, b"a=1"]
    assert [request.field(b"traceparent") == TRACE for request in upstream.requests] == [True, False, False, True]


@pytest.mark.parametrize("length", [b"", b"\0", b"+5", b"5 5", b"5,5", b"0x5"])
async def test_length_that_is_none_is_refused_though_the_rest_of_its_head_is_known(length, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    hidden = post(b"hello").replace(b"Content-Length: 5", b"Content-Length: " + length)
    for request in (post(b"hello"), post(b"hello"), hidden):
        await caller.send(request)
        answer = await caller.answer()
    assert answer.status == 400
    assert await caller.read_rest() == b""
    assert len(upstream.requests) == 2


async def test_more_heads_than_are_remembered(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    numbers = [*range(MAX_KNOWN + 20), *range(MAX_KNOWN + 20)]
    for number in numbers:
        await caller.send(get(fields=b"X-Number: %d\r\n" % number))
        assert (await caller.answer()).status == 200
    assert [int(request.field(b"x-number")) for request in upstream.requests] == numbers


async def test_body_over_the_limit_is_refused_before_it_is_sent_though_its_head_is_known(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, route="max_body: 1KiB"))
    caller = await RawCaller.connect(running.port)
    for size in (1000, 1024):
        await caller.send(post(b"x" * size))
        assert (await caller.answer()).status == 200
    await caller.send(post(b"x" * 1025)[:-1025])
    assert (await caller.answer()).status == 413
    assert await caller.read_rest() == b""


# --- after a reload ------------------------------------------------------------------------------------------------


@pytest.fixture
def start(proxy, fast_lane, tmp_path) -> Callable:
    """Starts a proxy with a caller whose head is known; then `reload(config)` puts another configuration in force."""
    path = tmp_path / "serinus.yaml"
    before = f"listen: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\nfast_lane: {str(fast_lane).lower()}\n"

    async def start(config: str) -> tuple[RunningProxy, RawCaller, Callable]:
        running = await proxy(before + config, path=path)
        caller = await RawCaller.connect(running.port)
        for _ in range(2):
            assert await status(caller) == 200

        async def reload(config: str) -> None:
            path.write_text(before + config)
            generation = running.serinus.reloader.generation
            assert (await running.serinus.reloader.reload()).generation == generation + 1

        return running, caller, reload

    return start


async def status(caller: RawCaller) -> int:
    await caller.send(post(b"hello"))
    return (await caller.answer()).status


async def test_client_whose_key_was_taken_away_is_refused_at_once(start, scripted):
    upstream = await scripted(answering(whole(b"{}")))
    config, others = config_for(upstream.url), "clients: [{name: other, key: other-key}]"
    _, caller, reload = await start(config)
    await reload(config_for(upstream.url, clients=False, top=others))
    assert await status(caller) == 401
    await reload(config)
    assert await status(caller) == 200
    assert len(upstream.requests) == 3


async def test_routes_that_changed_lead_elsewhere(start, scripted):
    upstream, other = await scripted(answering(whole(b"{}"))), await scripted(answering(whole(b"{}")))
    config = config_for(upstream.url)
    _, caller, reload = await start(config)
    await reload(config_for(other.url, upstream="headers: {x-new: '1'}"))
    assert await status(caller) == 200
    assert (len(upstream.requests), other.requests[0].field(b"x-new")) == (2, b"1")
    await reload(config.replace("prefix: /v1", "prefix: /v2"))
    assert await status(caller) == 404
    assert (len(upstream.requests), len(other.requests)) == (2, 1)


async def test_upstreams_key_that_changed_is_the_one_that_is_sent(start, scripted):
    upstream = await scripted(answering(whole(b"{}")))
    config = config_for(upstream.url)
    running, caller, reload = await start(config)
    await reload(config.replace("upstream-key-0", "new-key") + "overlap: {share: 0%}\n")
    await running.look()
    assert await status(caller) == 200
    sent = [request.field(b"authorization") for request in upstream.requests if request.line.startswith(b"POST")]
    assert sent == [b"Bearer upstream-key-0"] * 2 + [b"Bearer new-key"]


async def test_limits_and_models_that_were_set_hold_at_once(start, scripted):
    upstream = await scripted(answering(whole(b"{}")))
    _, caller, reload = await start(config_for(upstream.url))
    models = "clients: [{name: tester, key: client-key, models: [m]}]"
    await reload(config_for(upstream.url, clients=False, top=models))
    assert await status(caller) == 400  # `hello` names no model
    await reload(config_for(upstream.url, route="max_body: 4B"))
    assert await status(caller) == 413
    assert len(upstream.requests) == 2
