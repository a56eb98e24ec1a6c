"""Where callers are to be served: what the control plane asks for and the data plane opens."""

import errno
import ssl
from dataclasses import dataclass

from proxy.model.address import Address
from proxy.model.reasons import reason


class CannotListen(RuntimeError):
    """An address cannot be had. The message says which and why, and what to do where that is known.

    `said`: without what to do, for commands that have options where others have settings.
    """

    def __init__(self, said: str, cure: str = "") -> None:
        super().__init__(f"{said}: {cure}" if cure else said)
        self.said = said

    @classmethod
    def on(cls, address: object, error: OSError, setting: str) -> "CannotListen":
        cure = f"end what serves there, or write another {setting}" if error.errno == errno.EADDRINUSE else ""
        return cls(f"cannot listen on {address}: {reason(error)}", cure)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An address, and how callers are served there."""

    address: Address
    tls: ssl.SSLContext | None
    handshake_timeout_s: float | None = None  # of TLS
    shutdown_timeout_s: float | None = None  # likewise
