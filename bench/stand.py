"""The test stand: `serinus serve` as a process of its own, an upstream in this one, and what the kernel knows of it."""

import asyncio
import os
import re
import shutil
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

CORE_PROXY, CORE_LOAD = 0, 1  # as in peers/compare.py
PEERS = Path(__file__).parent / "peers"
CLIENT_KEY = "sk-client-3f9a0b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a"  # as the loads in peers/ send it
CONFIG = """listen: 127.0.0.1:0
{lane}admin: {{listen: 127.0.0.1:0}}
state_dir: {folder}/state
pre_drain: 0s
log: {{level: info, access: false}}
clients: [{{name: bench, key: {key}}}]
upstreams:
  first: {{base_url: "http://127.0.0.1:{port}/v1", keys: [{{name: main, value: upstream-key}}]}}
  second: {{base_url: "http://127.0.0.1:{port}/v1", keys: [{{name: main, value: upstream-key}}]}}
pools: {{chat: {{members: [{{upstream: first, weight: 3}}, {{upstream: second}}]}}}}
routes: [{{prefix: /v1, pool: chat}}]
"""
BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Sing!"}]}'


def request(body: bytes) -> bytes:
    """A call with this body, as the client that is listed."""
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (CLIENT_KEY.encode(), len(body), body)
    )


REQUEST = request(BODY)
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":" canary"},"finish_reason":null}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
TICKS_A_S = os.sysconf("SC_CLK_TCK")

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Proxy:
    """The running process."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, admin_port: int) -> None:
        self.process, self.port, self.admin_port = process, port, admin_port

    def rss_kib(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208 - a count is enough

    def cpu_s(self) -> tuple[float, float]:
        """CPU time so far by the kernel's accounting: in user space, in the kernel."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) / TICKS_A_S, int(fields[12]) / TICKS_A_S

    async def metric(self, name: str, label: str = "") -> float:
        """The sum of a metric's samples; of those that have this label, as in `result="applied"`."""
        page = await asyncio.to_thread(self._page)
        lines = [line for line in page.splitlines() if re.match(rf"{name}[ {{]", line) and label in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def _page(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())


@asynccontextmanager
async def upstream(talk: Talk) -> AsyncIterator[int]:
    """Serve `talk` on a free port."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0, backlog=4096)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def pinned(core: int) -> tuple[str, ...]:
    """What to put before a command so that it stays on that core; nothing where there is only one."""
    return ("taskset", "-c", str(core)) if core < (os.cpu_count() or 1) and shutil.which("taskset") else ()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def peer(script: str, *arguments: str, core: int) -> AsyncIterator[int]:
    """Run a server from peers/ on a free port: the mock upstream, for one."""
    port = free_port()
    command = (*pinned(core), sys.executable, str(PEERS / script), str(port), *arguments)
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await _listening(port)
        yield port
    finally:
        process.terminate()
        await process.wait()


async def _listening(port: int, seconds: float = 10) -> None:
    give_up_s = time.monotonic() + seconds  # noqa: TID251 - a benchmark has the clock
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > give_up_s:  # noqa: TID251
                sys.exit(f"nothing listens on port {port}")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def proxy(upstream_port: int, *, fast_lane: bool = True, core: int | None = None) -> AsyncIterator[Proxy]:
    """Start the proxy before that upstream, on that core if one is said."""
    with tempfile.TemporaryDirectory(prefix="serinus-bench-") as folder:
        path = Path(folder) / "bench.yaml"
        lane = "" if fast_lane else "fast_lane: false\n"
        path.write_text(CONFIG.format(folder=folder, port=upstream_port, key=CLIENT_KEY, lane=lane))
        async with serving(path, core=core) as running:
            yield running


@asynccontextmanager
async def serving(
    path: Path, *, core: int | None = None, log: Path | None = None, environ: dict[str, str] | None = None
) -> AsyncIterator[Proxy]:
    """Start the proxy with this configuration, whose listeners are on 127.0.0.1, one public and one for admin.

    `log`: the file that its lines go to. `environ`: what is added to the environment.
    """
    command = (sys.executable, "-m", "proxy", "serve", "--config", str(path))
    command = command if core is None else (*pinned(core), *command)
    said = asyncio.subprocess.PIPE if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    process = await asyncio.create_subprocess_exec(*command, stderr=said, env=os.environ | (environ or {}))
    try:
        line = await (_piped(process) if log is None else _written(process, log))
        ports = [int(number) for number in re.findall(rb'\["?127.0.0.1"?,(\d+)\]', line)]
        admin_port = int(re.search(rb'"admin":\["127.0.0.1",(\d+)\]', line)[1])  # type: ignore[index]
        yield Proxy(process, next(port for port in ports if port != admin_port), admin_port)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if log is not None:
            os.close(said)


async def _piped(process: asyncio.subprocess.Process) -> bytes:
    """The line that says where it serves."""
    assert process.stderr is not None
    async for line in process.stderr:
        if b'"serving"' in line:
            return line
    sys.exit("the proxy did not start")


async def _written(process: asyncio.subprocess.Process, log: Path) -> bytes:
    while process.returncode is None:
        for line in log.read_bytes().splitlines(keepends=True):
            if b'"serving"' in line and line.endswith(b"\n"):
                return line
        await asyncio.sleep(0.05)
    sys.exit("the proxy did not start")


async def steady(port: int, until: asyncio.Event, waits_ms: list[float], pace_s: float = 0.05) -> None:
    """A caller that asks every so often on one connection, and notes what it waits."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not until.is_set():
        sent_s = time.monotonic()  # noqa: TID251 - a benchmark has the clock
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n{}")
        waits_ms.append((time.monotonic() - sent_s) * 1000)  # noqa: TID251
        await asyncio.sleep(pace_s)
    writer.close()


def verdict(name: str, figure: float, limit: float, unit: str) -> bool:
    """Print a figure beside what was promised, and say whether it holds."""
    holds = figure <= limit
    print(f"{name}: {figure:.1f} {unit} (promised: at most {limit:g} {unit}){'' if holds else '  <-- MISSED'}")
    return holds
