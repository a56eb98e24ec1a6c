"""Ejection and return of a member that fails, as a story told in seconds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model.outcome import Outcome
from proxy.policy.outlier import FAILURES, Ejection, Record

RULE = Ejection()


def fail(record: Record, now_s: float, times: int = 1, *, rule: Ejection = RULE, ejected_now: int = 0, of: int = 4):
    """Requests that begin and fail at `now_s`. The last one's verdict."""
    return [rule.failed(record, now_s, now_s, ejected_now, of) for _ in range(times)][-1]


def ejected(now_s: float = 0.0, rule: Ejection = RULE) -> Record:
    record = Record()
    assert fail(record, now_s, rule.consecutive_failures, rule=rule)
    return record


def test_a_new_member_is_in():
    record = Record()
    assert not record.is_out(0.0)
    assert not record.returned(0.0)


def test_failures_in_a_row_eject():
    record = Record()
    assert not fail(record, 0.0, 4)
    assert not record.is_out(0.0)
    assert fail(record, 1.0)
    assert record.is_out(1.0)
    assert record.is_out(30.9)
    assert not record.is_out(31.0)


def test_an_answer_between_begins_the_count_anew():
    record = Record()
    fail(record, 0.0, 4)
    record.succeeded(0.0)
    assert not fail(record, 0.0, 4)
    assert fail(record, 0.0)


@pytest.mark.parametrize("outcome", Outcome)
def test_only_what_the_upstream_did_counts(outcome):
    innocent = {Outcome.OK, Outcome.KEY_REFUSED, Outcome.RATE_LIMITED, Outcome.CLIENT_GONE, Outcome.STOPPED}
    innocent |= {Outcome.HEDGED}
    assert (outcome in FAILURES) != (outcome in innocent)


def test_late_failures_do_not_prolong_it():
    record = ejected()
    assert not fail(record, 10.0, 100)
    assert not record.is_out(30.0)


def test_one_failure_after_the_return_ejects_again_for_twice_as_long():
    record = ejected()
    assert fail(record, 30.0)
    assert record.is_out(89.9)
    assert not record.is_out(90.0)


def test_one_answer_after_the_return_gives_a_fresh_count():
    record = ejected()
    record.succeeded(30.0)
    assert not fail(record, 31.0, 4)
    assert fail(record, 31.0)


def test_what_was_sent_before_the_return_is_no_evidence():
    record = ejected()
    assert not RULE.failed(record, began_s=29.9, now_s=600.0, ejected_now=0, of=4)
    record.succeeded(29.9)
    assert fail(record, 600.0)


def test_time_doubles_to_the_longest_and_no_further():
    record, now_s, times = ejected(), 30.0, []
    for _ in range(5):
        assert fail(record, now_s)
        times.append(record.out_until_s - now_s)
        now_s = record.out_until_s
    assert times == [60, 120, 240, 300, 300]


@pytest.mark.parametrize(("base_s", "longest_s"), [(1, 300), (30, 300), (60, 600)])
def test_longest_is_five_minutes_or_ten_bases(base_s, longest_s):
    rule = Ejection(base_s=base_s)
    record = ejected(rule=rule)
    for _ in range(1200):
        now_s = record.out_until_s
        assert fail(record, now_s, rule=rule)
    assert record.out_until_s == now_s + longest_s


@pytest.mark.parametrize(("served_s", "next_s"), [(0, 120), (29.9, 120), (30, 60), (60, 30), (1e9, 30)])
def test_each_base_time_in_service_takes_one_doubling_back(served_s, next_s):
    record = ejected()
    assert fail(record, 30.0)
    now_s = record.out_until_s + served_s
    assert fail(record, now_s)
    assert record.out_until_s == now_s + next_s


def test_after_the_longest_time_one_base_in_service_is_felt():
    record = ejected()
    for _ in range(50):
        assert fail(record, record.out_until_s)
    now_s = record.out_until_s + 30.0
    assert fail(record, now_s)
    assert record.out_until_s == now_s + 240


