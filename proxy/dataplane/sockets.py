"""What transports have no methods for."""

import asyncio
import ctypes
import socket
import struct
import sys
from contextlib import suppress
from typing import cast

# Linux calls a socket writable again only when a third of its send buffer is free, and that buffer grows to megabytes:
# a caller that reads slowly would look for minutes like one that does not read. So little is kept there unsent.
UNSENT_BYTES = 128 * 1024
# To close over unread bytes is to reset, which loses what was sent: so what still comes is thrown away for a while.
LINGER_S = 5.0
MAX_KEEPALIVE_S = 32767  # Linux takes no more
WRITE_HIGH_WATER_BYTES = 64 * 1024  # what a caller may leave unread before its upstream is paused
_SO_ATTACH_FILTER = 26  # of Linux
# A program for it, in classic BPF: of a packet whose SYN flag (bit 1 of byte 13 of TCP's head) is set return no bytes.
_NO_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST instead of FIN


def accepted(transport: asyncio.BaseTransport) -> tuple[asyncio.Transport, str]:
    """The transport of a caller, made ready for answers, and the caller's address."""
    wire = cast("asyncio.Transport", transport)
    wire.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
    _hold_little_unsent(wire)
    peer = wire.get_extra_info("peername")
    return wire, str(peer[0]) if isinstance(peer, tuple) else ""


def _hold_little_unsent(wire: asyncio.Transport) -> None:
    """Let the system hold no more than `UNSENT_BYTES` that it has not sent yet."""
    raw = wire.get_extra_info("socket")
    if raw is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def ask_when_silent(transport: asyncio.Transport, interval_s: float | None) -> None:
    """Let TCP ask a silent peer whether it is still there: after a crash it would never say that it left."""
    raw = transport.get_extra_info("socket")
    if raw is None or interval_s is None:
        return
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL"):  # the second is what macOS calls the first
        if hasattr(socket, option):
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), min(max(1, round(interval_s)), MAX_KEEPALIVE_S))


def reset(wire: asyncio.Transport) -> None:
    """End with a TCP reset, so that nobody takes the end for the answer's. What was not sent yet is lost."""
    raw = wire.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    wire.abort()


def take_no_more(listening: socket.socket) -> None:
    """Let the system take no new callers here, so that those it has taken can be accepted before the socket is closed.

    To close is to reset whom the system took and nobody accepted, perhaps with a request sent. Linux alone has a way:
    a filter that lets no SYN in. Who connects now tries again a second later, and is refused; who is about to be taken,
    so that for the caller the connection is there already, still is.
    """
    if sys.platform == "linux":
        program = ctypes.create_string_buffer(_NO_SYN, len(_NO_SYN))
        with suppress(OSError):  # what only looks like Linux may not know it
            listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 4, ctypes.addressof(program)))
