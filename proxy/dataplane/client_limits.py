"""A client's limits: what they say of a request when it begins, and what is noted against them when it has ended."""

import math

from proxy.dataplane.request import Request
from proxy.model.errors import ClientLimited
from proxy.policy.limits import Refused, estimated_tokens
from proxy.state.snapshot import Client

_SAID = {
    "requests": "The client {!r} may send {} requests a minute: try again in {}.",
    "tokens": "The client {!r} may use {} tokens a minute: try again in {}.",
    "concurrent": "The client {!r} has {} requests under way, as many as it may: try again when one has ended.",
}


def begin(request: Request, body: bytes, now_s: float, *, more: bool) -> None:
    """The request is under way, until `end` or `undo`. `body`: as much of it as is there, if `more` is to follow.

    Raises ClientLimited, and nothing is used.
    """
    head = request.head
    client = head.client
    if head.counts_tokens:
        request.tokens = estimated_tokens(request.content_length if more and request.content_length else len(body))
    if head.metered:
        request.metered = request.looked_into = True
    if client is None:
        return
    limits = client.live.limits
    refused = limits.begin(request.tokens, now_s)
    if client.limited:
        request.limit_fields = limits.headers(now_s)
    if refused is not None:
        client.live.limited[refused.limit] += 1
        raise ClientLimited(_said(client, refused), retry_after_s=math.ceil(refused.retry_after_s))
    request.limits = limits


def _said(client: Client, refused: Refused) -> str:
    wait_s = math.ceil(refused.retry_after_s * 10) / 10
    return _SAID[refused.limit].format(client.name, refused.most, f"{wait_s:g} s")


def undo(request: Request, now_s: float) -> None:
    """It came to nothing before anybody was asked."""
    limits, request.limits = request.limits, None
    if limits is not None:
        limits.undo(request.tokens, now_s)
        request.limit_fields = b""


def end(request: Request, tokens: int | None, now_s: float) -> None:
    """It is over. `tokens`: what it used, as far as that is known."""
    limits, request.limits = request.limits, None
    client = request.head.client
    if limits is not None and client is not None:
        limits.ended(request.tokens, tokens, now_s)
        client.live.requests += 1
        if client.metered:
            client.live.tokens += request.tokens if tokens is None else tokens
