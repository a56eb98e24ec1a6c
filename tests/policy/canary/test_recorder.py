"""What is seen of requests becomes counts: once, in the right place, and in the end whatever becomes of them."""

import pytest

from proxy.model.outcome import Outcome
from proxy.policy.canary.counts import (
    CHUNK,
    EARLY_S,
    EARLY_TTFT,
    LATE_S,
    LATE_TTFT,
    NEXT_RANKS,
    SLICE_S,
    SMOOTH,
    STALLED,
    tallied,
)
from proxy.policy.canary.metrics import tails
from tests.support.canary_requests import (
    BASELINE,
    CANARY,
    LIMITS,
    STREAM,
    WHOLE,
    closed,
    early,
    late,
    recorder,
    serve,
)

# --- latencies ------------------------------------------------------------------------------------------------------


def test_a_wait_is_ranked_by_its_arms_thresholds():
    record = recorder()
    serve(record, 1, BASELINE, 0.0, ttft_s=3.5, took_s=4.0)
    serve(record, 2, CANARY, 0.0, ttft_s=3.5, took_s=4.0)
    found = closed(record)
    assert early(found, False, EARLY_TTFT, 6) == [0, 0, 0, 1, 0, 0]  # above 1, 2 and 3 s
    assert early(found, True, EARLY_TTFT, 6) == [0, 1, 0, 0, 0, 0]  # above 2 s
    assert early(found, False, EARLY_TTFT + NEXT_RANKS, 3) == [0, 1, 0]  # above 2 s, not above 6 s
    assert early(found, True, EARLY_TTFT + NEXT_RANKS, 3) == [0, 1, 0]  # above 3 s, not above 9 s


def test_exactly_the_threshold_is_not_above_it():
    record = recorder()
    serve(record, 1, BASELINE, 0.0, ttft_s=3.0, took_s=4.0)
    assert early(closed(record), False, EARLY_TTFT, 6) == [0, 0, 1, 0, 0, 0]


def test_an_answer_that_is_not_streamed_waits_until_its_end():
    record = recorder()
    record.started(1, BASELINE, WHOLE, 0.0)
    record.finished(1, Outcome.OK, 2.5, 0, 0.0, 200)
    found = closed(record)
    assert early(found, False, EARLY_TTFT, 6) == [0, 0, 1, 0, 0, 0]
    assert late(found, False, CHUNK, 18) == [0] * 18


