"""What a field of a request head means to a proxy: passed on, taken out, or looked at.

The head of a request comes as pairs of bytes, as the caller wrote them. Fields nobody here knows are passed on in their
order, case and bytes; the few that concern one hop, or us, are picked out by name. Names repeat from request to
request, so each spelling is classified once.
"""

import re
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache

from proxy.model.errors import (
    BadRequest,
    ExpectationFailed,
    LoopDetected,
    MalformedRequest,
    UnknownCoding,
)

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
    VIA = auto()
    ENCODED = auto()  # content-encoding: passed on, but a compressed body cannot be looked into

    __hash__ = object.__hash__


# An attribute of an Enum costs 70 ns in Python 3.11, and some twenty are compared for each request.
PASS, DROP, HOST, CONNECTION, LENGTH, CODING, EXPECT, CREDENTIAL, REQUEST_ID, VIA, ENCODED = Kind

_BY_NAME = {
    b"host": HOST,
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"expect": EXPECT,
    b"x-serinus-key": CREDENTIAL,
    b"authorization": CREDENTIAL,
    b"x-api-key": CREDENTIAL,
    b"api-key": CREDENTIAL,
    b"x-request-id": REQUEST_ID,
    b"via": VIA,
    b"content-encoding": ENCODED,
    # RFC 9110 7.6.1, and what RFC 2616 and old proxies called hop-by-hop.
    **dict.fromkeys((b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"proxy-authorization"), DROP),
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

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,%d}" % MAX_REQUEST_ID_BYTES)


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


@lru_cache(maxsize=1024)
def check_host(value: bytes) -> None:
    """Raise MalformedRequest unless `value` is one host with an optional port, as RFC 9110 7.2 has it."""
    match = _HOST.fullmatch(value)
    if match is None or (match[1] is not None and int(match[1]) > 65535):
        raise MalformedRequest("The Host field must name one host, with an optional port.")


@dataclass(slots=True)
class RequestFields:
    """The fields of one request, sorted by what a proxy does with them. Values are bytes as received."""

    passed: list[Pair] = field(default_factory=list)
    credentials: list[Pair] = field(default_factory=list)  # name in lower case, value
    request_id: bytes | None = None
    content_length: int | None = None
    chunked: bool = False
    expects_continue: bool = False
    encoded: bool = False

    @property
    def has_body(self) -> bool:
        return self.chunked or self.content_length is not None


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
            _read_rare(fields, kind, pair, http11, via_id)
    if hosts != 1 and (http11 or hosts):
        raise MalformedRequest("A request carries exactly one Host field.")
    if fields.content_length is not None and (fields.chunked or fields.content_length >= _LENGTH_END):
        raise MalformedRequest("Content-Length must be below 2^63, and without a Transfer-Encoding beside it.")
    if nominated is not None:
        _drop_nominated(fields, nominated)
    return fields


def _read_rare(fields: RequestFields, kind: Kind, pair: Pair, http11: bool, via_id: bytes) -> None:
    value = pair[1]
    if kind is REQUEST_ID:
        if _SANE_ID.fullmatch(value):
            fields.request_id = value
    elif kind is ENCODED:
        fields.encoded = value.strip().lower() != b"identity"
        fields.passed.append(pair)
    elif kind is VIA:
        if via_id in value:
            raise LoopDetected(
                "This request has passed through this proxy before: an upstream's base_url leads back here."
            )
        fields.passed.append(pair)
    elif kind is EXPECT:
        if value.strip().lower() != b"100-continue":
            raise ExpectationFailed("The only expectation known is 100-continue.")
        fields.expects_continue = http11  # RFC 9110 10.1.1: ignored from an HTTP/1.0 caller
    elif kind is CODING:
        _check_coding(fields, value, http11)


def _check_coding(fields: RequestFields, value: bytes, http11: bool) -> None:
    """RFC 9112 6.1, read narrowly: `chunked`, once, from an HTTP/1.1 caller. All else has smuggled requests before."""
    if not http11 or fields.chunked:
        raise MalformedRequest("Transfer-Encoding must be `chunked`, once, in an HTTP/1.1 request.")
    if value.lower() != b"chunked":
        if re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", value):
            raise UnknownCoding("The only transfer coding known is chunked.")
        raise MalformedRequest("Transfer-Encoding must be exactly `chunked`.")
    fields.chunked = True


def _drop_nominated(fields: RequestFields, value: bytes) -> None:
    names = {name.strip().lower() for name in value.split(b",")} - _NEVER_NOMINATED
    names -= {b"", b"close", b"keep-alive"}
    if names:
        fields.passed = [pair for pair in fields.passed if pair[0].lower() not in names]


# A path may be decoded once by whoever is behind us: so %2f and the backslash count as slashes, %2e as a dot.
_SLASH = re.compile(rb"/|\\|%2f|%5c", re.IGNORECASE)
_SUSPECT = re.compile(rb"\.|%2e", re.IGNORECASE)


@lru_cache(maxsize=1024)
def check_inside(target: bytes, prefix_bytes: int) -> None:
    """Raise BadRequest when dot segments behind the first `prefix_bytes` of a target climb out of that prefix."""
    path = target[prefix_bytes:]
    if _SUSPECT.search(path) is None:
        return
    depth = 0
    for segment in _SLASH.split(path.partition(b"?")[0]):
        plain = _SUSPECT.sub(b".", segment).partition(b";")[0]  # some cut off a segment's parameters first
        if plain == b"..":
            depth -= 1
            if depth < 0:
                raise BadRequest("The path climbs out of its route's prefix.")
        elif plain not in (b"", b"."):
            depth += 1


_BAD_TARGET = re.compile(rb"[^\x21\x22\x24-\x7e]")  # blanks, controls, 8-bit bytes, and # (a fragment is never sent)


@lru_cache(maxsize=1024)
def origin_form(target: bytes) -> bytes:
    """Path and query of a request target; of an absolute-form target the authority is left aside (RFC 9112 3.2.2)."""
    if _BAD_TARGET.search(target):
        raise MalformedRequest("The request target holds a byte that must be percent-encoded.")
    if target.startswith(b"/"):
        return target
    scheme, mark, rest = target.partition(b"://")
    if not mark or scheme.lower() not in (b"http", b"https"):
        raise MalformedRequest("The request target must begin with a slash.")
    authority, slash, path = rest.partition(b"/")
    if not authority or b"?" in authority or b"@" in authority:
        raise MalformedRequest("The request target's authority is not a host.")
    return slash + path if slash else b"/"
