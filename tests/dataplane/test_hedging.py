"""A slow call is made once more elsewhere: whoever answers first has the caller, and nothing is left of the other."""

import asyncio

import pytest

from tests.support.raw import RawCaller, get, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Conversation, answering, whole

HEDGED = "balance: smooth_rr, slow_start: 0s, hedge: {after: 500ms}"
BUSY = whole(b"busy", status=b"503 Busy")
STREAM = b'{"model": "m", "stream": true}'


class Slow:
    """An upstream's script: it answers when it is told to, from then on at once, and knows when its caller has left."""

    def __init__(self, answer: bytes = whole(b"slow")) -> None:
        self.answer = answer
        self.answers, self.left = asyncio.Event(), asyncio.Event()

    async def __call__(self, talk: Conversation) -> None:
        await talk.request()
        answering_now = asyncio.get_running_loop().create_task(self.answers.wait())
        going_on = asyncio.get_running_loop().create_task(talk.request())
        await asyncio.wait([answering_now, going_on], return_when=asyncio.FIRST_COMPLETED)
        answering_now.cancel()
        try:
            while self.answers.is_set():
                await talk.send(self.answer) if self.answer else talk.reset()
                await going_on
                going_on = asyncio.get_running_loop().create_task(talk.request())
            await going_on
        finally:
            self.left.set()


@pytest.fixture
async def racing(scripted, proxy):
    """A caller who waits for two slow upstreams at once: the first and, after half a second, the second."""

    async def begin(first: Slow, second: Slow, more: str = "", upstream: str = "") -> tuple[RunningProxy, RawCaller]:
        upstreams = [await scripted(first), await scripted(second)]
        running = await proxy(config_for(*(one.url for one in upstreams), pool=HEDGED + more, upstream=upstream))
        caller = await RawCaller.connect(running.port)
        await caller.send(post(b'{"model": "m"}'))
        await running.until(lambda: len(upstreams[0].requests) == 1)
        running.pass_time(0.49)
        assert running.inflight() == 1
        running.pass_time(0.02)
        await running.until(lambda: len(upstreams[1].requests) == 1)
        assert running.inflight() == 2
        return running, caller

    return begin


def outcomes(running: RunningProxy, upstream: str) -> dict[str, int]:
    counts = running.serinus.registry.upstreams[upstream].outcomes
    return {outcome.value: count for outcome, count in counts.items() if count}


def failures(running: RunningProxy) -> int:
    return sum(series.failures for _, series in running.serinus.metrics.all_series())


async def test_second_answers_first(racing):
    running, caller = await racing(first := Slow(), second := Slow(whole(b"quick")))
    second.answers.set()
    answer = await caller.answer()
    assert (answer.status, answer.payload, answer.field(b"x-serinus-upstream")) == (200, b"quick", b"up1")
    assert answer.field(b"x-serinus-attempts") == b"2"
    await first.left.wait()
    await running.until_logged()
    (line,) = running.requests_logged
    assert (line["upstream"], line["tried"], running.inflight()) == ("up1", ("up0: slower",), 0)
    assert (outcomes(running, "up0"), outcomes(running, "up1"), failures(running)) == ({"hedged": 1}, {"ok": 1}, 0)


async def test_first_answers_first_after_all(racing):
    running, caller = await racing(first := Slow(), second := Slow())
    first.answers.set()
    answer = await caller.answer()
    assert (answer.payload, answer.field(b"x-serinus-upstream")) == (b"slow", b"up0")
    assert answer.field(b"x-serinus-attempts") == b"2"
    await second.left.wait()
    assert (outcomes(running, "up0"), outcomes(running, "up1")) == ({"ok": 1}, {"hedged": 1})


@pytest.mark.parametrize("winner", [0, 1])
async def test_callers_connection_goes_on_after_a_race(winner, racing):
    running, caller = await racing(*(slow := (Slow(), Slow())))
    slow[winner].answers.set()
    assert (await caller.answer()).status == 200
    slow[0].answers.set()
    slow[1].answers.set()
    await caller.send(post(b'{"model": "m"}'))
    assert (await caller.answer()).status == 200
    await running.until_logged(2)
    assert running.inflight() == 0


async def test_slow_one_is_known_as_slow(racing):
    running, caller = await racing(Slow(), second := Slow())
    running.pass_time(2)
    second.answers.set()
    await caller.answer()
    members = running.serinus.registry.pools["chat"].members
    waits = {name.partition("/")[0]: live.load.latency_at(running.clock()) for name, live in members.items()}
    assert waits == {"up0": pytest.approx(2.51), "up1": pytest.approx(2)}


# --- when one of them fails ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failed", [0, 1])
@pytest.mark.parametrize("failure", [b"", BUSY, b"nonsense\r\n\r\n"], ids=["reset", "503", "nonsense"])
async def test_one_that_fails_leaves_it_to_the_other(failure, failed, racing):
    slow = [Slow(), Slow()]
    slow[failed].answer = failure
    running, caller = await racing(*slow)
    slow[failed].answers.set()
    await running.until(lambda: running.inflight() == 1)
    slow[1 - failed].answers.set()
    answer = await caller.answer()
    assert (answer.status, answer.payload, answer.field(b"x-serinus-upstream")) == (
        200,
        b"slow",
        b"up%d" % (1 - failed),
    )
    await running.until_logged()
    assert (outcomes(running, f"up{failed}"), failures(running)) == ({"upstream_error": 1}, 1)
    assert running.requests_logged[0]["tried"][0].startswith(f"up{failed}: ")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_both_fail(order, racing):
    running, caller = await racing(*(slow := (Slow(b""), Slow(b""))))
    for each in order:
        slow[each].answers.set()
        await slow[each].left.wait()
    assert (await caller.answer()).status == 502
    assert running.inflight() == 0
    await running.until_logged()
    assert len(running.requests_logged) == 1


