"""What one process found out about keys, accounts, members and targets is soon known to all, and then all is quiet.

The process above is the real one, but its workers are registries and notebooks, with queues for links.
"""

from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import CapturingLogger

from proxy.obs.metrics import Metrics
from proxy.state.live import KeyLive, MemberLive, Registry
from proxy.workers import messages as m
from proxy.workers.cells import ABOVE, Cells, Rows
from proxy.workers.link import Link
from proxy.workers.notes import OF_WORKERS, Notebook
from proxy.workers.plane import Workers
from proxy.workers.staff import Worker

KEYS = [("up", "k", "11111111"), ("up", "k", "22222222")]
TARGET = "up@10.0.0.1:443"
MOST_ROUNDS = 6  # of looks everywhere, until nobody has news


class Side:
    """A process as far as notes go: what it knows, and what it has to tell and to hear."""

    def __init__(self, registry: Registry, notebook: Notebook) -> None:
        self.registry, self.notebook = registry, notebook
        self.said: deque[object] = deque()
        self.comes: deque[object] = deque()
        self._link = Link(self.comes.append, lambda: None)
        for upstream, key, fingerprint in KEYS:
            registry.upstream(upstream).key(key, registry.account("account"), fingerprint)
        registry.target(*TARGET.split("@"))
        registry.pool("p").member("m", 0.0)

    @property
    def account(self):
        return self.registry.account("account")

    def key(self, number: int = 0) -> KeyLive:
        upstream, *name = KEYS[number]
        return self.registry.upstream(upstream).keys[tuple(name)]

    @property
    def member(self) -> MemberLive:
        return self.registry.pool("p").members["m"]

    def send(self, message: object) -> None:
        self.comes.append(message)

    def send_packed(self, data: bytes) -> None:
        self._link.data_received(data)

    def look(self) -> None:
        if news := self.notebook.news():
            self.said.append(m.Notes(news))

    def hear(self) -> None:
        self.notebook.heard(self.comes.popleft().notes)

    @property
    def knows(self) -> dict[str, Any]:
        keys = [self.key(number) for number in range(len(KEYS))]
        return {
            "resting": [key.resting for key in keys],
            "used": [(key.used, key.told_s) for key in keys],
            "cooling": self.account.cool_until_s,
            "ejected": self.member.outlier.out_until_s,
            "healthy": self.registry.upstreams[TARGET].health.healthy,
        }


class World:
    def __init__(self, size: int = 2) -> None:
        cells = Cells(size)
        registry = Registry()
        self.plane = Workers(
            SimpleNamespace(),
            cells,
            Rows(cells, ABOVE),
            SimpleNamespace(current=None),
            registry,
            Metrics(),
            SimpleNamespace(),
            lambda: 0.0,
            CapturingLogger(),
        )
        self.above = Side(registry, self.plane._notebook)
        self.workers: list[Side] = []
        self._staff: list[Worker] = []
        for _ in range(size):
            self.join()

    def join(self) -> Side:
        """A new worker, that is told what is known."""
        registry = Registry()
        side = Side(registry, Notebook(registry, OF_WORKERS))
        self.workers.append(side)
        self._staff.append(Worker(len(self._staff), side, None, 0.0))
        self.plane.staff._workers[len(self._staff) - 1] = self._staff[-1]
        side.send(m.Notes(self.plane._notebook.all()))
        return side

    def deliver(self, number: int) -> None:
        """The next that a worker said."""
        self.plane._hear(self._staff[number], self.workers[number].said.popleft())

    def look_above(self) -> None:
        self.plane.expired(0.0)

    def round(self) -> bool:
        """All look, and all is delivered. Was there any?"""
        self.look_above()
        for worker in self.workers:
            worker.look()
        any_news = False
        while any(worker.said or worker.comes for worker in self.workers):
            any_news = True
            for number, worker in enumerate(self.workers):
                while worker.said:
                    self.deliver(number)
                while worker.comes:
                    worker.hear()
        return any_news

    def close(self) -> None:
        self.plane.hand_over()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


