"""Both ends of a tunnel: a raw caller, a scripted upstream, and what a test wants to know of what is between."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

from proxy.dataplane.tunnel import Tunnel
from tests.support.lanes import the_connection
from tests.support.patience import PATIENCE_S
from tests.support.raw import CLIENT, Answer, RawCaller
from tests.support.running import RunningProxy
from tests.support.scripted import Conversation, Received, ScriptedUpstream

KIB, MIB = 1024, 1024 * 1024
KEY_FIELDS = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
SWITCH = SWITCHED + ACCEPT + b"\r\n"
ASKS = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


def upgrade(
    target: bytes = b"/v1/realtime", *, fields: bytes = b"", asks: bytes = ASKS, credential: bytes = CLIENT
) -> bytes:
    """A request for a tunnel."""
    return b"GET %b HTTP/1.1\r\nHost: proxy\r\n%b%b%b%b\r\n" % (target, credential, asks, KEY_FIELDS, fields)


class Directed:
    """An upstream that takes a request, and then does what the test says."""

    def __init__(self) -> None:
        self.talks: list[Conversation] = []

    async def __call__(self, talk: Conversation) -> None:
        await talk.request()
        self.talks.append(talk)
        talk.upstream.changed.set()
        await asyncio.Event().wait()


@dataclass
class Ends:
    """A caller, and the upstream's connection that its request came by."""

    caller: RawCaller
    talk: Conversation
    head: Answer | None = None

    @property
    def request(self) -> Received:
        return self.talk.requests[-1]


async def asked(upstream: ScriptedUpstream, running: RunningProxy, request: bytes = b"", **options: object) -> Ends:
    """The upstream has the request, and has not answered."""
    caller = await RawCaller.connect(running.port, **options)  # type: ignore[arg-type]
    count = len(upstream.script.talks)  # type: ignore[attr-defined]
    await caller.send(request or upgrade())
    await upstream.until(lambda: len(upstream.script.talks) > count)  # type: ignore[attr-defined]
    return Ends(caller, upstream.script.talks[-1])  # type: ignore[attr-defined]


async def opened(
    upstream: ScriptedUpstream, running: RunningProxy, request: bytes = b"", switch: bytes = SWITCH, **options: object
) -> Ends:
    """A tunnel is open."""
    ends = await asked(upstream, running, request, **options)
    await ends.talk.send(switch)
    ends.head = await ends.caller.answer()
    assert ends.head.status == 101
    return ends


def tunnel_of(running: RunningProxy) -> Tunnel:
    """The only one."""
    exchange = the_connection(running).exchange
    assert isinstance(exchange, Tunnel)
    return exchange


async def at_upstream(ends: Ends, size: int) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        return await ends.talk.reader.readexactly(size)


async def at_caller(ends: Ends, size: int) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        return await ends.caller.reader.readexactly(size)


async def rest_at_upstream(ends: Ends) -> bytes:
    """All bytes until the connection ends; a reset counts as an end."""
    return await RawCaller(ends.talk.reader, ends.talk.writer).read_rest()


async def pass_both_ways(ends: Ends, text: bytes = b"zebra") -> None:
    """Bytes go through, both ways."""
    await ends.caller.send(text)
    assert await at_upstream(ends, len(text)) == text
    await ends.talk.send(text[::-1])
    assert await at_caller(ends, len(text)) == text[::-1]


def narrow(writer: asyncio.StreamWriter | asyncio.Transport) -> None:
    """Let little fit into what the system keeps for this socket."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)


def reset(writer: asyncio.StreamWriter) -> None:
    """End with RST instead of FIN."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()


async def pushed(send: Callable[[bytes], object], size: int) -> None:
    """Send `size` bytes that say where they stand."""
    for start in range(0, size, 64 * KIB):
        await send(numbered(start, min(64 * KIB, size - start)))  # type: ignore[misc]


def numbered(start: int, size: int) -> bytes:
    """Bytes that say where they stand: each four are their own number."""
    return b"".join(number.to_bytes(4, "big") for number in range(start // 4, (start + size) // 4))
