"""What may be tried again, how many at once, and for how long a key rests."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.retry import CONNECT, LEAST_RETRIES, RESET, TIMEOUT, Budget, BudgetUnused, RetryRule, cooling_s

RULE = RetryRule()
KINDS = st.sampled_from([CONNECT, RESET, TIMEOUT, 400, 401, 404, 408, 429, 500, 502, 503, 504, 529])


def may_retry(kind, *, rule=RULE, tries_made=1, body_kept=True, now_s=0.0, deadline_s=10.0):
    return rule.may_retry(kind, tries_made, body_kept, now_s, deadline_s)


@pytest.mark.parametrize("kind", [CONNECT, 429, 502, 503, 504])
def test_what_left_nothing_done_is_tried_again(kind):
    assert may_retry(kind)


@pytest.mark.parametrize("kind", [RESET, TIMEOUT])
def test_what_may_be_billed_twice_is_tried_again_only_where_the_rule_names_it(kind):
    assert not may_retry(kind)
    assert may_retry(kind, rule=RetryRule(on=frozenset((kind,))))


@pytest.mark.parametrize("status", [200, 400, 401, 404, 500])
def test_other_statuses_are_the_callers(status):
    assert not may_retry(status)


def test_attempts_are_tries_in_all():
    assert not may_retry(CONNECT, tries_made=2)
    assert not may_retry(CONNECT, rule=RetryRule(attempts=1))
    assert may_retry(CONNECT, rule=RetryRule(attempts=3), tries_made=2)


def test_a_body_that_is_gone_cannot_be_sent_again():
    assert not may_retry(CONNECT, body_kept=False)


def test_nothing_is_tried_at_or_after_the_deadline():
    assert not may_retry(CONNECT, now_s=10.0)
    assert may_retry(CONNECT, now_s=1e9, deadline_s=math.inf)


@given(
    st.builds(RetryRule, attempts=st.integers(1, 10), on=st.frozensets(KINDS)),
    st.lists(KINDS, min_size=10, max_size=10),
)
def test_a_request_is_never_tried_more_often_than_the_rule_says(rule, failures):
    tries = 1
    while tries < 11 and may_retry(failures[tries - 1], rule=rule, tries_made=tries):
        tries += 1
    assert tries <= rule.attempts


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
        {"budget_percent": -1},
        {"budget_percent": 101},
        {"max_wait_s": -1.0},
        {"max_wait_s": math.nan},
    ],
)
def test_numbers_that_make_no_rule_are_refused(numbers):
    with pytest.raises(ValueError, match="a retry rule needs"):
        RetryRule(**numbers)


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
