"""The admin API over a real socket: what it says, and to whom."""

import asyncio
import json

import httpx2
import pytest
from prometheus_client import parser

from proxy.model.secret import fingerprint
from tests.support.patience import PATIENCE_S
from tests.support.raw import RawCaller, ask, get, post
from tests.support.running import config_for
from tests.support.scripted import answering, whole

UP = "http://127.0.0.1:1/v1"
TOKENS = """listen: 127.0.0.1:0
admin: {listen: 127.0.0.1:0, tokens: [{name: ops, value: ops-token}, {name: ci, value: ci-token}]}
"""
JSON = {"content-type": "application/json"}
DOCUMENTED = {
    "serinus_requests_total",
    "serinus_request_duration_seconds_bucket",
    "serinus_time_to_first_byte_seconds_bucket",
    "serinus_overhead_seconds_bucket",
    "serinus_upstream_inflight",
    "serinus_client_disconnects_total",
    "serinus_config_generation",
    "serinus_config_reloads_total",
}


@pytest.fixture
def start(proxy, tmp_path):
    """Starts a proxy, and gives what calls its admin API: `call("GET", "/status")`."""

    async def start(config):
        running = await proxy(config, path=tmp_path / "serinus.yaml")

        async def call(method, path, **options):
            async with httpx2.AsyncClient(base_url=running.admin_url, trust_env=False) as client:
                return await client.request(method, path, **options)

        return running, call

    return start


