"""The configuration's file changes under load: what do callers see, and how soon does it count?

    python bench/reloads.py [RELOADS]

500 requests a second and 100 open streams behind a proxy that watches its file. That becomes 100 valid configurations,
100 invalid ones, one that is written in two halves, and 50 that are swapped in as Kubernetes does it. Each valid one
has a header of its own for the upstream, which so sees when it counts. Promised: no failed request, no broken stream,
each configuration applied once and within 2 s, each invalid one rejected once, the half-written one never read, and
memory that stays where it was.
"""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import stand

RELOADS = int(sys.argv[1]) if len(sys.argv) > 1 else 100
SWAPS, RATE, ASKERS, STREAMS = RELOADS // 2, 500, 25, 100
WITHIN_S, HALF_WRITTEN_S, DRIFT_PERCENT = 2.0, 3.0, 5.0
WARM = RELOADS // 4  # reloads after which memory is looked at first
CONFIG = """listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:0}}
state_dir: {folder}/state
pre_drain: 0s
log: {{level: info, access: false}}
clients: [{{name: bench, key: {key}}}]
upstreams:
  first: {{base_url: "http://127.0.0.1:{port}/v1", headers: {{x-version: "{version}"}}}}
  second: {{base_url: "http://127.0.0.1:{port}/v1", headers: {{x-version: "{version}"}}}}
pools: {{chat: {{members: [{{upstream: first, weight: {weight}}}, {{upstream: second}}]}}}}
routes: [{{prefix: /v1, pool: chat}}]
"""


class Vendor:
    """Streams to whoever asks for `stream`, until told to end; answers others at once. Knows when a version came."""

    def __init__(self) -> None:
        self.first_seen_s: dict[int, float] = {}
        self.may_end = asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(int(_field(head, b"content-length") or b"0"))
            self.first_seen_s.setdefault(int(_field(head, b"x-version")), _now_s())
            if b'"stream":true' in body:
                await self._stream(writer)
            else:
                writer.write(stand.ANSWER)

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(stand.STREAM_HEAD)
        while not self.may_end.is_set():
            writer.write(stand.CHUNK)
            await asyncio.sleep(1.0)
        writer.write(b"0\r\n\r\n")


class Callers:
    """What they see."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.statuses: Counter[bytes] = Counter()
        self.stopped = asyncio.Event()

    async def ask(self) -> None:
        """One of several that together ask at the rate."""
        request = stand.REQUEST.replace(b'"stream":true', b'"stream":null')
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        due_s = _now_s()
        while not self.stopped.is_set():
            writer.write(request)
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(_field(head.lower(), b"content-length")))
                self.statuses[head[9:12]] += 1
            except (ConnectionError, asyncio.IncompleteReadError):
                self.statuses[b"cut"] += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            due_s += ASKERS / RATE
            await asyncio.sleep(max(0.0, due_s - _now_s()))
        writer.close()

    async def stream(self) -> bool:
        """Did it end whole?"""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**24)
        writer.write(stand.REQUEST)
        try:
            await reader.readuntil(b"\r\n0\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            return False
        finally:
            writer.close()
        return True


class File:
    """The configuration's file, and the ways in which it becomes another."""

    def __init__(self, folder: Path, port: int) -> None:
        self.path, self._port, self.version = folder / "serinus.yaml", port, 0

    def next(self) -> str:
        """The text of another version."""
        self.version += 1
        return CONFIG.format(
            folder=self.path.parent,
            key=stand.CLIENT_KEY,
            port=self._port,
            version=self.version,
            weight=1 + self.version % 3,
        )

    def rename(self, text: str) -> None:
        """As editors do."""
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        beside.rename(self.path)

    def swap(self, text: str) -> None:
        """As Kubernetes does: the file is in a folder of its own, and a link to that is replaced."""
        folder = self.path.with_name(f"..{self.version}")
        folder.mkdir()
        (folder / self.path.name).write_text(text)
        link = self.path.with_name("..data_tmp")
        link.symlink_to(folder.name)
        link.rename(self.path.with_name("..data"))
        if not self.path.is_symlink():
            self.path.unlink()
            self.path.symlink_to(f"..data/{self.path.name}")


