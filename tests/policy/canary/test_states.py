"""A rollout's life as its table has it: complete, and nothing beside it."""

import pytest

from proxy.policy.canary.states import OVER, TABLE, WATCHING, Event, IllegalTransition, Life, State

ILLEGAL = [(state, event) for state in State for event in Event if (state, event) not in TABLE]


@pytest.mark.parametrize(("state", "event"), ILLEGAL, ids=lambda each: each.value)
def test_what_is_not_in_the_table_raises_and_changes_nothing(state, event):
    life = Life(3.0, state)
    with pytest.raises(IllegalTransition, match=f"is {state.value} was told {event.value}"):
        life.on(event, 9.0)
    assert (life.state, life.since_s) == (state, 3.0)


@pytest.mark.parametrize(("state", "event"), TABLE, ids=lambda each: each.value)
def test_what_is_in_the_table_happens(state, event):
    life = Life(3.0, state)
    assert life.on(event, 9.0) is life.state is TABLE[state, event]
    assert life.since_s == (3.0 if life.state is state else 9.0)


def test_every_state_can_be_reached_and_all_but_the_good_end_can_be_left():
    reached = {State.PENDING, *TABLE.values()}
    assert reached == set(State)
    assert {state for state in State if not any(state is one for one, _ in TABLE)} == {State.SUCCEEDED}


def test_a_canary_that_is_watched_can_be_rolled_back_and_nothing_else_can():
    assert {state for state, event in TABLE if event is Event.WORSE} == WATCHING


def test_nobody_overrides_a_rollback():
    assert {event for state, event in TABLE if state is State.ROLLING_BACK} == {Event.DRAINED}


def test_whatever_is_under_way_can_be_aborted():
    abortable = {state for state, event in TABLE if event is Event.ABORTED}
    assert abortable == set(State) - OVER - {State.ROLLING_BACK}
