"""`serinus serve` as a process: signals, exit codes, and what it says. How it ends is also in test_ending.py."""

import json
import signal
import socket

import httpx2
import pytest

from proxy.controlplane.state_dir import locked
from tests.support.authority import Authority, shown, written
from tests.support.process import SerinusProcess
from tests.support.raw import RawCaller, ask, get
from tests.support.running import config_for
from tests.support.scripted import Held, answering, whole

ADMIN = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nstate_dir: state\npre_drain: 0s\n"
UP = "http://127.0.0.1:1/v1"


@pytest.fixture
async def serinus(tmp_path):
    process = SerinusProcess(tmp_path)
    yield process
    await process.kill()


async def begun(port):
    """A caller in the middle of a stream."""
    caller = await RawCaller.connect(port)
    await caller.send(get())
    await caller.read_until(Held.FIRST)
    return caller


# --- serving -----------------------------------------------------------------------------------------------------


async def test_it_serves_and_ends_with_success(serinus, scripted):
    upstream = await scripted(answering(whole(b"{}")))
    await serinus.start(ADMIN + config_for(upstream.url))
    port = await serinus.serving()
    assert (await ask(port, get())).payload == b"{}"
    logged = await serinus.until("request")
    assert (logged["status"], logged["client"], logged["outcome"]) == (200, "tester", "ok")
    serinus.send(signal.SIGINT)
    assert await serinus.ended() == 0
    assert (json.loads(serinus.said[-1])["event"], json.loads(serinus.said[-1])["cut_requests"]) == ("stopped", 0)


async def test_hangup_reloads(serinus, scripted):
    old, new = await scripted(answering(whole(b"old"))), await scripted(answering(whole(b"new")))
    await serinus.start(ADMIN + config_for(old.url), "--no-watch")
    port = await serinus.serving()
    serinus.file.write_text("routes: [")
    serinus.send(signal.SIGHUP)
    rejected = await serinus.until("config_rejected")
    assert (rejected["level"], rejected["generation_in_force"]) == ("error", 1)
    assert (await ask(port, get())).payload == b"old"
    serinus.file.write_text(ADMIN + config_for(new.url))
    serinus.send(signal.SIGHUP)
    assert (await serinus.until("config_applied"))["generation"] == 2
    assert (await ask(port, get())).payload == b"new"


def written_in_place(file, text):
    file.write_text(text)


def renamed_into_its_place(file, text):
    """As editors do."""
    beside = file.with_name("serinus.yaml~")
    beside.write_text(text)
    beside.rename(file)


def mounted_anew(file, text):
    """As Kubernetes does."""
    folder = file.parent / f"..{len(list(file.parent.glob('..*')))}"
    folder.mkdir()
    (folder / file.name).write_text(text)
    (file.parent / "..data_tmp").symlink_to(folder.name)
    (file.parent / "..data_tmp").rename(file.parent / "..data")
    if not file.is_symlink():
        file.unlink(missing_ok=True)
        file.symlink_to(f"..data/{file.name}")


@pytest.mark.parametrize("changed", [written_in_place, renamed_into_its_place, mounted_anew])
async def test_changed_file_is_put_in_force_by_itself(serinus, scripted, changed):
    old, new = await scripted(answering(whole(b"old"))), await scripted(answering(whole(b"new")))
    await serinus.start(ADMIN + config_for(old.url))
    port = await serinus.serving()
    for generation, upstream, answer in ((2, new, b"new"), (3, old, b"old")):
        changed(serinus.file, ADMIN + config_for(upstream.url))
        assert (await serinus.until("config_applied"))["generation"] == generation
        assert (await ask(port, get())).payload == answer
    changed(serinus.file, "routes: [")
    rejected = await serinus.until("config_rejected")
    assert (rejected["level"], rejected["generation_in_force"]) == ("error", 3)
    assert (await ask(port, get())).payload == b"old"


@pytest.mark.parametrize("by_signal", [True, False])
async def test_env_file_has_the_secrets_and_is_read_again(serinus, scripted, tmp_path, by_signal):
    upstream = await scripted(answering(whole(b"{}")))
    config = ADMIN + config_for(upstream.url).replace("value: upstream-key-0", "value: env:UPSTREAM_KEY")
    config += "overlap: {share: 0%}\n"
    env_file = tmp_path / ".env"
    env_file.write_text("UPSTREAM_KEY=first\n")
    watch = "--no-watch" if by_signal else "--watch"
    await serinus.start(config, watch, "--env-file", str(env_file), UPSTREAM_KEY="outer")
    port = await serinus.serving()
    await ask(port, get())
    env_file.write_text("UPSTREAM_KEY=second\n")
    if by_signal:
        serinus.send(signal.SIGHUP)
    await serinus.until("key_rotated")
    await ask(port, get())
    seen = [request.field(b"authorization") for request in upstream.requests]
    assert (seen[0], seen[-1]) == (b"Bearer first", b"Bearer second")


