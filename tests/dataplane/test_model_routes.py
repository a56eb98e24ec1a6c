"""Which route a named model takes, wherever it is named; and that a client held to some models gets at no other."""

import gzip
import json

import pytest

from tests.support.raw import CLIENT, RawCaller, ask, get, post
from tests.support.scripted import answering, whole

OK = whole(b"{}")
TUNNEL = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def form(*parts, boundary=b"b0"):
    lines = [b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (boundary, *part) for part in parts]
    return b"".join(lines) + b"--%b--\r\n" % boundary


FORM = b"Content-Type: multipart/form-data; boundary=b0\r\n"
JSON = b"Content-Type: application/json\r\n"


def chunked(request):
    """The same request with its body in chunks."""
    head, _, body = request.partition(b"\r\n\r\n")
    head = head.replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
    return head + b"\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"


def named(model):
    return b'{"model":"%b"}' % model


def tunnel(target, fields=b""):
    return get(target, fields=TUNNEL + fields)


# --- by which route ------------------------------------------------------------------------------------------------

ROUTED: dict[str, tuple[bytes, str]] = {
    "body": (post(named(b"gpt-1")), "gpt"),
    "body, in chunks": (chunked(post(named(b"org/x"))), "org"),
    "body of another": (post(named(b"llama")), "rest"),
    "form": (post(form((b"file", b"x"), (b"model", b"gpt-1")), fields=FORM), "gpt"),
    "record": (get(b"/v1/models/gpt-1"), "gpt"),
    "record of another": (get(b"/v1/models/llama"), "rest"),
    "record, its name encoded": (get(b"/v1/models/%67pt-1"), "gpt"),
    "record, its slash encoded": (get(b"/v1/models/org%2Fx"), "org"),
    "record with a slash": (get(b"/v1/models/org/x"), "org"),
    "record with colons": (get(b"/v1/models/org:a:b"), "org"),
    "record with a query": (get(b"/v1/models/gpt-1?x=1"), "gpt"),
    "record, deleted": (get(b"/v1/models/gpt-1").replace(b"GET", b"DELETE"), "gpt"),
    "record, its head": (get(b"/v1/models/gpt-1").replace(b"GET", b"HEAD"), "gpt"),
    "deployment": (post(b'{"messages":[]}', target=b"/v1/openai/deployments/gpt-1/chat/completions"), "gpt"),
    "deployment without a body": (get(b"/v1/openai/deployments/org/x"), "org"),
    "engine": (post(b"{}", target=b"/v1/engines/gpt-1/completions"), "gpt"),
    "google": (post(b'{"contents":[]}', target=b"/v1/models/gpt-1:generateContent"), "gpt"),
    "google, streamed": (post(b"{}", target=b"/v1/models/gpt-1:streamGenerateContent?alt=sse"), "gpt"),
    "google, its colon encoded": (post(b"{}", target=b"/v1/models/gpt-1%3AgenerateContent"), "gpt"),
    "realtime": (get(b"/v1/realtime?model=gpt-1"), "gpt"),
    "realtime of another": (get(b"/v1/realtime?intent=x&model=llama"), "rest"),
    "body before path": (post(named(b"org/x"), target=b"/v1/deployments/gpt-1/chat/completions"), "org"),
    "absolute target": (get(b"http://elsewhere/v1/models/gpt-1"), "gpt"),
    "no model": (post(b"{}"), "rest"),
    "no body": (get(b"/v1/files"), "rest"),
}


@pytest.fixture
async def routed(scripted, proxy):
    upstream = await scripted(answering(OK))
    names = ("gpt", "org", "rest")
    upstreams = "\n".join(f"  {name}: {{base_url: '{upstream.url}'}}" for name in names)
    pools = "\n".join(f"  {name}: {{members: [{{upstream: {name}}}]}}" for name in names)
    return await proxy(
        f"""
clients: [{{name: tester, key: client-key}}]
upstreams:
{upstreams}
pools:
{pools}
routes:
  - {{prefix: /v1, model: 'gpt-*', pool: gpt}}
  - {{prefix: /v1, model: 'org*', pool: org}}
  - {{prefix: /v1, pool: rest}}
"""
    )


@pytest.mark.parametrize("case", ROUTED)
async def test_route_by_the_name(case, routed):
    request, upstream = ROUTED[case]
    answer = await ask(routed.port, request)
    assert (answer.status, answer.field(b"x-serinus-upstream")) == (200, upstream.encode())