FINDINGS: list[Callable[[Side], None]] = [
    lambda side: setattr(side.key(), "resting", "401"),
    lambda side: side.account.cool("model", 60.0, 0.0),
    lambda side: setattr(side.member.outlier, "out_until_s", 30.0),
    lambda side: (setattr(side.key(), "used", 0.5), setattr(side.key(), "told_s", 7.0)),
]


@pytest.mark.parametrize("find", FINDINGS)
def test_what_one_found_all_know_after_one_round(world, find):
    first, other = world.workers
    find(first)
    before = first.knows
    world.round()
    assert before == world.above.knows == first.knows == other.knows
    assert other.account.is_cooling("model", 59.0) == first.account.is_cooling("model", 59.0)
    assert not world.round(), "nobody says it again"
    assert world.join().comes[0].notes, "who is new is told, too"
    world.round()
    assert world.workers[-1].knows == before


@pytest.mark.parametrize("find", FINDINGS)
def test_what_is_found_above_all_know_after_one_round(world, find):
    find(world.above)
    world.round()
    assert world.above.knows == world.workers[0].knows == world.workers[1].knows
    assert not world.round()


def test_health_is_told_by_who_checks(world):
    world.above.registry.upstreams[TARGET].health.healthy = False
    world.round()
    assert [side.knows["healthy"] for side in world.workers] == [False, False]
    world.above.registry.upstreams[TARGET].health.healthy = True
    world.round()
    assert [side.knows["healthy"] for side in world.workers] == [True, True]


def test_a_key_that_a_check_cleared_is_cleared_in_all(world):
    world.workers[0].key().resting = "401"
    world.round()
    world.above.key().resting = ""
    world.round()
    assert [side.key().resting for side in world.workers] == ["", ""]
    world.workers[0].key().resting = "401"
    world.round()
    assert [side.key().resting for side in (world.above, *world.workers)] == ["401"] * 3


def test_a_doubt_is_told_above_and_to_nobody_else(world):
    for _ in range(2):
        world.workers[0].key().doubted = True
        world.round()
        assert [side.key().doubted for side in (world.above, *world.workers)] == [True, False, False]
        assert not world.round()
        world.above.key().doubted = False  # a check has spoken
        assert not world.round()


def test_when_a_key_was_used_last_is_told_above(world):
    for number, used_s in enumerate((5.0, 3.0)):
        world.workers[number].key().last_used_s = used_s
    world.round()
    assert world.above.key().last_used_s == 5.0
    assert not world.round()


def test_a_model_that_cools_here_is_told_though_another_was_heard_of_meanwhile(world):
    first, other = world.workers
    first.account.cool("one", 50.0, 0.0)
    other.account.cool("two", 60.0, 0.0)
    first.look()
    world.deliver(0)
    while other.comes:
        other.hear()
    world.round()
    assert [set(side.account.cool_until_s) for side in (world.above, *world.workers)] == [{"one", "two"}] * 3


def test_an_account_that_cooled_down_is_no_news_for_long(world):
    for side in (world.above, *world.workers):
        side.account.cool("model", 5.0, 0.0)
    world.round()
    for side in world.workers:
        assert not side.account.is_cooling("model", 6.0)
    assert world.round()
    assert not world.round()


def test_names_of_models_that_callers_choose_are_not_kept_for_ever(world):
    for moment_s in range(1000):
        world.above.registry.clock = lambda moment_s=moment_s: float(moment_s)
        world.workers[0].registry.clock = world.workers[1].registry.clock = world.above.registry.clock
        world.workers[0].account.cool(f"model-{moment_s}", moment_s + 1.0, float(moment_s))
        world.round()
    assert all(len(side.account.cool_until_s) <= 65 for side in (world.above, *world.workers))


