"""What a field of a request head means to a proxy: passed on, taken out, or looked at.

The head of a request comes as pairs of bytes, as the caller wrote them. Fields nobody here knows are passed on in their
order, case and bytes; the few that concern one hop, or us, are picked out by name. Names repeat from request to
request, so each spelling is classified once.
"""

import re
from dataclasses import dataclass, field
from enum import Enum, auto

from proxy.model.errors import (
    ExpectationFailed,
    LoopDetected,
    MalformedRequest,
    UnknownCoding,
)
from proxy.policy.target import check_host

Pair = tuple[bytes, bytes]

MAX_REQUEST_ID_BYTES = 128


class Kind(Enum):
    """What is done with a field. `PASS` is every field not named below."""

    PASS = auto()
    DROP = auto()  # concerns this hop only, or is not the caller's to say
    HOST = auto()
    CONNECTION = auto()
    LENGTH = auto()
    CODING = auto()
    EXPECT = auto()
    CREDENTIAL = auto()
    REQUEST_ID = auto()
    TRACEPARENT = auto()
    TRACESTATE = auto()
    VIA = auto()
    UPGRADE = auto()
    SUBPROTOCOL = auto()
    ARM = auto()  # of a canary, that a caller chooses
    ENCODED = auto()  # content-encoding: passed on, but a compressed body cannot be looked into

    __hash__ = object.__hash__


# An attribute of an Enum costs 70 ns in Python 3.11, and some twenty are compared for each request.
PASS, DROP, HOST, CONNECTION, LENGTH, CODING, EXPECT, CREDENTIAL, REQUEST_ID, *_RARE = Kind
TRACEPARENT, TRACESTATE, VIA, UPGRADE, SUBPROTOCOL, ARM, ENCODED = _RARE

_BY_NAME = {
    b"host": HOST,
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"expect": EXPECT,
    b"x-serinus-key": CREDENTIAL,
    b"x-serinus-arm": ARM,
    b"authorization": CREDENTIAL,
    b"x-api-key": CREDENTIAL,
    b"api-key": CREDENTIAL,
    b"x-request-id": REQUEST_ID,
    b"traceparent": TRACEPARENT,
    b"tracestate": TRACESTATE,
    b"via": VIA,
    b"upgrade": UPGRADE,
    b"sec-websocket-protocol": SUBPROTOCOL,
    b"content-encoding": ENCODED,
    # RFC 9110 7.6.1, and what RFC 2616 and old proxies called hop-by-hop.
    **dict.fromkeys((b"keep-alive", b"proxy-connection", b"te", b"trailer", b"proxy-authorization"), DROP),
    # A provider need not know inner addresses; an untrusted caller need not invent them.
    **dict.fromkeys((b"forwarded", b"x-real-ip"), DROP),
}
_DROPPED_FAMILIES = (b"x-serinus-", b"x-forwarded-")

# A nomination in Connection never removes these: framing, Host and auth are not the caller's to take out (request
# smuggling), nor what says how the body is read.
_NEVER_NOMINATED = frozenset(
    b"host content-length transfer-encoding content-type content-encoding "
    b"authorization x-api-key api-key cookie via".split()
)
_LENGTH_END = 2**63  # where others' signed integers overflow

SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,%d}" % MAX_REQUEST_ID_BYTES)
# Version, trace, span, flags; versions after 00 may add to it. https://www.w3.org/TR/trace-context/#traceparent-header
TRACEPARENT_VALUE = re.compile(
    rb"(?!ff)(?!00-.{52}-)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,200})?"
)


_UPGRADE_NOMINATED = re.compile(rb"(?:^|,)[ \t]*upgrade[ \t]*(?:,|$)", re.IGNORECASE)
KEY_SUBPROTOCOL = b"openai-insecure-api-key."


_known: dict[bytes, Kind] = {}  # by each spelling met so far; bounded, for callers choose the spelling
_KNOWN_MAX = 4096
_KNOWN_MAX_BYTES = 64


def kind_of(name: bytes) -> Kind:
    """The kind of the field called `name`, in any case."""
    kind = _known.get(name)
    if kind is None:
        lower = name.lower()
        kind = _BY_NAME.get(lower) or (DROP if lower.startswith(_DROPPED_FAMILIES) else PASS)
        if len(_known) < _KNOWN_MAX and len(name) <= _KNOWN_MAX_BYTES:
            _known[name] = kind
    return kind


@dataclass(slots=True)
class RequestFields:
    """The fields of one request, sorted by what a proxy does with them. Values are bytes as received."""

    passed: list[Pair] = field(default_factory=list)
    credentials: list[Pair] = field(default_factory=list)  # name in lower case, value
    request_id: bytes | None = None
    traceparent: bytes | None = None
    tracestate: bool = False
    arm: bytes | None = None
    content_length: int | None = None
    chunked: bool = False
    expects_continue: bool = False
    encoded: bool = False
    upgrades: list[bytes] = field(default_factory=list)
    websocket: bool = False  # asked for, by one Upgrade


