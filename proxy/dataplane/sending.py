"""The first half of an exchange: a request goes to one upstream after another, until one of them answers.

A try that fails before its answer has begun is hidden from the caller, if the pool's rule allows another one. The body
is kept for that; one that did not fit the buffer has been sent in part, and is tried once.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection

from proxy.dataplane.auth import keys_in
from proxy.dataplane.callers import Caller
from proxy.dataplane.framing import AnswerReader
from proxy.dataplane.heads import request_head
from proxy.dataplane.plan import Plan
from proxy.dataplane.request import Request
from proxy.dataplane.tools import Tools
from proxy.dataplane.upload import Upload
from proxy.dataplane.upstream import ConnectionPool, UpstreamConnection
from proxy.model.errors import NobodyLeft, ProxyError, UpstreamTimeout
from proxy.model.outcome import Outcome
from proxy.policy.model_field import ModelField
from proxy.policy.retry import CONNECT, Failure
from proxy.state.lease import Lease
from proxy.state.live import KeyLive
from proxy.state.snapshot import ClientKeys, Route, Upstream, Way

STALE_WITHIN_S = 1.0  # a close later than this may mean work done, which a second try would do and bill again
OUR_OWN = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL")  # no upstream's fault, and no other would mend it
ONE_WRITE_BYTES = 16 * 1024  # a larger body is not copied behind its head, but written after it


class Sending(ABC):
    __slots__ = (
        "_began_s",
        "_body",
        "_caller",
        "_connect_began_s",
        "_connection",
        "_last_byte_s",
        "_lease",
        "_maybe_stale",
        "_model",
        "_plan",
        "_pool",
        "_reader",
        "_request",
        "_route",
        "_tools",
        "_total_deadline_s",
        "_upstream",
        "_waiting",
        "_way",
        "deadline_s",
        "ended",
        "upload",
    )
    # Of the try that is under way:
    _lease: Lease
    _pool: ConnectionPool
    _reader: AnswerReader
    _upstream: Upstream
    _way: Way

    def __init__(
        self,
        tools: Tools,
        caller: Caller,
        request: Request,
        route: Route,
        body: bytes,
        model: ModelField | None,
        plan: Plan | None,
    ) -> None:
        """`body`: as much of it as was buffered; `model`: in it; `plan`: if the first way took one to find."""
        self._tools, self._caller, self._request, self._route = tools, caller, request, route
        self._body, self._model, self._plan = body, model, plan
        self._connection: UpstreamConnection | None = None
        self._maybe_stale = False  # the connection was idle, and may have been closed as it was written to
        self._waiting = False  # for quota, until the deadline: before it was sent, or to send it again
        self._connect_began_s = 0.0
        self._began_s = self._last_byte_s = request.ready_s
        self._total_deadline_s = self.deadline_s = math.inf
        self.upload: Upload | None = None
        self.ended = False

    def start(self, way: Way, *, more: bool) -> None:
        """Send the request this way. Where `more` of its body follows, `upload` takes it, until `end_body` or
        `body_failed`."""
        if more:
            self.upload = Upload(chunked=self._request.head.fields.chunked)
        self._tools.watch.add(self)
        self._begin(way)

    def _begin(self, way: Way) -> None:
        """Begin a try."""
        request = self._request
        request.way = self._way = way
        request.tries += 1
        request.sent_s = request.connecting_s = 0.0
        request.first_byte_wait_s = None
        upstream = self._upstream = way.upstream
        head = request.head
        if request.trace is not None and self._tools.tracer is not None:
            self._tools.tracer.begin_try(request, self._body, self._model)
        wait_s = 0.0
        if way.limits:
            wait_s = way.wait_s(request.tokens, request.ready_s)  # asked before it is counted itself
            if way.metered:
                request.metered = request.looked_into = True
        self._lease = Lease(way, len(self._body), request.tokens, request.ready_s)
        self._pool = self._tools.pools.of(upstream)
        self._reader = AnswerReader(head_only=head.method == b"HEAD", http10=not head.http11, websocket=head.websocket)
        self._total_deadline_s = min(self._total_deadline_s, self._began_s + upstream.total_timeout_s)
        self.deadline_s = self._total_deadline_s
        if wait_s:
            self._waiting = True
            self.deadline_s = min(request.ready_s + wait_s, self._total_deadline_s)
        else:
            self._go()

    def _go(self) -> None:
        """Take a connection, and send."""
        # A body that cannot be sent twice meets no stale connection.
        connection = self._pool.take() if self.upload is None else None
        self._maybe_stale = connection is not None
        if connection is None:
            self._connect()
        else:
            self._send(connection)

    def _connect(self) -> None:
        self._connect_began_s = self._tools.clock()
        self._upstream.live.pending += 1
        self._pool.open(self)

    def connected(self, connection: UpstreamConnection) -> None:
        self._upstream.live.pending -= 1
        if self.ended:
            self._pool.give(connection)
            return
        self._request.connecting_s += self._tools.clock() - self._connect_began_s
        self._send(connection)

    def connect_failed(self, reason: str, *, timed_out: bool) -> None:
        self._upstream.live.pending -= 1
        if self.ended:
            return
        name, outcome = self._upstream.name, _TIMEOUT if timed_out else _UPSTREAM_ERROR
        if reason in OUR_OWN:
            outcome = Outcome.STOPPED
        elif self._try_again(CONNECT, outcome, reason):
            return
        said = f"No connection to upstream {name}"
        self._refuse(UpstreamTimeout(f"{said} in time.") if timed_out else NobodyLeft(f"{said}."), outcome, reason)

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        connection.exchange = self
        request, way, body, upload = self._request, self._way, self._body, self.upload
        if way.member.model is not None and self._model is not None:
            body = self._model.replaced(body, way.member.model)
        length: int | None = len(body)
        if upload is not None:
            length, body = request.content_length, upload.framed(body)
        head = request_head(request, self._route, way, length)
        request.sent_s = self._last_byte_s = now_s = self._tools.clock()
        transport = connection.transport
        if len(body) > ONE_WRITE_BYTES:
            transport.write(head)
            transport.write(body)
        else:
            transport.write(head + body)
        self.deadline_s = min(now_s + self._upstream.first_byte_timeout_s, self._total_deadline_s)
        if upload is not None:
            upload.begin(transport)

    def _was_stale(self, connection: UpstreamConnection | None) -> bool:
        """An idle connection that was closed as we wrote to it: nothing was done, so once more on a fresh one."""
        soon = self._tools.clock() - self._request.sent_s < STALE_WITHIN_S
        if not (self._maybe_stale and soon and connection is not None) or self._reader.begun:
            return False
        self._maybe_stale = False
        self.deadline_s = self._total_deadline_s
        self._connect()
        return True

    # --- the rest of the body ------------------------------------------------------------------------------------

    def upstream_writable(self, writable: bool) -> None:
        if self.upload is not None:
            self._last_byte_s = self._tools.clock()
            self.upload.block(not writable)

    def end_body(self) -> None:
        """The caller has sent all of its request."""
        if self.upload is not None and not self.ended:
            self.upload.end()
            self._last_byte_s = self._tools.clock()

    def _is_uploading(self) -> bool:
        return self.upload is not None and self.upload.open

    # --- another try ---------------------------------------------------------------------------------------------

    def _try_again(self, failure: Failure, outcome: Outcome, reason: str) -> bool:
        """This try failed before its answer began. Is there another way? Then it is taken."""
        if self.upload is not None:
            return False
        now_s = self._tools.clock()
        way = self._planned().another(self._way, failure, now_s, self._total_deadline_s)
        if way is None:
            return False
        self._end_try(outcome, reason, now_s)
        self._begin_again(way, now_s)
        return True

    def _planned(self) -> Plan:
        """The plan, made now if there was none yet."""
        if self._plan is None:
            self._plan = Plan(self._request, self._way.pool, self._body, self._model)
        return self._plan

    def _end_try(self, outcome: Outcome, reason: str, now_s: float) -> None:
        self._leave_connection()
        self._lease.finish(outcome, now_s, tokens=0)
        self._trace(outcome, reason, now_s)
        self._judge(outcome, reason, now_s)
        self._account_for_try(reason)

    def _trace(self, outcome: Outcome, reason: str, now_s: float) -> None:
        """A try has ended."""
        if self._request.attempt is not None and self._tools.tracer is not None:
            head = self._reader.head
            self._tools.tracer.tried(self._request, outcome, reason, 0 if head is None else head.status, now_s)

    def _account_for_try(self, reason: str) -> None:
        self._tools.account.tried(self._request, self._route, reason)

    def _begin_again(self, way: Way, now_s: float) -> None:
        self._request.ready_s = now_s
        self._begin(way)

    def _judge(self, outcome: Outcome, reason: str, now_s: float) -> None:
        """Does what became of this try speak against its upstream?"""
        way = self._way
        if way.pool.judge(way.member, outcome, self._request.sent_s or self._connect_began_s, now_s):
            self._tools.log.warning(
                "upstream_ejected",
                pool=way.pool.name,
                **way.upstream.in_logs,
                last_failure=reason or outcome.value,
            )

    def _leave_connection(self) -> None:
        """Done with it: kept for others, if all was sent, and a whole answer came and nothing behind it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._reader.is_clean() and not connection.transport.get_write_buffer_size():
            self._pool.give(connection)
        else:
            connection.abort()

    def _waits_for_quota(self, wait_s: float, now_s: float) -> bool:
        """The upstream said when it takes calls again. If that is soon, the same way is taken then."""
        if self.upload is not None or not self._planned().waits(wait_s, now_s, self._total_deadline_s):
            return False
        self._leave_connection()
        self._waiting = True
        self.deadline_s = now_s + wait_s
        return True

    def _waited(self, now_s: float) -> None:
        self._waiting = False
        request = self._request
        if request.sent_s:
            self._end_try(Outcome.RATE_LIMITED, "429, waited out", now_s)
            self._begin_again(self._way, now_s)
            return
        request.waited_s += now_s - request.ready_s
        request.ready_s = now_s
        self.deadline_s = self._total_deadline_s
        self._go()

    def holds(self, keys: Collection[KeyLive]) -> bool:
        """Is it under way with one of these?"""
        return not self.ended and self._way.key is not None and self._way.key.live in keys

    def came_with(self, digests: Collection[bytes], clients: ClientKeys) -> bool:
        """Did its caller show one of these keys?"""
        return any(clients.is_one_of(key, digests) for key in keys_in(self._request.head.fields))

    # --- the other half ------------------------------------------------------------------------------------------

    @abstractmethod
    def received(self, data: bytes) -> None: ...
    @abstractmethod
    def upstream_closed(self, error: Exception | None) -> None: ...
    @abstractmethod
    def upstream_eof(self) -> bool: ...
    @abstractmethod
    def expired(self, now_s: float) -> None: ...
    @abstractmethod
    def _refuse(self, error: ProxyError, outcome: Outcome, reason: str) -> None:
        """Nothing of an answer has been sent, and there is no other way: send an error of our own."""


_TIMEOUT, _UPSTREAM_ERROR = Outcome.TIMEOUT, Outcome.UPSTREAM_ERROR