@pytest.mark.parametrize("meanwhile", [None, "routes: [", "unapplied"])
async def test_key_in_a_file_is_rotated_by_whoever_writes_it(serinus, scripted, tmp_path, meanwhile):
    """`meanwhile`: what the configuration's file holds by then, which nobody has asked to put in force."""
    upstream = await scripted(answering(whole(b"{}")))
    secrets = tmp_path / "secrets"  # as Kubernetes mounts them
    for version in ("first", "second"):
        (secrets / version).mkdir(parents=True)
        (secrets / version / "key").write_text(f"{version}\n")
        (secrets / version / "key").chmod(0o640)
    (secrets / "..data").symlink_to("first")
    (secrets / "key").symlink_to("..data/key")
    config = ADMIN + config_for(upstream.url).replace("value: upstream-key-0", f"value: 'file:{secrets}/key'")
    await serinus.start(config + "overlap: {share: 0%}\n", "--no-watch")
    port = await serinus.serving()
    await ask(port, get())
    if meanwhile is not None:
        serinus.file.write_text(
            meanwhile if meanwhile != "unapplied" else serinus.file.read_text().replace("/v1", "/v2")
        )
    (secrets / "..next").symlink_to("second")
    (secrets / "..next").rename(secrets / "..data")
    await serinus.until("key_rotated")
    await ask(port, get())
    seen = [request.field(b"authorization") for request in upstream.requests]
    assert (seen[0], seen[-1]) == (b"Bearer first", b"Bearer second")


async def test_certificate_is_renewed_by_whoever_writes_it(serinus, tmp_path):
    mounted = tmp_path / "mounted"  # as Kubernetes does it
    mounted.mkdir()
    for version in ("first", "second"):
        cert, key = Authority(mounted / version).issue("localhost")
    (mounted / "..data").symlink_to("first")
    for file in (cert, key):
        (mounted / file.name).symlink_to(f"..data/{file.name}")
    tls = f"tls: {{cert: mounted/{cert.name}, key: mounted/{key.name}}}"
    listen = f"listen: [{{address: 127.0.0.1:0, {tls}}}]"
    config = ADMIN.replace("listen: 127.0.0.1:0", listen, 1) + config_for(UP, clients=False, keys=False)
    await serinus.start(config)
    port = await serinus.serving()
    assert await shown(port) == written(mounted / "first" / cert.name)
    (mounted / "..next").symlink_to("second")
    (mounted / "..next").rename(mounted / "..data")
    renewed = await serinus.until("certificate_renewed")
    assert renewed["listener"] == "127.0.0.1:0"
    assert await shown(port) == written(cert)


async def test_level_of_the_log_changes_while_it_serves(serinus):
    config = ADMIN + config_for(UP, clients=False, keys=False)
    await serinus.start(config, "--no-watch")
    admin = (await serinus.until("serving"))["admin"][1]
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{admin}", trust_env=False) as client:
        for text in ("log: {level: error}\n" + config, "routes: [", config):
            serinus.file.write_text(text)
            await client.post("/reload", json={})
    assert (await serinus.until("config_applied"))["generation"] == 3
    assert [json.loads(line)["event"] for line in serinus.said] == ["serving", "config_rejected", "config_applied"]


# --- ending ------------------------------------------------------------------------------------------------------


async def test_open_stream_ends_whole_before_the_process_does(serinus, scripted):
    held = Held()
    await serinus.start(ADMIN + config_for((await scripted(held)).url))
    caller = await begun(await serinus.serving())
    serinus.send(signal.SIGTERM)
    assert (await serinus.until("draining"))["open_requests"] == 1
    held.may_end.set()
    assert await caller.read_rest() == Held.LAST
    assert await serinus.ended() == 0
    assert json.loads(serinus.said[-1])["cut_requests"] == 0
    caller.close()


# --- not even starting -------------------------------------------------------------------------------------------


async def test_invalid_configuration_is_told_whole(serinus):
    await serinus.start("listen: 8080\nupstreams: {up: {base_url: nonsense}}\npools: {}\nroutes: [{prefix: v1}]\n")
    assert await serinus.ended() == 1
    assert [line.removeprefix(f"{serinus.file}:").split(": ")[:2] for line in serinus.said] == [
        ["1", "listen"],
        ["2", "upstreams.up.base_url"],
        ["3", "pools"],
        ["4", "routes[0]"],
        ["4", "routes[0].prefix"],
    ]


async def test_absent_configuration_is_named(serinus, tmp_path):
    await serinus.start("", "--config", str(tmp_path / "absent.yaml"))
    assert await serinus.ended() == 1
    assert serinus.said == [f"{tmp_path}/absent.yaml: no such file or directory\n"]


async def test_state_of_another_is_left_alone(serinus, tmp_path):
    with locked(tmp_path / "state"):
        await serinus.start(ADMIN + config_for(UP, clients=False, keys=False))
        assert await serinus.ended() == 1
    assert serinus.said == [
        "Error: state_dir state is in use by another Serinus: stop it, or give this one a directory of its own\n"
    ]


@pytest.mark.parametrize("which", ["listen: 127.0.0.1:{}", "admin: {{listen: 127.0.0.1:{}}}"])
async def test_port_that_is_taken_is_named(serinus, which):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        kept = [line for line in ADMIN.splitlines() if not line.startswith(which[:6])]
        config = "\n".join([*kept, which.format(port), config_for(UP, clients=False, keys=False)])
        await serinus.start(config)
        assert await serinus.ended() == 1
    error = serinus.said[-1]
    assert error.startswith(f"Error: cannot listen on 127.0.0.1:{port}: ")
    setting = "admin.listen" if "admin" in which else "listen"
    assert error.endswith(f"address already in use: end what serves there, or write another {setting}\n")
    assert "Traceback" not in "".join(serinus.said)


async def test_unusable_certificate_is_named(serinus, tmp_path):
    (tmp_path / "pem").write_text("nothing of the kind\n")
    (tmp_path / "pem").chmod(0o600)
    listen = "listen: [{address: 127.0.0.1:0, tls: {cert: pem, key: pem}}]"
    await serinus.start(ADMIN.replace("listen: 127.0.0.1:0", listen, 1) + config_for(UP, clients=False, keys=False))
    assert await serinus.ended() == 1
    assert serinus.said[-1].startswith("configuration: listen[0].tls: the certificate and key cannot be used together")
