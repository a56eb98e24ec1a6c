"""10,000 requests over 200 connections, round after round. What stays behind?

    python bench/endurance.py [ROUNDS]

The first round fills pools and caches; growth is counted from its end.
"""

import asyncio
import sys

import stand

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 6
REQUESTS, CONNECTIONS = 10_000, 200
GROWTH_LIMIT_PERCENT = 2.0
DESCRIPTORS_LIMIT = 10  # more than after the first round: a pool of idle upstream connections may yet fill by a few


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(stand.BODY))
        writer.write(stand.ANSWER)


async def call(port: int, requests: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(requests):
        writer.write(stand.REQUEST)
        await reader.readuntil(b"\r\n\r\n{}")
    writer.close()
    await writer.wait_closed()


async def main() -> bool:
    async with stand.upstream(answer) as upstream_port, stand.proxy(upstream_port) as proxy:
        sizes_kib = []
        descriptors = []
        for number in range(ROUNDS):
            await asyncio.gather(*(call(proxy.port, REQUESTS // CONNECTIONS) for _ in range(CONNECTIONS)))
            while await proxy.metric("serinus_client_connections"):
                await asyncio.sleep(0.05)
            sizes_kib.append(proxy.rss_kib())
            descriptors.append(proxy.descriptors())
            print(f"round {number + 1}: {sizes_kib[-1]:.0f} KiB resident, {descriptors[-1]} descriptors")
        held = await proxy.metric("serinus_upstream_inflight")
        growth = (sizes_kib[-1] - sizes_kib[0]) / sizes_kib[0] * 100
        print(f"requests: {await proxy.metric('serinus_requests_total'):.0f}, leases still held: {held:.0f}")
        steady = stand.verdict("growth of memory after the first round", growth, GROWTH_LIMIT_PERCENT, "%")
        more = descriptors[-1] - descriptors[0]
        closed = stand.verdict("descriptors more than after the first round", more, DESCRIPTORS_LIMIT, "descriptors")
        return steady and closed and held == 0


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
