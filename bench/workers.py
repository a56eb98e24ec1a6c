"""Several processes that serve: do callers notice, and what do they cost?

    python bench/workers.py [--restarts 20] [--seconds 6]

Two workers behind one address, at 500 requests a second with 100 open streams: rolling restarts (SIGUSR2), a worker
that is killed, a limit, eight long connections; then the CPU time of a request, beside one process that serves alone.
Promised: no failed request and no broken stream by restarts; of a worker that is killed only its own requests, and
another one within a second; limits within 2 %; work split within 10 %; 1.1 times the CPU time of one process.

Callers here obey `connection: close`, as HTTP asks of them.
"""

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import stand

RATE, STREAMS, ASKERS = 500, 100, 25
PER_MINUTE = 6000
ROUNDS = 7  # one process differs from the next by more than what is looked for
CONFIG = """listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:{admin}}}
state_dir: {folder}/state
workers: {workers}
pre_drain: 1s
drain_timeout: 10m
log: {{level: info, access: false}}
clients: [{{name: bench, key: {key}, limits: {{{limits}}}}}]
upstreams:
  up: {{base_url: "http://127.0.0.1:{port}/v1", keys: [{{name: main, value: key}}], max_connections: 10000}}
pools: {{chat: {{members: [{{upstream: up}}], retry: {{attempts: 1}}}}}}
routes: [{{prefix: /v1, pool: chat}}]
"""
now_s = time.monotonic  # noqa: TID251 - a benchmark has the clock


class Vendor:
    """Streams to whoever asks for `stream`, until told to end; answers others at once."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            if b'"stream":true' not in body:
                writer.write(stand.ANSWER)
                continue
            writer.write(stand.STREAM_HEAD)
            while not self.may_end.is_set():
                writer.write(b"9\r\ndata: 1\n\n\r\n")
                await asyncio.sleep(1.0)
            writer.write(b"0\r\n\r\n")


def configured(folder: str, workers: int, port: int, limits: str = "") -> str:
    """The admin port must stay the same over restarts."""
    return CONFIG.format(
        folder=folder, workers=workers, key=stand.CLIENT_KEY, port=port, limits=limits, admin=stand.free_port()
    )


class Callers:
    """What they see."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.statuses: Counter[bytes] = Counter()
        self.failed = 0
        self.longest_ms = 0.0
        self.stopped = asyncio.Event()

    async def ask(self, rate: float) -> None:
        """So many a second, or (0) one after the other."""
        due_s = now_s()
        while not self.stopped.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            stays = True
            while stays and not self.stopped.is_set():
                began_s = now_s()
                try:
                    stays = await self._once(reader, writer)
                except (ConnectionError, asyncio.IncompleteReadError):
                    self.failed += 1
                    stays = False
                self.longest_ms = max(self.longest_ms, (now_s() - began_s) * 1000)
                due_s += 1 / rate if rate else 0.0
                if rate:
                    await asyncio.sleep(max(0.0, due_s - now_s()))
            writer.close()

    async def _once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Does the connection stay open?"""
        writer.write(stand.request(b'{"model":"m"}'))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        self.statuses[head[9:12]] += 1
        return b"connection: close" not in head

    async def stream(self) -> bool:
        """Did it end whole?"""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(stand.request(stand.BODY))
        try:
            await reader.readuntil(b"\r\n0\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            return False
        finally:
            writer.close()
        return True


def children(pid: int) -> list[int]:
    """All processes below this one."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *children(child)]
    return found


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def workers_of(running: stand.Proxy) -> list[int]:
    """Those who serve: children of the one that bears them."""
    below = children(running.process.pid)
    return below[1:]


async def restarts(running: stand.Proxy, vendor: Vendor, count: int) -> bool:
    callers, loop = Callers(running.port), asyncio.get_running_loop()
    streams = [loop.create_task(callers.stream()) for _ in range(STREAMS)]
    asking = [loop.create_task(callers.ask(RATE / ASKERS)) for _ in range(ASKERS)]
    await asyncio.sleep(2)
    took_s = []
    for _ in range(count):
        before, began_s = set(workers_of(running)), now_s()
        os.kill(running.process.pid, signal.SIGUSR2)
        while not await serving_anew(running, before):
            await asyncio.sleep(0.05)
        took_s.append(now_s() - began_s)
        await asyncio.sleep(1.5)  # those before drain, as they would between two deployments
    failed_by_restarts, by_restarts = callers.failed, dict(callers.statuses)
    killed = workers_of(running)[0]
    began_s = now_s()
    os.kill(killed, signal.SIGKILL)
    while killed in workers_of(running) or len(workers_of(running)) < 2:
        await asyncio.sleep(0.005)
    again_s = now_s() - began_s
    await asyncio.sleep(2)
    callers.stopped.set()
    await asyncio.gather(*asking)
    vendor.may_end.set()
    whole = sum(await asyncio.gather(*streams))
    print(
        f"requests: {by_restarts}; the longest took {callers.longest_ms:.0f} ms; a restart {max(took_s):.1f} s at most"
    )
    good = [
        stand.verdict(f"failed requests, {count} rolling restarts", failed_by_restarts, 0, ""),
        stand.verdict("other answers than 200", sum(callers.statuses.values()) - callers.statuses[b"200"], 0, ""),
        stand.verdict("broken streams", STREAMS - whole, 0, ""),
        stand.verdict("failed by a killed worker, of its connections", callers.failed - failed_by_restarts, ASKERS, ""),
        stand.verdict("until another one is there", again_s, 1.0, "s"),
    ]
    return all(good)


