"""1,000 callers send a head byte by byte. When is each told that it took too long, and do others notice?

    python bench/slowloris.py [CONNECTIONS [ROUNDS]]

The machine's speed drifts from minute to minute: windows with slow callers and windows without take turns, and the
others' waits are compared within one run. Slow callers, others and upstream share one process, so a part of what the
others wait more is the stand's own.
"""

import asyncio
import socket
import sys
import time

import idle
import stand

CONNECTIONS = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 3
WINDOW_S = 10.0
GAP_S = 0.5  # between two bytes of one head; the last finds it unfinished by far
LIMIT_S = 10.5  # 10 s, two ticks of the watch (one in either lane), and the stand's own lateness
OTHERS, PACE_S = 20, 0.05  # 20 others with 20 requests a second each
LIMIT_RATIO = 2.0
REFUSED, CLOSES = b"HTTP/1.1 408 ", b"\r\nconnection: close\r\n"

now_s = time.monotonic  # noqa: TID251 - a benchmark has the clock


class Slow(asyncio.Protocol):
    """Sends its head byte by byte until it is told to stop."""

    def __init__(self) -> None:
        self.got, self.sent_bytes, self.first_s = b"", 0, 0.0
        self.ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = transport
        self.wire.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self) -> None:
        if not self.ended.done():
            self.first_s = self.first_s or now_s()
            self.wire.write(stand.REQUEST[self.sent_bytes : self.sent_bytes + 1])
            self.sent_bytes += 1

    def data_received(self, data: bytes) -> None:
        self.got += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(now_s())

    @property
    def told(self) -> bool:
        return self.got.startswith(REFUSED) and CLOSES in self.got


async def slow_window(port: int) -> list[Slow]:
    """Connect evenly over one gap, then go round byte by byte until all are ended."""
    loop = asyncio.get_running_loop()
    slow: list[Slow] = []
    begun_s = now_s()
    while not (slow and all(caller.ended.done() for caller in slow)) and now_s() < begun_s + 2 * LIMIT_S:
        for number in range(CONNECTIONS):
            if number == len(slow):
                slow.append((await loop.create_connection(Slow, "127.0.0.1", port))[1])
            slow[number].send()
            late_s = begun_s + (number + 1) / CONNECTIONS * GAP_S - now_s()
            if late_s > 0:
                await asyncio.sleep(late_s)
        begun_s += GAP_S
    return slow


async def window(port: int, *, slow: bool) -> tuple[list[float], list[Slow]]:
    """What the others wait while there are slow callers, or none."""
    until, waits_ms = asyncio.Event(), list[float]()
    async with asyncio.TaskGroup() as group:
        for _ in range(OTHERS):
            group.create_task(stand.steady(port, until, waits_ms, PACE_S))
            await asyncio.sleep(PACE_S / OTHERS)
        callers = await slow_window(port) if slow else []
        if not slow:
            await asyncio.sleep(WINDOW_S)
        until.set()
    return waits_ms, callers


def p99(waits: list[float]) -> float:
    return sorted(waits)[len(waits) * 99 // 100]


async def main() -> bool:
    async with stand.upstream(idle.answer) as upstream_port, stand.proxy(upstream_port, core=0) as proxy:
        without_ms, beside_ms, slow = list[float](), list[float](), list[Slow]()
        for number in range(ROUNDS):
            quiet_ms, _ = await window(proxy.port, slow=False)
            loud_ms, callers = await window(proxy.port, slow=True)
            print(f"round {number + 1}: others' p99 {p99(quiet_ms):.2f} ms without, {p99(loud_ms):.2f} ms beside")
            without_ms, beside_ms, slow = without_ms + quiet_ms, beside_ms + loud_ms, slow + callers
    told = sum(caller.told for caller in slow)
    lasted_s = [caller.ended.result() - caller.first_s for caller in slow if caller.ended.done()]
    print(f"{told} of {CONNECTIONS * ROUNDS} were told 408 and closed, the first after {min(lasted_s):.2f} s")
    print(f"others' p99 {p99(without_ms):.2f} ms without, {p99(beside_ms):.2f} ms beside, of {len(beside_ms)} requests")
    in_time = stand.verdict("from a slow head's first byte to its end, at worst", max(lasted_s), LIMIT_S, "s")
    steady = stand.verdict("others' p99 beside that without", p99(beside_ms) / p99(without_ms), LIMIT_RATIO, "times")
    return in_time and steady and told == len(slow) == len(lasted_s) == CONNECTIONS * ROUNDS


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
