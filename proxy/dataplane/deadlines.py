"""Time limits for very many things at once, at next to no cost for those that keep them.

A timer of its own for every request and connection costs microseconds to set and cancel. Here a limit is a number in
a slot; ten times a second a watch looks at all it knows and tells those whose time is over. So a limit is kept to
within a tenth of a second, always late and never early.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

TICK_S = 0.1


class Timed(Protocol):
    deadline_s: float  # by the watch's clock; infinite for none

    def expired(self, now_s: float) -> None:
        """The deadline has passed. Set a new one, or leave the watch: otherwise this is called again next time."""


class Watch:
    """Looks after the deadlines of what is added to it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._timed: set[Timed] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.add = self._timed.add
        self.discard = self._timed.discard

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self.start()
        self.look()

    def look(self) -> None:
        """Tell all whose deadline has passed."""
        now_s = self._clock()
        for timed in [timed for timed in self._timed if timed.deadline_s <= now_s]:
            try:
                timed.expired(now_s)
            except Exception as error:  # noqa: BLE001 - the others' limits hold all the same
                context = {"message": "a time limit could not be enforced", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
