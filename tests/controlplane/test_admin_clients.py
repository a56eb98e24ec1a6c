"""Clients by the admin API: issued keys serve at once, end when they are to, and are kept, audited and never shown."""

import asyncio
import logging
from pathlib import Path

import httpx2
import openai
import pytest

from proxy.controlplane import audit
from proxy.model.client_keys import digest, is_well_formed
from proxy.model.quantities import moment_text
from tests.support.raw import Answer, RawCaller, ask
from tests.support.running import RunningProxy
from tests.support.scripted import Held, answering, whole

COMPLETION = b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[]}'
TOKENS = "admin: {listen: 127.0.0.1:0, tokens: [{name: ops, value: admin-token}]}\n"


def config(url: str, more: str = "", client: str = "") -> str:
    return f"""
clients: [{{name: web, key: client-key{client}}}]
upstreams: {{up: {{base_url: '{url}', keys: [{{name: main, value: k}}]}}}}
pools: {{chat: {{members: [{{upstream: up}}]}}}}
routes: [{{prefix: /v1, pool: chat}}]
{more}
"""


@pytest.fixture
def start(scripted, proxy):
    async def start(script=None, **options: str) -> RunningProxy:
        upstream = await scripted(script or answering(whole(COMPLETION)))
        return await proxy(config(upstream.url, **options))

    return start


async def call(running: RunningProxy, path: str, body: object = None, *, token: str = "") -> httpx2.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx2.AsyncClient(base_url=running.admin_url, trust_env=False, timeout=20, headers=headers) as client:
        return await client.request("GET" if body is None else "POST", path, json=body)


async def done(running: RunningProxy, path: str, body: object) -> dict:
    answer = await call(running, path, body)
    assert answer.is_success, answer.text
    assert (answer.json()["not_kept"], answer.json()["not_audited"]) == ("", "")
    return answer.json()


async def client(running: RunningProxy, name: str = "web") -> dict:
    found = (await call(running, "/clients")).json()["clients"]
    return next(each for each in found if each["name"] == name)


def request(key: str, body: bytes = b'{"model":"m"}') -> bytes:
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n"
    )
    return head % (key.encode(), len(body)) + body


async def tried(running: RunningProxy, key: str) -> Answer:
    return await ask(running.port, request(key))


async def status(running: RunningProxy, key: str) -> int:
    return (await tried(running, key)).status


def recorded(running: RunningProxy) -> list[audit.Entry]:
    path = running.serinus.recorder.audit.path
    assert audit.verify(path).first_broken is None
    return audit.read(path, 100)


async def test_issued_key_is_accepted_at_once_by_an_sdk(start):
    running = await start()
    issued = await done(running, "/clients/web/keys", {})
    assert is_well_formed(issued["key"])
    assert issued["key_hash"] == "sha256:" + digest(issued["key"].encode(), None).hex()
    assert issued["fingerprint"] == issued["key_hash"][7:15]
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=issued["key"], max_retries=0) as sdk:
        answer = await sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "Sing!"}])
    assert answer.id == "c"
    assert await status(running, "client-key") == 200


async def test_connection_that_is_open_already_knows_the_new_key_and_the_end_of_an_old_one(start):
    running = await start()
    caller = await RawCaller.connect(running.port)
    await caller.send(request("client-key"))
    assert (await caller.answer()).status == 200
    key = (await done(running, "/clients/web/keys", {}))["key"]
    await caller.send(request(key))
    assert (await caller.answer()).status == 200
    (listed,) = [each for each in (await client(running))["keys"] if each["listed"]]
    await done(running, "/clients/web/revoke", {"fingerprint": listed["fingerprint"]})
    await caller.send(request("client-key"))
    assert (await caller.answer()).status == 401
    await caller.send(request(key))
    assert (await caller.answer()).status == 200
    caller.close()


