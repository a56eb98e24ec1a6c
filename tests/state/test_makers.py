"""Who made what: remembered for as long as providers keep it, and never more than fits."""

import pytest

from proxy.state import makers as module
from proxy.state.makers import KEPT_S, Maker, Makers

EAST, WEST = Maker("east", "main"), Maker("west", None)


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def makers(clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_IDS", 3)
    return Makers(clock)


def test_is_found_as_it_was_remembered(makers):
    makers.remember(b"a", EAST)
    makers.remember(b"b", WEST)
    assert (makers.find(b"a"), makers.find(b"b"), makers.find(b"A")) == (EAST, WEST, None)


def test_nothing_is_found_at_first(makers):
    assert makers.find(b"a") is None


@pytest.mark.parametrize(("passed_s", "found"), [(0, EAST), (KEPT_S - 1, EAST), (KEPT_S, None), (KEPT_S + 1, None)])
def test_is_forgotten_in_time(makers, clock, passed_s, found):
    makers.remember(b"a", EAST)
    clock.now_s += passed_s
    assert makers.find(b"a") == found
    assert len(makers.made) == (found is not None)


def test_asking_does_not_keep_it_longer(makers, clock):
    makers.remember(b"a", EAST)
    clock.now_s += KEPT_S - 1
    makers.find(b"a")
    clock.now_s += 1
    assert makers.find(b"a") is None


def test_what_is_handed_out_again_counts_from_then(makers, clock):
    makers.remember(b"a", EAST)
    clock.now_s += KEPT_S - 1
    makers.remember(b"a", EAST)
    clock.now_s += KEPT_S - 1
    assert makers.find(b"a") == EAST
    assert len(makers.made) == 1


def test_the_oldest_makes_room(makers):
    for made in (b"a", b"b", b"c", b"d"):
        makers.remember(made, EAST)
    assert list(makers.made) == [b"b", b"c", b"d"]


@pytest.mark.parametrize("use", [lambda makers: makers.find(b"a"), lambda makers: makers.remember(b"a", EAST)])
def test_what_is_in_use_stays(makers, use):
    for made in (b"a", b"b", b"c"):
        makers.remember(made, EAST)
    use(makers)
    makers.remember(b"d", EAST)
    assert sorted(makers.made) == [b"a", b"c", b"d"]


def test_bound_holds_however_many_are_made(makers):
    for number in range(1000):
        makers.remember(b"%d" % number, EAST)
        assert len(makers.made) <= 3
