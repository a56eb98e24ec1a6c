"""Web pages of other origins: who may read answers, what a browser is told before, and what passes without `cors`."""

import gzip
import json

import pytest

from tests.support.lanes import waits_for_body
from tests.support.raw import CLIENT, RawCaller, ask, get, post
from tests.support.running import config_for
from tests.support.scripted import answering, answering_then_closing, whole

CORS = "cors: {origins: ['https://app.example', 'http://localhost:3000']}"
APP = b"Origin: https://app.example\r\n"
EVIL = b"Origin: https://evil.example\r\n"
THEIRS = b"Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\naccess-control-own: x\r\n"


def cors_fields(answer):
    return {name.lower(): value for name, value in answer.fields if name.lower().startswith(b"access-control-")}


def assert_readable(answer):
    """A page of the app may read this answer, and everything in it."""
    assert answer.all(b"access-control-allow-origin") == [b"https://app.example"]
    assert answer.all(b"access-control-expose-headers") == [b"*"]
    assert len(cors_fields(answer)) == 2
    assert b"origin" in b",".join(answer.all(b"vary")).lower()


@pytest.fixture
async def upstream(scripted):
    return await scripted(answering(whole(b"{}", fields=THEIRS)))


# --- answers ----------------------------------------------------------------------------------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" % THEIRS
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%b" % THEIRS
RELAYED = {
    "plain": whole(b"hello", fields=THEIRS),
    "without their own": whole(b"hello"),
    "chunked": CHUNKED,
    "stream": EVENTS + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "until close": EVENTS + b"\r\nhello",
    "an error": whole(b"hello", status=b"429 Slow Down", fields=THEIRS),
    "their server error": whole(b"hello", status=b"503 Down", fields=THEIRS),
    "with a vary of its own": whole(b"hello", fields=THEIRS + b"Vary: Accept-Encoding\r\n"),
    "in capitals": whole(b"hello", fields=b"ACCESS-CONTROL-ALLOW-ORIGIN: https://app.example\r\n"),
    "twice": whole(b"hello", fields=THEIRS + THEIRS),
    "as the last field": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nAccess-Control-Allow-Origin: x\r\n\r\nhello",
}


@pytest.mark.parametrize("case", RELAYED)
async def test_relayed_answer_may_be_read(case, scripted, proxy):
    upstream = await scripted(answering_then_closing(RELAYED[case]))
    running = await proxy(config_for(upstream.url, top=CORS))
    answer = await ask(running.port, get(fields=APP))
    assert_readable(answer)
    assert answer.payload == b"hello"
    if case == "with a vary of its own":
        assert b"Accept-Encoding" in answer.all(b"vary")


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_answer_without_a_body_may_be_read(status, scripted, proxy):
    upstream = await scripted(answering(b"HTTP/1.1 %b\r\n%b\r\n" % (status, THEIRS)))
    running = await proxy(config_for(upstream.url, top=CORS))
    caller = await RawCaller.connect(running.port)
    for _ in range(2):
        await caller.send(get(fields=APP))
        assert_readable(await caller.answer())