async def test_tunnel_takes_the_route_of_its_model(scripted, proxy):
    async def script(talk):
        await talk.request()
        await talk.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        await talk.gone()

    first, second = await scripted(script), await scripted(script)
    running = await proxy(
        f"""
clients: [{{name: tester, key: client-key}}]
upstreams: {{first: {{base_url: '{first.url}'}}, second: {{base_url: '{second.url}'}}}}
pools: {{first: {{members: [{{upstream: first}}]}}, second: {{members: [{{upstream: second}}]}}}}
routes: [{{prefix: /v1, model: 'gpt-*', pool: first}}, {{prefix: /v1, model: 'x-*', pool: second}}]
"""
    )
    for name, upstream in ((b"x-1", b"second"), (b"gpt-1", b"first")):
        answer = await ask(running.port, tunnel(b"/v1/realtime?model=" + name))
        assert (answer.status, answer.field(b"x-serinus-upstream")) == (101, upstream)
    assert (await ask(running.port, tunnel(b"/v1/realtime?model=other"))).status == 404


# --- held to some --------------------------------------------------------------------------------------------------

MAY = named(b"mine-1")
COMPLETIONS = b"/completions"

ALLOWED: dict[str, bytes] = {
    "body": post(MAY),
    "body, in chunks": chunked(post(MAY)),
    "body beside other fields": post(b'{"n":1,"model":"mine-2","x":{"model":"other"}}'),
    "name in escapes": post(b'{"model":"\\u006dine-1"}'),
    "said to be UTF-8": post(MAY, fields=b"Content-Type: application/json; charset=UTF-8\r\n"),
    "not compressed": post(MAY, fields=b"Content-Encoding: identity\r\n"),
    "form": post(form((b"model", b"mine-1"), (b"file", b"x")), fields=FORM),
    "record": get(b"/v1/models/mine-1"),
    "record, its name encoded": get(b"/v1/models/%6dine-1"),
    "record with a slash": get(b"/v1/models/mine-org/x"),
    "record with its slash encoded": get(b"/v1/models/mine-org%2Fx"),
    "record with a colon": get(b"/v1/models/mine-ft:x"),
    "deployment": post(MAY, target=b"/v1/openai/deployments/mine-1/chat/completions?api-version=1"),
    "google": post(b'{"contents":[]}', target=b"/v1/models/mine-1:generateContent"),
    "no body": get(b"/v1/responses/resp_1"),
    "delete": get(b"/v1/responses/resp_1").replace(b"GET", b"DELETE"),
    "cancel": post(b"", target=b"/v1/responses/resp_1/cancel"),
    "query and body": post(MAY, target=b"/v1/x?model=mine-1"),
}

