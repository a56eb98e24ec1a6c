"""How `serinus serve` ends: what a load balancer, callers and operators see of it, stage by stage."""

import asyncio
import errno
import json
import os
import resource
import select
import signal
import socket
import time

import pytest

from proxy.process import run
from tests.support.authority import Authority
from tests.support.machine import until
from tests.support.process import SerinusProcess
from tests.support.raw import RawCaller, ask, get, post
from tests.support.running import config_for
from tests.support.scripted import Held, answering, whole
from tests.support.tunnels import SWITCH, Directed, upgrade

TOP = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nstate_dir: state\n"
LONG, AT_ONCE = "pre_drain: 10m\n", "pre_drain: 0s\n"  # the one never passes in a test
pytestmark = pytest.mark.usefixtures("callers_leave")
UP = "http://127.0.0.1:1/v1"
OPEN = config_for(UP, clients=False, keys=False)
FAST, FULL, WORKERS = "fast_lane: true\n", "fast_lane: false\n", "workers: 2\n"
LANES = pytest.mark.parametrize("lane", [FAST, FULL], ids=["fast lane", "aiohttp lane"])
EVERYWHERE = pytest.mark.parametrize("lane", [FAST, FULL, WORKERS], ids=["fast lane", "aiohttp lane", "workers"])
SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


@pytest.fixture
async def serinus(tmp_path):
    process = SerinusProcess(tmp_path)
    yield process
    await process.kill()


async def serving(serinus) -> tuple[int, int]:
    """The ports of callers and of the admin API."""
    said = await serinus.until("serving")
    return said["listen"][0][1], said["admin"][1]


async def told_to_end(serinus) -> int:
    """How many requests were open then."""
    serinus.send(signal.SIGTERM)
    return (await serinus.until("draining"))["open_requests"]


async def cut(serinus) -> int:
    """It ends with success. How many requests did it cut?"""
    assert await serinus.ended() == 0
    last = json.loads(serinus.said[-1])
    assert last["event"] == "stopped"
    return last["cut_requests"]


async def begun(port, request=None, **options) -> RawCaller:
    """A caller in the middle of a stream."""
    caller = await RawCaller.connect(port, **options)
    await caller.send(request or get())
    await caller.read_until(Held.FIRST)
    return caller


def refuses(port) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


# --- in its order ------------------------------------------------------------------------------------------------


@EVERYWHERE
async def test_it_is_not_ready_any_more_and_serves_on(lane, serinus, scripted):
    await serinus.start(TOP + LONG + lane + config_for((await scripted(answering(whole(b"{}")))).url))
    port, admin = await serving(serinus)
    kept = await RawCaller.connect(port)
    await kept.send(get())
    assert (await kept.answer()).field(b"connection") is None
    await told_to_end(serinus)
    answer = await ask(admin, get(b"/readyz"))
    assert (answer.status, answer.payload) == (503, b"draining\n")
    for caller in (kept, await RawCaller.connect(port)):
        await caller.send(get())
        answer = await caller.answer()
        assert (answer.status, answer.field(b"connection")) == (200, b"close")
        assert await caller.read_rest() == b""
        caller.close()
    serinus.send(signal.SIGTERM)
    assert await serinus.ended() == 0


@EVERYWHERE
async def test_then_it_listens_no_more_and_streams_end_whole(lane, serinus, scripted):
    held = Held()
    await serinus.start(TOP + "pre_drain: 100ms\n" + lane + config_for((await scripted(held)).url))
    port, admin = await serving(serinus)
    caller = await begun(port)
    await told_to_end(serinus)
    await until(lambda: refuses(port))
    assert (await ask(admin, get(b"/readyz"))).status == 503
    held.may_end.set()
    assert await caller.read_rest() == Held.LAST
    caller.close()
    assert await serinus.ended() == 0


HTTP10 = get().replace(b"HTTP/1.1", b"HTTP/1.0")


