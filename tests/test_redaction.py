"""A mark planted in every secret is found nowhere: no answer, log, metric or page has it, and nothing Python prints."""

import traceback
from pathlib import Path

import httpx2
import pytest

from proxy.controlplane.build import build
from proxy.controlplane.load import load
from proxy.controlplane.problems import ConfigInvalid
from proxy.obs.metrics import Metrics
from proxy.state.live import Registry
from tests.support.raw import ask
from tests.support.scripted import answering, answering_then_closing, whole

MARK = "S3CR3T"
ENVIRON = {"UPSTREAM_KEY": f"sk-{MARK}-env", "WEB_KEY": f"web-{MARK}"}
CONFIG = """
listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:0, tokens: [{{name: ops, value: file:token}}]}}
clients: [{{name: web, key: env:WEB_KEY, models: [m]}}, {{name: plain, key: plain-S3CR3T}}]
upstreams:
  up:
    base_url: '{url}'
    keys: [{{name: a, value: env:UPSTREAM_KEY}}, {{name: b, value: file:key}}, {{name: c, value: sk-S3CR3T-plain}}]
pools: {{chat: {{members: [{{upstream: up, key: a}}]}}}}
routes: [{{prefix: /v1, pool: chat, max_body: 1KiB}}]
"""
WEB = b"Authorization: Bearer web-S3CR3T\r\n"
PLAIN = b"X-Api-Key: plain-S3CR3T\r\n"


def request(fields: bytes, *, target: bytes = b"/v1/chat/completions", body: bytes = b'{"model":"m"}') -> bytes:
    length = len(body)
    return b"POST %b HTTP/1.1\r\nHost: proxy\r\n%bContent-Length: %d\r\n\r\n%b" % (target, fields, length, body)


# Each with the status that it leads to.
REQUESTS = {
    "served": (200, request(WEB)),
    "wrong key": (401, request(b"Authorization: Bearer wrong-S3CR3T\r\nx-api-key: S3CR3T\r\n")),
    "query": (401, request(b"", target=b"/v1/models?key=S3CR3T")),
    "model": (403, request(WEB, body=b'{"model":"n"}')),
    "no model": (400, request(WEB, body=b'{"key":"S3CR3T"}')),
    "no json": (400, request(WEB, body=b'{"key":"S3CR3T"')),
    "path": (404, request(PLAIN, target=b"/nowhere?key=S3CR3T")),
    "too large": (413, request(PLAIN, body=b"S3CR3T" * 1000)),
    "no http": (400, b"POST /v1 HTTP/1.1\r\nHost: proxy\r\nAuthorization: S3CR3T\x00\r\n\r\n"),
    "no host": (400, b"POST /v1 HTTP/1.1\r\nHost: S3CR3T/\r\nAuthorization: S3CR3T\r\n\r\n"),
}
REFLECTED = b"x-api-key: sk-S3CR3T-env\r\nAuthorization: Bearer sk-S3CR3T-env\r\n\r\n"
ANSWERS = {
    "our key is refused": answering(whole(b'{"error":"wrong key sk-S3CR3T-env"}', status=b"401 Unauthorized")),
    "no http": answering_then_closing(REFLECTED),
    "no number": answering_then_closing(b"HTTP/1.1 S3CR3T\r\n" + REFLECTED),
    "no field": answering_then_closing(b"HTTP/1.1 200 OK\r\nS3CR3T\r\n" + REFLECTED),
    "no length": answering_then_closing(b"HTTP/1.1 200 OK\r\nContent-Length: S3CR3T\r\n" + REFLECTED),
    "no coding": answering_then_closing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: S3CR3T\r\n" + REFLECTED),
    "half": answering_then_closing(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n" + REFLECTED[:20]),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, secret in (("token", f"token-{MARK}"), ("key", f"sk-{MARK}-file\n")):
        (tmp_path / name).write_text(secret)
        (tmp_path / name).chmod(0o600)
    return tmp_path


@pytest.fixture
def start(proxy, folder):
    """Starts a proxy that is full of marked secrets, with whatever it will say."""

    async def start(upstream):
        config = CONFIG.format(url=upstream.url)
        return await proxy(config, environ=ENVIRON, path=folder / "serinus.yaml")

    return start


async def admin(running, method, path):
    headers = {"authorization": f"Bearer token-{MARK}", "content-type": "application/json"}
    async with httpx2.AsyncClient(base_url=running.admin_url, headers=headers) as client:
        return await client.request(method, path)


async def said(running):
    """All that an operator could read of it."""
    pages = [(await admin(running, "GET", path)).text for path in ("/metrics", "/status", "/nowhere")]
    return "\n".join([*pages, repr(running.events), *map(str, running.events)])


@pytest.mark.parametrize(("status", "raw"), REQUESTS.values(), ids=REQUESTS)
async def test_no_request_brings_a_secret_to_light(start, scripted, status, raw):
    running = await start(await scripted(answering(whole(b"{}"))))
    answer = await ask(running.port, raw)
    assert answer.status == status
    assert MARK.encode() not in answer.head + answer.body
    assert MARK not in await said(running)


@pytest.mark.parametrize("script", ANSWERS.values(), ids=ANSWERS)
async def test_no_answer_brings_a_secret_to_light(start, scripted, script):
    running = await start(await scripted(script))
    answer = await ask(running.port, request(WEB))
    if answer.status != 200:
        assert answer.status == 502
        assert MARK.encode() not in answer.head + answer.body
    await running.until_logged()
    assert MARK not in await said(running)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("value: env:UPSTREAM_KEY", "value: S3CR3T, value: S3CR3T"),
        ("value: env:UPSTREAM_KEY", "value: env:sk_S3CR3T"),
        ("value: env:UPSTREAM_KEY", "value: [S3CR3T]"),
        ("value: env:UPSTREAM_KEY", "value:S3CR3T"),
        ("value: file:key", "value: file:S3CR3T-1\x7f"),
        ("key: env:WEB_KEY", "key: {S3CR3T: S3CR3T}"),
        ("key: env:WEB_KEY", "kez: S3CR3T"),
        ("name: web,", "name: 's3 S3CR3T',"),
        ("auth:", "auth: S3CR3T"),
        ("base_url: 'http://", "base_url: 'http://user:S3CR3T@"),
        ("pools:", "pools: S3CR3T: ["),
    ],
)
async def test_no_rejected_configuration_brings_a_secret_to_light(start, scripted, folder, right, wrong):
    upstream = await scripted(answering(whole(b"{}")))
    running = await start(upstream)
    config = CONFIG.format(url=upstream.url).replace("base_url:", "auth: bearer\n    base_url:")
    (folder / "serinus.yaml").write_text(config.replace(right, wrong, 1))
    answer = await admin(running, "POST", "/reload")
    assert answer.status_code == 422
    assert MARK not in answer.text
    assert MARK not in await said(running)