def test_its_return_is_told_once_for_each_ejection():
    record = ejected()
    assert [record.returned(now_s) for now_s in (0.0, 29.9, 30.0, 31.0)] == [False, False, True, False]
    fail(record, 40.0)
    assert [record.returned(now_s) for now_s in (40.0, 1000.0, 1001.0)] == [False, True, False]


def test_a_return_that_nobody_asked_about_is_not_told_later():
    record = ejected()
    fail(record, 30.0)
    assert not record.returned(31.0)


@pytest.mark.parametrize(
    ("percent", "of", "room"),
    [(50, 0, 0), (50, 1, 0), (100, 1, 0), (0, 2, 1), (50, 2, 1), (50, 3, 1), (50, 4, 2), (10, 19, 1), (100, 3, 3)],
)
def test_so_many_may_be_out(percent, of, room):
    assert Ejection(max_ejected_percent=percent).room(of) == room


def test_one_alone_is_never_ejected():
    record = Record()
    assert not fail(record, 0.0, 100, of=1)
    assert not record.is_out(0.0)


def test_where_there_is_no_room_the_next_failure_asks_again():
    record = Record()
    assert not fail(record, 0.0, 7, ejected_now=2)
    assert fail(record, 1.0, ejected_now=1)


def test_a_health_check_brings_it_back_with_a_fresh_count_and_its_past():
    record = ejected()
    record.cleared(10.0)
    assert not record.is_out(10.0)
    assert record.returned(10.0)
    assert not fail(record, 10.0, 4)
    assert fail(record, 10.0)
    assert record.out_until_s == 70.0


def test_a_health_check_of_one_that_is_in_changes_only_its_count():
    record = Record()
    fail(record, 0.0, 4)
    record.cleared(1.0)
    assert record.failures == 0
    assert record.out_until_s == -math.inf


def test_a_single_failure_may_be_enough():
    rule = Ejection(consecutive_failures=1)
    record = ejected(rule=rule)
    record.succeeded(30.0)
    assert fail(record, 31.0, rule=rule)


@pytest.mark.parametrize(
    "numbers",
    [
        {"consecutive_failures": 0},
        {"base_s": 0.0},
        {"base_s": math.nan},
        {"base_s": math.inf},
        {"max_ejected_percent": -1},
        {"max_ejected_percent": 101},
    ],
)
def test_numbers_that_make_no_rule_are_refused(numbers):
    with pytest.raises(ValueError, match="an ejection needs"):
        Ejection(**numbers)


@given(
    st.builds(
        Ejection,
        consecutive_failures=st.integers(1, 5),
        base_s=st.floats(0.1, 100),
        max_ejected_percent=st.integers(0, 100),
    ),
    st.lists(
        st.tuples(st.integers(0, 3), st.floats(0, 50), st.floats(0, 100), st.sampled_from(["ok", "failed", "check"])),
        max_size=60,
    ),
)
def test_whatever_happens_the_rule_is_kept(rule, events):
    records = [Record() for _ in range(4)]
    now_s = 0.0
    for member, passes_s, lasted_s, event in events:
        now_s += passes_s
        record, began_s = records[member], now_s - lasted_s
        out = sum(one.is_out(now_s) for one in records)
        was_out, until_s = record.is_out(now_s), record.out_until_s
        if event == "ok":
            record.succeeded(began_s)
            assert record.out_until_s == until_s
        elif event == "check":
            record.cleared(now_s)
            assert not record.is_out(now_s)
        elif rule.failed(record, began_s, now_s, out, 4):
            assert not was_out
            assert began_s >= until_s
            assert rule.base_s <= record.out_until_s - now_s + 1e-6
            assert record.out_until_s - now_s <= rule.longest_s + 1e-6
        else:
            assert record.out_until_s == until_s
        assert sum(one.is_out(now_s) for one in records) <= rule.room(4)
