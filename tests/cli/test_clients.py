"""`serinus clients`, as a shell sees it: a key alone on standard output, and the clients of a running proxy."""

import asyncio
import json

import pytest
import yaml
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.controlplane.load import parse
from proxy.model.client_keys import digest, is_well_formed
from proxy.model.settings import Settings
from tests.support.raw import RawCaller, ask
from tests.support.running import RunningProxy
from tests.support.scripted import Held, answering, whole

REST = """
upstreams: {up: {base_url: 'http://127.0.0.1:9', keys: [{name: main, value: env:NOT_HERE}]}}
pools: {chat: {members: [{upstream: up}]}}
routes: [{prefix: /v1, pool: chat}]
"""


def run(*arguments: str, **environ: str) -> Result:
    result = CliRunner(env={"COLUMNS": "200", **environ}).invoke(main, ["clients", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def settings_of(listing: str, more: str = "") -> Settings:
    rest = REST.replace("env:NOT_HERE", "k") + more
    return parse(f"clients:\n{listing}\n{rest}", {"PEPPER": "p3pper"}).settings


# --- new, which asks nobody ------------------------------------------------------------------------------------------


def test_new_prints_the_key_alone_and_beside_it_what_to_list():
    result = run("new", "web-app")
    assert result.exit_code == 0
    key = result.stdout.removesuffix("\n")
    assert is_well_formed(key)
    assert key not in result.stderr
    (client,) = settings_of(result.stderr[result.stderr.index("  - name:") :]).clients
    assert client.name == "web-app"
    assert client.key_hashes == ("sha256:" + digest(key.encode(), None).hex(),)
    assert run("new", "web-app").stdout != result.stdout


def test_new_uses_the_pepper_of_a_configuration_whose_other_secrets_are_elsewhere(tmp_path):
    file = tmp_path / "serinus.yaml"
    file.write_text(REST + "client_pepper: env:PEPPER\n")
    found = json.loads(run("new", "web", "--json", "--config", str(file), PEPPER="p3pper").stdout)
    assert found == {
        "name": "web",
        "key": found["key"],
        "key_hash": "hmac-sha256:" + digest(found["key"].encode(), b"p3pper").hex(),
    }
    listing = yaml.safe_dump([{"name": "web", "key_hash": found["key_hash"]}])
    assert settings_of(listing, "client_pepper: env:PEPPER\n").clients[0].key_hashes == (found["key_hash"],)


def test_new_takes_a_pepper_from_a_file_beside_the_configuration_or_of_assignments(tmp_path):
    file, pepper, assigned = tmp_path / "serinus.yaml", tmp_path / "pepper", tmp_path / "env"
    pepper.write_text("p3pper\n")
    pepper.chmod(0o600)
    assigned.write_text("PEPPER=p3pper\n")
    for text, more in (("file:pepper", []), ("env:PEPPER", ["--env-file", str(assigned)])):
        file.write_text(f"{REST}client_pepper: {text}\n")
        found = json.loads(run("new", "web", "--json", "--config", str(file), *more).stdout)
        assert found["key_hash"].endswith(digest(found["key"].encode(), b"p3pper").hex())


def test_new_without_a_pepper_in_the_configuration_hashes_plainly(tmp_path):
    file = tmp_path / "serinus.yaml"
    file.write_text(REST)
    assert "key_hash: sha256:" in run("new", "web", "--config", str(file)).stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("client_pepper: env:SERINUS_NO_SUCH", "client_pepper: the environment variable SERINUS_NO_SUCH is not set"),
        ("client_pepper: [p]", "client_pepper: not a text: write env:NAME or file:/path"),
        ("client_pepper: a\nclient_pepper: b", "here for a second time"),
        ("a: [", "serinus.yaml:1"),
        (None, "no such file or directory"),
    ],
)
def test_pepper_that_cannot_be_read_makes_no_key(tmp_path, content, said):
    file = tmp_path / "serinus.yaml"
    if content is not None:
        file.write_text(content)
    result = run("new", "web", "--config", str(file))
    assert (result.exit_code, result.stdout, said in result.stderr) == (1, "", True), result.stderr


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "x" * 65])
def test_what_is_no_name_is_refused(name):
    result = run("new", "--", name)
    assert (result.exit_code, result.stdout, "write up to 64 letters" in result.stderr) == (2, "", True)


# --- a running proxy -------------------------------------------------------------------------------------------------


