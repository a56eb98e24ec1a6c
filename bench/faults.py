"""The machine fails under the proxy: what do callers see?

    python bench/faults.py [disk] [descriptors] [clock]

500 requests a second and 100 open streams, while the disk of state, log and audit is full (a tmpfs of 64 KiB, for which
one must be root); while more callers connect than there are descriptors; and while the wall clock is set by an hour,
forth and back (by libfaketime, which must be installed: the monotonic clock stays). Linux only.
"""

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import load
import stand

PARTS = sys.argv[1:] or ["disk", "descriptors", "clock"]
PHASE_S = 5.0
SPARE, TOO_MANY = 60, 400  # descriptors, and callers who want them
MOST_CPU_PERCENT, RECOVERED_S = 5.0, 2.0
HOUR_S = 3600
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
CONFIG = """listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:0}}
state_dir: {disk}/state
pre_drain: 0s
drain_timeout: 10s
clients: [{{name: bench, key: {key}}}]
upstreams:
  first: {{base_url: "http://127.0.0.1:{port}/v1", keys: [{{name: main, value: key-0}}]}}
  second: {{base_url: "http://127.0.0.1:{port}/v1", keys: [{{name: main, value: key-1}}]}}
pools: {{one: {{members: [{{upstream: first}}]}}, two: {{members: [{{upstream: second}}]}}}}
routes: [{{prefix: /v1, pool: one, canary: trial}}]
canaries: {{trial: {{baseline: one, canary: two, weight: 20}}}}
"""


@asynccontextmanager
async def scene(disk: Path | None = None, **options: object) -> AsyncIterator[tuple[load.Vendor, stand.Proxy]]:
    vendor = load.Vendor()
    async with stand.upstream(vendor.talk) as port:
        with tempfile.TemporaryDirectory(prefix="serinus-bench-") as folder:
            path, disk = Path(folder) / "bench.yaml", disk or Path(folder)
            path.write_text(CONFIG.format(disk=disk, port=port, key=stand.CLIENT_KEY))
            async with stand.serving(path, log=disk / "log", **options) as proxy:  # type: ignore[arg-type]
                yield vendor, proxy


@asynccontextmanager
async def small_disk() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="serinus-bench-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


async def disk() -> bool:
    async with small_disk() as folder, scene(folder) as (vendor, proxy):
        streams, requests = load.Streams(proxy.port), load.Requests(proxy.port)
        await streams.begin()
        await requests.run(PHASE_S)
        free = os.statvfs(folder).f_bavail
        before = requests.seen.total()
        await requests.run(2 * PHASE_S)
        vendor.may_end.set()
        ended = await streams.ended()
        proxy.process.terminate()
        code = await proxy.process.wait()
    total = requests.seen.total()
    print(f"disk full ({free} blocks free): {total - before} requests beside {load.STREAMS} streams; exit code {code}")
    held = stand.verdict("  failed", requests.failed, 0, "requests") and free == code == 0
    return stand.verdict("  streams cut", ended["cut"], 0, "streams") and held


async def descriptors() -> bool:
    async with scene() as (vendor, proxy):
        streams, requests = load.Streams(proxy.port), load.Requests(proxy.port)
        await streams.begin()
        await requests.run(1.0)
        resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (proxy.descriptors() + SPARE, 20_000))
        crowd = [_connected(proxy.port) for _ in range(TOO_MANY)]
        await asyncio.sleep(1.0)
        before, began_s = proxy.cpu_s(), time.monotonic()  # noqa: TID251 - a benchmark has the clock
        await asyncio.sleep(PHASE_S)
        used_s = sum(proxy.cpu_s()) - sum(before)
        cpu_percent = 100 * used_s / (time.monotonic() - began_s)  # noqa: TID251
        there = await _asked(crowd)
        print(f"no descriptors left: of {TOO_MANY} callers, those who are in ask, and see {there}")
        for caller in crowd:
            caller.close()
        left_s = time.monotonic()  # noqa: TID251
        while not await _served(proxy.port):
            await asyncio.sleep(0.05)
        back_s = time.monotonic() - left_s  # noqa: TID251
        ejected = await proxy.metric("serinus_upstream_ejections_total")
        await requests.run(PHASE_S)
        vendor.may_end.set()
        ended = await streams.ended()
    held = stand.verdict("  CPU, with 100 streams of 2 events a second", cpu_percent, MOST_CPU_PERCENT, "%")
    held &= stand.verdict("  ejections", ejected, 0, "upstreams")
    held &= stand.verdict("  served again after they left", back_s, RECOVERED_S, "s")
    held &= stand.verdict("  failed before and afterwards", requests.failed, 0, "requests")
    return stand.verdict("  streams cut", ended["cut"], 0, "streams") and held


def _connected(port: int) -> socket.socket:
    caller = socket.create_connection(("127.0.0.1", port))
    caller.setblocking(False)
    return caller


async def _asked(crowd: list[socket.socket]) -> dict[str, int]:
    """What each sees who asks once: a status, or the end of its connection."""
    loop, seen = asyncio.get_running_loop(), {}

    async def ask(caller: socket.socket) -> str:
        try:
            await loop.sock_sendall(caller, load.PLAIN)
            async with asyncio.timeout(1.0):
                answer = await loop.sock_recv(caller, 65536)
        except ConnectionError:
            return "closed"
        except TimeoutError:
            return "waits"
        return answer[9:12].decode() or "closed"

    for what in await asyncio.gather(*map(ask, crowd)):
        seen[what] = seen.get(what, 0) + 1
    return seen


async def _served(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(load.PLAIN)
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    except (ConnectionError, asyncio.IncompleteReadError):
        return False
    return head.startswith(b"HTTP/1.1 200")


async def clock() -> bool:
    with tempfile.TemporaryDirectory(prefix="serinus-bench-") as folder:
        offset, log = Path(folder) / "offset", Path(folder) / "log"
        offset.write_text("+0\n")
        faked = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1"}
        faked["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
        async with scene(Path(folder), environ=faked) as (vendor, proxy):
            streams, requests = load.Streams(proxy.port), load.Requests(proxy.port)
            await streams.begin()
            idle = _connected(proxy.port)
            for jump_s in (HOUR_S, 0, -HOUR_S, 0):
                asking = asyncio.get_running_loop().create_task(requests.run(PHASE_S))
                await asyncio.sleep(PHASE_S / 2)
                offset.write_text(f"{jump_s:+d}\n")
                await asking
            there = await _asked([idle])
            vendor.may_end.set()
            ended = await streams.ended()
            hours = {json.loads(line)["timestamp"][11:13] for line in log.read_text().splitlines()}
    print(f"clock set by an hour four times: {requests.seen.total()} requests, logged in the hours {sorted(hours)}")
    held = stand.verdict("  failed", requests.failed, 0, "requests") and there == {"200": 1} and len(hours) >= 3
    return stand.verdict("  streams cut", ended["cut"], 0, "streams") and held


async def main() -> bool:
    parts = {"disk": disk, "descriptors": descriptors, "clock": clock}
    return all([await parts[name]() for name in PARTS])


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
