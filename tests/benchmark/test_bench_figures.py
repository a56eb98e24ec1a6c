import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.benchmark.difference import added, interval, student_quantile
from proxy.benchmark.report import MEASURES, Report, report_of
from proxy.benchmark.run import Arm, ClientLoad, Measured, Run
from proxy.benchmark.sample import Failure, Sample
from proxy.benchmark.summary import Failed, Spread, Summary, failures, limit_of, quantile, spread, summed_up
from tests.benchmark.conftest import sample, target_of

WAITS = st.lists(st.floats(0, 1000), min_size=2, max_size=200)
ARM = Arm(target_of("http://a", name="a"), stream=True, tokens=8)
OTHER = Arm(target_of("http://b", name="b"), stream=True, tokens=8)


def failed(failure: Failure, said: str = "", status: int = 0) -> Sample:
    return Sample(0.0, 0.0, failure=failure, said=said, status=status)


@given(WAITS)
def test_quantiles_are_those_of_the_standard_library(values: list[float]) -> None:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    for percent in (1, 50, 95, 99):
        assert quantile(sorted(values), percent / 100) == pytest.approx(cuts[percent - 1], abs=1e-9)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([5.0], 0.99, 5.0), ([1.0, 2.0], 0.5, 1.5), ([1.0, 2.0, 4.0], 1.0, 4.0), ([1.0, 2.0], 0.0, 1.0)],
)
def test_a_quantile_of_few(values: list[float], share: float, expected: float) -> None:
    assert quantile(values, share) == expected


def test_a_spread_is_of_values_in_any_order() -> None:
    values = [float(number) for number in range(101)]
    random.Random(1).shuffle(values)
    assert spread(values) == Spread(50.0, 50.0, 95.0, 99.0)
    assert spread(iter(())) is None
    assert spread([3.0]) == Spread(3.0, 3.0, 3.0, 3.0)


def test_failures_come_by_kind_the_most_frequent_first() -> None:
    samples = [
        failed(Failure.STATUS, "later", 503),
        sample(1.0),
        failed(Failure.STATUS, "slow", 429),
        failed(Failure.TIMEOUT, "no end"),
        failed(Failure.STATUS, "slower", 429),
    ]
    kinds = (Failed("status 429", 2, "slow"), Failed("status 503", 1, "later"), Failed("timeout", 1, "no end"))
    assert failures(samples) == kinds


def test_a_failure_counts_in_no_wait() -> None:
    samples = [sample(2.0, first_s=1.0, tokens=3, gaps_s=[0.5, 0.5]), failed(Failure.CUT)]
    summary = summed_up(Measured(ARM, [samples], 4.0))
    assert (summary.answered, summary.calls) == (1, 2)
    assert summary.total == Spread(2.0, 2.0, 2.0, 2.0)
    assert summary.first_token == Spread(1.0, 1.0, 1.0, 1.0)
    assert summary.per_token == summary.between_tokens == Spread(0.5, 0.5, 0.5, 0.5)
    assert (summary.tokens, summary.tokens_an_event, summary.answers_a_s, summary.tokens_a_s) == (3, 1.0, 0.25, 0.75)


def test_a_call_that_failed_was_late_all_the_same() -> None:
    late = Sample(0.0, 2.0, failure=Failure.TIMEOUT)
    assert summed_up(Measured(ARM, [[sample(1.0), late]], 4.0)).late == Spread(1.0, 1.0, 1.9, 1.98)


def test_waits_count_from_when_a_call_was_due() -> None:
    late = Sample(1.0, 3.0, first_token_s=4.0, last_token_s=5.0, ended_s=6.0, tokens=2)
    assert (late.first_token_wait_s, late.total_s, late.late_s, late.per_token_s) == (3.0, 5.0, 2.0, 1.0)


def test_an_event_may_carry_several_tokens() -> None:
    several = sample(4.0, first_s=1.0, tokens=7, gaps_s=[1.5, 1.5])
    summary = summed_up(Measured(ARM, [[several]], 4.0))
    assert several.per_token_s == 0.5
    assert summary.tokens_an_event == pytest.approx(7 / 3)


@pytest.mark.parametrize("tokens", [0, 1])
def test_of_fewer_than_two_tokens_there_is_no_time_between(tokens: int) -> None:
    assert sample(1.0, first_s=1.0, tokens=tokens).per_token_s is None


def test_nothing_measured_is_summed_up_too() -> None:
    summary = summed_up(Measured(ARM))
    assert (summary.calls, summary.total, summary.late, summary.answers_a_s) == (0, None, None, 0.0)


@pytest.mark.parametrize(
    ("degrees", "table"), [(4, 2.776), (5, 2.571), (9, 2.262), (14, 2.145), (19, 2.093), (99, 1.984)]
)
def test_quantiles_of_students_t_are_those_of_the_table(degrees: int, table: float) -> None:
    assert student_quantile(0.975, degrees) == pytest.approx(table, rel=0.001)
    assert student_quantile(0.025, degrees) == pytest.approx(-table, rel=0.001)


@pytest.mark.parametrize("rounds", [5, 10, 20])
def test_an_interval_of_95_percent_holds_the_truth_95_times_in_100(rounds: int) -> None:
    dice, held = random.Random(rounds), 0
    for _ in range(1000):
        bounds = interval([dice.gauss(3.0, 2.0) for _ in range(rounds)])
        assert bounds is not None
        held += bounds[0] <= 3.0 <= bounds[1]
    assert 930 <= held <= 970


def test_an_interval_needs_five_rounds() -> None:
    assert interval([1.0] * 4) is None
    assert interval([1.0] * 5) == (1.0, 1.0)
    low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0]) or (0.0, 0.0)
    assert (low, high) == (pytest.approx(1.037, abs=0.002), pytest.approx(4.963, abs=0.002))


