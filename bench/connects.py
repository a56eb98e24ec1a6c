"""5,000 new connections a second for 5 s where no more are allowed. Is each told so at once and all well after it?

    python bench/connects.py [CONNECTS_A_SECOND [SECONDS]]

`downstream.max_connections` is set low, and all places are taken: by callers that are served all the while, and by
idle ones, who leave when the flood is over. Each connection of the flood sends its request at once, as an SDK does, and
reads what comes. It is made by a thread with epoll: asyncio alone would not get to 5,000 a second.
"""

import asyncio
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass, field

import idle
import stand

RATE = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 5.0
PLACES, SERVED = 200, 20
FAST_MS = 50  # as for a 503 of other reasons
NORMAL_S = 5.0
IN_A_ROW = 20  # new connections that are served, one after the other: normal service
GIVE_UP_S = 10.0
RESET = struct.pack("ii", 1, 0)  # on close: no port is left waiting
REFUSED, AGAIN = b"HTTP/1.1 503 ", b"\r\nretry-after: "

now_s = time.monotonic  # noqa: TID251 - a benchmark has the clock


@dataclass
class One:
    """A connection of the flood."""

    raw: socket.socket
    begun_s: float
    got: bytes = b""
    asked: bool = False


@dataclass
class Flood:
    """So many connections a second, from one thread."""

    port: int
    open: dict[int, One] = field(default_factory=dict)
    waits_ms: list[float] = field(default_factory=list)
    refused: int = 0
    made_s: float = 0.0  # how long it took to make them
    other: int = 0  # reset before it was told, or told something else

    def run(self) -> None:
        self._poll = select.epoll()
        begun_s, made, total = now_s(), 0, int(RATE * SECONDS)
        while (made < total or self.open) and now_s() < begun_s + SECONDS + GIVE_UP_S:
            due = min(total, int((now_s() - begun_s) * RATE) + 1)
            for _ in range(due - made):
                self._connect()
            made = max(made, due)
            for descriptor, _ in self._poll.poll(0.001):
                self._look(self.open[descriptor])
            if made < total or not self.made_s:
                self.made_s = now_s() - begun_s
        self.other += len(self.open)
        self._poll.close()

    def _connect(self) -> None:
        raw = socket.socket()
        raw.setblocking(False)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.open[raw.fileno()] = One(raw, now_s())
        raw.connect_ex(("127.0.0.1", self.port))
        self._poll.register(raw, select.EPOLLOUT)

    def _look(self, one: One) -> None:
        try:
            if not one.asked:
                one.raw.send(stand.REQUEST)
                one.asked = True
                self._poll.modify(one.raw, select.EPOLLIN)
            elif data := one.raw.recv(4096):
                one.got += data
            else:
                self._end(one)
        except BlockingIOError:
            pass
        except OSError:
            self._end(one)

    def _end(self, one: One) -> None:
        self.waits_ms.append((now_s() - one.begun_s) * 1000)
        told = one.got.startswith(REFUSED) and AGAIN in one.got
        self.refused, self.other = self.refused + told, self.other + (not told)
        del self.open[one.raw.fileno()]
        one.raw.close()


async def until_normal(port: int) -> float:
    """The seconds until new callers are served, several in a row."""
    begun_s, in_a_row = now_s(), 0
    while in_a_row < IN_A_ROW and now_s() < begun_s + 2 * NORMAL_S:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(stand.REQUEST)
        in_a_row = in_a_row + 1 if (await reader.read(4096)).startswith(b"HTTP/1.1 200 ") else 0
        writer.close()
    return now_s() - begun_s


def p99(waits: list[float]) -> float:
    return sorted(waits)[len(waits) * 99 // 100]


async def main() -> bool:
    stand.CONFIG += f"downstream: {{{{max_connections: {PLACES}}}}}\n"
    async with stand.upstream(idle.answer) as upstream_port, stand.proxy(upstream_port, core=0) as proxy:
        until, waits_ms = asyncio.Event(), list[float]()
        async with asyncio.TaskGroup() as group:
            for _ in range(SERVED):
                group.create_task(stand.steady(proxy.port, until, waits_ms))
            idlers = [await idle.caller(proxy.port) for _ in range(PLACES - SERVED)]
            before_ms = p99(waits_ms)
            waits_ms.clear()
            flood = Flood(proxy.port)
            await asyncio.to_thread(flood.run)
            for raw in idlers:
                raw.close()
            normal_s = await until_normal(proxy.port)
            until.set()
    rate = int(RATE * SECONDS) / flood.made_s
    print(f"{rate:.0f} connects a second: {flood.refused} got a 503 with Retry-After, {flood.other} did not")
    print(f"those with a place: p99 {before_ms:.1f} ms before, {p99(waits_ms):.1f} ms meanwhile, all of them served")
    print(f"a 503 took {sorted(flood.waits_ms)[len(flood.waits_ms) // 2]:.1f} ms, median")
    fast = stand.verdict("until a 503, p99", p99(flood.waits_ms), FAST_MS, "ms")
    normal = stand.verdict("until service is normal again", normal_s, NORMAL_S, "s")
    return fast and normal and flood.other == 0


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
