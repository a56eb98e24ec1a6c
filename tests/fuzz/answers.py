"""What an upstream sends: `AnswerReader` beside a strict judge and beside what a caller's own library reads."""

import http.client
import io
import re
from dataclasses import dataclass

from hypothesis import event
from hypothesis import strategies as st

from proxy.dataplane.framing import AnswerReader
from proxy.model.errors import BadAnswer
from tests.dataplane.test_framing import ANSWERS
from tests.fuzz import judge
from tests.fuzz.judge import Verdict
from tests.fuzz.mutation import mutated, pieces, short
from tests.support.answers import BROKEN_CHUNKS, NO_ANSWERS

_BLANKS = re.compile(rb"[ \t]+(?=\r\n|$)")
ROWS = short(
    [
        *(answer.raw for answer in ANSWERS.values()),
        *NO_ANSWERS.values(),
        *(good + broken for good, broken in BROKEN_CHUNKS.values()),
    ]
)


@dataclass(frozen=True)
class Read:
    """What came out of an answer, and whether it was whole."""

    whole: bool
    clean: bool
    status: int
    fields: bytes
    got: bytes
    rechunked: bool
    to_head: bool


def read(parts: list[bytes], *, to_head: bool, http10: bool) -> Read:
    reader = AnswerReader(head_only=to_head, http10=http10)
    got, whole, clean = b"", True, False
    try:
        for part in parts:
            got += reader.feed(part)
        clean = reader.is_clean()
        got += reader.end()
    except BadAnswer:
        whole = False
    head = reader.head
    if head is None:
        assert not whole, "whole without a head"
        assert not got, "bytes were handed on before the head was"
        return Read(whole, clean, 0, b"", b"", rechunked=False, to_head=to_head)
    bare = to_head or http10 or head.chunked or head.content_length is not None or head.status in (204, 304)
    return Read(whole, clean, head.status, head.fields, got, not bare, to_head)


def check(example: tuple[list[bytes], bool, bool]) -> None:
    parts, to_head, http10 = example
    raw = b"".join(parts)
    at_once = read([raw], to_head=to_head, http10=http10)
    cut = read(parts, to_head=to_head, http10=http10)
    bytewise = read([raw[at : at + 1] for at in range(len(raw))], to_head=to_head, http10=http10)
    judged = judge.answer(raw, to_head=to_head)
    event(f"{judged.verdict.name}, read as {'whole' if at_once.whole else 'broken'}")
    for other in (cut, bytewise):
        assert other.whole is at_once.whole, "whole or not depends on how it is cut"
        assert (other.status, other.fields, other.clean) == (at_once.status, at_once.fields, at_once.clean)
        if at_once.whole and not judged.until_close:
            assert other.got == at_once.got, "what a caller gets depends on how it is cut"
    for seen in (at_once, cut, bytewise):
        if seen.whole:
            assert judged.verdict is Verdict.WHOLE, f"what is {judged.verdict.name} was taken for whole"
            assert payload_of(seen, http10=http10) == judged.payload, "another payload than the judge's"
        if seen.clean:
            assert not judged.rest, "a connection with bytes left over is used again"
            assert not judged.until_close, "a connection that ends is used again"
        if not (seen.whole or http10):
            assert not caller_sees_an_end(seen), "a caller takes it for whole"


def payload_of(seen: Read, *, http10: bool) -> bytes:
    """As http.client reads it."""
    return seen.got if http10 else library(seen).read()


def caller_sees_an_end(seen: Read) -> bool:
    """Not by http.client, which takes the last chunk without what belongs behind it for the end."""
    return bool(seen.status) and judge.answer(as_sent(seen), to_head=False).verdict is Verdict.WHOLE


class _Wire:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def as_sent(seen: Read) -> bytes:
    """The answer as a caller of HTTP/1.1 gets it."""
    ours = b"\r\ntransfer-encoding: chunked" if seen.rechunked else b""
    return b"HTTP/1.1 %d OK%b%b\r\n\r\n%b" % (seen.status, seen.fields, ours, seen.got)


def library(seen: Read) -> http.client.HTTPResponse:
    """The answer in the hands of http.client, which knows no blank behind a coding."""
    head, _, body = as_sent(seen).partition(b"\r\n\r\n")
    raw = _BLANKS.sub(b"", head) + b"\r\n\r\n" + body
    response = http.client.HTTPResponse(_Wire(raw), method="HEAD" if seen.to_head else "GET")  # type: ignore[arg-type]
    response.begin()
    response.chunked = response.chunked and seen.status not in (204, 304)  # it looks for chunks even there
    return response


EXAMPLES = st.tuples(pieces(mutated(ROWS)), st.sampled_from([False, False, False, True]), st.booleans())
