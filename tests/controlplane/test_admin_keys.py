"""Keys by the admin API and by the command: rotated, revoked, kept across restarts, and all of it audited."""

import asyncio

import httpx2
import msgspec
import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.controlplane import audit
from proxy.controlplane.vault import new_master_key
from proxy.model.secret import fingerprint
from tests.controlplane.test_keyring import Vendor, config
from tests.support.raw import RawCaller, ask, post
from tests.support.running import RunningProxy
from tests.support.scripted import Held

MARKER = "S3CR3T-5f1c"
MASTER = {"SERINUS_MASTER_KEY": new_master_key()}


@pytest.fixture
def start(scripted, proxy):
    async def start(vendor: Vendor | Held, *, checking: bool = True, overlap: str = "share: 0%", **options: object):
        upstream = await scripted(vendor)
        running = await proxy(config(upstream.url, overlap=overlap), **options)
        if checking:
            running.serinus._tasks.spawn(running.serinus.checks.run())
        return running, upstream

    return start


async def call(running: RunningProxy, path: str, body: object = None, **options: object) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=running.admin_url, trust_env=False, timeout=20) as client:
        return await client.request("GET" if body is None else "POST", path, json=body, **options)


async def command(running: RunningProxy, *arguments: str, typed: str = "") -> Result:
    environ = {"SERINUS_ADMIN": running.admin_url, "COLUMNS": "200"}
    return await asyncio.to_thread(CliRunner().invoke, main, ["keys", *arguments], typed, environ)


async def audited(running: RunningProxy) -> list[tuple[str, str]]:
    """What was recorded, and who did it."""
    async with running.serinus.recorder._in_turn:
        path = running.serinus.recorder.audit.path.absolute()
    assert audit.verify(path).first_broken is None
    return [(entry.what, entry.who) for entry in audit.read(path, 100)]


async def test_rotation_by_command(start):
    running, upstream = await start(Vendor("old", MARKER), environ=MASTER)
    result = await command(running, "rotate", "up", "main", typed=f"{MARKER}\n")
    assert (result.exit_code, result.output) == (0, f"up/main {fingerprint(MARKER)}: accepted, and in force\n")
    assert (await ask(running.port, post())).status == 200
    assert upstream.requests[-1].field(b"authorization") == f"Bearer {MARKER}".encode()
    listed = await command(running, "list")
    assert listed.exit_code == 0
    assert fingerprint(MARKER) in listed.output
    (key,) = msgspec.json.decode((await command(running, "list", "--json")).output)
    assert (key["key"], key["state"], key["rotation"]) == ("main", "active", "rotated")
    assert MARKER not in listed.output + str(running.events) + str(await audited(running))


async def test_rotation_to_an_invalid_value_changes_nothing_and_is_told_in_four_places(start):
    running, upstream = await start(Vendor("old"))
    result = await command(running, "rotate", "up", "main", "--until-restart", typed="mistyped")
    assert (result.exit_code, result.output) == (1, f"up/main {fingerprint('mistyped')}: refused: status 401\n")
    (event,) = running.events.named("key_rotation_failed")
    assert event["key"] == "up/main"
    assert 'serinus_key_rotations_total{result="refused"} 1.0' in (await call(running, "/metrics")).text
    key = (await call(running, "/status")).json()["upstreams"]["up"]["keys"]["main"]
    assert (key["rotation"], key["rotation_said"], key["fingerprint"]) == ("refused", "status 401", fingerprint("old"))
    assert (await ask(running.port, post())).status == 200
    assert upstream.requests[-1].field(b"authorization") == b"Bearer old"
    assert ("key_rotation_refused", "anyone") in await audited(running)


async def test_without_a_master_key_a_value_lasts_until_the_restart_and_only_if_that_is_said(start):
    running, _ = await start(Vendor("old", "new"), environ={})
    refused = await command(running, "rotate", "up", "main", typed="new")
    assert (refused.exit_code, "without a master key" in refused.output) == (1, True)
    assert (await command(running, "rotate", "up", "main", "--until-restart", typed="new")).exit_code == 0


async def test_rotated_value_survives_a_restart_until_the_configuration_has_another(scripted, proxy, tmp_path):
    upstream = await scripted(Vendor("old", "new", "newest"))
    text = f"state_dir: {tmp_path}/state\n" + config(upstream.url, overlap="share: 0%")

    async def serve(text: str) -> bytes:
        running = await proxy(text, environ=MASTER)
        running.serinus._tasks.spawn(running.serinus.checks.run())
        assert (await ask(running.port, post())).status == 200
        sent = upstream.requests[-1].field(b"authorization")
        if sent == b"Bearer old":
            assert (await command(running, "rotate", "up", "main", typed="new")).exit_code == 0
        await running.stop()
        return sent

    assert [await serve(text), await serve(text), await serve(text)] == [b"Bearer old", b"Bearer new", b"Bearer new"]
    assert b"new" not in (tmp_path / "state" / "keys.json").read_bytes().replace(b".new", b"")
    assert await serve(text.replace("value: old", "value: newest")) == b"Bearer newest"