@pytest.fixture
def start(scripted, proxy):
    async def start(script=None) -> RunningProxy:
        upstream = await scripted(script or answering(whole(b"{}")))
        rest = REST.replace("http://127.0.0.1:9", upstream.url).replace("env:NOT_HERE", "k")
        return await proxy(f"clients: [{{name: web, key: client-key, models: [m]}}]\n{rest}")

    return start


async def command(running: RunningProxy, *arguments: str) -> Result:
    """In a thread: it blocks, and the proxy that it asks is in this one."""
    return await asyncio.to_thread(run, *arguments, SERINUS_ADMIN=running.admin_url)


def request(key: str) -> bytes:
    return b"GET /v1/files HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer %b\r\n\r\n" % key.encode()


async def status(running: RunningProxy, key: str) -> int:
    return (await ask(running.port, request(key))).status


async def test_issue_prints_the_key_alone_which_serves_at_once(start):
    running = await start()
    limits = ("--requests-per-minute", "5", "--tokens-per-minute", "6000", "--concurrent", "2")
    result = await command(running, "issue", "new", "--expires", "7d", "--model", "m-*", "--model", "n", *limits)
    assert result.exit_code == 0, result.output
    key = result.stdout.removesuffix("\n")
    assert is_well_formed(key)
    assert "issued, expires 20" in result.stderr
    assert key not in result.stderr
    (client,) = [
        each for each in json.loads((await command(running, "list", "--json")).stdout) if each["name"] == "new"
    ]
    assert client["models"] == ["m-*", "n"]
    assert client["limits"] == {"requests_per_minute": 5, "tokens_per_minute": 6000, "concurrent": 2}
    plain = await command(running, "issue", "other", "--json")
    found = json.loads(plain.stdout)
    assert (plain.stderr, found["expires"], found["not_kept"]) == ("", None, "")
    assert await status(running, found["key"]) == 200


async def test_list_shows_clients_and_their_keys(start):
    running = await start()
    key = (await command(running, "issue", "web")).stdout.strip()
    shown = await command(running, "list")
    assert shown.exit_code == 0
    header, first, second = shown.output.splitlines()[-3:]
    assert "refused" in header
    assert [first.split()[0], *first.split()[2:5]] == ["web", "active", "-", "listed"]
    assert (second.split()[0], second.split()[1]) == (digest(key.encode(), None).hex()[:8], "active")
    assert "by anyone" in second
    assert key not in shown.output


async def test_expire_and_revoke(start):
    running = await start()
    issued = json.loads((await command(running, "issue", "web", "--json")).stdout)
    key, fingerprint = issued["key"], issued["fingerprint"]
    result = await command(running, "expire", "web", fingerprint, "2099-01-31T18:00:00Z")
    assert (result.exit_code, result.output) == (0, f"web {fingerprint}: expires 2099-01-31T18:00:00Z\n")
    result = await command(running, "revoke", "web", fingerprint)
    assert (result.exit_code, result.output) == (0, f"web {fingerprint}: revoked; 0 requests were ended\n")
    assert [await status(running, each) for each in (key, "client-key")] == [401, 200]
    assert (await command(running, "revoke", "web")).exit_code == 0
    assert await status(running, "client-key") == 401


async def test_revoke_now_ends_what_came_with_it(start):
    running = await start(held := Held())
    caller = await RawCaller.connect(running.port)
    await caller.send(request("client-key"))
    await caller.read_until(Held.FIRST)
    result = await command(running, "revoke", "web", "--now")
    assert "revoked; 1 requests were ended" in result.output
    assert await caller.read_rest() == b""
    held.may_end.set()


async def test_what_could_not_be_kept_is_an_error_after_the_key(start):
    running = await start()
    running.serinus.recorder.clients._file.path.absolute().mkdir()
    result = await command(running, "issue", "web")
    assert (result.exit_code, is_well_formed(result.stdout.strip())) == (1, True)
    assert "it is in force, but until the next restart only: " in result.stderr


async def test_refusals_are_told(start):
    running = await start()
    for arguments, said in (
        (("issue", "web", "--model", "x"), "answers 409: the client 'web' has models and limits already"),
        (("expire", "web", "12345678", "soon"), "answers 400: expires: 'soon' is no moment"),
        (("revoke", "nobody"), "answers 404: no client is called 'nobody'"),
    ):
        result = await command(running, *arguments)
        assert (result.exit_code, said in result.stderr, result.stdout) == (1, True, ""), result.output
