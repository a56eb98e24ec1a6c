"""The heads we write: to an upstream, and to a caller. Fields that pass keep their order, case and bytes."""

from proxy.dataplane.answer_head import AnswerHead
from proxy.dataplane.request import Head, Request
from proxy.policy.canary import Arm
from proxy.policy.fields import KEY_SUBPROTOCOL
from proxy.state.snapshot import Route, Upstream, Way

# By the arm that a request was drawn to, with CRLF before it.
ARM_FIELDS: dict[Arm | None, bytes] = {arm: b"\r\nx-serinus-arm: " + arm.value.encode() for arm in Arm} | {None: b""}


def upstream_target(route: Route, upstream: Upstream, target: bytes) -> bytes:
    """The target at the upstream: base_url's path, the caller's path without the route's prefix, both queries."""
    path = upstream.base_path + target[len(route.prefix) :]
    if not path.startswith(b"/"):
        path = b"/" + path
    if upstream.query:
        path += (b"&" if b"?" in path else b"?") + upstream.query
    return path


def request_head(request: Request, route: Route, way: Way, body_bytes: int | None) -> bytes:
    """The head of a request that goes this way. `body_bytes`: the length of its body; None if it is sent in chunks."""
    known = route, way, request.looked_into
    same = request.head.sent.get(known)
    if same is None:
        same = request.head.sent[known] = _same_each_time(request.head, *known)
    if body_bytes is None:
        framing = b"\r\ntransfer-encoding: chunked\r\n\r\n"
    elif body_bytes or request.has_body:
        framing = b"\r\ncontent-length: %d\r\n\r\n" % body_bytes
    else:
        framing = b"\r\n\r\n"
    return b"".join((same, request.request_id, b"\r\ntraceparent: ", request.traceparent, framing))


def _same_each_time(head: Head, route: Route, way: Way, looked_into: bool) -> bytes:
    """What every request with this head that goes this way begins with."""
    upstream = way.upstream
    parts = [head.method, b" ", upstream_target(route, upstream, head.target), upstream.after_target]
    for name, value in head.fields.passed:
        if looked_into and name.lower() == b"accept-encoding":
            value = b"identity"
        if name.lower() not in upstream.overridden:
            parts += (name, b": ", value, b"\r\n")
    parts += (upstream.fixed_lines, head.snapshot.via_line)
    if head.websocket:
        parts.append(b"connection: Upgrade\r\nupgrade: websocket\r\n")
    parts.append(_callers_credentials(head, upstream) if way.key is None else way.key.line)
    parts.append(b"x-request-id: ")
    return b"".join(parts)


def _callers_credentials(head: Head, upstream: Upstream) -> bytes:
    """The caller's own, where we hold no key. What named it to us was taken out of them."""
    lines = []
    for name, value in head.credentials:
        if name == b"sec-websocket-protocol":
            lines.append(b"%b: %b%b\r\n" % (name, KEY_SUBPROTOCOL, value))
        elif name != b"x-serinus-key" and name not in upstream.overridden:
            lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)


def answer_head(request: Request, head: AnswerHead, upstream: Upstream, *, keep_alive: bool) -> bytes:
    """The head of an upstream's answer, for the caller."""
    parts = [b"HTTP/1.1 %d %b" % (head.status, head.reason), head.fields]
    if request.head.snapshot.cors is not None:
        parts[1] = _without_cors(head.fields) + request.head.cors
    if request.limit_fields:  # and what is left to the client is for us to say
        parts[1] = _without_rate_limits(parts[1]) + request.limit_fields
    seen = head.seen
    if head.chunked and not request.head.http11:
        parts[1] = _without_coding(parts[1])
    elif (
        request.head.http11
        and not head.chunked
        and head.content_length is None
        and head.status not in (101, 204, 304)
        and request.head.method != b"HEAD"
    ):
        parts.append(b"\r\ntransfer-encoding: chunked")
    if head.event_stream:  # so that a proxy before us does not hold events back
        if b"x-accel-buffering" not in seen:
            parts.append(b"\r\nx-accel-buffering: no")
        if b"cache-control" not in seen:
            parts.append(b"\r\ncache-control: no-cache")
    # An upstream's own request id is what its support asks for, so it stays; ours then goes by another name.
    id_name = b"x-serinus-request-id" if b"x-request-id" in seen else b"x-request-id"
    parts += (b"\r\n", id_name, b": ", request.request_id, upstream.name_line)
    if request.arm is not None:
        parts.append(ARM_FIELDS[request.arm])
    if request.tries > 1:
        parts.append(b"\r\nx-serinus-attempts: %d" % request.tries)
    if head.status == 101:
        parts.append(b"\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
    else:
        parts.append(b"\r\n\r\n" if keep_alive else b"\r\nconnection: close\r\n\r\n")
    return b"".join(parts)


def _without_cors(fields: bytes) -> bytes:
    """Twice said, these fields are invalid; who may call us is for us to say."""
    lines = fields.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"access-control-"))


def _without_rate_limits(fields: bytes) -> bytes:
    if b"imit" not in fields:
        return fields
    lines = fields.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"x-ratelimit-"))


def _without_coding(fields: bytes) -> bytes:
    lines = fields.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"transfer-encoding:"))
