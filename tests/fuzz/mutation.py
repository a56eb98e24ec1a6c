"""Bytes that are nearly right: rows of a table, changed a little, and cut anywhere."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st

SHORT_BYTES = 1024  # longer rows say little, and cost much
MAX_CHANGES = 4
MAX_CUTS = 5
TOKENS = (
    *(b"\r\n", b"\r", b"\n", b"\r\n\r\n", b"\n\n", b"\0", b"\t", b" ", b"\x0b", b"\x7f", b"\x85", b"\xff", b":", b";"),
    *(b"0", b"0\r\n\r\n", b"5\r\nhello\r\n", b"\r\n0\r\n\r\n", b"ffffffffffffffff", b"00000000000000000", b"+", b"-"),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"content-length:\t7 \r\n",
        b"Transfer-Encoding: chunked\r\n",
    ),
    *(b"Transfer-Encoding: gzip\r\n", b"Connection: close\r\n", b"Connection: content-length\r\n", b"Host: a\r\n"),
    *(b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Expect: 100-continue\r\n", b"HTTP/1.0", b"HTTP/1.1", b","),
    *(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No Content\r\n", b"X-Own: a\r\n", b"\r\n b"),
)


def short(rows: Sequence[bytes]) -> list[bytes]:
    return [row for row in rows if len(row) < SHORT_BYTES]


@st.composite
def mutated(draw: st.DrawFn, rows: Sequence[bytes], tokens: Sequence[bytes] = TOKENS) -> bytes:
    """One of the rows, after some changes; now and then as it is."""
    raw = draw(st.sampled_from(rows))
    for _ in range(draw(st.integers(0, MAX_CHANGES))):
        start, end = sorted((draw(st.integers(0, len(raw))), draw(st.integers(0, len(raw)))))
        change = draw(st.sampled_from(("insert", "insert", "byte", "swap", "delete", "double", "cut", "splice")))
        if change == "insert":
            raw = raw[:start] + draw(st.sampled_from(tokens)) + raw[start:]
        elif change == "byte":
            raw = raw[:start] + bytes([draw(st.integers(0, 255))]) + raw[start + 1 :]
        elif change == "swap":
            raw = raw[:start] + draw(st.sampled_from(tokens)) + raw[end:]
        elif change == "delete":
            raw = raw[:start] + raw[min(end, start + 8) :]
        elif change == "double":
            raw = raw[:end] + raw[start:]
        elif change == "cut":
            raw = raw[:end]
        else:
            raw = raw[:start] + draw(st.sampled_from(rows))[start:]
    return raw


@st.composite
def pieces(draw: st.DrawFn, raws: st.SearchStrategy[bytes]) -> list[bytes]:
    """Such bytes, cut."""
    raw = draw(raws)
    edges = [0, *sorted(draw(st.lists(st.integers(0, len(raw)), max_size=MAX_CUTS))), len(raw)]
    return [raw[start:end] for start, end in pairwise(edges)]
