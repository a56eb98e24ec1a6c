"""Messages between two ends of a link, in whatever pieces they come."""

import asyncio
import os
import pickle
import re
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model.secret import Secret
from proxy.state.makers import Maker
from proxy.workers import messages as m
from proxy.workers.counts import Change
from proxy.workers.link import Link, packed
from tests.support.patience import PATIENCE_S

SCALARS = (
    st.none() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False) | st.builds(Secret, st.text())
)
MESSAGES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
RULES = m.ClientRules(re.compile("gpt-.*"), 10, None, 3)
SECRET = "sk-never-shown-0123456789"
REAL = [
    m.Clients(m.ClientsInForce({"c": RULES}, {b"digest": "c"}, (None, b"pepper")), {"client/c": 0}),
    m.Ask(3, ("canary",), 12.5),
    m.Cut(4, frozenset({("up", "k", "11111111")})),
    m.Drain(1.0, 2.0),
    m.Applied(7, "no such file"),
    m.Counts(3, [Change(("outcomes", "up"), {"ok": 1})], 5, {}),
    m.Notes({("ejected", "pool", "member"): float("-inf")}),
    m.Made([(b"id", Maker("up", None))]),
    m.WasCut(4, 2),
]


def heard(pieces: list[bytes]) -> list[object]:
    messages: list[object] = []
    link = Link(messages.append, lambda: None)
    for piece in pieces:
        link.data_received(piece)
    return messages


@given(st.lists(MESSAGES, max_size=6), st.data())
def test_messages_survive_any_cutting_into_pieces(messages, data):
    stream = b"".join(map(packed, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert heard(pieces) == messages


def test_byte_by_byte_what_is_really_said_arrives():
    stream = b"".join(map(packed, REAL))
    assert heard([stream[place : place + 1] for place in range(len(stream))]) == REAL


@given(MESSAGES, st.integers(1, 100))
def test_nothing_is_heard_before_it_is_whole(message, missing):
    stream = packed(message)
    assert heard([stream[: max(0, len(stream) - missing)]]) == []


def test_secrets_arrive_and_are_not_shown():
    sent = {("up", "key"): [(Secret(SECRET), 100)]}
    [message] = heard([packed(m.Configuration(1, None, {}, sent, None, {}, {}))])
    assert message.keys["up", "key"][0][0].reveal() == SECRET
    assert SECRET not in repr(message)
    assert Secret(SECRET).fingerprint in repr(message)


def test_elsewhere_secrets_are_not_pickled():
    with pytest.raises(TypeError, match="a secret is not pickled"):
        pickle.dumps(Secret(SECRET))


class End:
    """One end of a link over a real socket."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.lost = asyncio.Event()
        self.link = Link(self.heard.append, self.lost.set)

    async def begin(self, over: socket.socket) -> None:
        over.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: self.link, sock=over)


@pytest.fixture
async def ends():
    pair = End(), End()
    for end, over in zip(pair, socket.socketpair(), strict=True):
        await end.begin(over)
    yield pair
    for end in pair:
        end.link.close()
    async with asyncio.timeout(PATIENCE_S):
        for end in pair:
            await end.lost.wait()


async def test_large_messages_arrive_in_their_order_and_all_before_the_end(ends):
    one, other = ends
    large = [os.urandom(3_000_000) for _ in range(4)]
    for message in large:
        one.link.send(message)
        one.link.send_packed(packed("small"))
    one.link.close()
    async with asyncio.timeout(PATIENCE_S):
        await other.lost.wait()
    assert other.heard == [each for message in large for each in (message, "small")]


async def test_both_speak_at_once(ends):
    one, other = ends
    for number in range(100):
        one.link.send(number)
        other.link.send(-number)
    one.link.send("end")
    other.link.close()
    async with asyncio.timeout(PATIENCE_S):
        await one.lost.wait()
    assert one.heard == [-number for number in range(100)]


async def test_nothing_is_said_to_who_is_gone(ends):
    one, other = ends
    other.link.close()
    async with asyncio.timeout(PATIENCE_S):
        await one.lost.wait()
        await other.lost.wait()
    for end in ends:
        end.link.send("anybody?")
        end.link.send_packed(packed("no"))
        end.link.close()
    assert one.heard == other.heard == []


def test_nothing_is_said_before_there_is_anybody():
    link = Link(lambda _: None, lambda: None)
    link.send("hello")
    link.close()
