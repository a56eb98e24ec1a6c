"""Whether a target is healthy, as active checks see it.

One lost probe is no outage and one good one no recovery, so only several in a row change the state; the two numbers
differ, for leaving a good target in costs failed calls while taking a bad one back costs more of them.

A target is healthy until checks say otherwise. Envoy lets the first check decide alone and sends nothing before it; but
here a reload brings new targets under load, and a pool of unchecked ones would refuse every call.
"""


class Health:
    """The state of one target. Read `healthy`; the two numbers may be set anew by a reload."""

    __slots__ = ("_reason", "_streak", "checked", "healthy", "healthy_after", "unhealthy_after")

    def __init__(self, unhealthy_after: int = 3, healthy_after: int = 2) -> None:
        """How many failures, or passes, in a row change the state. Raises ValueError for less than 1."""
        if unhealthy_after < 1 or healthy_after < 1:
            raise ValueError("a state changes after at least 1 check")
        self.unhealthy_after, self.healthy_after = unhealthy_after, healthy_after
        self.healthy = True
        self.checked = False  # at least once
        self._streak = 0  # of checks that contradict the state
        self._reason = ""

    def reset(self) -> None:
        """It is not checked any more."""
        if self.checked:
            self.healthy, self.checked, self._streak = True, False, 0

    def passed(self) -> bool:
        """A check passed. True if the target is healthy again by it."""
        self.checked = True
        if self.healthy:
            self._streak = 0
            return False
        return self._contradicted(self.healthy_after)

    def failed(self, reason: str) -> bool:
        """A check failed, for this reason. True if the target is unhealthy from now on."""
        self.checked = True
        self._reason = reason
        if not self.healthy:
            self._streak = 0
            return False
        return self._contradicted(self.unhealthy_after)

    def _contradicted(self, enough: int) -> bool:
        self._streak += 1
        if self._streak < enough:
            return False
        self.healthy = not self.healthy
        self._streak = 0
        return True

    @property
    def verdict(self) -> str:
        """What an operator reads: the state, what stands against it in numbers, and why the last failed check did."""
        if not self.checked:
            return "healthy: not checked yet"
        if self.healthy:
            doubt = f": {self._streak} of {self.unhealthy_after} failed checks ({self._reason})" if self._streak else ""
            return "healthy" + doubt
        return f"unhealthy: {self._streak} of {self.healthy_after} passed checks (last failure: {self._reason})"
