"""Thousands of callers keep their connections open and ask nothing. What does each cost the proxy?

    python bench/idle.py [CONNECTIONS]

Each has made one request, so that nothing waits to be made at the first. Counted is the growth of the proxy's resident
memory, in each of its lanes; what the kernel holds for a socket is not in it. The proxy, and this process, need a
descriptor a connection: `ulimit -n`.
"""

import asyncio
import resource
import socket
import sys

import stand

CONNECTIONS = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
WARM_UP = 20
SPARE_DESCRIPTORS = 100
LIMIT_KIB = 15


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(stand.BODY))
        writer.write(stand.ANSWER)


async def caller(port: int) -> socket.socket:
    """A connection on which one request was made and answered."""
    raw = socket.socket()
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", port))
    await loop.sock_sendall(raw, stand.REQUEST)
    seen = b""
    while not seen.endswith(b"\r\n\r\n{}"):
        more = await loop.sock_recv(raw, 4096)
        if not more:
            sys.exit("the proxy closed a connection: are there descriptors enough?")
        seen += more
    return raw


async def idle_kib(upstream_port: int, *, fast_lane: bool) -> float:
    async with stand.proxy(upstream_port, fast_lane=fast_lane) as proxy:
        for _ in range(WARM_UP):
            (await caller(proxy.port)).close()
        await proxy.metric("serinus_client_connections")
        before_kib = proxy.rss_kib()
        callers = [await caller(proxy.port) for _ in range(CONNECTIONS)]
        grown_kib = proxy.rss_kib() - before_kib
        still_open = await proxy.metric("serinus_client_connections")
        for raw in callers:
            raw.close()
        if still_open != CONNECTIONS:
            sys.exit(
                f"only {still_open:.0f} of {CONNECTIONS} connections are open: what was measured is not what was asked"
            )
        return grown_kib / CONNECTIONS


def claim_descriptors() -> None:
    """Raise the soft limit for this process and, as it is inherited, for the proxy."""
    wanted = CONNECTIONS + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        sys.exit(f"{wanted} descriptors are needed, {hard} are allowed: raise `ulimit -Hn`, or ask for fewer")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def main() -> bool:
    claim_descriptors()
    async with stand.upstream(answer) as upstream_port:
        holds = []
        for name, fast_lane in (("fast lane", True), ("aiohttp's lane", False)):
            kib = await idle_kib(upstream_port, fast_lane=fast_lane)
            holds.append(stand.verdict(f"memory of an idle connection, {name}", kib, LIMIT_KIB, "KiB"))
        return all(holds)


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
