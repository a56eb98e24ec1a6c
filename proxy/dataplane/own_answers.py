"""Answers of the proxy's own: its errors in the words of the API that was called, and that it is alive."""

import re
from http import HTTPStatus

import msgspec

from proxy.dataplane.heads import ARM_FIELDS
from proxy.dataplane.request import Request
from proxy.model.errors import ProxyError
from proxy.policy.fields import Pair

_MESSAGES_API = re.compile(rb"/v1/messages(?:[/?]|$)")
RETRY_AFTER_S = 1  # what a 429 or 503 of ours asks for where nothing better is known

# Anthropic's SDK and its users match on these; https://docs.anthropic.com/en/api/errors
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def speaks_anthropic(target: bytes, passed: list[Pair]) -> bool:
    """Is this a call of Anthropic's API? Its SDKs send their version with each one."""
    return _MESSAGES_API.search(target) is not None or any(name.lower() == b"anthropic-version" for name, _ in passed)


def render(
    error: ProxyError,
    *,
    anthropic: bool = False,
    request_id: bytes = b"",
    upstream: str = "",
    tries: int = 0,
    fields: bytes = b"",
    close: bool,
    head_only: bool = False,
) -> bytes:
    """The whole answer, as bytes to write. `fields`: more of them, each with CRLF before it. `close`: the connection
    ends with it. `head_only`: to a HEAD."""
    body = _body(error, anthropic)
    lines = [
        b"HTTP/1.1 %d %b" % (error.status, HTTPStatus(error.status).phrase.encode()),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
    ]
    if request_id:
        lines.append(b"x-request-id: %b" % request_id)
    if upstream:
        lines.append(b"x-serinus-upstream: %b" % upstream.encode())
    if tries > 1:
        lines.append(b"x-serinus-attempts: %d" % tries)
    if error.status in (429, 503):
        lines.append(b"retry-after: %d" % (error.retry_after_s or RETRY_AFTER_S))
    if close:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + fields + b"\r\n\r\n" + (b"" if head_only else body)


def render_for(request: Request, error: ProxyError, *, close: bool) -> bytes:
    """The whole answer to a request that could be read."""
    return render(
        error,
        anthropic=speaks_anthropic(request.head.target, request.head.fields.passed),
        request_id=request.request_id,
        upstream="" if request.way is None else request.way.upstream.name,
        tries=request.tries,
        fields=request.head.cors + request.limit_fields + ARM_FIELDS[request.arm],
        close=close,
        head_only=request.head.method == b"HEAD",
    )


def own_answer(request: Request, status: bytes, fields: bytes, body: bytes | None, *, close: bool) -> bytes:
    """An answer that is no error. `fields`: each with CRLF before it. `body`: None for an answer that has none."""
    head = request.head
    lines = [b"HTTP/1.1 %b%b" % (status, fields), b"x-request-id: %b" % request.request_id]
    if body is not None:
        lines.append(b"content-length: %d" % len(body))
    if close:
        lines.append(b"connection: close")
    shown = b"" if body is None or head.method == b"HEAD" else body
    return b"\r\n".join(lines) + head.cors + b"\r\n\r\n" + shown


def _body(error: ProxyError, anthropic: bool) -> bytes:
    if anthropic:
        kind = _ANTHROPIC_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
        return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": str(error)}})
    detail = {"message": str(error), "type": error.type, "param": error.param, "code": error.code}
    return msgspec.json.encode({"error": detail})
