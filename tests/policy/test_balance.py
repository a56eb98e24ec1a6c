from collections import Counter
from collections.abc import Sequence
from heapq import heappop, heappush
from math import ceil
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.policy.balance import KINDS, LOAD_FACTOR, Node, SmoothRoundRobin, balancer
from proxy.policy.load import Load

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


# The balancers. Requests and waits come from seeded dice, moments from a counted clock.

BY_LOAD = ["least_request", "least_work", "peak_ewma"]
member_weights = st.lists(st.integers(0, 100), min_size=2, max_size=8).filter(any)
seeds = st.integers(0, 2**32)


class Pool:
    """A pool under a steady load: one request begins every `every_s`, and ends when its member has done it."""

    def __init__(self, kind: str, weights: Sequence[int], seed: int = 0, slow_start_s: float = 0.0) -> None:
        self.hashes = kind == "prefix_hash"
        self.nodes = [Node(f"member-{index}", weight, Load()) for index, weight in enumerate(weights)]
        self.dice = Random(seed)
        self.balancer = balancer(kind, self.nodes, Random(seed + 1), slow_start_s)
        self.now_s = 0.0
        self.slower = [1.0] * len(self.nodes)
        self.fails = [False] * len(self.nodes)
        self.open: list[tuple[float, int, int, float]] = []
        self.count = 0

    def picks(
        self, count: int, *, busy: int = 0, every_s: float = 0.01, usable: Sequence[int] | None = None
    ) -> list[int]:
        """How many requests each member got; `busy` are under way at a time, on average, where all are well."""
        got = [0] * len(self.nodes)
        for _ in range(count):
            self.now_s += every_s
            while self.open and self.open[0][0] <= self.now_s:
                self.end(*heappop(self.open))
            self.count += 1
            prefix = b"%d" % self.count if self.hashes else b""
            index = self.balancer.pick(self.now_s, 1.0, prefix, usable)
            got[index] += 1
            self.nodes[index].load.began(1.0)
            wait_s = busy * every_s * self.slower[index] * (0.5 + self.dice.random())
            if self.fails[index] or not busy:
                self.end(self.now_s, self.count, index, 0.1 * self.slower[index])
            else:
                heappush(self.open, (self.now_s + wait_s, self.count, index, wait_s))
        return got

    def end(self, now_s: float, _number: int, index: int, wait_s: float) -> None:
        failed = self.fails[index]
        self.nodes[index].load.ended(1.0, now_s, None if failed else wait_s, failed, 100)


