"""Who follows whom, and when: with a nursery that only notes what it is asked for, and a clock that stands still."""

import asyncio
import os
import socket
from collections.abc import Callable

import pytest
from structlog.testing import CapturingLogger

from proxy.workers import staff as module
from proxy.workers.link import Link
from proxy.workers.staff import AGAIN_S, FIRST_DELAY_S, LONGEST_DELAY_S, STEADY_S, Staff, Worker
from tests.support.patience import PATIENCE_S


class Nursery:
    """Births are asked of it, and the test plays the children."""

    def __init__(self) -> None:
        self.children: dict[int, list[socket.socket]] = {}
        self.births: list[int] = []
        self.fails = 0
        self.on_born: Callable[[int, int], None]
        self.on_ended: Callable[[int, int], None]
        self.on_lost: Callable[[], None]

    def listen(self) -> None: ...

    def bear(self, worker: int, link: socket.socket, door: socket.socket) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError("no room")
        self.births.append(worker)
        self.children[worker] = [link.dup(), door.dup()]
        pid = 10_000_000 + len(self.births)  # nobody has such a number
        asyncio.get_running_loop().call_soon(self.on_born, worker, pid)

    def dies(self, worker: int) -> None:
        for each in self.children.pop(worker):
            each.close()

    def close(self) -> None:
        for worker in tuple(self.children):
            self.dies(worker)


class World:
    def __init__(self, size: int) -> None:
        self.now_s = 1000.0
        self.nursery, self.log = Nursery(), CapturingLogger()
        self.staff = Staff(size, self.nursery, lambda: self.now_s, self.log)
        self.begun: list[int] = []
        self.gone: list[int] = []
        self.staff.on_begun = lambda worker: self._note(self.begun, worker)
        self.staff.on_gone = lambda worker: self._note(self.gone, worker)

    def _note(self, into: list[int], worker: Worker) -> None:
        into.append(worker.number)
        self.staff.changed()

    async def until(self, condition: Callable[[], bool]) -> None:
        assert await self.staff.until(condition, PATIENCE_S)

    async def dies(self, number: int = 0) -> None:
        """And another one is there, that knows what it is to."""
        gone, begun = len(self.gone), len(self.begun)
        self.nursery.dies(number)
        await self.until(lambda: (len(self.gone), len(self.begun)) == (gone + 1, begun + 1))

    @property
    def told(self) -> list[tuple[str, dict]]:
        return [(call.args[0], call.kwargs) for call in self.log.calls]


