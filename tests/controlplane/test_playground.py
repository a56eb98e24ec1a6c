"""The playground's calls: handed to the public listener by the admin listener, and to nobody else."""

import asyncio
import json

import aiohttp
import pytest

from proxy.controlplane import playground
from proxy.controlplane.load import parse
from proxy.controlplane.playground import Own, places
from tests.controlplane.test_admin import TOKENS
from tests.support.authority import Authority
from tests.support.patience import PATIENCE_S
from tests.support.process import SerinusProcess
from tests.support.running import config_for
from tests.support.scripted import answering, whole

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CALL = {"path": "/v1/chat/completions", "body": {"model": "m", "messages": [], "stream": True}}
WITH_KEY = CALL | {"client_key": "client-key"}


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE_S)) as session:
        yield session


def play(session, running, call, **options):
    return session.post(f"{running.admin_url}/playground", json=call, **options)


async def test_a_call_goes_through_the_proxy_as_any_other(proxy, session, scripted):
    upstream = await scripted(answering(whole(b'{"id":"1"}')))
    running = await proxy(config_for(upstream.url))
    async with play(session, running, WITH_KEY) as answer:
        assert (answer.status, await answer.json()) == (200, {"id": "1"})
        assert answer.headers["x-serinus-playground"] == "relayed"
        assert answer.headers["x-serinus-upstream"] == "up0"
        request_id = answer.headers["x-request-id"]
    (sent,) = upstream.requests
    assert json.loads(sent.body) == CALL["body"]
    assert sent.field(b"authorization") == b"Bearer upstream-key-0"
    await running.until_logged()
    (line,) = running.requests_logged
    assert (line["client"], line["request_id"]) == ("tester", request_id)


async def test_an_answer_comes_as_it_is_made(proxy, session, scripted):
    go_on = asyncio.Event()

    async def script(talk):
        await talk.request()
        await talk.send(STREAM + b"9\r\ndata: 1\n\n\r\n")
        await go_on.wait()
        await talk.send(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    upstream = await scripted(script)
    running = await proxy(config_for(upstream.url))
    async with play(session, running, WITH_KEY) as answer:
        assert answer.content_type == "text/event-stream"
        assert await answer.content.readuntil(b"\n\n") == b"data: 1\n\n"
        go_on.set()
        assert await answer.content.read() == b"data: 2\n\n"


async def test_a_stream_that_is_cut_is_cut_for_the_page(proxy, session, scripted):
    async def script(talk):
        await talk.request()
        await talk.send(STREAM + b"9\r\ndata: 1\n\n\r\n")
        talk.close()

    upstream = await scripted(script)
    running = await proxy(config_for(upstream.url))
    async with play(session, running, WITH_KEY) as answer:
        with pytest.raises(aiohttp.ClientError):
            await answer.content.read()


async def test_who_leaves_ends_the_call(proxy, session, scripted):
    left = asyncio.Event()

    async def script(talk):
        await talk.request()
        await talk.send(STREAM + b"9\r\ndata: 1\n\n\r\n")
        await talk.gone()
        left.set()

    upstream = await scripted(script)
    running = await proxy(config_for(upstream.url))
    async with play(session, running, WITH_KEY) as answer:
        await answer.content.readuntil(b"\n\n")
        answer.close()
    async with asyncio.timeout(PATIENCE_S):
        await left.wait()
    await running.until_logged()
    assert running.requests_logged[0]["outcome"] == "client_gone"


async def test_a_call_too_many_is_refused_and_does_not_wait_for_ever(proxy, session, scripted, monkeypatch):
    async def script(talk):
        await talk.request()
        await talk.send(STREAM + b"9\r\ndata: 1\n\n\r\n")
        await talk.gone()

    monkeypatch.setattr(playground, "MOST", 1)
    monkeypatch.setattr(playground, "CONNECT_S", 0.5)
    running = await proxy(config_for((await scripted(script)).url))
    async with play(session, running, WITH_KEY) as held:
        await held.content.readuntil(b"\n\n")
        async with play(session, running, WITH_KEY) as answer:
            assert (answer.status, "did not answer" in (await answer.json())["error"]) == (502, True)
        held.close()


async def test_without_a_client_key_the_proxys_own_refusal_comes(proxy, session, scripted):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    async with play(session, running, CALL) as answer:
        assert (answer.status, answer.headers["x-serinus-playground"]) == (401, "relayed")
        assert (await answer.json())["error"]["code"] == "invalid_api_key"
    assert upstream.requests == []


async def test_the_list_of_models_comes_by_the_same_way(proxy, session, scripted):
    upstream = await scripted(answering(whole(b'{"object":"list","data":[{"id":"m"}]}')))
    running = await proxy(config_for(upstream.url))
    async with play(session, running, {"path": "/v1/models", "client_key": "client-key"}) as answer:
        assert [model["id"] for model in (await answer.json())["data"]] == ["m"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"path": "/v1/files"}, "path: none that the routes in force make"),
        ({"path": "http://elsewhere.example/v1/models"}, "path: none that the routes in force make"),
        ({"path": "/v1/../v1/models"}, "path: none that the routes in force make"),
        (CALL | {"client_key": "a\r\nx-other: b"}, "client_key: no header can carry it"),
        (CALL | {"url": "http://elsewhere.example"}, "send one JSON object with"),
        ({"body": {}}, "send one JSON object with"),
    ],
)
async def test_what_names_another_target_or_no_call_is_refused(proxy, session, scripted, call, said):
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(config_for(upstream.url))
    async with play(session, running, call) as answer:
        assert answer.status == 400
        assert "x-serinus-playground" not in answer.headers
        assert said in (await answer.json())["error"]
    assert upstream.requests == []