def _field(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n%b: " % name)[2].partition(b"\r\n")[0]


def _now_s() -> float:
    return time.monotonic()  # noqa: TID251 - a benchmark has the clock


class Run:
    def __init__(self, running: stand.Proxy, vendor: Vendor, file: File) -> None:
        self._running, self._vendor, self.file = running, vendor, file
        self.waits_s: list[float] = []  # from a change until the first request that it counts for
        self.rss_kib = 0.0

    async def count(self, result: str = "") -> int:
        """Of reloads with this result, or all."""
        return round(await self._running.metric("serinus_config_reloads_total", f'result="{result}'))

    async def valid(self, change: Callable[[str], None], times: int) -> int:
        """How many were applied."""
        before = await self.count("applied")
        for number in range(times):
            text = self.file.next()
            began_s = _now_s()
            change(text)
            await self.wait_for_version(began_s)
            if number == WARM and not self.rss_kib:
                self.rss_kib = self._running.rss_kib()
        await self.settle()
        return await self.count("applied") - before

    async def wait_for_version(self, began_s: float) -> None:
        while self.file.version not in self._vendor.first_seen_s:
            if _now_s() - began_s > 5 * WITHIN_S:
                break
            await asyncio.sleep(0.01)
        self.waits_s.append(self._vendor.first_seen_s.get(self.file.version, _now_s()) - began_s)

    async def invalid(self, times: int) -> int:
        """How many were rejected."""
        before = await self.count("rejected")
        for number in range(times):
            self.file.rename(f"# {number}\nroutes: [" if number % 2 else self.file.next().replace("chat", "chta", 1))
            began_s = _now_s()
            while await self.count("rejected") <= before + number and _now_s() - began_s < 5 * WITHIN_S:
                await asyncio.sleep(0.02)
        await self.settle()
        return await self.count("rejected") - before

    async def half_written(self) -> int:
        """How many reloads there were before it was whole."""
        before = await self.count()
        text = self.file.next()
        with self.file.path.open("w") as writing:
            writing.write(text[: len(text) // 2])
            writing.flush()
            await asyncio.sleep(HALF_WRITTEN_S)
            early = await self.count() - before
            writing.write(text[len(text) // 2 :])
        await self.wait_for_version(_now_s())
        return early

    async def settle(self) -> None:
        """What comes twice would have come by then."""
        await asyncio.sleep(1.0)


async def main() -> None:
    vendor = Vendor()
    async with stand.upstream(vendor.talk) as port:
        with tempfile.TemporaryDirectory() as folder:
            file = File(Path(folder), port)
            file.path.write_text(file.next())
            async with stand.serving(file.path) as running:
                assert running.process.stderr is not None
                log = asyncio.get_running_loop().create_task(running.process.stderr.read())  # or it would be held
                held = await measure(Run(running, vendor, file), vendor, Callers(running.port), running)
            await log
    sys.exit(not held)


async def measure(run: Run, vendor: Vendor, callers: Callers, running: stand.Proxy) -> bool:
    loop, began_s = asyncio.get_running_loop(), _now_s()
    asking = [loop.create_task(callers.ask()) for _ in range(ASKERS)]
    streams = [loop.create_task(callers.stream()) for _ in range(STREAMS)]
    applied = await run.valid(run.file.rename, RELOADS)
    rejected = await run.invalid(RELOADS)
    early = await run.half_written()
    swapped = await run.valid(run.file.swap, SWAPS)
    drift_percent = 100 * (running.rss_kib() / run.rss_kib - 1)
    callers.stopped.set()
    took_s = _now_s() - began_s
    await asyncio.gather(*asking)
    vendor.may_end.set()
    whole = sum(await asyncio.gather(*streams))
    calls = callers.statuses.total()
    waits_s = sorted(run.waits_s)
    print(f"{calls} calls, {calls / took_s:.0f} a second: {dict(callers.statuses)}; {whole} of {STREAMS} streams whole")
    print(f"applied: {applied} of {RELOADS} files, {swapped} of {SWAPS} swaps; rejected: {rejected} of {RELOADS}")
    print(f"a change counts after {1000 * waits_s[len(waits_s) // 2]:.0f} ms, median")
    return all(
        (
            stand.verdict("failed calls", calls - callers.statuses[b"200"], 0, "calls"),
            stand.verdict("broken streams", STREAMS - whole, 0, "streams"),
            stand.verdict("files not applied once", abs(RELOADS - applied), 0, "files"),
            stand.verdict("invalid files not rejected once", abs(RELOADS - rejected), 0, "files"),
            stand.verdict("reloads of a half-written file", early, 0, "reloads"),
            stand.verdict("swaps not applied once", abs(SWAPS - swapped), 0, "swaps"),
            stand.verdict("a change counts after, at most", waits_s[-1], WITHIN_S, "s"),
            stand.verdict("memory grew by", drift_percent, DRIFT_PERCENT, "%"),
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
