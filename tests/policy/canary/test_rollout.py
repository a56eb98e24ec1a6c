"""Whole rollouts as stories: who does what when, and what is told."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.model.outcome import Outcome
from proxy.policy.canary import Arm, CanaryEvent, CanarySpec, IllegalTransition, Rollout, State, Stratum
from proxy.policy.canary.counts import Harvest
from proxy.policy.canary.plan import Plan
from proxy.policy.canary.recorder import Recorder
from proxy.policy.canary.rollout import watch_of

STREAM = Stratum(2000, True, "m")
TICK_S = 5.0
STEPS = [{"set_weight": 10}, {"set_weight": 50}, {"set_weight": 100}]


def spec(steps: list[dict[str, Any]] | None = None, **more: Any) -> CanarySpec:
    return CanarySpec.parse({"baseline": "a", "canary": "b", "steps": steps or STEPS} | more)


class World:
    """Ten requests a second, and a tick every five seconds. What an arm does is an outcome and a wait."""

    def __init__(self, asked: CanarySpec, seed: int = 1, now_s: float = 1000.0) -> None:
        self.rng = random.Random(seed)
        self.rollout = Rollout(asked, self.rng, now_s)
        self.now_s = now_s
        self.token = 0
        self.sent = {Arm.BASELINE: 0, Arm.CANARY: 0}
        self.events: list[CanaryEvent] = []
        self.does = {Arm.BASELINE: (Outcome.OK, 200, 1.0), Arm.CANARY: (Outcome.OK, 200, 1.0)}
        self.hangs: set[Arm] = set()
        self.per_tick = 50

    def tick(self) -> None:
        for i in range(self.per_tick):
            at_s = self.now_s + i * TICK_S / self.per_tick
            arm = self.rollout.draw(None)
            self.sent[arm] += 1
            self.token += 1
            self.rollout.started(self.token, arm, STREAM, at_s)
            if arm in self.hangs:
                continue
            outcome, status, slower = self.does[arm]
            ttft_s = 0.2 * slower * (1 + self.rng.random())
            self.rollout.first_byte(self.token, at_s + ttft_s)
            self.rollout.finished(self.token, outcome, at_s + ttft_s + 1.0, 50, 0.05, status)
        self.now_s += TICK_S
        self.events += self.rollout.tick(self.now_s)

    def run(self, seconds: float, until: State | None = None) -> State:
        end_s = self.now_s + seconds
        while self.now_s < end_s and self.rollout.state is not until:
            self.tick()
        return self.rollout.state

    def told(self) -> list[str]:
        return [event.name for event in self.events]


def ended(world: World) -> Iterator[str]:
    yield from (event.text for event in world.events)


# --- to the end -----------------------------------------------------------------------------------------------------


def test_a_canary_that_is_no_worse_goes_all_the_way():
    world = World(spec(warmup={"min_requests": 20, "duration": "1m"}, bake={"duration": "5m"}))
    assert world.rollout.state is State.PENDING
    assert world.run(20_000, State.SUCCEEDED) is State.SUCCEEDED
    assert world.rollout.weight == 1.0
    assert world.told() == ["began", "stepped", "stepped", "promoted", "succeeded"]
    assert world.events[1].text.startswith("stepped: from 1 % to 10 %; after ")
    assert "make b the route's pool" in world.events[-1].text


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("wait_s", [0.0, 0.3])
def test_arms_that_never_vary_are_alike_as_well(stream, wait_s):
    world = World(spec())
    while world.now_s < 20_000 and world.rollout.state is not State.SUCCEEDED:
        for _ in range(50):
            arm = world.rollout.draw(None)
            world.rollout.started(1, arm, Stratum(100, stream, "m"), world.now_s)
            if stream:
                world.rollout.first_byte(1, world.now_s + wait_s)
            world.rollout.finished(1, Outcome.OK, world.now_s + wait_s)
        world.now_s += TICK_S
        world.rollout.tick(world.now_s)
    assert world.rollout.state is State.SUCCEEDED


def test_a_canary_that_is_slow_is_rolled_back_with_its_numbers():
    world = World(spec())
    world.run(300)
    world.does[Arm.CANARY] = (Outcome.OK, 200, 3.0)
    assert world.run(3000, State.FAILED) is State.FAILED
    assert world.rollout.weight == 0.0
    rolled_back = world.events[1]
    assert rolled_back.name == "rolled_back"
    assert rolled_back.text.startswith("rolled_back: E=")
    assert "≥ 300 after " in rolled_back.text
    assert rolled_back.numbers["evidence"] >= rolled_back.numbers["threshold"] == pytest.approx(300)
    assert rolled_back.numbers["families"]["ttft"] > rolled_back.numbers["families"]["errors"]


def test_a_canary_that_fails_fast_does_not_look_fast():
    world = World(spec())
    world.run(300)
    world.does[Arm.CANARY] = (Outcome.UPSTREAM_ERROR, 500, 0.1)
    before = world.sent[Arm.CANARY]
    assert world.run(600, State.ROLLING_BACK) is State.ROLLING_BACK
    assert world.sent[Arm.CANARY] - before < 60


def test_a_canary_that_answers_404_to_everyone_is_rolled_back_in_the_warm_up():
    world = World(spec(warmup={"min_requests": 200, "duration": "5m"}))
    world.does[Arm.CANARY] = (Outcome.OK, 404, 0.1)
    assert world.run(300, State.ROLLING_BACK) is State.ROLLING_BACK
    assert world.told() == ["began", "rolled_back"]
    assert world.sent[Arm.CANARY] < 30


def test_404s_in_both_arms_are_the_callers():
    world = World(spec())
    world.does = dict.fromkeys(world.does, (Outcome.OK, 404, 1.0))
    assert world.run(3000, State.ROLLING_BACK) is not State.ROLLING_BACK


def test_a_canary_that_hangs_is_seen_before_its_timeouts():
    world = World(spec())
    world.run(120)
    world.hangs.add(Arm.CANARY)
    began_s = world.now_s
    assert world.run(600, State.ROLLING_BACK) is State.ROLLING_BACK
    assert world.now_s - began_s < 60


def test_a_rollback_ends_when_the_canarys_last_request_has():
    world = World(spec())
    world.run(120)
    world.rollout.started(0, Arm.CANARY, STREAM, world.now_s)
    world.does[Arm.CANARY] = (Outcome.TIMEOUT, 200, 1.0)
    world.run(600, State.ROLLING_BACK)
    world.run(60)
    assert world.rollout.state is State.ROLLING_BACK
    assert world.rollout.explain()["waits_for"] == ["1 canary requests to end"]
    world.rollout.finished(0, Outcome.TIMEOUT, world.now_s)
    world.tick()
    assert world.rollout.state is State.FAILED


def test_stalls_are_rolled_back():
    world = World(spec())
    rng = random.Random(5)
    for second in range(3000):
        for _ in range(10):
            arm = world.rollout.draw(None)
            world.token += 1
            stall = arm is Arm.CANARY and rng.random() < 0.2
            world.rollout.started(world.token, arm, STREAM, world.now_s)
            world.rollout.first_byte(world.token, world.now_s + 0.2)
            world.rollout.finished(world.token, Outcome.OK, world.now_s + 2, 50, 30.0 if stall else 0.1)
        world.now_s += 1
        if second % 5 == 0:
            world.rollout.tick(world.now_s)
        if world.rollout.state is State.ROLLING_BACK:
            break
    assert world.rollout.state is State.ROLLING_BACK


# --- silence --------------------------------------------------------------------------------------------------------


def test_silence_proves_nothing():
    world = World(spec(analysis={"max_step_duration": "1h"}))
    world.per_tick = 0
    assert world.run(7200, State.INCONCLUSIVE) is State.INCONCLUSIVE
    assert world.rollout.weight == pytest.approx(0.1)
    assert "0 canary samples < 50" in world.events[-1].text


def test_silence_is_rolled_back_where_that_is_asked_for():
    world = World(spec(analysis={"max_step_duration": "1h", "on_inconclusive": "rollback"}))
    world.per_tick = 0
    assert world.run(7200, State.FAILED) is State.FAILED


def test_an_inconclusive_step_is_still_watched():
    world = World(spec(analysis={"max_step_duration": "5m"}))
    assert world.run(600, State.INCONCLUSIVE) is State.INCONCLUSIVE
    world.does[Arm.CANARY] = (Outcome.TIMEOUT, 200, 1.0)
    assert world.run(600, State.ROLLING_BACK) is State.ROLLING_BACK


def test_an_inconclusive_step_resumes_where_it_was():
    world = World(spec(analysis={"max_step_duration": "5m"}))
    world.run(600, State.INCONCLUSIVE)
    before = world.rollout.explain()["analysis"]["proofs"]
    world.rollout.command("resume", world.now_s)
    assert world.rollout.explain()["analysis"]["proofs"] == before
    assert world.run(200) is State.PROGRESSING


# --- ticks ----------------------------------------------------------------------------------------------------------


def test_a_tick_is_idempotent_for_one_time():
    world = World(spec())
    world.run(100)
    dumped = world.rollout.dump(world.now_s)
    assert world.rollout.tick(world.now_s) == []
    assert world.rollout.tick(world.now_s - 3) == []
    assert world.rollout.dump(world.now_s) == dumped


def test_no_tick_for_an_hour_and_one_that_makes_up_for_it():
    world = World(spec())
    world.run(600)
    for i in range(3600):
        world.rollout.started(i, Arm.CANARY if i % 10 == 0 else Arm.BASELINE, STREAM, world.now_s + i)
        world.rollout.first_byte(i, world.now_s + i + 0.25)
        world.rollout.finished(i, Outcome.OK, world.now_s + i + 1.25, 50)
    world.rollout.tick(world.now_s + 3600)
    assert world.rollout.state is State.PROGRESSING
    world.now_s += 3600
    assert world.run(20_000, State.SUCCEEDED) is State.SUCCEEDED


# --- pauses and commands --------------------------------------------------------------------------------------------


def test_a_pause_waits_to_be_resumed_and_a_timed_one_does_not():
    steps = [{"set_weight": 10}, {"pause": {}}, {"set_weight": 50}, {"pause": {"duration": "10m"}}, {"set_weight": 100}]
    world = World(spec(steps, analysis={"method": "none", "min_step_duration": "1m"}))
    assert (world.rollout.state, world.rollout.weight) == (State.PROGRESSING, 0.1)
    assert world.run(3600) is State.PAUSED
    assert world.rollout.explain()["waits_for"] == ["to be resumed"]
    world.rollout.command("resume", world.now_s)
    assert (world.rollout.state, world.rollout.weight) == (State.PROGRESSING, 0.5)
    world.run(65)
    assert world.rollout.state is State.PAUSED
    assert world.rollout.explain()["waits_for"] == ["595 s until the pause is over"]
    assert world.run(620) is State.SUCCEEDED


def test_a_pause_by_hand_stays_at_its_step_and_keeps_its_evidence():
    world = World(spec())
    world.run(300)
    (event,) = world.rollout.command("pause", world.now_s, reason="lunch")
    assert event.text == "paused: lunch"
    with pytest.raises(IllegalTransition):
        world.rollout.command("pause", world.now_s)
    assert world.run(7200) is State.PAUSED
    world.rollout.command("resume", world.now_s)
    assert world.run(10) is State.PROGRESSING
    assert world.rollout.weight == 0.5  # what was proved while it was paused counts


def test_a_paused_canary_is_still_watched():
    world = World(spec())
    world.run(60)
    world.rollout.command("pause", world.now_s)
    world.does[Arm.CANARY] = (Outcome.TIMEOUT, 200, 1.0)
    assert world.run(600, State.ROLLING_BACK) is State.ROLLING_BACK


def test_a_warm_up_resumes_as_one():
    world = World(spec(warmup={"min_requests": 20, "duration": "5m"}))
    world.run(60)
    world.rollout.command("pause", world.now_s)
    world.rollout.command("resume", world.now_s)
    assert world.rollout.state is State.WARMING


def test_promote_is_the_next_step_and_in_full_needs_a_reason():
    world = World(spec())
    world.run(60)
    world.rollout.command("promote", world.now_s)
    assert (world.rollout.state, world.rollout.weight) == (State.PROGRESSING, 0.5)
    with pytest.raises(ValueError, match="say why"):
        world.rollout.command("promote", world.now_s, full=True)
    assert world.rollout.weight == 0.5
    (event,) = world.rollout.command("promote", world.now_s, full=True, reason="the old one is gone")
    assert event.text.startswith("promoted: by hand, in full: the old one is gone; after ")
    assert (world.rollout.state, world.rollout.weight) == (State.PROMOTING, 1.0)


def test_promote_passes_over_a_pause_and_ends_where_the_steps_do():
    world = World(spec([{"set_weight": 10}, {"pause": {}}, {"set_weight": 50}]))
    world.run(60)
    world.rollout.command("promote", world.now_s)
    assert world.rollout.weight == 0.5
    with pytest.raises(IllegalTransition, match="nothing comes after 50 %"):
        world.rollout.command("promote", world.now_s)


def test_a_weight_by_hand_is_fresh_evidence_at_a_higher_threshold():
    world = World(spec())
    world.run(300)
    assert world.rollout.explain()["analysis"]["threshold"] == pytest.approx(300)
    world.rollout.command("weight", world.now_s, weight=20)
    shown = world.rollout.explain()
    assert (shown["weight"], shown["state"]) == (pytest.approx(0.2), "progressing")
    assert shown["analysis"]["threshold"] == pytest.approx(600)
    assert shown["analysis"]["evidence"] < 1
    for wrong in (0, 100, "half", True):
        with pytest.raises(ValueError, match="percent above 0 and below 100"):
            world.rollout.command("weight", world.now_s, weight=wrong)
    assert world.run(20_000, State.SUCCEEDED) is State.SUCCEEDED


def test_a_retry_begins_again_at_a_higher_threshold():
    world = World(spec())
    world.run(60)
    world.does[Arm.CANARY] = (Outcome.TIMEOUT, 200, 1.0)
    world.run(600, State.ROLLING_BACK)
    with pytest.raises(IllegalTransition):
        world.rollout.command("retry", world.now_s)
    world.run(60, State.FAILED)
    world.does[Arm.CANARY] = (Outcome.OK, 200, 1.0)
    world.rollout.command("retry", world.now_s)
    assert (world.rollout.state, world.rollout.weight) == (State.PROGRESSING, 0.1)
    assert world.rollout.explain()["analysis"]["threshold"] == pytest.approx(600)
    assert world.run(20_000, State.SUCCEEDED) is State.SUCCEEDED


def test_what_was_begun_too_often_is_left_as_it_was():
    world = World(spec())
    world.tick()
    for _ in range(99):
        world.rollout.command("weight", world.now_s, weight=20)
    before = world.rollout.dump(world.now_s)
    with pytest.raises(ValueError, match="begin a new rollout"):
        world.rollout.command("weight", world.now_s, weight=20)
    assert world.rollout.dump(world.now_s) == before
    world.rollout.command("abort", world.now_s)
    before = world.rollout.dump(world.now_s)
    with pytest.raises(ValueError, match="begin a new rollout"):
        world.rollout.command("retry", world.now_s)
    assert world.rollout.dump(world.now_s) == before


def test_a_warm_up_above_the_first_step_passes_over_it():
    world = World(spec(warmup={"weight": 20, "min_requests": 1, "duration": "1m"}))
    world.run(120)
    assert (world.rollout.state, world.rollout.weight) == (State.PROGRESSING, 0.5)


@pytest.mark.parametrize("name", ["pause", "resume", "abort", "promote", "retry", "weight"])
def test_nobody_overrides_a_rollback_under_way(name):
    world = World(spec())
    world.run(60)
    world.does[Arm.CANARY] = (Outcome.TIMEOUT, 200, 1.0)
    world.run(600, State.ROLLING_BACK)
    before = world.rollout.dump(world.now_s)
    with pytest.raises(IllegalTransition):
        world.rollout.command(name, world.now_s, **({"weight": 5} if name == "weight" else {}))
    assert world.rollout.dump(world.now_s) == before


def test_an_abort_is_at_once_and_can_be_retried():
    world = World(spec())
    world.run(60)
    world.rollout.command("abort", world.now_s, reason="wrong pool")
    assert (world.rollout.state, world.rollout.weight) == (State.ABORTED, 0.0)
    world.rollout.command("retry", world.now_s)
    assert world.rollout.weight == 0.1


def test_what_is_no_command_is_said_to_be_none():
    world = World(spec())
    with pytest.raises(ValueError, match="'rollback' is no command: write pause, resume"):
        world.rollout.command("rollback", 0.0)
    with pytest.raises(ValueError, match="weight: "):
        world.rollout.command("weight", 0.0, percent=5)


# --- both arms ------------------------------------------------------------------------------------------------------


def test_where_both_arms_are_bad_it_holds_and_goes_on():
    world = World(spec(slo={"ttft_p95": "4s", "error_rate": 0.02}))
    world.run(120)
    world.does = dict.fromkeys(world.does, (Outcome.UPSTREAM_ERROR, 500, 1.0))
    assert world.run(120) is State.HOLDING
    assert world.events[-1].text.startswith("holding: a shared cause: the baseline breaks the SLO of ")
    world.does = dict.fromkeys(world.does, (Outcome.OK, 200, 1.0))
    assert world.run(600) is State.PROGRESSING
    assert world.told() == ["began", "holding", "went_on"]


def test_a_promoted_canary_that_breaks_the_slo_is_an_alarm_and_no_rollback():
    world = World(spec(slo={"error_rate": 0.02}, bake={"duration": "30m"}))
    world.run(60)
    world.rollout.command("promote", world.now_s, full=True, reason="test")
    world.does[Arm.CANARY] = (Outcome.TIMEOUT, 200, 1.0)
    assert world.run(1200) is State.BAKING
    assert world.told() == ["began", "slo_alarm"]
    assert world.run(1200) is State.SUCCEEDED


# --- draws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [1, 10, 37, 90])
@pytest.mark.parametrize("unit", ["request", "client"])
def test_shares_are_those_of_the_weight(weight, unit):
    fixed = CanarySpec.parse({"baseline": "a", "canary": "b", "weight": weight, "unit": unit})
    rollout = Rollout(fixed, random.Random(1), 0.0)
    assert (rollout.state, rollout.weight) == (State.PROGRESSING, weight / 100)
    canary = sum(rollout.draw(f"unit-{i}") is Arm.CANARY for i in range(100_000))
    assert abs(canary / 1000 - weight) <= 0.5


def test_a_unit_stays_in_its_arm_for_an_epoch_and_is_drawn_anew_in_the_next():
    sticky = CanarySpec.parse({"baseline": "a", "canary": "b", "weight": 50, "unit": "client", "epoch": "10m"})
    rollout = Rollout(sticky, random.Random(1), 0.0)
    units = [f"unit-{i}" for i in range(1000)]
    first = [rollout.draw(unit) for unit in units]
    rollout.tick(595.0)
    assert [rollout.draw(unit) for unit in units] == first
    rollout.tick(605.0)
    changed = sum(rollout.draw(unit) is not arm for unit, arm in zip(units, first, strict=True))
    assert 400 < changed < 600


def test_a_rising_weight_moves_no_unit_back():
    world = World(spec([{"set_weight": weight} for weight in range(5, 100, 5)], unit="client"))
    world.rollout.tick(1001.0)
    units = [f"unit-{i}" for i in range(2000)]
    before: set[str] = set()
    for _ in range(18):
        now = {unit for unit in units if world.rollout.draw(unit) is Arm.CANARY}
        assert before < now
        before = now
        world.rollout.command("promote", 1001.0)


# --- memory ---------------------------------------------------------------------------------------------------------


def shown(rollout: Rollout) -> dict[str, Any]:
    """What does not live in samples or in open requests."""
    found = rollout.explain()
    for name in ("baseline", "canary"):
        found["analysis"].pop(name, None)
        found["arms"][name].pop("open")
    return found


def same(one: Any, other: Any) -> bool:
    """Equal, numbers within rounding: ages are differences of instants."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == (pytest.approx(other) if isinstance(one, float) else other)


