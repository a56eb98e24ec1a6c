"""The doorman with real sockets, and workers that are scripts at the other end of its door."""

import errno
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from proxy.workers.doorman import LISTENER, TAKEN, Doorman, bound
from tests.support.patience import PATIENCE_S

HOST = "127.0.0.1"


class Hand:
    """A worker's end of a door."""

    def __init__(self, doorman: Doorman, answers: bytes = b"") -> None:
        self.answers, self.has = answers, []
        theirs, self.door = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.door.settimeout(PATIENCE_S)
        doorman.welcome(theirs)

    def take(self) -> int:
        """One connection, which it answers by its own name. Returns by which listener it came."""
        said, descriptors, _, _ = socket.recv_fds(self.door, LISTENER.size, 1)
        self.has.append(socket.socket(fileno=descriptors[0]))
        self.has[-1].sendall(self.answers)
        return int(LISTENER.unpack(said)[0])

    def take_all(self) -> int:
        """Those that are there already."""
        self.door.setblocking(False)
        before = len(self.has)
        try:
            while True:
                self.take()
        except BlockingIOError:
            return len(self.has) - before
        finally:
            self.door.settimeout(PATIENCE_S)

    def confirm(self, taken: int) -> None:
        self.door.send(TAKEN.pack(taken, len(self.has)))

    def die(self) -> None:
        for each in (self.door, *self.has):
            each.close()


class World:
    """A doorman, and who calls and works there. All of it is closed in the end."""

    def __init__(self) -> None:
        self.doorman = Doorman()
        self.doorman.start()
        self._closes: list[Callable[[], None]] = []

    def listener(self, number: int = 0) -> tuple[str, int]:
        (listening,) = bound(HOST, 0)
        address = listening.getsockname()
        self.doorman.listen(number, listening)
        return address

    def hand(self, answers: bytes = b"") -> Hand:
        hand = Hand(self.doorman, answers)
        self._closes.append(hand.die)
        self.settle()  # or connections that come now might not wait for it
        return hand

    def call(self, address: tuple[str, int]) -> socket.socket:
        caller = socket.create_connection(address, timeout=PATIENCE_S)
        self._closes.append(caller.close)
        return caller

    def settle(self) -> None:
        """Until the doorman has done with what had come before."""
        for _ in range(3):  # what it hears may have it listen again, and that may bring connections
            done = threading.Event()
            self.doorman._do(done.set)
            assert done.wait(PATIENCE_S)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The doorman hears nothing meanwhile."""
        begun, over = threading.Event(), threading.Event()

        def wait() -> None:
            begun.set()
            over.wait(PATIENCE_S)

        self.doorman._do(wait)
        begun.wait(PATIENCE_S)
        yield
        over.set()

    def close(self) -> None:
        for _, listening in self.doorman.end():
            listening.close()
        for worker in self.doorman._workers:
            worker.door.close()
        for close in self._closes:
            close()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def answered(caller: socket.socket) -> bytes:
    return caller.recv(100)


def test_eight_connections_over_two_workers_are_four_and_four(world):
    address, hands = world.listener(), [world.hand(), world.hand()]
    for _ in range(8):
        world.call(address)
    for hand in hands:
        for _ in range(4):
            assert hand.take() == 0
        hand.confirm(4)
    world.settle()
    assert [hand.take_all() for hand in hands] == [0, 0]


def test_connections_go_where_there_are_fewest_as_they_close(world):
    address, busy, idle = world.listener(), world.hand(), world.hand()
    for _ in range(6):
        world.call(address)
    for hand in (busy, idle):
        for _ in range(3):
            hand.take()
        hand.confirm(3)
    for each in idle.has[1:]:
        each.close()
    idle.door.send(TAKEN.pack(0, 1))
    world.settle()
    for _ in range(2):
        world.call(address)
    world.settle()
    assert (busy.take_all(), idle.take_all()) == (0, 2)


def test_a_worker_is_told_by_which_listener_they_came(world):
    addresses = [world.listener(0), world.listener(7)]
    hand = world.hand()
    for number, address in zip((0, 7, 7, 0), (addresses[0], addresses[1], addresses[1], addresses[0]), strict=True):
        world.call(address)
        assert hand.take() == number


def test_what_a_dead_worker_did_not_confirm_is_answered_by_another(world):
    address, dies = world.listener(), world.hand(b"dead")
    callers = [world.call(address) for _ in range(3)]
    world.settle()
    lives = world.hand(b"lives")
    dies.door.close()
    for _ in callers:
        lives.take()
    assert [answered(caller) for caller in callers] == [b"lives"] * 3


def test_what_a_dead_worker_confirmed_is_lost_with_it(world):
    """Its callers are told by the end of their connections; another worker would wait for requests that were sent."""
    address, dies = world.listener(), world.hand()
    callers = [world.call(address) for _ in range(3)]
    dies.take()
    dies.take()
    first, second = dies.has
    world.settle()
    with world.busy():
        dies.confirm(2)
        dies.die()  # the third is in its door still, unread
    lives = world.hand(b"lives")
    lives.take()
    world.settle()
    assert lives.take_all() == 0
    assert [answered(caller) for caller in callers] == [b"", b"", b"lives"]
    assert (first.fileno(), second.fileno()) == (-1, -1)


def test_without_workers_connections_wait(world):
    address = world.listener()
    callers = [world.call(address) for _ in range(5)]
    for caller in callers:
        caller.sendall(b"hello")
    world.settle()
    hand = world.hand(b"late")
    for _ in callers:
        hand.take()
    assert [answered(caller) for caller in callers] == [b"late"] * 5
    assert [each.recv(100) for each in hand.has] == [b"hello"] * 5


def test_when_the_last_worker_died_connections_wait_for_the_next(world):
    address, dies = world.listener(), world.hand()
    first = world.call(address)
    world.settle()
    dies.die()
    world.settle()
    second = world.call(address)
    world.settle()
    hand = world.hand(b"next")
    hand.take()
    hand.take()
    assert (answered(first), answered(second)) == (b"next", b"next")


def test_a_worker_whose_door_is_full_holds_up_nobody(world):
    address, full, other = world.listener(), world.hand(), world.hand()
    world.settle()
    for worker in world.doorman._workers:
        worker.door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least that there is: a few messages
    for _ in range(40):
        world.call(address)
        world.settle()
        if taken := other.take_all():
            other.confirm(taken)
        world.settle()
    assert 0 < full.take_all() < 20 < len(other.has)
    assert len(full.has) + len(other.has) == 40
    full.confirm(len(full.has))
    world.settle()
    world.call(address)
    assert full.take() == 0, "it has the fewest, and there is room again"


def test_leave_closes_one_listener_only(world):
    left, stays, hand = world.listener(0), world.listener(1), world.hand()
    world.doorman.leave(0)
    world.settle()
    with pytest.raises(ConnectionRefusedError):
        world.call(left)
    world.call(stays)
    assert hand.take() == 1


def test_leave_closes_a_listener_that_waits_for_a_worker(world):
    left, stays = world.listener(0), world.listener(1)
    world.doorman.leave(0)
    world.settle()
    with pytest.raises(ConnectionRefusedError):
        world.call(left)
    caller, hand = world.call(stays), world.hand(b"yes")
    assert (hand.take(), answered(caller)) == (1, b"yes")


def test_what_it_listened_on_still_collects_callers_at_its_end(world):
    addresses = {number: world.listener(number) for number in (0, 3)}
    hand = world.hand(b"old")
    served = world.call(addresses[3])
    hand.take()
    listening = world.doorman.end()
    assert {number: each.getsockname() for number, each in listening} == addresses
    callers = [world.call(address) for address in addresses.values()]
    for (number, each), caller in zip(listening, callers, strict=True):
        each.setblocking(True)
        connection, _ = each.accept()
        connection.sendall(b"new %d" % number)
        connection.close()
        each.close()
        assert answered(caller) == b"new %d" % number
    assert answered(served) == b"old"
    assert world.doorman.end() == [], "there are none any more"


def test_nothing_is_done_after_its_end(world):
    for _, each in world.doorman.end():
        each.close()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    world.doorman.welcome(theirs)
    ours.close()
    theirs.close()


def test_what_was_not_handed_over_is_closed_at_its_end(world):
    address, dies = world.listener(), world.hand()
    caller = world.call(address)
    world.settle()
    dies.die()
    world.settle()
    for _, each in world.doorman.end():
        each.close()
    assert answered(caller) == b""


class Listening:
    """A listening socket of a process that has no descriptors left, for so many tries."""

    def __init__(self, real: socket.socket, fails: int, story: list[object]) -> None:
        self._real, self._fails, self._story = real, fails, story

    def accept(self):
        if self._fails:
            self._fails -= 1
            self._story.append("failed")
            raise OSError(errno.EMFILE, "Too many open files")
        return self._real.accept()

    def __getattr__(self, name: str):
        return getattr(self._real, name)


def test_without_descriptors_it_waits_before_it_tries_again(world, monkeypatch):
    """The connection stays in the kernel's queue, so whoever asked at once would ask for ever."""
    story: list[object] = []
    selector = world.doorman._selector
    select = selector.select

    def told(timeout=None):
        story.append(timeout)
        return select(timeout)

    monkeypatch.setattr(selector, "select", told)
    (listening,) = bound(HOST, 0)
    hand = world.hand(b"at last")
    world.settle()
    world.doorman.listen(0, Listening(listening, 3, story))
    caller = world.call(listening.getsockname())
    hand.take()
    assert answered(caller) == b"at last"
    assert story.count("failed") == 3
    after = [story[place + 1] for place, what in enumerate(story) if what == "failed"]
    assert all(pause_s for pause_s in after), "it sleeps after each"


