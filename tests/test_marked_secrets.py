"""One whole life of a proxy whose every secret has a mark in it: nothing that it says, shows or keeps has the mark."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from proxy.controlplane.vault import CONFIG_PURPOSE, MasterKey, Vault, new_master_key
from tests.support.authority import Authority
from tests.support.process import ROOT, SerinusProcess
from tests.support.raw import RawCaller, ask
from tests.support.scripted import Conversation, answering, whole

MARK = "S3CR3T"
MASTER = new_master_key()
SEALED = f"sk-{MARK}-sealed"
CONFIG = """
listen: [127.0.0.1:0, {{address: "127.0.0.1:0", tls: {{cert: localhost-cert.pem, key: localhost-key.pem}}}}]
admin: {{listen: 127.0.0.1:0, tokens: [{{name: ops, value: file:token}}]}}
state_dir: state
pre_drain: 0s
log: {{level: debug}}
client_pepper: env:PEPPER
clients:
  - {{name: web, key: env:WEB_KEY, limits: {{requests_per_minute: 1000}}}}
  - {{name: plain, keys: [plain-S3CR3T, file:client], models: [m]}}
upstreams:
  up:
    base_url: '{url}'
    headers: {{x-api-key: header-S3CR3T}}
    query: {{token: query-S3CR3T}}
    keys: [{{name: main, value: env:UPSTREAM_KEY}}, {{name: kept, value: file:key}}]
  other:
    base_url: '{url}'
    keys: [{{name: sealed, value: '{sealed}'}}]
pools:
  chat: {{members: [{{upstream: up}}, {{upstream: other}}], balance: smooth_rr, slow_start: 0s}}
  next: {{members: [{{upstream: other}}]}}
routes: [{{prefix: /v1, pool: chat, canary: trial}}]
overlap: {{share: 50%, requests: 3}}
canaries:
  trial:
    baseline: chat
    canary: next
    weight: 0
    webhooks: [{{url: '{hook}/S3CR3T?token=S3CR3T', secret: env:WEBHOOK_SECRET}}, {{url: 'http://u:S3CR3T@127.0.0.1:1'}}]
