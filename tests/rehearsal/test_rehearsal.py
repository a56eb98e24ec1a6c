"""Whole rollouts in made-up time, few of each kind; bench/canary.py plays a hundred."""

from typing import Any

import pytest

from proxy.policy.canary import CanarySpec
from proxy.rehearsal.run import Moment, Rehearsal, timeline
from proxy.rehearsal.scenario import Behaviour, Scenario

SEEDS = range(3)


def spec(weights: list[int], **more: Any) -> CanarySpec:
    steps = [{"set_weight": weight} for weight in weights]
    return CanarySpec.parse({"baseline": "a", "canary": "b", "steps": steps} | more)


def last(asked: CanarySpec, scenario: dict[str, Any], seed: int) -> Moment:
    """Where it ends, or where it is rolled back."""
    *_, moment = Rehearsal(asked, Scenario.parse({"before": "10m"} | scenario), seed).play()
    return moment


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("canary", "most_requests"),
    [({"latency": 2}, 90), ({"fast_failures": 0.2}, 150), ({"hangs": 1}, 60), ({"errors": 0.1}, 250)],
    ids=lambda each: str(each),
)
def test_a_bad_canary_is_rolled_back_soon(canary, most_requests, seed):
    moment = last(spec([10, 100]), {"canary": canary, "duration": "1h"}, seed)
    assert moment.state == "failed"
    assert moment.sent[1] <= most_requests


def test_a_good_canary_is_promoted():
    moment = last(spec([10, 50, 100]), {"duration": "6h"}, 1)
    assert (moment.state, moment.weight) == ("succeeded", 1.0)


def test_noise_in_both_arms_is_nobodys_fault():
    noise = {"burst_every": "10m", "burst": "2m", "follows_weight": 1}
    moment = last(spec([25, 100], slo={"ttft_p95": "4s", "error_rate": 0.02}), {"noise": noise, "duration": "90m"}, 1)
    assert moment.state in ("progressing", "holding", "succeeded")


@pytest.mark.parametrize("seed", SEEDS)
def test_clients_who_all_get_404_are_seen_within_their_epoch(seed):
    asked = spec([10, 100], unit="client", epoch="1h")
    moment = last(asked, {"clients": 400, "canary": {"refuses": 1}, "duration": "1h"}, seed)
    assert moment.state == "failed"
    assert moment.now_s < 1200


def test_one_heavy_client_who_is_slow_by_nature_is_no_fault_of_the_canary():
    asked = spec([20, 100], unit="client", epoch="10m")
    moment = last(asked, {"clients": 20, "zipf": 3, "duration": "3h"}, 2)
    assert moment.state in ("progressing", "succeeded")


def test_the_same_seed_is_the_same_story():
    one, other = (list(Rehearsal(spec([10, 100]), Scenario.parse({"duration": "10m"}), 7).play()) for _ in range(2))
    assert one == other
    assert sum(one[-1].sent) > 5000


def test_before_it_begins_all_goes_to_the_baseline():
    moment = next(Rehearsal(spec([10, 100]), Scenario.parse({"before": "10m"}), 7).play())
    assert moment.now_s == 605.0
    assert moment.sent[1] == 0 < 5000 < moment.sent[0]


def test_a_timeline_has_a_line_for_each_event():
    asked = spec([10, 100], analysis={"method": "none", "min_step_duration": "2m"})
    first, second, third = timeline(Rehearsal(asked, Scenario(), 1).play())
    assert first == "    0.0 min   10.0%  began: from 0 % to 10 %; no warm-up"
    assert second.startswith("    2.0 min  100.0%  promoted: ")
    assert "succeeded" in third


def test_a_scenario_is_read_whole():
    scenario = Scenario.parse(
        {
            "per_minute": 60,
            "duration": "2h",
            "clients": 5,
            "canary": {"latency": 1.25, "fast_failures": 0.2},
            "noise": {"diurnal": 0.5},
        }
    )
    assert (scenario.per_minute, scenario.duration_s, scenario.clients) == (60.0, 7200.0, 5)
    assert scenario.canary == Behaviour(latency=1.25, fast_failures=0.2)
    assert scenario.noise.diurnal == 0.5


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"canary": {"latency": "slow"}}, "canary.latency: Input should be a valid number"),
        ({"canary": {"erors": 0.1}}, "canary.erors: Extra inputs are not permitted"),
        ({"per_minute": 0}, "per_minute: Input should be greater than or equal to 0.001"),
        ({"noise": 3}, "noise: Input should be a valid dictionary"),
    ],
)
def test_what_is_wrong_in_a_scenario_is_named(mapping, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        Scenario.parse(mapping)
    assert str(error.value).startswith(message)
