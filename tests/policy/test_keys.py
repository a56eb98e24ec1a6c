"""One value's life as stories, and as any sequence of events that the world may come up with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.policy.keys import (
    SENDABLE,
    TABLE,
    Event,
    IllegalTransition,
    Life,
    State,
    needs_warning,
    probe_verdict,
    retry_in_s,
)
from proxy.policy.retry import cooling_s

PROBE_VERDICTS = (Event.PROBE_PASSED, Event.PROBE_REFUSED, Event.PROBE_UNCLEAR)
ILLEGAL = [(state, event) for state in State for event in Event if (state, event) not in TABLE]


def lived(*events: Event, state: State = State.PENDING) -> Life:
    """A life to which this happened, one event a second from 1 s on, while nothing held it."""
    life = Life(0.0, state)
    for now_s, event in enumerate(events, 1):
        life.on(event, float(now_s))
    return life


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((), State.PENDING),
        ((Event.PROBE_BEGAN,), State.VALIDATING),
        ((Event.PROBE_BEGAN, Event.PROBE_PASSED), State.ACTIVE),
        ((Event.PROBE_BEGAN, Event.PROBE_REFUSED), State.QUARANTINED),
        ((Event.PROBE_BEGAN, Event.PROBE_UNCLEAR), State.PENDING),
        ((Event.PROBE_BEGAN, Event.PROBE_UNCLEAR, Event.PROBE_BEGAN, Event.PROBE_PASSED), State.ACTIVE),
        ((Event.WITHDRAWN,), State.RETIRED),
        ((Event.PROBE_BEGAN, Event.REPLACED), State.RETIRED),
        ((Event.PROBE_BEGAN, Event.PROBE_REFUSED, Event.WITHDRAWN, Event.EMPTIED), State.RETIRED),
    ],
)
def test_a_new_value_is_probed_before_it_serves(events, state):
    assert lived(*events).state is state


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((Event.COOLED,), State.COOLING),
        ((Event.COOLED, Event.COOLED, Event.WARMED), State.ACTIVE),
        ((Event.PROBE_BEGAN, Event.PROBE_REFUSED), State.QUARANTINED),
        ((Event.COOLED, Event.PROBE_BEGAN, Event.PROBE_REFUSED), State.QUARANTINED),
        ((Event.PROBE_REFUSED, Event.PROBE_BEGAN, Event.PROBE_PASSED), State.ACTIVE),
        ((Event.REPLACED,), State.DRAINING),
        ((Event.WITHDRAWN,), State.DRAINING),
        ((Event.COOLED, Event.REPLACED), State.DRAINING),
        ((Event.COOLED, Event.WITHDRAWN), State.DRAINING),
        ((Event.PROBE_REFUSED, Event.REPLACED), State.DRAINING),
        ((Event.REPLACED, Event.EMPTIED), State.RETIRED),
        ((Event.REPLACED, Event.EMPTIED, Event.REVOKED), State.REVOKED),
    ],
)
def test_a_value_that_serves_rests_comes_back_and_drains(events, state):
    assert lived(*events, state=State.ACTIVE).state is state


@pytest.mark.parametrize("state", [State.ACTIVE, State.COOLING, State.QUARANTINED])
@pytest.mark.parametrize("event", [Event.PROBE_BEGAN, Event.PROBE_UNCLEAR])
def test_a_further_probe_that_says_nothing_leaves_it_where_it_was(state, event):
    assert lived(event, state=state).state is state


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.ACTIVE, Event.PROBE_PASSED),
        (State.COOLING, Event.PROBE_PASSED),  # valid, but that is not why it rests
        (State.QUARANTINED, Event.PROBE_REFUSED),
    ],
)
def test_so_does_one_that_confirms_it(state, event):
    assert lived(event, state=state).state is state


@pytest.mark.parametrize("state", [State.DRAINING, State.RETIRED, State.REVOKED])
@pytest.mark.parametrize("event", PROBE_VERDICTS)
def test_an_answer_to_a_probe_may_come_too_late(state, event):
    assert lived(event, state=state).state is state


@pytest.mark.parametrize("state", [State.QUARANTINED, State.DRAINING, State.REVOKED])
def test_a_429_may_come_too_late(state):
    assert lived(Event.COOLED, state=state).state is state


def test_only_an_active_value_carries_new_requests():
    assert {State.ACTIVE} == SENDABLE


def test_a_draining_value_retires_only_after_its_last_lease():
    life = lived(Event.REPLACED, state=State.ACTIVE)
    with pytest.raises(IllegalTransition, match="draining was told emptied while 2 leases hold it; it retires at 0"):
        life.on(Event.EMPTIED, 9.0, leases=2)
    assert (life.state, life.since_s) == (State.DRAINING, 1.0)
    assert life.on(Event.EMPTIED, 10.0, leases=0) is State.RETIRED
    assert life.since_s == 10.0


@pytest.mark.parametrize("state", [State.PENDING, State.VALIDATING])
def test_a_value_that_never_served_retires_without_leases_too(state):
    life = Life(0.0, state)
    with pytest.raises(IllegalTransition, match="1 leases hold it"):
        life.on(Event.WITHDRAWN, 1.0, leases=1)
    assert life.state is state


@pytest.mark.parametrize("state", [one for one in State if one is not State.RETIRED])
def test_leases_hinder_no_revocation(state):
    life = Life(0.0, state)
    assert life.on(Event.REVOKED, 1.0, leases=3) is State.REVOKED


def test_since_is_when_the_state_was_entered():
    life = lived(Event.PROBE_BEGAN, Event.PROBE_PASSED)
    assert life.since_s == 2.0
    life.on(Event.PROBE_BEGAN, 7.0)
    assert life.since_s == 2.0
    life.on(Event.COOLED, 8.0)
    assert life.since_s == 8.0


def test_what_cannot_happen_is_told_with_what_could():
    with pytest.raises(IllegalTransition, match="that is pending was told warmed; possible are probe_began, replaced,"):
        Life(0.0).on(Event.WARMED, 1.0)


@pytest.mark.parametrize(("state", "event"), ILLEGAL)
def test_what_is_not_in_the_table_raises_and_changes_nothing(state, event):
    life = Life(3.0, state)
    with pytest.raises(IllegalTransition):
        life.on(event, 4.0)
    assert (life.state, life.since_s) == (state, 3.0)


# --- the table ------------------------------------------------------------------------------------------------------


def ways_to(state: State) -> set[tuple[State, Event]]:
    return {(before, event) for (before, event), after in TABLE.items() if after is state and before is not state}


def test_a_value_serves_after_a_good_probe_or_a_rest_and_not_otherwise():
    assert ways_to(State.ACTIVE) == {
        (State.VALIDATING, Event.PROBE_PASSED),
        (State.QUARANTINED, Event.PROBE_PASSED),
        (State.COOLING, Event.WARMED),
    }


def test_only_a_refused_probe_quarantines():
    assert {event for _, event in ways_to(State.QUARANTINED)} == {Event.PROBE_REFUSED}


def test_a_value_that_may_have_served_drains_before_it_retires():
    assert {before for before, _ in ways_to(State.RETIRED)} == {State.PENDING, State.VALIDATING, State.DRAINING}


@pytest.mark.parametrize("state", State)
def test_revoked_wins_from_everywhere_and_is_never_left(state):
    assert TABLE[state, Event.REVOKED] is State.REVOKED
    assert {after for (before, _), after in TABLE.items() if before is State.REVOKED} == {State.REVOKED}


def test_a_retired_value_can_only_be_revoked():
    assert {after for (before, _), after in TABLE.items() if before is State.RETIRED} == {State.RETIRED, State.REVOKED}


@pytest.mark.parametrize("state", [one for one in State if one not in {State.RETIRED, State.REVOKED}])
def test_every_other_value_can_be_taken_out_of_service(state):
    way = {State.DRAINING: (Event.EMPTIED,), State.PENDING: (Event.REPLACED,), State.VALIDATING: (Event.REPLACED,)}
    assert lived(*way.get(state, (Event.REPLACED, Event.EMPTIED)), state=state).state is State.RETIRED


class AnyLife(RuleBasedStateMachine):
    """Events in any order, and leases as a proxy takes them: only on what may be sent with, each ending once."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Life(0.0)
        self.now_s = 0.0
        self.leases = 0
        self.passed = False  # a probe, ever
        self.revoked = False

    @rule(event=st.sampled_from(Event), passes_s=st.floats(0, 100))
    def happens(self, event: Event, passes_s: float) -> None:
        before, since_s = self.life.state, self.life.since_s
        self.now_s += passes_s
        try:
            after = self.life.on(event, self.now_s, self.leases)
        except IllegalTransition:
            assert (self.life.state, self.life.since_s) == (before, since_s)
            assert event is not Event.REVOKED
            return
        assert after is self.life.state is TABLE[before, event]
        assert self.life.since_s == (since_s if after is before else self.now_s)
        self.passed |= event is Event.PROBE_PASSED
        self.revoked |= event is Event.REVOKED

    @precondition(lambda self: self.life.state in SENDABLE)
    @rule()
    def a_lease_begins(self) -> None:
        self.leases += 1

    @precondition(lambda self: self.leases)
    @rule()
    def a_lease_ends(self) -> None:
        self.leases -= 1

    @invariant()
    def nothing_retires_while_it_is_held(self) -> None:
        assert self.life.state is not State.RETIRED or not self.leases

    @invariant()
    def nothing_is_sent_that_no_probe_found_good(self) -> None:
        assert self.passed or self.life.state not in SENDABLE

    @invariant()
    def revoked_is_never_left(self) -> None:
        assert (self.life.state is State.REVOKED) == self.revoked


