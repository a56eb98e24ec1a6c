"""When an upstream that keeps failing is left out for a while: passive outlier ejection, as Envoy does it.

A dead upstream under weighted turns fails its whole share of the calls until somebody notices; calls notice first. So
many failures in a row put it out, and the time out doubles with each ejection. A rate of errors over a window would see
subtler trouble, but LLM APIs err in bursts with any load, and a window says late what five in a row say at once.

Back again, it is on probation: one more failure ejects it, one good answer gives it a fresh count. Envoy gives a fresh
count at once, nginx lets one request try. Here a failure may cost its caller ten minutes of waiting for a first byte,
so five of them after each return are too dear; and a probation needs nobody who picks the one that tries, only a count
that begins one short. What was sent before the return is no evidence, good or bad: old streams may end long after it.
Source: https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier, where the time grows by one
base with each ejection. It doubles here: what is down for long is asked less often, and a first time out stays short.
"""

import math
from dataclasses import dataclass

from proxy.model.outcome import Outcome

# A 429 says that a key has no quota left, and `CLIENT_GONE` and `STOPPED` say nothing: they neither count nor reset.
FAILURES = frozenset((Outcome.UPSTREAM_ERROR, Outcome.TIMEOUT, Outcome.STALLED, Outcome.TRUNCATED))

LONGEST_S = 300.0  # Envoy's max_ejection_time
LONGEST_BASES = 10  # with a base above 30 s, LONGEST_S alone would leave less than the usual doublings, or none


class Record:
    """What is remembered of one member. On the path of a request, read the slots: `failures`, `out_until_s`."""

    __slots__ = ("doublings", "ejected", "failures", "out_until_s")

    def __init__(self) -> None:
        self.failures = 0  # in a row
        self.out_until_s = -math.inf  # later on, the moment of its last return
        self.doublings = 0  # of the base time, at the next ejection
        self.ejected = False  # its return was not yet asked for

    def is_out(self, now_s: float) -> bool:
        """Is it ejected at `now_s`?"""
        return self.out_until_s > now_s

    def returned(self, now_s: float) -> bool:
        """Has an ejection ended? True once for each: what a log, or a slow start, waits for."""
        if not self.ejected or self.out_until_s > now_s:
            return False
        self.ejected = False
        return True

    def succeeded(self, began_s: float) -> None:
        """A request begun at `began_s` was answered. Needs no call while `failures` is 0."""
        if began_s >= self.out_until_s:
            self.failures = 0

    def cleared(self, now_s: float) -> None:
        """Something better than calls, a health check, found it well: back at once with a fresh count.

        Its ejections are not forgotten, for a check may pass where calls fail.
        """
        self.failures = 0
        self.out_until_s = min(self.out_until_s, now_s)


@dataclass(frozen=True, slots=True)
class Ejection:
    """The rule of a pool. Raises ValueError for numbers that make no rule."""

    consecutive_failures: int = 5
    base_s: float = 30.0
    max_ejected_percent: int = 50  # of the members; one may be out whatever this says, if there are others

    def __post_init__(self) -> None:
        if self.consecutive_failures < 1 or not 0 < self.base_s < math.inf or not 0 <= self.max_ejected_percent <= 100:
            raise ValueError("an ejection needs at least 1 failure, a time above 0 s, and from 0 to 100 percent")

    @property
    def longest_s(self) -> float:
        """The longest time out, whatever came before, in seconds."""
        return max(LONGEST_S, LONGEST_BASES * self.base_s)

    def room(self, of: int) -> int:
        """How many of so many members may be out at once. One alone is never ejected: a bad answer beats none."""
        return max(1, of * self.max_ejected_percent // 100) if of > 1 else 0

    def failed(self, record: Record, began_s: float, now_s: float, ejected_now: int, of: int) -> bool:
        """A request begun at `began_s` ended at `now_s` with one of FAILURES. True if this ejects its member.

        `ejected_now` of the pool's `of` members are out. Where there is no room for another, the count stays: the next
        failure asks again.
        """
        if began_s < record.out_until_s:  # also true of all that ends while it is out
            return False
        record.failures += 1
        if record.failures < self.consecutive_failures or ejected_now >= self.room(of):
            return False
        self._eject(record, now_s)
        return True

    def _eject(self, record: Record, now_s: float) -> None:
        doublings = record.doublings
        if doublings:  # one less for each base time spent in service
            doublings = max(0, doublings - int((now_s - record.out_until_s) / self.base_s))
        out_s = min(self.base_s * 2.0**doublings, self.longest_s)
        record.doublings = doublings + (out_s < self.longest_s)
        record.out_until_s = now_s + out_s
        record.ejected = True
        record.failures = self.consecutive_failures - 1  # the probation
