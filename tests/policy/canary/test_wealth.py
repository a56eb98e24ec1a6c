"""A bettor's wealth over slices: by hand, and as a fair game."""

from itertools import product
from math import inf, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.canary.wealth import Wealth


def test_half_is_staked_at_once_and_the_rest_drips_in():
    wealth = Wealth(bets=1, slices=100)
    assert wealth.value == 1.0
    wealth.multiply(7, [log(3.0)])
    assert (wealth.sums[0], wealth.cash) == pytest.approx((1.5, 0.5))
    wealth.multiply(8, [log(2.0)])  # 0.005 joins before it is multiplied
    assert (wealth.sums[0], wealth.cash) == pytest.approx((3.01, 0.495))
    assert wealth.value == pytest.approx(3.505)


def test_slices_without_requests_drip_as_well():
    one, other = Wealth(1, 100), Wealth(1, 100)
    for number in range(5):
        one.multiply(number, [0.0 if number not in (0, 4) else log(2.0)])
    for number in (0, 4):
        other.multiply(number, [log(2.0)])
    assert (other.value, other.cash) == pytest.approx((one.value, one.cash))


def test_cash_runs_out_and_no_further():
    wealth = Wealth(1, 10)
    wealth.multiply(0, [0.0])
    wealth.multiply(1000, [0.0])
    assert wealth.cash == 0.0
    assert wealth.value == pytest.approx(1.0)


def test_a_slice_that_comes_late_multiplies_what_is_there():
    wealth = Wealth(1, 100)
    wealth.multiply(5, [log(2.0)])
    wealth.multiply(3, [log(2.0)])
    assert (wealth.value, wealth.cash) == pytest.approx((2.5, 0.5))


def test_bets_share_one_wealth():
    wealth = Wealth(2, 100)
    wealth.multiply(0, [log(4.0), -inf])
    assert wealth.value == pytest.approx(0.5 * (4.0 + 0.0) / 2 + 0.5)


def test_a_bad_night_is_no_overflow_and_a_good_one_no_zero_for_ever():
    wealth = Wealth(1, 1000)
    for number in range(100):
        wealth.multiply(number, [100.0])
    assert wealth.value > 1e200
    wealth = Wealth(1, 1000)
    for number in range(100):
        wealth.multiply(number, [-100.0])
    wealth.multiply(100, [20.0])  # what dripped in last is enough
    assert wealth.value > 1000


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(1, 8))
def test_the_mean_over_fair_coins_is_one(chance, believed, slices):
    """Each slice a coin of `chance`, bet on as if it were of `believed`: all outcomes, weighed by their chance."""
    up, down = log(believed / chance), log((1 - believed) / (1 - chance))
    mean = 0.0
    for outcome in product((True, False), repeat=slices):
        wealth, likelihood = Wealth(1, 10), 1.0
        for number, heads in enumerate(outcome):
            wealth.multiply(number, [up if heads else down])
            likelihood *= chance if heads else 1 - chance
        mean += likelihood * wealth.value
    assert mean == pytest.approx(1.0)


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(-5, 5)), max_size=20), st.integers(0, 1000))
def test_a_dump_goes_on_where_it_was_whatever_the_clock(slices, later):
    wealth, number = Wealth(1, 50), 0
    for gap, log_factor in slices:
        number += gap
        wealth.multiply(number, [log_factor])
    again = Wealth(1, 50)
    again.restore(wealth.dump(number), number + later)
    wealth.multiply(number + 3, [1.0])
    again.multiply(number + later + 3, [1.0])
    assert again.value == wealth.value


def test_another_number_of_bets_is_no_dump_of_it():
    with pytest.raises(ValueError, match="2 bets"):
        Wealth(3, 10).restore(Wealth(2, 10).dump(0), 0)
