"""Callers leave in the middle of their streams. How long until their upstream is told?

python bench/leaving.py [CALLERS]
"""

import asyncio
import socket
import struct
import sys
import time

import stand

CALLERS = int(sys.argv[1]) if len(sys.argv) > 1 else 200
LIMIT_MS = 100
GAP_S = 0.02

ended_s: asyncio.Queue[float]


async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An event every 20 ms, until the connection ends; says when that was."""
    await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(len(stand.BODY))
    writer.write(stand.STREAM_HEAD)
    end = asyncio.ensure_future(reader.read())  # noqa: TID251 - awaited below
    while not end.done():
        writer.write(stand.CHUNK)
        await asyncio.wait((end,), timeout=GAP_S)
    end.exception()
    ended_s.put_nowait(time.monotonic())  # noqa: TID251 - a benchmark has the clock


async def leave(port: int, politely: bool) -> float:
    """Open a stream, read three events, leave; the seconds until the upstream knew."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(stand.REQUEST)
    for _ in range(3):
        await reader.readuntil(stand.EVENT)
    if not politely:
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    left_s = time.monotonic()  # noqa: TID251
    writer.transport.abort()
    return await ended_s.get() - left_s


async def main() -> bool:
    global ended_s
    ended_s = asyncio.Queue()
    async with stand.upstream(dribble) as upstream_port, stand.proxy(upstream_port) as proxy:
        waits_ms = sorted([await leave(proxy.port, politely=number % 2 == 0) * 1000 for number in range(CALLERS)])
        gone = await proxy.metric("serinus_client_disconnects_total")
        print(f"{CALLERS} callers left; {gone:.0f} counted; median {waits_ms[CALLERS // 2]:.2f} ms")
        return stand.verdict("until the upstream knew, at worst", waits_ms[-1], LIMIT_MS, "ms") and gone == CALLERS


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