REFUSED: dict[str, bytes] = {
    "other model": post(named(b"other")),
    "other model, in chunks": chunked(post(named(b"other"))),
    "in other letters": post(named(b"MINE-1")),
    "blank before": post(named(b" mine-1")),
    "prefix before": post(named(b"openai/mine-1")),
    "no model": post(b'{"messages":[]}'),
    "null": post(b'{"model":null}'),
    "list": post(b'{"model":["mine-1","other"]}'),
    "twice": post(b'{"model":"mine-1","model":"other"}'),
    "twice, once in capitals": post(b'{"model":"mine-1","Model":"other"}'),
    "twice, once in escapes": post(b'{"model":"mine-1","mode\\u006c":"other"}'),
    "fallbacks": post(b'{"model":"mine-1","models":["other"]}'),
    "fallbacks, key in escapes": post(b'{"model":"mine-1","model\\u0073":["other"]}'),
    "fallbacks, in capitals": post(b'{"model":"mine-1","Models":["other"]}'),
    "fallbacks by another name": post(b'{"model":"mine-1","fallbacks":[{"model":"other"}]}'),
    "no JSON": post(b"model=mine-1"),
    "UTF-16": post('{"model":"mine-1"}'.encode("utf-16")),
    "UTF-7": post(
        b'{"model":"mine-1","+AG0AbwBkAGUAbA-":"other"}',
        fields=b"Content-Type: application/json; charset=utf-7\r\n",
    ),
    "UTF-7, quoted": post(MAY, fields=b'Content-Type: application/json; x=y; Charset="UTF-7"\r\n'),
    "compressed": post(gzip.compress(MAY), fields=b"Content-Encoding: gzip\r\n"),
    "said to be compressed": post(MAY, fields=b"Content-Encoding: deflate\r\n"),
    "compressed, then not": post(MAY, fields=b"Content-Encoding: deflate\r\nContent-Encoding: identity\r\n"),
    "not compressed, then so": post(MAY, fields=b"Content-Encoding: identity\r\nContent-Encoding: br\r\n"),
    "form, as plain text": post(MAY, fields=b"Content-Type: text/plain\r\n"),
    "urlencoded": post(b"model=mine-1", fields=b"Content-Type: application/x-www-form-urlencoded\r\n"),
    "two content types": post(
        b'{"model":"mine-1","x":"&model=other&"}',
        fields=b"Content-Type: application/x-www-form-urlencoded\r\n" + JSON,
    ),
    "two content types, JSON first": post(form((b"model", b"mine-1")), fields=JSON + FORM),
    "form with another": post(form((b"model", b"other"), (b"file", b"x")), fields=FORM),
    "form with two": post(form((b"model", b"mine-1"), (b"model", b"other")), fields=FORM),
    "form with none": post(form((b"file", b"x")), fields=FORM),
    "form of another boundary": post(form((b"model", b"mine-1"), boundary=b"b1"), fields=FORM),
    "body of a GET": get(b"/v1/chat/completions", fields=b"Content-Length: 17\r\n") + named(b"other"),
    "body of a GET for a POST": (
        get(b"/v1/chat/completions", fields=b"X-HTTP-Method-Override: POST\r\nContent-Length: 17\r\n") + named(b"other")
    ),
    "method in lower case": post(named(b"other")).replace(b"POST", b"PUT", 1),
    "record": get(b"/v1/models/other"),
    "record, a slash behind": get(b"/v1/models/other/"),
    "record, its name encoded": get(b"/v1/models/%6fther"),
    "record, in capitals": get(b"/v1/MODELS/other"),
    "record, its path encoded": get(b"/v1/%6dodels/other"),
    "record, encoded twice": get(b"/v1/models/%256fther"),
    "record, two slashes": get(b"/v1//models/other"),
    "record, two slashes within": get(b"/v1/models//other"),
    "record behind a dot": get(b"/v1/models/./other"),
    "record behind one that is allowed": get(b"/v1/models/mine-1/../other"),
    "record with a slash": get(b"/v1/models/org/other"),
    "record with a slash, allowed behind": get(b"/v1/models/org/mine-1"),
    "record, its head": get(b"/v1/models/other").replace(b"GET", b"HEAD"),
    "record, deleted": get(b"/v1/models/other").replace(b"GET", b"DELETE"),
    "record, absolute": get(b"http://elsewhere/v1/models/other"),
    "record with parameters": get(b"/v1/models;x=y/other"),
    "deployment": post(MAY, target=b"/v1/deployments/other" + COMPLETIONS),
    "deployment, encoded": post(MAY, target=b"/v1/deployments/%6Fther" + COMPLETIONS),
    "deployment, in capitals": post(MAY, target=b"/v1/Deployments/other" + COMPLETIONS),
    "deployment, its path encoded": post(MAY, target=b"/v1/deployment%73/other" + COMPLETIONS),
    "deployment behind an encoded slash": post(MAY, target=b"/v1/deployments%2fother" + COMPLETIONS),
    "deployment behind a backslash": post(MAY, target=b"/v1/deployments\\other" + COMPLETIONS),
    "deployment behind two slashes": post(MAY, target=b"/v1/deployments//other" + COMPLETIONS),
    "deployment behind parameters": post(MAY, target=b"/v1/deployments;a=b/other" + COMPLETIONS),
    "deployment behind an allowed one": post(MAY, target=b"/v1/deployments/mine-1/../other" + COMPLETIONS),
    "the same, dots encoded": post(MAY, target=b"/v1/deployments/mine-1/%2e%2E/other" + COMPLETIONS),
    "the same, one dot encoded": post(MAY, target=b"/v1/deployments/mine-1/.%2e/other" + COMPLETIONS),
    "the same, behind parameters": post(MAY, target=b"/v1/deployments/mine-1/..;/other" + COMPLETIONS),
    "the same, encoded slash": post(MAY, target=b"/v1/deployments/mine-1/..%2fother" + COMPLETIONS),
    "the same, encoded twice": post(MAY, target=b"/v1/deployments/mine-1/%252e%252e/other" + COMPLETIONS),
    "two deployments": post(MAY, target=b"/v1/deployments/mine-1/deployments/other" + COMPLETIONS),
    "deployment without a body": get(b"/v1/deployments/other"),
    "engine": post(MAY, target=b"/v1/engines/other/completions"),
    "google": post(MAY, target=b"/v1/models/other:generateContent"),
    "google, its colon encoded": post(MAY, target=b"/v1/models/other%3agenerateContent"),
    "google, its path encoded": post(MAY, target=b"/v1/mod%65ls/other:generateContent"),
    "google behind an allowed one": post(MAY, target=b"/v1/models/mine-1:x/../other:generateContent"),
    "google, a tuned model": post(MAY, target=b"/v1/tunedModels/other:generateContent"),
    "google, an endpoint": post(MAY, target=b"/v1/projects/p/endpoints/7:generateContent"),
    "amazon": post(MAY, target=b"/v1/model/other/converse"),
    "google, by another method": (
        get(b"/v1/models/other:generateContent", fields=b"X-HTTP-Method-Override: POST\r\nContent-Length: 2\r\n")
        + b"{}"
    ),
    "query": post(MAY, target=b"/v1/x?model=other"),
    "query, encoded": post(MAY, target=b"/v1/x?%6dodel=%6Fther"),
    "query, in capitals": post(MAY, target=b"/v1/x?MODEL=other"),
    "query, twice": post(MAY, target=b"/v1/x?model=mine-1&model=other"),
    "query, twice behind a semicolon": post(MAY, target=b"/v1/x?model=mine-1;model=other"),
    "query, empty": post(MAY, target=b"/v1/x?model="),
    "query for a body of another kind": post(
        named(b"other"), target=b"/v1/x?model=mine-1", fields=b"Content-Type: text/plain\r\n"
    ),
    "query for a body of no kind": post(
        b"model=other", target=b"/v1/x?model=mine-1", fields=b"Content-Type: application/x-www-form-urlencoded\r\n"
    ),
    "query of a deployment": post(MAY, target=b"/v1/x?deployment=other"),
    "tunnel": tunnel(b"/v1/realtime?model=other"),
    "tunnel, encoded": tunnel(b"/v1/realtime?model=%6fther"),
    "tunnel, twice": tunnel(b"/v1/realtime?model=mine-1&model=other"),
    "tunnel, twice in other letters": tunnel(b"/v1/realtime?model=mine-1&Model=other"),
    "tunnel, twice behind a semicolon": tunnel(b"/v1/realtime?x=1;model=other&model=mine-1"),
    "tunnel without a model": tunnel(b"/v1/realtime?intent=transcription"),
    "tunnel with an empty one": tunnel(b"/v1/realtime?model="),
    "tunnel to a deployment": tunnel(b"/v1/realtime?model=mine-1&deployment=other"),
    "tunnel that names it within": tunnel(b"/v1/responses?model=mine-1"),
    "tunnel behind a slash": tunnel(b"/v1/responses?model=mine-1&x=/realtime"),
    "tunnel in capitals": tunnel(b"/v1/REALTIME?model=other"),
    "tunnel of another path": tunnel(b"/v1/deployments/other/realtime?model=mine-1"),
}


