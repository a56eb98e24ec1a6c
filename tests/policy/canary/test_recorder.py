"""What is seen of requests becomes counts: once, in the right place, and in the end whatever becomes of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model.outcome import Outcome
from proxy.policy.canary.arms import Arm, place
from proxy.policy.canary.counts import (
    CHUNK,
    EARLY,
    EARLY_S,
    EARLY_TTFT,
    LATE,
    LATE_S,
    LATE_TTFT,
    LEFT,
    NEXT_RANKS,
    SLICE_S,
    SLO_FAILED,
    SLO_FINE,
    SLO_SLOW,
    SMOOTH,
    STALLED,
    Harvest,
    merged,
    tallied,
)
from proxy.policy.canary.metrics import tails
from proxy.policy.canary.plan import Limits, Plan, Watch
from proxy.policy.canary.recorder import MOST_UNITS, Recorder
from proxy.policy.canary.strata import MOST_MODELS, Key, Stratum

BASELINE, CANARY = Arm.BASELINE, Arm.CANARY
STREAM, WHOLE = Stratum(1000, True, "m"), Stratum(1000, False, "m")
ALL = Key(None, None, None)
# Thresholds of the baseline 1..5 s, of the canary twice that; of the next step 2 and 6 s, 3 and 9 s. A chunk: a tenth.
TTFT = ([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 6.0, 8.0, 10.0])
CHUNKS = ([0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0.4, 0.6, 0.8, 1.0])
LIMITS = Limits(TTFT, ([2.0, 6.0], [3.0, 9.0]), CHUNKS, ([0.2, 0.6], [0.3, 0.9]), (150.0, 300.0), late=False)


WATCH = Watch(max_gap_s=15.0)


def recorder(limits: Limits = LIMITS, watch: Watch = WATCH, **plan: object) -> Recorder:
    return Recorder(watch, Plan(1, {ALL: limits}, **plan), 0.0)  # type: ignore[arg-type]


def serve(
    record: Recorder,
    token: int,
    arm: Arm,
    start_s: float,
    *,
    ttft_s: float = 0.5,
    took_s: float = 1.0,
    outcome: Outcome = Outcome.OK,
    chunks: int = 10,
    status: int = 200,
    stratum: Stratum = STREAM,
    unit: str | None = None,
) -> None:
    record.started(token, arm, stratum, start_s, unit)
    record.first_byte(token, start_s + ttft_s)
    record.finished(token, outcome, start_s + took_s, chunks, 0.0, status)


def closed(record: Recorder, now_s: float = LATE_S + 2 * SLICE_S) -> Harvest:
    """Everything that began in the first slice."""
    return record.harvest(now_s)


def early(harvest: Harvest, canary: bool, at: int, size: int) -> list[int]:
    first = EARLY * canary + at
    return harvest.early[0][first : first + size]


def late(harvest: Harvest, canary: bool, at: int, size: int) -> list[int]:
    first = LATE * canary + at
    return harvest.late[0][first : first + size]


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


# --- plans ----------------------------------------------------------------------------------------------------------


def test_a_new_step_forgets_slices_and_keeps_what_was_measured():
    record = recorder()
    serve(record, 1, BASELINE, 0.0)
    record.started(2, BASELINE, STREAM, 1.0)
    record.follow(Plan(2, {ALL: LIMITS}), 3.0)
    record.finished(2, Outcome.OK, 3.5, 10, 0.0, 200)
    serve(record, 3, BASELINE, 4.0)
    found = closed(record)
    assert (found.step, early(found, False, 0, 2)) == (2, [1, 0])
    assert len(found.latencies["ttft"][Key(1, True, "m")]) == 3


def test_a_stratum_borrows_the_nearest_parents_limits():
    other = LIMITS._replace(ttft=([0.1] * 5, [0.1] * 5))
    record = Recorder(Watch(), Plan(1, {ALL: LIMITS, Key(1, True, None): other}), 0.0)
    serve(record, 1, BASELINE, 0.0)
    serve(record, 2, BASELINE, 0.0, stratum=Stratum(100, True, "m"))
    assert early(closed(record), False, EARLY_TTFT, 6) == [1, 0, 0, 0, 0, 1]


def test_without_limits_no_latency_is_judged_and_errors_are():
    record = Recorder(Watch(), Plan(1, {}), 0.0)
    serve(record, 1, BASELINE, 0.0, outcome=Outcome.TIMEOUT)
    found = closed(record)
    assert early(found, False, EARLY_TTFT, 18) == [0] * 18
    assert early(found, False, 0, 2) == [0, 1]


def test_callers_who_invent_models_are_one_stratum():
    record = recorder()
    for i in range(3 * MOST_MODELS):
        serve(record, i, BASELINE, 0.0, stratum=Stratum(1000, True, f"model-{i}"))
    assert len(closed(record).latencies["ttft"]) == MOST_MODELS + 1


def test_the_slo_counts_first_bytes_and_failures_of_all():
    record = recorder(watch=Watch(slo=True, slo_ttft_s=4.0))
    serve(record, 1, BASELINE, 0.0, ttft_s=4.5, took_s=5.0)
    serve(record, 2, BASELINE, 0.0)
    serve(record, 3, BASELINE, 0.0, outcome=Outcome.TIMEOUT)
    counts = closed(record).early[0]
    assert [counts[at] for at in (SLO_FINE, SLO_SLOW, SLO_FAILED)] == [1, 2, 1]


# --- sticky units ---------------------------------------------------------------------------------------------------

STICKY = Watch(sticky=True)


def test_a_unit_has_one_ledger_an_epoch_and_is_given_when_all_of_it_is_known():
    record = recorder(watch=STICKY)
    for token, unit in enumerate(("ann", "ann", "bob")):
        serve(record, token, BASELINE, float(token), unit=unit)
    record.follow(Plan(1, {ALL: LIMITS}, epoch=1), 600.0)
    serve(record, 3, BASELINE, 600.0, unit="ann")
    assert not record.harvest(600.0 + LATE_S).units
    found = record.harvest(600.0 + LATE_S + SLICE_S)
    assert {unit: counts[1][0] for unit, counts in found.units.items()} == {(0, "ann"): 2, (0, "bob"): 1}


def test_the_guard_sees_the_first_request_of_each_unit_only():
    record = recorder(watch=STICKY, guards=True)
    for token, unit in enumerate(("ann", "ann", "bob", None)):
        serve(record, token, CANARY, 0.0, unit=unit, outcome=Outcome.TIMEOUT)
    assert early(closed(record), True, 0, 2) == [0, 2]


def test_units_below_the_floor_were_the_canarys_before_and_are_no_witnesses():
    record = recorder(watch=STICKY, guards=True, floor=0.5, salt=b"salt")
    units = [f"unit-{i}" for i in range(100)]
    for token, unit in enumerate(units):
        serve(record, token, CANARY, 0.0, unit=unit)
    witnesses = sum(place(b"salt", unit) >= 0.5 for unit in units)
    assert 30 < witnesses < 70
    assert early(closed(record), True, 0, 2) == [witnesses, 0]


def test_a_new_step_makes_each_unit_a_witness_once_more():
    record = recorder(watch=STICKY, guards=True)
    serve(record, 1, BASELINE, 0.0, unit="ann")
    record.follow(Plan(2, {}, guards=True), 3.0)
    serve(record, 2, CANARY, 4.0, unit="ann")
    assert early(closed(record), True, 0, 2) == [1, 0]


def test_an_epoch_whose_labels_are_known_is_no_evidence_but_units_not_seen_yet_are_guarded():
    record = recorder(watch=STICKY, bets=False, guards=True)
    serve(record, 1, CANARY, 0.0, unit="ann")
    record.follow(Plan(1, {ALL: LIMITS}, epoch=1), 600.0)
    assert early(record.harvest(1000.0), True, 0, 2) == [1, 0]
    assert not record.harvest(1001.0).units


def test_units_beyond_the_bound_are_no_evidence():
    record = recorder(watch=STICKY, guards=True)
    for i in range(MOST_UNITS + 5):
        serve(record, i, BASELINE, 0.0, unit=f"unit-{i}")
    record.follow(Plan(1, {}, epoch=1), 10.0)
    found = record.harvest(1000.0)
    assert len(found.units) == MOST_UNITS
    assert early(found, False, 0, 1) == [MOST_UNITS]


# --- several workers ------------------------------------------------------------------------------------------------

REQUESTS = st.lists(
    st.tuples(
        st.booleans(),  # which worker
        st.sampled_from((BASELINE, CANARY)),
        st.floats(0.0, 30.0),  # starts after so long
        st.one_of(st.none(), st.floats(0.0, 20.0)),  # ttft
        st.one_of(st.none(), st.floats(0.0, 400.0)),  # ends so much later
        st.sampled_from((Outcome.OK, Outcome.OK, Outcome.OK, Outcome.TIMEOUT, Outcome.CLIENT_GONE, Outcome.TRUNCATED)),
        st.booleans(),  # stalls
        st.integers(0, 200),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(REQUESTS, st.booleans())
def test_two_workers_counts_are_those_of_one_who_saw_it_all(requests, sticky):
    watch = Watch(max_gap_s=15.0, sticky=sticky, slo=True, slo_ttft_s=4.0, piece_s=5.0)
    one, *two = (recorder(watch=watch) for _ in range(3))
    events = []
    now_s = 0.0
    for token, (which, arm, gap_s, ttft_s, took_s, outcome, stalls, chunks) in enumerate(requests):
        now_s += gap_s
        unit = f"unit-{token}" if sticky else None
        events.append(
            (now_s, token, 0, which, lambda r, t=token, a=arm, s=now_s, u=unit: r.started(t, a, STREAM, s, u))
        )
        if ttft_s is not None:
            first_s = now_s + ttft_s
            events.append((first_s, token, 1, which, lambda r, t=token, s=first_s: r.first_byte(t, s)))
            if stalls:
                events.append((first_s + 15.0, token, 2, which, lambda r, t=token: r.stalled(t)))
            if took_s is not None:
                end_s = first_s + took_s
                events.append(
                    (
                        end_s,
                        token,
                        3,
                        which,
                        lambda r, t=token, o=outcome, s=end_s, c=chunks: r.finished(t, o, s, c, 0.0, 200),
                    )
                )
    events.sort(key=lambda event: event[:3])
    looks = [20.0, 90.0, now_s / 2 + 300.0, now_s + 1000.0]
    for look_s in sorted(looks):
        while events and events[0][0] <= look_s:
            *_, which, happens = events.pop(0)
            happens(one)
            happens(two[which])
        alone, together = one.harvest(look_s), merged([each.harvest(look_s) for each in two])
        assert together.early == alone.early
        assert together.late == alone.late
        assert together.units == alone.units
        assert together.tally == alone.tally
        assert together.open == alone.open
        assert samples(together) == samples(alone)
        assert together.means.keys() == alone.means.keys()


def samples(harvest: Harvest) -> dict[tuple[str, Key], list[int]]:
    return {(kind, key): sorted(each) for kind, keys in harvest.latencies.items() for key, each in keys.items()}


def test_another_steps_counts_are_no_evidence():
    ahead, behind = recorder(), recorder()
    ahead.follow(Plan(2, {}), 0.0)
    serve(ahead, 1, BASELINE, 0.0)
    serve(behind, 2, BASELINE, 0.0)
    together = merged([ahead.harvest(400.0), behind.harvest(400.0)])
    assert (together.step, early(together, False, 0, 1)) == (2, [1])
    assert tallied(together.tally, canary=False)["fine"] == 2
    assert LEFT == 9
