"""The life of one value of an upstream's key, from its first probe to its last lease, as a table.

A key has a name that stays and values that follow one another when it is rotated. Flags (`valid`, `cooling`, `old`)
have combinations that nobody meant, and each reader guesses what they add up to. Here a value is in one state, and what
is not in the table cannot happen: it raises and changes nothing.

Two rules carry the rest. A value is retired only when no lease holds it: that is what "without downtime" means. And
`revoked` wins from everywhere and is never left, not even by a value that was retired long ago: its fingerprint is to
be known if it is configured again.

What is decided here has its one place (a drain begins once). What is told by others may come late: a 429 to what was
sent before the drain, the answer of a probe whose value was withdrawn meanwhile. It changes nothing, and is no error.
Source of the form: h11's `EVENT_TRIGGERED_TRANSITIONS`, https://github.com/python-hyper/h11
"""

from collections.abc import Callable
from enum import Enum

from proxy.policy.retry import cooling_s


class State(Enum):
    PENDING = "pending"  # known, not yet probed, or nothing came of it: the probe is to be tried again
    VALIDATING = "validating"  # its first probe is under way
    ACTIVE = "active"  # serves
    COOLING = "cooling"  # rests, after a 429 or while a 401 is looked into
    DRAINING = "draining"  # carries nothing new; what holds it runs on
    RETIRED = "retired"  # nothing holds it
    QUARANTINED = "quarantined"  # a probe says that it is refused; probed again, for it may come back
    REVOKED = "revoked"  # by hand, for ever; what holds it runs on unless it is cut

    # Identity is enough, and this hash is taken wherever keys are picked.
    __hash__ = object.__hash__


class Event(Enum):
    PROBE_BEGAN = "probe_began"
    PROBE_PASSED = "probe_passed"
    PROBE_REFUSED = "probe_refused"
    PROBE_UNCLEAR = "probe_unclear"  # 429, 5xx, no answer: nothing is known
    COOLED = "cooled"  # it is to rest
    WARMED = "warmed"  # its rest is over
    REPLACED = "replaced"  # another value has taken over
    WITHDRAWN = "withdrawn"  # a candidate is given up, before its overlap or in it
    EMPTIED = "emptied"  # the last lease on it has ended
    REVOKED = "revoked"

    __hash__ = object.__hash__


TABLE: dict[tuple[State, Event], State] = {
    (State.PENDING, Event.PROBE_BEGAN): State.VALIDATING,
    (State.PENDING, Event.REPLACED): State.RETIRED,  # it never served: there is nothing to drain
    (State.PENDING, Event.WITHDRAWN): State.RETIRED,
    (State.PENDING, Event.REVOKED): State.REVOKED,
    # its first probe
    (State.VALIDATING, Event.PROBE_PASSED): State.ACTIVE,
    (State.VALIDATING, Event.PROBE_REFUSED): State.QUARANTINED,
    (State.VALIDATING, Event.PROBE_UNCLEAR): State.PENDING,
    (State.VALIDATING, Event.REPLACED): State.RETIRED,
    (State.VALIDATING, Event.WITHDRAWN): State.RETIRED,
    (State.VALIDATING, Event.REVOKED): State.REVOKED,
    # it serves, also while it is probed again
    (State.ACTIVE, Event.PROBE_BEGAN): State.ACTIVE,
    (State.ACTIVE, Event.PROBE_PASSED): State.ACTIVE,
    (State.ACTIVE, Event.PROBE_REFUSED): State.QUARANTINED,
    (State.ACTIVE, Event.PROBE_UNCLEAR): State.ACTIVE,
    (State.ACTIVE, Event.COOLED): State.COOLING,
    (State.ACTIVE, Event.REPLACED): State.DRAINING,
    (State.ACTIVE, Event.WITHDRAWN): State.DRAINING,
    (State.ACTIVE, Event.REVOKED): State.REVOKED,
    # it rests; a good probe says that it is valid, not that it has quota again: WARMED ends the rest
    (State.COOLING, Event.PROBE_BEGAN): State.COOLING,
    (State.COOLING, Event.PROBE_PASSED): State.COOLING,
    (State.COOLING, Event.PROBE_REFUSED): State.QUARANTINED,
    (State.COOLING, Event.PROBE_UNCLEAR): State.COOLING,
    (State.COOLING, Event.COOLED): State.COOLING,
    (State.COOLING, Event.WARMED): State.ACTIVE,
    (State.COOLING, Event.REPLACED): State.DRAINING,
    (State.COOLING, Event.WITHDRAWN): State.DRAINING,
    (State.COOLING, Event.REVOKED): State.REVOKED,
    # refused; only a good probe brings it back, and streams begun before may hold it yet
    (State.QUARANTINED, Event.PROBE_BEGAN): State.QUARANTINED,
    (State.QUARANTINED, Event.PROBE_PASSED): State.ACTIVE,
    (State.QUARANTINED, Event.PROBE_REFUSED): State.QUARANTINED,
    (State.QUARANTINED, Event.PROBE_UNCLEAR): State.QUARANTINED,
    (State.QUARANTINED, Event.COOLED): State.QUARANTINED,  # late
    (State.QUARANTINED, Event.REPLACED): State.DRAINING,
    (State.QUARANTINED, Event.WITHDRAWN): State.DRAINING,
    (State.QUARANTINED, Event.REVOKED): State.REVOKED,
    # it ends
    (State.DRAINING, Event.EMPTIED): State.RETIRED,
    (State.DRAINING, Event.REVOKED): State.REVOKED,
    (State.RETIRED, Event.REVOKED): State.REVOKED,
    (State.REVOKED, Event.REVOKED): State.REVOKED,  # a command said twice is no error
    # late news of it
    (State.DRAINING, Event.COOLED): State.DRAINING,
    (State.DRAINING, Event.PROBE_PASSED): State.DRAINING,
    (State.DRAINING, Event.PROBE_REFUSED): State.DRAINING,
    (State.DRAINING, Event.PROBE_UNCLEAR): State.DRAINING,
    (State.RETIRED, Event.PROBE_PASSED): State.RETIRED,
    (State.RETIRED, Event.PROBE_REFUSED): State.RETIRED,
    (State.RETIRED, Event.PROBE_UNCLEAR): State.RETIRED,
    (State.REVOKED, Event.COOLED): State.REVOKED,
    (State.REVOKED, Event.PROBE_PASSED): State.REVOKED,
    (State.REVOKED, Event.PROBE_REFUSED): State.REVOKED,
    (State.REVOKED, Event.PROBE_UNCLEAR): State.REVOKED,
}

