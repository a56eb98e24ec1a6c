"""Whole rollouts under real traffic, in time that the tests let pass: what callers see, and where requests go."""

import asyncio
from collections import Counter

import pytest

from proxy.policy.canary import State
from tests.dataplane.test_arms import config
from tests.support.raw import RawCaller, post
from tests.support.running import RunningProxy
from tests.support.scripted import Conversation, ScriptedUpstream, whole

LOOK_S = 5.0
ROUND = 25  # requests between two looks
LADDER = "steps: [{set_weight: 25}, {set_weight: 50}, {set_weight: 100}]"
ANALYSIS = """analysis: {min_step_duration: 10s, min_samples: {canary: 20, baseline: 50},
  metrics: [{name: ttft, allowed_increase: 2}, {name: errors, allowed_delta: 0.3}]}"""


class Upstream:
    """It answers after so much time, as the proxy's clock has it. Requests with `x-hold` wait for a test."""

    def __init__(self, wait_s: float = 0.1, status: bytes = b"200 OK") -> None:
        self.wait_s, self.status = wait_s, status
        self.release = asyncio.Event()
        self.running: RunningProxy | None = None
        self._count = 0

    async def __call__(self, talk: Conversation) -> None:
        while True:
            request = await talk.request()
            self._count += 1
            if request.field(b"x-hold") is not None:
                await self.release.wait()
            elif self.running is not None:
                self.running.clock.ahead_s += self.wait_s * (0.8 + 0.1 * (self._count % 5))
            await talk.send(whole(b"{}", status=self.status))


class Scene:
    """A proxy with a canary, its two upstreams, and callers."""

    def __init__(self, running: RunningProxy, old: Upstream, new: Upstream, canary: ScriptedUpstream) -> None:
        self.running, self.old, self.new, self.canary = running, old, new, canary
        self.seen: Counter[tuple[bytes | None, int]] = Counter()  # arm and status
        self.use(running)

    def use(self, running: RunningProxy) -> None:
        self.running = self.old.running = self.new.running = running
        running.serinus.canaries._dice.seed(7)

    @property
    def rollout(self):
        return self.running.serinus.canaries.rollouts["trial"]

    @property
    def state(self) -> State:
        return self.rollout.state

    @property
    def weight(self) -> float:
        return round(self.rollout.weight, 6)

    @property
    def happened(self) -> list[str]:
        return [event["happened"] for event in self.running.events.named("canary")]

    def command(self, what: str, **options: object) -> None:
        self.running.serinus.canaries.command("trial", what, "tester", **options)

    async def calls(self, rounds: int = 1) -> None:
        caller = await RawCaller.connect(self.running.port)
        for _ in range(rounds):
            for _ in range(ROUND):
                await caller.send(post())
                answer = await caller.answer()
                self.seen[answer.field(b"x-serinus-arm"), answer.status] += 1
            self.running.pass_time(LOOK_S)
        caller.close()

    async def until(self, *states: State, weight: float | None = None, rounds: int = 200) -> None:
        for _ in range(rounds):
            if self.state in states and weight in (None, self.weight):
                return
            await self.calls()
        pytest.fail(f"it is {self.state} at {self.weight}: {self.rollout.explain()}")

    async def nobody_comes_to_the_canary(self) -> None:
        before, seen = len(self.canary.requests), Counter(self.seen)
        await self.calls(3)
        assert self.seen - seen == {(b"baseline", 200): 3 * ROUND}
        assert len(self.canary.requests) == before


@pytest.fixture
def begin(scripted, proxy):
    async def begin(spec: str = f"{LADDER}, {ANALYSIS}", *, old=None, new=None, **options) -> Scene:
        old, new = old or Upstream(), new or Upstream()
        baseline, canary = await scripted(old), await scripted(new)
        running = await proxy(config(baseline.url, canary.url, spec, **options))
        return Scene(running, old, new, canary)

    return begin


# --- it ends well ----------------------------------------------------------------------------------------------------


async def test_a_canary_that_is_as_good_gets_all(begin):
    scene = await begin()
    await scene.until(State.SUCCEEDED)
    assert scene.happened == ["began", "stepped", "promoted", "succeeded"]
    assert {status for _, status in scene.seen} == {200}
    before = len(scene.canary.requests)
    await scene.calls()
    assert len(scene.canary.requests) == before + ROUND