@pytest.fixture
async def upstream(scripted):
    async def script(talk):
        while True:
            request = await talk.request()
            if request.field(b"upgrade") is None:
                await talk.send(OK)
            else:
                await talk.send(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
                )

    return await scripted(script)


def held(url, *, models="'mine*'", route="prefix: /v1, pool: chat"):
    return f"""
clients: [{{name: held, key: client-key, models: [{models}]}}, {{name: free, key: free-key}}]
upstreams: {{up: {{base_url: '{url}', keys: [{{name: main, value: k}}]}}}}
pools: {{chat: {{members: [{{upstream: up}}]}}}}
routes: [{{{route}}}]
"""


@pytest.mark.parametrize("case", ALLOWED)
async def test_held_client_gets_at_its_models(case, upstream, proxy):
    running = await proxy(held(upstream.url))
    answer = await ask(running.port, ALLOWED[case])
    assert (answer.status, len(upstream.requests)) == (200, 1)


@pytest.mark.parametrize("case", REFUSED)
async def test_held_client_gets_at_no_other_model(case, upstream, proxy):
    running = await proxy(held(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(REFUSED[case])
    answer = await caller.answer(to_head=REFUSED[case].startswith(b"HEAD "))
    assert answer.status in (400, 403)
    assert upstream.requests == []


@pytest.mark.parametrize("case", [case for case, request in REFUSED.items() if request.endswith(b"}")])
async def test_nor_behind_a_request_that_was_allowed(case, upstream, proxy):
    running = await proxy(held(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(post(MAY))
    assert (await caller.answer()).status == 200
    await caller.send(REFUSED[case])
    assert (await caller.answer()).status in (400, 403)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "case", ["other model", "record", "deployment", "google", "query", "fallbacks", "no model", "compressed"]
)
async def test_another_client_is_not_held(case, upstream, proxy):
    running = await proxy(held(upstream.url))
    answer = await ask(running.port, REFUSED[case].replace(CLIENT, b"Authorization: Bearer free-key\r\n"))
    assert answer.status == 200


async def test_each_client_has_its_own_models_on_one_connection(upstream, proxy):
    running = await proxy(held(upstream.url))
    caller = await RawCaller.connect(running.port)
    for key, status in ((b"client-key", 403), (b"free-key", 200), (b"client-key", 403)):
        await caller.send(post(named(b"other")).replace(b"client-key", key))
        assert (await caller.answer()).status == status


async def test_tunnel_to_an_allowed_model_opens(upstream, proxy):
    running = await proxy(held(upstream.url))
    assert (await ask(running.port, tunnel(b"/v1/realtime?model=mine-1"))).status == 101


async def test_refusal_names_the_client_and_what_it_asked_for(upstream, proxy):
    running = await proxy(held(upstream.url))
    answer = await ask(running.port, post(named(b"other")))
    error = json.loads(answer.payload)["error"]
    assert answer.status == 403
    assert "'held'" in error["message"]
    assert "'other'" in error["message"]
    assert error["param"] == "model"


async def test_body_beyond_the_buffer_is_refused_where_its_model_must_be_known(upstream, proxy):
    running = await proxy(held(upstream.url, route="prefix: /v1, pool: chat, buffer: 1KiB"))
    caller = await RawCaller.connect(running.port)
    await caller.send(post(b'{"model":"mine-1","x":"%b"}' % (b"x" * 2**20)))
    assert (await caller.answer()).status == 413
    assert upstream.requests == []


GLOBS = {
    "exact": ("a.b", [b"a.b"], [b"axb", b"a.bc", b"xa.b", b"a.b\\n"]),
    "star": ("'a*'", [b"a", b"ab", b"a/b", b"a\\nb"], [b"ba", b"A"]),
    "one of": ("'m-[12]'", [b"m-1", b"m-2"], [b"m-3", b"m-12"]),
    "question mark": ("'m-?'", [b"m-1"], [b"m-", b"m-12"]),
    "several": ("a, 'b*'", [b"a", b"bc"], [b"ab", b"c"]),
}


@pytest.mark.parametrize("case", GLOBS)
async def test_globs_mean_all_of_a_name(case, upstream, proxy):
    models, allowed, refused = GLOBS[case]
    running = await proxy(held(upstream.url, models=models))
    answers = {name: (await ask(running.port, post(named(name)))).status for name in allowed + refused}
    assert answers == dict.fromkeys(allowed, 200) | dict.fromkeys(refused, 403)


# --- the list of models, for a client that is held -----------------------------------------------------------------

LISTS = {
    "plain": get(),
    "a query": get(b"/v1/models?limit=1"),
    "a slash behind": get(b"/v1/models/"),
    "two slashes": get(b"/v1//models"),
    "capitals": get(b"/v1/Models"),
    "encoded": get(b"/v1/%6dodels"),
    "a dot": get(b"/v1/./models"),
    "dots": get(b"/v1/x/../models"),
    "parameters": get(b"/v1/models;x"),
    "backslash": get(b"/v1\\models"),
    "absolute": get(b"http://elsewhere/v1/models"),
    "an empty body": get(fields=b"Content-Length: 0\r\n"),
    "an empty body in chunks": get(fields=b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n",
    "a body": get(fields=b"Content-Length: %d\r\n" % len(MAY)) + MAY,
    "an upgrade": tunnel(b"/v1/models"),
}


@pytest.mark.parametrize("case", LISTS)
async def test_held_client_sees_no_other_models_listed(case, scripted, proxy):
    upstream = await scripted(answering(whole(b'{"data":[{"id":"mine-1"},{"id":"other"}]}')))
    running = await proxy(held(upstream.url))
    answer = await ask(running.port, LISTS[case])
    assert b"other" not in answer.payload
    if answer.status == 200:
        assert json.loads(answer.payload)["data"] == [{"id": "mine-1"}]
    else:
        assert answer.status in (400, 403, 404)


async def test_plain_list_is_answered(scripted, proxy):
    upstream = await scripted(answering(whole(b'{"data":[{"id":"mine-1"},{"id":"other"}]}')))
    running = await proxy(held(upstream.url))
    assert (await ask(running.port, LISTS["plain"])).status == 200
