"""Heads that were read before, so that the next request with the same is not read again.

An application sends nearly the same head with each call: only the length of the body and the ids of the call differ.
What is the same is the key under which the head, read and admitted, is remembered; so most requests cost a look-up
instead of a parse, a sort of their fields and a look at who sends them and where to.

A head is read by llhttp in full, and remembered only if it is that of a plain request: HTTP/1.1, a body of a known
length or none, nothing of the connection beyond keeping it. A later one may differ from it only in values that match
the narrow patterns here, so what llhttp would say of it is known.
"""

import re

import httptools

from proxy.dataplane.handler import Handler
from proxy.dataplane.request import Head, Request
from proxy.model.errors import ProxyError
from proxy.policy.fields import (
    CODING,
    CONNECTION,
    EXPECT,
    LENGTH,
    REQUEST_ID,
    SANE_ID,
    TRACEPARENT,
    TRACEPARENT_VALUE,
    Pair,
    kind_of,
)

MAX_KNOWN = 512
MAX_HEAD_BYTES = 8 * 1024  # larger ones are rare, and not for the fast lane
MAX_FIELDS = 128
# aiohttp refuses a request with two of one of these; and which of two ids counts is for one place to say.
_ONCE = frozenset(b"content-location content-range content-type etag max-forwards server user-agent".split())
_ONCE |= {b"x-request-id", b"traceparent"}

Values = tuple[bytes | None, bytes | None, bytes | None]  # a length, a request id, a traceparent
_VARYING = re.compile(
    rb"\r\n(?:(?i:content-length):[ \t]*([0-9]{1,18})|(?i:x-request-id):[ \t]*(%b)|(?i:traceparent):[ \t]*(%b))(?=\r\n)"
    % (SANE_ID.pattern, TRACEPARENT_VALUE.pattern)
)


class _Known:
    """The heads that were read, by what is the same in them."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._known: dict[tuple[object, ...], Head] = {}

    def find(self, same: tuple[object, ...]) -> Head | None:
        """None, too, where a configuration admitted it that is not in force any more."""
        head = self._known.get(same)
        if head is not None and not self._handler.in_force(head):
            self._known.clear()  # what an older configuration admitted is of no use, and holds on to it
            return None
        return head

    def remember(self, same: tuple[object, ...], values: Values, request: Request) -> None:
        fields = request.head.fields
        length = None if fields.content_length is None else b"%d" % fields.content_length
        if values != (length, fields.request_id, fields.traceparent):
            return  # one of them is there twice, or written in a way of its own
        while len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]  # the oldest
        self._known[same] = request.head

    def again(self, head: Head, values: Values, peer: str) -> Request | None:
        """Another request with this head; None where only a full reading can say what is wrong with it."""
        digits, request_id, traceparent = values
        length = None if digits is None else int(digits)
        if length is not None and length > head.max_body_bytes:
            return None
        return self._handler.begin(head, length, request_id, traceparent, peer)


class KnownPairs(_Known):
    """For a lane whose parser tells fields apart: it saves all but that."""

    def request(self, method: str, path: str, pairs: tuple[Pair, ...], peer: str) -> Request | None:
        """A request that was admitted before; None if it was not. To be asked for plain ones only."""
        same, values = _pairs_without_varying(method, path, pairs)
        head = self.find(same)
        return None if head is None else self.again(head, values, peer)

    def admitted(self, method: str, path: str, pairs: tuple[Pair, ...], request: Request) -> None:
        """It was read in full, and admitted."""
        if request.head.local is None and len(pairs) <= MAX_FIELDS and _are_plain(pairs):
            self.remember(*_pairs_without_varying(method, path, pairs), request)


class KnownHeads(_Known):
    """For a lane that has no parser."""

    def request(self, block: bytes, peer: str) -> Request | None:
        """The request whose head is `block`, up to and with the CRLF of its last field; None if it is not a plain one.

        Whatever is wrong with it is found, and answered, by who can read any request.
        """
        same, values = _without_varying(block)
        head = self.find(same)
        if head is not None:
            return self.again(head, values, peer)
        request = self._read(block, peer)
        if request is not None:
            self.remember(same, values, request)
        return request

    def _read(self, block: bytes, peer: str) -> Request | None:
        parsed = _Parsed()
        parser = httptools.HttpRequestParser(parsed)
        try:
            parser.feed_data(block + b"\r\n")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        pairs = tuple(parsed.pairs)
        if parser.get_http_version() != "1.1":
            return None
        if len(pairs) != block.count(b"\r\n") - 1 or len(pairs) > MAX_FIELDS or not _are_plain(pairs):
            return None
        try:
            request = self._handler.read(
                parser.get_method(), parsed.target, pairs, http11=True, keep_alive=True, peer=peer
            )
            self._handler.admit(request)
        except ProxyError:
            return None
        return request if request.head.local is None else None


class _Parsed:
    """llhttp's listener."""

    def __init__(self) -> None:
        self.target = b""
        self.pairs: list[Pair] = []

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.pairs.append((name, value.strip(b" \t")))


def _are_plain(pairs: tuple[Pair, ...]) -> bool:
    once = set()
    for name, value in pairs:
        kind, lower = kind_of(name), name.lower()
        if kind is CODING or kind is EXPECT or lower in once:
            return False
        if (kind is CONNECTION or lower == b"proxy-connection") and value.lower() != b"keep-alive":
            return False
        if lower in _ONCE:
            once.add(lower)
    return True


def _without_varying(block: bytes) -> tuple[tuple[bytes | None, ...], Values]:
    """The head without the fields whose values differ from call to call; and its length, request id and traceparent.

    In pieces: a text, of the field behind it which of the three it is, the next text, and so on.
    """
    length = request_id = traceparent = None
    pieces = _VARYING.split(block)
    for at in range(1, len(pieces), 4):
        if pieces[at] is not None:
            length, pieces[at] = pieces[at], b""
        elif pieces[at + 1] is not None:
            request_id, pieces[at + 1] = pieces[at + 1], b""
        else:
            traceparent, pieces[at + 2] = pieces[at + 2], b""
    return tuple(pieces), (length, request_id, traceparent)


def _pairs_without_varying(method: str, path: str, pairs: tuple[Pair, ...]) -> tuple[tuple[object, ...], Values]:
    """The same of a head whose fields were told apart."""
    length = request_id = traceparent = None
    same: list[object] = [method, path]
    for pair in pairs:
        name, value = pair
        kind = kind_of(name)
        if kind is LENGTH and length is None and value.isdigit():
            length = value
            same.append(LENGTH)
        elif kind is REQUEST_ID and request_id is None and SANE_ID.fullmatch(value):
            request_id = value
            same.append(REQUEST_ID)
        elif kind is TRACEPARENT and traceparent is None and TRACEPARENT_VALUE.fullmatch(value):
            traceparent = value
            same.append(TRACEPARENT)
        else:
            same.append(pair)
    return tuple(same), (length, request_id, traceparent)
