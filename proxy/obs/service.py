"""What systemd is told of a service of `Type=notify` or `notify-reload`: a datagram of lines to a socket, sd_notify(3).

Without `NOTIFY_SOCKET` nothing is told, and nothing else is different.
"""

import math
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from proxy.obs.log import Log

LONGEST_WAIT_S = 1.0  # for a manager that does not read, which it soon will


class Service:
    """Tells the service manager how it goes. A watch calls `expired`, which is this loop's sign of life."""

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float], log: Log) -> None:
        """`clock`: the system's monotonic one, in seconds: the manager compares its own with it."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._clock, self._log = clock, log
        self._reloads, self._stopping = 0, False
        watched = environ.get("WATCHDOG_USEC", "") if environ.get("WATCHDOG_PID") in (None, str(os.getpid())) else ""
        self._alive_every_s = int(watched) / 2e6 if watched.isdecimal() else math.inf
        self.deadline_s = math.inf
        self.text: Callable[[], str] = lambda: "Serving"

    def ready(self) -> None:
        """It serves."""
        if not self._reloads and not self._stopping:
            self._tell("READY=1", f"STATUS={self.text()}")
            self.deadline_s = self._clock() + self._alive_every_s

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Around a reload, whatever comes of it. Of several at once, the last one's end is the end."""
        self._reloads += 1
        if not self._stopping:
            now_usec = int(self._clock() * 1e6)
            self._tell("RELOADING=1", f"MONOTONIC_USEC={now_usec}", "STATUS=Reading the configuration again")
        try:
            yield
        finally:
            self._reloads -= 1
            self.ready()

    def stopping(self, text: str, takes_s: float) -> None:
        """It ends, which takes so long at most: until then it is not to be killed."""
        self._stopping = True
        self._tell("STOPPING=1", f"STATUS={text}", f"EXTEND_TIMEOUT_USEC={math.ceil(takes_s * 1e6)}")

    def expired(self, now_s: float) -> None:
        """It is time for another sign of life."""
        self.deadline_s = now_s + self._alive_every_s
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
                wire.settimeout(LONGEST_WAIT_S)
                wire.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            self._log.warning("service_manager_not_told", socket=self._address, lines=lines, reason=str(error))
