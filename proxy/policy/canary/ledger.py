"""What a recorder remembers: of a slice, of a stratum, of a request under way."""

from proxy.policy.canary.counts import EARLY, LATE, Counts
from proxy.policy.canary.plan import Limits


class Ledger:
    """The counts of one slice, or of one sticky unit in one epoch."""

    __slots__ = ("early", "late", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.early: Counts = [0] * (2 * EARLY)
        self.late: Counts = [0] * (2 * LATE)


class Cell:
    """A stratum: its thresholds, and the baseline's samples since the last harvest."""

    __slots__ = ("chunk", "limits", "stream", "ttft")

    def __init__(self, stream: bool, limits: Limits | None) -> None:
        self.stream = stream
        self.limits = limits
        self.ttft: list[int] = []  # numbers of buckets
        self.chunk: list[int] = []


class Open:
    """A request under way. `ledger` takes its evidence, `slice` what is counted of every request.

    `guard`: the first request of a sticky unit in its epoch.
    """

    __slots__ = ("arm", "cell", "early_done", "first_s", "guard", "ledger", "limits", "slice", "stalled", "started_s")

    def __init__(self, arm: int, cell: Cell, slice_: Ledger, started_s: float) -> None:
        self.arm = arm
        self.cell = cell
        self.limits = cell.limits
        self.ledger: Ledger | None = slice_
        self.slice = slice_
        self.started_s = started_s
        self.first_s = -1.0
        self.stalled = False
        self.early_done = False
        self.guard = False
