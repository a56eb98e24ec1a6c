"""SIGTERM under load: what do callers see, and when is the process gone?

    python bench/drain.py [WORKERS]

In turn: with 100 streams of 10 s, which are to end whole; with 100 that never end, and a drain limit of 3 s;
and at 500 requests a second, whose callers close and connect anew when an answer says `connection: close`, until
connects are refused. By then a load balancer has known for `pre_drain` that it must send nobody here.
"""

import asyncio
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import load
import stand

WORKERS = int(sys.argv[1]) if len(sys.argv) > 1 else 1
STREAM_S = 10.0
ENDLESS_DRAIN_S, BEYOND_DRAIN_S = 3, 2.0
PRE_DRAIN_S = 5
CONFIG = """listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:0}}
state_dir: {folder}/state
pre_drain: {pre_drain}s
drain_timeout: {drain_timeout}s
workers: {workers}
log: {{level: info, access: false}}
clients: [{{name: bench, key: {key}}}]
upstreams: {{up: {{base_url: "http://127.0.0.1:{port}/v1", keys: [{{name: main, value: key-0}}]}}}}
pools: {{chat: {{members: [{{upstream: up}}], retry: {{attempts: 1}}}}}}
routes: [{{prefix: /v1, pool: chat}}]
"""


@asynccontextmanager
async def scene(*, stream_s: float, pre_drain: int, drain_timeout: int) -> AsyncIterator[stand.Proxy]:
    async with stand.upstream(load.Vendor(stream_s).talk) as port:
        with tempfile.TemporaryDirectory(prefix="serinus-bench-") as folder:
            path = Path(folder) / "bench.yaml"
            about = {"folder": folder, "port": port, "key": stand.CLIENT_KEY, "workers": WORKERS}
            path.write_text(CONFIG.format(**about, pre_drain=pre_drain, drain_timeout=drain_timeout))
            async with stand.serving(path) as proxy:
                yield proxy


async def ended(proxy: stand.Proxy) -> tuple[int, float]:
    """Its exit code after a SIGTERM, and how long it took."""
    began_s = time.monotonic()  # noqa: TID251
    proxy.process.send_signal(signal.SIGTERM)
    code = await proxy.process.wait()
    return code, time.monotonic() - began_s  # noqa: TID251


async def streams(stream_s: float, drain_timeout: int) -> tuple[Counter[str], int, float]:
    async with scene(stream_s=stream_s, pre_drain=0, drain_timeout=drain_timeout) as proxy:
        callers = load.Streams(proxy.port)
        await callers.begin()
        code, took_s = await ended(proxy)
        return await callers.ended(), code, took_s


async def requests() -> bool:
    async with scene(stream_s=0, pre_drain=PRE_DRAIN_S, drain_timeout=30) as proxy:
        callers = load.Requests(proxy.port)
        asking = asyncio.get_running_loop().create_task(callers.run())
        await asyncio.sleep(1.0)
        before, began_s = callers.seen["200"], time.monotonic()  # noqa: TID251 - a benchmark has the clock
        code, took_s = await ended(proxy)
        await asking
    served = callers.seen["200"] - before
    print(f"requests: {served} served after SIGTERM, in all {dict(callers.seen)}; gone with code {code}")
    print(f"  connects were refused {callers.refused_s - began_s:.2f} s after it, and it was gone after {took_s:.2f} s")
    return stand.verdict("  failed", callers.failed, 0, "requests") and code == 0


async def main() -> bool:
    how, code, took_s = await streams(STREAM_S, 30)
    print(f"streams of {STREAM_S:.0f} s: {dict(how)}; gone with code {code} after {took_s:.1f} s")
    held = stand.verdict("  not whole", how["cut"], 0, "streams") and code == 0
    how, code, took_s = await streams(3600, ENDLESS_DRAIN_S)
    print(f"endless streams: {dict(how)}; gone with code {code} after {took_s:.1f} s")
    held &= stand.verdict("  that look whole", how["whole"], 0, "streams") and code == 0
    held &= stand.verdict("  gone after", took_s, ENDLESS_DRAIN_S + BEYOND_DRAIN_S, "s")
    return await requests() and held


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