"""
WEB, PLAIN = b"Authorization: Bearer web-S3CR3T\r\n", b"X-Api-Key: plain-S3CR3T\r\n"
OPS = {"authorization": f"Bearer token-{MARK}", "content-type": "application/json"}


async def vendor(talk: Conversation) -> None:
    """Knows the keys that have no `wrong` in them, and speaks of them in its errors."""
    while True:
        request = await talk.request()
        key = request.field(b"authorization") or b""
        if b"wrong" in key:
            await talk.send(whole(b'{"error":"no such key: %b"}' % key, status=b"401 Unauthorized"))
        elif b"cut" in request.body:
            await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nS3CR3T")
            talk.close()
            return
        elif b"broken" in request.body:
            await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: S3CR3T\r\n%b\r\n\r\n" % key)
            talk.close()
            return
        else:
            await talk.send(whole(b"{}"))


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    for name, secret in (("token", "token"), ("key", "sk-file"), ("client", "client-file")):
        (tmp_path / name).write_text(f"{secret}-{MARK}\n")
        (tmp_path / name).chmod(0o600)
    Authority(tmp_path).issue("localhost")
    return tmp_path


@pytest.fixture
async def process(folder: Path) -> AsyncIterator[SerinusProcess]:
    process = SerinusProcess(folder)
    yield process
    await process.kill()


def request(fields: bytes, body: bytes = b'{"model":"m"}', target: bytes = b"/v1/chat/completions") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: p\r\n%bContent-Length: %d\r\n\r\n%b" % (target, fields, len(body), body)


class Life:
    """What is done to the process, and all that it answers, its own words to callers included."""

    def __init__(self, process: SerinusProcess, folder: Path, port: int, admin_port: int) -> None:
        self._process, self._folder, self._port = process, folder, port
        self._admin = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{admin_port}", headers=OPS, timeout=30)
        self.url = f"http://127.0.0.1:{admin_port}"
        self.heard: list[str] = []

    async def calls(self) -> None:
        """Good and bad ones. What an upstream itself says passes on, and is its own."""
        for raw in (request(WEB), request(PLAIN), request(WEB, b"broken")):
            self.heard.append(str(await ask(self._port, raw)))
        for raw in (
            request(b"Authorization: Bearer wrong-S3CR3T\r\n"),
            request(b""),
            request(PLAIN, b'{"model":"n S3CR3T'),
            request(WEB, target=b"/nowhere?key=S3CR3T"),
            b"GET /S3CR3T\x00 HTTP/1.1\r\nS3CR3T\r\n\r\n",
        ):
            answer = await ask(self._port, raw)
            assert answer.status >= 400
            self.heard.append(str(answer))
        cut = await RawCaller.connect(self._port)
        await cut.send(request(WEB, b"cut"))
        await cut.read_rest()
        cut.close()

    async def admin(self, method: str, path: str, body: object = None, expected: int = 200) -> httpx2.Response:
        answer = await self._admin.request(method, path, json={} if body is None and method == "POST" else body)
        assert answer.status_code == expected, answer.text
        self.heard.append(f"{answer.headers} {answer.text}")
        return answer

    async def command(self, *arguments: str, typed: str = "", code: int = 0) -> None:
        """A command as an operator types it; what it is given could be seen by all who list processes."""
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", *arguments, cwd=self._folder,
            env={"PYTHONPATH": str(ROOT), "SERINUS_ADMIN": self.url, "SERINUS_ADMIN_TOKEN": OPS["authorization"][7:]},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said = await running.communicate(typed.encode())
        self.heard += [part.decode() for part in said]
        assert running.returncode == code, said

    async def rotations(self) -> None:
        """Accepted and refused, by the API, by the command, by a file; revoked."""
        await self.admin("POST", "/keys/up/main/rotate", {"value": f"sk-{MARK}-new"})
        await self.admin("POST", "/keys/up/main/rotate", {"value": f"sk-{MARK}-wrong"}, 422)
        await self.admin("POST", "/keys/up/nosuch/rotate", {"value": f"sk-{MARK}-new"}, 404)
        await self.admin("POST", "/keys/up/main/rotate", {"valu": f"sk-{MARK}-new"}, 400)
        await self.command("keys", "rotate", "up", "kept", typed=f"sk-{MARK}-typed")
        await self.command("keys", "rotate", "up", "kept", typed=f"sk-{MARK}-wrong-2", code=1)
        (self._folder / "key").write_text(f"sk-{MARK}-file-2\n")
        await self.admin("POST", "/reload")
        await self.admin("POST", "/keys/other/sealed/revoke", {"now": True})
        await self.calls()

    async def clients(self) -> str:
        """Issued, used, ended. Returns a key, which is told once."""
        issued = await self._admin.request("POST", "/clients/web/keys", json={"expires": "7d"})
        assert issued.status_code == 201, issued.text
        key: str = issued.json()["key"]
        fields = f"Authorization: Bearer {key}\r\n".encode()
        assert (await ask(self._port, request(fields))).status == 200
        fingerprint = issued.json()["fingerprint"]
        await self.admin("POST", "/clients/web/expire", {"fingerprint": fingerprint, "expires": "1d"})
        await self.command("clients", "revoke", "web", fingerprint)
        refused = await ask(self._port, request(fields))
        assert refused.status == 401
        self.heard.append(str(refused))
        await self.command("clients", "list")
        return key

    async def canaries(self) -> None:
        """Steered, with a webhook that is refused and one that nobody answers."""
        await self.command("canary", "abort", "trial", "--reason", "enough")
        await self.admin("PUT", "/canaries/trial/weight", {"weight": "S3CR3T"}, 400)
        while not (hooks := (await self.admin("GET", "/canaries/trial")).json()["webhooks"])[1]["last"]:
            pass
        assert "token" not in str(hooks)
        await self.command("canary", "show", "trial")

    async def pages(self) -> None:
        paths = ("/metrics", "/status", "/config", "/keys", "/clients", "/audit", "/canaries", "/events", "/nowhere")
        for path in paths:
            await self.admin("GET", path, expected=404 if path == "/nowhere" else 200)
        await self.command("keys", "list", "--json")
        await self.command("status", "--audit")

    async def bad_configurations(self) -> None:
        good = self._process.file.read_text()
        mistakes = {"value: env:UPSTREAM_KEY": "value: env:sk-S3CR3T", "routes:": "roots: S3CR3T\nroutes:"}
        for right, wrong in mistakes.items():
            self._process.file.write_text(good.replace(right, wrong))
            await self.admin("POST", "/reload", expected=422)
            await self.command("check", str(self._process.file), code=1)
        self._process.file.write_text(good)

    async def close(self) -> None:
        await self._admin.aclose()


async def test_no_mark_comes_to_light(process, scripted, folder):
    upstream = await scripted(vendor)
    sealed = Vault([MasterKey.parse(MASTER)]).seal(SEALED, CONFIG_PURPOSE)
    hook = await scripted(answering(whole(b"S3CR3T", status=b"500 S3CR3T")))
    config = CONFIG.format(url=upstream.url, sealed=sealed, hook=hook.url)
    environ = {"UPSTREAM_KEY": f"sk-{MARK}-env", "WEB_KEY": f"web-{MARK}", "PEPPER": f"pepper-{MARK}"}
    environ["WEBHOOK_SECRET"] = f"whsec_{MARK}{'A' * 34}"
    await process.start(config, SERINUS_MASTER_KEY=MASTER, **environ)
    serving = await process.until("serving")
    life = Life(process, folder, serving["listen"][0][1], serving["admin"][1])
    await life.calls()
    await life.rotations()
    key = await life.clients()
    await life.canaries()
    await life.bad_configurations()
    await life.pages()
    await life.close()
    number = process.number
    private = (folder / "localhost-key.pem").read_text().splitlines()[1]
    arguments = Path(f"/proc/{number}/cmdline").read_text()
    assert re.search(r"Max core file size\s+0 ", Path(f"/proc/{number}/limits").read_text())
    process.send(signal.SIGTERM)
    assert await process.ended() == 0
    kept = [path for path in (folder / "state").iterdir() if path.stat().st_size]
    assert {path.name for path in kept} >= {"keys.json", "clients.json", "audit.log"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)
    heard = "\n".join([*life.heard, *process.said, arguments, *(path.read_text() for path in kept)])
    assert "sk-" not in heard
    assert MARK not in heard
    assert MASTER not in heard
    assert key not in heard
    assert private not in heard
    seen = {request.field(b"authorization") for request in upstream.requests}
    assert {b"Bearer sk-S3CR3T-typed", b"Bearer sk-S3CR3T-sealed", b"Bearer sk-S3CR3T-new"} <= seen  # it was all used
