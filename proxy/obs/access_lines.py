"""The access log of a busy proxy: a JSON line a request, written many at a time.

Through structlog, and with a write of its own, a line costs nearly as much as the rest of its request. So lines are put
together here, and written ten times a second, or as soon as there are many.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import msgspec

from proxy.obs.output import Stream

MOST_HELD = 500  # lines

_encode = msgspec.json.Encoder().encode


def _now() -> datetime:
    return datetime.now(UTC)


class AccessLines:
    """Called with a line's fields. A watch calls `expired` at each of its ticks; whoever ends the process, `flush`."""

    def __init__(
        self, stream: Stream, now: Callable[[], datetime] = _now, also: Mapping[str, object] = MappingProxyType({})
    ) -> None:
        """`also`: fields that each line has."""
        self._stream, self._now, self._also = stream, now, also
        self._lines: list[bytes] = []
        self.deadline_s = 0.0

    def __call__(self, **fields: object) -> None:
        self._lines.append(
            _encode({"event": "request", "level": "info", "timestamp": self._now(), **self._also, **fields})
        )
        if len(self._lines) >= MOST_HELD:
            self.flush()

    def expired(self, now_s: float) -> None:
        if self._lines:
            self.flush()

    def flush(self) -> None:
        """Write what is held. Does not fail: a full disk or a closed pipe must not stop the proxy."""
        lines, self._lines = self._lines, []
        try:
            self._stream.write(b"\n".join([*lines, b""]).decode())
            self._stream.flush()
        except (OSError, ValueError):
            pass
