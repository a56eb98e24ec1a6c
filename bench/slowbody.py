"""Callers begin a body and stop. When are they told, and is everything that waited for it let go?

    python bench/slowbody.py [CALLERS [BODY_TIMEOUT_S]]

The limit is 30 s without a byte; here the configuration says 3 s, so that it does not take long: what is measured is
how late it is kept. A third of the bodies fit the buffer, a third are chunks, a third are under way to the upstream
already. A last few send a byte now and then, for longer than the limit: these are slow, and not cut.
"""

import asyncio
import sys
import time

import stand

CALLERS = int(sys.argv[1]) if len(sys.argv) > 1 else 300
LIMIT_S = int(sys.argv[2]) if len(sys.argv) > 2 else 3
LATE_S = 0.5  # a tenth of a second for the limit, the rest for the stand
DRIBBLERS, DRIBBLED_BYTES = 20, 8
BUFFER_BYTES = 64 * 1024
REFUSED = b"HTTP/1.1 408 "

_HEAD, _, _ = stand.REQUEST.partition(b"Content-Length")
SMALL = _HEAD + b"Content-Length: 5000\r\n\r\n" + b"x" * 100
CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n64\r\n" + b"x" * 100 + b"\r\n"
LARGE = _HEAD + b"Content-Length: %d\r\n\r\n" % (4 * BUFFER_BYTES) + b"x" * 2 * BUFFER_BYTES
DRIBBLED = _HEAD + b"Content-Length: %d\r\n\r\n" % DRIBBLED_BYTES

now_s = time.monotonic  # noqa: TID251 - a benchmark has the clock


async def never_whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a request that fits; of one that does not, whatever comes."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"content-length: %d\r\n" % DRIBBLED_BYTES in head.lower():
        await reader.readexactly(DRIBBLED_BYTES)
        writer.write(stand.ANSWER)
    while await reader.read(65536):
        pass


async def stopping(port: int, begun: bytes) -> tuple[float, bool]:
    """Send the beginning of a request; the seconds from its last byte to the end, and whether a 408 was before that."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begun)
    await writer.drain()
    last_s = now_s()
    got = await reader.read()
    ended_s = now_s()
    writer.close()
    return ended_s - last_s, got.startswith(REFUSED)


async def dribbling(port: int) -> bool:
    """Send a byte each half of the limit; is it answered in the end?"""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(DRIBBLED)
    for _ in range(DRIBBLED_BYTES):
        await asyncio.sleep(LIMIT_S / 2)
        writer.write(b"x")
    answered = (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    return answered


async def main() -> bool:
    stand.CONFIG = stand.CONFIG.replace("pool: chat}}]", f"pool: chat, buffer: {BUFFER_BYTES}B}}}}]")
    stand.CONFIG += f"downstream: {{{{body_timeout: {LIMIT_S}s}}}}\n"
    async with stand.upstream(never_whole) as upstream_port, stand.proxy(upstream_port) as proxy:
        bodies = [(SMALL, CHUNKED, LARGE)[number % 3] for number in range(CALLERS)]
        async with asyncio.timeout(LIMIT_S * (DRIBBLED_BYTES + 10)), asyncio.TaskGroup() as group:
            slow = [group.create_task(dribbling(proxy.port)) for _ in range(DRIBBLERS)]
            stopped = [group.create_task(stopping(proxy.port, body)) for body in bodies]
        waits_s = [task.result()[0] for task in stopped]
        told = sum(task.result()[1] for task in stopped)
        answered = sum(task.result() for task in slow)
        held = await proxy.metric("serinus_upstream_inflight")
        print(f"{told} of {CALLERS} that stopped were told 408, the first after {min(waits_s):.2f} s of {LIMIT_S} s")
        print(f"{answered} of {DRIBBLERS} that were slow for {LIMIT_S * DRIBBLED_BYTES / 2:.0f} s were answered 200")
        print(f"leases still held: {held:.0f}")
        late = stand.verdict("later than the limit, at worst", (max(waits_s) - LIMIT_S) * 1000, LATE_S * 1000, "ms")
        return late and min(waits_s) >= LIMIT_S and (told, answered, held) == (CALLERS, DRIBBLERS, 0)


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
