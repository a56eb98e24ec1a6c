"""Where callers are to be served: what the control plane asks for and the data plane opens."""

import ssl
from dataclasses import dataclass

from proxy.model.address import Address


class CannotListen(RuntimeError):
    """An address cannot be had. The message says which and why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An address, and how callers are served there."""

    address: Address
    tls: ssl.SSLContext | None
    handshake_timeout_s: float | None = None  # of TLS
    shutdown_timeout_s: float | None = None  # likewise
