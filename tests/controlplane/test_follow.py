"""A configuration that is put in force because its file has changed: once, whole, and told like any other reload."""

import asyncio
import os
import sys

import httpx2
import pytest

from proxy.controlplane import follow
from tests.support.running import config_for

ADMIN = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\n"
FIRST, SECOND = (ADMIN + config_for(f"http://127.0.0.1:{port}/v1", clients=False) for port in (1, 2))
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "serinus.yaml"


@pytest.fixture
def start(proxy, file):
    async def start(config=FIRST, **options):
        return await proxy(config, path=file, follow=True, **options)

    return start


async def look(running):
    """Have it look at its files. The generation in force by then, and how many reloads there were."""
    await running.serinus.follower.look()
    return running.serinus.reloader.generation, running.serinus.metrics.reloads


async def test_what_is_as_it_was_does_nothing(start, file):
    running = await start()
    file.write_bytes(file.read_bytes())
    assert await look(running) == (1, {"applied": 0, "rejected": 0})
    file.write_text(SECOND)
    for _ in range(2):
        assert await look(running) == (2, {"applied": 1, "rejected": 0})
    file.write_text("routes: [")
    for _ in range(2):
        assert await look(running) == (2, {"applied": 1, "rejected": 1})


async def test_what_a_reload_has_read_is_not_taken_again(start, file):
    running = await start()
    for text, reloads in (("routes: [", {"applied": 0, "rejected": 1}), (SECOND, {"applied": 1, "rejected": 1})):
        file.write_text(text)
        await running.serinus.reloader.reload()
        assert (await look(running))[1] == reloads


async def test_return_to_what_is_in_force_is_told(start, file):
    running = await start()
    for text in ("routes: [", FIRST):
        file.write_text(text)
        await look(running)
    assert running.serinus.metrics.reloads == {"applied": 1, "rejected": 1}
    assert running.serinus.admin.status(60.0).last_reload["result"] == "applied"


async def test_file_that_is_gone_is_told_once(start, file):
    running = await start()
    file.unlink()
    for _ in range(2):
        assert await look(running) == (1, {"applied": 0, "rejected": 1})
    file.write_text(FIRST)
    assert await look(running) == (2, {"applied": 1, "rejected": 1})


async def test_environment_counts(start, file):
    environ = {"KEY": "first"}
    running = await start(FIRST.replace("upstream-key-0", "env:KEY"), environ=environ)
    assert await look(running) == (1, {"applied": 0, "rejected": 0})
    environ["KEY"] = "second"
    assert (await look(running))[1] == {"applied": 1, "rejected": 0}
    assert running.events.named("config_applied")


async def test_secret_that_is_as_it_was_does_nothing(start, file, tmp_path):
    secret = tmp_path / "key"
    secret.touch(0o600)
    secret.write_text("first")
    running = await start(FIRST.replace("upstream-key-0", "file:key"))
    for text, reloads in (
        ("first", {"applied": 0, "rejected": 0}),
        ("second", {"applied": 1, "rejected": 0}),
        ("", {"applied": 1, "rejected": 1}),
        ("", {"applied": 1, "rejected": 1}),
        ("second", {"applied": 2, "rejected": 1}),
    ):
        secret.write_text(text)
        assert (await look(running))[1] == reloads


async def test_secret_is_read_with_the_configuration_that_changes_beside_it(start, file, tmp_path):
    secret = tmp_path / "key"
    secret.touch(0o600)
    secret.write_text("first")
    running = await start(FIRST.replace("upstream-key-0", "file:key"))
    secret.write_text("second")
    file.write_text(SECOND.replace("upstream-key-0", "file:key"))
    assert (await look(running))[1] == {"applied": 1, "rejected": 0}
    assert (await look(running))[1] == {"applied": 1, "rejected": 0}


async def test_outcome_is_told_everywhere(start, file):
    running = await start()
    async with httpx2.AsyncClient(base_url=running.admin_url, trust_env=False) as client:
        for text, result, generation in ((SECOND, "applied", 2), ("routes: [", "rejected", 2)):
            file.write_text(text)
            await look(running)
            assert running.events.named(f"config_{result}")
            assert f'serinus_config_reloads_total{{result="{result}"}} 1.0' in (await client.get("/metrics")).text
            status = (await client.get("/status")).json()
            assert (status["last_reload"]["result"], status["generation"]) == (result, generation)
            audited = (await client.get("/audit", params={"last": "1"})).json()["entries"][0]
            assert (audited["what"], audited["who"]) == ("configuration_reloaded", str(file))
            assert audited["about"] == {"result": result, "generation": str(generation)}


async def test_signal_reloads_in_any_case_and_is_audited(start):
    running = await start()
    await running.serinus.follower.reload("SIGHUP")
    assert running.serinus.metrics.reloads == {"applied": 1, "rejected": 0}
    (entry,) = (await running.serinus.recorder.audited(1)).entries
    assert (entry.who, entry.about) == ("SIGHUP", {"result": "applied", "generation": "2"})


# --- half-written ------------------------------------------------------------------------------------------------


@pytest.fixture
def looks(monkeypatch):
    """How often it looked at its file."""
    looked, as_it_is = [], follow._look

    def counted(path):
        looked.append(path)
        return as_it_is(path)

    monkeypatch.setattr(follow, "_look", counted)
    monkeypatch.setattr(follow, "AGAIN_S", 0.0)
    return looked


@on_linux
async def test_file_is_waited_for_while_somebody_writes_it(start, file, looks):
    running = await start()
    with file.open("w") as writing:
        writing.write(SECOND)  # as far as it is written, it is valid
        writing.flush()
        looking = asyncio.get_running_loop().create_task(look(running))
        await running.until(lambda: len(looks) > 3)
        assert running.serinus.reloader.generation == 1
        writing.write("pre_drain: 1s\n")
    assert await looking == (2, {"applied": 1, "rejected": 0})
    assert running.serinus.reloader.settings.pre_drain_s == 1


@on_linux
async def test_file_that_is_held_open_for_ever_is_taken_when_it_stays_the_same(start, file, looks, monkeypatch):
    monkeypatch.setattr(follow, "HELD_OPEN_S", 0.0)
    running = await start()
    with file.open("w") as writing:
        writing.write(SECOND)
        writing.flush()
        assert await look(running) == (2, {"applied": 1, "rejected": 0})


@on_linux
def test_writer_who_comes_while_it_is_read_waits_and_harms_nobody(file):
    """The system tells the holder of a lease by a signal, which as a rule ends its process."""
    file.write_text(FIRST)
    with file.open("rb") as reading:
        assert follow._lease(reading.fileno())
        with pytest.raises(BlockingIOError):
            os.open(file, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK)
        assert reading.read() == FIRST.encode()
    file.write_text("written")