async def test_revoked_value_stays_revoked_after_a_restart(scripted, proxy, tmp_path):
    upstream = await scripted(Vendor("old"))
    text = f"state_dir: {tmp_path}/state\n" + config(upstream.url)
    running = await proxy(text)
    result = await command(running, "revoke", "up", "main")
    assert (result.exit_code, "revoked; 0 requests were ended" in result.output) == (0, True)
    assert (await ask(running.port, post())).status == 502
    assert ("key_revocation_asked", "anyone") in await audited(running)
    await running.stop()
    again = await proxy(text)
    assert (await ask(again.port, post())).status == 502
    assert upstream.requests == []
    (key,) = (await call(again, "/keys")).json()["keys"]
    assert key["state"] == "revoked"


async def test_revoking_now_ends_what_holds_the_value_and_else_nothing_does(start):
    running, _ = await start(held := Held(), checking=False)
    callers = [await RawCaller.connect(running.port) for _ in range(2)]
    for caller in callers:
        await caller.send(post())
        await caller.read_until(Held.FIRST)
    assert (await call(running, "/keys/up/main/revoke", {})).json()["cut"] == 0
    assert running.inflight() == 2
    assert (await call(running, "/keys/up/main/revoke", {"now": True})).json()["cut"] == 2
    for caller in callers:
        assert await caller.read_rest() == b""
    assert running.inflight() == 0
    held.may_end.set()


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/keys/up/other/rotate", {"value": "x", "until_restart": True}, 404, "there is no key up/other"),
        ("/keys/none/main/revoke", {}, 404, "there are: up/main"),
        ("/keys/up/main/rotate", {"value": "old", "until_restart": True}, 409, "is the one in force"),
        ("/keys/up/main/rotate", {"value": "", "until_restart": True}, 400, "no header can carry it"),
        ("/keys/up/main/rotate", {"value": "a\nb", "until_restart": True}, 400, "no header can carry it"),
        ("/keys/up/main/rotate", {"value": 7}, 400, "send one JSON object with: value, until_restart"),
        ("/keys/up/main/rotate", {"valeu": MARKER}, 400, "send one JSON object with: value, until_restart"),
        ("/keys/up/main/rotate", [], 400, "send one JSON object"),
    ],
)
async def test_what_makes_no_sense_is_told(path, body, status, said, start):
    running, _ = await start(Vendor("old"), checking=False)
    answer = await call(running, path, body)
    assert (answer.status_code, said in answer.json()["error"], MARKER in answer.text) == (status, True, False)


async def test_upstream_that_says_nothing_is_asked_again(start):
    running, upstream = await start(vendor := Vendor("old", "new"), environ=MASTER, overlap="share: 0%")
    vendor.models["new"] = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    running.serinus.keyring._dice = lambda: 1.0  # a second
    asking = asyncio.get_running_loop().create_task(command(running, "rotate", "up", "main", typed="new"))
    for asked in (1, 2, 3):
        await upstream.until(lambda asked=asked: vendor.probes.count("new") == asked)
        await running.until(lambda: not running.serinus.checks._running)
        running.pass_time(2)
    assert ("key_rotation_asked", "anyone") in await audited(running)  # so its caller waits by now
    assert not asking.done()
    running.pass_time(7)
    result = await asking
    assert (result.exit_code, "not yet known whether it is accepted" in result.output) == (0, True)
    assert (await ask(running.port, post())).status == 200
    assert upstream.requests[-1].field(b"authorization") == b"Bearer old"


async def test_audit_log_is_shown_and_verified(start):
    running, _ = await start(Vendor("old"), checking=False)
    await call(running, "/reload", {})
    await call(running, "/keys/up/main/revoke", {})
    environ = {"SERINUS_ADMIN": running.admin_url, "COLUMNS": "200"}
    arguments = ["status", "--audit"]
    shown = await asyncio.to_thread(CliRunner().invoke, main, arguments, None, environ)
    assert shown.exit_code == 0
    for word in ("configuration_reloaded", "key_revocation_asked", "127.0.0.1", "and the chain holds"):
        assert word in shown.output
    path = running.serinus.recorder.audit.path
    path.write_text(path.read_text().replace("key_revocation_asked", "nothing_was_asked_for"))
    shown = await asyncio.to_thread(CliRunner().invoke, main, arguments, None, environ)
    assert (shown.exit_code, "is not what was written: line" in shown.output) == (1, True)
    assert (await call(running, "/audit?last=x")).status_code == 400
