"""Which key is next: by weight, by what is left of its quota, and only of those that may be used."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.key_turns import LEAST_LEFT, KeyTurns

shares = st.floats(0, 1)


def picks(turns: KeyTurns, count: int, used: list[float], usable: list[int] | None = None) -> Counter[int]:
    return Counter(turns.pick(used, range(len(used)) if usable is None else usable) for _ in range(count))


@pytest.mark.parametrize(
    ("weights", "used", "expected"),
    [
        ([1], [0.0], [100]),
        ([1, 1], [0.0, 0.0], [50, 50]),
        ([3, 1], [0.0, 0.0], [75, 25]),
        ([1, 1], [0.75, 0.25], [25, 75]),
        ([3, 1], [0.5, 0.5], [75, 25]),
        ([1, 3], [0.25, 0.75], [50, 50]),
        ([1, 1], [1.0, 1.0], [50, 50]),
        ([1, 1], [0.0, 1.0], [99, 1]),
        ([1000, 1], [0.999, 0.0], [91, 9]),
    ],
)
def test_shares_are_weights_by_what_is_left(weights, used, expected):
    got = picks(KeyTurns(weights), 100, used)
    assert [got[index] for index in range(len(weights))] == expected


def test_turns_of_the_heavy_key_are_spread_out():
    turns = KeyTurns([5, 1, 1])
    assert [turns.pick([0.0] * 3, range(3)) for _ in range(7)] == [0, 0, 1, 0, 2, 0, 0]


def test_key_that_seems_used_up_is_still_asked_now_and_then():
    turns = KeyTurns([1, 1])
    asked = [index for index in range(1000) if turns.pick([0.0, 1.0], range(2)) == 1]
    assert len(asked) == round(1000 * LEAST_LEFT / (1 + LEAST_LEFT))
    assert min(later - earlier for earlier, later in pairwise(asked)) > 90


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.data())
def test_only_usable_keys_are_picked(weights, data):
    turns, everyone = KeyTurns(weights), range(len(weights))
    for _ in range(20):
        used = data.draw(st.lists(shares, min_size=len(weights), max_size=len(weights)))
        usable = data.draw(st.lists(st.sampled_from(everyone), min_size=1, unique=True))
        assert turns.pick(used, usable) in usable


@given(st.lists(st.tuples(st.integers(1, 100), shares), min_size=1, max_size=6))
def test_nobody_waits_for_more_than_its_part_of_the_turns(keys):
    weights, used = [weight for weight, _ in keys], [share for _, share in keys]
    turns, count = KeyTurns(weights), 200
    parts = [weight * max(LEAST_LEFT, 1 - share) for weight, share in keys]
    got = picks(turns, count, used)
    for index, part in enumerate(parts):
        assert abs(got[index] - count * part / sum(parts)) <= len(keys)


def test_turns_of_a_key_that_may_not_be_used_are_neither_lost_nor_saved():
    turns = KeyTurns([1, 1, 1])
    none = [0.0] * 3
    assert picks(turns, 300, none, [1, 2]) == {1: 150, 2: 150}
    assert picks(turns, 30, none) == {0: 10, 1: 10, 2: 10}
    assert picks(turns, 1, none, [2]) == {2: 1}
    assert picks(turns, 30, none) == {0: 10, 1: 10, 2: 10}


def test_quota_that_is_free_again_counts_at_once():
    turns = KeyTurns([1, 1])
    picks(turns, 500, [0.0, 1.0])
    got = picks(turns, 100, [0.0, 0.0])
    assert abs(got[0] - 50) <= 1