async def test_it_is_guarded_as_all_else(proxy, session):
    running = await proxy(TOKENS + config_for("http://127.0.0.1:1"))
    async with play(session, running, CALL) as answer:
        assert (answer.status, "x-serinus-playground" in answer.headers) == (401, False)
    token = {"authorization": "Bearer ops-token"}
    form = aiohttp.FormData({"path": "/v1/chat/completions"})
    async with session.post(f"{running.admin_url}/playground", data=form, headers=token) as answer:
        assert answer.status == 415


async def test_an_answer_that_is_a_page_is_text_here(proxy, session, scripted):
    page = b"<script>alert(1)</script>"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nSet-Cookie: a=b\r\nContent-Length: %d\r\n\r\n" % len(page)
    upstream = await scripted(answering(head + page))
    running = await proxy(config_for(upstream.url))
    async with play(session, running, WITH_KEY) as answer:
        assert answer.content_type == "text/plain"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in answer.headers


async def test_a_redirect_is_not_followed(proxy, session, scripted):
    head = b"HTTP/1.1 302 Found\r\nLocation: /v1/models\r\nContent-Length: 0\r\n\r\n"
    upstream = await scripted(answering(head))
    running = await proxy(config_for(upstream.url))
    async with play(session, running, WITH_KEY, allow_redirects=False) as answer:
        assert answer.status == 302
        assert "location" not in answer.headers
    assert len(upstream.requests) == 1


# --- listeners -------------------------------------------------------------------------------------------------------


def listening(tls):
    return f"listen: [{{address: 127.0.0.1:0, tls: {{{tls}}}}}]\n"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


async def test_behind_tls_the_certificate_that_is_shown_is_believed_and_no_other(proxy, session, scripted, authority):
    cert, key = authority.issue("proxy.example")  # of an authority that this machine does not know, for another name
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(listening(f"cert: {cert}, key: {key}") + config_for(upstream.url))
    async with play(session, running, WITH_KEY) as answer:
        assert (answer.status, await answer.json()) == (200, {})
    playground = running.serinus.admin._playground
    (own,) = playground._listeners()
    playground._listeners = lambda: [Own(own.host, own.port, bytes(32))]
    await playground.close()
    playground._session = None  # no connection from before
    async with play(session, running, WITH_KEY) as answer:
        assert answer.status == 502
        assert "another certificate" in (await answer.json())["error"]
    assert len(upstream.requests) == 1