@pytest.mark.parametrize("seconds", [0, 5, 60, 295, 300, 900, 2000, 3000, 5000, 9000])
@pytest.mark.parametrize("more", [{}, {"warmup": {"min_requests": 20, "duration": "5m"}, "slo": {"error_rate": 0.02}}])
def test_a_dump_is_json_and_what_it_was_at_any_moment(seconds, more):
    world = World(spec(bake={"duration": "10m"}, **more))
    world.run(seconds)
    dumped = json.loads(json.dumps(world.rollout.dump(world.now_s)))
    again = Rollout.load(dumped, world.rollout.spec, random.Random(9), 17.0)
    assert (again.state, again.weight, again.id) == (world.rollout.state, world.rollout.weight, world.rollout.id)
    assert same(shown(again), shown(world.rollout))
    assert same(again.dump(17.0), dumped)


def test_a_rollout_goes_on_after_a_restart():
    world = World(spec())
    world.run(400)
    evidence = world.rollout.explain()["analysis"]["evidence"]
    world.rollout = Rollout.load(world.rollout.dump(world.now_s), world.rollout.spec, world.rng, 5.0)
    world.now_s = 5.0
    assert world.rollout.explain()["analysis"]["evidence"] == pytest.approx(evidence)
    assert world.run(20_000, State.SUCCEEDED) is State.SUCCEEDED


