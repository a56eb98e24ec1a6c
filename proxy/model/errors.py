"""One tree of errors that a caller can be answered with; each knows its status, type and code.

The names of types and codes are OpenAI's where OpenAI has one for the case: SDKs and users' code match on them. Nothing
here knows how they are sent.
"""

from typing import ClassVar


class ProxyError(Exception):
    """An answer of the proxy's own. `str(error)` is the message that the caller reads: it must hold no secret."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"
    code: str | None = None
    close: ClassVar[bool] = False  # the connection cannot be trusted, or its request was not read to the end

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code or self.code
        self.retry_after_s = retry_after_s


class BadRequest(ProxyError):
    status = 400
    type = "invalid_request_error"


class MalformedRequest(BadRequest):
    """Not HTTP as RFC 9112 has it: nothing of it is sent on, and nothing after it on this connection is believed."""

    code = "malformed_request"
    close = True


class Unauthenticated(ProxyError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class ModelForbidden(ProxyError):
    status = 403
    type = "permission_error"
    code = "model_not_allowed"


class OriginForbidden(ProxyError):
    status = 403
    type = "permission_error"
    code = "origin_not_allowed"


class RouteNotFound(ProxyError):
    status = 404
    type = "invalid_request_error"
    code = "unknown_url"


class ModelNotFound(ProxyError):
    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class MethodNotAllowed(ProxyError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"
    close = True


class RequestTimeout(ProxyError):
    status = 408
    type = "invalid_request_error"
    code = "request_timeout"
    close = True


class BodyTooLarge(ProxyError):
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"
    close = True


class TargetTooLong(MalformedRequest):
    status = 414
    code = "uri_too_long"


class ExpectationFailed(ProxyError):
    status = 417
    type = "invalid_request_error"
    code = "expectation_failed"
    close = True


class HeadTooLarge(MalformedRequest):
    status = 431
    code = "request_header_fields_too_large"


class UnknownCoding(MalformedRequest):
    status = 501
    code = "unknown_transfer_coding"


class VersionNotSupported(MalformedRequest):
    status = 505
    code = "http_version_not_supported"


class LoopDetected(ProxyError):
    status = 508
    code = "loop_detected"


class UpstreamFailed(ProxyError):
    """No connection, or an answer that is not HTTP."""

    status = 502
    code = "upstream_error"


class UpstreamCredentialsExhausted(ProxyError):
    status = 502
    code = "upstream_credentials_exhausted"


class TooManyConnections(ProxyError):
    status = 503
    type = "overloaded_error"
    code = "too_many_connections"
    close = True


class UpstreamRateLimited(ProxyError):
    """Every key that could be used was refused for lack of quota, and rests."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class ClientLimited(ProxyError):
    """The client has used up what the configuration lets it use."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class NobodyLeft(ProxyError):
    """No upstream could be reached, or none has room."""

    status = 503
    type = "overloaded_error"
    code = "upstream_unavailable"


class UpstreamTimeout(ProxyError):
    status = 504
    type = "timeout_error"
    code = "upstream_timeout"


class InternalError(ProxyError):
    status = 500
    close = True
    code = "internal_error"


class BadAnswer(Exception):
    """The upstream's bytes are not one valid HTTP/1.x answer. The text says, for logs, what was found."""


class Truncated(BadAnswer):
    """The connection ended before the answer did."""
