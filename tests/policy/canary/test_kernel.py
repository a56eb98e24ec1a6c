"""One request's evidence, by hand, and what it is worth on average where the canary is no worse."""

from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.canary.kernel import Cells, believe, cells, not_worse, worse

weights = st.floats(0.001, 0.999)
rates = st.floats(0.001, 0.999)
deltas = st.floats(0.0, 0.5)


def mean_factor(bets: Cells, weight: float, canary: float, baseline: float) -> float:
    """Of one request, where the arms are bad at these rates."""
    return (
        weight * canary * exp(bets.canary_bad)
        + weight * (1 - canary) * exp(bets.canary_good)
        + (1 - weight) * baseline * exp(bets.baseline_bad)
        + (1 - weight) * (1 - baseline) * exp(bets.baseline_good)
    )


def test_a_tenth_of_requests_and_a_twentieth_of_them_slow():
    # P1 = 2.5 * .05 / (.95 + .125) = .11628; q1 = .011628 / .056628; q0 = .088372 / .943372
    bets = worse(weight=0.1, rate=0.05, odds=2.5)
    assert bets == pytest.approx((log(2.0533881), log(0.9367681), log(0.8829569), log(1.0070258)), abs=1e-6)


def test_a_tolerance_is_paid_by_every_request():
    # q1 - q0 = .2053388 - .0936768 = .111662; ln(1 + .01 * .111662) = .00111600
    plain, tolerant = worse(0.1, 0.05, 2.5), worse(0.1, 0.05, 2.5, delta=0.01)
    assert [a - b for a, b in zip(plain, tolerant, strict=True)] == pytest.approx([0.0011160] * 4, abs=1e-7)


def test_a_proof_of_no_harm_by_hand():
    # w .5, canary .01, baseline .02: q1 = .01/.03 = .33333, q0 = .99/1.97 = .502538; caution .3 moves both to
    # .45 and .5007614; ln(1 - .01 * .0507614) = -.000507743
    bets = not_worse(0.5, (0.01, 0.02), caution=0.3, delta=0.01)
    expected = (log(0.9), log(1.0015228), log(1.1), log(0.9984772))
    assert bets == pytest.approx([each + 0.000507743 for each in expected], abs=1e-6)


@given(weights, rates, rates)
def test_equal_rates_say_nothing_of_the_label(weight, rate, other):
    assert believe(weight, rate, rate) == pytest.approx((weight, weight))
    belief = believe(weight, rate, other)
    assert (belief.q1 >= weight >= belief.q0) == (rate >= other) or rate == pytest.approx(other)


@given(weights, rates, rates, rates, st.sampled_from((1.2, 1.5, 2.5, 6.0, 25.0)), deltas)
def test_a_canary_that_is_no_worse_makes_nobody_rich(weight, rate, canary, baseline, odds, delta):
    canary = min(canary, baseline + delta)
    assert mean_factor(worse(weight, rate, odds, delta), weight, canary, baseline) <= 1 + 1e-9


@given(weights, rates, rates, rates, st.sampled_from((0.9, 0.75, 0.5, 0.25)))
def test_a_canary_that_is_slower_is_not_proved_to_be_as_fast(weight, rate, canary, baseline, odds):
    canary, baseline = max(canary, baseline), min(canary, baseline)
    assert mean_factor(worse(weight, rate, odds), weight, canary, baseline) <= 1 + 1e-9


@given(weights, st.floats(0.001, 0.2), rates, rates, st.sampled_from((0.1, 0.3, 1.0)), st.floats(0.001, 0.5))
def test_a_canary_that_fails_more_is_not_proved_to_fail_as_seldom(weight, rate, canary, baseline, caution, delta):
    canary = min(1.0, max(canary, baseline + delta))
    baseline = min(baseline, canary - delta)
    for design in ((rate, rate + delta), (rate / 2, rate + delta), (rate + 0.3 * delta, rate + delta)):
        bets = not_worse(weight, design, caution, delta)
        assert mean_factor(bets, weight, canary, max(0.0, baseline)) <= 1 + 1e-9


@pytest.mark.parametrize("weight", [0.0, 1.0, -0.1])
def test_one_arm_alone_is_no_bet(weight):
    with pytest.raises(ValueError, match="needs two arms"):
        cells(weight, believe(0.5, 0.1, 0.2))
