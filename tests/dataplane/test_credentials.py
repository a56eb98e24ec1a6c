"""Who may call, and whose credential the upstream sees. Raw on both sides: an SDK would hide what else is sent."""

from hashlib import sha256

import pytest

from tests.support.raw import ask
from tests.support.running import config_for
from tests.support.scripted import answering, whole

CREDENTIAL_FIELDS = (b"authorization", b"x-api-key", b"api-key", b"x-serinus-key", b"proxy-authorization")
ENOUGH = {
    "bearer": b"Authorization: Bearer client-key\r\n",
    "scheme in any case": b"authorization: bEARER client-key\r\n",
    "more blanks": b"Authorization: Bearer   client-key  \r\n",
    "anthropic": b"X-Api-Key: client-key\r\n",
    "azure": b"api-key: client-key\r\n",
    "ours": b"X-Serinus-Key: client-key\r\n",
    "ours beside another's": b"Authorization: Bearer sk-own\r\nX-Serinus-Key: client-key\r\n",
    "the second of two": b"Authorization: Bearer sk-own\r\nAuthorization: Bearer client-key\r\n",
    "in another field than a wrong one": b"X-Serinus-Key: wrong\r\nx-api-key: client-key\r\n",
    "twice": b"Authorization: Bearer client-key\r\nx-api-key: client-key\r\n",
}
NOT_ENOUGH = {
    "none": b"",
    "wrong": b"Authorization: Bearer client-kez\r\n",
    "a part": b"Authorization: Bearer client-ke\r\n",
    "more": b"Authorization: Bearer client-key1\r\n",
    "two in one": b"Authorization: Bearer client-key client-key\r\n",
    "a list": b"Authorization: Bearer client-key, Bearer client-key\r\n",
    "other case": b"Authorization: Bearer Client-Key\r\n",
    "no scheme": b"Authorization: client-key\r\n",
    "no blank": b"Authorization: Bearerclient-key\r\n",
    "basic": b"Authorization: Basic client-key\r\n",
    "no key": b"Authorization: Bearer\r\n",
    "blank key": b"Authorization: Bearer  \r\n",
    "empty field": b"x-api-key:\r\n",
    "a scheme where none belongs": b"x-api-key: Bearer client-key\r\n",
    "in a field of no such meaning": b"Proxy-Authorization: Bearer client-key\r\nCookie: key=client-key\r\n",
    "8-bit": b"Authorization: Bearer client-key\xff\r\n",
}


def call(fields=b"", target=b"/v1/models"):
    return b"GET %b HTTP/1.1\r\nHost: proxy\r\n%b\r\n" % (target, fields)


def credentials(request):
    """What the upstream received that may be a credential."""
    return [(name, value) for name, value in request.fields if name.lower() in CREDENTIAL_FIELDS]


@pytest.fixture
async def upstream(scripted):
    return await scripted(answering(whole(b"{}")))


# --- who may call ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", ENOUGH.values(), ids=ENOUGH)
async def test_client_is_known_by_its_key_in_any_usual_field(upstream, proxy, fields):
    running = await proxy(config_for(upstream.url))
    assert (await ask(running.port, call(fields))).status == 200
    assert running.requests_logged[0]["client"] == "tester"
    assert credentials(upstream.requests[0]) == [(b"authorization", b"Bearer upstream-key-0")]


@pytest.mark.parametrize("fields", NOT_ENOUGH.values(), ids=NOT_ENOUGH)
async def test_nothing_else_gets_in(upstream, proxy, fields):
    running = await proxy(config_for(upstream.url))
    answer = await ask(running.port, call(fields))
    assert (answer.status, b'"code":"invalid_api_key"' in answer.payload) == (401, True)
    assert b"client-ke" not in answer.payload
    assert upstream.connections == 0


async def test_refused_caller_may_try_again_on_its_connection(upstream, proxy):
    running = await proxy(config_for(upstream.url))
    answer = await ask(running.port, call())
    assert answer.field(b"connection") is None


