"""TLS on both sides: who is believed to be whom, and that bytes are the same behind it."""

import asyncio
import ssl

import aiohttp
import anthropic as anthropic_sdk
import openai as openai_sdk
import pytest

from tests.support.authority import Authority
from tests.support.raw import CLIENT, RawCaller, ask, get
from tests.support.running import config_for
from tests.support.scripted import ScriptedUpstream, answering, answering_then_closing, whole

MESSAGES = [{"role": "user", "content": "What do you hear?"}]
EVENTS = [b'data: {"n":%d}\n\n' % number for number in range(40)]
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM = [*(b"%x\r\n%b\r\n" % (len(event), event) for event in EVENTS), b"0\r\n\r\n"]


class TlsUpstream(ScriptedUpstream):
    """A scripted upstream behind TLS, which notes the names that it is asked for."""

    def __init__(self, script, cert, key):
        super().__init__(script)
        self.names = []
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(cert, key)
        self._context.sni_callback = lambda _connection, name, _context: self.names.append(name)

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**24, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"https://localhost:{self.port}/v1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def secured(authority):
    """Starts upstreams behind TLS: `await secured(script, "localhost")`."""
    started = []

    async def start(script, *names):
        upstream = TlsUpstream(script, *authority.issue(*names))
        await upstream.start()
        started.append(upstream)
        return upstream

    yield start
    for upstream in started:
        await upstream.stop()


@pytest.fixture
def listening(authority):
    """The part of a configuration that makes its listener speak TLS."""
    cert, key = authority.issue("localhost", "127.0.0.1")
    return f"listen: [{{address: 127.0.0.1:0, tls: {{cert: '{cert}', key: '{key}'}}}}]"


# --- callers -----------------------------------------------------------------------------------------------------


async def test_sdks_are_served_over_tls(scripted, proxy, authority, listening):
    upstream = await scripted(answering(STREAM_HEAD + b"".join(STREAM)))
    running = await proxy(config_for(upstream.url, top=listening))
    transport = openai_sdk.DefaultAsyncHttpxClient(verify=authority.trusting(), trust_env=False)
    base_url = f"https://localhost:{running.port}"
    async with openai_sdk.AsyncOpenAI(base_url=f"{base_url}/v1", api_key="client-key", http_client=transport) as openai:
        stream = await openai.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert [chunk.n async for chunk in stream] == list(range(len(EVENTS)))


async def test_errors_are_told_over_tls(proxy, authority, listening):
    running = await proxy(config_for("http://127.0.0.1:1/v1", top=listening))
    transport = anthropic_sdk.DefaultAsyncHttpxClient(verify=authority.trusting(), trust_env=False)
    options = {"base_url": f"https://localhost:{running.port}", "max_retries": 0, "http_client": transport}
    async with anthropic_sdk.AsyncAnthropic(api_key="client-key", **options) as anthropic:
        with pytest.raises(anthropic_sdk.InternalServerError) as caught:
            await anthropic.messages.create(model="m", messages=MESSAGES, max_tokens=9)
    assert caught.value.status_code == 503


async def test_http_1_1_is_agreed_on(scripted, proxy, authority, listening):
    running = await proxy(config_for((await scripted(answering(whole(b"{}")))).url, top=listening))
    context = authority.trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    caller = await RawCaller.connect(running.port, ssl=context)
    assert caller.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    caller.close()


async def test_plain_http_on_a_tls_listener_is_no_request(proxy, listening):
    running = await proxy(config_for("http://127.0.0.1:1/v1", top=listening))
    caller = await RawCaller.connect(running.port)
    await caller.send(get())
    await caller.read_rest()
    caller.close()
    await running.until(lambda: not running.serinus.data_plane.callers.open)
    assert not running.requests_logged


async def test_stream_is_the_same_bytes_behind_tls_on_both_sides(secured, proxy, authority, listening):
    upstream = await secured(answering(STREAM_HEAD, *STREAM), "localhost")
    extra = f"tls: {{ca: '{authority.ca_file}'}}"
    running = await proxy(config_for(upstream.url, top=listening, upstream=extra))
    caller = await RawCaller.connect(running.port, ssl=authority.trusting())
    for _ in range(2):
        await caller.send(get())
        answer = await caller.answer()
        assert (answer.body, answer.whole) == (b"".join(STREAM), True)
    caller.close()
    assert upstream.connections == 1


async def test_large_bodies_pass_behind_tls_both_ways(secured, proxy, authority, listening):
    body = bytes(range(256)) * 4096
    upstream = await secured(answering(whole(body)), "localhost")
    extra = f"tls: {{ca: '{authority.ca_file}'}}"
    running = await proxy(config_for(upstream.url, top=listening, upstream=extra, route="buffer: 64KiB"))
    caller = await RawCaller.connect(running.port, ssl=authority.trusting())
    head = b"POST /v1/files HTTP/1.1\r\nHost: proxy\r\n%bContent-Length: %d\r\n\r\n" % (CLIENT, len(body))
    await caller.send(head, body)
    assert (await caller.answer()).payload == body
    caller.close()
    assert upstream.requests[0].body == body


async def test_stream_that_breaks_upstream_breaks_for_the_caller(secured, proxy, authority, listening):
    upstream = await secured(answering_then_closing(STREAM_HEAD, *STREAM[:5]), "localhost")
    extra = f"tls: {{ca: '{authority.ca_file}'}}"
    running = await proxy(config_for(upstream.url, top=listening, upstream=extra))
    caller = await RawCaller.connect(running.port, ssl=authority.trusting())
    await caller.send(get())
    answer = await caller.answer()
    assert (answer.payload, answer.whole) == (b"".join(EVENTS[:5]), False)
    caller.close()


