"""Memory that all workers share, for what must hold in all of them at once: what limits have left.

A client's limit is one limit, whatever worker its connections came to. To ask another process would make each request
wait; to share by messages would let each worker spend all of it before it hears of the others. So all look at the same
numbers. No lock is taken, and none is needed: each number has one writer, and a worker that is held up in the middle of
a request overwrites nobody's.

A bucket is the moment when it is full again (`policy/limits.py`): at a request that costs c seconds of its rate, that
moment becomes max(it, now) + c. Told apart by worker, it is the sum of all costs, U, and what was lost while the bucket
was full, I, the largest of `now - U` at requests that found it so: full at U + I. Sums and maxima of numbers that only
their owners change lose nothing. Two requests within the same microsecond may not see each other, but both count.
"""

import mmap

from proxy.policy.limits import MINUTE_S, ROUNDING_S, Limit, Limits, Refused

MOST_ROWS = 64 * 1024  # names of clients, upstreams and keys: memory is taken only by those that there are
ABOVE = -1  # instead of a worker's number: the process that has them
_DOUBLE = 8


class Cells:
    """A table of numbers, inherited by forks. A row for each name: what each worker has open, and two buckets."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._columns = workers + 4 * (workers + 1)
        self._memory = mmap.mmap(-1, MOST_ROWS * self._columns * _DOUBLE)
        self.numbers = memoryview(self._memory).cast("d")

    def row(self, number: int) -> int:
        """Where the row begins: with what each worker has open."""
        return number * self._columns

    def bucket(self, number: int, place: int) -> int:
        """Where one of the row's buckets begins: U of each worker and of the process above, then I of each."""
        return self.row(number) + self.workers + place * 2 * (self.workers + 1)

    def others(self, number: int, worker: int) -> float:
        """What all workers but this one have open. -1: what all of them have."""
        start = self.row(number)
        whole = sum(self.numbers[start : start + self.workers])
        return whole if worker < 0 else whole - self.numbers[start + worker]

    def forget_worker(self, worker: int, rows: int) -> None:
        """It is gone, and with it what it had open. What it used stays used."""
        for number in range(rows):
            self.numbers[self.row(number) + worker] = 0.0


class SharedLimit(Limit):
    """A bucket in cells. A new one is full: all is 0, and was for long."""

    __slots__ = ("_idle", "_my_idle", "_my_used", "_numbers", "_used")

    def __init__(self, per_minute: int, cells: Cells, start: int, worker: int) -> None:
        """`start`: of the bucket; `worker`: who writes here."""
        owners = cells.workers + 1
        self._numbers = cells.numbers
        self._used, self._idle = slice(start, start + owners), slice(start + owners, start + 2 * owners)
        self._my_used = start + worker % owners
        self._my_idle = self._my_used + owners
        self.set_rate(per_minute)

    @property
    def _full_at_s(self) -> float:
        numbers = self._numbers
        return sum(numbers[self._used]) + max(numbers[self._idle])

    @_full_at_s.setter
    def _full_at_s(self, moment_s: float) -> None:
        self._numbers[self._my_used] += moment_s - self._full_at_s

    def spend(self, cost: int, now_s: float) -> bool:
        numbers = self._numbers
        used_s = sum(numbers[self._used])
        missing_s, needed_s = used_s + max(numbers[self._idle]) - now_s, cost * self._each_s
        if missing_s > ROUNDING_S and missing_s + needed_s > MINUTE_S + ROUNDING_S:
            return False
        if missing_s < 0.0:
            numbers[self._my_idle] = now_s - used_s
        numbers[self._my_used] += needed_s
        return True

    def take(self, cost: int, now_s: float) -> None:
        numbers = self._numbers
        used_s = sum(numbers[self._used])
        if used_s + max(numbers[self._idle]) < now_s:
            numbers[self._my_idle] = now_s - used_s
        numbers[self._my_used] += cost * self._each_s

    def give_back(self, cost: int, now_s: float) -> None:
        if self._full_at_s > now_s:
            self._numbers[self._my_used] -= cost * self._each_s

    def empty(self) -> None:
        """Whoever had it before, it is full."""
        self._full_at_s = 0.0


class SharedLimits(Limits):
    """The limits of one name, in its row."""

    __slots__ = ("_cells", "_mine", "_number", "_numbers", "_worker")

    def __init__(self, cells: Cells, number: int, worker: int) -> None:
        """`worker`: whose requests it counts; -1: the process above, which has none, and sees to what is kept."""
        super().__init__()
        self._cells, self._number, self._worker = cells, number, worker
        self._numbers, self._mine = cells.numbers, cells.row(number) + worker

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
            start = self._cells.bucket(self._number, place)
            new = SharedLimit(per_minute, self._cells, start, self._worker)
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