async def test_new_client_has_the_models_and_limits_that_it_is_given(start):
    running = await start()
    issued = await done(
        running, "/clients/new/keys", {"models": ["m", "n-*"], "limits": {"requests_per_minute": 2}, "expires": "7d"}
    )
    assert (await ask(running.port, request(issued["key"], b'{"model":"other"}'))).status == 403
    assert [await status(running, issued["key"]) for _ in range(3)] == [200, 200, 429]
    shown = await client(running, "new")
    (key,) = shown.pop("keys")
    assert shown == {
        "name": "new",
        "listed": False,
        "models": ["m", "n-*"],
        "limits": {"requests_per_minute": 2},
        "left": {"requests_per_minute": 0},
        "inflight": 0,
        "refused": {"requests": 1},
    }
    assert (key["fingerprint"], key["state"], key["listed"], key["issued_by"]) == (
        issued["fingerprint"],
        "active",
        False,
        "anyone",
    )
    assert key["expires"] == issued["expires"]
    metrics = (await call(running, "/metrics")).text
    assert 'serinus_limited_total{client="new",limit="requests"} 1.0' in metrics
    assert 'limit="tokens"' not in metrics
    running.pass_time(10)
    seen = (await call(running, "/status")).json()
    assert seen["clients"] == {
        "new": {
            "inflight": 0,
            "refused": 1,
            "requests_per_s": 0.2,
            "refused_per_s": 0.1,
            "tokens_per_minute": None,
            "limits": {"requests_per_minute": 2},
            "left": {"requests_per_minute": 0},
            "refused_by": {"requests": 1},
        }
    }
    assert (seen["limited_per_s"], seen["clients_quiet"]) == (0.1, 1)


async def test_keys_of_one_client_share_its_limits(start):
    running = await start(client=", limits: {requests_per_minute: 2}")
    keys = [(await done(running, "/clients/web/keys", {}))["key"] for _ in range(2)]
    assert [await status(running, key) for key in ("client-key", *keys)] == [200, 200, 429]


async def test_key_expires_by_the_watch(start):
    running = await start()
    issued = await done(running, "/clients/web/keys", {"expires": "1h"})
    running.pass_time(0)
    running.pass_time(3500)
    assert await status(running, issued["key"]) == 200
    running.pass_time(102)
    assert await status(running, issued["key"]) == 401
    assert await status(running, "client-key") == 200
    states = {key["fingerprint"]: key["state"] for key in (await client(running))["keys"]}
    assert states[issued["fingerprint"]] == "expired"


@pytest.mark.parametrize("when", ["duration", "moment"])
async def test_key_is_given_an_end(start, when):
    running = await start()
    issued = await done(running, "/clients/web/keys", {})
    expires = "90s" if when == "duration" else moment_text(int(running.clock.wall()) + 90)
    ends = await done(running, "/clients/web/expire", {"fingerprint": issued["fingerprint"], "expires": expires})
    assert ends["expires"].endswith("Z")
    running.pass_time(0)
    assert await status(running, issued["key"]) == 200
    running.pass_time(91)
    assert await status(running, issued["key"]) == 401


async def test_revoked_key_is_refused_at_once_and_open_streams_go_on(start):
    running = await start(held := Held())
    issued = await done(running, "/clients/web/keys", {})
    caller = await RawCaller.connect(running.port)
    await caller.send(request(issued["key"]))
    await caller.read_until(Held.FIRST)
    revoked = await done(running, "/clients/web/revoke", {"fingerprint": issued["fingerprint"]})
    assert (revoked["revoked"], revoked["cut"]) == ([issued["fingerprint"]], 0)
    assert await status(running, issued["key"]) == 401
    assert (await client(running))["inflight"] == 1
    held.may_end.set()
    assert await caller.read_until(Held.LAST) == Held.LAST
    caller.close()


@pytest.mark.parametrize("fast_lane", [True, False])
async def test_revoking_now_ends_what_came_with_the_key_and_nothing_else(start, fast_lane):
    running = await start(held := Held())
    issued = await done(running, "/clients/web/keys", {})
    callers = []
    for key in (issued["key"], "client-key"):
        callers.append(await RawCaller.connect(running.port))
        await callers[-1].send(request(key))
        await callers[-1].read_until(Held.FIRST)
    answer = await done(running, "/clients/web/revoke", {"fingerprint": issued["fingerprint"], "now": True})
    assert answer["cut"] == 1
    assert await callers[0].read_rest() == b""
    assert running.inflight() == 1
    assert (await done(running, "/clients/web/revoke", {"now": True}))["cut"] == 1
    assert await callers[1].read_rest() == b""
    held.may_end.set()


@pytest.mark.parametrize("fast_lane", [True, False])
async def test_request_whose_body_is_still_coming_when_its_key_is_revoked_is_refused(start, fast_lane):
    running = await start()
    caller = await RawCaller.connect(running.port)
    whole_request = request("client-key")
    await caller.send(whole_request[:-1])
    await running.until(lambda: running.serinus.data_plane.busy == 1)
    await done(running, "/clients/web/revoke", {"now": True})
    await caller.send(whole_request[-1:])
    assert (await caller.answer()).status == 401
    caller.close()