def test_what_is_not_known_here_is_passed_over(world):
    places = [
        ("resting", "gone", "k", "11111111"),
        ("used", "up", "gone", "11111111"),
        ("ejected", "gone", "m"),
        ("ejected", "p", "gone"),
        ("healthy", "up@10.9.9.9:1"),
    ]
    before = [side.knows for side in (world.above, *world.workers)]
    world.workers[0].said.append(m.Notes(dict.fromkeys(places, 1)))
    world.round()
    assert [side.knows for side in (world.above, *world.workers)] == before


def test_two_who_change_the_same_note_at_once_end_with_one(world):
    first, other = world.workers
    first.member.outlier.out_until_s, other.member.outlier.out_until_s = 100.0, 90.0
    first.key().resting = "401"
    world.above.key().resting = "revoked"
    world.look_above()
    first.look()
    other.look()
    world.deliver(1)
    world.deliver(0)
    world.round()
    assert world.above.knows == first.knows == other.knows
    assert (first.knows["ejected"], first.knows["resting"][0]) == (100.0, "401"), "what was heard above last"
    assert not world.round()


def test_an_ejection_that_is_known_already_forgets_no_speeds(world):
    world.workers[0].member.outlier.out_until_s = 30.0
    world.workers[0].member.load.penalty = 1.0
    world.round()
    assert world.workers[0].member.load.penalty == 1.0


LAST_S = 10.0  # that anybody asks for
CHANGES: list[Callable[[Side, int], object]] = [
    lambda side, n: setattr(side.key(n % 2), "resting", ["", "401", "403"][n % 3]),
    lambda side, n: side.account.cool(f"model-{n % 3}", float(n), 0.0),
    lambda side, n: side.account.is_cooling("model-0", n / 2),
    lambda side, n: setattr(side.member.outlier, "out_until_s", float(n)),
    lambda side, n: use(side.key(n % 2), n),
    lambda side, n: setattr(side.key(n % 2), "doubted", True),
    lambda side, n: setattr(side.key(n % 2), "last_used_s", max(float(n), side.key(n % 2).last_used_s)),
]


def use(key: KeyLive, number: int) -> None:
    told_s = float(number // 2)  # two may be told of different shares at once
    if told_s >= key.told_s:
        key.used, key.told_s = number / 20, told_s


def hear(world: World, worker: int, number: int) -> None:
    if world.workers[worker].comes:
        world.workers[worker].hear()


def tell(world: World, worker: int, number: int) -> None:
    if world.workers[worker].said:
        world.deliver(worker)


EVENTS = st.one_of(
    st.tuples(
        st.builds(lambda change: lambda world, worker, n: change(world.workers[worker], n), st.sampled_from(CHANGES)),
        st.integers(0, 2),
        st.integers(0, 20),
    ),
    st.tuples(
        st.builds(lambda change: lambda world, _, n: change(world.above, n), st.sampled_from(CHANGES[:4])),
        st.just(0),
        st.integers(0, 20),
    ),
    st.tuples(
        st.sampled_from([hear, tell, lambda world, worker, _: world.workers[worker].look()]),
        st.integers(0, 2),
        st.just(0),
    ),
    st.tuples(st.just(lambda world, *_: world.look_above()), st.just(0), st.just(0)),
)


@given(st.lists(EVENTS, max_size=60))
def test_whatever_happens_all_end_with_the_same_and_then_are_quiet(events):
    world = World(3)
    try:
        for happens, worker, number in events:
            happens(world, worker, number)
        rounds = 0
        while world.round():
            rounds += 1
            assert rounds <= MOST_ROUNDS
        sides = [side.knows for side in (world.above, *world.workers)]
        for side in sides:  # a moment that is over may be forgotten by one, and not by another
            side["cooling"] = {model: until_s for model, until_s in side["cooling"].items() if until_s > LAST_S}
        assert all(side == sides[0] for side in sides)
        assert not any(side.key(number).doubted for side in world.workers for number in (0, 1))
    finally:
        world.close()
