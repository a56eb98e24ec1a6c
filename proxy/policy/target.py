"""Where a request says that it goes: its target and its Host, as a proxy may believe them."""

import re
from functools import lru_cache

from proxy.model.errors import BadRequest, MalformedRequest

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


@lru_cache(maxsize=1024)
def check_host(value: bytes) -> None:
    """Raise MalformedRequest unless `value` is one host with an optional port, as RFC 9110 7.2 has it."""
    match = _HOST.fullmatch(value)
    if match is None or (match[1] is not None and int(match[1]) > 65535):
        raise MalformedRequest("Host, and the authority of a target, must be one host with an optional port.")


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
    check_host(authority)
    return slash + path if slash else b"/"
