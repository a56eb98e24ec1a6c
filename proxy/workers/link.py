"""A stream of messages between two processes of one Serinus, over a socket that nobody else has.

Both ends are the same code: a worker never outlives a change of it. So messages are pickled, and secrets among them.
"""

import asyncio
import io
import pickle
import struct
from collections.abc import Callable
from typing import Any, cast

from proxy.model.secret import Secret

_LENGTH = struct.Struct("!I")


class _Pickler(pickle.Pickler):
    """Secrets do not let themselves be pickled; here they go from a process to itself, as it were."""

    def reducer_override(self, obj: Any) -> Any:
        return (Secret, (obj.reveal(),)) if isinstance(obj, Secret) else NotImplemented


def packed(message: object) -> bytes:
    """The message with its length before it."""
    buffer = io.BytesIO()
    buffer.write(bytes(_LENGTH.size))
    _Pickler(buffer, protocol=5).dump(message)
    _LENGTH.pack_into(data := bytearray(buffer.getvalue()), 0, buffer.tell() - _LENGTH.size)
    return bytes(data)


class Link(asyncio.Protocol):
    """One end. `hear` is told each message as it comes, `lost` that the other end is gone."""

    def __init__(self, hear: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._hear, self._lost = hear, lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer)
            end = _LENGTH.size + length
            if len(buffer) < end:
                return
            message = pickle.loads(memoryview(buffer)[_LENGTH.size : end].tobytes())  # noqa: S301 - see above
            del buffer[:end]
            self._hear(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost()

    def send(self, message: object) -> None:
        """Nothing is said to who is gone."""
        self.send_packed(packed(message))

    def send_packed(self, data: bytes) -> None:
        """For what several are told."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Once all is sent."""
        if self._transport is not None:
            self._transport.close()
