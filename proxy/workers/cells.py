"""Memory that all workers share, for what must hold in all of them at once: what limits have left.

A client's limit is one limit, whatever worker its connections came to. To ask another process would make each request
wait; to share by messages would let each worker spend all of it before it hears of the others. A bucket is one number
(`policy/limits.py`), so all workers read and write it where it is. No lock is taken: two that write within the same
microsecond lose one of the two costs, which at 10,000 limited requests a second is a few in a thousand. What is under
way is counted by each worker in a cell of its own, so that the cells of one that died can be emptied.
"""

import mmap

from proxy.policy.limits import Limit, Limits, Refused

MOST_ROWS = 128 * 1024  # names of clients, upstreams and keys: memory is taken only by those that there are
ABOVE = -1  # instead of a worker's number: the process that has them
_DOUBLE = 8


class Cells:
    """A table of numbers, inherited by forks. A row for each name, in it two buckets and what each worker has open."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._columns = 2 + workers
        self._memory = mmap.mmap(-1, MOST_ROWS * self._columns * _DOUBLE)
        self.numbers = memoryview(self._memory).cast("d")

    def row(self, number: int) -> int:
        """Where the row begins."""
        return number * self._columns

    def others(self, number: int, worker: int) -> float:
        """What all workers but this one have open. -1: what all of them have."""
        start = self.row(number) + 2
        whole = sum(self.numbers[start : start + self._columns - 2])
        return whole if worker < 0 else whole - self.numbers[start + worker]

    def forget_worker(self, worker: int, rows: int) -> None:
        """It is gone, and with it what it had open."""
        for number in range(rows):
            self.numbers[self.row(number) + 2 + worker] = 0.0


class SharedLimit(Limit):
    """A bucket in a cell."""

    __slots__ = ("_at", "_numbers")

    def __init__(self, per_minute: int, cells: Cells, at: int) -> None:
        self._numbers, self._at = cells.numbers, at
        self.set_rate(per_minute)  # a new cell is 0.0: full for long

    @property
    def _full_at_s(self) -> float:
        return self._numbers[self._at]

    @_full_at_s.setter
    def _full_at_s(self, moment_s: float) -> None:
        self._numbers[self._at] = moment_s

    def empty(self) -> None:
        """Whoever had it before, it is full."""
        self._numbers[self._at] = 0.0


class SharedLimits(Limits):
    """The limits of one name, in its row."""

    __slots__ = ("_cells", "_mine", "_number", "_numbers", "_worker")

    def __init__(self, cells: Cells, number: int, worker: int) -> None:
        """`worker`: whose requests it counts; -1: the process above, which has none, and sees to what is kept."""
        super().__init__()
        self._cells, self._number, self._worker = cells, number, worker
        self._numbers, self._mine = cells.numbers, cells.row(number) + 2 + worker

    @property
    def elsewhere(self) -> int:  # type: ignore[override]
        return int(self._cells.others(self._number, self._worker))

    def begin(self, tokens: int, now_s: float) -> Refused | None:
        refused = super().begin(tokens, now_s)
        self._numbers[self._mine] = self.under_way
        return refused

    def began(self, tokens: int, now_s: float) -> None:
        super().began(tokens, now_s)
        self._numbers[self._mine] = self.under_way

    def ended(self, estimated: int, used: int | None, now_s: float) -> None:
        super().ended(estimated, used, now_s)
        self._numbers[self._mine] = self.under_way

    def _limit(self, limit: Limit | None, per_minute: int | None, now_s: float, place: int) -> Limit | None:
        """A changed rate is reckoned once, above; workers read what came of it."""
        if per_minute is None:
            return None
        if limit is None:
            new = SharedLimit(per_minute, self._cells, self._cells.row(self._number) + place)
            if self._worker < 0:
                new.empty()
            return new
        if self._worker < 0:
            limit.reconfigured(per_minute, now_s)
        else:
            limit.set_rate(per_minute)
        return limit


class Rows:
    """Which row is whose."""

    def __init__(self, cells: Cells, worker: int) -> None:
        self._cells, self._worker = cells, worker
        self.numbers: dict[str, int] = {}

    def limits(self, name: str) -> Limits:
        """Those of a client, an upstream or a key, named `kind/name`; not shared where no row is left."""
        number = self.numbers.get(name)
        if number is None:
            if self._worker >= 0 or len(self.numbers) >= MOST_ROWS:
                return Limits()
            number = self.numbers[name] = len(self.numbers)
        return SharedLimits(self._cells, number, self._worker)
