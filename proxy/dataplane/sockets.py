"""What transports have no methods for."""

import asyncio
import socket
import struct

# Linux calls a socket writable again only when a third of its send buffer is free, and that buffer grows to megabytes:
# a caller that reads slowly would look for minutes like one that does not read. So little is kept there unsent.
UNSENT_BYTES = 128 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST instead of FIN


def hold_little_unsent(wire: asyncio.Transport) -> None:
    """Let the system hold no more than `UNSENT_BYTES` that it has not sent yet."""
    raw = wire.get_extra_info("socket")
    if raw is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def reset(wire: asyncio.Transport) -> None:
    """End with a TCP reset, so that nobody takes the end for the answer's. What was not sent yet is lost."""
    raw = wire.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    wire.abort()
