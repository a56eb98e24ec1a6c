"""Keys are rotated and revoked under load: what do callers see?

    python bench/rotation.py [ROTATIONS]

500 requests a second and 100 open streams behind the proxy, while its upstream's key is rotated 50 times by the admin
API. The upstream accepts each value until the proxy says that it is retired. Promised: no failed request, no broken
stream, every stream ends on the value that it began with; and no request leaves with a revoked value after one second.
"""

import asyncio
import json
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import stand

ROTATIONS = int(sys.argv[1]) if len(sys.argv) > 1 else 50
RATE, STREAMS = 500, 100
REVOKED_WITHIN_S = 1.0
CONFIG = """listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:0}}
state_dir: {folder}/state
pre_drain: 0s
log: {{level: info, access: false}}
clients: [{{name: bench, key: {key}}}]
upstreams: {{up: {{base_url: "http://127.0.0.1:{port}/v1", keys: [{{name: main, value: key-0}}]}}}}
pools: {{chat: {{members: [{{upstream: up}}], retry: {{attempts: 1}}}}}}
routes: [{{prefix: /v1, pool: chat}}]
overlap: {{share: 20%, requests: 20}}
"""
REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


class Vendor:
    """Streams to whoever asks for `stream`, until told to end; answers others at once. Knows which values are valid."""

    def __init__(self) -> None:
        self.valid = {"key-0"}
        self.last_seen_s: dict[str, float] = {}
        self.may_end = asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            value = head.lower().partition(b"authorization: bearer ")[2].partition(b"\r\n")[0].decode()
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0")
            body = await reader.readexactly(length)
            self.last_seen_s[value] = time.monotonic()  # noqa: TID251 - a benchmark has the clock
            if value not in self.valid:
                writer.write(REFUSAL)
            elif b'"stream":true' in body:
                await self._stream(writer, value)
            else:
                writer.write(stand.ANSWER)

    async def _stream(self, writer: asyncio.StreamWriter, value: str) -> None:
        """Each event says which value it was asked with."""
        event = b"data: %b\n\n" % value.encode()
        chunk = b"%x\r\n%b\r\n" % (len(event), event)
        writer.write(stand.STREAM_HEAD + chunk)
        while not self.may_end.is_set():
            await asyncio.sleep(1.0)
            writer.write(chunk)
        writer.write(b"0\r\n\r\n")


class Callers:
    """What they see."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.statuses: Counter[bytes] = Counter()
        self.streams: list[asyncio.Task[str]] = []
        self.stopped = asyncio.Event()

    async def ask(self) -> None:
        """One of 25 that together ask at the rate."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        due_s = time.monotonic()  # noqa: TID251 - a benchmark has the clock
        while not self.stopped.is_set():
            writer.write(stand.request(b'{"model":"m"}'))
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            self.statuses[head[9:12]] += 1
            due_s += 25 / RATE
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))  # noqa: TID251
        writer.close()

    async def stream(self) -> str:
        """How it ended: whole, broken, or with another value than it began with."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(stand.request(stand.BODY))
        try:
            got = await reader.readuntil(b"\r\n0\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            return "broken"
        finally:
            writer.close()
        values = {line for line in got.split(b"\n") if line.startswith(b"data: ")}
        return "whole" if len(values) == 1 else "mixed"


class Admin:
    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    async def call(self, path: str, body: object = None) -> tuple[int, dict[str, object]]:
        return await asyncio.to_thread(self._call, path, body)

    def _call(self, path: str, body: object) -> tuple[int, dict[str, object]]:
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self._url + path, data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    async def rotate(self, value: str) -> str:
        """Rotate, and wait until it has ended. How did it?"""
        await self.call("/keys/up/main/rotate", {"value": value, "until_restart": True})
        while True:
            (key,) = (await self.call("/keys"))[1]["keys"]  # type: ignore[misc]
            if key["rotation"] not in ("validating", "overlapping"):
                return str(key["rotation"])
            await asyncio.sleep(0.05)


async def main() -> None:
    vendor = Vendor()
    async with stand.upstream(vendor.talk) as port:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "serinus.yaml"
            path.write_text(CONFIG.format(folder=folder, key=stand.CLIENT_KEY, port=port))
            async with stand.serving(path) as running:
                held = await measure(vendor, Callers(running.port), Admin(running.admin_port))
    sys.exit(not held)


async def measure(vendor: Vendor, callers: Callers, admin: Admin) -> bool:
    asking = [asyncio.get_running_loop().create_task(callers.ask()) for _ in range(25)]
    callers.streams += [asyncio.get_running_loop().create_task(callers.stream()) for _ in range(STREAMS)]
    ended: Counter[str] = Counter()
    for number in range(1, ROTATIONS + 1):
        if number % 10 == 0:
            ended[await admin.rotate(f"bad-{number}")] += 1
        vendor.valid.add(f"key-{number}")
        ended[await admin.rotate(f"key-{number}")] += 1
        callers.streams.append(asyncio.get_running_loop().create_task(callers.stream()))
        await asyncio.sleep(0.2)
        vendor.valid.discard(f"key-{number - 1}")  # the provider's own list: whoever still sends it is refused
    statuses = dict(callers.statuses)
    at_s = time.monotonic()  # noqa: TID251
    await admin.call("/keys/up/main/revoke", {})
    await asyncio.sleep(2 * REVOKED_WITHIN_S)
    late_s = max(0.0, vendor.last_seen_s[f"key-{ROTATIONS}"] - at_s)
    callers.stopped.set()
    await asyncio.gather(*asking)
    vendor.may_end.set()
    streams = Counter(await asyncio.gather(*callers.streams))
    print(f"{sum(statuses.values())} calls: {statuses}; streams: {dict(streams)}; rotations: {dict(ended)}")
    failed = sum(count for status, count in statuses.items() if status != b"200")
    return all(
        (
            stand.verdict("failed calls", failed, 0, "calls"),
            stand.verdict("streams broken, or with two values", sum(streams.values()) - streams["whole"], 0, "streams"),
            stand.verdict("rotations that did not end as they should", ROTATIONS - ended["rotated"], 0, "rotations"),
            stand.verdict("values accepted that are none", ROTATIONS // 10 - ended["refused"], 0, "values"),
            stand.verdict("a revoked value was last seen after", late_s, REVOKED_WITHIN_S, "s"),
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
