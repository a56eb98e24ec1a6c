"""One of three upstreams dies, flaps, and all of them go: what do callers see?

    python bench/failover.py [REQUESTS_A_SECOND]

Three upstreams behind the proxy, 500 requests a second on kept-alive connections in an open loop. Promised: one that is
killed costs callers no error after its third failure; one that flaps each second costs fewer than 0.1 %; when all are
down the answer is 503 with Retry-After within 50 ms, and service is back within 5 s of their return.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import stand

RATE = int(sys.argv[1]) if len(sys.argv) > 1 else 500
PHASE_S = 6.0
DOWN_LIMIT_MS, BACK_LIMIT_S, FLAP_LIMIT_PERCENT = 50, 5, 0.1
CONFIG = """listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:0}}
state_dir: {folder}/state
pre_drain: 0s
log: {{level: info, access: false}}
clients: [{{name: bench, key: {key}}}]
upstreams:
{upstreams}
pools: {{chat: {{members: [{members}]}}}}
routes: [{{prefix: /v1, pool: chat}}]
"""


class Flapping:
    """An upstream that can be killed, its connections too, and started again on its port."""

    port = 0

    async def start(self) -> None:
        self._writers: set[asyncio.StreamWriter] = set()
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self.port, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    def kill(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(len(stand.BODY))
                writer.write(stand.ANSWER)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


class Callers:
    """Requests at a rate; what came of each, and how long it took."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.seen: list[tuple[float, bytes, float]] = []  # when due, status, seconds

    async def run(self, seconds: float) -> list[tuple[float, bytes, float]]:
        first = len(self.seen)
        began_s = time.monotonic()  # noqa: TID251 - a benchmark has the clock
        async with asyncio.TaskGroup() as calls:
            for number in range(int(seconds * RATE)):
                due_s = began_s + number / RATE
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))  # noqa: TID251
                calls.create_task(self._call(due_s))
        return self.seen[first:]

    async def _call(self, due_s: float) -> None:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(stand.REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        status = head[9:12]
        if status == b"503" and b"retry-after:" not in head.lower():
            status = b"503 without Retry-After"
        self.seen.append((due_s, status, time.monotonic() - due_s))  # noqa: TID251
        self._idle.append((reader, writer))

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


@asynccontextmanager
async def scene() -> AsyncIterator[tuple[list[Flapping], Callers]]:
    upstreams = [Flapping() for _ in range(3)]
    for upstream in upstreams:
        await upstream.start()
    named = "\n".join(
        f'  up{number}: {{base_url: "http://127.0.0.1:{upstream.port}/v1"}}'
        for number, upstream in enumerate(upstreams)
    )
    members = ", ".join(f"{{upstream: up{number}}}" for number in range(3))
    with tempfile.TemporaryDirectory(prefix="serinus-bench-") as folder:
        path = Path(folder) / "bench.yaml"
        path.write_text(CONFIG.format(folder=folder, key=stand.CLIENT_KEY, upstreams=named, members=members))
        async with stand.serving(path) as proxy:
            callers = Callers(proxy.port)
            await callers.run(1.0)
            yield upstreams, callers
            await callers.close()


def errors(seen: list[tuple[float, bytes, float]]) -> Counter[bytes]:
    return Counter(status for _, status, _ in seen if status != b"200")


async def killed() -> bool:
    async with scene() as (upstreams, callers):
        upstreams[0].kill()
        seen = await callers.run(PHASE_S)
        print(f"one of three is killed: {len(seen)} calls, {dict(errors(seen))}")
        return stand.verdict("  errors", sum(errors(seen).values()), 0, "calls")


async def flapping() -> bool:
    async with scene() as (upstreams, callers):

        async def flap() -> None:
            while True:
                upstreams[0].kill()
                await asyncio.sleep(1)
                await upstreams[0].start()
                await asyncio.sleep(1)

        flaps = asyncio.get_running_loop().create_task(flap())
        seen = await callers.run(2 * PHASE_S)
        flaps.cancel()
        print(f"one of three flaps each second: {len(seen)} calls, {dict(errors(seen))}")
        share = 100 * sum(errors(seen).values()) / len(seen)
        return stand.verdict("  errors", share, FLAP_LIMIT_PERCENT, "%")


async def all_down() -> bool:
    async with scene() as (upstreams, callers):
        for upstream in upstreams:
            upstream.kill()
        seen = await callers.run(PHASE_S / 2)
        waits_ms = sorted(1000 * wait_s for _, _, wait_s in seen)
        print(f"all are down: {len(seen)} calls, {dict(errors(seen))}, median {statistics.median(waits_ms):.1f} ms")
        holds = stand.verdict("  p99 of the wait for 503", waits_ms[int(0.99 * len(waits_ms))], DOWN_LIMIT_MS, "ms")
        holds &= stand.verdict(
            "  answers other than 503 with Retry-After", len(seen) - errors(seen)[b"503"], 0, "calls"
        )
        for upstream in upstreams:
            await upstream.start()
        back_s = time.monotonic()  # noqa: TID251
        seen = await callers.run(PHASE_S)
        last_s = max((due_s - back_s for due_s, status, _ in seen if status != b"200"), default=0.0)
        return stand.verdict("  last error after their return", last_s, BACK_LIMIT_S, "s") and holds


async def main() -> bool:
    return all([await killed(), await flapping(), await all_down()])


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