def test_python_prints_no_secret(folder):
    file = folder / "serinus.yaml"
    file.write_text(CONFIG.format(url="http://127.0.0.1:1"))
    loaded = load(file, ENVIRON)
    snapshot = build(loaded.settings, Registry(), Metrics(), generation=1)
    for thing in (loaded, loaded.settings, snapshot, snapshot.upstreams, snapshot.routes, snapshot.clients):
        assert MARK not in repr(thing) + str(thing) + f"{thing}"
    assert MARK not in loaded.settings.model_dump_json()
    assert MARK not in repr(loaded.settings.model_dump())


@pytest.mark.parametrize("name", ["UPSTREAM_KEY", "WEB_KEY"])
def test_key_that_is_no_utf_8_is_a_problem_like_others(folder, name):
    file = folder / "serinus.yaml"
    file.write_text(CONFIG.format(url="http://127.0.0.1:1"))
    with pytest.raises(ConfigInvalid) as caught:
        load(file, ENVIRON | {name: f"{MARK}\udcff"})
    assert MARK not in "".join(traceback.format_exception(caught.value))


def test_tracebacks_print_no_secret(folder):
    file = folder / "serinus.yaml"
    file.write_text(CONFIG.format(url="http://127.0.0.1:1").replace("name: a", "nam: S3CR3T"))
    with pytest.raises(ConfigInvalid) as caught:
        load(file, ENVIRON)
    assert MARK not in "".join(traceback.format_exception(caught.value))


async def test_what_a_caller_sends_is_not_logged(start, scripted):
    running = await start(await scripted(answering(whole(b"{}"))))
    answer = await ask(running.port, request(WEB, body=b'{"model":"S3CR3T"}'))
    assert answer.status == 403
    assert MARK not in await said(running)