@EVERYWHERE
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("request_", [get(), HTTP10], ids=["chunks", "until the connection ends"])
async def test_what_is_left_is_cut_so_that_callers_see_it(lane, tls, request_, serinus, scripted, tmp_path):
    top, options = TOP, {}
    if tls:
        authority = Authority(tmp_path / "tls")
        cert, key = authority.issue("localhost")
        top = top.replace("127.0.0.1:0", f"[{{address: 127.0.0.1:0, tls: {{cert: {cert}, key: {key}}}}}]", 1)
        options["ssl"] = authority.trusting()
    await serinus.start(top + AT_ONCE + "drain_timeout: 0s\n" + lane + config_for((await scripted(Held())).url))
    caller = await RawCaller.connect((await serving(serinus))[0], **options)
    await caller.send(request_)
    await caller.read_until(b"data: 1\r\n" if request_ is not HTTP10 else b"data: 1")
    await told_to_end(serinus)
    assert not (await caller.read_rest()).strip()
    assert caller.closed  # by a reset
    assert await serinus.ended() == 0


@EVERYWHERE
async def test_tunnel_goes_on_until_it_is_cut(lane, serinus, scripted):
    upstream = await scripted(Directed())
    await serinus.start(TOP + "pre_drain: 100ms\n" + lane + config_for(upstream.url))
    port, _ = await serving(serinus)
    caller = await RawCaller.connect(port)
    await caller.send(upgrade())
    await upstream.until(lambda: upstream.script.talks)
    (talk,) = upstream.script.talks
    await talk.send(SWITCH)
    assert (await caller.answer()).status == 101
    await told_to_end(serinus)
    await until(lambda: refuses(port))
    await caller.send(b"ping")
    assert await talk.reader.readexactly(4) == b"ping"
    await talk.send(b"pong")
    assert await caller.read_until(b"pong") == b"pong"
    serinus.send(signal.SIGTERM)
    assert await caller.read_rest() == b""
    assert caller.closed
    await talk.gone()
    assert await serinus.ended() == 0


@SIGNALS
@pytest.mark.parametrize("stage", [LONG, AT_ONCE + "drain_timeout: 10m\n"], ids=["accepting", "draining"])
async def test_second_signal_ends_it_at_once(number, stage, serinus, scripted):
    await serinus.start(TOP + stage + config_for((await scripted(Held())).url))
    caller = await begun((await serving(serinus))[0])
    assert await told_to_end(serinus) == 1
    serinus.send(number)
    assert await cut(serinus) == 1
    assert (await caller.read_rest(), caller.closed) == (b"", True)


# --- what stands in the way --------------------------------------------------------------------------------------