async def test_one_that_is_left_may_still_be_tried_again(scripted, proxy):
    slow, failing = Slow(), Slow(BUSY)
    upstreams = [await scripted(slow), await scripted(failing), await scripted(answering(whole(b"third")))]
    running = await proxy(config_for(*(one.url for one in upstreams), pool=HEDGED + ", retry: {attempts: 3}"))
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    await running.until(lambda: len(upstreams[0].requests) == 1)
    running.pass_time(0.6)
    await running.until(lambda: len(upstreams[1].requests) == 1)
    slow.answer = b""
    slow.answers.set()
    await running.until(lambda: running.inflight() == 1)
    failing.answers.set()
    answer = await caller.answer()
    assert (answer.payload, answer.field(b"x-serinus-attempts")) == (b"third", b"3")


async def test_callers_own_mistake_is_an_answer(racing):
    running, caller = await racing(first := Slow(), second := Slow(whole(b"no", status=b"404 Not Found")))
    second.answers.set()
    assert (await caller.answer()).status == 404
    await first.left.wait()
    assert running.inflight() == 0


async def test_caller_that_leaves_ends_both(racing):
    running, caller = await racing(first := Slow(), second := Slow())
    caller.writer.transport.abort()
    await first.left.wait()
    await second.left.wait()
    await running.until_logged()
    assert (outcomes(running, "up0"), outcomes(running, "up1")) == ({"client_gone": 1}, {"client_gone": 1})
    assert len(running.requests_logged) == 1


async def test_deadline_ends_both(racing):
    running, caller = await racing(first := Slow(), second := Slow(), upstream="timeouts: {total: 5s}")
    running.pass_time(5)
    assert (await caller.answer()).status == 504
    await first.left.wait()
    await second.left.wait()
    assert running.inflight() == 0


async def test_no_first_byte_from_either(racing):
    running, caller = await racing(Slow(), Slow(), upstream="timeouts: {first_byte: 5s}")
    running.pass_time(4.6)
    await running.until(lambda: running.inflight() == 1)
    running.pass_time(0.5)
    assert (await caller.answer()).status == 504
    assert running.inflight() == 0


# --- what is not hedged ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "pool", "hedged"),
    [
        (post(b'{"model": "m"}'), HEDGED, True),
        (post(b'{"stream": false}'), HEDGED, True),
        (get(b"/v1/models"), HEDGED, True),
        (post(STREAM), HEDGED, False),
        (post(b'{"stream": "yes"}'), HEDGED, False),
        (post(b"no JSON"), HEDGED, False),
        (post(b"{}", target=b"/v1/files"), HEDGED, False),
        (post(b"{}", target=b"/v1/batches"), HEDGED, False),
        (post(b"{}").replace(b"POST", b"DELETE"), HEDGED, False),
        (post(b"{}"), "balance: smooth_rr", False),
        (post(b"{}"), HEDGED + ", retry: {attempts: 1}", False),
    ],
)
async def test_what_is_hedged(request_bytes, pool, hedged, scripted, proxy):
    slow = [await scripted(Slow()), await scripted(Slow())]
    running = await proxy(config_for(*(one.url for one in slow), pool=pool))
    caller = await RawCaller.connect(running.port)
    await caller.send(request_bytes)
    await running.until(lambda: len(slow[0].requests) == 1)
    running.pass_time(0.6)
    assert running.inflight() == 1 + hedged


async def test_nobody_else_is_left_to_ask(scripted, proxy):
    slow = await scripted(script := Slow())
    running = await proxy(config_for(slow.url, pool=HEDGED))
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    await running.until(lambda: len(slow.requests) == 1)
    running.pass_time(0.6)
    running.pass_time(0.6)
    script.answers.set()
    answer = await caller.answer()
    assert (answer.status, answer.field(b"x-serinus-attempts")) == (200, None)


async def test_budget_bounds_hedges(scripted, proxy):
    slow = [await scripted(Slow()), await scripted(Slow())]
    running = await proxy(config_for(*(one.url for one in slow), pool=HEDGED + ", retry: {budget_percent: 0}"))
    callers = [await RawCaller.connect(running.port) for _ in range(8)]
    for caller in callers:
        await caller.send(post())
    await running.until(lambda: sum(len(one.requests) for one in slow) == 8)
    running.pass_time(0.6)
    assert running.inflight() == 8 + 3  # always so many
    assert running.serinus.registry.pools["chat"].retries == {"hedge": 3}
    for caller in callers:
        caller.writer.transport.abort()
    await running.until(lambda: running.inflight() == 0)
    assert running.serinus.registry.pools["chat"].budget.under_way == 0