TestAnyLife = AnyLife.TestCase


# --- probes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (None, Event.PROBE_UNCLEAR),
        (101, Event.PROBE_UNCLEAR),
        (199, Event.PROBE_UNCLEAR),
        (200, Event.PROBE_PASSED),
        (299, Event.PROBE_PASSED),
        (300, Event.PROBE_UNCLEAR),
        (302, Event.PROBE_UNCLEAR),
        (400, Event.PROBE_UNCLEAR),
        (401, Event.PROBE_REFUSED),
        (402, Event.PROBE_UNCLEAR),
        (403, Event.PROBE_REFUSED),
        (404, Event.PROBE_PASSED),
        (405, Event.PROBE_PASSED),
        (429, Event.PROBE_UNCLEAR),
        (500, Event.PROBE_UNCLEAR),
        (529, Event.PROBE_UNCLEAR),
    ],
)
def test_what_the_answer_to_a_probe_says(status, verdict):
    assert probe_verdict(status) is verdict


@given(st.one_of(st.none(), st.integers(100, 599)))
def test_a_403_alone_says_less_of_a_value_that_serves(status):
    expected = Event.PROBE_UNCLEAR if status == 403 else probe_verdict(status)
    assert probe_verdict(status, serving=True) is expected


@given(st.one_of(st.none(), st.integers(100, 599)))
def test_a_missing_probe_passes_with_a_warning(status):
    assert needs_warning(status) == (status in {404, 405})
    assert not needs_warning(status) or probe_verdict(status) is Event.PROBE_PASSED


def test_probes_that_say_nothing_are_repeated_ever_later_up_to_a_minute():
    assert [retry_in_s(failures, lambda: 0.0) for failures in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert [retry_in_s(failures, lambda: 0.5) for failures in range(1, 9)] == [0.75, 1.5, 3, 6, 12, 24, 45, 45]


@given(st.integers(-5, 10**6), st.floats(0, 1, exclude_max=True))
def test_no_probe_is_repeated_at_once(failures, thrown):
    longest_s = cooling_s(failures, lambda: 1.0)
    assert 0.5 <= longest_s / 2 <= retry_in_s(failures, lambda: thrown) <= longest_s <= 60.0
