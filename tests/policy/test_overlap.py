"""A new key beside the old one: what sends it back, what does not, and how seldom that is wrong."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.overlap import Drawn, Overlap, Verdict, _log_mixture, _log_ratio

LONG_S = 1e9
NEW, OLD = True, False


def overlap(requests: int = 200, at_most_s: float = LONG_S) -> Overlap:
    return Overlap(requests, began_s=100.0, at_most_s=at_most_s)


def saw(record: Overlap, new: bool, status: int, times: int) -> None:
    for _ in range(times):
        record.answered(new, status)


def answers_until_back(status: int, old_for_each: int, old_before: int = 0) -> int:
    """After how many answers a new key goes back that draws nothing but `status`, where the old one draws none."""
    record = overlap()
    saw(record, OLD, 200, old_before)
    while record.verdict(100.0) is Verdict.GO_ON:
        saw(record, OLD, 200, old_for_each)
        record.answered(NEW, status)
    assert record.verdict(100.0) is Verdict.GO_BACK
    return record.new.total


def test_refusals_that_have_not_ended_yet_are_counted_as_answers():
    none = {401: 0, 403: 0, 429: 0}
    record = overlap(requests=4)
    record.count(Drawn(0, none | {403: 3}), Drawn(2, none | {403: 2}), Drawn(1, none))
    assert (record.new.total, record.old.total) == (3, 2)
    assert record.verdict(101.0) is Verdict.GO_ON


# --- what is worse --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old_for_each", "answers"), [(99, 3), (19, 3), (3, 3), (1, 5)])
def test_nothing_but_401s_goes_back_at_once(old_for_each, answers):
    assert answers_until_back(401, old_for_each) == answers


@pytest.mark.parametrize(("old_before", "answers"), [(0, 9), (1, 8), (2, 7), (3, 6), (4, 5), (5, 4), (10, 3), (100, 3)])
def test_where_the_old_one_serves_little_it_takes_longer(old_before, answers):
    assert answers_until_back(401, 0, old_before) == answers


@pytest.mark.parametrize("status", [403, 429])
def test_other_refusals_take_hardly_longer(status):
    assert answers_until_back(status, 19) == 3
    assert answers_until_back(status, 0) == 11


def test_one_401_and_its_retry_are_an_accident():
    record = overlap()
    saw(record, OLD, 200, 10_000)
    saw(record, NEW, 401, 2)
    assert record.verdict(100.0) is Verdict.GO_ON
    record.answered(NEW, 401)
    assert record.verdict(100.0) is Verdict.GO_BACK


@pytest.mark.parametrize("old_for_each", [1, 19])
def test_a_fifth_of_429s_against_none_goes_back_within_200_answers(old_for_each):
    rng = random.Random(11)
    for _ in range(200):
        record = overlap()
        while record.verdict(100.0) is Verdict.GO_ON:
            record.answered(NEW, 429 if rng.random() < 0.2 else 200)
            saw(record, OLD, 200, old_for_each)
        assert record.verdict(100.0) is Verdict.GO_BACK


@pytest.mark.parametrize(
    ("status", "refused_of_100", "answers"), [(401, 50, 8), (401, 20, 20), (429, 50, 8), (429, 20, 25), (429, 10, 50)]
)
def test_the_rarer_the_refusals_the_longer_it_takes(status, refused_of_100, answers):
    record = overlap()
    while record.verdict(100.0) is Verdict.GO_ON:
        saw(record, OLD, 200, 19)
        owed = refused_of_100 * (record.new.total + 1) // 100 > record.new.refused
        record.answered(NEW, status if owed else 200)
    assert record.verdict(100.0) is Verdict.GO_BACK
    assert record.new.total == answers


def test_it_may_be_worse_in_the_last_answer():
    record = overlap(requests=3)
    saw(record, OLD, 200, 57)
    saw(record, NEW, 401, 3)
    assert record.verdict(100.0) is Verdict.GO_BACK


# --- what is not ----------------------------------------------------------------------------------------------------


def seeded_overlap(
    rng: random.Random, rate: float, share: float, statuses: tuple[int, ...], requests: int = 200
) -> Overlap:
    """Keys that are refused alike, looked at after each answer of the new one until there is a verdict."""
    record = overlap(requests)
    while record.verdict(100.0) is Verdict.GO_ON:
        new = False
        while not new:
            new = rng.random() < share
            record.answered(new, rng.choice(statuses) if rng.random() < rate else 200)
    return record


@pytest.mark.parametrize(
    ("share", "requests", "statuses"),
    [(0.05, 40, (401,)), (0.5, 200, (401,)), (0.9, 200, (429,)), (0.9, 200, (401, 403, 429))],
)
def test_keys_that_are_alike_go_back_in_less_than_one_of_a_hundred_overlaps(share, requests, statuses):
    rng = random.Random(5)
    went_back = 0
    for number in range(2000):
        rate = (0.0, 0.01, 0.1, 0.3, 0.5, 0.5, 0.5, 0.5)[number % 8]
        record = seeded_overlap(rng, rate, share, statuses, requests)
        went_back += record.verdict(100.0) is Verdict.GO_BACK
    assert went_back < 20


def test_keys_that_are_alike_and_bad_are_told_apart_no_more_often_where_the_old_one_shows_it():
    rng = random.Random(5)
    records = [seeded_overlap(rng, 0.8, 0.25, (429,)) for _ in range(500)]
    assert sum(record.verdict(100.0) is Verdict.GO_BACK for record in records) < 5


@pytest.mark.parametrize("every", [2, 5, 20])
def test_a_caller_who_draws_403s_on_both_changes_nothing(every):
    record = overlap()
    for number in range(200 * 20):
        record.answered(new=number // every % 20 == 0, status=403 if number % every == 0 else 200)
        assert record.verdict(100.0) is (Verdict.GO_ON if record.new.total < 200 else Verdict.PROMOTE)
    assert record.new.refusals[403] == 200 // every


def test_nobody_goes_back_to_an_old_key_that_is_refused_more_often():
    record = overlap()
    saw(record, OLD, 401, 400)
    for number in range(200):
        assert record.verdict(100.0) is Verdict.GO_ON
        record.answered(NEW, 429 if number % 3 == 0 else 200)
    assert record.verdict(100.0) is Verdict.PROMOTE


def test_a_new_key_that_is_better_is_no_worse():
    record = overlap(requests=100)
    saw(record, OLD, 429, 50)
    saw(record, OLD, 200, 50)
    saw(record, NEW, 429, 10)
    saw(record, NEW, 200, 90)
    assert record.verdict(100.0) is Verdict.PROMOTE


@pytest.mark.parametrize("status", [101, 200, 302, 400, 404, 422])
def test_an_answer_that_refuses_no_key_speaks_for_it(status):
    record = overlap(requests=3)
    saw(record, NEW, status, 3)
    assert record.verdict(100.0) is Verdict.PROMOTE


@pytest.mark.parametrize("new", [NEW, OLD])
def test_an_answer_of_a_failing_server_says_nothing(new):
    record = overlap(requests=1)
    saw(record, new, 500, 5)
    saw(record, new, 529, 5)
    assert (record.new.total, record.old.total) == (0, 0)
    assert record.verdict(100.0) is Verdict.GO_ON


# --- the ratio ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 60))
def test_a_mixture_spreads_a_chance_of_one_over_what_may_be_seen(total):
    chances = [math.comb(total, refused) * math.exp(_log_mixture(refused, total)) for refused in range(total + 1)]
    assert sum(chances) == pytest.approx(1.0)


@pytest.mark.parametrize(("refused", "total", "chance"), [(0, 0, 1.0), (1, 1, 1 / 2), (2, 2, 3 / 8), (1, 2, 1 / 8)])
def test_the_mixture_is_the_estimator_of_krichevsky_and_trofimov(refused, total, chance):
    """Each next answer is refused with a chance of (refusals so far + 1/2) / (answers so far + 1)."""
    assert math.exp(_log_mixture(refused, total)) == pytest.approx(chance)


@given(st.integers(1, 12), st.integers(0, 40), st.floats(0.001, 0.5))
def test_under_a_common_rate_up_to_a_half_the_ratio_is_on_average_at_most_one(total, total_old, rate):
    average = 0.0
    for refused in range(1, total + 1):
        for refused_old in range(total_old + 1):
            if refused * total_old > refused_old * total or not total_old:
                both = refused + refused_old
                orders = math.comb(total, refused) * math.comb(total_old, refused_old)
                chance = orders * rate**both * (1 - rate) ** (total + total_old - both)
                average += chance * math.exp(_log_ratio(refused, total, refused_old, total_old))
    assert average <= 1.0 + 1e-9


# --- the end --------------------------------------------------------------------------------------------------------


def test_it_ends_with_the_last_answer_that_is_wanted():
    record = overlap(requests=200)
    saw(record, NEW, 200, 199)
    saw(record, OLD, 200, 5000)
    assert record.verdict(100.0) is Verdict.GO_ON
    record.answered(NEW, 200)
    assert record.verdict(100.0) is Verdict.PROMOTE


def test_time_ends_it_with_one_good_answer():
    record = overlap(at_most_s=60.0)
    saw(record, NEW, 401, 2)
    record.answered(NEW, 200)
    saw(record, OLD, 200, 2)
    assert record.verdict(159.9) is Verdict.GO_ON
    assert record.verdict(160.0) is Verdict.PROMOTE


def test_time_ends_it_where_nobody_asked():
    record = overlap(at_most_s=60.0)
    assert record.verdict(159.9) is Verdict.GO_ON
    saw(record, OLD, 200, 500)
    assert record.verdict(160.0) is Verdict.PROMOTE


@pytest.mark.parametrize("old_accepted", [0, 1, 100])
def test_a_new_key_that_was_never_accepted_goes_back_at_the_end(old_accepted):
    record = overlap(at_most_s=60.0)
    record.answered(NEW, 403)
    saw(record, OLD, 200, old_accepted)
    assert record.verdict(159.9) is Verdict.GO_ON
    assert record.verdict(160.0) is Verdict.GO_BACK


def test_so_it_does_at_the_last_answer_that_is_wanted():
    record = overlap(requests=2)
    saw(record, NEW, 401, 2)
    assert record.verdict(100.0) is Verdict.GO_BACK


def test_unless_the_old_one_is_never_accepted_either():
    record = overlap(at_most_s=60.0)
    record.answered(NEW, 403)
    saw(record, OLD, 401, 5)
    assert record.verdict(160.0) is Verdict.PROMOTE


def test_without_a_limit_of_time_it_waits():
    assert overlap(at_most_s=math.inf).verdict(1e12) is Verdict.GO_ON


# --- what an operator reads -----------------------------------------------------------------------------------------


def test_the_numbers_that_sent_it_back_are_told_and_no_others():
    record = overlap()
    saw(record, OLD, 200, 78)
    saw(record, OLD, 429, 2)
    saw(record, NEW, 401, 3)
    record.answered(NEW, 200)
    assert record.verdict(100.0) is Verdict.GO_BACK
    assert record.explain() == "the new key drew 401 in 3 of 4 answers, the old one in 0 of 80"


def test_what_the_new_key_drew_less_often_did_not_send_it_back():
    record = overlap()
    saw(record, OLD, 401, 50)
    saw(record, OLD, 200, 50)
    saw(record, NEW, 401, 3)
    saw(record, NEW, 429, 97)
    assert record.verdict(100.0) is Verdict.GO_BACK
    assert record.explain() == "the new key drew 429 in 97 of 100 answers, the old one in 0 of 100"


def test_what_both_drew_is_told_where_none_is_worse():
    record = overlap()
    saw(record, OLD, 200, 78)
    saw(record, OLD, 429, 2)
    saw(record, NEW, 200, 9)
    record.answered(NEW, 403)
    assert record.explain() == (
        "the new key drew 403 in 1 of 10 answers, the old one in 0 of 80; "
        "the new key drew 429 in 0 of 10 answers, the old one in 2 of 80"
    )


def test_that_nothing_was_refused_is_told_too():
    record = overlap()
    saw(record, NEW, 200, 2)
    assert record.explain() == "the new key was refused in 0 of 2 answers, the old one in 0 of 0"


@pytest.mark.parametrize(
    "numbers",
    [
        {"requests": 0},
        {"at_most_s": 0.0},
        {"at_most_s": math.nan},
        {"began_s": math.inf},
        {"began_s": math.nan},
    ],
)
def test_numbers_that_make_no_overlap_are_refused(numbers):
    with pytest.raises(ValueError, match="needs at least 1 request, a beginning, and a time above 0 s"):
        Overlap(**{"requests": 200, "began_s": 0.0, "at_most_s": 60.0, **numbers})


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([200, 401, 403, 429, 500]), st.integers(1, 40)), max_size=30),
    st.integers(1, 300),
    st.floats(0, 1000),
)
def test_any_answers_have_a_verdict_that_keeps_the_rule(answers, requests, now_s):
    record = Overlap(requests, began_s=0.0, at_most_s=500.0)
    for new, status, times in answers:
        saw(record, new, status, times)
    verdict, new, old = record.verdict(now_s), record.new, record.old
    assert record.explain().startswith("the new key ")
    ended = new.total >= requests or now_s >= 500.0
    assert ended or verdict is not Verdict.PROMOTE
    assert not ended or verdict is not Verdict.GO_ON
    if verdict is Verdict.GO_BACK:
        assert new.refused
        assert new.refused * old.total > new.total * old.refused or not old.total
    if ended and new.total and not new.refused:
        assert verdict is Verdict.PROMOTE
