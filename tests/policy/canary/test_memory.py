"""Where units stay, what survives a restart, what a screen shows, and what workers share."""

import json
import random
from typing import Any

import pytest

from proxy.model.outcome import Outcome
from proxy.policy.canary import Arm, CanaryEvent, CanarySpec, Rollout, State
from proxy.policy.canary.counts import Harvest
from proxy.policy.canary.enrolment import watch_of
from proxy.policy.canary.plan import Plan
from proxy.policy.canary.recorder import Recorder
from tests.support.canary_world import STREAM, TICK_S, World, spec

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


def test_a_rollout_that_is_over_grows_older_and_what_it_found_does_not():
    world = World(spec())
    world.does[Arm.CANARY] = (Outcome.UPSTREAM_ERROR, 500, 0.1)
    world.run(600, State.FAILED)
    then, later = world.rollout.explain(), world.rollout.explain(world.now_s + 60.0)
    assert (then["state"], then["since_s"], later["since_s"]) == ("failed", 0.0, 60.0)
    assert [each["ago_s"] - 60.0 for each in later["events"]] == [each["ago_s"] for each in then["events"]]
    assert (later["analysis"], later["arms"]) == (then["analysis"], then["arms"])


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