async def test_answer_to_an_old_caller_may_be_read(scripted, proxy):
    upstream = await scripted(answering(CHUNKED))
    running = await proxy(config_for(upstream.url, top=CORS))
    answer = await ask(running.port, get(fields=APP).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert_readable(answer)
    assert answer.payload == b"hello"


async def test_head_may_be_read(upstream, proxy):
    running = await proxy(config_for(upstream.url, top=CORS))
    assert_readable(await ask(running.port, get(fields=APP).replace(b"GET", b"HEAD")))


async def test_alive_may_be_read(upstream, proxy):
    running = await proxy(config_for(upstream.url, top=CORS))
    assert_readable(await ask(running.port, get(b"/livez", fields=APP)))


def no_key(request):
    return request.replace(b"client-key", b"wrong-key")


OWN_ERRORS = {
    401: no_key(post(fields=APP)),
    404: post(target=b"/elsewhere", fields=APP),
    403: post(b'{"model":"other"}', target=b"/v1/x", fields=APP),
    400: post(b"no JSON", target=b"/v1/x", fields=APP),
    413: post(b"x" * 2000, target=b"/small/x", fields=APP),
    502: post(target=b"/broken/x", fields=APP),
}


@pytest.mark.parametrize("status", OWN_ERRORS)
async def test_error_of_our_own_may_be_read(status, upstream, scripted, proxy):
    broken = await scripted(answering_then_closing(b"no HTTP"))
    running = await proxy(
        f"""
{CORS}
clients: [{{name: tester, key: client-key, models: ['m*']}}]
upstreams: {{up: {{base_url: '{upstream.url}'}}, broken: {{base_url: '{broken.url}'}}}}
pools: {{chat: {{members: [{{upstream: up}}]}}, broken: {{members: [{{upstream: broken}}]}}}}
routes:
  - {{prefix: /v1, pool: chat}}
  - {{prefix: /small, pool: chat, max_body: 1KiB}}
  - {{prefix: /broken, pool: broken}}
"""
    )
    answer = await ask(running.port, OWN_ERRORS[status])
    assert answer.status == status
    assert_readable(answer)
    assert "error" in json.loads(answer.payload)


async def test_error_of_an_upstream_that_is_not_there_may_be_read(upstream, proxy):
    running = await proxy(config_for(upstream.url, top=CORS))
    await upstream.stop()
    answer = await ask(running.port, post(fields=APP))
    assert answer.status == 503
    assert_readable(answer)


async def test_error_of_an_upstream_that_is_too_slow_may_be_read(scripted, proxy):
    async def silent(talk):
        await talk.request()
        await talk.gone()

    upstream = await scripted(silent)
    running = await proxy(config_for(upstream.url, top=CORS, upstream="timeouts: {first_byte: 10s}"))
    caller = await RawCaller.connect(running.port)
    await caller.send(post(fields=APP))
    await upstream.until(lambda: upstream.requests)
    running.pass_time(11)
    answer = await caller.answer()
    assert answer.status == 504
    assert_readable(answer)


async def test_error_of_a_caller_that_is_too_slow_may_be_read(upstream, proxy):
    running = await proxy(config_for(upstream.url, top=CORS))
    caller = await RawCaller.connect(running.port)
    await caller.send(post(b"x" * 100, fields=APP)[:-50])
    await running.until(lambda: running.serinus.data_plane.callers.open and waits_for_body(running))
    running.pass_time(31)
    answer = await caller.answer()
    assert answer.status == 408
    assert_readable(answer)


async def test_origins_on_one_connection_are_told_apart(upstream, proxy):
    running = await proxy(config_for(upstream.url, top=CORS))
    caller = await RawCaller.connect(running.port)
    for origin in (b"https://app.example", b"http://localhost:3000", b"https://evil.example", b"https://app.example"):
        await caller.send(post(fields=b"Origin: %b\r\n" % origin))
        listed = [] if b"evil" in origin else [origin]
        assert (await caller.answer()).all(b"access-control-allow-origin") == listed


async def test_compressed_answer_is_not_touched(scripted, proxy):
    packed = gzip.compress(b"hello")
    upstream = await scripted(answering(whole(packed, fields=b"Content-Encoding: gzip\r\n" + THEIRS)))
    running = await proxy(config_for(upstream.url, top=CORS))
    assert (await ask(running.port, get(fields=APP))).payload == packed


async def test_upstream_learns_of_the_origin_as_ever(upstream, proxy):
    running = await proxy(config_for(upstream.url, top=CORS))
    await ask(running.port, post(fields=APP))
    assert upstream.requests[0].field(b"origin") == b"https://app.example"


# --- origins that are not listed --------------------------------------------------------------------------------------

NOT_LISTED = [
    b"https://evil.example",
    b"https://app.example.evil.example",
    b"http://app.example",
    b"https://app.example:8443",
    b"null",
    b"*",
]


@pytest.mark.parametrize("origin", NOT_LISTED)
@pytest.mark.parametrize("target", [b"/v1/models", b"/elsewhere", b"/livez"])
async def test_other_pages_may_read_nothing(origin, target, upstream, proxy):
    running = await proxy(config_for(upstream.url, top=CORS))
    answer = await ask(running.port, get(target, fields=b"Origin: %b\r\n" % origin))
    assert cors_fields(answer) == {}


async def test_caller_that_is_no_page_is_served_as_ever(upstream, proxy):
    running = await proxy(config_for(upstream.url, top=CORS))
    answer = await ask(running.port, post())
    assert (answer.status, answer.payload, answer.field(b"access-control-allow-origin")) == (200, b"{}", None)


async def test_listing_all_says_so(upstream, proxy):
    running = await proxy(config_for(upstream.url, top="cors: {origins: ['*']}"))
    answer = await ask(running.port, post(fields=EVIL))
    assert cors_fields(answer) == {b"access-control-allow-origin": b"*", b"access-control-expose-headers": b"*"}


# --- preflights -------------------------------------------------------------------------------------------------------


def options(target=b"/v1/chat/completions", origin=APP, *, more=b"", method=b"POST"):
    fields = b"Access-Control-Request-Method: %b\r\n" % method if method else b""
    return b"OPTIONS %b HTTP/1.1\r\nHost: proxy\r\n%b%b%b\r\n" % (target, origin, fields, more)


HEADERS = b"Access-Control-Request-Headers: authorization,content-type,x-stainless-lang\r\n"


@pytest.mark.parametrize("target", [b"/v1/chat/completions", b"/v1/models", b"/elsewhere", b"/livez", b"/"])
async def test_preflight_is_answered_here_and_without_a_key(target, upstream, proxy):
    running = await proxy(config_for(upstream.url, top=CORS))
    answer = await ask(running.port, options(target, more=HEADERS))
    assert (answer.status, answer.payload) == (204, b"")
    assert cors_fields(answer) == {
        b"access-control-allow-origin": b"https://app.example",
        b"access-control-allow-methods": b"POST",
        b"access-control-allow-headers": b"authorization,content-type,x-stainless-lang",
        b"access-control-expose-headers": b"*",
        b"access-control-max-age": b"7200",
    }
    assert answer.field(b"content-length") is None
    assert answer.field(b"vary") == b"origin"
    assert upstream.requests == []


@pytest.mark.parametrize("method", [b"GET", b"DELETE", b"PATCH"])
async def test_preflight_for_any_method(method, upstream, proxy):
    running = await proxy(config_for(upstream.url, top=CORS))
    answer = await ask(running.port, options(method=method))
    assert answer.field(b"access-control-allow-methods") == method
    assert answer.field(b"access-control-allow-headers") is None


async def test_call_behind_its_preflight_on_one_connection(upstream, proxy):
    running = await proxy(config_for(upstream.url, top=CORS))
    caller = await RawCaller.connect(running.port)
    await caller.send(options(more=HEADERS) + post(fields=APP) + options())
    assert [(await caller.answer()).status for _ in range(3)] == [204, 200, 204]
    assert len(upstream.requests) == 1


async def test_preflight_of_a_body_of_no_bytes_is_one(upstream, proxy):
    running = await proxy(config_for(upstream.url, top=CORS))
    assert (await ask(running.port, options(more=b"Content-Length: 0\r\n"))).status == 204


NO_PREFLIGHTS = {
    "other origin": options(origin=EVIL),
    "no origin": options(origin=b""),
    "no method asked for": options(method=b""),
    "a body": options(more=b"Content-Length: 2\r\n") + b"{}",
    "another method": options().replace(b"OPTIONS", b"POST"),
}


@pytest.mark.parametrize("case", NO_PREFLIGHTS)
async def test_what_is_no_preflight_needs_a_key(case, upstream, proxy):
    running = await proxy(config_for(upstream.url, top=CORS))
    answer = await ask(running.port, NO_PREFLIGHTS[case])
    assert answer.status == 401
    assert b"access-control-allow-methods" not in cors_fields(answer)
    assert upstream.requests == []


async def test_with_a_key_it_is_the_upstreams_to_answer(upstream, proxy):
    running = await proxy(config_for(upstream.url, top=CORS))
    answer = await ask(running.port, options(method=b"", more=b"Authorization: Bearer client-key\r\n"))
    assert answer.status == 200
    assert_readable(answer)
    assert upstream.requests[0].line == b"OPTIONS /v1/chat/completions HTTP/1.1"


# --- without `cors` ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [APP, EVIL, b""])
async def test_without_the_setting_the_upstreams_answer_passes_as_it_is(origin, upstream, proxy):
    running = await proxy(config_for(upstream.url))
    answer = await ask(running.port, post(fields=origin))
    assert cors_fields(answer) == {
        b"access-control-allow-origin": b"*",
        b"access-control-allow-credentials": b"true",
        b"access-control-own": b"x",
    }


async def test_without_the_setting_a_preflight_is_a_request_like_any_other(upstream, proxy):
    running = await proxy(config_for(upstream.url))
    assert (await ask(running.port, options())).status == 401
    answer = await ask(running.port, options(more=CLIENT))
    assert answer.status == 200
    assert answer.field(b"access-control-own") == b"x"
    assert upstream.requests[0].line == b"OPTIONS /v1/chat/completions HTTP/1.1"


PAGES = {
    "no cors": ("", 403),
    "listed": ("cors: {origins: ['https://app.example']}", 200),
    "another": ("cors: {origins: ['https://other.example']}", 403),
    "any": ("cors: {origins: ['*']}", 200),
}


@pytest.mark.parametrize("name", PAGES)
async def test_where_anyone_may_call_a_page_may_only_if_it_is_listed(name, upstream, proxy):
    top, status = PAGES[name]
    running = await proxy(config_for(upstream.url, clients=False, top=top))
    plain = post().replace(CLIENT, b"")
    assert (await ask(running.port, plain)).status == 200
    by_page = plain.replace(b"Host:", b"Origin: https://app.example\r\nHost:")
    answer = await ask(running.port, by_page)
    assert answer.status == status
    if status == 403:
        assert json.loads(answer.payload)["error"]["code"] == "origin_not_allowed"
    assert len(upstream.requests) == (2 if status == 200 else 1)


async def test_reload_changes_who_may_read(upstream, proxy, tmp_path):
    top = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\n"
    file = tmp_path / "serinus.yaml"
    running = await proxy(top + config_for(upstream.url, top=CORS), path=file)
    caller = await RawCaller.connect(running.port)
    await caller.send(post(fields=APP))
    assert_readable(await caller.answer())
    file.write_text(top + config_for(upstream.url, top="cors: {origins: ['https://evil.example']}"))
    await running.serinus.reloader.reload()
    await caller.send(post(fields=APP))
    assert cors_fields(await caller.answer()) == {}