def read_fields(pairs: tuple[Pair, ...], *, http11: bool, via_id: bytes) -> RequestFields:
    """Sort the fields of a request head; `via_id` is the name this deployment signs Via with.

    Raises MalformedRequest (400), UnknownCoding (501), ExpectationFailed (417) or LoopDetected (508) for what must not
    be forwarded. The HTTP grammar and repeated or odd Content-Length were the parser's to refuse.
    """
    fields = RequestFields()
    passed = fields.passed
    hosts = 0
    nominated: bytes | None = None
    known = _known.get
    for pair in pairs:
        kind = known(pair[0]) or kind_of(pair[0])
        if kind is PASS:
            passed.append(pair)
        elif kind is HOST:
            hosts += 1
            check_host(pair[1])
        elif kind is LENGTH:
            fields.content_length = int(pair[1])
        elif kind is CREDENTIAL:
            fields.credentials.append((pair[0].lower(), pair[1]))
        elif kind is CONNECTION:
            nominated = pair[1] if nominated is None else nominated + b"," + pair[1]
        elif kind is not DROP:
            _READ_RARE[kind](fields, pair, http11, via_id)
    if hosts != 1 and (http11 or hosts):
        raise MalformedRequest("A request carries exactly one Host field.")
    if fields.content_length is not None and (fields.chunked or fields.content_length >= _LENGTH_END):
        raise MalformedRequest("Content-Length must be below 2^63, and without a Transfer-Encoding beside it.")
    if nominated is not None:
        fields.websocket = fields.websocket and _UPGRADE_NOMINATED.search(nominated) is not None
        _drop_nominated(fields, nominated)
    else:
        fields.websocket = False
    if fields.tracestate and not fields.traceparent:  # it says nothing without
        fields.passed = [pair for pair in fields.passed if kind_of(pair[0]) is not TRACESTATE]
    return fields


def _read_request_id(fields: RequestFields, pair: Pair, http11: bool, via_id: bytes) -> None:
    if SANE_ID.fullmatch(pair[1]):
        fields.request_id = pair[1]


def _read_traceparent(fields: RequestFields, pair: Pair, http11: bool, via_id: bytes) -> None:
    """Valid, or b"" for one that is to be replaced."""
    fields.traceparent = pair[1] if fields.traceparent is None and TRACEPARENT_VALUE.fullmatch(pair[1]) else b""


def _read_tracestate(fields: RequestFields, pair: Pair, http11: bool, via_id: bytes) -> None:
    fields.tracestate = True
    fields.passed.append(pair)


def _read_via(fields: RequestFields, pair: Pair, http11: bool, via_id: bytes) -> None:
    if via_id in pair[1]:
        raise LoopDetected("This request has passed through this proxy before: an upstream's base_url leads back here.")
    fields.passed.append(pair)


def _read_arm(fields: RequestFields, pair: Pair, http11: bool, via_id: bytes) -> None:
    fields.arm = pair[1].strip().lower()


def _read_encoding(fields: RequestFields, pair: Pair, http11: bool, via_id: bytes) -> None:
    fields.encoded = fields.encoded or pair[1].strip().lower() != b"identity"
    fields.passed.append(pair)


def _read_expectation(fields: RequestFields, pair: Pair, http11: bool, via_id: bytes) -> None:
    if pair[1].strip().lower() != b"100-continue":
        raise ExpectationFailed("The only expectation known is 100-continue.")
    fields.expects_continue = http11  # RFC 9110 10.1.1: ignored from an HTTP/1.0 caller


def _read_upgrade(fields: RequestFields, pair: Pair, http11: bool, via_id: bytes) -> None:
    fields.upgrades.append(pair[1].strip().lower())
    fields.websocket = http11 and fields.upgrades == [b"websocket"]


def _read_subprotocols(fields: RequestFields, pair: Pair, http11: bool, via_id: bytes) -> None:
    """A browser's WebSocket can send no Authorization: OpenAI takes a key among the subprotocols instead."""
    offered = [item.strip() for item in pair[1].split(b",")]
    keys = [item for item in offered if item.startswith(KEY_SUBPROTOCOL)]
    if not keys:
        fields.passed.append(pair)
        return
    fields.credentials += [(b"sec-websocket-protocol", key.removeprefix(KEY_SUBPROTOCOL)) for key in keys]
    others = [item for item in offered if item not in keys]
    if others:
        fields.passed.append((pair[0], b", ".join(others)))


def _read_coding(fields: RequestFields, pair: Pair, http11: bool, via_id: bytes) -> None:
    """RFC 9112 6.1, read narrowly: `chunked`, once, from an HTTP/1.1 caller. All else has smuggled requests before."""
    if not http11 or fields.chunked:
        raise MalformedRequest("Transfer-Encoding must be `chunked`, once, in an HTTP/1.1 request.")
    if pair[1].lower() != b"chunked":
        if re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", pair[1]):
            raise UnknownCoding("The only transfer coding known is chunked.")
        raise MalformedRequest("Transfer-Encoding must be exactly `chunked`.")
    fields.chunked = True


_READ_RARE = {
    CODING: _read_coding,
    EXPECT: _read_expectation,
    REQUEST_ID: _read_request_id,
    TRACEPARENT: _read_traceparent,
    TRACESTATE: _read_tracestate,
    VIA: _read_via,
    UPGRADE: _read_upgrade,
    SUBPROTOCOL: _read_subprotocols,
    ARM: _read_arm,
    ENCODED: _read_encoding,
}


def _drop_nominated(fields: RequestFields, value: bytes) -> None:
    names = {name.strip().lower() for name in value.split(b",")} - _NEVER_NOMINATED
    names -= {b"", b"close", b"keep-alive"}
    if names:
        fields.passed = [pair for pair in fields.passed if pair[0].lower() not in names]