def test_time_per_chunk_is_from_the_first_byte_to_the_last():
    record = recorder()
    serve(record, 1, BASELINE, 0.0, ttft_s=5.0, took_s=7.5, chunks=10)  # .25 s
    assert late(closed(record), False, CHUNK, 6) == [0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize(
    "outcome",
    [Outcome.UPSTREAM_ERROR, Outcome.TIMEOUT, Outcome.TRUNCATED, Outcome.RATE_LIMITED, Outcome.STALLED],
)
def test_what_failed_waited_for_ever_however_fast_it_was(outcome):
    record = recorder()
    serve(record, 1, CANARY, 0.0, ttft_s=0.01, took_s=0.03, outcome=outcome)
    found = closed(record)
    assert early(found, True, 0, 2) == late(found, True, 0, 2) == [0, 1]
    assert early(found, True, EARLY_TTFT, 9) == [0, 0, 0, 0, 0, 1, 0, 0, 1]
    assert late(found, True, CHUNK, 9) == [0, 0, 0, 0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("status", "waited_for_ever"), [(408, True), (429, True), (500, True), (404, False), (400, False)]
)
def test_a_status_says_more_than_that_the_answer_was_whole(status, waited_for_ever):
    record = recorder()
    serve(record, 1, CANARY, 0.0, ttft_s=0.01, took_s=0.03, status=status)
    found = closed(record)
    assert early(found, True, 0, 2) == [0, 1]
    assert early(found, True, EARLY_TTFT, 6) == ([0, 0, 0, 0, 0, 1] if waited_for_ever else [1, 0, 0, 0, 0, 0])


def test_a_refused_key_is_an_error_of_its_arm():
    record = recorder()
    serve(record, 1, CANARY, 0.0, outcome=Outcome.KEY_REFUSED, status=401)
    assert early(closed(record), True, 0, 2) == [0, 1]


@pytest.mark.parametrize("outcome", [Outcome.CLIENT_GONE, Outcome.STOPPED, Outcome.HEDGED])
def test_who_left_waiting_counts_only_where_the_wait_was_too_long_already(outcome):
    record = recorder()
    record.started(1, BASELINE, STREAM, 0.0)
    record.finished(1, outcome, 3.5, 0, 0.0, 200)
    found = closed(record)
    assert early(found, False, 0, 2) == [0, 0]
    assert tails(found.early[0], EARLY_TTFT, 5) == [(1, 0), (1, 0), (1, 0), (0, 0), (0, 0)]
    assert late(found, False, CHUNK, 18) == [0] * 18


def test_who_left_reading_had_a_wait_and_has_the_chunks_that_came():
    record = recorder()
    serve(record, 1, BASELINE, 0.0, ttft_s=0.5, took_s=3.0, chunks=10, outcome=Outcome.CLIENT_GONE)  # .25 s
    found = closed(record)
    assert early(found, False, EARLY_TTFT, 6) == [1, 0, 0, 0, 0, 0]
    assert tails(found.late[0], CHUNK, 5) == [(1, 0), (1, 0), (0, 0), (0, 0), (0, 0)]
    assert late(found, False, 0, 4) == [0, 0, 0, 0]


def test_waits_that_are_long_by_nature_are_counted_late():
    record = recorder(LIMITS._replace(late=True))
    serve(record, 1, BASELINE, 0.0, ttft_s=3.5, took_s=4.0)
    found = closed(record)
    assert early(found, False, EARLY_TTFT, 18) == [0] * 18
    assert late(found, False, LATE_TTFT, 6) == [0, 0, 0, 1, 0, 0]


# --- what is still running ------------------------------------------------------------------------------------------


def test_a_slice_closes_at_its_lag_and_once():
    record = recorder()
    serve(record, 1, BASELINE, 4.0)
    assert not closed(record, SLICE_S + EARLY_S - 0.1).early
    assert list(closed(record, SLICE_S + EARLY_S).early) == [0]
    found = closed(record, SLICE_S + LATE_S)
    assert (list(found.early), list(found.late)) == ([], [0])


def test_what_hangs_is_judged_by_its_age():
    record = recorder()
    record.started(1, BASELINE, STREAM, 0.0)
    record.started(2, CANARY, STREAM, 3.0)
    found = closed(record, 20.0)
    assert early(found, False, EARLY_TTFT, 6) == early(found, True, EARLY_TTFT, 6) == [0, 0, 0, 0, 0, 1]
    assert early(found, True, 0, 2) == [1, 0]  # no error yet


def test_what_was_judged_by_its_age_is_not_judged_again():
    record = recorder()
    record.started(1, CANARY, STREAM, 0.0)
    closed(record, 20.0)
    record.finished(1, Outcome.TIMEOUT, 60.0, 0, 0.0, 200)
    found = closed(record)
    assert not found.early
    assert late(found, True, 0, 2) == [0, 1]  # the late failure


def test_a_stream_that_is_open_for_five_minutes_is_slow_and_forgotten():
    record = recorder()
    record.started(1, CANARY, STREAM, 0.0)
    record.first_byte(1, 0.5)
    found = closed(record)
    assert late(found, True, CHUNK, 9) == [0, 0, 0, 0, 0, 1, 0, 0, 1]
    assert late(found, True, 0, 3) == [1, 0, 1]
    assert found.open == [0, 0]
    record.finished(1, Outcome.OK, 400.0, 1000, 0.0, 200)
    assert not closed(record, 1000.0).late


def test_the_baseline_is_slow_sooner_by_the_tolerance():
    record = recorder()
    serve(record, 1, BASELINE, 0.0, took_s=151.0, chunks=10_000)
    serve(record, 2, CANARY, 0.0, took_s=299.0, chunks=10_000)
    found = closed(record)
    assert late(found, False, CHUNK, 6) == [0, 0, 0, 0, 0, 1]
    assert late(found, True, CHUNK, 6) == [1, 0, 0, 0, 0, 0]


def test_no_tick_for_an_hour_loses_nothing():
    record = recorder()
    for i in range(600):
        serve(record, i, BASELINE, 6.0 * i)
    found = closed(record, 4000.0)
    assert sum(counts[0] for counts in found.early.values()) == 600
    assert sum(counts[0] for counts in found.late.values()) == 600


# --- stalls ---------------------------------------------------------------------------------------------------------


def test_a_stall_is_told_or_measured():
    record = recorder()
    for token in (1, 2, 3):
        record.started(token, CANARY, STREAM, 0.0)
        record.first_byte(token, 0.5)
    record.stalled(1)
    record.finished(1, Outcome.OK, 40.0, 10, 0.0, 200)
    record.finished(2, Outcome.OK, 40.0, 10, 15.1, 200)
    record.finished(3, Outcome.OK, 40.0, 10, 15.0, 200)
    assert late(closed(record), True, SMOOTH, 2) == [1, 2]


def test_a_stall_that_made_its_caller_leave_is_one_and_a_caller_who_just_left_is_none():
    record = recorder()
    record.started(1, CANARY, STREAM, 0.0)
    record.stalled(1)
    record.finished(1, Outcome.CLIENT_GONE, 40.0, 0, 0.0, 200)
    serve(record, 2, CANARY, 0.0, outcome=Outcome.CLIENT_GONE)
    assert late(closed(record), True, SMOOTH, 2) == [0, 1]
    assert STALLED == SMOOTH + 1


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_a_token_comes_again_once_it_has_ended():
    record = recorder()
    serve(record, 1, BASELINE, 0.0)
    serve(record, 1, CANARY, 2.0)
    found = closed(record)
    assert (early(found, False, 0, 1), early(found, True, 0, 1)) == ([1], [1])


def test_what_is_told_twice_counts_once():
    record = recorder()
    for _ in range(2):
        record.started(1, BASELINE, STREAM, 0.0)
    record.first_byte(1, 0.5)
    record.first_byte(1, 4.5)
    for _ in range(2):
        record.finished(1, Outcome.OK, 5.0, 10, 0.0, 200)
    found = closed(record)
    assert early(found, False, EARLY_TTFT, 6) == [1, 0, 0, 0, 0, 0]
    assert tallied(found.tally, canary=False)["started"] == 1


def test_what_was_never_started_is_passed_over():
    record = recorder()
    record.first_byte(7, 1.0)
    record.stalled(7)
    record.finished(7, Outcome.OK, 2.0, 0, 0.0, 200)
    assert not closed(record).early