def furthest_off(got: Sequence[int], weights: Sequence[int]) -> float:
    """By how much of the whole the share that is furthest from its weight is off."""
    return max(abs(count / sum(got) - weight / sum(weights)) for count, weight in zip(got, weights, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2, deadline=None)
@given(member_weights, seeds)
def test_shares_of_idle_equals_are_those_of_their_weights(kind, weights, seed):
    assert furthest_off(Pool(kind, weights, seed).picks(100_000), weights) < 0.01


@pytest.mark.parametrize("kind", BY_LOAD)
@settings(max_examples=3, deadline=None)
@given(st.sampled_from([10, 50]), member_weights, seeds)
def test_shares_of_busy_equals_are_those_of_their_weights(kind, busy, weights, seed):
    assert furthest_off(Pool(kind, weights, seed).picks(100_000, busy=busy), weights) < 0.01


@pytest.mark.parametrize("kind", BY_LOAD)
@pytest.mark.parametrize("weights", [[100, 1, 1, 1, 1, 1, 1, 1], [90, 10], [0, 100, 3, 0, 2]])
def test_light_members_beside_a_heavy_one_are_not_favoured_for_being_idle(kind, weights):
    assert furthest_off(Pool(kind, weights).picks(20_000, busy=10), weights) < 0.01


@settings(max_examples=3, deadline=None)
@given(member_weights, seeds)
def test_prefixes_of_a_busy_pool_are_spread_by_weight_but_for_what_the_bound_moves(weights, seed):
    assert furthest_off(Pool("prefix_hash", weights, seed).picks(20_000, busy=2000), weights) < 0.02


@pytest.mark.parametrize("kind", BY_LOAD)
def test_a_slow_member_gets_less_and_its_share_again_when_it_is_well(kind):
    pool = Pool(kind, [1, 1, 1, 1])
    pool.slower[0] = 5.0
    pool.picks(2000, busy=50)
    assert pool.picks(10_000, busy=50)[0] < 0.6 * 2500
    pool.slower[0] = 1.0
    pool.picks(6000, busy=50)  # a minute
    assert furthest_off(pool.picks(10_000, busy=50), [1, 1, 1, 1]) < 0.01


@pytest.mark.parametrize("busy", [0, 10, 50])
@pytest.mark.parametrize("kind", [*BY_LOAD, "prefix_hash"])
def test_one_that_fails_at_once_draws_little_and_its_share_again_when_it_is_well(kind, busy):
    pool = Pool(kind, [1, 1, 1, 1])
    pool.fails[0] = True
    pool.picks(1000, busy=busy)
    assert pool.picks(5000, busy=busy)[0] < 0.25 * 1250
    pool.fails[0] = False
    pool.picks(10_000, busy=busy)  # a hundred seconds
    assert pool.picks(10_000, busy=busy)[0] > 0.9 * 2500


@pytest.mark.parametrize("kind", BY_LOAD)
def test_one_that_was_avoided_for_long_gets_no_burst_when_it_is_well(kind):
    pool = Pool(kind, [1, 1, 1, 1])
    pool.fails[0] = True
    pool.picks(20_000, busy=20)
    pool.fails[0] = False
    pool.picks(5000, busy=20)
    assert all(pool.picks(100, busy=20)[0] < 40 for _ in range(50))


@pytest.mark.parametrize("kind", KINDS)
def test_weight_of_a_newcomer_grows_from_a_tenth_to_the_whole(kind):
    pool = Pool(kind, [50, 50], slow_start_s=100.0)
    pool.nodes[0].load.returned(0.0)
    pool.now_s = -0.01
    shares = [pool.picks(1000)[0] / 1000 for _ in range(11)]  # of ten seconds each
    for tenth, share in enumerate(shares[:10]):
        ramp = 0.1 + 0.9 * (tenth + 0.5) / 10
        assert share == pytest.approx(ramp / (1 + ramp), abs=0.05 if kind == "prefix_hash" else 0.01)
    assert shares[10] == pytest.approx(0.5, abs=0.05 if kind == "prefix_hash" else 0.01)


def test_members_that_all_start_slowly_share_as_ever():
    pool = Pool("least_request", [3, 1], slow_start_s=30.0)
    for node in pool.nodes:
        node.load.returned(0.0)
    assert pool.picks(400, every_s=0.001) == [300, 100]


def test_a_member_without_samples_is_neither_flooded_nor_starved():
    pool = Pool("peak_ewma", [1, 1, 1, 1])
    pool.picks(1000, busy=20)
    pool.nodes[3].load.returned(pool.now_s)
    assert 10 <= pool.picks(100, busy=20)[3] <= 45


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(member_weights, seeds, st.data())
def test_only_usable_members_are_picked_and_of_weight_zero_only_where_there_are_no_others(kind, weights, seed, data):
    usable = data.draw(st.lists(st.integers(0, len(weights) - 1), min_size=1, unique=True))
    got = Pool(kind, weights, seed).picks(60, busy=data.draw(st.integers(0, 9)), usable=usable)
    picked = {index for index, count in enumerate(got) if count}
    assert picked <= ({index for index in usable if weights[index]} or set(usable))


@pytest.mark.parametrize("kind", ["smooth_rr", *BY_LOAD])
def test_usable_members_share_by_their_weights(kind):
    assert Pool(kind, [5, 3, 7, 1]).picks(8000, usable=[1, 2])[1:3] == pytest.approx([2400, 5600], abs=5)
    assert Pool(kind, [5, 0, 0, 1]).picks(1000, usable=(1, 2))[1:3] == pytest.approx([500, 500], abs=5)


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_is_usable_that_is_said(kind):
    with pytest.raises(ValueError, match="usable"):
        Pool(kind, [1, 2]).picks(1, usable=())


@pytest.mark.parametrize("kind", KINDS)
def test_one_member_is_always_the_one(kind):
    assert Pool(kind, [7]).picks(50, busy=20) == [50]
    assert Pool(kind, [7]).picks(50, busy=20, usable=[0]) == [50]


@pytest.mark.parametrize("kind", KINDS)
def test_members_that_all_weigh_nothing_are_no_pool(kind):
    with pytest.raises(ValueError, match="weight above 0"):
        Pool(kind, [0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_dice_and_clock_give_the_same_picks(kind):
    one, other = (Pool(kind, [3, 2, 1], seed=5) for _ in range(2))
    assert one.picks(500, busy=10) == other.picks(500, busy=10)


@pytest.mark.parametrize("throw", [0.0, 0.5, 1 - 2**-53])
@given(weights=member_weights)
def test_no_throw_of_the_dice_falls_off_the_edge(throw, weights):
    class Loaded:
        def random(self) -> float:
            return throw

    nodes = [Node(str(index), weight, Load()) for index, weight in enumerate(weights)]
    pick = balancer("least_request", nodes, Loaded()).pick
    for usable in (None, range(len(nodes))):
        for _ in range(20):
            index = pick(0.0, usable=usable)
            nodes[index].load.began(1.0)
            assert weights[index]


prefixes = [b"prompt %d" % number for number in range(300)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=2, max_size=8), st.data())
def test_when_a_member_leaves_only_its_own_prefixes_move(weights, data):
    pick = Pool("prefix_hash", weights).balancer.pick
    gone = data.draw(st.integers(0, len(weights) - 1))
    left = [index for index in range(len(weights)) if index != gone]
    before = [pick(0.0, prefix=prefix) for prefix in prefixes]
    after = [pick(0.0, prefix=prefix, usable=left) for prefix in prefixes]
    assert all(was in (now, gone) for was, now in zip(before, after, strict=True))
    assert before == [pick(0.0, prefix=prefix) for prefix in prefixes]


def test_prefixes_have_the_same_member_in_every_process():
    pick = Pool("prefix_hash", [3, 2, 1]).balancer.pick
    assert [pick(0.0, prefix=prefix) for prefix in prefixes[:12]] == [1, 0, 1, 2, 2, 0, 0, 0, 1, 0, 2, 2]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=8).filter(any), st.integers(1, 200))
@example(weights=[31, 33, 49, 83], count=32)  # 40 / 196 * 49 is a little more than 10
def test_no_member_is_filled_beyond_its_bound_for_a_prefix(weights, count):
    pool = Pool("prefix_hash", weights)
    for _ in range(count):  # one prompt only
        index = pool.balancer.pick(0.0, prefix=b"the same")
        pool.nodes[index].load.began(1.0)
    for node in pool.nodes:
        assert node.load.inflight <= ceil(LOAD_FACTOR * count * node.weight / sum(weights))


def test_without_a_prefix_load_decides():
    pool = Pool("prefix_hash", [1, 1])
    for _ in range(9):
        pool.nodes[0].load.began(100.0)
    assert [pool.balancer.pick(0.0) for _ in range(4)] == [1, 1, 1, 1]
