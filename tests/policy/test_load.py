from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.load import (
    DECAY_S,
    FAILURE_PENALTY,
    MOST_PENALTY,
    Load,
    Seat,
    estimated_work,
    least_request,
    least_work,
    peak_ewma,
)

METRICS = [least_request, least_work, peak_ewma]
waits_s = st.floats(0.001, 100.0)
moments_s = st.floats(0.0, 1000.0)


def answered(load: Load, now_s: float, wait_s: float | None, output_bytes: int = 0) -> None:
    load.began(1.0)
    load.ended(1.0, now_s, wait_s, False, output_bytes)


def failed(load: Load, now_s: float) -> None:
    load.began(1.0)
    load.ended(1.0, now_s, None, True, 0)


def seat(load: Load, owed: int = 0, scale: float = 1.0) -> Seat:
    made = Seat(load)
    made.owed, made.scale = owed, scale
    return made


@given(st.lists(st.floats(0.1, 1e9), min_size=1, max_size=20), st.randoms())
def test_work_and_requests_are_back_at_nothing_when_all_have_ended(costs, dice):
    load = Load()
    for cost in costs:
        load.began(cost)
    assert load.inflight == len(costs)
    assert load.work == pytest.approx(sum(costs))
    dice.shuffle(costs)
    for cost in costs:
        load.ended(cost, 0.0, None, False, 0)
    assert (load.inflight, load.work) == (0, 0.0)


@given(waits_s, waits_s, st.floats(0.0, 100.0))
def test_a_peak_counts_at_once_and_a_valley_by_the_time_that_passed(before_s, wait_s, passed_s):
    load = Load()
    answered(load, 0.0, before_s)
    assert load.latency_at(0.0) == before_s
    answered(load, passed_s, wait_s)
    kept = exp(-passed_s / DECAY_S)
    assert load.latency_at(passed_s) == pytest.approx(max(wait_s, before_s * kept + wait_s * (1 - kept)))


@given(waits_s, moments_s)
def test_latency_fades_where_no_sample_comes(wait_s, start_s):
    load = Load()
    answered(load, start_s, wait_s)
    assert load.latency_at(start_s + DECAY_S) == pytest.approx(wait_s / exp(1))


def test_an_answer_without_a_first_byte_is_no_sample():
    load = Load()
    answered(load, 0.0, None)
    assert load.latency_at(0.0) == 0.0


def test_a_failure_is_no_sample_of_speed_or_size():
    load = Load()
    load.began(1.0)
    load.ended(1.0, 0.0, 0.001, True, 50)
    assert load.latency_at(0.0) == 0.0
    assert load.output_bytes == 0.0


@given(st.integers(1, 5), moments_s)
def test_failures_add_up_and_are_forgotten(count, now_s):
    load = Load()
    for _ in range(count):
        failed(load, now_s)
    assert load.penalty_at(now_s) == count * FAILURE_PENALTY
    assert load.penalty_at(now_s + DECAY_S) == pytest.approx(count * FAILURE_PENALTY / exp(1))
    assert load.penalty_at(now_s + 20 * DECAY_S) < 1e-6


def test_penalty_is_bounded():
    load = Load()
    for _ in range(1000):
        failed(load, 0.0)
    assert load.penalty_at(0.0) == MOST_PENALTY


def test_who_returns_has_its_failures_and_waits_forgotten_but_not_what_is_under_way():
    load = Load()
    answered(load, 0.0, 3.0)
    failed(load, 0.0)
    load.began(7.0)
    load.returned(5.0)
    assert (load.penalty_at(5.0), load.latency_at(5.0), load.since_s) == (0.0, 0.0, 5.0)
    assert (load.inflight, load.work) == (1, 7.0)


@given(st.lists(st.integers(1, 10**6), min_size=1))
def test_size_of_answers_is_an_average_of_the_recent_ones(sizes):
    load = Load()
    for size in sizes:
        answered(load, 0.0, None, size)
    assert min(sizes) - 0.01 <= load.output_bytes <= max(sizes) + 0.01


def test_an_empty_answer_says_nothing_of_the_size_of_answers():
    load = Load()
    answered(load, 0.0, None, 400)
    answered(load, 0.0, None, 0)
    assert load.output_bytes == 400


@given(st.integers(0, 10**7), st.floats(0, 10**6))
def test_work_grows_with_prompt_and_answers_and_output_weighs_more(prompt_bytes, output_bytes):
    work = estimated_work(prompt_bytes, output_bytes)
    assert work > 0
    assert estimated_work(prompt_bytes + 1000, output_bytes) > work
    if output_bytes:
        assert estimated_work(prompt_bytes, output_bytes + 1000) > estimated_work(prompt_bytes + 1000, output_bytes)


@pytest.mark.parametrize("metric", METRICS)
@given(weights=st.lists(st.integers(1, 100), min_size=2, max_size=2))
def test_idle_members_tie_whatever_their_weights(metric, weights):
    scores = {metric(seat(Load(), scale=50 / weight), 0.0, 3.0) for weight in weights}
    assert len(scores) == 1


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_under_way_and_failures_make_it_worse_and_turns_owed_better(metric):
    idle, busy, failing = Load(), Load(), Load()
    busy.began(1.0)
    failed(failing, 0.0)
    score = metric(seat(idle), 0.0, 1.0)
    assert metric(seat(busy), 0.0, 1.0) == 2 * score
    assert metric(seat(busy, scale=0.5), 0.0, 1.0) == 1.5 * score
    assert metric(seat(busy, owed=1), 0.0, 1.0) == score
    assert metric(seat(idle, owed=-1), 0.0, 1.0) == 2 * score
    assert metric(seat(failing), 0.0, 1.0) == (1 + FAILURE_PENALTY) * score


@pytest.mark.parametrize("metric", METRICS)
@given(owed=st.integers(0, 1000))
def test_no_debt_makes_a_score_zero_or_negative(metric, owed):
    assert metric(seat(Load(), owed=owed), 0.0, 1.0) > 0


def test_a_member_without_samples_is_as_fast_as_the_typical_one():
    known, unknown = Load(), seat(Load())
    answered(known, 0.0, 2.0)
    unknown.typical_s = 2.0
    assert peak_ewma(unknown, 0.0, 1.0) == peak_ewma(seat(known), 0.0, 1.0)
