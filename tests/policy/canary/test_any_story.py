"""Whatever operators, arms and restarts come up with, a rollout stays one."""

import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model.outcome import Outcome
from proxy.policy.canary import Arm, CanarySpec, IllegalTransition, Rollout, State, Stratum
from proxy.policy.canary.states import TABLE

STEPS = [{"set_weight": 10}, {"pause": {"duration": "2m"}}, {"set_weight": 50}, {"pause": {}}, {"set_weight": 100}]
QUICK = {"min_step_duration": "10s", "max_step_duration": "10m", "min_samples": {"canary": 5, "baseline": 5}}
SPECS = [
    {"steps": STEPS, "analysis": QUICK, "slo": {"error_rate": 0.02}, "bake": {"duration": "1m"}},
    {"steps": STEPS, "analysis": QUICK, "warmup": {"min_requests": 5, "duration": "20s", "max_duration": "1m"}},
    {"steps": STEPS, "analysis": QUICK | {"on_inconclusive": "rollback"}, "unit": "client", "epoch": "2m"},
    {"steps": STEPS, "analysis": {"method": "none", "min_step_duration": "20s"}},
    {"weight": 20},
    {"analysis": {"method": "bands", "interval": "30s", "window": "1m", "bands": [{"below": "1s", "change": 30}]}},
]
NOTHING = {State.PENDING, State.ROLLING_BACK, State.FAILED, State.ABORTED}
ALL = {State.PROMOTING, State.BAKING, State.SUCCEEDED}
COMMANDS = ("pause", "resume", "abort", "promote", "full", "retry", "weight")

actions = st.lists(
    st.one_of(
        st.sampled_from(COMMANDS),
        st.just("restart"),
        st.tuples(st.sampled_from((Outcome.OK, Outcome.TIMEOUT)), st.booleans(), st.sampled_from((1, 12, 80))),
    ),
    max_size=25,
)


def tell(rollout: Rollout, action: str, now_s: float) -> None:
    args: dict[str, Any] = {"weight": {"weight": 30}, "full": {"full": True, "reason": "test"}}.get(action, {})
    before = rollout.dump(now_s)
    try:
        rollout.command("promote" if action == "full" else action, now_s, **args)
    except IllegalTransition:
        assert rollout.dump(now_s) == before


def serve(rollout: Rollout, first: int, now_s: float, outcome: Outcome, both: bool) -> None:
    """A tick's worth of requests; where not both arms are that bad, the canary is."""
    for i in range(20):
        unit = f"unit-{i % 7}"
        arm = rollout.draw(unit)
        rollout.started(first + i, arm, Stratum(100 * i, i % 3 > 0, "m"), now_s + i * 0.2, unit)
        rollout.first_byte(first + i, now_s + i * 0.2 + 0.1)
        bad = both or arm is Arm.CANARY
        rollout.finished(first + i, outcome if bad else Outcome.OK, now_s + i * 0.2 + 0.5, 10)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(SPECS), actions, st.integers(0, 5))
def test_its_weight_is_that_of_its_state_and_its_states_follow_the_table(more, story, seed):
    spec = CanarySpec.parse({"baseline": "a", "canary": "b"} | more)
    rng = random.Random(seed)
    rollout, now_s, token = Rollout(spec, rng, 50.0), 50.0, 0
    follows = {(before, after) for (before, _), after in TABLE.items()}
    for action in story:
        before = rollout.state
        if action == "restart":
            dumped = json.loads(json.dumps(rollout.dump(now_s)))
            rollout, now_s = Rollout.load(dumped, spec, rng, 3.0), 3.0
            assert rollout.state is before
        elif isinstance(action, str):
            tell(rollout, action, now_s)
        else:
            outcome, both, ticks = action
            for _ in range(ticks):
                before = rollout.state
                serve(rollout, token, now_s, outcome, both)
                token, now_s = token + 20, now_s + 5.0
                rollout.tick(now_s)
                assert rollout.state is before or reachable(follows, before, rollout.state)
        assert 0.0 <= rollout.weight <= 1.0
        assert (rollout.weight == 0.0) == (rollout.state in NOTHING)
        if "bands" not in str(more):
            assert (rollout.weight == 1.0) == (rollout.state in ALL)
        json.dumps(rollout.explain())


def reachable(follows: set[tuple[State, State]], before: State, after: State) -> bool:
    """In one tick, so in few transitions."""
    reached = {before}
    for _ in range(3):
        reached |= {to for at, to in follows if at in reached}
    return after in reached