async def test_everyone_may_call_where_no_clients_are_listed(upstream, proxy):
    running = await proxy(config_for(upstream.url, clients=False))
    assert (await ask(running.port, call())).status == 200
    assert running.requests_logged[0]["client"] is None


@pytest.mark.parametrize("spelling", ["hex", "upper", "list"])
async def test_a_hash_knows_its_key(upstream, proxy, spelling):
    digest = sha256(b"client-key").hexdigest()
    written = {"hex": f"sha256:{digest}", "upper": f"sha256:{digest.upper()}", "list": f"['sha256:{digest}']"}
    top = f"clients: [{{name: hashed, key_hash: {written[spelling]}}}]"
    running = await proxy(config_for(upstream.url, clients=False, top=top))
    assert (await ask(running.port, call(ENOUGH["bearer"]))).status == 200
    assert (await ask(running.port, call(b"x-api-key: %b\r\n" % digest.encode()))).status == 401


async def test_the_hash_of_nothing_lets_nobody_in(upstream, proxy):
    top = f"clients: [{{name: mistake, key_hash: sha256:{sha256(b'').hexdigest()}}}]"
    running = await proxy(config_for(upstream.url, clients=False, top=top))
    for fields in (b"", b"Authorization: Bearer \r\n", b"Authorization: Basic eDp5\r\n", b"x-api-key:\r\n"):
        assert (await ask(running.port, call(fields))).status == 401


async def test_clients_have_several_keys_and_names_of_their_own(upstream, proxy):
    digest = sha256(b"four").hexdigest()
    top = f"clients: [{{name: a, keys: [one, two]}}, {{name: b, key: three, key_hash: sha256:{digest}}}]"
    running = await proxy(config_for(upstream.url, clients=False, top=top))
    for key in (b"one", b"two", b"three", b"four"):
        assert (await ask(running.port, call(b"api-key: %b\r\n" % key))).status == 200
    assert [line["client"] for line in running.requests_logged] == ["a", "a", "b", "b"]


async def test_key_beyond_ascii_is_compared_as_utf_8(upstream, proxy):
    running = await proxy(config_for(upstream.url, clients=False, top="clients: [{name: a, key: 'schlüssel'}]"))
    assert (await ask(running.port, call(b"x-api-key: %b\r\n" % "schlüssel".encode()))).status == 200
    assert (await ask(running.port, call(b"x-api-key: schl\xfcssel\r\n"))).status == 401


# --- what the upstream sees --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (b"X-Serinus-Key: client-key\r\nAuthorization: Bearer sk-own\r\n", [(b"authorization", b"Bearer sk-own")]),
        (b"X-Serinus-Key: client-key\r\nX-API-Key: sk-own\r\n", [(b"x-api-key", b"sk-own")]),
        (b"Authorization: Bearer client-key\r\nX-API-Key: sk-own\r\n", [(b"x-api-key", b"sk-own")]),
        (b"Authorization: Bearer sk-own\r\nX-API-Key: client-key\r\n", [(b"authorization", b"Bearer sk-own")]),
        (b"Authorization: Bearer client-key\r\nX-API-Key: client-key\r\n", []),
        (b"Authorization: Bearer client-key\r\nAuthorization: bearer  client-key\r\n", []),
        (b"X-Serinus-Key: client-key\r\nAuthorization: Bearer client-key\r\napi-key: client-key\r\n", []),
        (b"X-Serinus-Key: client-key\r\nX-Serinus-Key: sk-own\r\n", []),
    ],
)
async def test_callers_own_credential_passes_and_its_client_key_never_does(upstream, proxy, sent, seen):
    running = await proxy(config_for(upstream.url, keys=False))
    assert (await ask(running.port, call(sent))).status == 200
    assert credentials(upstream.requests[0]) == seen


async def test_callers_credentials_pass_as_they_are_where_nobody_is_asked(upstream, proxy):
    running = await proxy(config_for(upstream.url, keys=False, clients=False))
    await ask(running.port, call(b"Authorization: Basic eDp5\r\nX-Api-Key: sk-own\r\nX-Serinus-Key: k\r\n"))
    assert credentials(upstream.requests[0]) == [(b"authorization", b"Basic eDp5"), (b"x-api-key", b"sk-own")]