async def test_the_first_requests_are_few_and_their_latency_is_not_judged(begin):
    warmup = "warmup: {min_requests: 5, duration: 30s, weight: 10}"
    scene = await begin(f"{LADDER}, {ANALYSIS}, {warmup}", new=Upstream(wait_s=1.0))
    await scene.calls(3)
    assert (scene.state, scene.weight) == (State.WARMING, 0.1)
    scene.new.wait_s = 0.1
    await scene.until(State.SUCCEEDED)
    assert "rolled_back" not in scene.happened


# --- or not ----------------------------------------------------------------------------------------------------------


async def test_a_canary_that_fails_is_rolled_back_and_nobody_comes_to_it_any_more(begin):
    scene = await begin()
    await scene.until(State.PROGRESSING, weight=0.5)
    assert {status for _, status in scene.seen} == {200}
    scene.new.status = b"500 Oh"
    await scene.until(State.FAILED, rounds=20)
    assert scene.happened[-2:] == ["rolled_back", "failed"]
    assert {arm for arm, status in scene.seen if status != 200} == {b"canary"}
    await scene.nobody_comes_to_the_canary()


async def test_a_canary_that_is_slower_is_rolled_back_and_no_caller_sees_a_failure(begin):
    scene = await begin()
    await scene.until(State.PROGRESSING, weight=0.5)
    scene.new.wait_s = 0.4
    await scene.until(State.FAILED, rounds=40)
    assert "rolled_back" in scene.happened
    assert {status for _, status in scene.seen} == {200}
    await scene.nobody_comes_to_the_canary()


async def test_a_canary_that_cannot_be_reached_is_rolled_back(begin):
    scene = await begin()
    await scene.calls(8)
    await scene.canary.stop()
    await scene.until(State.FAILED, rounds=40)
    assert {arm for arm, status in scene.seen if status != 200} == {b"canary"}
    await scene.nobody_comes_to_the_canary()


async def test_what_is_under_way_at_a_rollback_comes_to_its_end(begin):
    scene = await begin(f"{LADDER}, {ANALYSIS}, force_header: true")
    await scene.until(State.PROGRESSING)
    held, before = await RawCaller.connect(scene.running.port), len(scene.canary.requests)
    await held.send(post(fields=b"X-Hold: 1\r\nX-Serinus-Arm: canary\r\n"))
    await scene.canary.until(lambda: len(scene.canary.requests) > before)
    scene.command("abort", reason="enough")
    await scene.nobody_comes_to_the_canary()
    scene.new.release.set()
    assert (await held.answer()).status == 200
    held.close()


# --- it waits --------------------------------------------------------------------------------------------------------


async def test_when_both_arms_are_bad_it_holds_until_that_is_over(begin):
    scene = await begin(f"{LADDER}, {ANALYSIS}, slo: {{error_rate: 0.02}}")
    await scene.until(State.PROGRESSING, weight=0.5)
    scene.old.status = scene.new.status = b"500 Oh"
    await scene.until(State.HOLDING, rounds=40)
    assert scene.weight == 0.5
    scene.old.status = scene.new.status = b"200 OK"
    await scene.until(State.PROGRESSING, State.PROMOTING, State.SUCCEEDED)
    assert ("went_on" in scene.happened, "rolled_back" in scene.happened) == (True, False)


async def test_a_pause_among_the_steps_waits_for_somebody(begin):
    scene = await begin(f"steps: [{{set_weight: 25}}, {{pause: {{}}}}, {{set_weight: 50}}], {ANALYSIS}")
    await scene.until(State.PAUSED)
    await scene.calls(20)
    assert (scene.state, scene.weight) == (State.PAUSED, 0.25)
    scene.command("resume")
    assert (scene.state, scene.weight) == (State.PROGRESSING, 0.5)


async def test_a_pause_of_some_time_ends_by_itself(begin):
    pause = "{pause: {duration: 1m}}"
    scene = await begin(f"steps: [{{set_weight: 25}}, {pause}, {{set_weight: 50}}], {ANALYSIS}")
    await scene.until(State.PAUSED)
    scene.running.pass_time(61)
    assert (scene.state, scene.weight) == (State.PROGRESSING, 0.5)