SENDABLE: frozenset[State] = frozenset((State.ACTIVE,))  # new requests may be sent with it

_NO_SUCH_PROBE = frozenset((404, 405))


class IllegalTransition(RuntimeError):
    """What cannot happen to a value in its state: a bug in who says that it did."""


class Life:
    """Where one value is in its life, and since when. It holds no secret."""

    __slots__ = ("since_s", "state")

    def __init__(self, now_s: float, state: State = State.PENDING) -> None:
        """One that served before a restart may begin `ACTIVE`; one whose fingerprint was revoked begins `REVOKED`."""
        self.state = state
        self.since_s = now_s

    def on(self, event: Event, now_s: float, leases: int = 0) -> State:
        """The state after `event`; `leases` hold the value now. `since_s` moves only where the state changes.

        Raises IllegalTransition, and changes nothing, for what is not in the table, and where a value that is held
        would retire.
        """
        after = TABLE.get((self.state, event))
        if after is None:
            possible = ", ".join(one.value for state, one in TABLE if state is self.state)
            raise IllegalTransition(
                f"a key's value that is {self.state.value} was told {event.value}; possible are {possible}"
            )
        if after is State.RETIRED and leases:
            raise IllegalTransition(
                f"a key's value that is {self.state.value} was told {event.value} while {leases} leases hold it; "
                "it retires at 0"
            )
        if after is not self.state:
            self.state = after
            self.since_s = now_s
        return after


def probe_verdict(status: int | None, *, serving: bool = False) -> Event:
    """What the answer to a probe says of the value; None where no answer came in time.

    A 403 refuses a value that is new. One that is `serving` (active or cooling) proves each minute that it may do
    something, if perhaps not list models: there a 403 is unclear, or a caller who draws 403s, each of which starts a
    probe, could have every such key quarantined.
    """
    if status is None:
        return Event.PROBE_UNCLEAR
    if 200 <= status < 300 or status in _NO_SUCH_PROBE:
        return Event.PROBE_PASSED
    if status == 401 or (status == 403 and not serving):
        return Event.PROBE_REFUSED
    return Event.PROBE_UNCLEAR


def needs_warning(status: int | None) -> bool:
    """Did the probe pass only because the upstream has no such path? Its operator should set `health.path`."""
    return status in _NO_SUCH_PROBE


def retry_in_s(failures: int, dice: Callable[[], float]) -> float:
    """When to probe again after so many unclear probes in a row, in seconds.

    Up to 1, 2, 4 ... at most 60 s, as keys rest, but with "equal jitter", from half of that: a probe that is repeated
    at once learns nothing. `dice` gives a number from 0 up to 1.
    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return cooling_s(failures, lambda: (1.0 + dice()) / 2)
