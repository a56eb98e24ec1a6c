"""A call whose answer hands out the id of something its upstream keeps: an exchange that reads the id in passing."""

from proxy.dataplane.exchange import Exchange
from proxy.dataplane.framing import AnswerReader
from proxy.model.errors import BadAnswer
from proxy.policy.stateful import LOOKED_AT_BYTES, ids_in_answer
from proxy.state.makers import Maker


class Creation(Exchange):
    """The caller gets its bytes as ever, and first; a copy of their beginning is looked at."""

    __slots__ = ("_beginning", "_copy")

    def start(self, body: bytes, *, more: bool) -> None:
        self._copy: AnswerReader | None = AnswerReader(http10=True)  # takes the framing of chunks off
        self._beginning = b""
        super().start(body, more=more)

    def received(self, data: bytes) -> None:
        super().received(data)
        if self._copy is not None:
            try:
                self._beginning += self._copy.feed(data)
            except BadAnswer:  # which the exchange has seen to
                self._copy = None
            else:
                self._look()

    def _look(self) -> None:
        head = None if self._copy is None else self._copy.head
        if head is None:
            return
        if 200 <= head.status < 300 and (made := ids_in_answer(self._beginning)):
            key = self._request.key
            maker = Maker(self._upstream.name, None if key is None else key.name)
            for one in made:
                self._tools.makers.remember(one, maker)
            self._copy = None
        elif head.status >= 300 or len(self._beginning) > LOOKED_AT_BYTES:
            self._copy = None
