"""SIGTERM under load: what do callers see, and when is the process gone?

    python bench/drain.py [WORKERS]

In turn: with 100 streams of 10 s, which are to end whole; with 100 that never end, and a drain limit of 3 s;
and at 500 requests a second, whose callers close and connect anew when an answer says `connection: close`, until
connects are refused. By then a load balancer has known for `pre_drain` that it must send nobody here.
"""

import asyncio
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import stand

WORKERS = int(sys.argv[1]) if len(sys.argv) > 1 else 1
STREAMS, STREAM_S, EVENT_EVERY_S = 100, 10.0, 0.5
ENDLESS_DRAIN_S, BEYOND_DRAIN_S = 3, 2.0
RATE, CALLERS, PRE_DRAIN_S = 500, 25, 5
CONFIG = """listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:0}}
state_dir: {folder}/state
pre_drain: {pre_drain}s
drain_timeout: {drain_timeout}s
workers: {workers}
log: {{level: info, access: false}}
clients: [{{name: bench, key: {key}}}]
upstreams: {{up: {{base_url: "http://127.0.0.1:{port}/v1", keys: [{{name: main, value: key-0}}]}}}}
pools: {{chat: {{members: [{{upstream: up}}], retry: {{attempts: 1}}}}}}
routes: [{{prefix: /v1, pool: chat}}]
"""
PLAIN_BODY = b'{"model":"m"}'
PLAIN = stand.REQUEST.replace(b"Content-Length: %d" % len(stand.BODY), b"Content-Length: %d" % len(PLAIN_BODY))
PLAIN = PLAIN.replace(stand.BODY, PLAIN_BODY)


class Vendor:
    """Streams to who asks for a stream, for so long; answers others at once."""

    def __init__(self, stream_s: float) -> None:
        self._stream_s = stream_s

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if b'"stream":true' in await reader.readexactly(length):
                await self._stream(writer)
            else:
                writer.write(stand.ANSWER)

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(stand.STREAM_HEAD + stand.CHUNK)
        ends_s = time.monotonic() + self._stream_s  # noqa: TID251 - a benchmark has the clock
        while time.monotonic() < ends_s:  # noqa: TID251
            await asyncio.sleep(EVENT_EVERY_S)
            writer.write(stand.CHUNK)
            await writer.drain()
        writer.write(b"0\r\n\r\n")


@asynccontextmanager
async def scene(*, stream_s: float, pre_drain: int, drain_timeout: int) -> AsyncIterator[stand.Proxy]:
    async with stand.upstream(Vendor(stream_s).talk) as port:
        with tempfile.TemporaryDirectory(prefix="serinus-bench-") as folder:
            path = Path(folder) / "bench.yaml"
            about = {"folder": folder, "port": port, "key": stand.CLIENT_KEY, "workers": WORKERS}
            path.write_text(CONFIG.format(**about, pre_drain=pre_drain, drain_timeout=drain_timeout))
            async with stand.serving(path) as proxy:
                yield proxy


async def stream(port: int, begun: asyncio.Semaphore) -> str:
    """How a stream ended: whole, or cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(stand.REQUEST)
    got = await reader.readuntil(stand.CHUNK)
    begun.release()
    try:
        while piece := await reader.read(65536):
            got += piece
    except ConnectionError:
        pass
    finally:
        writer.close()
    return "whole" if got.endswith(b"\r\n0\r\n\r\n") else "cut"


async def ended(proxy: stand.Proxy) -> tuple[int, float]:
    """Its exit code after a SIGTERM, and how long it took."""
    began_s = time.monotonic()  # noqa: TID251
    proxy.process.send_signal(signal.SIGTERM)
    code = await proxy.process.wait()
    return code, time.monotonic() - began_s  # noqa: TID251


async def streams(stream_s: float, drain_timeout: int) -> tuple[Counter[str], int, float]:
    async with scene(stream_s=stream_s, pre_drain=0, drain_timeout=drain_timeout) as proxy:
        begun = asyncio.Semaphore(0)
        callers = [asyncio.get_running_loop().create_task(stream(proxy.port, begun)) for _ in range(STREAMS)]
        for _ in range(STREAMS):
            await begun.acquire()
        code, took_s = await ended(proxy)
        return Counter(await asyncio.gather(*callers)), code, took_s


class Callers:
    """They ask at a rate on kept connections, and connect anew where an answer was the last one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.seen: Counter[str] = Counter()
        self.refused_s = 0.0

    async def ask(self) -> None:
        wires: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        due_s = time.monotonic()  # noqa: TID251
        while not self.refused_s:
            try:
                wires = wires or await asyncio.open_connection("127.0.0.1", self._port)
            except ConnectionError:  # refused, or reset amid the handshake: nothing was asked yet
                self.refused_s = self.refused_s or time.monotonic()  # noqa: TID251
                return
            reader, writer = wires
            if await self._is_last(reader, writer):
                writer.close()
                wires = None
            due_s += CALLERS / RATE
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))  # noqa: TID251
        if wires is not None:
            wires[1].close()

    async def _is_last(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Ask once. Was the answer the connection's last?"""
        try:
            writer.write(PLAIN)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(2)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.seen["no answer"] += 1
            return True
        self.seen[head[9:12].decode()] += 1
        last = b"\r\nconnection: close\r\n" in head
        self.seen["said to be the last"] += last
        return last


async def requests() -> bool:
    async with scene(stream_s=0, pre_drain=PRE_DRAIN_S, drain_timeout=30) as proxy:
        callers = Callers(proxy.port)
        asking = [asyncio.get_running_loop().create_task(callers.ask()) for _ in range(CALLERS)]
        await asyncio.sleep(1.0)
        before, began_s = callers.seen["200"], time.monotonic()  # noqa: TID251
        code, took_s = await ended(proxy)
        await asyncio.gather(*asking)
    served = callers.seen["200"] - before
    failed = callers.seen.total() - callers.seen["200"] - callers.seen["said to be the last"]
    print(f"requests: {served} served after SIGTERM, {dict(callers.seen)}; gone with code {code} after {took_s:.1f} s")
    print(f"  connects were refused {callers.refused_s - began_s:.2f} s after it")
    return stand.verdict("  failed", failed, 0, "requests") and code == 0


async def main() -> bool:
    how, code, took_s = await streams(STREAM_S, 30)
    print(f"streams of {STREAM_S:.0f} s: {dict(how)}; gone with code {code} after {took_s:.1f} s")
    held = stand.verdict("  not whole", how["cut"], 0, "streams") and code == 0
    how, code, took_s = await streams(3600, ENDLESS_DRAIN_S)
    print(f"endless streams: {dict(how)}; gone with code {code} after {took_s:.1f} s")
    held &= stand.verdict("  that look whole", how["whole"], 0, "streams") and code == 0
    held &= stand.verdict("  gone after", took_s, ENDLESS_DRAIN_S + BEYOND_DRAIN_S, "s")
    return await requests() and held


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
