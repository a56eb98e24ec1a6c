"""What limits promise holds for all workers together: several, here in one process, with the same cells."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.limits import CONCURRENT_RETRY_S, Limits, NoneUnderWay, Refused
from proxy.workers import cells as module
from proxy.workers.cells import ABOVE, Cells, Rows, SharedLimit, SharedLimits

NAME = "client/c"
NOW_S = 1000.0
STARTS_S = st.sampled_from([0.0, 12345.678, 1e7])
PASSES_S = st.one_of(st.just(0.0), st.floats(0, 1), st.floats(0, 200))
MAYBE = st.none() | st.integers(1, 50)


class World:
    """The limits of one name, above and in each worker, as `Rows` make them."""

    def __init__(self, size: int = 2, name: str = NAME) -> None:
        self.cells = Cells(size)
        self.rows = Rows(self.cells, ABOVE)
        self.above = self.rows.limits(name)
        self.workers = [self.limits_of(number) for number in range(size)]

    def limits_of(self, worker: int, name: str = NAME) -> Limits:
        """As a worker has them that is told now what row is whose."""
        rows = Rows(self.cells, worker)
        rows.numbers.update(self.rows.numbers)
        return rows.limits(name)

    def configured(self, requests: int | None, tokens: int | None, concurrent: int | None, now_s: float = NOW_S):
        for limits in (self.above, *self.workers):
            limits.reconfigured(requests, tokens, concurrent, now_s)
        return self.workers

    def dies(self, worker: int) -> None:
        """And another one follows, with its number."""
        self.cells.forget_worker(worker, len(self.rows.numbers))
        successor = self.limits_of(worker)
        successor.reconfigured(
            *(limit and limit.per_minute for limit in (self.above.requests, self.above.tokens)),
            self.above.concurrent,
            NOW_S,
        )
        self.workers[worker] = successor


def test_what_one_spends_all_lack():
    one, other = World().configured(2, 600, None)
    assert one.begin(0, NOW_S) is None
    assert other.begin(600, NOW_S) is None
    assert one.begin(0, NOW_S) == other.begin(0, NOW_S) == Refused("requests", 2, 30.0)
    assert one.tokens.remaining(NOW_S) == 0
    assert one.headers(NOW_S) == other.headers(NOW_S)


def test_so_many_at_once_are_so_many_in_all():
    one, other = World().configured(None, None, 2)
    assert (one.begin(0, NOW_S), other.begin(0, NOW_S)) == (None, None)
    for limits in (one, other):
        assert limits.begin(0, NOW_S) == Refused("concurrent", 2, CONCURRENT_RETRY_S)
        assert limits.in_all == 2
    one.ended(0, None, NOW_S)
    assert other.begin(0, NOW_S) is None
    assert one.begin(0, NOW_S) is not None


def test_above_sees_what_all_have_open():
    world = World(3)
    for number, limits in enumerate(world.configured(None, None, None)):
        for _ in range(number):
            limits.began(0, NOW_S)
    assert (world.above.in_all, world.above.under_way) == (3, 0)


def test_a_request_ends_where_it_began():
    one, other = World().configured(None, None, 5)
    one.began(0, NOW_S)
    with pytest.raises(NoneUnderWay):
        other.ended(0, None, NOW_S)
    assert (one.in_all, other.in_all) == (1, 1)


def test_what_came_to_nothing_is_undone_for_all():
    one, other = World().configured(10, 100, 1)
    assert one.begin(40, NOW_S) is None
    one.undo(40, NOW_S)
    assert (other.requests.remaining(NOW_S), other.tokens.remaining(NOW_S), other.in_all) == (10, 100, 0)


def test_usage_corrects_the_estimate_for_all():
    one, other = World().configured(None, 1000, None)
    one.began(100, NOW_S)
    one.ended(100, 30, NOW_S)
    assert other.tokens.remaining(NOW_S) == 970
    other.began(100, NOW_S)
    other.ended(100, 1200, NOW_S)
    assert one.refusal(1, NOW_S).limit == "tokens"
    assert one.tokens.reset_s(NOW_S) == pytest.approx(1230 * 0.06)


def test_a_worker_that_died_leaves_nothing_open_and_what_it_used_is_used():
    world = World()
    one, other = world.configured(10, None, 3)
    for _ in range(3):
        one.began(0, NOW_S)
    assert other.begin(0, NOW_S) is not None
    world.dies(0)
    assert (world.above.in_all, other.in_all, world.workers[0].in_all) == (0, 0, 0)
    assert other.begin(0, NOW_S) is None
    assert [limits.requests.remaining(NOW_S) for limits in world.workers] == [6, 6]


def test_a_worker_that_comes_later_finds_what_is_used():
    world = World()
    world.configured(10, 100, None)[0].began(50, NOW_S)
    late = world.limits_of(1)
    late.reconfigured(10, 100, None, NOW_S)
    assert (late.requests.remaining(NOW_S), late.tokens.remaining(NOW_S)) == (9, 50)


@pytest.mark.parametrize(
    ("used", "before", "after"), [(0, 600, 100), (300, 600, 1200), (50, 600, 100), (300, 600, 100), (600, 600, 60)]
)
def test_a_rate_that_changes_is_reckoned_once(used, before, after):
    world, alone = World(4), Limits(before)
    world.configured(before, None, None)[0].requests.take(used, NOW_S)
    alone.requests.take(used, NOW_S)
    world.configured(after, None, None)
    alone.reconfigured(after, None, None, NOW_S)
    for limits in (world.above, *world.workers):
        assert limits.requests.told(NOW_S) == alone.requests.told(NOW_S)
        assert limits.requests.wait_s(after, NOW_S) == alone.requests.wait_s(after, NOW_S)


@given(STARTS_S, st.integers(0, 1000), st.lists(st.tuples(st.integers(1, 1000), PASSES_S), max_size=8))
def test_any_reloads_do_as_they_would_in_one_process(now_s, used, reloads):
    world, alone = World(3), Limits(500)
    world.configured(500, None, None, now_s)[1].requests.take(used, now_s)
    alone.requests.take(used, now_s)
    for per_minute, passes_s in reloads:
        now_s += passes_s
        world.configured(per_minute, None, None, now_s)
        alone.reconfigured(per_minute, None, None, now_s)
        for limits in world.workers:
            assert limits.requests.reset_s(now_s) == pytest.approx(alone.requests.reset_s(now_s))


def test_a_limit_that_went_and_comes_again_is_full():
    world = World()
    world.configured(10, None, None)[0].requests.take(10, NOW_S)
    world.configured(None, None, None)
    assert [limits.begin(10**6, NOW_S) for limits in world.workers] == [None, None]
    world.configured(10, None, None)
    assert [limits.requests.remaining(NOW_S) for limits in world.workers] == [10, 10]


def test_a_row_that_is_asked_for_again_is_the_same_one():
    world = World()
    world.configured(10, None, None)[0].requests.take(4, NOW_S)
    again = world.rows.limits(NAME)
    assert world.rows.numbers == {NAME: 0}
    again.reconfigured(10, None, None, NOW_S)
    assert again.requests.remaining(NOW_S) == 10, "above, a name that comes back has used nothing"


def test_rows_do_not_touch_each_other():
    world = World(2)
    names = [f"client/{number}" for number in range(5)]
    for name in names:
        world.rows.limits(name).reconfigured(10, 100, 5, NOW_S)
    for number, name in enumerate(names):
        limits = world.limits_of(number % 2, name)
        limits.reconfigured(10, 100, 5, NOW_S)
        for _ in range(number):
            limits.began(10, NOW_S)
    for number, name in enumerate(names):
        seen = world.limits_of((number + 1) % 2, name)
        seen.reconfigured(10, 100, 5, NOW_S)
        assert (seen.requests.remaining(NOW_S), seen.tokens.remaining(NOW_S), seen.in_all) == (
            10 - number,
            100 - 10 * number,
            number,
        )


def test_who_has_no_row_has_limits_of_its_own(monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 2)
    rows = Rows(Cells(2), ABOVE)
    made = [rows.limits(f"client/{number}") for number in range(3)]
    assert [isinstance(limits, SharedLimits) for limits in made] == [True, True, False]
    assert rows.numbers == {"client/0": 0, "client/1": 1}
    assert isinstance(rows.limits("client/1"), SharedLimits)
    for limits in made:
        limits.reconfigured(1, 1, 1, NOW_S)
        assert limits.begin(1, NOW_S) is None
        assert limits.begin(1, NOW_S) is not None
        limits.ended(1, None, NOW_S)


def test_a_worker_that_was_told_of_no_row_has_limits_of_its_own():
    world = World()
    world.rows.limits("client/new")
    limits = Rows(world.cells, 0).limits("client/new")
    assert not isinstance(limits, SharedLimits)


def test_the_last_row_of_the_last_worker_is_within(monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 3)
    world = World(2)
    for number in range(2):
        world.rows.limits(f"client/{number}")
    last = world.limits_of(1, "client/1")
    last.reconfigured(1, 1, 1, NOW_S)
    last.began(0, NOW_S)
    assert world.cells.others(2, ABOVE) == 1
    world.cells.forget_worker(1, len(world.rows.numbers))
    assert world.cells.others(2, ABOVE) == 0


EVENTS = st.tuples(
    st.sampled_from(("begins", "begins", "ends", "fails", "dies", "reloads")),
    st.integers(0, 2),
    PASSES_S,
    st.integers(0, 3000),
)


@given(STARTS_S, MAYBE, st.none() | st.integers(1, 5000), MAYBE, st.lists(EVENTS, max_size=80))
def test_workers_together_do_as_one_process_would(now_s, requests, tokens, concurrent, events):
    """Whoever is asked: the same is let through, for the same reasons, and the same is told of what is left."""
    world, alone = World(3), Limits(requests, tokens, concurrent)
    world.configured(requests, tokens, concurrent, now_s)
    for event, worker, passes_s, cost in events:
        now_s += passes_s
        limits = world.workers[worker]
        if event == "ends" and limits.under_way:
            limits.ended(cost, cost // 2, now_s)
            alone.ended(cost, cost // 2, now_s)
        elif event == "dies":
            for _ in range(limits.under_way):
                alone.ended(0, None, now_s)
            world.dies(worker)
        elif event == "reloads":
            world.configured(requests, tokens, concurrent, now_s)
            alone.reconfigured(requests, tokens, concurrent, now_s)
        elif event in ("begins", "fails"):
            refused, expected = limits.begin(cost, now_s), alone.begin(cost, now_s)
            assert (refused is None) == (expected is None)
            if refused is not None:
                assert refused.retry_after_s == pytest.approx(expected.retry_after_s, abs=1e-5)
            if event == "fails" and refused is None:
                limits.undo(cost, now_s)
                alone.undo(cost, now_s)
        for each in world.workers:
            for bucket, other in ((each.requests, alone.requests), (each.tokens, alone.tokens)):
                if other is not None:  # the sums are others: alike but for rounding
                    assert bucket.reset_s(now_s) == pytest.approx(other.reset_s(now_s), abs=1e-5)
                    assert abs(bucket.remaining(now_s) - other.remaining(now_s)) <= 1
            assert each.in_all == alone.under_way == world.above.in_all


class HeldUp(SharedLimit):
    """A worker that the system lets wait amid a request, while others go on."""

    __slots__ = ("_rate", "meanwhile")

    def __init__(self, *arguments):
        self.meanwhile = lambda: None
        super().__init__(*arguments)

    @property
    def _each_s(self):
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return self._rate

    @_each_s.setter
    def _each_s(self, rate):
        self._rate = rate


def test_who_is_held_up_amid_a_request_undoes_nothing():
    cells = Cells(2)
    slow, quick = HeldUp(100, cells, cells.bucket(0, 0), 0), SharedLimit(100, cells, cells.bucket(0, 0), 1)
    slow.meanwhile = lambda: [quick.spend(1, NOW_S) for _ in range(50)]
    assert slow.spend(1, NOW_S)
    assert quick.remaining(NOW_S) == slow.remaining(NOW_S) == 49
