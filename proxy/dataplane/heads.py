"""The heads we write: to an upstream, and to a caller. Fields that pass keep their order, case and bytes."""

from proxy.dataplane.answer_head import AnswerHead
from proxy.dataplane.request import Request
from proxy.state.snapshot import Route, Upstream


def upstream_target(route: Route, upstream: Upstream, target: bytes) -> bytes:
    """The target at the upstream: base_url's path, the caller's path without the route's prefix, both queries."""
    path = upstream.base_path + target[len(route.prefix) :]
    if not path.startswith(b"/"):
        path = b"/" + path
    if upstream.query:
        path += (b"&" if b"?" in path else b"?") + upstream.query
    return path


def request_head(request: Request, route: Route, upstream: Upstream, body_bytes: int | None) -> bytes:
    """The head of a request to `upstream`. `body_bytes`: the length of its body; None if it is sent in chunks."""
    fields = request.fields
    passed = fields.passed
    if upstream.overridden:
        passed = [pair for pair in passed if pair[0].lower() not in upstream.overridden]
    parts = [request.method, b" ", upstream_target(route, upstream, request.target), upstream.after_target]
    for name, value in passed:
        parts += (name, b": ", value, b"\r\n")
    key = request.key
    parts += (upstream.fixed_lines, _callers_credentials(request, upstream) if key is None else key.line)
    parts += (request.snapshot.via_line, b"x-request-id: ", request.request_id)
    if body_bytes is None:
        parts.append(b"\r\ntransfer-encoding: chunked\r\n\r\n")
    elif fields.has_body:
        parts.append(b"\r\ncontent-length: %d\r\n\r\n" % body_bytes)
    else:
        parts.append(b"\r\n\r\n")
    return b"".join(parts)


def _callers_credentials(request: Request, upstream: Upstream) -> bytes:
    """The caller's own, where we hold no key. What named it to us was taken out of them."""
    own = [
        pair
        for pair in request.fields.credentials
        if pair[0] != b"x-serinus-key" and pair[0] not in upstream.overridden
    ]
    return b"".join([b"%b: %b\r\n" % pair for pair in own])


def answer_head(request: Request, head: AnswerHead, upstream: Upstream, *, keep_alive: bool) -> bytes:
    """The head of an upstream's answer, for the caller."""
    parts = [b"HTTP/1.1 %d %b" % (head.status, head.reason), head.fields]
    seen = head.seen
    if head.chunked and not request.http11:
        parts[1] = _without_coding(head.fields)
    elif (
        request.http11
        and not head.chunked
        and head.content_length is None
        and head.status not in (204, 304)
        and request.method != b"HEAD"
    ):
        parts.append(b"\r\ntransfer-encoding: chunked")
    if head.event_stream:  # so that a proxy before us does not hold events back
        if b"x-accel-buffering" not in seen:
            parts.append(b"\r\nx-accel-buffering: no")
        if b"cache-control" not in seen:
            parts.append(b"\r\ncache-control: no-cache")
    # An upstream's own request id is what its support asks for, so it stays; ours then goes by another name.
    id_name = b"x-serinus-request-id" if b"x-request-id" in seen else b"x-request-id"
    parts.append(b"\r\n%b: %b\r\nx-serinus-upstream: %b" % (id_name, request.request_id, upstream.name.encode()))
    parts.append(b"\r\n\r\n" if keep_alive else b"\r\nconnection: close\r\n\r\n")
    return b"".join(parts)


def _without_coding(fields: bytes) -> bytes:
    lines = fields.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"transfer-encoding:"))
