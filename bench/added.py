"""One kept-alive connection, one request at a time. What does the proxy add to each?

    python bench/added.py [REQUESTS [CLIENT,UPSTREAM,PROXY]]

The same requests go straight to the mock upstream and through the proxy, by each of its lanes, in blocks that take
turns: a drift of the machine's speed hits all of them. The client is a blocking socket. It has one core, the upstream
and the proxy the other, so that each way crosses between the cores twice: to wake another core takes 15 µs and more on
a virtual machine, and with the upstream on the client's core (1,1,0) that would be most of what is measured. A relay
that does nothing but pass bytes on shows what any hop costs.
"""

import asyncio
import os
import socket
import statistics
import sys
import time
from contextlib import AsyncExitStack

import stand

REQUESTS = int(sys.argv[1]) if len(sys.argv) > 1 else 4000  # of each kind, by each way
CORES = sys.argv[2] if len(sys.argv) > 2 else "1,0,0"
CLIENT, UPSTREAM, PROXY = (int(core) for core in CORES.split(","))
BLOCK = 100
LIMIT_US = 100
BODY = b'{"model":"gpt-4.1","messages":[{"role":"user","content":"' + b"Explain quantum computing. " * 13 + b'"}]}'
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
    b"User-Agent: OpenAI/Python 1.0\r\nContent-Type: application/json\r\nAuthorization: Bearer %b\r\n"
    b"Content-Length: %d\r\n\r\n" % (stand.CLIENT_KEY.encode(), len(BODY))
)
ANSWER_END = {"unary": b'"total_tokens":69}}', "stream": b"\r\n0\r\n\r\n"}
DIRECT, RELAY, FAST = "straight to the upstream", "a bare relay", "the fast lane"
WIDTH = 36


class Way:
    """A connection, and how long answers took on it."""

    def __init__(self, port: int, mode: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.mode = mode
        self.waits_us: list[float] = []

    def block(self) -> None:
        self.waits_us += [self._ask() for _ in range(BLOCK)]

    def _ask(self) -> float:
        """The microseconds to the whole of a unary answer, or to the first byte of a stream."""
        now_ns, recv, end = time.perf_counter_ns, self.socket.recv, ANSWER_END[self.mode]
        sent_ns = now_ns()
        self.socket.sendall(HEAD + BODY)
        answer = recv(65536)
        came_ns = now_ns()
        while not answer.endswith(end):
            more = recv(65536)
            if not more:
                sys.exit(f"an answer was cut: {answer!r}")
            answer += more
            came_ns = now_ns() if self.mode == "unary" else came_ns
        if not answer.startswith(b"HTTP/1.1 200"):
            sys.exit(f"not the answer: {answer[:200]!r}")
        return (came_ns - sent_ns) / 1000


async def ways(mode: str, stack: AsyncExitStack) -> dict[str, Way]:
    """The connections to compare, in the order of their turns."""
    upstream_port = await stack.enter_async_context(stand.peer("upstream.py", mode, "3", "0", core=UPSTREAM))
    relay_port = await stack.enter_async_context(stand.peer("relay.py", str(upstream_port), core=PROXY))
    ports = {DIRECT: upstream_port, RELAY: relay_port}
    for name, fast_lane in (("the fast lane", True), ("aiohttp's lane", False)):
        proxy = await stack.enter_async_context(stand.proxy(upstream_port, fast_lane=fast_lane, core=PROXY))
        ports[name] = proxy.port
    return {name: Way(port, mode) for name, port in ports.items()}


def measure(by_name: dict[str, Way]) -> None:
    for way in by_name.values():  # the first block warms up
        way.block()
        way.waits_us.clear()
    for _ in range(REQUESTS // BLOCK):
        for way in by_name.values():
            way.block()


def report(title: str, by_name: dict[str, Way]) -> bool:
    print(f"\n{title}, µs:{'median':>{WIDTH - len(title)}}{'p90':>9}{'p99':>9}{'added':>9}")
    medians = {name: statistics.median(way.waits_us) for name, way in by_name.items()}
    for name, way in by_name.items():
        tenths, hundredths = (statistics.quantiles(way.waits_us, n=n)[-1] for n in (10, 100))
        added = medians[name] - medians[DIRECT]
        print(f"  {name:{WIDTH - 6}}{medians[name]:9.1f}{tenths:9.1f}{hundredths:9.1f}{added:9.1f}")
    return stand.verdict(f"added by {FAST}, median", medians[FAST] - medians[DIRECT], LIMIT_US, "µs")


async def main() -> bool:
    if stand.pinned(CLIENT):
        os.sched_setaffinity(0, {CLIENT})
    holds = []
    for mode, title in (("unary", "a unary answer, whole"), ("stream", "a stream's first byte")):
        async with AsyncExitStack() as stack:
            by_name = await ways(mode, stack)
            measure(by_name)
            holds.append(report(title, by_name))
    return all(holds)


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
