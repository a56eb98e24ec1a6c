from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.balance import SmoothRoundRobin

weight_lists = st.lists(st.integers(0, 20), min_size=1, max_size=8).filter(any)


def picks(weights: list[int], count: int) -> list[int]:
    turn = SmoothRoundRobin(weights)
    return [turn.pick() for _ in range(count)]


@given(weight_lists, st.integers(1, 3))
def test_shares_are_exact_over_whole_cycles(weights, cycles):
    counts = Counter(picks(weights, cycles * sum(weights)))
    assert [counts[index] for index in range(len(weights))] == [cycles * weight for weight in weights]


@given(weight_lists, st.data())
def test_shares_are_never_far_off_within_a_cycle(weights, data):
    total, members = sum(weights), len(weights)
    count = data.draw(st.integers(0, total))
    counts = Counter(picks(weights, count))
    for index, weight in enumerate(weights):
        assert abs(counts[index] - count * weight / total) < members


@given(weight_lists)
def test_cycles_repeat(weights):
    total = sum(weights)
    order = picks(weights, 2 * total)
    assert order[:total] == order[total:]


@given(st.integers(2, 30), st.integers(1, 29))
def test_two_members_are_spread_out_as_evenly_as_can_be(heavy, light):
    light = min(light, heavy)
    order = picks([heavy, light], heavy + light)
    runs = "".join(map(str, order)).strip("1").split("1")
    assert max(map(len, runs)) <= -(-heavy // light) + 1
    assert "11" not in "".join(map(str, order))


@given(weight_lists)
def test_weight_of_zero_is_never_picked(weights):
    assert all(weights[index] for index in picks(weights, 2 * sum(weights)))


def test_order_is_the_one_of_nginx():
    assert picks([5, 1, 1], 7) == [0, 0, 1, 0, 2, 0, 0]


@pytest.mark.parametrize("weights", [[], [0], [0, 0], [1, -1]])
def test_weights_that_share_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="weight above 0"):
        SmoothRoundRobin(weights)