@pytest.mark.parametrize(
    ("auth", "line"),
    [
        ("bearer", (b"authorization", b"Bearer upstream-key-0")),
        ("x-api-key", (b"x-api-key", b"upstream-key-0")),
        ("api-key", (b"api-key", b"upstream-key-0")),
        ("{header: X-Goog-Api-Key}", (b"x-goog-api-key", b"upstream-key-0")),
        ("{header: authorization, prefix: 'Token '}", (b"authorization", b"Token upstream-key-0")),
    ],
)
async def test_our_key_goes_where_the_upstream_wants_it(upstream, proxy, auth, line):
    running = await proxy(config_for(upstream.url, upstream=f"auth: {auth}"))
    await ask(running.port, call(ENOUGH["bearer"] + b"x-goog-api-key: own\r\nX-Api-Key: own\r\napi-key: own\r\n"))
    (request,) = upstream.requests
    assert [pair for pair in request.fields if pair[0] == line[0] or pair in credentials(request)] == [line]
    assert b"client-key" not in request.raw_head


async def test_configured_headers_replace_the_callers(upstream, proxy):
    extra = "headers: {OpenAI-Organization: org-1, x-team: search}"
    running = await proxy(config_for(upstream.url, upstream=extra))
    await ask(running.port, call(ENOUGH["bearer"] + b"OPENAI-ORGANIZATION: org-2\r\nX-Own: 1\r\n"))
    (request,) = upstream.requests
    assert request.field(b"openai-organization") == b"org-1"
    assert (request.field(b"x-team"), request.field(b"x-own")) == (b"search", b"1")


async def test_a_configured_credential_replaces_the_callers(upstream, proxy):
    extra = "headers: {authorization: Bearer fixed}"
    running = await proxy(config_for(upstream.url, keys=False, clients=False, upstream=extra))
    await ask(running.port, call(b"Authorization: Bearer sk-own\r\n"))
    assert credentials(upstream.requests[0]) == [(b"authorization", b"Bearer fixed")]


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (b"/v1/models", b"/v1/models?api-version=2026-01-01&a%20b=%26"),
        (b"/v1/models?limit=2", b"/v1/models?limit=2&api-version=2026-01-01&a%20b=%26"),
        (b"/v1?x", b"/v1?x&api-version=2026-01-01&a%20b=%26"),
    ],
)
async def test_configured_query_joins_the_callers(upstream, proxy, asked, sent):
    running = await proxy(config_for(upstream.url, upstream="query: {api-version: 2026-01-01, 'a b': '&'}"))
    await ask(running.port, call(ENOUGH["bearer"], asked))
    assert upstream.requests[0].line == b"GET %b HTTP/1.1" % sent


# --- which of our keys -------------------------------------------------------------------------------------------


def keys_config(url, member=""):
    keys = "[{name: a, value: key-a, weight: 3}, {name: b, value: key-b}]"
    return f"""
upstreams: {{up: {{base_url: '{url}', keys: {keys}}}}}
pools: {{chat: {{members: [{{upstream: up, {member}}}]}}}}
routes: [{{prefix: /v1, pool: chat}}]
"""


async def keys_used(upstream, running, requests):
    for _ in range(requests):
        await ask(running.port, call())
    return [request.field(b"authorization").removeprefix(b"Bearer key-").decode() for request in upstream.requests]


async def test_keys_take_turns_by_weight(upstream, proxy):
    running = await proxy(keys_config(upstream.url))
    assert "".join(await keys_used(upstream, running, 8)) == "aabaaaba"
    assert [line["key"] for line in running.requests_logged] == list("aabaaaba")


async def test_member_with_a_key_uses_no_other(upstream, proxy):
    running = await proxy(keys_config(upstream.url, "key: b"))
    assert "".join(await keys_used(upstream, running, 4)) == "bbbb"
