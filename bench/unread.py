"""500 callers open a stream and read nothing of it. What does each cost the proxy, and is its upstream held back?

python bench/unread.py [STREAMS]
"""

import asyncio
import socket
import sys

import stand

STREAMS = int(sys.argv[1]) if len(sys.argv) > 1 else 500
LIMIT_KIB = 256
QUIET_S = 1.0  # the upstream has taken nothing more for so long: it is held back

sent_bytes = 0


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer without end, as fast as it is taken."""
    global sent_bytes
    await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(len(stand.BODY))
    writer.write(stand.STREAM_HEAD)
    block = stand.CHUNK * 100
    while True:
        writer.write(block)
        await writer.drain()
        sent_bytes += len(block)


async def mute_caller(port: int) -> socket.socket:
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", port))
    await loop.sock_sendall(raw, stand.REQUEST)
    return raw


async def main() -> bool:
    async with stand.upstream(flood) as upstream_port, stand.proxy(upstream_port) as proxy:
        before_kib = proxy.rss_kib()
        callers = [await mute_caller(proxy.port) for _ in range(STREAMS)]
        seen = -1
        while seen != sent_bytes:
            seen = sent_bytes
            await asyncio.sleep(QUIET_S)
        open_streams = await proxy.metric("serinus_upstream_inflight")
        grown_kib = (proxy.rss_kib() - before_kib) / STREAMS
        print(f"{open_streams:.0f} streams open; their upstream could send {sent_bytes / STREAMS / 1024:.0f} KiB each")
        for caller in callers:
            caller.close()
        return (
            stand.verdict("memory a stream that nobody reads", grown_kib, LIMIT_KIB, "KiB") and open_streams == STREAMS
        )


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
