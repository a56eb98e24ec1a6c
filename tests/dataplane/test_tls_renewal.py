"""Certificates that are renewed under a listener, and those that callers must show. Nobody who is served notices."""

import asyncio
import socket
import ssl
from functools import partial

import openai as openai_sdk
import pytest

from tests.support.authority import Authority, shown, written
from tests.support.raw import RawCaller, get
from tests.support.running import config_for
from tests.support.scripted import Held, answering, whole


@pytest.fixture
async def proxy(proxy):
    """Waits in the end until all callers have left: with TLS that takes a few turns."""
    started = []

    async def start(config, **options):
        started.append(running := await proxy(config, **options))
        return running

    yield start
    for running in started:
        await running.until(lambda open_=running.serinus.data_plane.callers.open: not open_)


@pytest.fixture
def server(tmp_path):
    """The authority of the listener's certificate."""
    return Authority(tmp_path / "server")


@pytest.fixture
def callers(tmp_path):
    """The authority of the callers' certificates."""
    return Authority(tmp_path / "callers")


@pytest.fixture
def others(tmp_path):
    """One that comes later, or never."""
    return Authority(tmp_path / "others")


@pytest.fixture
def listening(server, callers):
    """The part of a configuration that makes its listener speak TLS, with callers' certificates if it is to."""

    def listening(*, mutual=True):
        cert, key = server.issue("localhost", "127.0.0.1")
        client_ca = f", client_ca: '{callers.ca_file}'" if mutual else ""
        return f"listen: [{{address: 127.0.0.1:0, tls: {{cert: '{cert}', key: '{key}'{client_ca}}}}}]"

    return listening


async def answered(port, context):
    """What a caller gets on a connection of its own: a body, or None where it is not let in."""
    try:
        caller = await RawCaller.connect(port, ssl=context)
    except (ConnectionError, ssl.SSLError):
        return None
    try:
        await caller.send(get())
        return (await caller.answer()).payload
    except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
        return None
    finally:
        caller.close()


# --- the listener's own ------------------------------------------------------------------------------------------


async def test_stream_and_its_connection_outlive_the_certificate(server, others, listening, scripted, proxy):
    held = Held()
    running = await proxy(config_for((await scripted(held)).url, top=listening(mutual=False)))
    caller = await RawCaller.connect(running.port, ssl=server.trusting())
    await caller.send(get())
    await caller.read_until(Held.FIRST)
    cert, _ = others.issue("localhost", folder=server.ca_file.parent)
    await running.serinus.certificates.renew()
    assert await shown(running.port) == written(cert)
    with pytest.raises(ssl.SSLCertVerificationError):
        await RawCaller.connect(running.port, ssl=server.trusting())
    held.may_end.set()
    await caller.read_until(Held.LAST)
    await caller.send(get(b"/nowhere"))
    assert (await caller.answer()).status == 404
    caller.close()


async def test_http_1_1_is_agreed_on_with_the_renewed_certificate_too(server, others, listening, scripted, proxy):
    running = await proxy(config_for((await scripted(answering(whole(b"{}")))).url, top=listening(mutual=False)))
    others.issue("localhost", folder=server.ca_file.parent)
    await running.serinus.certificates.renew()
    context = others.trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    caller = await RawCaller.connect(running.port, ssl=context)
    assert caller.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    caller.close()


# --- those of callers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def test_only_callers_with_a_certificate_are_let_in(version, server, callers, others, listening, scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url, top=listening()))
    for known, body in ((None, None), (others.issue("caller"), None), (callers.issue("caller"), b"{}")):
        context = server.trusting(known)
        context.maximum_version = version
        assert await answered(running.port, context) == body
    assert len(upstream.requests) == 1


async def test_sdk_shows_its_certificate_to_an_address(server, callers, listening, scripted, proxy):
    """No name is asked for then: TLS has none for addresses."""
    running = await proxy(config_for((await scripted(answering(whole(b'{"data": []}')))).url, top=listening()))
    transport = openai_sdk.DefaultAsyncHttpxClient(verify=server.trusting(callers.issue("caller")), trust_env=False)
    base_url = f"https://127.0.0.1:{running.port}/v1"
    async with openai_sdk.AsyncOpenAI(base_url=base_url, api_key="client-key", http_client=transport) as openai:
        assert (await openai.models.list()).data == []


async def test_authority_that_is_gone_vouches_for_nobody(server, callers, others, listening, scripted, proxy):
    running = await proxy(config_for((await scripted(answering(whole(b"{}")))).url, top=listening()))
    old, new = server.trusting(callers.issue("old")), server.trusting(others.issue("new"))
    open_before = await RawCaller.connect(running.port, ssl=old)
    first = callers.ca_file.read_text()
    for authorities, served in (
        (first + others.ca_file.read_text(), [b"{}", b"{}"]),
        (others.ca_file.read_text(), [None, b"{}"]),
        (first, [b"{}", None]),
    ):
        callers.ca_file.write_text(authorities)
        await running.serinus.certificates.renew()
        assert [await answered(running.port, context) for context in (old, new)] == served
    await open_before.send(get())
    assert (await open_before.answer()).payload == b"{}"
    open_before.close()


def resumed(port, context, session):
    """Whether a session was resumed, what came of a call, and the session."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    with context.wrap_socket(connection, server_hostname="localhost", session=session) as tls:
        tls.sendall(get(fields=b"Connection: close\r\n"))
        got = b"".join(iter(partial(tls.recv, 65536), b""))
        return tls.session_reused, got[-2:], tls.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def test_session_of_a_caller_ends_with_its_authority(
    version, server, callers, others, listening, scripted, proxy
):
    """A resumed session shows no certificate: its ticket must not be worth more than that."""
    running = await proxy(config_for((await scripted(answering(whole(b"{}")))).url, top=listening()))
    context = server.trusting(callers.issue("caller"))
    context.maximum_version = version
    reused, got, session = await asyncio.to_thread(resumed, running.port, context, None)
    assert (reused, got) == (False, b"{}")
    assert (await asyncio.to_thread(resumed, running.port, context, session))[:2] == (True, b"{}")
    callers.ca_file.write_text(others.ca_file.read_text())
    await running.serinus.certificates.renew()
    try:
        reused, got, _ = await asyncio.to_thread(resumed, running.port, context, session)
    except (ssl.SSLError, ConnectionError):
        return  # 1.2 says it during the handshake
    assert (reused, got) == (False, b"")


async def test_listener_that_comes_to_want_certificates_wants_them_of_all(
    server, callers, listening, scripted, proxy, tmp_path
):
    upstream = await scripted(answering(whole(b"{}")))
    file = tmp_path / "serinus.yaml"
    running = await proxy(config_for(upstream.url, top=listening(mutual=False)), path=file)
    anyone, known = server.trusting(), server.trusting(callers.issue("caller"))
    assert await answered(running.port, anyone) == b"{}"
    plain, mutual = f"key: '{server.ca_file.parent}/localhost-key.pem'", f", client_ca: '{callers.ca_file}'"
    file.write_text(file.read_text().replace(plain, plain + mutual))
    assert (await running.serinus.reloader.reload()).need_restart == ()
    assert [await answered(running.port, context) for context in (anyone, known)] == [None, b"{}"]