@EVERYWHERE
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_idle_callers_do_not_delay_the_end(lane, tls, serinus, scripted, tmp_path):
    """Nor does a caller of the admin API who follows what happens."""
    top, options = TOP, {}
    if tls:
        authority = Authority(tmp_path / "tls")
        cert, key = authority.issue("localhost")
        top = top.replace("127.0.0.1:0", f"[{{address: 127.0.0.1:0, tls: {{cert: {cert}, key: {key}}}}}]", 1)
        options["ssl"] = authority.trusting()
    upstream = await scripted(answering(whole(b"{}")))
    await serinus.start(top + AT_ONCE + "drain_timeout: 10m\n" + lane + config_for(upstream.url))
    port, admin = await serving(serinus)
    callers = [await RawCaller.connect(port, **options) for _ in range(3)]
    await callers[0].send(get())
    assert (await callers[0].answer()).status == 200
    follower, reader = await RawCaller.connect(admin), await RawCaller.connect(admin)
    await follower.send(get(b"/events", fields=b"Accept: text/event-stream\r\n").replace(b"proxy", b"localhost"))
    assert (await follower.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    await reader.send(get(b"/readyz"))
    assert (await reader.answer()).status == 200
    await told_to_end(serinus)
    assert await serinus.ended() == 0
    for caller in callers:
        assert await caller.read_rest() == b""


@LANES
@pytest.mark.parametrize("route", ["", "buffer: 4KiB"], ids=["kept", "streamed"])
async def test_upload_comes_to_its_end(lane, route, serinus, scripted):
    upstream = await scripted(answering(whole(b"{}")))
    await serinus.start(TOP + AT_ONCE + "drain_timeout: 10m\n" + lane + config_for(upstream.url, route=route))
    port, _ = await serving(serinus)
    request = post(b"x" * 64 * 1024)
    caller = await RawCaller.connect(port)
    await caller.send(request[:32768])
    if route:
        await until(lambda: upstream.connections)
    else:  # another one's answer shows that this much was read
        assert (await ask(port, get())).status == 200
    assert await told_to_end(serinus) == 1
    await caller.send(request[32768:])
    answer = await caller.answer()
    assert (answer.status, answer.field(b"connection")) == (200, b"close")
    assert upstream.requests[-1].body == b"x" * 64 * 1024
    caller.close()
    assert await cut(serinus) == 0


async def test_state_that_cannot_be_kept_does_not_stand_in_its_way(serinus):
    two = OPEN.replace("pools: {", "pools: {next: {members: [{upstream: up0}]}, ").replace(
        "prefix: /v1, pool: chat", "prefix: /v1, pool: chat, canary: trial"
    )
    await serinus.start(TOP + AT_ONCE + two + "canaries: {trial: {baseline: chat, canary: next, weight: 10}}\n")
    await serving(serinus)
    _, most = resource.prlimit(serinus.number, resource.RLIMIT_FSIZE)
    resource.prlimit(serinus.number, resource.RLIMIT_FSIZE, (0, most))  # as if the disk were full
    serinus.send(signal.SIGTERM)
    await serinus.until("state_not_written")
    assert await cut(serinus) == 0


# --- before it serves --------------------------------------------------------------------------------------------


async def a_reader_waits(fifo) -> int:
    """A descriptor of the fifo, when its reader has opened it."""
    found = []

    def opened() -> bool:
        try:
            found.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    await until(opened)
    return found[0]


@SIGNALS
async def test_signal_before_it_serves_ends_it(number, serinus, tmp_path):
    fifo = tmp_path / "slow.yaml"
    os.mkfifo(fifo)
    await serinus.start("", "--config", str(fifo))
    writer = await a_reader_waits(fifo)

    def has_ended() -> bool:
        serinus.send(number)  # more than once: Python may miss one that comes just before it waits
        return serinus.has_ended

    await until(has_ended)
    assert await serinus.ended() == 0
    assert serinus.said == []
    os.close(writer)


async def test_signal_amid_its_start_ends_it():
    """A name that is looked up for a target, for one, may take long."""

    class Starting:
        workers, steps = None, ()

        async def start(self) -> None:
            self.steps += ("start",)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

        async def close(self) -> None:
            self.steps += ("close",)

    serinus = Starting()
    await run(serinus, asyncio.Event(), on_start=lambda: pytest.fail("it serves"))
    assert serinus.steps == ("start", "close")


async def test_signal_during_a_reload_ends_it(serinus, scripted):
    held = Held()
    config = TOP + AT_ONCE + config_for((await scripted(held)).url)
    await serinus.start(config)
    port, _ = await serving(serinus)
    caller = await begun(port)
    serinus.file.unlink()
    os.mkfifo(serinus.file)
    serinus.send(signal.SIGHUP)
    writer = await a_reader_waits(serinus.file)
    assert await told_to_end(serinus) == 1
    os.write(writer, config.encode())
    os.close(writer)
    await serinus.until("config_applied")
    held.may_end.set()
    assert await caller.read_rest() == Held.LAST
    caller.close()
    assert await cut(serinus) == 0


# --- what systemd is told ----------------------------------------------------------------------------------------


async def test_service_manager_is_told(serinus, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)

        def lines() -> list[str]:
            return manager.recv(4096).decode().split("\n")

        config = TOP + AT_ONCE + "drain_timeout: 30s\n" + OPEN
        await serinus.start(config, NOTIFY_SOCKET=str(tmp_path / "notify"))
        await serving(serinus)
        await until(lambda: can_be_read(manager))
        assert lines() == ["READY=1", "STATUS=Serving generation 1"]
        sent_usec = time.monotonic_ns() // 1000
        serinus.send(signal.SIGHUP)
        await serinus.until("config_applied")
        began, moment, _ = lines()
        assert (began, moment[:15]) == ("RELOADING=1", "MONOTONIC_USEC=")
        assert int(moment[15:]) >= sent_usec
        await until(lambda: can_be_read(manager))
        assert lines() == ["READY=1", "STATUS=Serving generation 2"]
        serinus.send(signal.SIGTERM)
        assert await serinus.ended() == 0
        assert lines() == ["STOPPING=1", "STATUS=Draining, 0 requests open", "EXTEND_TIMEOUT_USEC=35000000"]


def can_be_read(wire) -> bool:
    return bool(select.select([wire], [], [], 0)[0])
