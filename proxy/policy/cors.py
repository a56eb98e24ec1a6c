"""Which web pages of other origins may read answers: CORS, as far as a proxy for APIs needs it.

Pages send a key in a header, never cookies, so no answer here allows credentials; then `*` may stand for all headers.
Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from dataclasses import dataclass

from proxy.policy.fields import Pair

PREFLIGHT_MAX_AGE_S = 7200  # the most that browsers keep to


@dataclass(frozen=True, slots=True)
class Cors:
    origins: frozenset[bytes]  # each as browsers send it: scheme, host, and port where it is not the scheme's
    any_origin: bool = False

    def allows(self, origin: bytes) -> bool:
        return self.any_origin or origin in self.origins

    def answer(self, fields: list[Pair]) -> bytes:
        """What is added to the answer to a request with these fields, each with CRLF before it.

        Where the origin may call, that it may read the answer; and that to others the answer would be another.
        """
        origin = origin_of(fields)
        vary = b"" if self.any_origin else b"\r\nvary: origin"
        if not origin or not self.allows(origin):
            return vary
        allowed = b"*" if self.any_origin else origin
        return b"\r\naccess-control-allow-origin: " + allowed + b"\r\naccess-control-expose-headers: *" + vary

    def preflight(self, method: bytes, fields: list[Pair]) -> bytes:
        """What answers a browser's question whether it may send a request; b"" where this is no such question."""
        asked, origin = _value(fields, b"access-control-request-method"), origin_of(fields)
        if method != b"OPTIONS" or not asked or not origin or not self.allows(origin):
            return b""
        headers = _value(fields, b"access-control-request-headers")
        answer = self.answer(fields) + b"\r\naccess-control-allow-methods: " + asked
        if headers:
            answer += b"\r\naccess-control-allow-headers: " + headers
        return answer + b"\r\naccess-control-max-age: %d" % PREFLIGHT_MAX_AGE_S


def origin_of(fields: list[Pair]) -> bytes:
    """The web page that sends the request; b"" where none does."""
    return _value(fields, b"origin")


def _value(fields: list[Pair], wanted: bytes) -> bytes:
    return next((value for name, value in fields if name.lower() == wanted), b"")
