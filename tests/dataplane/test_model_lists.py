"""`GET /models`: one upstream's list as it is, or, where no single upstream has it, one made of several."""

import asyncio
import json

import pytest

from tests.support.raw import CLIENT, RawCaller, ask, get, post
from tests.support.running import config_for
from tests.support.scripted import answering, answering_then_closing, whole


def record(name):
    return {"id": name, "object": "model", "created": 7, "owned_by": "someone", "own": {"x": [1]}}


def listing(*names):
    return whole(json.dumps({"object": "list", "data": [record(name) for name in names]}).encode())


def names_of(answer):
    return [model["id"] for model in json.loads(answer.payload)["data"]]


def config(*routes, urls, models="", upstream=""):
    """Upstreams `a`, `b`, … with a pool of the same name each; `routes`: each without its pool's braces."""
    held = f", models: [{models}]" if models else ""
    lines = [f"clients: [{{name: tester, key: client-key{held}}}]", "upstreams:"]
    lines += [
        f"  {name}: {{base_url: '{url}', keys: [{{name: main, value: key-{name}}}]{upstream}}}"
        for name, url in urls.items()
    ]
    lines.append("pools:")
    lines += [f"  {name}: {{members: [{{upstream: {name}}}]}}" for name in urls]
    return "\n".join([*lines, "routes:", *(f"  - {{{route}}}" for route in routes)]) + "\n"


@pytest.fixture
def serve(scripted, proxy):
    """Starts upstreams with an answer each, and a proxy: `running, upstreams = await serve(routes, {name: answer})`."""

    async def serve(routes, answers, **more):
        upstreams = {
            name: await scripted(answering(answer) if isinstance(answer, bytes) else answer)
            for name, answer in answers.items()
        }
        urls = {name: upstream.url for name, upstream in upstreams.items()}
        return await proxy(config(*routes, urls=urls, **more)), upstreams

    return serve


TWO = ("prefix: /v1, model: 'gpt-*', pool: a", "prefix: /v1, pool: b")

# --- what is in it -------------------------------------------------------------------------------------------------

A, B = listing("gpt-1", "o-1", "gpt-2"), listing("mistral", "gpt-1", "llama")
MERGED = {
    "each route's own": (TWO, "", ["gpt-1", "gpt-2", "mistral", "llama"]),
    "in the routes' order": (
        ("prefix: /v1, model: 'm*', pool: b", "prefix: /v1, model: '*', pool: a"),
        "",
        ["mistral", "gpt-1", "o-1", "gpt-2"],
    ),
    "what no route takes is left out": (
        ("prefix: /v1, model: 'gpt-*', pool: a", "prefix: /v1, model: 'l*', pool: b"),
        "",
        ["gpt-1", "gpt-2", "llama"],
    ),
    "one route that takes some": (("prefix: /v1, model: 'gpt-2', pool: a",), "", ["gpt-2"]),
    "name that no upstream lists": (("prefix: /v1, model: mine, pool: a", TWO[1]), "", ["mine", "mistral", "gpt-1"]),
    "routes of one pool": (
        ("prefix: /v1, model: 'o-*', pool: a", "prefix: /v1, model: 'gpt-2', pool: a"),
        "",
        ["o-1", "gpt-2"],
    ),
    "other prefixes do not count": (
        ("prefix: /other, pool: b", "prefix: /v1, model: '*', pool: a"),
        "",
        ["gpt-1", "o-1", "gpt-2"],
    ),
    "held to some": (("prefix: /v1, pool: a",), "'gpt-*'", ["gpt-1", "gpt-2"]),
    "held to one": (("prefix: /v1, pool: a",), "o-1, 'x-*'", ["o-1"]),
    "held to none that there is": (("prefix: /v1, pool: a",), "nothing", []),
    "held, of several routes": (TWO, "gpt-2, llama", ["gpt-2", "llama"]),
    "held to a name that is spelt out": (("prefix: /v1, model: mine, pool: a", TWO[1]), "mine", ["mine"]),
    "held off a name that is spelt out": (("prefix: /v1, model: mine, pool: a", TWO[1]), "mistral", ["mistral"]),
}


