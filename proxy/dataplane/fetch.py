"""A small request of the proxy's own to an upstream, on the same connections that callers' requests take."""

import asyncio

from proxy.dataplane.framing import AnswerReader
from proxy.dataplane.upstream import ConnectionPool, UpstreamConnection
from proxy.model.errors import BadAnswer

MAX_ANSWER_BYTES = 4 * 1024 * 1024


class FetchFailed(Exception):
    """No whole answer came. The text says, for logs, why."""


class Fetch:
    """One request and its whole answer, without the framing of chunks. It is sent once, on a connection of its own."""

    def __init__(self, pool: ConnectionPool, head: bytes) -> None:
        self._pool, self._head = pool, head
        self._reader = AnswerReader(http10=True)
        self._connection: UpstreamConnection | None = None
        self._payload = b""
        self._whole: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    async def answer(self, timeout_s: float) -> tuple[int, bytes]:
        """The answer's status and payload. Raises FetchFailed."""
        self._pool.open(self)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._whole
        except TimeoutError:
            raise FetchFailed("no answer in time") from None
        finally:
            self._whole.cancel()
            self._let_go()

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._reader.is_clean():
            self._pool.give(connection)
        else:
            connection.abort()

    def _fail(self, reason: str) -> None:
        if not self._whole.done():
            self._whole.set_exception(FetchFailed(reason))

    # --- what the connection tells -------------------------------------------------------------------------------

    def connected(self, connection: UpstreamConnection) -> None:
        if self._whole.done():
            self._pool.give(connection)
            return
        self._connection, connection.exchange = connection, self
        connection.transport.write(self._head)

    def connect_failed(self, reason: str, *, timed_out: bool) -> None:
        self._fail(reason)

    def received(self, data: bytes) -> None:
        try:
            self._payload += self._reader.feed(data)
        except BadAnswer as error:
            self._fail(str(error))
            return
        if len(self._payload) > MAX_ANSWER_BYTES:
            self._fail("an answer beyond all measure")
        elif self._reader.done:
            self._finish()

    def upstream_closed(self, error: Exception | None) -> None:
        self._connection = None
        try:
            self._reader.end()
        except BadAnswer as broken:
            self._fail(str(broken))
        else:
            self._finish()

    def upstream_eof(self) -> bool:
        return False

    def upstream_writable(self, writable: bool) -> None:
        """A head always fits."""

    def _finish(self) -> None:
        if self._reader.head is not None and not self._whole.done():
            self._whole.set_result((self._reader.head.status, self._payload))
