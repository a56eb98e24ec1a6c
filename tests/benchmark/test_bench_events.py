import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.benchmark.events import Events

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=12)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def cut(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> list[bytes]:
    stream = draw(streams)
    places = draw(st.lists(st.integers(0, len(stream)), max_size=12))
    ends = sorted({0, len(stream), *places})
    return [stream[begin:end] for begin, end in itertools.pairwise(ends)]


def read(*blocks: bytes) -> list[bytes]:
    events = Events()
    return [data for block in blocks for data in events.feed(block)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a \n\n", [b" a "]),
        (b"data: a\r\n\r\n", [b"a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", [b"a\nb", b"c"]),
        (b"data: a\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b": ping\n\ndata: a\n\n", [b"a"]),
        (b":\n: OPENROUTER PROCESSING\n\ndata: a\n: in between\n\n", [b"a"]),
        (b"event: message\nid: 1\nretry: 5\ndata: a\n\n", [b"a"]),
        (b"event: ping\n\n", []),
        (b"dataset: a\n\n", []),
        (b"Data: a\n\n", []),
        (b" data: a\n\n", []),
        (b"data: a\n", []),
        (b"data: a", []),
        (b"", []),
        (b"data: [DONE]\n\n", [b"[DONE]"]),
        (b"data: \xff\x00\n\n", [b"\xff\x00"]),
        ("data: \x0b\x0c\x1c\x85\u2028\n\n".encode(), ["\x0b\x0c\x1c\x85\u2028".encode()]),  # none of these ends a line
    ],
)
def test_the_data_of_whole_events(stream: bytes, events: list[bytes]) -> None:
    assert read(stream) == events
    assert read(*(stream[place : place + 1] for place in range(len(stream)))) == events


@pytest.mark.parametrize("stream", [b"data:\n\n", b"data: \n\n", b"data\n\n"])
def test_an_event_of_nothing_is_none(stream: bytes) -> None:
    assert read(stream + b"data: a\n\n") == [b"a"]


def test_a_mark_of_the_byte_order_is_no_part_of_the_first_line() -> None:
    assert read(b"\xef\xbb\xbfdata: a\n\n") == [b"a"]
    assert read(b"data: a\n\n", b"\xef\xbb\xbfdata: b\n\n") == [b"a"]


def test_an_event_is_there_when_its_last_line_has_ended() -> None:
    """Not when the next one begins: that is when a token came."""
    events = Events()
    assert events.feed(b"data: a\n") == []
    assert events.feed(b"\n") == [b"a"]
    assert events.feed(b"data: b\r\n\r\n") == [b"b"]


def test_an_event_is_there_when_its_last_line_has_ended_with_cr() -> None:
    assert Events().feed(b"data: a\r\r") == [b"a"]


@st.composite
def stream_of(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    end = draw(ENDS)
    wanted, text = [], ""
    for lines in draw(st.lists(st.lists(TEXT, min_size=1, max_size=3), max_size=5)):
        text += draw(st.sampled_from(["", f": comment{end}", f"event: x{end}", end]))
        text += "".join(f"data: {line}{end}" for line in lines) + end
        wanted.append("\n".join(lines).encode())
    return wanted, text.encode() + f": last{end}".encode()


@given(st.data(), stream_of())
def test_wherever_a_stream_is_cut_its_events_are_the_same(data: st.DataObject, made: tuple[list[bytes], bytes]) -> None:
    wanted, stream = made
    assert read(*data.draw(cut(st.just(stream)))) == wanted


@given(cut(st.text("da:t \r\n", max_size=60).map(lambda text: text.encode())))
def test_wherever_anything_is_cut_its_events_are_the_same(blocks: list[bytes]) -> None:
    whole = b"".join(blocks)
    assert read(*blocks, b"\n.\n") == read(whole + b"\n.\n")


def test_json_goes_through() -> None:
    text = json.dumps({"a": "line\nbreak", "b": "\u2028"}, ensure_ascii=False).encode()
    assert read(b"data: " + text + b"\n\n") == [text]
