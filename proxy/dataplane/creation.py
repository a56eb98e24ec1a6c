"""A call whose answer hands out the id of something its upstream keeps: an exchange that reads the id in passing."""

from proxy.dataplane.answer_head import AnswerHead
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.framing import AnswerReader
from proxy.model.errors import BadAnswer
from proxy.policy.stateful import LOOKED_AT_BYTES, ids_in_answer
from proxy.state.makers import Maker
from proxy.state.snapshot import Way


class Creation(Exchange):
    """The caller gets its bytes as ever, and first; a copy of their beginning is looked at."""

    __slots__ = ("_beginning", "_copy")

    def _begin(self, way: Way) -> None:
        self._copy: AnswerReader | None = AnswerReader(http10=True)  # takes the framing of chunks off
        self._beginning = b""
        super()._begin(way)

    def received(self, data: bytes) -> None:
        copy = self._copy
        super().received(data)
        if copy is None or copy is not self._copy:  # this was no answer yet: another upstream is being asked
            return
        try:
            self._beginning += copy.feed(data)
        except BadAnswer:  # which the exchange has seen to
            self._copy = None
        else:
            if copy.head is not None:
                self._look(copy.head)

    def _look(self, head: AnswerHead) -> None:
        made = ids_in_answer(self._beginning) if head.status < 300 else []
        key = self._way.key
        maker = Maker(self._upstream.name, None if key is None else key.name, self._upstream.target)
        for one in made:
            self._tools.makers.remember(one, maker)
        told = made and head.event_stream  # in the first event
        if told or head.status >= 300 or len(self._beginning) > LOOKED_AT_BYTES:
            self._copy = None
