import asyncio
import heapq
import itertools
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.benchmark.load import ArrivalRate, AtOnce, Extent, Load
from tests.benchmark.conftest import Time


class Timeline:
    """Virtual time for several sleepers: when all of them sleep, the first to wake is woken."""

    def __init__(self, oversleeps_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.oversleeps_s = oversleeps_s  # what the client's own sleeps last too long
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._numbers = itertools.count()

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        if seconds:
            await self.nap(seconds + self.oversleeps_s)
        else:
            await asyncio.sleep(0)

    async def nap(self, seconds: float) -> None:
        woken = asyncio.Event()
        heapq.heappush(self._sleepers, (self.now_s + seconds, next(self._numbers), woken))
        await woken.wait()

    async def run(self, load: Load, answer_s: float, extent: Extent) -> "Calls":
        calls = Calls(self, answer_s)
        task = asyncio.get_running_loop().create_task(load.run(calls.begin, extent, self.clock, self.sleep))
        while not task.done():
            for _ in range(8):  # nothing but memory is waited for: by then all that can run has run
                await asyncio.sleep(0)
            if self._sleepers and not task.done():
                self.now_s, _, woken = heapq.heappop(self._sleepers)
                woken.set()
        await task
        return calls


class Calls:
    def __init__(self, timeline: Timeline, answer_s: float) -> None:
        self._timeline, self._answer_s = timeline, answer_s
        self.due_s: list[float] = []
        self.begun_s: list[float] = []
        self.open = self.most_open = self.ended = 0

    async def begin(self, due_s: float) -> None:
        self.due_s.append(due_s)
        self.begun_s.append(self._timeline.now_s)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await self._timeline.nap(self._answer_s)
        self.open -= 1
        self.ended += 1


@pytest.mark.parametrize(
    ("callers", "calls", "most_open", "lasts_s"),
    [(1, 1, 1, 1), (1, 5, 1, 5), (3, 3, 3, 1), (3, 10, 3, 4), (5, 2, 2, 1), (4, 8, 4, 2)],
)
async def test_so_many_callers_make_so_many_calls(callers: int, calls: int, most_open: int, lasts_s: float) -> None:
    timeline = Timeline()
    made = await timeline.run(AtOnce(callers), 1.0, Extent(calls, None))
    assert (made.ended, made.most_open, timeline.now_s) == (calls, most_open, lasts_s)
    assert made.due_s == made.begun_s


async def test_no_caller_begins_after_the_time_and_all_are_awaited() -> None:
    timeline = Timeline()
    made = await timeline.run(AtOnce(2), 0.75, Extent(None, 2.0))
    assert made.due_s == [0, 0, 0.75, 0.75, 1.5, 1.5]
    assert (made.ended, timeline.now_s) == (6, 2.25)


async def test_a_caller_does_not_begin_at_the_very_end() -> None:
    assert (await Timeline().run(AtOnce(1), 1.0, Extent(None, 2.0))).due_s == [0, 1]


@pytest.mark.parametrize(("calls", "seconds", "made"), [(3, 10.0, 3), (100, 2.0, 4), (4, 2.0, 4)])
async def test_the_first_of_both_limits_counts(calls: int, seconds: float, made: int) -> None:
    assert (await Timeline().run(AtOnce(2), 1.0, Extent(calls, seconds))).ended == made
    even = ArrivalRate(2.0, None)
    assert (await Timeline().run(even, 9.0, Extent(calls, seconds))).ended == made


async def test_even_arrivals_are_due_at_even_times_whatever_answers_take() -> None:
    timeline = Timeline()
    made = await timeline.run(ArrivalRate(4.0, None), 100.0, Extent(8, None))
    assert made.due_s == made.begun_s == [number / 4 for number in range(8)]
    assert made.most_open == 8
    assert timeline.now_s == 101.75


async def test_no_arrival_is_due_after_the_time() -> None:
    assert (await Timeline().run(ArrivalRate(4.0, None), 0.5, Extent(None, 1.0))).due_s == [0, 0.25, 0.5, 0.75]


async def test_a_call_is_due_when_it_was_due_though_the_client_oversleeps() -> None:
    made = await Timeline(oversleeps_s=1.0).run(ArrivalRate(4.0, None), 0.0, Extent(8, None))
    assert made.due_s == [number / 4 for number in range(8)]
    assert made.begun_s == [0, 1.25, 1.25, 1.25, 1.25, 1.25, 2.5, 2.5]


async def test_arrivals_at_random_are_a_poisson_process() -> None:
    made = await Timeline().run(ArrivalRate(20.0, random.Random(7)), 0.0, Extent(4000, None))
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(made.due_s)]
    assert statistics.fmean(gaps_s) == pytest.approx(1 / 20, rel=0.05)
    assert statistics.stdev(gaps_s) == pytest.approx(1 / 20, rel=0.05)  # of an exponential both are the same
    assert sum(gap_s > 0.1 for gap_s in gaps_s) / len(gaps_s) == pytest.approx(0.135, abs=0.02)  # exp(-2)
    assert made.due_s == made.begun_s


async def test_so_much_time_has_so_many_arrivals_at_random() -> None:
    counts = [
        (await Timeline().run(ArrivalRate(2.0, random.Random(seed)), 0.0, Extent(None, 2.0))).ended
        for seed in range(400)
    ]
    # 4 of a Poisson process, whose variance is its mean; a call at the very beginning of each would make it 5
    assert statistics.fmean(counts) == pytest.approx(4, abs=0.4)


async def test_the_same_seed_gives_the_same_arrivals() -> None:
    def arrivals(seed: int) -> ArrivalRate:
        return ArrivalRate(5.0, random.Random(seed))

    first, again, other = [(await Timeline().run(arrivals(seed), 0.5, Extent(20, None))).due_s for seed in (1, 1, 2)]
    assert first == again != other


@pytest.mark.parametrize("load", [AtOnce(2), ArrivalRate(2.0, None)])
async def test_cancelled_it_leaves_no_call_behind(load: Load) -> None:
    begun, ended = 0, 0
    many = asyncio.Event()

    async def begin(_: float) -> None:
        nonlocal begun, ended
        begun += 1
        if begun == 2:
            many.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1

    virtual = Time()
    task = asyncio.get_running_loop().create_task(load.run(begin, Extent(2, None), virtual, virtual.nap))
    await many.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (begun, ended) == (2, 2)


def test_a_load_has_an_end() -> None:
    with pytest.raises(ValueError, match="without an end"):
        Extent(None, None)


@given(st.integers(1, 1000), st.integers(1, 20))
def test_parts_together_are_no_less_than_the_whole(calls: int, parts: int) -> None:
    part = Extent(calls, 60.0).part(parts)
    assert part.calls is not None
    assert part.calls * parts >= calls > (part.calls - 1) * parts
    assert part.times(parts) == Extent(part.calls * parts, pytest.approx(60.0))


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (AtOnce(5), "5 at once"),
        (ArrivalRate(50.0, None), "50 a second, evenly"),
        (ArrivalRate(0.5, random.Random(1)), "0.5 a second, at random"),
    ],
)
def test_a_load_says_what_it_is(load: Load, said: str) -> None:
    assert str(load) == said
