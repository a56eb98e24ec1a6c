"""One exchange: a request sent to an upstream, or to one after another (`Sending`), and its answer relayed as it comes.

Everything here happens inside the callbacks of two connections, the caller's and the upstream's. There is no task,
queue or buffer between them: bytes go from one's `data_received` to the other's `write`. What can end an exchange
(either side closing, a broken answer, a deadline, the last byte) comes in through one method each, and all of them lead
to `_end`, which runs once.
"""

import math

from proxy.dataplane import client_limits
from proxy.dataplane.answer_head import AnswerHead
from proxy.dataplane.bodies import Body
from proxy.dataplane.heads import answer_head
from proxy.dataplane.own_answers import render_for
from proxy.dataplane.sending import Sending
from proxy.dataplane.sockets import reset
from proxy.model.errors import BadAnswer, ProxyError, UpstreamCredentialsExhausted, UpstreamFailed, UpstreamTimeout
from proxy.model.outcome import Outcome, outcome_of
from proxy.policy import quota
from proxy.policy.retry import RESET, TIMEOUT
from proxy.policy.usage import Meter
from proxy.state.live import KeyLive
from proxy.state.snapshot import Way

_EVENT = b"data:"
QUOTA_TOLD_EVERY_S = 0.1  # to read it takes up to 10 µs


