"""Sticky units: one bet for each unit and epoch, fair whatever a unit does, and ruinous for nobody."""

from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.canary.counts import EARLY, LATE, Harvest
from proxy.policy.canary.terms import Terms
from proxy.policy.canary.units import BOLDER, FRACTIONS, MOST_PAST, Measure, Past, Share, UnitEvidence, log_factors

weights = st.floats(0.01, 0.99)
rates = st.floats(0.001, 0.5)
shares = st.integers(1, 200).flatmap(lambda of: st.builds(Share, st.integers(0, of), st.just(of)))


def test_one_unit_by_hand():
    # w .1, c .05, all 25 of 25 bad: say .5, s - c = .95, lambda = f * min(.1/.05, .9/.95) = f * .947368
    found = log_factors(Share(25, 25), 0.05, canary=True, weight=0.1)
    assert found == pytest.approx([log(1 + f * 0.9473684 * 0.5 * 0.95 * 10) for f in FRACTIONS])
    found = log_factors(Share(25, 25), 0.05, canary=False, weight=0.1)
    assert found == pytest.approx([log(1 - f * 0.9473684 * 0.5 * 0.95 / 0.9) for f in FRACTIONS])


@given(shares, rates, st.booleans(), weights, st.floats(0, 0.4), st.booleans())
def test_whatever_a_unit_does_it_takes_a_part_at_most(share, expected, canary, weight, delta, better):
    fractions = BOLDER if better else FRACTIONS
    found = log_factors(share, expected, canary, weight, delta, better=better)
    assert all(exp(each) >= 1 - f - 1e-9 for each, f in zip(found, fractions, strict=True))


@given(shares, rates, weights)
def test_a_unit_that_is_the_same_in_both_arms_is_a_fair_game(share, expected, weight):
    for better in (False, True):
        canary = log_factors(share, expected, True, weight, better=better)
        baseline = log_factors(share, expected, False, weight, better=better)
        for a, b in zip(canary, baseline, strict=True):
            assert weight * exp(a) + (1 - weight) * exp(b) == pytest.approx(1.0)


@given(st.integers(0, 50), st.integers(0, 50), rates, weights, st.floats(0, 0.4))
def test_within_the_tolerance_nobody_gets_rich(bad, bad_as_canary, expected, weight, delta):
    """A unit of 50 requests: so many are bad with the baseline, so many with the canary."""
    worse = bad_as_canary / 50 - bad / 50
    for better, null in ((False, worse <= delta), (True, worse >= delta)):
        if not null:
            continue
        canary = log_factors(Share(bad_as_canary, 50), expected, True, weight, delta, better=better)
        baseline = log_factors(Share(bad, 50), expected, False, weight, delta, better=better)
        for a, b in zip(canary, baseline, strict=True):
            assert weight * exp(a) + (1 - weight) * exp(b) <= 1 + 1e-9


def test_a_unit_of_few_requests_has_little_say():
    few = log_factors(Share(1, 1), 0.05, True, 0.1)
    many = log_factors(Share(50, 50), 0.05, True, 0.1)
    assert exp(few[0]) - 1 == pytest.approx((exp(many[0]) - 1) / 50)


def test_the_past_of_a_unit_is_what_is_expected_of_it():
    past, measure = Past(), Measure("late_errors", 0, 0.01)
    assert past.expected("ann", measure) == pytest.approx(0.01)
    past.add("ann", {measure: Share(20, 90)})
    assert past.expected("ann", measure) == pytest.approx((20 + 0.1) / 100)
    for i in range(MOST_PAST):
        past.add(f"unit-{i}", {measure: Share(0, 1)})
    assert past.expected("ann", measure) == pytest.approx(0.01)


def terms(next_weight: float | None = 0.5) -> Terms:
    return Terms(0.1, next_weight, 12, {"ttft": 1.1}, {"errors": 0.01}, {"errors": 0.005, "stalls": 0.001})


def epoch(number: int, units: dict[str, tuple[bool, int, int]]) -> Harvest:
    """Of each unit: is it the canary's, how many of its requests were fine, how many failed."""
    harvest = Harvest(1)
    for unit, (canary, fine, failed) in units.items():
        late = [0] * (2 * LATE)
        late[LATE * canary], late[LATE * canary + 1] = fine, failed
        harvest.units[number, unit] = ([0] * (2 * EARLY), late)
    return harvest


def read(evidence: UnitEvidence, harvest: Harvest) -> int:
    """In how many ticks."""
    evidence.read(harvest)
    ticks = 1
    while evidence.waiting:
        evidence.read(Harvest(1))
        ticks += 1
    return ticks


def test_a_tick_reads_few_units_and_no_epoch_waits_for_long():
    evidence = UnitEvidence(terms(), Past())
    assert read(evidence, epoch(0, {f"unit-{i}": (i % 10 == 0, 50, 0) for i in range(400)})) <= 20
    assert evidence.units == [360, 40]
    evidence = UnitEvidence(terms(), Past())
    assert read(evidence, epoch(0, {f"unit-{i}": (i % 10 == 0, 50, 0) for i in range(20_000)})) < 200


def test_an_epoch_is_one_bet_however_many_ticks_it_takes():
    at_once, slowly = UnitEvidence(terms(), Past()), UnitEvidence(terms(), Past())
    units = {f"unit-{i}": (i % 10 == 0, 40, 10) for i in range(100)}
    read(slowly, epoch(0, units))
    for unit, each in units.items():
        at_once.waiting.append((0, unit, *epoch(0, {unit: each}).units[0, unit]))
    read(at_once, Harvest(1))
    assert at_once.strength == pytest.approx(slowly.strength)
    assert at_once.strength != 1.0


def test_a_canary_whose_units_fail_is_found_out_epoch_by_epoch():
    evidence = UnitEvidence(terms(), Past())
    for number in range(6):
        units = {f"unit-{i}": (i % 10 == number % 10, 50, 0) for i in range(200)}
        units |= {f"unit-{i}": (True, 25, 25) for i in range(200) if i % 10 == number % 10}
        read(evidence, epoch(number, units))
    assert evidence.strength > 500
    assert evidence.units == [1080, 120]
    assert evidence.requests == [54_000, 0, 3000, 3000]


def test_one_heavy_unit_is_one_witness():
    evidence = UnitEvidence(terms(), Past())
    evidence.read(epoch(0, {"heavy": (True, 0, 1_000_000), "light": (False, 5, 0)}))
    assert evidence.strength < 5


def test_a_unit_seen_in_both_arms_is_no_witness():
    evidence = UnitEvidence(terms(), Past())
    harvest = epoch(0, {"both": (True, 10, 10)})
    harvest.units[0, "both"][1][0] = 5
    evidence.read(harvest)
    assert (evidence.units, evidence.strength) == ([0, 0], pytest.approx(1.0))


def test_a_dump_goes_on_where_it_was():
    evidence, past = UnitEvidence(terms(), Past()), Past()
    units = {f"unit-{i}": (i % 10 == 0, 48, 2) for i in range(100)}
    read(evidence, epoch(3, units))
    again = UnitEvidence(terms(), past)
    again.restore(evidence.dump(4), 4)
    assert (again.strength, again.proofs(), again.families()) == (
        evidence.strength,
        evidence.proofs(),
        evidence.families(),
    )
