"""Certificates as their files change: which is shown, what is said of those that are of no use, and when one ends."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from prometheus_client import parser

from proxy.controlplane.certificates import Certificates
from proxy.controlplane.load import parse
from proxy.controlplane.reload import Applied, Rejected
from proxy.controlplane.status import Status
from proxy.controlplane.watched_files import WatchedFiles
from tests.support.authority import Authority, shown, written
from tests.support.raw import ask, get
from tests.support.running import Events, config_for, recording_log

UP = "http://127.0.0.1:1/v1"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


@pytest.fixture
def files(authority, tmp_path):
    """The certificate and key that listeners name."""
    (tmp_path / "tls").mkdir()
    return authority.issue("localhost", folder=tmp_path / "tls")


@pytest.fixture
def another(authority):
    """Another certificate and its key, elsewhere."""
    return authority.issue("localhost")


def speaking(files, client_ca=None, admin=""):
    """A configuration with TLS on its listener."""
    cert, key = files
    callers = "" if client_ca is None else f", client_ca: '{client_ca}'"
    listen = f"listen: [{{address: 127.0.0.1:0, tls: {{cert: '{cert}', key: '{key}'{callers}}}}}]"
    admin = f"admin: {{listen: 127.0.0.1:0{admin}}}"
    return config_for(UP, keys=False, clients=False, top=f"{listen}\n{admin}")


@pytest.fixture
def start(proxy, tmp_path):
    """Starts a proxy; then `reload(config)` writes another configuration to its file, and has it read."""

    async def start(config):
        file = tmp_path / "serinus.yaml"
        running = await proxy(config, path=file)

        async def reload(config):
            file.write_text(config)
            return await running.serinus.reloader.reload()

        return running, reload

    return start


@pytest.fixture
async def watching():
    """Has a proxy watch its certificates' files."""
    tasks = []

    async def watch(running):
        tasks.append(asyncio.get_running_loop().create_task(running.serinus.certificate_files.run()))
        await asyncio.sleep(0)  # it watches from its first step

    yield watch
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def certificates(running):
    """What `serinus status` says of each."""
    status: Status = running.serinus.admin.status(60.0)
    return [certificate.remark for certificate in status.certificates.values()]


def put(files, others):
    """The content of other files into these."""
    for file, other in zip(files, others, strict=True):
        file.write_bytes(other.read_bytes())


# --- renewed by whoever writes the files -------------------------------------------------------------------------


def swapped(folder, files, another):
    """As Kubernetes does it."""
    (folder / "..next").symlink_to(another[0].parent)
    (folder / "..next").rename(folder / "..data")


def renamed(folder, files, another):
    """As editors and certbot do it."""
    for file, other in zip(files, another, strict=True):
        temporary = file.with_suffix(".new")
        temporary.symlink_to(other)
        temporary.rename(file)


@pytest.mark.parametrize("how", [swapped, renamed])
async def test_files_that_change_are_read_again(how, authority, start, watching, tmp_path):
    for version in ("first", "second"):
        (tmp_path / version).mkdir()
    authority.issue("localhost", folder=tmp_path / "first")
    another = authority.issue("localhost", folder=tmp_path / "second")
    folder = tmp_path / "mounted"
    folder.mkdir()
    (folder / "..data").symlink_to(tmp_path / "first")
    files = tuple(folder / file.name for file in another)
    for file in files:
        file.symlink_to(f"..data/{file.name}")
    running, _ = await start(speaking(files))
    await watching(running)
    how(folder, files, another)
    await running.until(lambda: running.events.named("certificate_renewed"))
    await running.serinus.certificates.renew()  # the second file, too
    assert await shown(running.port) == written(another[0])


async def test_certificate_that_comes_before_its_key_waits_for_it(files, another, start, watching):
    running, _ = await start(speaking(files))
    before = written(files[0])
    await watching(running)
    put(files[:1], another[:1])
    await running.until(lambda: running.events.named("certificate_not_renewed"))
    assert await shown(running.port) == before
    put(files[1:], another[1:])
    await running.until(lambda: running.events.named("certificate_renewed"))
    assert await shown(running.port) == written(another[0])


async def test_changes_that_nobody_is_told_of_are_found(tmp_path):
    looked = asyncio.Event()

    async def look():
        looked.set()

    watcher = WatchedFiles([tmp_path / "cert"], look, recording_log(Events()), look_s=0.001)
    task = asyncio.get_running_loop().create_task(watcher.run())
    async with asyncio.timeout(10):
        await looked.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# --- of no use ---------------------------------------------------------------------------------------------------