async def serving_anew(running: stand.Proxy, before: set[int]) -> bool:
    try:
        there = workers_of(running)
        return len(there) == 2 and not before & set(there) and await running.metric("serinus_workers") == 2
    except (OSError, ValueError):  # it is between two lives
        return False


async def limited(running: stand.Proxy, seconds: float) -> bool:
    callers, loop = Callers(running.port), asyncio.get_running_loop()
    began_s = now_s()
    asking = [loop.create_task(callers.ask(0)) for _ in range(16)]
    while not callers.statuses[b"429"]:
        await asyncio.sleep(0.01)
    await asyncio.sleep(seconds)
    callers.stopped.set()
    await asyncio.gather(*asking)
    allowed = PER_MINUTE * (1 + (now_s() - began_s) / 60)
    print(
        f"limit of {PER_MINUTE} a minute: {callers.statuses[b'200']} went, {allowed:.0f} may; {dict(callers.statuses)}"
    )
    return stand.verdict("off the limit", abs(callers.statuses[b"200"] / allowed - 1) * 100, 2, "%")


async def split(running: stand.Proxy, seconds: float) -> bool:
    callers, loop = Callers(running.port), asyncio.get_running_loop()
    workers = workers_of(running)
    before = [cpu_s(each) for each in workers]
    asking = [loop.create_task(callers.ask(0)) for _ in range(8)]
    await asyncio.sleep(seconds)
    callers.stopped.set()
    await asyncio.gather(*asking)
    spent = [cpu_s(each) - was for each, was in zip(workers, before, strict=True)]
    return stand.verdict("8 connections: off half of the work", abs(spent[0] / sum(spent) - 0.5) * 200, 10, "%")


async def cost_us(running: stand.Proxy, seconds: float, connections: int) -> float:
    """CPU time of a request, all processes together."""
    processes = [running.process.pid, *children(running.process.pid)]
    before = sum(map(cpu_s, processes))
    script = Path(__file__).parent / "peers/post.lua"
    url = f"http://127.0.0.1:{running.port}/v1/chat/completions"
    load = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}", "-s", str(script), url]
    done = await asyncio.to_thread(subprocess.run, [*stand.pinned(1), *load], capture_output=True, check=True)
    requests = int(done.stdout.decode().partition(" requests in")[0].split()[-1])
    return (sum(map(cpu_s, processes)) - before) / requests * 1e6


async def costs(seconds: float) -> bool:
    """With one core for the proxy, two workers at once would show how they share a core. So one of
    the two is stopped, with its half of the connections; how both fare on that core is shown beside."""
    seen: dict[str, list[float]] = {"one process": [], "a worker of two": [], "two workers on one core": []}
    async with stand.peer("upstream.py", "unary", core=1) as port:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "serinus.yaml"
            for _ in range(ROUNDS):
                for kind, found in seen.items():
                    alone = kind == "one process"
                    path.write_text(configured(folder, 1 if alone else 2, port))
                    async with stand.serving(path, core=0) as running:
                        stopped = workers_of(running)[1:] if kind == "a worker of two" else []
                        for each in stopped:
                            os.kill(each, signal.SIGSTOP)
                        found.append(await cost_us(running, seconds, 32 if alone else 64))
                        for each in stopped:
                            os.kill(each, signal.SIGCONT)
    us = {kind: statistics.median(found) for kind, found in seen.items()}
    print("CPU a request: " + ", ".join(f"{kind} {each:.1f} us" for kind, each in us.items()))
    return stand.verdict("a worker of two, times one process", us["a worker of two"] / us["one process"], 1.1, "")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=6.0)
    args = parser.parse_args()
    vendor, good = Vendor(), []
    async with stand.upstream(vendor.talk) as port:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "serinus.yaml"

            def write(workers: int, limits: str = "") -> Path:
                path.write_text(configured(folder, workers, port, limits))
                return path

            async with stand.serving(write(2)) as running:
                good.append(await restarts(running, vendor, args.restarts))
            async with stand.serving(write(2)) as running:
                good.append(await split(running, args.seconds))
            async with stand.serving(write(2, f"requests_per_minute: {PER_MINUTE}")) as running:
                good.append(await limited(running, args.seconds))
    good.append(await costs(args.seconds))
    sys.exit(not all(good))


if __name__ == "__main__":
    asyncio.run(main())