def test_a_restart_does_not_save_a_bad_canary():
    world = World(spec())
    world.run(300)
    world.does[Arm.CANARY] = (Outcome.OK, 200, 3.0)
    while world.rollout.explain()["analysis"]["evidence"] < 30:
        world.tick()
    world.rollout = Rollout.load(world.rollout.dump(world.now_s), world.rollout.spec, world.rng, world.now_s)
    before = world.sent[Arm.CANARY]
    assert world.run(600, State.ROLLING_BACK) is State.ROLLING_BACK
    assert world.sent[Arm.CANARY] - before < 40


def test_another_spec_is_another_rollout():
    world = World(spec())
    world.run(300)
    other = spec(analysis={"alpha": 0.02})
    again = Rollout.load(world.rollout.dump(world.now_s), other, world.rng, 0.0)
    assert again.state is State.PENDING
    assert again.id != world.rollout.id
    with pytest.raises(ValueError, match="version: None is no dump of a rollout"):
        Rollout.load({}, other, world.rng, 0.0)


def test_sticky_units_stay_where_they_were_over_a_restart():
    world = World(spec(unit="client", epoch="1h"))
    world.run(60)
    units = [f"unit-{i}" for i in range(500)]
    again = Rollout.load(world.rollout.dump(world.now_s), world.rollout.spec, random.Random(9), 3.0)
    assert [again.draw(unit) for unit in units] == [world.rollout.draw(unit) for unit in units]
    assert same(again.dump(3.0), world.rollout.dump(world.now_s))


