"""The addresses behind an upstream's name, asked for anew every so often.

Each new connection asks the resolver anyway; but connections that are kept alive would go on to a machine that the name
no longer means: one that was replaced, or drained by its DNS record.
"""

import asyncio
import math
import socket

from proxy.model.address import is_address


class Addresses:
    def __init__(self, host: str, port: int, interval_s: float) -> None:
        """`interval_s`: between two questions; infinite for none. What is an address already is never asked for."""
        self._host, self._port, self._interval_s = host, port, interval_s
        self._known: frozenset[str] = frozenset()  # empty: not asked yet
        self._due_s = math.inf if is_address(host) or math.isinf(interval_s) else 0.0

    def is_due(self, now_s: float) -> bool:
        """Is it time to ask again? Says so once."""
        if now_s < self._due_s:
            return False
        self._due_s = now_s + self._interval_s
        return True

    async def ask(self) -> bool:
        """Ask the system's resolver. True if the name means other machines now; without an answer it does not."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError:
            return False
        before, self._known = self._known, frozenset(str(address[0]) for *_, address in found)
        return bool(before) and before != self._known

    def has_left(self, address: str) -> bool:
        """Did the name mean this machine, and does it no more?"""
        return bool(self._known) and address not in self._known