async def test_after_a_renewal_the_new_certificate_is_believed(proxy, session, scripted, authority, tmp_path):
    (tmp_path / "tls").mkdir()
    cert, key = authority.issue("proxy.example", folder=tmp_path / "tls")
    upstream = await scripted(answering(whole(b"{}")))
    running = await proxy(listening(f"cert: {cert}, key: {key}") + config_for(upstream.url))
    before = running.serinus.certificates.fingerprint("127.0.0.1:0")
    authority.issue("proxy.example", folder=tmp_path / "tls")
    await running.serinus.certificates.renew()
    assert running.serinus.certificates.fingerprint("127.0.0.1:0") != before
    async with play(session, running, WITH_KEY) as answer:
        assert answer.status == 200


async def test_where_callers_must_show_certificates_it_says_that_it_has_none(proxy, session, authority):
    cert, key = authority.issue("proxy.example")
    tls = f"cert: {cert}, key: {key}, client_ca: {authority.ca_file}"
    running = await proxy(listening(tls) + config_for("http://127.0.0.1:1"))
    async with play(session, running, WITH_KEY) as answer:
        assert answer.status == 409
        assert "client_ca" in (await answer.json())["error"]


@pytest.mark.parametrize(
    ("own", "origin"),
    [
        (Own("0.0.0.0", 80), "http://127.0.0.1:80"),
        (Own("::", 80), "http://[::1]:80"),
        (Own("10.0.0.1", 443, b"x"), "https://10.0.0.1:443"),
    ],
)
def test_where_all_addresses_are_listened_on_it_calls_loopback(own, origin):
    assert own.origin == origin


async def test_it_works_with_workers(session, scripted, tmp_path):
    upstream = await scripted(answering(whole(b"{}")))
    process = SerinusProcess(tmp_path)
    top = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nstate_dir: state\npre_drain: 0s\nworkers: 2\n"
    try:
        await process.start(top + config_for(upstream.url))
        admin = (await process.until("serving"))["admin"]
        async with session.post(f"http://127.0.0.1:{admin[1]}/playground", json=WITH_KEY) as answer:
            assert (answer.status, answer.headers["x-serinus-upstream"]) == (200, "up0")
    finally:
        await process.kill()


# --- what can be called ----------------------------------------------------------------------------------------------


def paths(routes):
    text = "\n".join(
        [
            "upstreams:",
            "  openai: {base_url: https://api.openai.com/v1}",
            "  own: {base_url: http://127.0.0.1:8000}",
            "  claude: {base_url: https://api.anthropic.com}",
            "pools:",
            *(f"  {name}: {{members: [{{upstream: {name}}}]}}" for name in ("openai", "own", "claude")),
            "routes:",
            *(f"  - {{prefix: {prefix}, pool: {pool}}}" for prefix, pool in routes),
        ]
    )
    return [(place.dialect, place.path) for place in places(parse(text, {}).settings)]


def test_what_can_be_called_is_what_the_sdks_would_call():
    assert paths([("/v1", "openai")]) == [("chat", "/v1/chat/completions"), ("messages", "/v1/messages")]
    assert paths([("/openai", "openai")])[0] == ("chat", "/openai/chat/completions")
    assert paths([("/", "own")])[0] == ("chat", "/v1/chat/completions")
    assert paths([("/claude", "claude")]) == [("messages", "/claude/v1/messages")]
    assert paths([("/claude", "claude"), ("/v1", "openai"), ("/v1", "own")])[0] == ("chat", "/v1/chat/completions")