@pytest.mark.parametrize("case", MERGED)
async def test_merged_list(case, serve):
    routes, models, names = MERGED[case]
    expected = names + (["llama"] if case == "name that no upstream lists" else [])
    running, _ = await serve(routes, {"a": A, "b": B}, models=models)
    answer = await ask(running.port, get())
    assert (answer.status, names_of(answer)) == (200, expected)
    assert answer.field(b"content-type") == b"application/json"
    assert json.loads(answer.payload)["object"] == "list"


async def test_models_are_described_as_their_upstream_does(serve):
    running, _ = await serve(TWO, {"a": A, "b": B})
    models = json.loads((await ask(running.port, get())).payload)["data"]
    assert models == [record(name) for name in ("gpt-1", "gpt-2", "mistral", "llama")]


async def test_every_model_of_the_list_is_served_and_by_who_lists_it(serve):
    running, upstreams = await serve(TWO, {"a": A, "b": B})
    for name in names_of(await ask(running.port, get())):
        answer = await ask(running.port, post(json.dumps({"model": name}).encode()))
        lists = names_of(await ask(upstreams[answer.field(b"x-serinus-upstream").decode()].port, get()))
        assert name in lists


async def test_names_that_members_have_of_their_own_are_not_shown(scripted, proxy):
    upstream = await scripted(answering(listing("inner-1")))
    running = await proxy(
        f"""
clients: [{{name: tester, key: client-key}}]
upstreams: {{a: {{base_url: '{upstream.url}'}}}}
pools: {{a: {{members: [{{upstream: a, model: inner-1}}]}}}}
routes: [{{prefix: /v1, model: gpt-1, pool: a}}, {{prefix: /v1, model: 'x-*', pool: a}}]
"""
    )
    assert names_of(await ask(running.port, get())) == ["gpt-1"]
    assert upstream.requests == []


# --- whose list it is ----------------------------------------------------------------------------------------------

ODD = b'{ "data":[\n{"id":"gpt-1"} ], "object":"list", "own":1.50 }'


@pytest.mark.parametrize(
    "request_bytes",
    [get(), get(b"/v1/models?limit=2"), get().replace(b"GET", b"HEAD"), get(b"/v1/models/gpt-1"), get(b"/v1/files")],
)
async def test_one_route_for_all_passes_its_upstreams_answer_on(serve, request_bytes):
    running, upstreams = await serve(("prefix: /v1, pool: a",), {"a": whole(ODD)})
    answer = await ask(running.port, request_bytes)
    assert answer.payload == (b"" if request_bytes.startswith(b"HEAD") else ODD)
    assert answer.field(b"x-serinus-upstream") == b"a"
    assert upstreams["a"].requests[0].line == request_bytes.partition(b"\r\n")[0]


async def test_list_is_asked_for_as_its_upstream_wants_it(serve):
    more = ", headers: {x-org: mine}, query: {api-version: '1'}"
    running, upstreams = await serve(TWO, {"a": A, "b": B}, upstream=more)
    await ask(running.port, get(b"/v1/models?limit=1&own=2", fields=b"X-Own: 1\r\nAccept-Encoding: gzip, br\r\n"))
    for name, upstream in upstreams.items():
        (request,) = upstream.requests
        assert request.line == b"GET /v1/models?api-version=1 HTTP/1.1"
        assert request.field(b"authorization") == b"Bearer key-" + name.encode()
        assert request.field(b"x-org") == b"mine"
        assert request.field(b"accept-encoding") is request.field(b"x-own") is None
        assert b"client-key" not in request.raw_head