async def test_what_was_done_is_kept_across_restarts(scripted, proxy, tmp_path):
    upstream = await scripted(answering(whole(COMPLETION)))
    text = f"state_dir: {tmp_path}/state\n" + config(upstream.url)
    running = await proxy(text)
    stays, goes, ends = [await done(running, "/clients/new/keys", {}) for _ in range(3)]
    await done(running, "/clients/new/revoke", {"fingerprint": goes["fingerprint"]})
    await done(running, "/clients/new/expire", {"fingerprint": ends["fingerprint"], "expires": "1h"})
    await done(running, "/clients/web/revoke", {})
    await running.stop()
    again = await proxy(text)
    keys = [stays["key"], goes["key"], ends["key"], "client-key"]
    assert [await status(again, key) for key in keys] == [200, 401, 200, 401]
    again.pass_time(0)
    again.pass_time(3601)
    assert [await status(again, key) for key in keys] == [200, 401, 401, 401]
    assert [key["state"] for key in (await client(again, "new"))["keys"]] == ["active", "revoked", "expired"]


async def test_reload_brings_no_revoked_key_back(scripted, proxy, tmp_path):
    upstream = await scripted(answering(whole(COMPLETION)))
    running = await proxy(config(upstream.url), path=(path := tmp_path / "serinus.yaml"))
    issued = await done(running, "/clients/web/keys", {})
    await done(running, "/clients/web/revoke", {})
    path.write_text(path.read_text().replace("name: web", "name: other"))
    assert (await call(running, "/reload", {})).json()["result"] == "applied"
    assert [await status(running, key) for key in ("client-key", issued["key"])] == [401, 401]


async def test_revocation_needs_nothing_of_the_upstreams(scripted, proxy, tmp_path, held_port):
    """A file that one of them needs may be gone: what is put in force is who may call, and nothing else."""
    import trustme

    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(ca)
    text = config((await scripted(answering(whole(COMPLETION)))).url)
    far = f"far: {{base_url: 'https://localhost:{held_port}/v1', tls: {{ca: {ca}}}}}, "
    running = await proxy(text.replace("upstreams: {", "upstreams: {" + far))
    ca.unlink()
    key = (await done(running, "/clients/web/keys", {}))["key"]
    assert await status(running, key) == 200
    await done(running, "/clients/web/revoke", {})
    assert await status(running, key) == 401
    assert running.serinus.metrics.generation == 1


async def test_everything_is_audited_with_who_and_from_where(start):
    running = await start(more=TOKENS)
    issued = (await call(running, "/clients/new/keys", {}, token="admin-token")).json()
    fingerprint = issued["fingerprint"]
    body = {"fingerprint": fingerprint, "expires": "2099-01-31T18:00:00Z"}
    await call(running, "/clients/new/expire", body, token="admin-token")
    await call(running, "/clients/new/revoke", {}, token="admin-token")
    entries = recorded(running)
    assert {(entry.who, entry.origin, entry.about["client"]) for entry in entries} == {("ops", "127.0.0.1", "new")}
    assert [(entry.what, entry.about) for entry in entries] == [
        ("client_key_issued", {"client": "new", "fingerprint": fingerprint, "expires": "never"}),
        ("client_key_expires", {"client": "new", "fingerprint": fingerprint, "expires": "2099-01-31T18:00:00Z"}),
        ("client_keys_revoked", {"client": "new", "fingerprints": fingerprint, "cut": "0"}),
    ]
    assert (await call(running, "/clients", token="admin-token")).json()["clients"][0]["keys"][0]["issued_by"] == "ops"
    assert (await call(running, "/clients/new/keys", {})).status_code == 401