@pytest.fixture
async def world(monkeypatch):
    """Waiting takes no time: how long it would be is what is told."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def soon(delay_s: float) -> None:
        waits.append(delay_s)
        await sleep(0)

    monkeypatch.setattr(module.asyncio, "sleep", soon)
    worlds: list[World] = []

    def begin(size: int = 1) -> World:
        worlds.append(World(size))
        worlds[-1].waits = waits
        worlds[-1].staff.begin()
        return worlds[-1]

    yield begin
    for each in worlds:
        doors = [worker.door for worker in each.staff.all]
        await each.staff.close()
        await each.until(lambda each=each: not each.staff.all)
        for door in doors:
            door.close()


async def test_all_are_born_and_told(world):
    three = world(3)
    await three.until(lambda: len(three.begun) == 3)
    assert sorted(three.begun) == three.nursery.births == [0, 1, 2]
    assert len(three.staff.pids) == 3
    assert three.staff.ready == []


async def test_who_died_is_followed_at_once_and_then_later_and_later(world):
    one = world()
    await one.until(lambda: one.begun == [0])
    for _ in range(12):
        await one.dies()
    assert one.waits[:4] == [0.0, FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S]
    assert one.waits[-1] == LONGEST_DELAY_S == max(one.waits)
    assert [told["again_s"] for event, told in one.told if event == "worker_died"] == one.waits


async def test_who_lived_long_is_followed_at_once(world):
    one = world()
    await one.until(lambda: one.begun == [0])
    for _ in range(4):
        await one.dies()
    one.now_s += STEADY_S
    await one.dies()
    await one.dies()
    assert one.waits[-3:] == [4 * FIRST_DELAY_S, 0.0, FIRST_DELAY_S]


async def test_each_place_has_its_own_delay(world):
    two = world(2)
    await two.until(lambda: len(two.begun) == 2)
    for number in (0, 0, 0, 1):
        await two.dies(number)
    assert two.waits == [0.0, FIRST_DELAY_S, 2 * FIRST_DELAY_S, 0.0]
    assert two.nursery.births == [0, 1, 0, 0, 0, 1]


async def test_one_that_could_not_be_had_is_asked_for_again(world):
    one = world()
    await one.until(lambda: one.begun == [0])
    one.nursery.fails = 2
    await one.dies()
    assert one.waits == [0.0, AGAIN_S, AGAIN_S]
    assert [told["reason"] for event, told in one.told if event == "worker_not_started"] == ["no room"] * 2


async def test_without_descriptors_it_is_asked_for_again(world, monkeypatch):
    one = world()
    await one.until(lambda: one.begun == [0])
    pairs, fails = socket.socketpair, [True, True]

    def pair(*kind):
        if kind and fails:
            fails.pop()
            raise OSError(24, "Too many open files")
        return pairs(*kind)

    monkeypatch.setattr(module.socket, "socketpair", pair)
    await one.dies()
    assert one.waits == [0.0, AGAIN_S, AGAIN_S]


async def test_who_leaves_is_not_followed(world):
    two = world(2)
    await two.until(lambda: len(two.begun) == 2)
    two.staff.is_leaving = True
    two.nursery.dies(0)
    two.nursery.dies(1)
    await two.until(lambda: not two.staff.all)
    assert (two.waits, two.nursery.births, two.told) == ([], [0, 1], [])


async def test_the_door_of_one_that_never_was_ready_is_closed(world):
    one = world()
    await one.until(lambda: one.begun == [0])
    door = one.staff.all[0].door
    await one.dies()
    assert door.fileno() == -1
    ready = one.staff.all[0]
    ready.is_ready = True
    await one.dies()
    assert ready.door.fileno() >= 0, "it is the doorman's, who learns of the end by it"
    ready.door.close()


async def test_those_who_answer_in_time_are_heard(world, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", 0.0)
    three = world(3)
    await three.until(lambda: len(three.begun) == 3)
    for worker in three.staff.all:
        worker.is_ready = worker.number != 2
    first, late, _ = three.staff.all

    def question(number: int) -> tuple[str, int]:
        first.answer(number, "yes")
        return "how", number

    assert list(await three.staff.ask(question)) == ["yes"]
    first.answer(99, "nobody asked")
    late.answer(1, "too late")
    assert late.answers == first.answers == {}


async def test_who_dies_is_waited_for_no_more(world):
    one = world()
    await one.until(lambda: one.begun == [0])
    one.staff.all[0].is_ready = True
    door = one.staff.all[0].door

    def question(number: int) -> int:
        one.nursery.dies(0)
        return number

    assert list(await one.staff.ask(question)) == []
    await one.until(lambda: len(one.begun) == 2)
    door.close()


async def test_all_are_told_but_one(world):
    two = world(2)
    await two.until(lambda: len(two.begun) == 2)
    two.staff.tell("all")
    two.staff.tell("but the first", but=two.staff.all[0])
    assert [await words(two.nursery.children[number][0], 1 + number) for number in (0, 1)] == [
        ["all"],
        ["all", "but the first"],
    ]


async def words(link: socket.socket, count: int) -> list[str]:
    heard: list[str] = []
    ears = Link(heard.append, lambda: None)
    link.setblocking(False)
    while len(heard) < count:
        ears.data_received(await asyncio.get_running_loop().sock_recv(link, 1000))
    return heard


async def test_that_the_nursery_is_gone_is_told(world):
    one, lost = world(), []
    await one.until(lambda: one.begun == [0])
    one.staff.on_lost = lambda: lost.append(True)
    one.nursery.on_lost()
    one.nursery.on_ended(7, -9)
    assert lost == [True]
    assert [event for event, _ in one.told] == ["nursery_died", "worker_ended"]
    assert os.getpid() not in one.staff.pids
