"""May a call be made twice at the same time? Then the faster answer counts, and the other is paid for in vain.

Only one whose whole answer is waited for: the first byte of a stream comes early, and a slow one says little. And only
one that changes nothing upstream: a generation may run twice, the making of a file or a batch must not.
"""

import msgspec


class _Peek(msgspec.Struct):
    stream: object = False


_PEEK = msgspec.json.Decoder(_Peek)


def may_be_hedged(method: bytes, body: bytes) -> bool:
    """A GET, or a POST of one JSON object that does not ask for a stream. Where that is not certain: no."""
    if not body:
        return method == b"GET"
    if method != b"POST":
        return False
    try:
        return not _PEEK.decode(body).stream
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
