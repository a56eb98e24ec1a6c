"""The weight follows a rolling mean by bands: each look by hand."""

import random
from itertools import pairwise

import pytest

from proxy.model.outcome import Outcome
from proxy.policy.canary import Arm, CanarySpec, Rollout, State, Stratum
from proxy.policy.canary.bands import Band, Bands, Look, Mean, look

BANDS = Bands(300.0, 300.0, "ttft", 0.1, 0.01, 1.0, (Band(0.05, 0.1), Band(0.1, -0.05)), "alert")
NONE = Mean(None, 0)


@pytest.mark.parametrize(
    ("weight", "mean_s", "after"),
    [
        (0.10, 0.049, 0.20),  # below 50 ms: +10
        (0.95, 0.049, 1.00),  # at most max
        (0.20, 0.050, 0.15),  # not below 50 ms, below 100 ms: -5
        (0.03, 0.099, 0.01),  # at least min
        (0.20, 0.100, 0.20),  # above all bands: as it was
        (0.20, None, 0.20),  # no sample: as it was
    ],
)
def test_the_first_band_above_the_mean_moves_the_weight(weight, mean_s, after):
    mean = Mean(mean_s, 9 if mean_s is not None else 0)
    assert look(BANDS, weight, mean, NONE).weight == pytest.approx(after)


def test_above_all_bands_is_an_alert_or_a_rollback():
    found = look(BANDS, 0.2, Mean(0.123, 9), NONE)
    assert (found.alert, found.rollback) == (
        "the canary's mean 0.123 s of 9 is above all bands, the highest 100ms",
        False,
    )
    strict = Bands(*(getattr(BANDS, name) for name in BANDS.__slots__[:-1]), "rollback")
    assert look(strict, 0.2, Mean(0.123, 9), NONE).rollback


def test_a_baseline_above_all_bands_alerts_as_well():
    assert look(BANDS, 0.2, Mean(0.03, 9), Mean(0.2, 9)) == Look(
        pytest.approx(0.3), "the baseline's mean 0.2 s of 9 is above all bands"
    )


# --- as a rollout ---------------------------------------------------------------------------------------------------

ANALYSIS = {
    "method": "bands",
    "interval": "5m",
    "window": "5m",
    "initial": 10,
    "min": 1,
    "max": 100,
    "bands": [{"below": "50ms", "change": 10}, {"below": "100ms", "change": -5}],
}


def rollout(**more: object) -> Rollout:
    spec = CanarySpec.parse({"baseline": "a", "canary": "b", "analysis": ANALYSIS | more})
    return Rollout(spec, random.Random(1), 0.0)


def serve(canary: Rollout, from_s: float, to_s: float, canary_s: float, baseline_s: float = 0.04) -> None:
    """One request of each arm a second."""
    for second in range(int(from_s), int(to_s)):
        for arm, ttft_s in ((Arm.CANARY, canary_s), (Arm.BASELINE, baseline_s)):
            canary.started(1, arm, Stratum(100, True, "m"), second)
            canary.first_byte(1, second + ttft_s)
            canary.finished(1, Outcome.OK, second + ttft_s + 0.2, 5)


def looks(canary: Rollout, means_s: list[float | None]) -> list[float]:
    """The weight after each of these five minutes."""
    weights = []
    for i, mean_s in enumerate(means_s):
        if mean_s is not None:
            serve(canary, 300.0 * i, 300.0 * (i + 1), mean_s)
        canary.tick(300.0 * (i + 1))
        weights.append(round(canary.weight * 100, 6))
    return weights


def test_it_serves_at_once_at_its_first_weight():
    canary = rollout()
    assert (canary.weight, canary.state) == (0.1, State.PROGRESSING)


def test_the_allocation_by_hand():
    assert looks(rollout(), [0.03, 0.03, 0.07, None, 0.2, 0.03]) == [20, 30, 25, 25, 25, 35]


def test_each_look_leaves_its_report():
    canary = rollout()
    serve(canary, 0.0, 300.0, 0.03)
    began, event = canary.tick(300.0)
    assert (began.name, event.name) == ("began", "evaluated")
    assert event.text == "evaluated: ttft canary 0.03 s of 300, baseline 0.04 s of 300; weight 10 % to 20 %"
    assert (event.numbers["weight_before"], event.numbers["weight"]) == (0.1, pytest.approx(0.2))
    assert canary.explain()["analysis"]["means"]["canary_samples"] == 300


def test_between_two_looks_nothing_moves():
    canary = rollout()
    serve(canary, 0.0, 299.0, 0.03)
    assert [event.name for now_s in range(5, 300, 5) for event in canary.tick(float(now_s))] == ["began"]


def test_the_window_is_the_last_five_minutes():
    canary = rollout(interval="1m")
    serve(canary, 0.0, 300.0, 0.07)
    serve(canary, 300.0, 600.0, 0.03)
    for minute in range(1, 11):
        canary.tick(60.0 * minute)
    assert canary.explain()["analysis"]["means"]["canary_mean_s"] == pytest.approx(0.03)


def test_above_all_bands_alerts_and_where_it_is_asked_for_rolls_back():
    canary = rollout()
    serve(canary, 0.0, 300.0, 0.5)
    assert [event.name for event in canary.tick(300.0)] == ["began", "evaluated", "alert"]
    canary = rollout(otherwise="rollback")
    serve(canary, 0.0, 300.0, 0.5)
    assert [event.name for event in canary.tick(300.0)] == ["began", "evaluated", "alert", "rolled_back"]
    assert canary.weight == 0.0


def test_a_rising_weight_moves_no_unit_back_within_an_epoch():
    spec = CanarySpec.parse({"baseline": "a", "canary": "b", "unit": "client", "analysis": ANALYSIS})
    canary = Rollout(spec, random.Random(1), 0.0)
    units = [f"unit-{i}" for i in range(2000)]
    drawn = []
    for i in range(6):
        drawn.append({unit for unit in units if canary.draw(unit) is Arm.CANARY})
        serve(canary, 300.0 * i, 300.0 * (i + 1), 0.03)
        canary.tick(300.0 * (i + 1))
    assert all(before < after for before, after in pairwise(drawn))


def test_a_dump_keeps_the_weight_and_the_next_look():
    canary = rollout()
    serve(canary, 0.0, 300.0, 0.03)
    canary.tick(300.0)
    again = Rollout.load(canary.dump(400.0), canary.spec, random.Random(2), 7.0)
    assert again.weight == pytest.approx(0.2)
    assert not again.tick(206.0)
    assert [event.name for event in again.tick(207.5)] == ["evaluated"]
