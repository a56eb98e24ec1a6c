"""Both arms against a promise: what is a shared cause, and what is the canary's alone."""

import random
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.canary.counts import EARLY, SLO_FAILED, SLO_FINE, Counts
from proxy.policy.canary.slo import MULTIPLES, Bake, Excess, Promise, log_factors

ALPHA = 0.01
ROLLBACK = 50_000.0


def counts(baseline_bad: int, baseline: int, canary_bad: int, canary: int) -> Counts:
    found = [0] * (2 * EARLY)
    for at, bad, of in ((0, baseline_bad, baseline), (EARLY, canary_bad, canary)):
        found[at + SLO_FINE] = of
        found[at + SLO_FAILED] = bad
    return found


def promise() -> Promise:
    return Promise("errors", 0.02, 1000, ALPHA)


def pass_by(
    record: Promise, slices: int, baseline_rate: float, canary_rate: float, seed: int = 1, first: int = 0
) -> bool:
    """90 requests of the baseline and 10 of the canary a slice; True if it was to be rolled back on the way."""
    rng = random.Random(seed)
    for number in range(first, first + slices):
        bad = [sum(rng.random() < rate for _ in range(of)) for rate, of in ((baseline_rate, 90), (canary_rate, 10))]
        record.read(number, counts(bad[0], 90, bad[1], 10))
        if record.canary_alone(ROLLBACK):
            return True
    return False


def test_a_bad_request_and_a_good_one_by_hand():
    assert log_factors(0.02, 0.04) == pytest.approx((log(2.0), log(0.96 / 0.98)))


@given(st.floats(0.001, 0.5), st.sampled_from(MULTIPLES))
def test_at_the_promised_rate_the_mean_is_one(promised, multiple):
    believed = min(0.95, promised * multiple)
    bad, good = log_factors(promised, believed)
    assert promised * 2.718281828459045**bad + (1 - promised) * 2.718281828459045**good == pytest.approx(1.0)


def test_a_canary_that_breaks_it_alone_is_rolled_back():
    assert pass_by(promise(), 200, 0.005, 0.2)


@pytest.mark.parametrize("seed", range(10))
def test_a_shared_cause_is_held_and_never_rolled_back_and_over_when_it_is_over(seed):
    record = promise()
    assert not pass_by(record, 500, 0.005, 0.005, seed)
    assert not record.broken(holding=False)
    assert not pass_by(record, 60, 0.3, 0.3, seed, first=500)
    assert record.broken(holding=False)
    assert not pass_by(record, 60, 0.005, 0.005, seed, first=560)
    assert not record.broken(holding=True)


def test_a_canary_that_breaks_it_alone_holds_before_it_is_rolled_back():
    record = promise()
    pass_by(record, 100, 0.019, 0.08)
    assert record.broken(holding=False)
    assert not record.shared


def test_a_dump_goes_on_where_it_was():
    record, again = promise(), promise()
    pass_by(record, 50, 0.02, 0.1)
    again.restore(record.dump(50), 9050)
    pass_by(record, 20, 0.3, 0.3, first=50)
    pass_by(again, 20, 0.3, 0.3, first=9050)
    assert again.dump(9070) == record.dump(70)


def test_capped_evidence_says_that_there_is_a_cause_and_no_more():
    excess = Excess(0.02, 1000, most=100.0)
    excess.read(0, 1000, 0)
    assert 100 <= excess.value <= 401


def test_the_bake_alarms_where_the_promise_is_broken_and_not_where_it_is_kept():
    rng = random.Random(3)
    kept, broken = Bake({"errors": 0.02}, 720), Bake({"errors": 0.02}, 720)
    highest = 0.0
    for number in range(720):
        kept.read(number, counts(0, 0, sum(rng.random() < 0.02 for _ in range(50)), 50))
        broken.read(number, counts(0, 0, sum(rng.random() < 0.06 for _ in range(50)), 50))
        highest = max(highest, kept.value)
    assert highest < 1 / ALPHA < broken.value
    assert Bake({}, 0).value == 1.0