async def test_a_keys_text_is_told_once_and_nowhere_else(scripted, proxy, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    upstream = await scripted(answering(whole(COMPLETION)))
    running = await proxy(f"state_dir: {tmp_path}/state\nlog: {{level: debug}}\n" + config(upstream.url))
    key = (await done(running, "/clients/web/keys", {}))["key"]
    assert await status(running, key) == 200
    await done(running, "/clients/web/revoke", {})
    refused = await tried(running, key)
    assert key.encode() not in refused.head + refused.body
    pages = [(await call(running, path)).text for path in ("/clients", "/status", "/metrics", "/audit", "/keys")]
    await running.until_logged(2)
    files = [file.read_text() for file in Path(tmp_path).rglob("*") if file.is_file()]
    assert any("key_hash" in text for text in files)
    for text in (*pages, *files, str(running.events), caplog.text, repr(running.serinus.clients.issued())):
        assert key not in text
    assert not any(key.encode() in sent.raw_head for sent in upstream.requests)


async def test_what_cannot_be_kept_is_told_and_in_force(start):
    running = await start()
    clients = running.serinus.recorder.clients._file.path.absolute()
    clients.mkdir()  # a file in its place would be replaced
    answer = (await call(running, "/clients/web/keys", {})).json()
    assert "clients.json" in answer["not_kept"]
    assert answer["not_audited"] == ""
    assert await status(running, answer["key"]) == 200
    assert "clients.json" in (await call(running, "/clients/web/revoke", {})).json()["not_kept"]
    assert await status(running, answer["key"]) == 401


async def test_revocation_is_kept_though_who_asked_for_it_has_left(scripted, proxy, tmp_path):
    upstream = await scripted(answering(whole(COMPLETION)))
    text = f"state_dir: {tmp_path}/state\n" + config(upstream.url)
    running = await proxy(text)
    async with running.serinus.recorder._in_turn:  # the disk is slow
        asking = asyncio.get_running_loop().create_task(call(running, "/clients/web/revoke", {}))
        revoked = lambda: not running.serinus.data_plane._snapshots.current.clients.by_digest  # noqa: E731
        await running.until(revoked)
        asking.cancel()
        await asyncio.wait([asking])
        server = running.serinus.admin._runner.server
        await running.until(lambda: not server.connections)
    await running.stop()
    assert [entry.what for entry in recorded(running)] == ["client_keys_revoked"]
    again = await proxy(text)
    assert await status(again, "client-key") == 401


@pytest.mark.parametrize(
    ("path", "body", "code", "said"),
    [
        ("/clients/-x/keys", {}, 400, "the client's name: not a name: write up to 64 letters"),
        ("/clients/a%2Fb/keys", {}, 400, "the client's name: not a name: write up to 64 letters"),
        ("/clients/new/keys", {"expires": "soon"}, 400, "expires: 'soon' is no moment: write 2027-01-31, or 2027"),
        ("/clients/new/keys", {"expires": "soon"}, 400, ", or 7d from now"),
        ("/clients/new/keys", {"expires": "0s"}, 400, "expires: 0s is too short"),
        ("/clients/new/keys", {"expires": "2020-01-01"}, 409, "has passed: choose a later one"),
        ("/clients/new/keys", {"expires": "2027-01-31T18:00:00"}, 400, "no time zone"),
        ("/clients/new/keys", {"models": []}, 400, "send one JSON object with: expires, models, limits (expected"),
        ("/clients/new/keys", {"models": [""]}, 400, "send one JSON object with: expires, models, limits (expected"),
        ("/clients/new/keys", {"limits": {"concurrent": 0}}, 400, "`int` >= 1 - at `$.limits.concurrent`"),
        ("/clients/new/keys", {"limit": {}}, 400, "send one JSON object with: expires, models, limits"),
        ("/clients/web/keys", {"models": ["x"]}, 409, "has models and limits already: leave them out"),
        ("/clients/web/expire", {"expires": "7d"}, 400, "send one JSON object with: fingerprint, expires"),
        ("/clients/web/expire", {"fingerprint": "", "expires": "7d"}, 400, "GET /clients shows them"),
        ("/clients/web/expire", {"fingerprint": "12345678", "expires": "7d"}, 404, "no key of 'web' has"),
        ("/clients/none/expire", {"fingerprint": "12345678", "expires": "7d"}, 404, "no client is called 'none'"),
        ("/clients/none/revoke", {}, 404, "no client is called 'none'"),
        ("/clients/web/revoke", {"fingerprint": ""}, 400, "leave it out to revoke all keys"),
        ("/clients/web/revoke", {"fingerprint": "12345678"}, 404, "there are "),
        ("/clients/web/revoke", [], 400, "send one JSON object with: fingerprint, now (expected `object`, got"),
    ],
)
async def test_what_makes_no_sense_is_told_and_changes_nothing(start, path, body, code, said):
    running = await start()
    answer = await call(running, path, body)
    assert (answer.status_code, said in answer.json()["error"]) == (code, True), answer.text
    assert await status(running, "client-key") == 200
    assert recorded(running) == []


async def test_without_clients_none_can_be_issued(scripted, proxy):
    upstream = await scripted(answering(whole(COMPLETION)))
    running = await proxy(config(upstream.url).replace("clients: [{name: web, key: client-key}]", ""))
    answer = await call(running, "/clients/web/keys", {})
    assert (answer.status_code, "list the first one" in answer.json()["error"]) == (409, True)
    assert (await call(running, "/clients")).json() == {"clients": []}
    assert await status(running, "anything") == 200