class Exchange(Sending):
    IDLE_LIMIT = "timeouts.idle"  # the setting that says how long an upstream may be silent amid its answer

    __slots__ = ("_keep_alive", "_meter", "_relaying", "_sample", "_stalled_bytes", "_streams")

    def start(self, way: Way, *, more: bool) -> None:
        self._keep_alive = False  # the caller's connection, after this
        self._stalled_bytes: int | None = None  # unread by a caller that does not keep up, when last looked at
        self._relaying: Body | None = None  # the answer's, once its head went to the caller
        self._sample = self._request.sample
        self._meter: Meter | None = None  # of its tokens, where they are counted
        self._streams = False  # is the answer a stream of events?
        super().start(way, more=more)

    def body_failed(self, error: ProxyError) -> None:
        """The rest of the request's body is bad, too large or too slow: the upstream never sees its end."""
        if not self.ended and self._relaying is not None:
            self._cut(Outcome.CLIENT_GONE, str(error))
        elif not self.ended:
            self._refuse(error, Outcome.CLIENT_GONE, str(error))

    # --- relaying ------------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes of the answer: hand them on."""
        self._last_byte_s = now_s = self._tools.clock()
        body = self._relaying
        try:
            piece = self._reader.feed(data) if body is None else body.feed(data)
        except BadAnswer as error:
            self._broken(str(error))
            return
        if body is None:
            body = self._reader.body
            if body is None:
                return
            self._answer(body, piece, now_s)
        elif piece:
            self._request.relayed_bytes += len(piece)
            self._caller.wire.write(piece)
            if self._streams:
                self._request.chunks += piece.count(_EVENT)
            if self._meter is not None:
                self._meter.add(piece)
            if self._sample is not None:
                self._sample.piece(now_s)
        if body.done and self._relaying is body and not self.ended:
            self._complete()

    def _answer(self, body: Body, piece: bytes, now_s: float) -> None:
        """Write the head of the answer, and what came with it, in one go."""
        request, upstream, caller, head = self._request, self._upstream, self._caller, self._reader.head
        assert head is not None  # noqa: S101 - a body follows a head
        request.first_byte_wait_s = now_s - request.sent_s
        if head.status > 400 and self._declined(head, now_s):
            return
        key = self._way.key
        if key is not None and (key.live.account.refusals or len(upstream.keys) > 1):
            self._note_quota(key.live, head, now_s)
        self._relaying = body
        self._settled(now_s)
        self._keep_alive = request.head.keep_alive and not self._is_uploading() and not caller.is_draining()
        request.status, request.answer_fields, request.relayed_bytes = head.status, head.fields, len(piece)
        sample, idle_s = self._sample, upstream.idle_timeout_s
        if sample is not None:
            sample.first_byte(now_s)
            idle_s = min(idle_s, sample.max_gap_s)
        self.deadline_s = min(now_s + idle_s, self._total_deadline_s)
        caller.wire.write(answer_head(request, head, upstream, keep_alive=self._keep_alive) + piece)
        if head.event_stream:
            self._streams, request.chunks = True, piece.count(_EVENT)
        if (request.metered or request.trace is not None) and 200 <= head.status < 300:
            self._meter = Meter(piece, head.seen.get(b"content-type", b""))
        before_s = request.sent_s - request.ready_s - request.connecting_s
        request.overhead_s = before_s + self._tools.clock() - now_s
        if caller.writing_paused:
            self.pause()

    def _tokens_used(self, outcome: Outcome) -> int | None:
        """None where nobody counts them, and where it cannot be known what became of the request."""
        meter, request = self._meter, self._request
        if meter is None:
            return None if not request.metered or outcome is Outcome.CLIENT_GONE else 0
        usage = request.usage = meter.usage()
        return meter.estimate(request.tokens, request.chunks) if usage is None else usage.limited

    def _settled(self, now_s: float) -> None:
        """An answer has begun: no other try can follow."""
        self._body = b""
        if self._plan is not None:
            self._plan.settled()

    def _declined(self, head: AnswerHead, now_s: float) -> bool:
        """Does the upstream say that it has not done it, and is that dealt with without its answer?"""
        key, upstream, status = self._way.key, self._upstream, head.status
        if key is not None and status in key.live.refusals:
            key.live.refusals[status] += 1
            key.live.answers += status != 403  # which counts as an answer when it has ended
            key.live.doubted |= status == 403
        if status == 401:
            if key is None:  # it is the caller's own that was refused
                return False
            self._way.member.refused(key)
            if not self._try_again(401, Outcome.KEY_REFUSED, f"401 for key {key.name}"):
                error = UpstreamCredentialsExhausted(f"Upstream {upstream.name} did not accept the proxy's key.")
                self._refuse(error, Outcome.KEY_REFUSED, f"401 for key {key.name}")
            return True
        wait_s = quota.wait_s(head.fields, self._tools.wall_clock()) if status == 429 else None
        if status == 429 and key is not None:
            began = key.live.account.refused(self._planned().model, wait_s, now_s, self._tools.dice)
            upstream.live.cooldowns[key.name] = upstream.live.cooldowns.get(key.name, 0) + began
        if self._try_again(status, outcome_of(status), f"status {status}"):
            return True
        return wait_s is not None and self._waits_for_quota(wait_s, now_s)

    def _note_quota(self, key: KeyLive, head: AnswerHead, now_s: float) -> None:
        """What the answer says of its key's quota: of several keys, the one with more left is used more."""
        if key.account.refusals and head.status != 429:
            key.account.answered(self._planned().model)
        if len(self._upstream.keys) > 1 and now_s >= key.told_s + QUOTA_TOLD_EVERY_S:
            key.told_s = now_s
            used = quota.used_share(head.fields)
            key.used = key.used if used is None else used

    def pause(self) -> None:
        """The caller does not keep up: stop reading from the upstream."""
        if self._connection is not None and self._relaying is not None:
            self._connection.transport.pause_reading()
            self._stalled_bytes = self._caller.wire.get_write_buffer_size()
            self.deadline_s = min(self._tools.clock() + self._tools.stall_timeout_s, self._total_deadline_s)

    def resume(self) -> None:
        """The caller has read enough: go on."""
        if self._connection is not None and self._stalled_bytes is not None:
            self._stalled_bytes = None
            self._connection.transport.resume_reading()
            self._last_byte_s = now_s = self._tools.clock()
            self._rearm(now_s)

    # --- what ends it --------------------------------------------------------------------------------------------

    def _complete(self) -> None:
        """The answer's last byte was written to the caller."""
        connection, self._connection = self._connection, None
        uploading = self._is_uploading()
        if connection is not None:
            unsent = uploading or connection.transport.get_write_buffer_size() > 0
            if self._stalled_bytes is not None:
                connection.transport.resume_reading()
            if self._reader.is_clean() and not unsent:
                self._pool.give(connection)
            else:
                connection.abort()
        self._end(outcome_of(self._request.status), keep_alive=self._keep_alive and not uploading)

    def upstream_eof(self) -> bool:
        """An answer's end by close is the end of its connection."""
        return False

    def upstream_closed(self, error: Exception | None) -> None:
        """The upstream's connection is gone."""
        connection, self._connection = self._connection, None
        if self.ended:
            return
        if self._was_stale(connection):
            return
        if error is not None:
            self._broken("the connection was reset")
        else:
            self._ended_by_close()

    def _ended_by_close(self) -> None:
        try:
            rest = self._reader.end()
        except BadAnswer as broken:
            self._broken(str(broken))
            return
        if rest:
            self._caller.wire.write(rest)
        self._complete()

    def caller_gone(self) -> None:
        """The caller left: nobody waits for this any more."""
        if not self.ended:
            self._drop_connection()
            self._end(Outcome.CLIENT_GONE, keep_alive=False)

    def abort(self, reason: str) -> None:
        """End it now, visibly: the proxy is stopping."""
        if not self.ended:
            self._cut(Outcome.STOPPED, reason)

    def expired(self, now_s: float) -> None:
        """The deadline has passed; whether in earnest is seen here, for bytes do not move it as they come."""
        if self.ended:
            return  # by what came in between
        if self._waiting:
            self._waited(now_s)
        elif now_s >= self._total_deadline_s:
            self._too_late(self._who_was_slow(), "longer than timeouts.total")
        elif self._stalled_bytes is not None:
            self._look_at_stalled_caller(self._stalled_bytes, now_s)
        elif self.upload is not None and self.upload.open and not self.upload.waits_for_upstream:
            self._rearm(now_s)  # it is the caller who is slow, and its own limit that counts
        elif self._last_byte_s + self._limit_s > now_s or self._only_stalls(now_s):
            self._rearm(self._last_byte_s)
        elif self._relaying is not None:
            self._too_late(Outcome.STALLED, f"silent for longer than {self.IDLE_LIMIT}")
        else:
            self._too_late(Outcome.TIMEOUT, "no first byte in time")

    def _who_was_slow(self) -> Outcome:
        """Whose doing it is that the whole took too long: not this upstream's, if another had the time before it."""
        if self._stalled_bytes is not None or self._is_uploading():
            return Outcome.CLIENT_GONE
        return Outcome.STOPPED if self._request.tries > 1 and self._relaying is None else Outcome.TIMEOUT

    @property
    def _limit_s(self) -> float:
        """How long the upstream may be silent now."""
        if self._relaying is None:
            return self._upstream.first_byte_timeout_s
        sample, idle_s = self._sample, self._upstream.idle_timeout_s
        return idle_s if sample is None or sample.is_stalled else min(idle_s, sample.max_gap_s)

    def _only_stalls(self, now_s: float) -> bool:
        """Silent for long enough that a canary is to know, and not for so long that it is cut."""
        sample = self._sample
        if sample is None or sample.is_stalled or self._relaying is None:
            return False
        sample.stalls(now_s)
        return self._last_byte_s + self._limit_s > now_s

    def _rearm(self, since_s: float) -> None:
        self.deadline_s = min(since_s + self._limit_s, self._total_deadline_s)

    def _look_at_stalled_caller(self, before_bytes: int, now_s: float) -> None:
        unread_bytes = self._caller.wire.get_write_buffer_size()
        if unread_bytes < before_bytes:
            self._stalled_bytes = unread_bytes
            self.deadline_s = min(now_s + self._tools.stall_timeout_s, self._total_deadline_s)
        else:
            self._cut(Outcome.CLIENT_GONE, "the caller does not read")

    def _too_late(self, outcome: Outcome, reason: str) -> None:
        if self._relaying is not None:
            self._cut(outcome, reason)
        elif self._tools.clock() >= self._total_deadline_s or not self._try_again(TIMEOUT, outcome, reason):
            self._refuse(UpstreamTimeout(f"Upstream {self._upstream.name} did not answer in time."), outcome, reason)

    def _broken(self, reason: str) -> None:
        if self._relaying is not None:
            self._cut(Outcome.TRUNCATED, reason)
        elif not self._try_again(RESET, Outcome.UPSTREAM_ERROR, reason):
            said = f"Upstream {self._upstream.name} did not send a valid answer."
            self._refuse(UpstreamFailed(said), Outcome.UPSTREAM_ERROR, reason)

    def _refuse(self, error: ProxyError, outcome: Outcome, reason: str) -> None:
        """Nothing of an answer has been sent: send an error of our own."""
        self._drop_connection()
        request, caller = self._request, self._caller
        ends = error.close or self._is_uploading() or caller.is_draining()
        keep_alive = request.head.keep_alive and not ends
        caller.wire.write(render_for(request, error, close=not keep_alive))
        request.status = error.status
        self._end(outcome, keep_alive=keep_alive, reason=reason)

    def _cut(self, outcome: Outcome, reason: str) -> None:
        """The answer cannot be finished: the caller must see that it is not whole, and gets what there was of it."""
        self._drop_connection()
        wire = self._caller.wire
        if outcome in (Outcome.CLIENT_GONE, Outcome.STOPPED) or self._ends_with_the_connection():
            reset(wire)
        else:
            wire.close()  # after what is still to be written
        self._end(outcome, keep_alive=False, reason=reason)

    def _ends_with_the_connection(self) -> bool:
        """Is the end of the connection the end of the body to this caller? Then only a reset shows that it was cut."""
        head = self._reader.head
        return not self._request.head.http11 and head is not None and head.content_length is None

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def _end(self, outcome: Outcome, *, keep_alive: bool, reason: str = "") -> None:
        self.ended = True
        self.deadline_s = math.inf
        self._tools.watch.discard(self)
        now_s, request = self._tools.clock(), self._request
        tokens = self._tokens_used(outcome)
        self._lease.finish(outcome, now_s, request.first_byte_wait_s, request.relayed_bytes, tokens)
        client_limits.end(request, tokens, now_s)
        if request.attempt is not None:
            self._trace(outcome, reason, now_s)
        if self._sample is not None:
            self._sample.finished(outcome, request.status, now_s, request.chunks)
        self._judge(outcome, reason, now_s)
        if self._plan is not None:
            self._plan.over()
        if self.upload is not None:
            self.upload.stop()
        self._account(outcome, reason, now_s)
        self._caller.exchange_ended(keep_alive=keep_alive)

    def _account(self, outcome: Outcome, reason: str, now_s: float) -> None:
        self._tools.account.exchange(self._request, self._route, outcome, reason, now_s)
