"""What may be tried again, how many at once, and for how long a key rests."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.retry import LEAST_RETRIES, Budget, BudgetUnused, RetryRule, cooling_s

RULE = RetryRule(attempts=2, on=frozenset((429,)), max_wait_s=2.0)


@pytest.mark.parametrize(
    ("retry_after_s", "wait_s"),
    [
        (0.0, 0.0),
        (0.5, 0.5),
        (2.0, 2.0),
        (2.1, None),
        (math.inf, None),
        (-1.0, 0.0),
        (-math.inf, 0.0),
        (math.nan, None),
    ],
)
def test_a_429_is_waited_out_where_that_is_short(retry_after_s, wait_s):
    assert RULE.wait_s(retry_after_s, 0.0, 10.0) == wait_s


def test_no_wait_reaches_the_deadline():
    assert RULE.wait_s(1.0, 8.9, 10.0) == 1.0
    assert RULE.wait_s(1.0, 9.0, 10.0) is None
    assert RULE.wait_s(0.0, 10.0, 10.0) is None
    assert RULE.wait_s(1.0, 9.0, math.inf) == 1.0


@pytest.mark.parametrize(
    "numbers",
    [
        {"attempts": 0},
        {"max_wait_s": -1.0},
        {"max_wait_s": math.nan},
    ],
)
def test_numbers_that_make_no_rule_are_refused(numbers):
    with pytest.raises(ValueError, match="a retry rule needs"):
        replace(RULE, **numbers)


@pytest.mark.parametrize(
    ("percent", "live", "most"), [(20, 0, 3), (20, 15, 3), (20, 100, 20), (20, 104, 20), (0, 1000, 3), (100, 10, 10)]
)
def test_retries_under_way_are_a_share_of_the_live_requests_and_three_at_least(percent, live, most):
    budget = Budget(percent)
    while budget.allows(live):
        budget.began()
    assert budget.under_way == most


def test_a_retry_that_ended_makes_room():
    budget = Budget()
    for _ in range(LEAST_RETRIES):
        budget.began()
    assert not budget.allows(1)
    budget.ended()
    assert budget.allows(1)


def test_a_retry_ends_once():
    budget = Budget()
    budget.began()
    budget.ended()
    with pytest.raises(BudgetUnused):
        budget.ended()
    assert budget.under_way == 0


@given(st.integers(0, 100), st.lists(st.tuples(st.booleans(), st.integers(0, 200)), max_size=100))
def test_no_order_of_beginnings_and_ends_oversteps_the_budget(percent, steps):
    budget = Budget(percent)
    for begins, live in steps:
        if begins and budget.allows(live):
            budget.began()
            assert budget.under_way <= max(LEAST_RETRIES, live * percent // 100)
        elif not begins and budget.under_way:
            budget.ended()


def test_cooling_doubles_up_to_a_minute():
    assert [cooling_s(refusals, lambda: 1.0) for refusals in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


@given(st.integers(-5, 10**6), st.floats(0, 1, exclude_max=True))
def test_cooling_is_bounded_and_jitters_all_the_way_down(refusals, thrown):
    longest_s = cooling_s(refusals, lambda: 1.0)
    assert 1.0 <= longest_s <= 60.0
    assert cooling_s(refusals, lambda: thrown) == thrown * longest_s