# --- what is shown --------------------------------------------------------------------------------------------------


def test_one_screen_has_it_all():
    world = World(spec(slo={"ttft_p95": "4s"}))
    world.does[Arm.CANARY] = (Outcome.TRUNCATED, 200, 1.0)
    world.run(15)
    shown = world.rollout.explain()
    assert shown["state"] == "progressing"
    arms, analysis = shown["arms"], shown["analysis"]
    assert arms["canary"]["failed"] == arms["canary"]["started"] == world.sent[Arm.CANARY] > 0
    assert arms["canary"]["error_rate"] == 1.0
    assert arms["baseline"]["error_rate"] == 0.0
    assert len(analysis["baseline"]["ttft_s"]) == len(analysis["quantiles"]) == 5
    assert 0.2 < analysis["baseline"]["ttft_s"][0] < 0.4
    assert analysis["threshold"] == pytest.approx(300)
    assert set(analysis["families"]) == {"ttft", "time_per_chunk", "errors"}
    assert any("canary samples < 50" in each for each in shown["waits_for"])
    assert shown["events"][0]["name"] == "began"
    json.dumps(shown)


# --- several workers ------------------------------------------------------------------------------------------------


def test_workers_who_only_count_and_a_decider_who_reads_all_end_as_one_process_does():
    """Requests split between the decider's own recorder and a worker's decide exactly as all in one."""
    asked = spec(slo={"ttft_p95": "4s", "error_rate": 0.02})
    alone, decider = Rollout(asked, random.Random(3), 0.0), Rollout(asked, random.Random(3), 0.0)
    worker = Recorder(watch_of(asked), decider.plan, 0.0)
    rng = random.Random(4)
    told: list[tuple[list[CanaryEvent], list[CanaryEvent]]] = []
    for tick in range(1, 700):
        for i in range(50):
            now_s = (tick - 1) * TICK_S + i * 0.1
            token = tick * 100 + i
            arm = Arm.CANARY if rng.random() < alone.weight else Arm.BASELINE
            slower = 1.6 if arm is Arm.CANARY and tick > 400 else 1.0
            ttft_s = 0.3 * slower * rng.lognormvariate(0, 0.4)
            outcome = Outcome.OK if rng.random() > 0.01 else Outcome.UPSTREAM_ERROR
            for recorder in (alone, decider if rng.random() < 0.5 else worker):
                recorder.started(token, arm, STREAM, now_s)
                recorder.first_byte(token, now_s + ttft_s)
                recorder.finished(token, outcome, now_s + ttft_s + 1.0, 50, 0.0, 200)
        harvests: list[Harvest] = [worker.harvest(tick * TICK_S)]
        told.append((alone.tick(tick * TICK_S), decider.tick(tick * TICK_S, harvests)))
        worker.follow(decider.plan, tick * TICK_S)
        assert decider.weight == alone.weight
    assert [ours for ours, _ in told] == [theirs for _, theirs in told]
    assert alone.state is State.FAILED
    assert decider.explain() == alone.explain()
    assert isinstance(decider.plan, Plan)
