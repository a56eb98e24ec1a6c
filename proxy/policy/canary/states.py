"""The life of a rollout, from its first request to its end, as a table.

What is not in the table cannot happen: it raises and changes nothing. Two rules carry the rest. A rollback under way is
overridden by nobody: there every command is illegal. And what waits for an operator (`paused`, `inconclusive`) still
watches: `WORSE` ends it as it ends a step.
Source of the form: h11's `EVENT_TRIGGERED_TRANSITIONS`, https://github.com/python-hyper/h11
"""

from enum import Enum


class State(Enum):
    PENDING = "pending"  # nothing was seen yet; all goes to the baseline
    WARMING = "warming"  # a little goes to the canary; errors are judged, latency is not
    PROGRESSING = "progressing"  # at a step, gathering evidence
    HOLDING = "holding"  # at a step, while both arms are bad: no time to step up
    PAUSED = "paused"  # until resumed, or for a time
    INCONCLUSIVE = "inconclusive"  # neither worse nor proved to be no worse, after the longest time
    PROMOTING = "promoting"  # all goes to the canary; the baseline's last requests run out
    BAKING = "baking"  # promoted, and still compared with the SLO
    SUCCEEDED = "succeeded"
    ROLLING_BACK = "rolling_back"  # all goes to the baseline; the canary's last requests run out
    FAILED = "failed"
    ABORTED = "aborted"  # by hand

    __hash__ = object.__hash__


class Event(Enum):
    BEGUN = "begun"  # into the warm-up
    STEPPED = "stepped"  # to the first or the next step
    COMPLETED = "completed"  # the step is 100 %
    PAUSED = "paused"
    RESUMED = "resumed"
    REWARMED = "rewarmed"  # resumed, and the warm-up is not over
    HELD = "held"
    WENT_ON = "went_on"  # the shared cause is over
    TIRED = "tired"  # the longest time is over
    WORSE = "worse"
    DRAINED = "drained"  # the other arm's last request has ended
    BAKED = "baked"
    ABORTED = "aborted"
    RETRIED = "retried"
    WEIGHED = "weighed"  # a weight was set by hand

    __hash__ = object.__hash__


TABLE: dict[tuple[State, Event], State] = {
    (State.PENDING, Event.BEGUN): State.WARMING,
    (State.PENDING, Event.STEPPED): State.PROGRESSING,
    (State.PENDING, Event.COMPLETED): State.PROMOTING,
    (State.PENDING, Event.ABORTED): State.ABORTED,
    # the warm-up
    (State.WARMING, Event.STEPPED): State.PROGRESSING,
    (State.WARMING, Event.COMPLETED): State.PROMOTING,
    (State.WARMING, Event.PAUSED): State.PAUSED,
    (State.WARMING, Event.WORSE): State.ROLLING_BACK,
    (State.WARMING, Event.ABORTED): State.ABORTED,
    (State.WARMING, Event.WEIGHED): State.WARMING,
    # a step
    (State.PROGRESSING, Event.STEPPED): State.PROGRESSING,
    (State.PROGRESSING, Event.COMPLETED): State.PROMOTING,
    (State.PROGRESSING, Event.PAUSED): State.PAUSED,
    (State.PROGRESSING, Event.HELD): State.HOLDING,
    (State.PROGRESSING, Event.TIRED): State.INCONCLUSIVE,
    (State.PROGRESSING, Event.WORSE): State.ROLLING_BACK,
    (State.PROGRESSING, Event.ABORTED): State.ABORTED,
    (State.PROGRESSING, Event.WEIGHED): State.PROGRESSING,
    # both arms are bad
    (State.HOLDING, Event.WENT_ON): State.PROGRESSING,
    (State.HOLDING, Event.STEPPED): State.PROGRESSING,
    (State.HOLDING, Event.COMPLETED): State.PROMOTING,
    (State.HOLDING, Event.PAUSED): State.PAUSED,
    (State.HOLDING, Event.TIRED): State.INCONCLUSIVE,
    (State.HOLDING, Event.WORSE): State.ROLLING_BACK,
    (State.HOLDING, Event.ABORTED): State.ABORTED,
    (State.HOLDING, Event.WEIGHED): State.HOLDING,
    # it waits for somebody
    (State.PAUSED, Event.RESUMED): State.PROGRESSING,
    (State.PAUSED, Event.REWARMED): State.WARMING,
    (State.PAUSED, Event.STEPPED): State.PROGRESSING,
    (State.PAUSED, Event.COMPLETED): State.PROMOTING,
    (State.PAUSED, Event.WORSE): State.ROLLING_BACK,
    (State.PAUSED, Event.ABORTED): State.ABORTED,
    (State.PAUSED, Event.WEIGHED): State.PAUSED,
    (State.INCONCLUSIVE, Event.RESUMED): State.PROGRESSING,
    (State.INCONCLUSIVE, Event.STEPPED): State.PROGRESSING,
    (State.INCONCLUSIVE, Event.COMPLETED): State.PROMOTING,
    (State.INCONCLUSIVE, Event.WORSE): State.ROLLING_BACK,
    (State.INCONCLUSIVE, Event.ABORTED): State.ABORTED,
    (State.INCONCLUSIVE, Event.RETRIED): State.WARMING,
    (State.INCONCLUSIVE, Event.WEIGHED): State.PROGRESSING,
    # it ends well
    (State.PROMOTING, Event.DRAINED): State.BAKING,
    (State.PROMOTING, Event.ABORTED): State.ABORTED,
    (State.BAKING, Event.BAKED): State.SUCCEEDED,
    (State.BAKING, Event.ABORTED): State.ABORTED,
    # or not
    (State.ROLLING_BACK, Event.DRAINED): State.FAILED,
    (State.FAILED, Event.RETRIED): State.WARMING,
    (State.ABORTED, Event.RETRIED): State.WARMING,
}

WATCHING = frozenset(
    (State.WARMING, State.PROGRESSING, State.HOLDING, State.PAUSED, State.INCONCLUSIVE)
)  # both arms serve, and are compared
AT_A_STEP = frozenset((State.PROGRESSING, State.HOLDING))
OVER = frozenset((State.SUCCEEDED, State.FAILED, State.ABORTED))

TAKEN_BACK = frozenset((State.ROLLING_BACK, State.FAILED, State.ABORTED))  # all goes to the baseline again


class IllegalTransition(RuntimeError):
    """What cannot happen to a rollout in its state."""


class Life:
    """Where a rollout is in its life, and since when."""

    __slots__ = ("since_s", "state")

    def __init__(self, now_s: float, state: State = State.PENDING) -> None:
        self.state = state
        self.since_s = now_s

    def check(self, event: Event) -> State:
        """The state after `event`. Raises IllegalTransition for what is not in the table; changes nothing."""
        after = TABLE.get((self.state, event))
        if after is None:
            possible = ", ".join(one.value for state, one in TABLE if state is self.state) or "nothing: it is over"
            raise IllegalTransition(
                f"a rollout that is {self.state.value} was told {event.value}; possible are {possible}"
            )
        return after

    def on(self, event: Event, now_s: float) -> State:
        """As `check`, and so it is. `since_s` moves only where the state changes."""
        after = self.check(event)
        if after is not self.state:
            self.state = after
            self.since_s = now_s
        return after