BROKEN = {
    "a certificate whose key is not there yet": (
        lambda cert, key, ca, another: cert.write_bytes(another[0].read_bytes()),
        "listen[0].tls: the certificate and key cannot be used together (KEY_VALUES_MISMATCH)",
    ),
    "a key whose certificate is not there yet": (
        lambda cert, key, ca, another: key.write_bytes(another[1].read_bytes()),
        "listen[0].tls: the certificate and key cannot be used together (KEY_VALUES_MISMATCH)",
    ),
    "half a certificate": (
        lambda cert, key, ca, another: cert.write_bytes(another[0].read_bytes()[:300]),
        "listen[0].tls: the certificate and key cannot be used together (",
    ),
    "half a key": (
        lambda cert, key, ca, another: key.write_bytes(key.read_bytes()[:100]),
        "listen[0].tls: the certificate and key cannot be used together (",
    ),
    "no certificate": (
        lambda cert, key, ca, another: cert.unlink(),
        "listen[0].tls.cert: {cert} cannot be read: no such file or directory",
    ),
    "a key that all users may read": (
        lambda cert, key, ca, another: key.chmod(0o644),
        "listen[0].tls.key: {key} is open to all users: chmod 640 it",
    ),
    "no authorities": (
        lambda cert, key, ca, another: ca.write_bytes(b""),
        "listen[0].tls.client_ca: {ca} holds no PEM certificates of authorities",
    ),
    "half an authority after a whole one": (
        lambda cert, key, ca, another: ca.write_bytes(ca.read_bytes() + ca.read_bytes()[:300]),
        "listen[0].tls.client_ca: {ca} holds no PEM certificates of authorities",
    ),
}


@pytest.mark.parametrize("breaking", BROKEN)
async def test_what_is_of_no_use_leaves_the_certificate_before_in_force(
    breaking, authority, files, another, start, tmp_path
):
    ca = tmp_path / "tls" / "callers.pem"
    ca.write_bytes(authority.ca_file.read_bytes())
    running, _ = await start(speaking(files, client_ca=ca))
    before, good = written(files[0]), [(file, file.read_bytes()) for file in (*files, ca)]
    certificate_renewal = running.serinus.certificates.renew
    spoil, said = BROKEN[breaking]
    spoil(*files, ca, another)
    for _ in range(2):
        await certificate_renewal()
    (event,) = running.events.named("certificate_not_renewed")  # once, however often it is looked at
    assert event["level"] == "warning"
    assert event["problem"].startswith("configuration: " + said.format(cert=files[0], key=files[1], ca=ca))
    assert certificates(running) == [f"not renewed: {event['problem']}"]
    context = authority.trusting(authority.issue("caller"))
    _, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context, server_hostname="localhost")
    assert writer.get_extra_info("ssl_object").getpeercert(binary_form=True) == before
    writer.transport.abort()
    for file, content in good:
        file.write_bytes(content)
        file.chmod(0o640)
    await certificate_renewal()
    assert certificates(running) == [""]
    assert not running.events.named("certificate_renewed")  # it is the one that serves
    put(files, another)
    await certificate_renewal()
    assert await shown(running.port) == written(another[0])


# --- another configuration ---------------------------------------------------------------------------------------


async def test_reload_that_names_other_files_shows_them_at_once(files, another, start, watching):
    running, reload = await start(speaking(files))
    assert await reload(speaking(another)) == Applied(2, (), ())
    assert await shown(running.port) == written(another[0])
    await watching(running)
    put(another, files)
    await running.until(lambda: len(running.events.named("certificate_renewed")) == 2)
    assert await shown(running.port) == written(files[0])


async def test_reload_that_names_files_of_no_use_changes_nothing(files, another, start):
    running, reload = await start(speaking(files))
    rejected = await reload(speaking((files[0], another[1])).replace(UP, "http://127.0.0.1:2/v1"))
    assert isinstance(rejected, Rejected)
    assert rejected.generation == 1
    (problem,) = rejected.problems
    assert problem.startswith("configuration: listen[0].tls: the certificate and key cannot be used together (KEY_")
    assert await shown(running.port) == written(files[0])


async def test_reload_looks_at_the_same_files_again(files, another, start):
    running, reload = await start(speaking(files))
    put(files, another)
    await reload(speaking(files))
    assert await shown(running.port) == written(another[0])


