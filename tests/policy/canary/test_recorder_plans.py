"""What a recorder is told, by steps and epochs, and what several of them make together."""

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model.outcome import Outcome
from proxy.policy.canary.arms import place
from proxy.policy.canary.counts import (
    EARLY_TTFT,
    LATE_S,
    LEFT,
    SLICE_S,
    SLO_FAILED,
    SLO_FINE,
    SLO_SLOW,
    Harvest,
    merged,
    tallied,
)
from proxy.policy.canary.plan import Plan, Watch
from proxy.policy.canary.recorder import MOST_UNITS, Recorder
from proxy.policy.canary.strata import MOST_MODELS, Key, Stratum
from tests.support.canary_requests import ALL, BASELINE, CANARY, LIMITS, STREAM, closed, early, recorder, serve

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
