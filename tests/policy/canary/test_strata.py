"""What is compared with what, and what is slow."""

from collections import Counter
from math import exp, log
from statistics import quantiles as exact_quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.canary.strata import (
    ENOUGH,
    ENOUGH_AT_ALL,
    QUANTILES,
    WINDOW_S,
    Histogram,
    Key,
    Window,
    ancestry,
    borrowed,
    bucket,
    edges,
    quantiles,
)

KEY = Key(1, True, "m")
ALL = Key(None, None, None)


def histogram(samples: list[float]) -> Histogram:
    return Counter(map(bucket, samples))


@given(st.floats(1e-5, 1e5))
def test_a_bucket_is_two_percent_wide(latency_s):
    only = quantiles({bucket(latency_s): 1}, (0.0, 1.0))
    assert only[0] <= latency_s * (1 + 1e-9)
    assert only[1] >= latency_s * (1 - 1e-9)
    assert only[1] / only[0] == pytest.approx(exp(0.02))


def test_no_time_at_all_is_a_latency_too():
    assert bucket(0.0) == bucket(-1.0) == bucket(1e-6)


@given(st.lists(st.floats(0.001, 100.0), min_size=200, max_size=400))
def test_quantiles_are_those_of_the_samples_within_a_bucket(samples):
    found = quantiles(histogram(samples), (0.5, 0.9))
    ordered = sorted(samples)
    for p, value in zip((0.5, 0.9), found, strict=True):
        i = int(p * len(ordered))
        assert ordered[i - 1] * exp(-0.021) <= value <= ordered[min(i, len(ordered) - 1)] * exp(0.021)


def test_quantiles_of_an_even_spread():
    samples = [exp(i / 1000 * log(100.0)) for i in range(1000)]  # 1 s to 100 s
    exact = exact_quantiles(samples, n=100)
    assert quantiles(histogram(samples), QUANTILES) == pytest.approx(
        [exact[round(p * 100) - 1] for p in QUANTILES], rel=0.02
    )


@given(st.lists(st.floats(0.001, 100.0), min_size=1, max_size=300), st.sampled_from(QUANTILES))
def test_above_the_upper_edge_are_few_enough_and_above_the_lower_one_enough(samples, p):
    ((low, high),) = edges(histogram(samples), (p,))
    assert sum(each > high * (1 + 1e-9) for each in samples) <= (1 - p) * len(samples) + 1e-9
    assert sum(each >= low * (1 - 1e-9) for each in samples) >= (1 - p) * len(samples) - 1e-9


def test_a_stratum_borrows_without_model_then_without_stream_then_without_size():
    assert ancestry(KEY) == (KEY, Key(1, True, None), Key(1, None, None), ALL)


def test_few_samples_borrow_the_nearest_parent_that_has_enough():
    known = {
        KEY: histogram([1.0] * (ENOUGH - 1)),
        Key(1, True, None): histogram([2.0] * (ENOUGH - 1)),
        Key(1, None, None): histogram([3.0] * ENOUGH),
        ALL: histogram([4.0] * ENOUGH),
    }
    found, own = borrowed(known, KEY)
    assert found is not None
    assert (found[0].low < 3.0 < found[0].high, own) == (True, False)
    known[KEY] = histogram([1.0] * ENOUGH)
    found, own = borrowed(known, KEY)
    assert found is not None
    assert (found[0].low < 1.0 < found[0].high, own) == (True, True)
    found, own = borrowed({ALL: histogram([4.0] * ENOUGH_AT_ALL)}, KEY)
    assert found is not None
    assert (found[0].low < 4.0 < found[0].high, own) == (True, False)
    assert borrowed({ALL: histogram([4.0] * (ENOUGH_AT_ALL - 1))}, KEY) == (None, False)


def test_a_window_forgets_after_30_minutes():
    window = Window()
    window.add({KEY: [100] * 3}, 10.0)
    window.add({KEY: [100] * 4}, 400.0)
    assert window.all()[ALL] == {100: 7}
    window.expire(WINDOW_S + 299.0)
    assert window.all()[ALL] == {100: 7}
    window.expire(WINDOW_S + 300.0)
    assert window.all()[ALL] == {100: 4}
    assert window.samples == {KEY: 4}
    window.expire(WINDOW_S + 600.0)
    assert window.all() == window.samples == {}


def test_parents_know_what_their_children_took():
    window = Window()
    window.add({KEY: [100] * 3, Key(2, False, "n"): [200, 100, 200]}, 0.0)
    assert window.all()[ALL] == {100: 4, 200: 2}
    assert window.all()[Key(2, None, None)] == {100: 1, 200: 2}