async def test_caller_that_leaves_ends_the_exchange(secured, proxy, authority, listening):
    async def begin_and_wait(talk):
        await talk.request()
        await talk.send(STREAM_HEAD, *STREAM[:5])
        await talk.gone()

    upstream = await secured(begin_and_wait, "localhost")
    extra = f"tls: {{ca: '{authority.ca_file}'}}"
    running = await proxy(config_for(upstream.url, top=listening, upstream=extra))
    caller = await RawCaller.connect(running.port, ssl=authority.trusting())
    await caller.send(get())
    await caller.read_until(EVENTS[4])
    caller.close()
    await upstream.until(lambda: upstream.connections == 1 and upstream.open == 0)


# --- upstreams ---------------------------------------------------------------------------------------------------


async def asked(proxy, upstream, tls, url=None):
    """The answer to one request, and why it failed."""
    extra = f"tls: {tls}" if tls else ""
    running = await proxy(config_for(url or upstream.url, upstream=extra))
    answer = await ask(running.port, get())
    return answer, running.requests_logged[0].get("reason")


async def test_upstream_is_asked_for_by_its_name(secured, proxy, authority):
    upstream = await secured(answering(whole(b"{}")), "localhost")
    answer, _ = await asked(proxy, upstream, f"{{ca: '{authority.ca_file}'}}")
    assert answer.status == 200
    assert upstream.names == ["localhost"]


async def test_target_is_asked_for_by_its_upstreams_name(secured, proxy, authority, name):
    upstream = await secured(answering(whole(b"{}")), "localhost")
    name("127.0.0.1")
    extra = f"tls: {{ca: '{authority.ca_file}'}}, resolve: {{all: true}}, health: {{unhealthy_after: 1}}"
    running = await proxy(config_for(upstream.url, upstream=extra))
    assert (await ask(running.port, get())).status == 200
    checks = running.serinus.checks
    async with aiohttp.ClientSession() as session:
        checks.look(session)
        await running.until(lambda: not checks._running)
    assert upstream.names == ["localhost", "localhost"]
    assert running.requests_logged[0]["target"] == "127.0.0.1"
    assert not running.events.named("upstream_unhealthy")


async def test_targets_that_cannot_be_put_in_force_leave_the_old_ones(secured, proxy, authority, name, tmp_path):
    upstream = await secured(answering(whole(b"{}")), "localhost")
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority.ca_file.read_bytes())
    running = await proxy(config_for(upstream.url, upstream=f"tls: {{ca: '{ca_file}'}}, resolve: {{all: true}}"))
    ca_file.unlink()
    name("127.0.0.1", "127.0.0.2")
    running.pass_time(31)
    await running.serinus.targets.look(running.serinus.reloader.rebuild)
    (event,) = running.events.named("targets_rejected")
    assert event["generation_in_force"] == running.serinus.reloader.generation == 1
    assert (await ask(running.port, get())).status == 200
    ca_file.write_bytes(authority.ca_file.read_bytes())
    running.pass_time(31)
    await running.serinus.targets.look(running.serinus.reloader.rebuild)
    assert running.events.named("targets_changed")[0]["added"] == ["127.0.0.2"]


async def test_upstream_may_go_by_another_name(secured, proxy, authority):
    upstream = await secured(answering(whole(b"{}")), "api.vendor.test")
    url = f"https://127.0.0.1:{upstream.port}/v1"
    answer, _ = await asked(proxy, upstream, f"{{ca: '{authority.ca_file}', server_name: api.vendor.test}}", url)
    assert answer.status == 200
    assert upstream.names == ["api.vendor.test"]
    assert upstream.requests[0].field(b"host") == b"127.0.0.1:%d" % upstream.port


async def test_upstream_may_be_an_address(secured, proxy, authority):
    upstream = await secured(answering(whole(b"{}")), "127.0.0.1")
    url = f"https://127.0.0.1:{upstream.port}/v1"
    answer, _ = await asked(proxy, upstream, f"{{ca: '{authority.ca_file}'}}", url)
    assert answer.status == 200


async def test_upstream_with_a_wrong_name_gets_nothing(secured, proxy, authority):
    upstream = await secured(answering(whole(b"{}")), "other.test")
    answer, reason = await asked(proxy, upstream, f"{{ca: '{authority.ca_file}'}}")
    assert (answer.status, b"No connection to upstream up0." in answer.payload) == (503, True)
    assert "mismatch" in reason
    assert not upstream.requests


async def test_upstream_that_nobody_vouches_for_gets_nothing(secured, proxy):
    upstream = await secured(answering(whole(b"{}")), "localhost")
    answer, reason = await asked(proxy, upstream, "")
    assert answer.status == 503
    assert "certificate" in reason
    assert not upstream.requests


async def test_upstream_that_speaks_no_tls_gets_nothing(scripted, proxy):
    async def answer_anything(talk):
        await talk.reader.read(1)
        await talk.send(whole(b"{}"))
        await talk.gone()

    upstream = await scripted(answer_anything)
    answer, reason = await asked(proxy, upstream, "", f"https://localhost:{upstream.port}/v1")
    assert answer.status == 503
    assert reason not in ("", "EPERM", None)


async def test_verification_can_be_given_up(secured, proxy):
    upstream = await secured(answering(whole(b"{}")), "other.test")
    answer, _ = await asked(proxy, upstream, "{verify: false}")
    assert answer.status == 200
