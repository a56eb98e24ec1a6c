"""Whole rollouts as stories: who does what when, and what is told."""

import random
from typing import Any

import pytest

from proxy.model.outcome import Outcome
from proxy.policy.canary import Arm, Rollout, State, Stratum
from tests.support.canary_world import STREAM, TICK_S, World, spec

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
    assert world.rollout.explain()["waits_for"] == ["1 canary requests to end"]
    world.tick()
    assert world.rollout.state is State.FAILED


def test_a_rollback_that_no_request_holds_up_waits_for_a_last_look():
    world = World(spec())
    world.does[Arm.CANARY] = (Outcome.UPSTREAM_ERROR, 500, 0.1)
    world.run(600, State.ROLLING_BACK)
    assert world.rollout.explain()["waits_for"] == ["a last look"]


def test_what_decided_is_shown_after_a_rollback_and_over_a_restart():
    world = World(spec())
    world.does[Arm.CANARY] = (Outcome.UPSTREAM_ERROR, 500, 0.1)
    world.run(600, State.ROLLING_BACK)
    decided = world.events[-1].numbers

    def counts(rollout: Rollout) -> list[dict[str, Any]]:
        arms = rollout.explain()["arms"]
        return [{name: arms[arm][name] for name in decided[arm]} for arm in ("baseline", "canary")]

    assert decided["canary"]["failed"] == world.sent[Arm.CANARY] > 0
    assert counts(world.rollout) == [decided["baseline"], decided["canary"]]
    world.run(60)
    assert world.rollout.state is State.FAILED
    assert counts(world.rollout) == [decided["baseline"], decided["canary"]]
    again = Rollout.load(world.rollout.dump(world.now_s), world.rollout.spec, world.rng, 5.0)
    assert counts(again) == [decided["baseline"], decided["canary"]]
    world.rollout.command("retry", world.now_s)
    assert world.rollout.explain()["arms"]["canary"]["started"] == 0


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


def test_what_is_shown_after_a_command_is_never_of_the_future():
    world = World(spec())
    world.run(60)
    world.rollout.command("pause", world.now_s + 4.0)
    shown = world.rollout.explain()
    assert (shown["state"], shown["since_s"], shown["events"][-1]["ago_s"]) == ("paused", 0.0, 0.0)
