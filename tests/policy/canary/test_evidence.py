"""A step's evidence: how its processes share the wealth, what is asked before the next step, what is slow."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.canary.counts import CHUNK, EARLY, EARLY_TTFT, FINE, LATE, NEXT_RANKS, SMOOTH, TALLY, Counts, Harvest
from proxy.policy.canary.evidence import StepEvidence, failure_rate
from proxy.policy.canary.history import History, Thresholds, Tolerance
from proxy.policy.canary.strata import Key, bucket
from proxy.policy.canary.terms import LATENCIES, RATES, Terms

KEY, OTHER = Key(1, True, "m"), Key(2, True, "m")


def terms(*metrics: str, weight: float = 0.1, next_weight: float | None = 0.5, warming: bool = False) -> Terms:
    return Terms(
        weight,
        next_weight,
        1000,
        {name: 1.1 for name in LATENCIES if name in metrics},
        {name: 0.01 for name in RATES if name in metrics},
        {"errors": 0.005, "stalls": 0.001},
        warming,
    )


ALL_METRICS = (*LATENCIES, *RATES)


def slice_of(canary: tuple[int, int], baseline: tuple[int, int], size: int, at: int = FINE) -> Counts:
    """Fine and bad ones of each arm."""
    counts = [0] * (2 * size)
    counts[at : at + 2] = baseline
    counts[size + at : size + at + 2] = canary
    return counts


def harvest(early: list[Counts] = [], late: list[Counts] = [], first: int = 0) -> Harvest:  # noqa: B006 - only read
    found = Harvest(1)
    found.early = dict(enumerate(early, first))
    found.late = dict(enumerate(late, first))
    return found


# --- shares ---------------------------------------------------------------------------------------------------------


@given(st.sets(st.sampled_from(ALL_METRICS), min_size=1), st.booleans())
def test_the_processes_share_one_wealth(metrics, warming):
    evidence = StepEvidence(terms(*metrics, warming=warming))
    if evidence.worse:
        assert sum(evidence.terms.shares(frozenset(evidence.worse)).values()) == pytest.approx(1.0)
        assert set(evidence.families().values()) == {1.0}


def test_families_share_alike():
    shares = terms(*ALL_METRICS).shares(frozenset(StepEvidence(terms(*ALL_METRICS)).worse))
    assert shares["ttft"] + shares["ttft_late"] == pytest.approx(1 / 3)
    assert shares["time_per_chunk"] == pytest.approx(1 / 3)


def test_a_warm_up_judges_errors_and_no_latency():
    assert set(StepEvidence(terms(*ALL_METRICS, warming=True)).worse) == {"errors", "late_errors", "stalls"}


def test_what_is_proved_early_and_what_late_are_not_added_up():
    evidence = StepEvidence(terms("errors"))
    evidence.read(harvest(early=[slice_of((0, 20), (180, 1), EARLY)]))
    early = evidence.strength
    assert early == pytest.approx(2 / 3 * evidence.worse["errors"].value)
    evidence.read(harvest(late=[slice_of((0, 20), (180, 1), LATE)]))
    assert evidence.strength == early  # the late sum has a third of the wealth, and proves the same


@pytest.mark.parametrize("seed", range(5))
def test_equal_arms_prove_nothing_and_unequal_ones_soon(seed):
    rng = random.Random(seed)

    def slices(rate: float) -> list[Counts]:
        bad = [
            (sum(rng.random() < rate for _ in range(10)), sum(rng.random() < 0.02 for _ in range(90)))
            for _ in range(60)
        ]
        return [slice_of((10 - canary, canary), (90 - baseline, baseline), EARLY) for canary, baseline in bad]

    alike, worse = StepEvidence(terms("errors")), StepEvidence(terms("errors"))
    alike.read(harvest(early=slices(0.02)))
    worse.read(harvest(early=slices(0.15)))
    assert alike.strength < 100 < 1000 < worse.strength


# --- proofs ---------------------------------------------------------------------------------------------------------


def late_slice(chunk: bool) -> Counts:
    """Nobody fails or stalls; with `chunk` the baseline exceeds its median half the time, the canary never."""
    counts = slice_of((50, 0), (50, 0), LATE)
    counts[SMOOTH], counts[LATE + SMOOTH] = 50, 50
    if chunk:
        counts[CHUNK + NEXT_RANKS : CHUNK + NEXT_RANKS + 3] = [25, 20, 5]
        counts[LATE + CHUNK + NEXT_RANKS] = 50
    return counts


def test_what_hardly_anybody_uses_is_not_asked():
    evidence = StepEvidence(terms(*ALL_METRICS))
    evidence.read(harvest([slice_of((50, 0), (50, 0), EARLY)] * 30, [late_slice(False)] * 30))
    assert set(evidence.proofs()) == {"late_errors", "stalls"}
    evidence.read(harvest([slice_of((50, 0), (50, 0), EARLY)] * 2, [late_slice(True)] * 2, first=30))
    assert set(evidence.proofs()) == {"late_errors", "stalls", "time_per_chunk"}


def test_a_canary_that_is_fine_is_proved_to_be_and_one_that_was_not_asked_is_not():
    evidence = StepEvidence(terms(*ALL_METRICS, weight=0.5))
    assert evidence.proofs() == {"late_errors": 1.0, "stalls": 1.0}
    evidence.read(harvest(late=[late_slice(True)] * 60))
    assert min(evidence.proofs().values()) > 20


def test_the_last_step_asks_for_nothing():
    assert StepEvidence(terms(*ALL_METRICS, next_weight=None)).proofs() == {}


@pytest.mark.parametrize(
    ("next_weight", "factor", "difference"), [(0.05, 2.0, 0.02), (0.25, 1.2, 0.01), (0.5, 1.1, 0.01), (1.0, 1.1, 0.01)]
)
def test_a_small_step_needs_little_proof(next_weight, factor, difference):
    asked = terms(*ALL_METRICS, next_weight=next_weight)
    assert (asked.slower_then("ttft"), asked.worse_then("errors")) == (
        pytest.approx(factor),
        pytest.approx(difference),
    )


@pytest.mark.parametrize(("bad", "of", "rate"), [(0, 0, 0.01), (0, 1000, 0.001), (5, 1000, 0.005), (900, 1000, 0.2)])
def test_a_rate_is_guessed_within_bounds(bad, of, rate):
    assert failure_rate(bad, of) == pytest.approx(rate)


# --- what is slow ---------------------------------------------------------------------------------------------------


def measured(samples: dict[Key, list[float]], now_s: float = 0.0, history: History | None = None) -> History:
    history = history or History()
    found = Harvest(1)
    found.latencies = {"ttft": {key: list(map(bucket, each)) for key, each in samples.items()}}
    found.latencies["chunk"] = {key: [bucket(0.02)] * len(each) for key, each in samples.items()}
    history.read(found, now_s)
    return history


def thresholds(tolerance: float = 1.1) -> Thresholds:
    return Thresholds(Tolerance(tolerance, 2.0), Tolerance(tolerance, 2.0))


def test_thresholds_are_the_baselines_quantiles_and_the_canarys_times_the_tolerance():
    frozen = thresholds()
    assert frozen.refine(measured({KEY: [0.01 * i for i in range(1, 1001)]}))
    baseline, canary = frozen.limits[KEY].ttft
    assert baseline == pytest.approx([5.0, 7.5, 9.0, 9.5, 9.9], rel=0.021)
    assert canary == pytest.approx([1.1 * x for x in baseline])
    lower, twice = frozen.limits[KEY].ttft_next
    assert lower == pytest.approx([5.0, 9.0], rel=0.021)
    assert all(low < high for low, high in zip(lower, (baseline[0], baseline[2]), strict=True))
    assert twice == pytest.approx([2 * x for x in lower])


def test_what_is_a_stratums_own_stays_and_what_it_borrows_does_not():
    frozen = thresholds()
    history = measured({KEY: [1.0] * 200, OTHER: [9.0] * 100})
    frozen.refine(history)
    own, lent = frozen.limits[KEY], frozen.limits[OTHER]
    measured({KEY: [5.0] * 1000, OTHER: [9.0] * 100}, 10.0, history)
    assert frozen.refine(history)
    assert frozen.limits[KEY] == own
    assert frozen.limits[OTHER].ttft[0] == pytest.approx([9.0] * 5, rel=0.021)
    assert lent.ttft[0][0] == pytest.approx(1.0, rel=0.021)
    assert not frozen.refine(history)


def test_without_samples_nothing_is_slow():
    frozen = thresholds()
    assert not frozen.refine(measured({KEY: [1.0] * 49}))
    assert frozen.limits == {}


def test_waits_that_are_long_by_nature_close_late():
    frozen = thresholds()
    frozen.refine(measured({KEY: [1.0] * 300, OTHER: [14.0] * 300}))
    assert (frozen.limits[KEY].late, frozen.limits[OTHER].late) == (False, True)


def test_rates_are_those_of_the_last_half_hour():
    history = History()
    old, new = Harvest(1), Harvest(1)
    old.tally[:3] = [90, 4, 6]
    new.tally[:5] = [98, 0, 2, 7, 1]
    new.tally[TALLY : TALLY + 3] = [5, 5, 0]
    history.read(old, 100.0)
    history.read(new, 400.0)
    assert (history.error_rate(), history.stall_rate()) == ((12, 200), (1, 200))
    assert history.error_rate(canary=True) == (5, 10)
    history.read(Harvest(1), 2150.0)
    assert history.error_rate() == (2, 100)


def test_a_dump_of_thresholds_is_what_they_were():
    frozen, again = thresholds(), thresholds()
    frozen.refine(measured({KEY: [1.0] * 300, Key(0, False, "m"): [14.0] * 300}))
    again.restore(frozen.dump())
    assert again.limits == frozen.limits
    assert again.dump() == frozen.dump()
    assert EARLY_TTFT + NEXT_RANKS < EARLY
