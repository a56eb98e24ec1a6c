"""What operators tell a rollout, when they may, and what comes of it."""

import pytest

from proxy.model.outcome import Outcome
from proxy.policy.canary import Arm, IllegalTransition, State
from tests.support.canary_world import World, spec


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
