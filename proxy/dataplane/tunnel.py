"""A WebSocket call: an exchange that becomes a tunnel when the upstream says 101.

Bytes pass both ways as they come. Frames, pings and close codes are the peers' own, and so is who ends the connection
first: an end of one side is handed on as just that. Before the 101 it is an exchange like any other.
"""

from proxy.dataplane.bodies import Body
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.sockets import LINGER_S, ask_when_silent
from proxy.model.outcome import Outcome
from proxy.state.snapshot import Way

MAX_EARLY_BYTES = 64 * 1024  # of a caller that does not wait for the 101


class Tunnel(Exchange):
    IDLE_LIMIT = "websocket.idle"
    __slots__ = ("_caller_ended", "_early", "_open", "_upstream_ended")

    def start(self, way: Way, *, more: bool) -> None:
        self._early = b""
        self._open = self._caller_ended = self._upstream_ended = False
        super().start(way, more=more)

    def _answer(self, body: Body, piece: bytes, now_s: float) -> None:
        super()._answer(body, piece, now_s)
        connection = self._connection
        if self._request.status != 101 or connection is None:
            return
        self._open = True
        if self._stalled_bytes is None:
            self._rearm(now_s)
        for transport in (self._caller.wire, connection.transport):
            ask_when_silent(transport, self._upstream.tcp_keepalive_s)
        early, self._early = self._early, b""
        if early:
            self._caller.wire.resume_reading()
            connection.transport.write(early)  # which may pause the caller again

    @property
    def _limit_s(self) -> float:
        return self._upstream.websocket_idle_s if self._open else super()._limit_s

    # --- from the caller to the upstream -------------------------------------------------------------------------

    def from_caller(self, data: bytes) -> None:
        """Bytes that came behind the request."""
        connection = self._connection
        if self.ended or (self._open and connection is None):
            return
        if self._open and connection is not None:
            self._last_byte_s = self._tools.clock()
            connection.transport.write(data)
            return
        self._early += data
        if len(self._early) > MAX_EARLY_BYTES:
            self._caller.wire.pause_reading()

    def upstream_writable(self, writable: bool) -> None:
        """The upstream does not keep up, or does again."""
        if writable:
            self._caller.wire.resume_reading()
        else:
            self._caller.wire.pause_reading()

    # --- ends ----------------------------------------------------------------------------------------------------

    def caller_eof(self) -> bool:
        """The caller sends no more. Returns whether it may still be sent to."""
        connection = self._connection
        if self.ended or not self._open or connection is None or not self._caller.wire.can_write_eof():
            return False
        self._caller_ended = True
        if self._upstream_ended:
            self._finish()
        elif connection.transport.can_write_eof():
            connection.transport.write_eof()
        else:  # TLS ends both ways at once
            connection.transport.close()
        return True

    def upstream_eof(self) -> bool:
        connection, wire = self._connection, self._caller.wire
        if self.ended or not self._open or connection is None or not connection.transport.can_write_eof():
            return False
        self._upstream_ended = True
        if self._caller_ended or not wire.can_write_eof():
            self._finish()
            return False
        wire.write_eof()
        return True

    def upstream_closed(self, error: Exception | None) -> None:
        if self._open and not self.ended and error is None:
            self._connection = None
            self._finish()
        else:
            super().upstream_closed(error)

    def caller_gone(self) -> None:
        if self._open:
            self._let_go()  # the caller's last words are not cut off
        super().caller_gone()

    def _finish(self) -> None:
        """Both sides have said all they had to say."""
        self._let_go()
        if self._caller_ended:  # otherwise it may still be sending, and is lingered with
            self._caller.wire.close()
        self._end(Outcome.OK, keep_alive=False)

    def _let_go(self) -> None:
        """End the upstream's connection after what is still to be written."""
        connection, self._connection = self._connection, None
        if connection is not None:
            unsent = connection.transport.get_write_buffer_size() > 0
            wait_s = self._tools.stall_timeout_s if unsent else LINGER_S
            self._tools.pools.let_go(connection, self._tools.clock() + wait_s, ended=self._upstream_ended)