async def test_callers_own_key_is_used_where_there_is_no_other(scripted, proxy):
    upstream = await scripted(answering(A))
    running = await proxy(
        f"""
clients: [{{name: tester, key: client-key}}]
upstreams: {{a: {{base_url: '{upstream.url}'}}}}
pools: {{a: {{members: [{{upstream: a}}]}}}}
routes: [{{prefix: /v1, model: 'gpt-*', pool: a}}]
"""
    )
    fields = b"X-Serinus-Key: client-key\r\nAuthorization: Bearer sk-own\r\n"
    await ask(running.port, b"GET /v1/models HTTP/1.1\r\nHost: a\r\n%b\r\n" % fields)
    assert upstream.requests[0].field(b"authorization") == b"Bearer sk-own"
    assert b"client-key" not in upstream.requests[0].raw_head


async def test_route_with_a_shorter_prefix_is_asked_where_a_caller_would_ask(serve):
    routes = ("prefix: /v1, model: 'gpt-*', pool: a", "prefix: /, pool: b")
    running, upstreams = await serve(routes, {"a": A, "b": B})
    await ask(running.port, get())
    assert [upstreams[name].requests[0].line for name in "ab"] == [
        b"GET /v1/models HTTP/1.1",
        b"GET /v1/v1/models HTTP/1.1",  # of the route at /, whose base_url has a /v1 of its own
    ]


async def test_list_behind_a_route_for_everything_is_held_too(serve):
    running, _ = await serve(("prefix: /, pool: a",), {"a": A}, models="'gpt-*'")
    assert names_of(await ask(running.port, get(b"/v1/models"))) == ["gpt-1", "gpt-2"]


# --- upstreams that do not answer ----------------------------------------------------------------------------------

NO_LISTS = {
    "500": whole(b"{}", status=b"500 Oops"),
    "401": whole(b"{}", status=b"401 No"),
    "404": whole(b'{"data":[{"id":"gpt-9"}]}', status=b"404 No"),
    "redirect": whole(b"", status=b"302 Found", fields=b"Location: /v1/models\r\n"),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "no JSON": whole(b"<html>"),
    "cut JSON": whole(b'{"data":[{"id":"gpt-9"}'),
    "no object": whole(b'["gpt-9"]'),
    "no data": whole(b'{"models":[]}'),
    "data that is no list": whole(b'{"data":{"id":"gpt-9"}}'),
    "data that is null": whole(b'{"data":null}'),
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "conflicting lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "gzip": whole(b"\x1f\x8b\x08", fields=b"Content-Encoding: gzip\r\n"),
    "closes at once": answering_then_closing(),
    "closes within": answering_then_closing(A[:-5]),
    "resets": None,
    "far too much": whole(b'{"data":[' + b" " * (5 << 20) + b"]}"),
}


async def resetting(talk):
    await talk.request()
    talk.reset()


@pytest.mark.parametrize("name", NO_LISTS)
async def test_upstream_without_a_list_is_left_out(name, serve):
    running, _ = await serve(TWO, {"a": NO_LISTS[name] or resetting, "b": B})
    answer = await ask(running.port, get())
    assert (answer.status, names_of(answer)) == (200, ["mistral", "llama"])


@pytest.mark.parametrize("name", NO_LISTS)
async def test_without_any_list_there_is_an_error(name, serve):
    script = NO_LISTS[name] or resetting
    running, _ = await serve(TWO, {"a": script, "b": script})
    answer = await ask(running.port, get())
    assert answer.status == 502
    assert "list" in json.loads(answer.payload)["error"]["message"]
    await running.until_logged()
    assert running.requests_logged[0]["status"] == 502


async def test_upstream_that_is_not_there_is_left_out(serve):
    running, upstreams = await serve(TWO, {"a": A, "b": B})
    await upstreams["a"].stop()
    assert names_of(await ask(running.port, get())) == ["mistral", "llama"]


async def test_upstream_that_never_answers_is_left_out(scripted, proxy):
    async def silent(talk):
        await talk.request()
        await talk.gone()

    hangs, answers = await scripted(silent), await scripted(answering(B))
    urls = {"a": hangs.url, "b": answers.url}
    text = config(*TWO, urls=urls).replace("key-a}]", "key-a}], timeouts: {first_byte: 10ms}")
    running = await proxy(text)
    assert names_of(await ask(running.port, get())) == ["mistral", "llama"]
    await running.until(lambda: hangs.open == 0)


