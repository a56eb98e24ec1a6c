"""The part of a request's body that did not fit into the buffer, on its way to the upstream at the upstream's pace."""

import asyncio


class Upload:
    """Pieces go out as they come; `room` holds the sender back while the upstream does not take them."""

    __slots__ = ("_blocked", "_chunked", "_transport", "_waiter", "open")

    def __init__(self, *, chunked: bool) -> None:
        self.open = True  # more is to come
        self._chunked = chunked
        self._blocked = False
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def waits_for_upstream(self) -> bool:
        return self.open and (self._blocked or self._transport is None)

    def begin(self, transport: asyncio.Transport) -> None:
        """There is a connection, and the head of the request is on it."""
        self._transport = transport
        self._wake()

    def block(self, blocked: bool) -> None:
        """The connection takes no more for now, or takes more again."""
        self._blocked = blocked
        if not blocked:
            self._wake()

    def send(self, piece: bytes) -> None:
        if piece and self._transport is not None:
            self._transport.write(self.framed(piece))

    def framed(self, piece: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked and piece else piece

    def end(self) -> None:
        """The body is whole."""
        self.open = False
        if self._chunked and self._transport is not None:
            self._transport.write(b"0\r\n\r\n")

    def stop(self) -> None:
        """Nobody wants the rest."""
        self.open, self._transport = False, None
        self._wake()

    async def room(self) -> None:
        """Wait until there is room for another piece, or nobody wants it any more."""
        while self.waits_for_upstream:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
