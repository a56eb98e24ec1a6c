"""Errors, and how each of the two APIs words them: SDKs and users' code choose what to do by status, type and code."""

from enum import Enum
from typing import Any

import msgspec
from aiohttp import web

RETRY_AFTER_S = 1  # what a 429 asks for; short, because tests and demos obey it


class Dialect(Enum):
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class ApiError(Exception):
    """A request answered with an error. `code` and `param` are OpenAI's; Anthropic has no such fields."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


class CutShort(Exception):
    """The answer breaks off here: its connection is to be closed without the answer's end."""

    def __init__(self, response: web.StreamResponse) -> None:
        super().__init__("cut short")
        self.response = response


# Type and code by status. Anything else below 500 is an invalid request, and from 500 on the server's fault.
_OPENAI_WORDS = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("request_forbidden", "request_forbidden"),
    404: ("invalid_request_error", "not_found"),
    429: ("requests", "rate_limit_exceeded"),
    503: ("service_unavailable", "service_unavailable"),
    529: ("service_unavailable", "overloaded"),
}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_response(error: ApiError, dialect: Dialect, request_id: str) -> web.Response:
    payload = _openai_error(error) if dialect is Dialect.OPENAI else _anthropic_error(error, request_id)
    headers = {"retry-after": str(RETRY_AFTER_S)} if error.status == 429 else None
    return web.Response(
        body=msgspec.json.encode(payload), status=error.status, headers=headers, content_type="application/json"
    )


def _openai_error(error: ApiError) -> dict[str, Any]:
    fallback = ("server_error", "server_error") if error.status >= 500 else ("invalid_request_error", None)
    type_, code = _OPENAI_WORDS.get(error.status, fallback)
    return {
        "error": {"message": str(error), "type": type_, "param": error.param, "code": error.code or code},
    }


def _anthropic_error(error: ApiError, request_id: str) -> dict[str, Any]:
    fallback = "api_error" if error.status >= 500 else "invalid_request_error"
    type_ = _ANTHROPIC_TYPES.get(error.status, fallback)
    return {"type": "error", "error": {"type": type_, "message": str(error)}, "request_id": request_id}
