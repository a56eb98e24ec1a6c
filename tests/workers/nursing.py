"""A process above, for a test of the nursery: it does one of the scenes below and prints what came of it.

It is started afresh, for a fork of a process that runs tests would be half a copy of it.
"""

import asyncio
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from proxy.workers.nursery import Nursery


def work(worker: int, link: socket.socket, door: socket.socket) -> None:
    """Answer each word until the other end is gone, but do what some words say."""
    door.sendall(b"door %d" % worker)
    while word := link.recv(100):
        if word == b"raise":
            raise RuntimeError("as it was told")
        if word == b"end":
            return
        if word == b"exit":
            os._exit(7)
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
        ignored = [number for number in signals if signal.getsignal(number) is signal.SIG_IGN]
        link.sendall(json.dumps([worker, os.getpid(), os.getppid(), ignored]).encode())


class Child:
    """A worker, from above."""

    def __init__(self, nursery: Nursery, number: int) -> None:
        self.number = number
        self.link, theirs = socket.socketpair()
        self.door, their_door = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, their_door:
            nursery.bear(number, theirs, their_door)

    async def ask(self, word: bytes = b"?") -> list[int]:
        said = await self.say(word)
        return json.loads(said) if said else []

    async def say(self, word: bytes) -> bytes:
        self.link.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self.link, word)
            return await loop.sock_recv(self.link, 1000)
        except ConnectionError:
            return b""


class Above:
    """What the nursery told."""

    def __init__(self, nursery: Nursery) -> None:
        self.nursery = nursery
        self.born: dict[int, int] = {}
        self.ended: dict[int, int] = {}
        self.lost = 0
        self._told = asyncio.Event()
        nursery.on_born, nursery.on_ended, nursery.on_lost = self._born, self._ended, self._lost
        nursery.listen()

    def _born(self, worker: int, pid: int) -> None:
        self.born[worker] = pid
        self._told.set()

    def _ended(self, pid: int, status: int) -> None:
        self.ended[pid] = status
        self._told.set()

    def _lost(self) -> None:
        self.lost += 1
        self._told.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._told.clear()
            await self._told.wait()


async def births(above: Above, nursery: int) -> object:
    children = [Child(above.nursery, number) for number in range(3)]
    await above.until(lambda: len(above.born) == 3)
    told = [await child.ask() for child in children]
    return {
        "numbers": [said[0] for said in told],
        "pids": [said[1] for said in told] == [above.born[number] for number in range(3)],
        "parents": {said[2] for said in told} == {nursery},
        "terminates": [signal.SIGTERM in said[3] for said in told],
        "ignores": len(told[0][3]),
        "doors": [child.door.recv(100).decode() for child in children],
    }


async def ends(above: Above, nursery: int) -> object:
    words = {0: b"end", 1: b"raise", 2: b"exit", 3: b""}
    children = [Child(above.nursery, number) for number in words]
    await above.until(lambda: len(above.born) == len(words))
    for child in children[:3]:
        assert await child.say(words[child.number]) == b""
    os.kill(above.born[3], signal.SIGKILL)
    await above.until(lambda: len(above.ended) == len(words))
    return [above.ended[above.born[number]] for number in words]


async def killed(above: Above, nursery: int) -> object:
    child = Child(above.nursery, 0)
    before = await child.ask()
    os.kill(nursery, signal.SIGKILL)
    await above.until(lambda: bool(above.lost))
    after = await child.ask()
    while after[2] == nursery:  # whose end is told before its children have another parent
        after = await child.ask()
    try:
        Child(above.nursery, 1)
    except OSError:
        refused = True
    else:
        refused = False
    return {"lost": above.lost, "same": before[1] == after[1], "refused": refused}


async def signalled(above: Above, nursery: int) -> object:
    """What a terminal or a supervisor sends to the whole group is not for it."""
    await Child(above.nursery, 4).ask()  # then it has begun
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(nursery, number)
    return (await Child(above.nursery, 5).ask())[0]


async def closed(above: Above, nursery: int) -> object:
    child = Child(above.nursery, 0)
    before = await child.ask()
    above.nursery.close()
    above.nursery.close()
    status = await asyncio.to_thread(os.waitpid, nursery, 0)
    return {"status": status[1], "same": before[1] == (await child.ask())[1], "lost": above.lost}


async def crowded(above: Above, nursery: int) -> object:
    """No process more may be had, and then one may: the child's link ends, as if it had died at once."""
    refused = await Child(above.nursery, 0).say(b"?") == b""
    return {"refused": refused, "later": (await Child(above.nursery, 1).ask())[0]}


async def many(above: Above, nursery: int) -> object:
    """More than its control takes at once, and it keeps none of their sockets."""
    first = Child(above.nursery, 0)
    await above.until(lambda: bool(above.born))
    before = len(list(Path(f"/proc/{nursery}/fd").iterdir()))
    await first.say(b"end")
    for number in range(1, 60):
        child = Child(above.nursery, number)
        assert (await child.ask())[0] == number
        await child.say(b"end")
        child.link.close()
        child.door.close()
    await above.until(lambda: len(above.ended) == 60)
    return {
        "statuses": sorted(set(above.ended.values())),
        "kept": len(list(Path(f"/proc/{nursery}/fd").iterdir())) - before,
    }


SCENES: dict[str, Callable[[Above, int], Awaitable[object]]] = {
    scene.__name__: scene for scene in (births, ends, killed, signalled, closed, crowded, many)
}


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def forks(results: Iterator[bool], fork: Callable[[], int] = os.fork) -> Callable[[], int]:
    """A fork that fails where `results` says so."""

    def forked() -> int:
        if not next(results, True):
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return fork()

    return forked


async def play(scene: str, nursery: Nursery, pid: int) -> None:
    sys.stdout.write(json.dumps(await SCENES[scene](Above(nursery), pid)))


if __name__ == "__main__":
    if sys.argv[1] == crowded.__name__:
        os.fork = forks(iter((True, False)))  # for the nursery, and for its first child
    begun = Nursery.begin(work)
    asyncio.run(play(sys.argv[1], begun, children()[0]))