@pytest.mark.parametrize("odd", [{}, {"id": 1}, "gpt-9", None, [], {"name": "gpt-9"}, {"id": None}])
async def test_what_is_no_model_is_left_out(odd, serve):
    body = json.dumps({"data": [odd, record("gpt-1")]}).encode()
    running, _ = await serve(TWO, {"a": whole(body), "b": B})
    assert names_of(await ask(running.port, get())) == ["gpt-1", "mistral", "llama"]


BODY = A.partition(b"\r\n\r\n")[2]
WAYS = {
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n"
    % (BODY[:5], len(BODY) - 5, BODY[5:]),
    "until close": b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
    "behind an interim answer": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + A,
}


@pytest.mark.parametrize("way", WAYS)
async def test_list_is_read_however_it_is_framed(way, serve):
    running, _ = await serve(TWO, {"a": answering_then_closing(WAYS[way]), "b": B})
    assert names_of(await ask(running.port, get())) == ["gpt-1", "gpt-2", "mistral", "llama"]


# --- Anthropic's form ----------------------------------------------------------------------------------------------

ANTHROPIC = b"anthropic-version: 2023-06-01\r\nanthropic-beta: x\r\n"


async def test_anthropics_form_is_for_anthropics_callers(serve):
    running, upstreams = await serve(TWO, {"a": A, "b": B})
    answer = await ask(running.port, get(b"/v1/models?limit=1", fields=ANTHROPIC))
    shown = json.loads(answer.payload)
    assert (shown["has_more"], shown["first_id"], shown["last_id"]) == (False, "gpt-1", "llama")
    assert names_of(answer) == ["gpt-1", "gpt-2", "mistral", "llama"]
    assert "object" not in shown
    request = upstreams["a"].requests[0]
    assert request.line == b"GET /v1/models?limit=1000 HTTP/1.1"
    assert request.field(b"anthropic-version") == b"2023-06-01"
    assert request.field(b"anthropic-beta") == b"x"


async def test_empty_list_in_anthropics_form_has_no_ends(serve):
    running, _ = await serve(("prefix: /v1, pool: a",), {"a": A}, models="nothing")
    shown = json.loads((await ask(running.port, get(fields=ANTHROPIC))).payload)
    assert shown == {"data": [], "has_more": False, "first_id": None, "last_id": None}


async def test_name_that_is_spelt_out_is_described_in_the_form_asked_for(serve):
    routes = ("prefix: /v1, model: mine, pool: a", "prefix: /v1, model: 'gpt-*', pool: a")
    running, _ = await serve(routes, {"a": A})
    openais = json.loads((await ask(running.port, get())).payload)["data"][0]
    anthropics = json.loads((await ask(running.port, get(fields=ANTHROPIC))).payload)["data"][0]
    assert {"id", "object", "created", "owned_by"} <= openais.keys()
    assert {"id", "type", "display_name", "created_at"} <= anthropics.keys()


async def test_error_has_anthropics_form_too(serve):
    running, _ = await serve(TWO, {"a": NO_LISTS["500"], "b": NO_LISTS["500"]})
    answer = await ask(running.port, get(fields=ANTHROPIC))
    assert (answer.status, json.loads(answer.payload)["type"]) == (502, "error")


# --- a request like any other --------------------------------------------------------------------------------------


async def test_list_is_for_clients_only(serve):
    running, upstreams = await serve(TWO, {"a": A, "b": B})
    assert (await ask(running.port, get().replace(CLIENT, b""))).status == 401
    assert upstreams["a"].requests == upstreams["b"].requests == []


