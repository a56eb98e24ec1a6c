import asyncio
import itertools
from typing import Any, cast

import pytest

from proxy.benchmark.client import Client
from proxy.benchmark.load import ArrivalRate, AtOnce, Extent, Load
from proxy.benchmark.report import report_of
from proxy.benchmark.run import Arm, Run, rounds_for
from proxy.benchmark.sample import Failure, Sample
from tests.benchmark.conftest import Time, target_of

PROMPTS = [[{"role": "user", "content": text}] for text in ("a", "b", "c")]


class Answers:
    """A client whose answers take as long as the target's name says; each call is written down."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self.calls: list[tuple[str, str]] = []
        self.hang_at: int | None = None
        self.hangs = asyncio.Event()
        self.open = self.most_open = 0

    async def ask(self, target: Any, messages: Any, tokens: int, *, stream: bool, due_s: float) -> Sample:
        self.calls.append((target.name, messages[0]["content"]))
        if len(self.calls) == self.hang_at:
            self.hangs.set()
            await asyncio.Event().wait()
        sent_s = self._time()
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        await asyncio.sleep(0)
        self.open -= 1
        self._time.now_s += 0.5 if target.name == "slow" else 0.25
        return Sample(due_s, sent_s, ended_s=self._time(), tokens=tokens)


@pytest.fixture
def answers(time: Time) -> Answers:
    return Answers(time)


@pytest.fixture
def run(answers: Answers, time: Time) -> Run:
    return Run(cast(Client, answers), PROMPTS, clock=time, cpu_clock=lambda: time.now_s / 4, sleep=time.nap)


def arm(name: str = "fast", *, stream: bool = False) -> Arm:
    return Arm(target_of("http://a", name=name), stream, 8)


def turns(answers: Answers) -> list[str]:
    return [name for name, _ in itertools.groupby(name for name, _ in answers.calls)]


CALLS, SECONDS = Extent(50, None), Extent(None, 30.0)


@pytest.mark.parametrize(
    ("load", "extent", "arms", "rounds"),
    [
        (AtOnce(5), CALLS, 1, 1),
        (AtOnce(5), Extent(1000, None), 1, 1),
        (AtOnce(5), CALLS, 2, 10),
        (AtOnce(7), CALLS, 2, 7),
        (AtOnce(1), CALLS, 2, 20),
        (AtOnce(50), CALLS, 2, 1),
        (AtOnce(60), CALLS, 2, 1),
        (AtOnce(5), Extent(100_000, None), 6, 20),
        (ArrivalRate(5.0, None), CALLS, 2, 20),
        (ArrivalRate(5.0, None), Extent(7, None), 2, 7),
        (AtOnce(5), SECONDS, 2, 15),
        (AtOnce(5), Extent(None, 3.9), 2, 1),
        (AtOnce(5), Extent(None, 0.5), 2, 1),
        (AtOnce(5), Extent(None, 600.0), 2, 20),
        (AtOnce(5), Extent(50, 6.0), 2, 3),
        (AtOnce(5), Extent(10, 600.0), 2, 2),
    ],
)
def test_there_are_many_rounds_but_none_too_short(load: Load, extent: Extent, arms: int, rounds: int) -> None:
    assert rounds_for(load, extent, arms) == rounds


async def test_arms_take_turns_in_an_order_that_turns_round(run: Run, answers: Answers) -> None:
    await run.measure([arm("a"), arm("b"), arm("c")], AtOnce(2), Extent(8, None))
    assert [name for name, _ in answers.calls[::2]] == list("abccbaabccba")
    assert turns(answers) == list("abcbabcba")
    assert [[len(samples) for samples in one.rounds] for one in run.measured] == [[2] * 4] * 3


async def test_each_arm_is_asked_the_same_prompts_in_the_same_order(run: Run, answers: Answers) -> None:
    await run.measure([arm("a"), arm("b")], AtOnce(2), Extent(8, None))
    asked = {name: [text for other, text in answers.calls if other == name] for name in "ab"}
    assert asked["a"] == asked["b"] == list("abcabcab")


async def test_one_arm_is_one_block(run: Run, answers: Answers) -> None:
    await run.measure([arm()], AtOnce(5), Extent(20, None))
    assert [len(samples) for samples in run.measured[0].rounds] == [20]
    assert answers.most_open == 5


async def test_an_arm_has_no_fewer_calls_than_were_asked_for(run: Run) -> None:
    await run.measure([arm("a"), arm("b")], AtOnce(4), Extent(10, None))
    assert all(len(one.samples) >= 10 for one in run.measured)
    assert run.done == 1.0


@pytest.mark.parametrize("hang_at", [None, 3])
async def test_nothing_is_left_running(hang_at: int | None, run: Run, answers: Answers) -> None:
    answers.hang_at = hang_at
    before = asyncio.all_tasks()
    task = asyncio.get_running_loop().create_task(run.measure([arm()], AtOnce(2), Extent(4, None)))
    if hang_at:
        await answers.hangs.wait()
        task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)  # what was cancelled ends
    assert asyncio.all_tasks() == before


async def test_the_client_looks_at_its_own_timers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.benchmark.run.BEAT_S", 0.0)
    await run.measure([arm()], AtOnce(2), Extent(8, None))
    assert max(run.client_load.late_s) >= 0.25  # an answer's time passed, that no timer waited for


async def test_what_an_arm_lasted_is_its_own_blocks(run: Run) -> None:
    await run.measure([arm("fast"), arm("slow")], AtOnce(1), Extent(4, None))
    assert [one.lasted_s for one in run.measured] == [1.0, 2.0]
    assert run.client_load.busy == 0.25


async def test_done_goes_from_nothing_to_all(run: Run, answers: Answers) -> None:
    seen = [run.done]
    ask = answers.ask

    async def looking(*arguments: Any, **named: Any) -> Sample:
        seen.append(run.done)
        return await ask(*arguments, **named)

    answers.ask = looking  # type: ignore[method-assign]
    await run.measure([arm("a"), arm("b")], AtOnce(1), Extent(4, None))
    seen.append(run.done)
    assert seen == [0.0, *(call / 8 for call in range(9))]


async def test_done_goes_by_time_where_that_is_the_limit(run: Run, time: Time) -> None:
    await run.measure([arm("slow")], AtOnce(1), Extent(None, 4.0))
    assert run.done == 1.0
    assert run.measured[0].lasted_s == 4.0
    time.now_s -= 3.0
    assert run.done == 0.25


async def test_done_is_never_more_than_all(run: Run) -> None:
    await run.measure([arm("slow")], AtOnce(1), Extent(2, 0.1))
    assert run.done == 1.0


async def test_warming_up_counts_for_nothing(run: Run, answers: Answers) -> None:
    warming = await run.warm_up(arm(), 5)
    assert (len(warming), answers.most_open) == (5, 5)
    assert (run.measured, run.done) == ([], 0.0)
    await run.measure([arm()], AtOnce(2), Extent(4, None))
    assert len(run.measured[0].samples) == 4
    assert answers.calls[5:] == [("fast", text) for text in "abca"]


@pytest.mark.parametrize("hang_at", [1, 2, 5, 11])
@pytest.mark.parametrize("load", [AtOnce(1), ArrivalRate(0.001, None)])
async def test_cancelled_it_keeps_what_there_is(hang_at: int, load: Load, run: Run, answers: Answers) -> None:
    answers.hang_at = hang_at
    first, second = arm("a"), arm("b")
    task = asyncio.get_running_loop().create_task(run.measure([first, second], load, Extent(8, None)))
    await answers.hangs.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sum(len(one.samples) for one in run.measured) == hang_at - 1
    report = report_of(run, "load")
    assert report.arms == (first, second)
    assert sum(summary.answered for summary in report.summaries) == hang_at - 1
    assert all(summary.failed == () for summary in report.summaries)
    assert bool(report.by_target) == (hang_at > 2)
    assert list(report.notes) is not None
    assert run.done == (hang_at - 1) / 16


async def test_a_run_that_has_not_begun_has_a_report(run: Run) -> None:
    report = report_of(run, "load")
    assert (report.arms, report.summaries, list(report.notes)) == ((), (), [])


async def test_a_call_that_fails_is_a_sample_as_well(run: Run, answers: Answers, time: Time) -> None:
    async def failing(target: Any, *_: Any, due_s: float, **__: Any) -> Sample:
        return Sample(due_s, time(), failure=Failure.TIMEOUT)

    answers.ask = failing  # type: ignore[method-assign]
    await run.measure([arm("a"), arm("b")], AtOnce(1), Extent(8, None))
    report = report_of(run, "load")
    assert [(one.answered, one.calls) for one in report.summaries] == [(0, 8), (0, 8)]
    assert report.by_target == report.by_streaming == ()
