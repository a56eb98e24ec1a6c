from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.obs.histogram import FINEST_S, STEP, Histogram, added_up, finer, quantile
from proxy.obs.metrics import DURATION_BUCKETS_S, FIRST_BYTE_BUCKETS_S, OVERHEAD_BUCKETS_S

ALL_BOUNDS = [DURATION_BUCKETS_S, FIRST_BYTE_BUCKETS_S, OVERHEAD_BUCKETS_S]
WAITS_S = st.floats(min_value=FINEST_S * STEP, max_value=60)


@pytest.mark.parametrize("bounds_s", ALL_BOUNDS)
def test_finer_bounds_rise_in_small_steps_and_have_the_coarse_ones_among_them(bounds_s):
    fine = finer(bounds_s)
    assert set(bounds_s) <= set(fine)
    assert all(low < high <= low * STEP * (1 + 1e-9) for low, high in pairwise(fine))
    assert fine[-1] == bounds_s[-1]


@given(st.lists(WAITS_S, min_size=1), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_quantile_lies_in_the_class_of_the_observation_that_it_is(waits_s, share):
    histogram = Histogram(FIRST_BYTE_BUCKETS_S)
    for wait_s in waits_s:
        histogram.observe(wait_s)
    rank = next(rank for rank in range(1, len(waits_s) + 1) if rank >= share * len(waits_s))
    true_s = sorted(waits_s)[rank - 1]
    assert true_s / STEP / 1.0001 <= quantile(histogram.bounds_s, histogram.counts, share) <= true_s * STEP * 1.0001


def test_quantiles_of_many_observations_are_within_five_percent():
    histogram = Histogram(DURATION_BUCKETS_S)
    for wait_ms in range(100, 3100):
        histogram.observe(wait_ms / 1000)
    found = [quantile(histogram.bounds_s, histogram.counts, share) for share in (0.5, 0.95, 0.99)]
    assert found == pytest.approx([1.6, 2.95, 3.07], rel=0.05)


def test_quantile_of_nothing_and_beyond_the_last_bound():
    assert quantile((1.0, 2.0), (0, 0, 0), 0.5) is None
    assert quantile((1.0, 2.0), (0, 0, 3), 0.5) == 2.0
    assert quantile((1.0, 2.0), (2, 2, 0), 0.75) == 1.5


def test_histograms_of_the_same_bounds_add_up():
    assert added_up([[1, 0, 2], [0, 3, 1]]) == (1, 3, 3)
