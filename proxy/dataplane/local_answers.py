"""What is answered here and not by one upstream: that we are alive, a browser's preflight, the list of models."""

import msgspec

from proxy.dataplane.account import Account
from proxy.dataplane.model_list import ModelLists
from proxy.dataplane.own_answers import own_answer, speaks_anthropic
from proxy.dataplane.request import Local, Request
from proxy.dataplane.tools import Tools


class LocalAnswers:
    def __init__(self, tools: Tools) -> None:
        self._model_lists = ModelLists(tools)
        self._account: Account = tools.account

    async def answer(self, request: Request, *, close: bool) -> bytes:
        """The whole answer to a request whose head is `local`. Raises UpstreamFailed."""
        head = request.head
        if head.local is Local.ALIVE:
            return own_answer(request, b"200 OK", b"\r\ncontent-type: text/plain", b"ok\n", close=close)
        if head.local is Local.PREFLIGHT:
            return own_answer(request, b"204 No Content", b"", None, close=close)
        anthropic = speaks_anthropic(head.target, head.fields.passed)
        body = msgspec.json.encode(await self._model_lists.merged(request, anthropic=anthropic))
        self._account.answered(request, 200)
        return own_answer(request, b"200 OK", b"\r\ncontent-type: application/json", body, close=close)
