"""The test stand: `serinus serve` as a process of its own, an upstream in this one, and what the kernel knows of it."""

import asyncio
import os
import re
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

CLIENT_KEY = "bench-client-key"
CONFIG = """listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:0}}
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
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (CLIENT_KEY.encode(), len(BODY), BODY)
)
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":" canary"},"finish_reason":null}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

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

    async def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        page = await asyncio.to_thread(self._page)
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if re.match(rf"{name}[ {{]", line))

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


@asynccontextmanager
async def proxy(upstream_port: int) -> AsyncIterator[Proxy]:
    """Start the proxy before that upstream."""
    with tempfile.TemporaryDirectory(prefix="serinus-bench-") as folder:
        path = Path(folder) / "bench.yaml"
        path.write_text(CONFIG.format(folder=folder, port=upstream_port, key=CLIENT_KEY))
        command = (sys.executable, "-m", "proxy", "serve", "--config", str(path))
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        assert process.stderr is not None
        try:
            async for line in process.stderr:
                if b'"serving"' in line:
                    ports = [int(number) for number in re.findall(rb'\["?127.0.0.1"?,(\d+)\]', line)]
                    break
            else:
                sys.exit("the proxy did not start")
            admin_port = int(re.search(rb'"admin":\["127.0.0.1",(\d+)\]', line)[1])  # type: ignore[index]
            yield Proxy(process, next(port for port in ports if port != admin_port), admin_port)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def verdict(name: str, figure: float, limit: float, unit: str) -> bool:
    """Print a figure beside what was promised, and say whether it holds."""
    holds = figure <= limit
    print(f"{name}: {figure:.1f} {unit} (promised: at most {limit:g} {unit}){'' if holds else '  <-- MISSED'}")
    return holds