async def test_whoever_pauses_it_stops_its_rise_but_not_its_fall(begin):
    scene = await begin()
    await scene.until(State.PROGRESSING, weight=0.5)
    scene.command("pause", reason="a look at the bills")
    await scene.calls(20)
    assert (scene.state, scene.weight) == (State.PAUSED, 0.5)
    scene.new.status = b"500 Oh"
    await scene.until(State.FAILED, rounds=40)
    await scene.nobody_comes_to_the_canary()


async def test_an_operators_abort_takes_effect_with_the_next_request(begin):
    scene = await begin()
    await scene.calls(5)
    scene.command("abort")
    assert scene.state is State.ABORTED
    await scene.nobody_comes_to_the_canary()


# --- over restarts ---------------------------------------------------------------------------------------------------


@pytest.fixture
def begin_kept(scripted, proxy, tmp_path):
    """A scene that can be begun again with what it kept, or with another specification."""

    async def begin_kept(spec: str = f"{LADDER}, {ANALYSIS}") -> tuple[Scene, object]:
        old, new = Upstream(), Upstream()
        baseline, canary = await scripted(old), await scripted(new)

        def text(spec: str) -> str:
            return config(baseline.url, canary.url, spec, more=f"state_dir: {tmp_path}/state")

        async def again(spec: str = spec, kept: bytes | None = None) -> None:
            await scene.running.stop()
            if kept is not None:
                (tmp_path / "state" / "canaries.json").write_bytes(kept)
            scene.use(await proxy(text(spec)))

        scene = Scene(await proxy(text(spec)), old, new, canary)
        return scene, again

    return begin_kept


def evidence(scene: Scene) -> float:
    return scene.rollout.explain()["analysis"]["evidence"]


async def test_a_restart_in_the_middle_goes_on_where_it_was(begin_kept):
    scene, again = await begin_kept()
    await scene.until(State.PROGRESSING, weight=0.5)
    await scene.calls(6)
    known, rollout_id, weight = evidence(scene), scene.rollout.id, scene.weight
    await again()
    assert (scene.rollout.id, scene.state, scene.weight) == (rollout_id, State.PROGRESSING, weight)
    assert evidence(scene) == pytest.approx(known)
    await scene.until(State.SUCCEEDED)
    assert {status for _, status in scene.seen} == {200}


async def test_a_kill_loses_no_more_than_the_last_look_and_never_adds_to_the_weight(begin_kept, tmp_path):
    scene, again = await begin_kept()
    await scene.until(State.PROGRESSING, weight=0.25)
    await scene.calls(2)
    await scene.running.until(lambda: not scene.running.serinus.recorder._tasks)
    kept = (tmp_path / "state" / "canaries.json").read_bytes()
    await scene.until(State.PROGRESSING, weight=0.5)
    await again(kept=kept)  # as if nothing had been written since
    assert (scene.state, scene.weight) == (State.PROGRESSING, 0.25)


async def test_a_canary_that_was_rolled_back_stays_so_over_restarts(begin_kept):
    scene, again = await begin_kept()
    await scene.calls(10)
    scene.new.status = b"500 Oh"
    await scene.until(State.FAILED)
    for _ in range(2):
        await again()
        assert scene.state is State.FAILED
        await scene.nobody_comes_to_the_canary()
    assert scene.happened == []  # what was told once is not told again


async def test_another_specification_begins_anew(begin_kept):
    scene, again = await begin_kept()
    await scene.calls(5)
    scene.command("abort")
    await again(f"{LADDER.replace('25', '10')}, {ANALYSIS}")
    assert scene.state is State.PENDING
    await scene.calls(2)
    assert (scene.state, scene.weight) == (State.PROGRESSING, 0.1)


async def test_other_webhooks_are_no_other_specification(begin_kept):
    scene, again = await begin_kept()
    await scene.calls(5)
    scene.command("abort")
    await again(f"{LADDER}, {ANALYSIS}, webhooks: [{{url: 'http://127.0.0.1:1/'}}]")
    assert scene.state is State.ABORTED