def test_connections_are_shared_whatever_workers_say_and_when(world):
    """Nobody is lost, and nobody has two more than another who confirmed as much."""
    address, hands = world.listener(), [world.hand() for _ in range(3)]
    for _ in range(30):
        world.call(address)
        world.settle()
        for hand in hands[1:]:  # one is slow, and confirms nothing
            if taken := hand.take_all():
                hand.confirm(taken)
        world.settle()
    hands[0].take_all()
    assert Counter(len(hand.has) for hand in hands) == {10: 3}


def test_who_came_before_the_end_is_handed_over_and_then_workers_are_told(world):
    address, hand = world.listener(), world.hand()
    told = threading.Event()
    with world.busy():
        for _ in range(100):  # more than are accepted at once
            world.call(address)
        world.doorman.finish(told.set)
    assert told.wait(PATIENCE_S)
    assert [hand.take() for _ in range(100)] == [0] * 100
    assert hand.door.recv(LISTENER.size) == b""
    hand.confirm(100)  # which is still heard
    world.settle()
    assert not world.doorman._workers[0].handed


def test_the_end_waits_for_a_worker_that_can_take_who_has_come(world):
    address, told = world.listener(), threading.Event()
    world.call(address)
    world.doorman.finish(told.set)
    world.settle()
    assert not told.is_set()
    hand = world.hand()
    assert told.wait(PATIENCE_S)
    assert hand.take() == 0
    assert hand.door.recv(LISTENER.size) == b""