async def test_list_has_its_request_id_and_is_logged(serve):
    running, upstreams = await serve(TWO, {"a": A, "b": B})
    answer = await ask(running.port, get(fields=b"X-Request-Id: mine-1\r\n"))
    assert answer.field(b"x-request-id") == b"mine-1"
    assert {one.requests[0].field(b"x-request-id") for one in upstreams.values()} == {b"mine-1"}
    await running.until_logged()
    logged = running.requests_logged[0]
    assert (logged["path"], logged["status"], logged["client"]) == ("/v1/models", 200, "tester")


async def test_connection_goes_on_behind_a_list(serve):
    running, _ = await serve(TWO, {"a": A, "b": B})
    caller = await RawCaller.connect(running.port)
    await caller.send(post(b'{"model":"x"}') + get() + get() + post(b'{"model":"gpt-1"}'))
    answers = [await caller.answer() for _ in range(4)]
    assert [one.field(b"x-serinus-upstream") for one in answers] == [b"b", None, None, b"a"]
    assert names_of(answers[1]) == names_of(answers[2]) == ["gpt-1", "gpt-2", "mistral", "llama"]


@pytest.mark.parametrize("size", [1, 100_000])
async def test_body_that_comes_with_it_is_not_taken_for_a_request(size, serve):
    running, upstreams = await serve(TWO, {"a": A, "b": B})
    caller = await RawCaller.connect(running.port)
    hidden = post(b'{"model":"hidden"}') * size
    await caller.send(get(fields=b"Content-Length: %d\r\n" % len(hidden)))
    assert names_of(await caller.answer()) == ["gpt-1", "gpt-2", "mistral", "llama"]
    await caller.send(hidden[:50_000])
    caller.writer.write_eof()
    assert b"200 OK" not in await caller.read_rest()
    assert [request.line for one in upstreams.values() for request in one.requests] == [b"GET /v1/models HTTP/1.1"] * 2


@pytest.mark.parametrize("ends", ["caller", "proxy"])
async def test_list_that_nobody_waits_for_any_more_leaves_nothing(ends, scripted, proxy):
    async def silent(talk):
        await talk.request()
        await talk.gone()

    upstream = await scripted(silent)
    running = await proxy(config(*TWO, urls={"a": upstream.url, "b": upstream.url}))
    caller = await RawCaller.connect(running.port)
    await caller.send(get())
    await upstream.until(lambda: len(upstream.requests) == 2)
    assert running.inflight() == 2
    if ends == "caller":
        caller.close()
        await running.until(lambda: running.inflight() == 0)
    else:
        await running.stop()
    await running.until(lambda: upstream.open == 0)


async def test_lists_are_of_the_configuration_that_is_in_force(scripted, proxy, tmp_path):
    upstream = await scripted(answering(A))
    file = tmp_path / "serinus.yaml"
    top = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\n"
    running = await proxy(top + config(*TWO, urls={"a": upstream.url, "b": upstream.url}), path=file)
    caller = await RawCaller.connect(running.port)
    await caller.send(get())
    assert names_of(await caller.answer()) == ["gpt-1", "gpt-2", "o-1"]
    file.write_text(top + config("prefix: /v1, model: 'o-*', pool: a", urls={"a": upstream.url}))
    await running.serinus.reloader.reload()
    await caller.send(get())
    assert names_of(await caller.answer()) == ["o-1"]


async def test_many_ask_at_once(serve):
    running, _ = await serve(TWO, {"a": A, "b": B})
    answers = await asyncio.gather(*(ask(running.port, get()) for _ in range(50)))
    assert {tuple(names_of(answer)) for answer in answers} == {("gpt-1", "gpt-2", "mistral", "llama")}


async def test_page_may_read_the_list(scripted, proxy):
    upstream = await scripted(answering(A))
    text = config_for(upstream.url, top="cors: {origins: ['https://app.example']}", route="model: 'gpt-*'")
    answer = await ask((await proxy(text)).port, get(fields=b"Origin: https://app.example\r\n"))
    assert (answer.status, answer.field(b"access-control-allow-origin")) == (200, b"https://app.example")
