"""How to end a connection so that nobody takes the end for the answer's."""

import asyncio
import socket
import struct

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST instead of FIN


def reset(wire: asyncio.Transport) -> None:
    """End with a TCP reset. What was written and not yet sent is lost."""
    raw = wire.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    wire.abort()