async def metrics(call):
    """Every sample by its name: a list of (labels, value)."""
    found: dict[str, list] = {}
    for family in parser.text_string_to_metric_families((await call("GET", "/metrics")).text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


# --- what it says ------------------------------------------------------------------------------------------------


async def test_it_is_alive_and_ready_until_it_drains(start):
    running, call = await start(config_for(UP))
    assert [(await call("GET", path)).text for path in ("/livez", "/readyz")] == ["ok\n", "ok\n"]
    running.serinus.ready = False
    assert (await call("GET", "/livez")).status_code == 200
    answer = await call("GET", "/readyz")
    assert (answer.status_code, answer.text) == (503, "draining\n")


async def test_it_is_ready_although_its_upstreams_are_down(start):
    running, call = await start(config_for(UP))
    assert (await ask(running.port, get())).status == 503
    assert (await call("GET", "/readyz")).status_code == 200


async def test_every_documented_metric_is_exported(start, scripted):
    upstream = await scripted(answering(whole(b"{}")))
    running, call = await start(config_for(upstream.url))
    await ask(running.port, post())
    assert (await metrics(call)).keys() >= DOCUMENTED


async def test_metrics_tell_what_happened(start, scripted):
    async def answer_then_hang(talk):
        await talk.request()
        await talk.send(whole(b"{}"))
        await talk.request()
        await talk.gone()

    upstream = await scripted(answer_then_hang)
    running, call = await start(config_for(upstream.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(get())
    await caller.answer()
    await caller.send(get(b"/nowhere"))
    await caller.answer()
    await caller.send(get())
    await upstream.until(lambda: len(upstream.requests) == 2)
    found = await metrics(call)
    assert ({"upstream": "up0"}, 1.0) in found["serinus_upstream_inflight"]
    assert found["serinus_client_connections"] == [({}, 1.0)]
    caller.close()
    await running.until_logged(3)
    found = await metrics(call)
    labels = {"route": "/v1", "pool": "chat", "upstream": "up0", "arm": ""}
    nothing = dict.fromkeys(labels, "")
    assert ({**labels, "code": "200"}, 1.0) in found["serinus_requests_total"]
    assert ({**labels, "code": "499"}, 1.0) in found["serinus_requests_total"]
    assert ({**nothing, "code": "404"}, 1.0) in found["serinus_requests_total"]
    assert (labels, 1.0) in found["serinus_client_disconnects_total"]
    assert (labels, 2.0) in found["serinus_request_duration_seconds_count"]
    assert (labels, 1.0) in found["serinus_time_to_first_byte_seconds_count"]
    assert ({"upstream": "up0"}, 0.0) in found["serinus_upstream_inflight"]


async def test_labels_come_from_the_configuration_alone(start, scripted):
    upstream = await scripted(answering(whole(b"{}")))
    running, call = await start(config_for(upstream.url, route="model: 'gpt-*'"))
    await ask(running.port, post(b'{"model":"gpt-planted"}', target=b"/v1/planted?planted"))
    await ask(running.port, post(b'{"model":"planted"}'))
    await ask(running.port, b"PLANTED /planted HTTP/1.1\r\nHost: planted\r\nAuthorization: Bearer planted\r\n\r\n")
    assert "planted" not in (await call("GET", "/metrics")).text.lower()


async def test_metrics_come_in_the_format_that_is_asked_for(start):
    _, call = await start(config_for(UP))
    answer = await call("GET", "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


KEY = {
    "upstream": "up0",
    "key": "main",
    "state": "active",
    "fingerprint": fingerprint("upstream-key-0"),
    "inflight": 0,
    "used_percent": 0.0,
    "cooling_s": {},
    "last_used_ago_s": None,
    "candidate": None,
    "draining": 0,
    "rotation": None,
    "rotation_said": "",
    "resting": "",
    "answers_per_s": 0.0,
    "refusals": {},
}
QUIET = {
    "requests_per_s": 0.0,
    "failed_percent": 0.0,
    "first_byte_ms": None,
    "duration_ms": None,
    "retries_per_s": 0.0,
    "codes": {},
}


async def test_status_before_anything_happened(start):
    running, call = await start(config_for(UP))
    running.pass_time(4)
    status = (await call("GET", "/status")).json()
    assert status.pop("version")
    assert status.pop("uptime_s") == 4
    assert status.pop("window_s") == 4
    upstream = {"url": UP, "health": "idle", "inflight": 0, "traffic": QUIET, "outcomes": {}, "keys": {"main": KEY}}
    upstream |= {"targets": {}, "last_failure_ago_s": None}
    member = {
        "upstream": "up0",
        "weight": 1,
        "share_percent": 100.0,
        "traffic": QUIET,
        "model": None,
        "key": None,
        "state": "up",
        "ejected_s": 0.0,
        "ejections": 0,
    }
    pool = {"traffic": QUIET, "members": [member], "inflight": 0, "retries": {}, "ejections_per_s": 0.0}
    assert status == {
        "ready": True,
        "generation": 1,
        "connections": 0,
        "traffic": QUIET,
        "answered_here_per_s": 0.0,
        "upstreams": {"up0": upstream},
        "pools": {"chat": pool},
        "last_reload": None,
        "certificates": {},
        "clients": {},
        "canaries": {},
        "workers": 1,
        "clients_quiet": 1,
        "limited_per_s": 0.0,
    }


async def test_status_remembers_the_last_reload(start):
    _, call = await start(config_for(UP))
    reloaded = await call("POST", "/reload", headers=JSON)
    assert reloaded.json()["result"] == "applied"
    assert (await call("GET", "/status")).json()["last_reload"] == reloaded.json()


# --- and to whom -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_probes_and_scrapers_need_no_token(start, path):
    _, call = await start(TOKENS + config_for(UP))
    assert (await call("GET", path, headers={"host": "serinus.internal"})).status_code == 200


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer ops-toke",
        "Bearer ops-token2",
        "Bearer ops-token, Bearer ci-token",
        "Basic ops-token",
        "ops-token",
        b"Bearer \xff",
    ],
)
async def test_all_else_needs_a_token_once_there_are_any(start, value):
    running, call = await start(TOKENS + config_for(UP))
    headers = JSON | ({} if value is None else {"authorization": value})
    for method, path in (("GET", "/status"), ("POST", "/reload"), ("GET", "/nowhere")):
        answer = await call(method, path, headers=headers)
        assert answer.status_code == 401
        assert "admin.tokens" in answer.json()["error"]
    assert running.serinus.reloader.generation == 1


@pytest.mark.parametrize("value", ["Bearer ops-token", "bearer  ci-token", "BEARER ops-token"])
async def test_any_of_the_tokens_will_do_from_anywhere(start, value):
    _, call = await start(TOKENS + config_for(UP))
    headers = {"authorization": value, "host": "serinus.internal:9090"}
    assert (await call("GET", "/status", headers=headers)).status_code == 200
    assert (await call("POST", "/reload", headers=headers | JSON)).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "10.0.0.1:9090", "[::2]:1"]
)
async def test_rebound_name_is_refused_where_no_token_is_needed(start, host):
    running, call = await start(config_for(UP))
    for method, path in (("GET", "/status"), ("GET", "/metrics"), ("GET", "/playground"), ("POST", "/reload")):
        answer = await call(method, path, headers=JSON | {"host": host})
        assert (answer.status_code, "admin.tokens" in answer.json()["error"]) == (403, True)
    assert running.serinus.reloader.generation == 1
    assert (await call("GET", "/readyz", headers={"host": host})).status_code == 200  # a probe's is whatever it is


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9090", "127.0.0.1:9090", "127.8.8.8", "[::1]", "[::1]:9090"])
async def test_names_of_this_machine_are_known(start, host):
    _, call = await start(config_for(UP))
    assert (await call("GET", "/status", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"]
)
async def test_change_that_a_web_page_could_ask_for_is_refused(start, kind):
    running, call = await start(config_for(UP))
    answer = await call("POST", "/reload", headers={} if kind is None else {"content-type": kind})
    assert answer.status_code == 415
    assert running.serinus.reloader.generation == 1


async def test_parameters_of_the_content_type_do_no_harm(start):
    _, call = await start(config_for(UP))
    answer = await call("POST", "/reload", headers={"content-type": "application/json; charset=utf-8"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/nowhere", 404, "the admin API has no such path"),
        ("POST", "/nowhere", 404, "the admin API has no such path"),
        ("GET", "/v1/models", 404, "this is the admin listener: callers use 127.0.0.1:0"),
        ("POST", "/v1/chat/completions", 404, "this is the admin listener: callers use 127.0.0.1:0"),
        ("GET", "/reload", 405, "Method Not Allowed"),
    ],
)
async def test_what_is_not_there_is_an_error_in_json(start, method, path, status, said):
    _, call = await start(config_for(UP))
    answer = await call(method, path)
    assert (answer.status_code, json.loads(answer.content)) == (status, {"error": said})


async def test_head_changes_nothing_and_needs_nothing(start):
    _, call = await start(config_for(UP))
    assert (await call("HEAD", "/status")).status_code == 200


async def test_head_has_no_body_where_events_are_asked_for(start):
    running, _ = await start(config_for(UP))
    head = b"HEAD /status HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
    two = head + b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", running.serinus.admin_address[1])
    writer.write(two)
    async with asyncio.timeout(PATIENCE_S):
        answers = await reader.read()
    writer.close()
    assert b"event:" not in answers
    assert [part.count(b"HTTP/1.1 200 OK") for part in answers.split(b"\r\n\r\n")] == [1, 1, 0]


@pytest.mark.parametrize("path", ["/", "/livez", "/metrics", "/status", "/nowhere", "/playground"])
async def test_no_answer_is_sniffed_or_loaded_into_another_page(start, path):
    _, call = await start(config_for(UP))
    answer = await call("GET", path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "body", [b'{"value":"k\xff"}', b'{"path":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"reason":"\\ud800"}']
)
@pytest.mark.parametrize("path", ["/keys/up0/main/rotate", "/playground", "/canaries/trial/pause"])
async def test_a_body_that_cannot_be_read_is_the_callers_mistake(start, path, body):
    _, call = await start(config_for(UP))
    answer = await call("POST", path, content=body, headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("send one JSON object")


async def test_a_name_with_a_line_break_is_not_found_as_any_other(start):
    _, call = await start(config_for(UP))
    answer = await call("POST", "/keys/a%0Ab/main/revoke", json={})
    assert (answer.status_code, "a?b" in answer.json()["error"]) == (404, True)


async def test_nothing_of_it_is_on_the_public_listener(start, scripted):
    upstream = await scripted(answering(whole(b"{}")))
    running, _ = await start(config_for(upstream.url))
    for path in (b"/metrics", b"/status", b"/readyz", b"/reload"):
        assert (await ask(running.port, get(path))).status == 404
    assert not upstream.requests
    assert (await ask(running.port, b"GET /livez HTTP/1.1\r\nHost: proxy\r\n\r\n")).payload == b"ok\n"
