"""What the relay returns to aiohttp: the answer has been written already, leave it alone."""

from aiohttp import web


class Answered(web.StreamResponse):
    """Tells aiohttp that the answer has been written, and whether the connection goes on."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


GOES_ON, ENDS = Answered(keep_alive=True), Answered(keep_alive=False)
