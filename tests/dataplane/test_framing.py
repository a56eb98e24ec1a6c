"""Where an answer ends, whatever pieces it comes in: the reader alone, without sockets."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.dataplane.framing import MAX_HEAD_BYTES, AnswerReader
from proxy.model.errors import BadAnswer, Truncated
from tests.support.answers import BROKEN_CHUNKS, NO_ANSWERS


@dataclass(frozen=True, slots=True)
class Sent:
    """A whole answer: `raw` from its first byte to its last, and what callers should get of its body."""

    raw: bytes
    body: bytes = b""  # as an HTTP/1.1 caller gets it; without the chunks that we add where the close ends it
    payload: bytes = b""  # as an HTTP/1.0 caller gets it
    to_head: bool = False
    until_close: bool = False


def sized(payload: bytes, fields: bytes = b"") -> Sent:
    head = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (fields, len(payload))
    return Sent(head + payload, payload, payload)


def chunked(body: bytes, payload: bytes, fields: bytes = b"") -> Sent:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n" % fields
    return Sent(head + body, body, payload)


def until_close(payload: bytes, line: bytes = b"HTTP/1.1 200 OK") -> Sent:
    return Sent(line + b"\r\nContent-Type: text/plain\r\n\r\n" + payload, payload, payload, until_close=True)


def bodiless(raw: bytes, *, to_head: bool = False) -> Sent:
    return Sent(raw, to_head=to_head)


def after(interim: bytes, answer: Sent) -> Sent:
    return Sent(interim + answer.raw, answer.body, answer.payload, answer.to_head, answer.until_close)


LOOKS_LIKE_ENDS = b"\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\r\n0\r\n\r\n\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nContent-Length: 7\r\n\r\n"

ANSWERS = {
    "length": sized(b"hello, world", b"Content-Type: text/plain\r\n"),
    "length 0": sized(b""),
    "length, body like ends": sized(LOOKS_LIKE_ENDS),
    "length with leading zeros": Sent(b"HTTP/1.1 200 OK\r\nContent-Length: 0005\r\n\r\nhello", b"hello", b"hello"),
    "length, blanks around it": Sent(b"HTTP/1.1 200 OK\r\nContent-Length: \t 5 \t\r\n\r\nhello", b"hello", b"hello"),
    "length of HTTP/1.0": Sent(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", b"hello"),
    "chunked": chunked(b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "chunked, nothing in it": chunked(b"0\r\n\r\n", b""),
    "chunked, any case": Sent(
        b"HTTP/1.1 200 OK\r\ntransfer-ENCODING:Chunked \r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"hello",
    ),
    "chunked, odd sizes": chunked(b"000a\r\n0123456789\r\nA\r\nabcdefghij\r\n000\r\n\r\n", b"0123456789abcdefghij"),
    "chunked, extensions": chunked(b'5;a=b;c;d="e;f\\"g"\r\nhello\r\n0;last\r\n\r\n', b"hello"),
    "chunked, trailers": chunked(b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-8bit: \xe9\r\n\r\n", b"hello"),
    "chunked, trailers like a head's": chunked(
        b"1\r\nx\r\n0\r\nConnection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n", b"x"
    ),
    "chunked, body like ends": chunked(
        b"%x\r\n%b\r\n2\r\n\r\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n" % (len(LOOKS_LIKE_ENDS), LOOKS_LIKE_ENDS),
        LOOKS_LIKE_ENDS + b"\r\n\r\n\r\n",
    ),
    "chunked, line breaks alone": chunked(b"1\r\n\r\r\n1\r\n\n\r\n2\r\n\n\r\r\n0\r\n\r\n", b"\r\n\n\r"),
    "chunked, upgrade offered": chunked(
        b"5\r\nhello\r\n0\r\n\r\n", b"hello", b"Connection: upgrade\r\nUpgrade: h2c\r\n"
    ),
    "until close": until_close(b"hello, world"),
    "until close, nothing in it": until_close(b""),
    "until close, body like ends": until_close(LOOKS_LIKE_ENDS),
    "until close of HTTP/1.0": until_close(b"hello", b"HTTP/1.0 200 OK"),
    "head, length": bodiless(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", to_head=True),
    "head, chunked": bodiless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", to_head=True),
    "head, neither": bodiless(b"HTTP/1.1 200 OK\r\n\r\n", to_head=True),
    "204": bodiless(b"HTTP/1.1 204 No Content\r\nX-Own: a\r\n\r\n"),
    "304 with a length": bodiless(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5000\r\nETag: a\r\n\r\n"),
    "304 with a coding": bodiless(b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "no reason": Sent(b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello", b"hello"),
    "100 before": after(CONTINUE, sized(b"hello")),
    "103 before": after(HINTS, chunked(b"5\r\nhello\r\n0\r\n\r\n", b"hello")),
    "ten before": after((CONTINUE + HINTS) * 5, sized(b"hello")),
    "100 before a 204": after(CONTINUE, bodiless(b"HTTP/1.1 204 No Content\r\n\r\n")),
    "100 before what the close ends": after(CONTINUE, until_close(b"hello")),
}
FRAMED = {name: answer for name, answer in ANSWERS.items() if not answer.until_close}
EXCESS = (b"\r\n", b"\n", b"\r\n\r\n", b"x", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

every_answer = pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
every_framed_answer = pytest.mark.parametrize("answer", FRAMED.values(), ids=FRAMED)


# --- pieces, and what is read of them ---------------------------------------------------------------------------------


def reader_for(answer: Sent, *, http10: bool = False) -> AnswerReader:
    return AnswerReader(head_only=answer.to_head, http10=http10)


def feed(reader: AnswerReader, *pieces: bytes) -> bytes:
    return b"".join([reader.feed(piece) for piece in pieces])


def cut_at(data: bytes, *offsets: int) -> list[bytes]:
    edges = [0, *sorted(offsets), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def without_our_chunks(body: bytes) -> bytes:
    """The payload of what we framed as chunks because a close ends it."""
    payload = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        payload, body = payload + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        assert rest[int(size, 16) :].startswith(b"\r\n")
    return payload


def assert_read(answer: Sent, pieces: list[bytes], *, http10: bool = False) -> AnswerReader:
    """`pieces` are the answer: it comes out as it should, whole and with nothing behind it."""
    reader = reader_for(answer, http10=http10)
    got = feed(reader, *pieces)
    assert reader.done is not answer.until_close
    got += reader.end()
    if answer.until_close and not http10:
        assert got.endswith(b"0\r\n\r\n")
        got = without_our_chunks(got)
    assert got == (answer.payload if http10 else answer.body)
    assert reader.done
    assert reader.body is not None
    assert not reader.body.excess
    return reader


# --- any pieces give the same bytes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("http10", [False, True], ids=["HTTP/1.1", "HTTP/1.0"])
@every_answer
def test_answer_is_the_same_wherever_it_is_cut_in_two(answer, http10):
    for offset in range(len(answer.raw) + 1):
        assert_read(answer, cut_at(answer.raw, offset), http10=http10)


@pytest.mark.parametrize("http10", [False, True], ids=["HTTP/1.1", "HTTP/1.0"])
@every_answer
def test_answer_is_the_same_byte_by_byte(answer, http10):
    assert_read(answer, cut_at(answer.raw, *range(1, len(answer.raw))), http10=http10)


@every_framed_answer
def test_answer_ends_with_its_last_byte_and_not_before(answer):
    reader = reader_for(answer)
    for byte in cut_at(answer.raw, *range(1, len(answer.raw))):
        assert not reader.done
        reader.feed(byte)
    assert reader.done


def chunk(data: bytes, zeros: int, upper: bool, extension: bytes) -> bytes:
    size = b"0" * zeros + (b"%X" if upper else b"%x") % len(data)
    return size + extension + b"\r\n" + data + b"\r\n"


LINE_BREAKS = st.text("\r\n0aH", max_size=12).map(str.encode)  # bodies that look like ends
PAYLOADS = st.one_of(LINE_BREAKS, st.binary(max_size=60), st.just(LOOKS_LIKE_ENDS))
EXTENSIONS = st.sampled_from([b"", b";a", b";a=b", b';a="b c"', b';a="\\"";b'])
CHUNKS = st.builds(chunk, PAYLOADS.filter(bool), st.integers(0, 20), st.booleans(), EXTENSIONS)
TRAILERS = st.lists(st.sampled_from([b"X-Sum: 1\r\n", b"x:\r\n", b"X-8bit: \xe9\t\r\n"]), max_size=3).map(b"".join)
FIELDS = st.lists(
    st.sampled_from([b"X-Own: a\r\n", b"Set-Cookie: a\r\n", b"Connection: keep-alive\r\n", b"X:\r\n"]), max_size=4
).map(b"".join)
INTERIM = st.lists(st.sampled_from([CONTINUE, HINTS]), max_size=10).map(b"".join)


@st.composite
def chunked_answers(draw: st.DrawFn) -> Sent:
    chunks = draw(st.lists(CHUNKS, max_size=6))
    end = b"0" * draw(st.integers(1, 9)) + draw(EXTENSIONS) + b"\r\n" + draw(TRAILERS) + b"\r\n"
    payload = b"".join(piece[piece.index(b"\r\n") + 2 : -2] for piece in chunks)
    return chunked(b"".join(chunks) + end, payload, draw(FIELDS))


ANY_ANSWER = st.builds(
    after,
    INTERIM,
    st.one_of(
        st.sampled_from(list(ANSWERS.values())),
        st.builds(sized, PAYLOADS, FIELDS),
        st.builds(until_close, PAYLOADS, st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 500 \xe9"])),
        chunked_answers(),
    ),
).filter(lambda answer: answer.raw.count(b"HTTP/1.1 1") <= 10)


ANY = settings(deadline=None, derandomize=True, max_examples=400)  # the same answers in each run


def offsets(data: st.DataObject, size: int) -> list[int]:
    return data.draw(st.lists(st.integers(0, size), max_size=20), label="cuts")


@ANY
@given(answer=ANY_ANSWER, http10=st.booleans(), data=st.data())
def test_any_answer_is_the_same_in_any_pieces(answer, http10, data):
    assert_read(answer, cut_at(answer.raw, *offsets(data, len(answer.raw))), http10=http10)


@ANY
@given(answer=ANY_ANSWER.filter(lambda answer: not answer.until_close), http10=st.booleans(), data=st.data())
def test_any_excess_is_kept_from_the_caller(answer, http10, data):
    sent = answer.raw + data.draw(st.sampled_from(EXCESS), label="excess")
    reader = reader_for(answer, http10=http10)
    got = feed(reader, *cut_at(sent, *offsets(data, len(sent))))
    assert got == (answer.payload if http10 else answer.body)
    assert reader.done
    assert not reader.is_clean()


# --- what follows the end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("excess", EXCESS, ids=repr)
@every_framed_answer
def test_bytes_after_the_end_are_dropped_and_spoil_the_connection(answer, excess):
    sent = answer.raw + excess
    for offset in range(len(sent) + 1):
        reader = reader_for(answer)
        assert feed(reader, *cut_at(sent, offset)) == answer.body
        assert reader.done
        assert not reader.is_clean()
        assert reader.end() == b""


def head(fields: bytes, *, version: bytes = b"1.1", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/%b %b\r\n%b\r\n" % (version, status, fields)


LENGTH_0 = b"Content-Length: 0\r\n"
CONNECTIONS = {
    "1.1": (True, head(LENGTH_0)),
    "1.1, a body": (True, head(b"Content-Length: 1\r\n") + b"x"),
    "1.1, chunked": (True, head(b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n"),
    "1.1, keep-alive": (True, head(b"Connection: keep-alive\r\n" + LENGTH_0)),
    "1.1, an unknown option": (True, head(b"Connection: x-own\r\n" + LENGTH_0)),
    "1.1, 204": (True, head(b"", status=b"204 No Content")),
    "1.1, 304": (True, head(b"Content-Length: 9\r\n", status=b"304 Not Modified")),
    "1.1, close": (False, head(b"Connection: close\r\n" + LENGTH_0)),
    "1.1, close with a body": (False, head(b"Connection: close\r\nContent-Length: 1\r\n") + b"x"),
    "1.1, close in any case": (False, head(b"CONNECTION:\tClOsE \r\n" + LENGTH_0)),
    "1.1, close in a list": (False, head(b"Connection: x-own ,close\t, x\r\n" + LENGTH_0)),
    "1.1, close on a second line": (False, head(b"Connection: keep-alive\r\nConnection: close\r\n" + LENGTH_0)),
    "1.1, close and 204": (False, head(b"Connection: close\r\n", status=b"204 No Content")),
    "1.1, close and 304": (False, head(b"Connection: close\r\n", status=b"304 Not Modified")),
    "1.1, 204 that announces a body": (False, head(b"Content-Length: 5\r\n", status=b"204 No Content")),
    "1.1, 204 that announces chunks": (False, head(b"Transfer-Encoding: chunked\r\n", status=b"204 No Content")),
    "1.0": (False, head(LENGTH_0, version=b"1.0")),
    "1.0, 204": (False, head(b"", version=b"1.0", status=b"204 No Content")),
    "1.0, keep-alive": (True, head(b"Connection: Keep-Alive\r\n" + LENGTH_0, version=b"1.0")),
    "1.0, keep-alive with a body": (
        True,
        head(b"Connection: keep-alive\r\nContent-Length: 1\r\n", version=b"1.0") + b"x",
    ),
    "1.0, keep-alive and close": (False, head(b"Connection: keep-alive, close\r\n" + LENGTH_0, version=b"1.0")),
}


@pytest.mark.parametrize(("reusable", "raw"), CONNECTIONS.values(), ids=CONNECTIONS)
def test_connection_is_used_again_only_where_both_sides_mean_it(reusable, raw):
    reader = AnswerReader()
    reader.feed(raw)
    assert reader.done
    assert reader.is_clean() is reusable


@every_answer
def test_connection_is_not_used_again_before_the_end(answer):
    reader = reader_for(answer)
    for byte in cut_at(answer.raw, *range(1, len(answer.raw))):
        assert not reader.is_clean()
        reader.feed(byte)
    assert reader.is_clean() is (not answer.until_close and not answer.raw.startswith(b"HTTP/1.0"))


# --- what is cut ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("http10", [False, True], ids=["HTTP/1.1", "HTTP/1.0"])
@every_framed_answer
def test_every_truncation_is_told(answer, http10):
    for size in range(len(answer.raw)):
        reader = reader_for(answer, http10=http10)
        got = reader.feed(answer.raw[:size])
        whole = answer.payload if http10 else answer.body
        assert whole.startswith(got)
        assert not reader.done
        assert reader.begun is (size > 0)
        with pytest.raises(Truncated):
            reader.end()


@pytest.mark.parametrize("answer", [a for a in ANSWERS.values() if a.until_close])
def test_close_before_the_end_of_the_head_is_told_even_where_it_ends_the_body(answer):
    for size in range(len(answer.raw) - len(answer.body)):
        reader = reader_for(answer)
        assert reader.feed(answer.raw[:size]) == b""
        with pytest.raises(Truncated):
            reader.end()


# --- what is refused --------------------------------------------------------------------------------------------------


def assert_refused(pieces: list[bytes]) -> None:
    reader = AnswerReader()
    with pytest.raises(BadAnswer):
        feed(reader, *pieces)
    assert reader.head is None
    assert not reader.is_clean()


@pytest.mark.parametrize("raw", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_no_answer_is_refused_however_it_is_cut(raw):
    for offset in range(min(len(raw), 400)):
        assert_refused(cut_at(raw, offset))
    if len(raw) < 400:
        assert_refused(cut_at(raw, *range(1, len(raw))))


@pytest.mark.parametrize("http10", [False, True], ids=["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize(("good", "broken"), BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS)
def test_broken_chunk_is_no_end_however_it_is_cut(good, broken, http10):
    sent = good + broken
    for offset in range(len(good), len(sent)):
        reader = AnswerReader(http10=http10)
        with pytest.raises(BadAnswer):
            feed(reader, *cut_at(sent, len(good), offset))
        assert not reader.done


@pytest.mark.parametrize("raw", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_reason_of_a_refusal_quotes_nothing(raw):
    with pytest.raises(BadAnswer) as refused:
        AnswerReader().feed(raw)
    assert "hello" not in str(refused.value)


# --- how much a head may be -------------------------------------------------------------------------------------------


def head_of(size_bytes: int) -> bytes:
    """A head of so many bytes, without its closing CRLF CRLF."""
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Own: "
    return start + b"a" * (size_bytes - len(start)) + b"\r\n\r\n"


@pytest.mark.parametrize("left", range(6))
def test_largest_head_is_read_wherever_it_is_cut(left):
    raw = head_of(MAX_HEAD_BYTES)
    reader = AnswerReader()
    assert feed(reader, *cut_at(raw, len(raw) - left)) == b""
    assert reader.done


@pytest.mark.parametrize("left", range(6))
def test_larger_head_is_refused_wherever_it_is_cut(left):
    raw = head_of(MAX_HEAD_BYTES + 1)
    assert_refused(cut_at(raw, len(raw) - left))


def test_128_fields_are_read():
    reader = AnswerReader()
    reader.feed(head(b"".join(b"X-%d: a\r\n" % number for number in range(127)) + LENGTH_0))
    assert reader.done


# --- what of a head passes --------------------------------------------------------------------------------------------

PASSING = {
    "names keep case and order": (b"B: 1\r\na: 2\r\nC-D: 3\r\n", b"B: 1\r\na: 2\r\nC-D: 3\r\n"),
    "values keep their blanks and bytes": (b"A:b\r\nC: \t d \r\nE:\r\nF: \xe9\xff\r\n",) * 2,
    "duplicates stay": (b"Set-Cookie: a\r\nVary: x\r\nSet-Cookie: b\r\n",) * 2,
    "hop-by-hop fields go": (
        b"A: 1\r\nConnection: close\r\nKeep-Alive: timeout=5\r\nB: 2\r\nPROXY-connection: x\r\nUpgrade: y\r\nC: 3\r\n",
        b"A: 1\r\nB: 2\r\nC: 3\r\n",
    ),
    "nominated fields go": (
        b"X-One: 1\r\nConnection: x-one, X-TWO\r\nx-two: 2\r\nX-Three: 3\r\n",
        b"X-Three: 3\r\n",
    ),
    "nominated on two lines": (b"Connection: x-one\r\nX-One: 1\r\nConnection: x-two\r\nX-Two: 2\r\n", b""),
    "a name that begins like a nominated one stays": (b"Connection: x\r\nX-One: 1\r\n", b"X-One: 1\r\n"),
    "framing is never nominated": (b"Connection: content-length, close\r\n", b""),
    "the body's kind is never nominated": (
        b"Connection: content-type\r\nContent-Type: a/b\r\n",
        b"Content-Type: a/b\r\n",
    ),
    "our own names go": (b"X-Serinus-Upstream: forged\r\nx-serinus-key: a\r\nX-Serinu: b\r\n", b"X-Serinu: b\r\n"),
    "names in values stay": (b"A: connection: close\r\nB: x-serinus-key: b\r\n",) * 2,
}


@pytest.mark.parametrize(("sent", "passed"), PASSING.values(), ids=PASSING)
def test_fields_that_pass(sent, passed):
    reader = AnswerReader()
    reader.feed(head(sent + LENGTH_0))
    assert reader.head is not None
    assert reader.head.fields == b"\r\n" + (passed + LENGTH_0)[:-2]