async def test_half_written_files_stop_no_reload(files, another, start):
    running, reload = await start(speaking(files))
    before = written(files[0])
    put(files[:1], another[:1])
    assert await reload(speaking(files)) == Applied(2, (), ())
    assert running.events.named("certificate_not_renewed")
    assert await shown(running.port) == before


async def test_admin_listener_that_is_to_speak_tls_needs_a_restart(files, start):
    _, reload = await start(speaking(files))
    admin = f", tls: {{cert: '{files[0]}', key: '{files[1]}'}}"
    assert (await reload(speaking(files, admin=admin))).need_restart == ("admin.tls",)


# --- the end of one ----------------------------------------------------------------------------------------------


def in_days(days):
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


async def test_metrics_have_the_end(authority, start):
    ends = in_days(90)
    running, _ = await start(speaking(authority.issue("localhost", not_after=ends)))
    async with httpx2.AsyncClient(base_url=running.admin_url, trust_env=False) as client:
        text = (await client.get("/metrics")).text
    found = {family.name: family.samples for family in parser.text_string_to_metric_families(text)}
    ((_, labels, value, *_),) = found["serinus_certificate_expiry_timestamp_seconds"]
    assert (labels, value) == ({"listener": "127.0.0.1:0"}, ends.timestamp())
    assert not running.events.named("certificate_expires")
    assert certificates(running) == [""]


@pytest.mark.parametrize(("days", "said"), [(10, "in 10 days: renew it"), (-3, ": callers refuse it; renew it")])
async def test_end_that_is_near_is_warned_of(days, said, authority, files, start):
    running, _ = await start(speaking(files))
    authority.issue("localhost", folder=files[0].parent, not_after=in_days(days))
    await running.serinus.certificates.renew()
    await running.serinus.certificates.renew()
    (event,) = running.events.named("certificate_expires")
    assert (event["level"], event["listener"]) == ("warning", "127.0.0.1:0")
    assert event["problem"].startswith(f"{files[0]} expire")
    assert event["problem"].endswith(said)
    (remark,) = certificates(running)
    assert event["problem"] == f"{files[0]} {remark}"


async def test_end_that_is_near_is_warned_of_at_the_start(authority, start):
    running, _ = await start(speaking(authority.issue("localhost", not_after=in_days(1))))
    assert len(running.events.named("certificate_expires")) == 1


async def test_end_that_comes_near_while_it_serves_is_warned_of_once_and_when_it_is_there(authority):
    ends = in_days(90)
    now, events = [(ends - timedelta(days=15)).timestamp()], Events()
    settings = parse(speaking(authority.issue("localhost", not_after=ends)), {}).settings
    certificates = Certificates(settings, lambda: now[0], recording_log(events))
    for days, warned in ((-15, 0), (-14, 1), (-3, 1), (0, 2), (1, 2)):
        now[0] = (ends + timedelta(days=days)).timestamp()
        await certificates.renew()
        assert len(events.named("certificate_expires")) == warned
    assert "expired at" in str(events[-1]["problem"])


# --- the admin listener ------------------------------------------------------------------------------------------


async def test_admin_api_over_tls_shows_what_is_renewed(authority, files, another, start):
    callers = f", tls: {{cert: '{files[0]}', key: '{files[1]}', client_ca: '{authority.ca_file}'}}"
    running, _ = await start(speaking(files, admin=callers))
    admin = running.serinus.admin_address[1]
    put(files, another)
    await running.serinus.certificates.renew()
    assert (await shown(admin), await shown(running.port)) == (written(another[0]), written(another[0]))
    url = f"https://localhost:{admin}"
    known = authority.trusting(authority.issue("operator"))
    async with httpx2.AsyncClient(base_url=url, verify=known, trust_env=False) as client:
        assert (await client.get("/readyz")).text == "ok\n"
    async with httpx2.AsyncClient(base_url=url, verify=authority.trusting(), trust_env=False) as client:
        with pytest.raises(httpx2.TransportError):
            await client.get("/readyz")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await ask(admin, get(b"/livez"))


async def test_plain_listener_beside_one_with_tls_stays_plain(files, start):
    config = speaking(files).replace("listen: [", "listen: [127.0.0.1:0, ", 1)
    running, _ = await start(config)
    assert (await ask(running.port, get(b"/livez"))).payload == b"ok\n"
    assert await shown(running.serinus.addresses[1][1]) == written(files[0])
    with pytest.raises(ssl.SSLError):
        await shown(running.port)
