"""Does `serinus bench` measure what is there? And can it carry 500 streams?

    python bench/accuracy.py

A simulated upstream waits for as long as it is told to, and the figures of `serinus bench` are held against that: for
streams and for answers that come whole, closed loop and open. Then the same upstream is asked through the proxy too, in
turns, which shows what the proxy adds. Last, 500 streams at once: how much of a core does the client use?
"""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import stand

TTFT_MS, GAP_MS, TOKENS = 200.0, 20.0, 50
WHOLE_MS = TTFT_MS + (TOKENS - 1) * GAP_MS
LIMIT_PERCENT = 5
STREAMS, CORE_LIMIT = 500, 1.0  # unless it says that the client was the limit
LOADS = {"5 at once": ("--concurrency", "5", "--requests", "50"), "10 a second": ("--rate", "10", "--requests", "50")}


@asynccontextmanager
async def simulated() -> AsyncIterator[int]:
    command = (sys.executable, "-m", "proxy.simulation", "--port", "0", "--ttft", f"{TTFT_MS:g}ms")
    command += ("--per-token", f"{GAP_MS:g}ms", "--tokens", str(TOKENS))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(re.search(rb":(\d+)/", await process.stdout.readline())[1])  # type: ignore[index]
    finally:
        process.terminate()
        await process.wait()


async def bench(url: str, *options: str) -> dict[str, Any]:
    command = (sys.executable, "-m", "proxy", "bench", url, "--model", "gpt-4.1", "--tokens", str(TOKENS), "--json")
    command += ("--key", stand.CLIENT_KEY, *options)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return json.loads(said)  # type: ignore[no-any-return]


def deviation(name: str, found_ms: float, set_ms: float) -> bool:
    percent = 100 * abs(found_ms - set_ms) / set_ms
    return stand.verdict(f"  {name}: {found_ms:.2f} ms, set {set_ms:g} ms, off by", percent, LIMIT_PERCENT, "%")


async def accuracy(url: str) -> bool:
    holds = []
    for name, load in LOADS.items():
        streamed, whole = (await bench(url, "--stream", "both", *load))["arms"]
        print(f"{name}, p50")
        holds += [
            deviation("first token", streamed["first_token_ms"]["p50"], TTFT_MS),
            deviation("between tokens", streamed["between_tokens_ms"]["p50"], GAP_MS),
            deviation("a stream's end", streamed["total_ms"]["p50"], WHOLE_MS),
            deviation("a whole answer", whole["total_ms"]["p50"], WHOLE_MS),
        ]
    return all(holds)


async def addition(port: int) -> None:
    async with stand.proxy(port) as proxy:
        url, direct = f"http://127.0.0.1:{proxy.port}/v1", f"http://127.0.0.1:{port}/v1"
        found = await bench(url, "--compare", direct, *LOADS["5 at once"])
        print("what the proxy adds, 5 at once")
        for each in found["added_by_target"]:
            interval = " … ".join(f"{bound:+.2f}" for bound in each["mean_interval_ms"])
            print(f"  {each['measure']}: {each['mean_ms']:+.2f} ms (95 %: {interval})")


async def many(url: str) -> bool:
    found = await bench(url, "--concurrency", str(STREAMS), "--requests", str(2 * STREAMS))
    (arm,), client = found["arms"], found["client"]
    print(f"{STREAMS} streams at once: {arm['answered']} answers, {arm['tokens_a_s']:.0f} tokens a second")
    within = stand.verdict("  the client used", client["busy"], CORE_LIMIT, "core")
    if client["limit"] is not None:
        print(f"  it says that the client was the limit: {client['limit']}")
    return within or client["limit"] is not None


async def main() -> bool:
    async with simulated() as port:
        url = f"http://127.0.0.1:{port}/v1"
        accurate = await accuracy(url)
        await addition(port)
        return await many(url) and accurate


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
