"""The worker processes: who there is, what they are told, what they are asked, and who follows one that died."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from proxy.obs.log import Log
from proxy.state.tasks import Tasks
from proxy.workers.link import Link, packed
from proxy.workers.messages import Drain
from proxy.workers.nursery import Nursery

ANSWER_S = 2.0  # how long a worker is waited for
FIRST_DELAY_S, LONGEST_DELAY_S, STEADY_S = 0.1, 30.0, 10.0  # before one that died soon, again, is followed
AGAIN_S = 1.0  # before one is asked for again that could not be had


@dataclass(eq=False, slots=True)
class Worker:
    """One process. Its number is its place: who follows it has the same."""

    number: int
    link: Link
    door: socket.socket
    born_s: float
    pid: int = 0
    is_ready: bool = False
    connections: int = 0
    generation: int = 0  # that it has in force
    answers: dict[int, "asyncio.Future[Any]"] = field(default_factory=dict)  # by the question's number

    def answer(self, number: int, answer: object) -> bool:
        """It has answered this question. Was anybody waiting still?"""
        waiting = self.answers.pop(number, None)
        if waiting is None or waiting.done():
            return False
        waiting.set_result(answer)
        return True


class Staff:
    def __init__(self, size: int, nursery: Nursery, clock: Callable[[], float], log: Log) -> None:
        self._size, self._nursery, self._clock, self._log = size, nursery, clock, log
        self._tasks = Tasks()
        self._workers: dict[int, Worker] = {}
        self._delays_s: dict[int, float] = {}
        self._questions = 0
        self._changed = asyncio.Event()
        self.is_leaving = False  # nobody is followed any more
        self.before: list[int] = []  # processes of a predecessor, from whom this one took over
        self.on_begun: Callable[[Worker], None] = lambda worker: None  # it knows nothing yet
        self.on_heard: Callable[[Worker, Any], None] = lambda worker, message: None
        self.on_gone: Callable[[Worker], None] = lambda worker: None
        self.on_lost: Callable[[], None] = lambda: None  # there can be no new ones
        nursery.on_born, nursery.on_ended, nursery.on_lost = self._born, self._ended, self._nursery_lost

    def begin(self) -> None:
        self._nursery.listen()
        for number in range(self._size):
            self._bear(number)

    @property
    def nursery_pid(self) -> int:
        return self._nursery.pid

    @property
    def all(self) -> tuple[Worker, ...]:
        return tuple(self._workers.values())

    @property
    def ready(self) -> list[Worker]:
        return [worker for worker in self._workers.values() if worker.is_ready]

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._workers.values() if worker.pid]

    async def until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait for what `changed` may bring about. False if it did not in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def changed(self) -> None:
        self._changed.set()

    # --- births and ends -----------------------------------------------------------------------------------------

    def _bear(self, number: int) -> None:
        sockets: list[socket.socket] = []
        try:
            sockets += socket.socketpair()
            sockets += socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours, theirs, our_door, their_door = sockets
            self._nursery.bear(number, theirs, their_door)
        except OSError as error:  # no descriptors left, say; or the nursery is gone, as will be heard
            self._log.error("worker_not_started", worker=number, reason=str(error), again_s=AGAIN_S)
            for each in sockets:
                each.close()
            self._tasks.spawn(self._follow(number, AGAIN_S))
            return
        theirs.close()
        their_door.close()
        worker = Worker(number, Link(_nothing, _nothing), our_door, self._clock())
        worker.link = Link(partial(self._hear, worker), partial(self._gone, worker))
        self._workers[number] = worker
        self._tasks.spawn(self._greet(worker, ours))

    async def _greet(self, worker: Worker, ours: socket.socket) -> None:
        ours.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: worker.link, sock=ours)
        self.on_begun(worker)

    def _hear(self, worker: Worker, message: object) -> None:
        self.on_heard(worker, message)

    def _born(self, number: int, pid: int) -> None:
        if number in self._workers:
            self._workers[number].pid = pid

    def _gone(self, worker: Worker) -> None:
        """Its link has ended, and so has it."""
        self._workers.pop(worker.number, None)
        for answer in worker.answers.values():
            answer.cancel()
        if not worker.is_ready:  # or it is the doorman's
            worker.door.close()
        self.on_gone(worker)
        if not self.is_leaving:
            lived_s, delay_s = self._clock() - worker.born_s, self._delay_s(worker)
            self._log.error(
                "worker_died", worker=worker.number, pid=worker.pid, lived_s=round(lived_s, 1), again_s=delay_s
            )
            self._tasks.spawn(self._follow(worker.number, delay_s))
        self._changed.set()

    def _delay_s(self, worker: Worker) -> float:
        """None the first time, and longer and longer for who cannot live."""
        before_s = self._delays_s.get(worker.number)
        delay_s = 0.0
        if before_s is not None and self._clock() - worker.born_s < STEADY_S:
            delay_s = min(max(2 * before_s, FIRST_DELAY_S), LONGEST_DELAY_S)
        self._delays_s[worker.number] = delay_s
        return delay_s

    async def _follow(self, number: int, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if not self.is_leaving:
            self._bear(number)

    def _ended(self, pid: int, status: int) -> None:
        if not self.is_leaving:
            self._log.info("worker_ended", pid=pid, status=status)

    def end_those_before(self) -> None:
        """Whoever served before this process began may come to an end."""
        for pid in self.before:
            _send(pid, signal.SIGTERM)

    def bury(self) -> None:
        """Of those before, who has ended and was, or became, a child of this process: a nursery does, and where this
        is the first process of all, workers."""
        for pid in tuple(self.before):
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self.before.remove(pid)
            except ChildProcessError:
                if not Path(f"/proc/{pid}").exists():
                    self.before.remove(pid)

    def _nursery_lost(self) -> None:
        self._log.error("nursery_died", workers=self.pids)
        self.on_lost()

    async def close(self) -> None:
        """End all that are left, at once. They do the cutting: done by the kernel, what is cut may look whole."""
        self.is_leaving = True
        self.tell(Drain(0.0, 0.0))
        await self.until(lambda: not self._workers, ANSWER_S)
        for pid in self.pids:
            _send(pid, signal.SIGKILL)
        self._nursery.close()
        await self._tasks.close()

    # --- talking -------------------------------------------------------------------------------------------------

    def tell(self, message: object, but: Worker | None = None) -> None:
        """All of them, but perhaps one."""
        data = packed(message)
        for worker in self.all:
            if worker is not but:
                worker.link.send_packed(data)

    async def ask(self, question: Callable[[int], object]) -> Iterable[Any]:
        """The answers of all who answer in time; `question` is made with its number."""
        self._questions += 1
        number, loop = self._questions, asyncio.get_running_loop()
        waiting: list[asyncio.Future[Any]] = []
        for worker in self.ready:
            answer = worker.answers[number] = loop.create_future()
            waiting.append(answer)
            worker.link.send(question(number))
        if not waiting:
            return []
        done, late = await asyncio.wait(waiting, timeout=ANSWER_S)
        for each in late:
            each.cancel()
        for worker in self.all:
            worker.answers.pop(number, None)
        return [each.result() for each in done if not each.cancelled()]


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _nothing(*_: object) -> None: ...
