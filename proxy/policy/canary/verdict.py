"""What a judge says after each look. A judge knows a method (evidence, bands, none); a rollout knows what follows from
it.
"""

from enum import Enum
from typing import Any, NamedTuple, Protocol

from proxy.policy.canary.counts import Harvest
from proxy.policy.canary.plan import Plan


class Kind(Enum):
    GO_ON = "go_on"  # not enough was seen
    STEP = "step"  # the next step may begin
    HOLD = "hold"  # both arms are bad
    TIRED = "tired"  # the longest time is over
    WORSE = "worse"


class Verdict(NamedTuple):
    """`reason` carries the numbers; `numbers` are the same for machines."""

    kind: Kind
    reason: str = ""
    numbers: dict[str, Any] = {}  # noqa: RUF012 - never written to


class Course(NamedTuple):
    """A stretch at one weight. `name` tells courses of one rollout apart: each may be judged once as planned."""

    name: str
    weight: float
    next_weight: float | None
    warming: bool = False


class Look(NamedTuple):
    """One event of a judge's own, and where it moves the weight."""

    name: str
    text: str
    numbers: dict[str, Any]
    weight: float


class Judge(Protocol):
    plan: Plan  # what its recorders are to do

    def begin(self, course: Course, now_s: float) -> None:
        """Fresh evidence. Raises ValueError, and changes nothing, where no more may begin."""
        ...

    def end(self, now_s: float) -> None:
        """One arm has all: there is nothing to compare."""
        ...

    def rest(self, now_s: float) -> None:
        """The longest time of this course begins anew."""
        ...

    def new_epoch(self, epoch: int, salt: bytes, now_s: float) -> None: ...

    def read(self, harvest: Harvest, now_s: float) -> list[Look]: ...

    def verdict(self, now_s: float) -> Verdict: ...

    def explain(self, now_s: float) -> dict[str, Any]: ...

    def dump(self, now_s: float) -> dict[str, Any]: ...

    def restore(self, dumped: dict[str, Any], now_s: float) -> None: ...