def rounds_of(arm: Arm, *rounds: list[float]) -> Measured:
    return Measured(arm, [[sample(total_s) for total_s in totals] for totals in rounds])


def test_what_is_added_is_taken_within_rounds() -> None:
    slow = rounds_of(ARM, [8.0, 1.5, 2.5], [11.0], [21.0], [31.0], [41.0])
    fast = rounds_of(OTHER, [2.0, 3.0, 1.0], [10.0], [20.0], [30.0], [40.0])
    adds = added(slow, fast, MEASURES["whole answer"])
    assert adds is not None
    assert adds.mean_s == pytest.approx((2.0 + 4 * 1.0) / 5)
    assert adds.p50_s == pytest.approx((0.5 + 4 * 1.0) / 5)
    assert adds.interval_s is not None
    assert adds.interval_s[0] < 1.2 < adds.interval_s[1] < 2.0  # though rounds themselves are 40 s apart


@pytest.mark.parametrize(
    ("of", "to", "mean_s"),
    [
        (rounds_of(ARM, [2.0], [3.0]), rounds_of(OTHER, [1.0]), 1.0),
        (rounds_of(ARM, [2.0]), rounds_of(OTHER, [1.0], [9.0]), 1.0),
        (rounds_of(ARM, [2.0], [], [4.0]), rounds_of(OTHER, [1.0], [9.0], [3.0]), 1.0),
        (rounds_of(ARM, [2.0], [5.0]), rounds_of(OTHER, [1.0], []), 1.0),
        (rounds_of(ARM, [2.0]), rounds_of(OTHER), None),
        (rounds_of(ARM), rounds_of(OTHER), None),
        (rounds_of(ARM, []), rounds_of(OTHER, [1.0]), None),
    ],
)
def test_a_round_that_one_of_both_lacks_is_left_out(of: Measured, to: Measured, mean_s: float | None) -> None:
    adds = added(of, to, MEASURES["whole answer"])
    assert (adds and adds.mean_s) == mean_s


def test_failures_and_missing_measures_are_left_out_of_a_difference() -> None:
    of = Measured(ARM, [[sample(2.0, first_s=1.0), failed(Failure.CUT), sample(9.0)]])
    to = Measured(OTHER, [[sample(1.0, first_s=0.5)]])
    adds = added(of, to, MEASURES["first token"])
    assert adds is not None
    assert (adds.mean_s, adds.interval_s, adds.p50_interval_s) == (0.5, None, None)
    assert added(of, to, MEASURES["a token"]) is None


@pytest.mark.parametrize(
    ("busy", "late_s", "limit"),
    [
        (0.5, [], None),
        (0.8, [0.001] * 100, None),
        (0.81, [], "it used 81% of a core"),
        (0.1, [0.0] * 90 + [0.05] * 10, "1 in 100 of its own timers came 50 ms late or more"),
        (0.1, [0.0] * 999 + [0.05], None),
    ],
)
def test_a_client_that_cannot_keep_up_is_told(busy: float, late_s: list[float], limit: str | None) -> None:
    assert limit_of(ClientLoad(busy, late_s)) == limit


def _report(*measured: Measured, load: ClientLoad | None = None) -> Report:
    run = Run.__new__(Run)
    run.measured, run.client_load = list(measured), load or ClientLoad()
    return report_of(run, "5 at once")


def notes(*measured: Measured, load: ClientLoad | None = None) -> list[str]:
    return [note.split(":")[0].split(".")[0] for note in _report(*measured, load=load).notes]


def test_notes_say_what_might_be_misread() -> None:
    fine = rounds_of(ARM, *[[1.0]] * 5)
    assert notes(fine) == []
    assert notes(fine, rounds_of(OTHER, *[[1.0]] * 5)) == []
    assert notes(fine, rounds_of(OTHER, *[[1.0]] * 4)) == ["Too few rounds for an interval"]
    whole, other = (rounds_of(Arm(arm.target, stream=False, tokens=8), [1.0]) for arm in (ARM, OTHER))
    whole.rounds *= 5  # what streaming adds has its interval, what the target adds has none
    assert notes(fine, whole, rounds_of(OTHER, [1.0]), other) == []
    assert notes(fine, load=ClientLoad(0.9)) == ["The client was the limit"]
    assert notes(rounds_of(ARM, []), load=ClientLoad(0.9)) == []
    assert notes(Measured(ARM, [[sample(1.0, sent_s=0.0625)]])) == ["1 call in 100 was begun 62"]
    assert notes(Measured(ARM, [[sample(1.0, sent_s=0.001)]])) == []
    assert notes(Measured(ARM, [[sample(2.0, first_s=1.0, tokens=8, gaps_s=[1.0])]])) == ["Events carry 4"]


def test_the_first_target_is_held_against_the_second_and_streams_against_whole_answers() -> None:
    targets = [target_of("http://a", name="a"), target_of("http://a", name="b")]
    arms = [Arm(target, stream, tokens) for tokens in (10, 50) for stream in (True, False) for target in targets]
    report = _report(*(rounds_of(arm, *[[1.0]] * 5) for arm in arms))
    assert [(one.of, one.to, one.measure) for one in report.by_target] == [
        (arms[at], arms[at + 1], "whole answer") for at in (0, 2, 4, 6)
    ]
    assert {(one.of, one.to) for one in report.by_streaming} == {(arms[at], arms[at + 2]) for at in (0, 1, 4, 5)}
    assert all(isinstance(summary, Summary) and summary.answered == 5 for summary in report.summaries)
