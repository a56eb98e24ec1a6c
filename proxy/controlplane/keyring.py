"""The keys of all upstreams: which value of each is in force, and how one follows another with nobody noticing.

A key has a name that stays, and values. One that is new, by the configuration or by a command, is asked about before it
carries a request; then it serves beside the old one for a while, with a small share, and takes over if it is refused no
more often. From then on the old one carries nothing new, and is done with when the last request that holds it has
ended. What may happen to a value is a table (`policy/keys.py`); here it is said when it happens. Nothing here waits or
asks: `checks.py` does, and says what came of it. What changes the values in force calls `on_change`: a new snapshot.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from proxy.controlplane.serving import WHOLE_PERCENT, Serving, as_configured, live_of
from proxy.model.secret import Secret
from proxy.model.settings import Settings, UpstreamKey
from proxy.obs.log import Log
from proxy.policy.keys import Event, Life, State, needs_warning, probe_verdict, retry_in_s
from proxy.policy.overlap import Drawn, Overlap, Verdict
from proxy.state.live import KeyLive, Registry


@dataclass(slots=True, eq=False)
class Value:
    """One value of a key."""

    upstream: str
    secret: Secret
    live: KeyLive
    life: Life
    who: str  # brought it
    kept: bool = False  # to survive a restart: it came by command
    unclear: int = 0  # probes in a row that told nothing
    due_s: float = 0.0  # of the next one


class Rotation(NamedTuple):
    """A key's last one."""

    result: str  # "validating", "overlapping", or how it ended: one of RESULTS
    fingerprint: str
    said: str
    who: str


RESULTS = ("rotated", "refused", "went_back", "withdrawn")


@dataclass(slots=True, eq=False)
class Ring:
    """One key of one upstream, with its values."""

    upstream: str
    name: str
    configured: str  # the fingerprint of the value that the configuration has
    current: Value
    candidate: Value | None = None
    overlap: Overlap | None = None
    before: Drawn | None = None  # what the current value had drawn when that began
    leaving: list[Value] = field(default_factory=list)
    last: Rotation | None = None


CHECKED = (State.ACTIVE, State.QUARANTINED)  # in these, a value that was refused is asked about again


class KeyNotFound(LookupError):
    """The message says what is known."""


class ValueRefused(ValueError):
    """A value that is not even asked about. The message says why."""


class Keyring:
    def __init__(
        self, settings: Settings, registry: Registry, clock: Callable[[], float], dice: Callable[[], float], log: Log
    ) -> None:
        self._registry, self._clock, self._dice, self._log = registry, clock, dice, log
        self._settings = settings
        self.rings: dict[tuple[str, str], Ring] = {}
        self.revoked: set[str] = set()  # fingerprints
        self.ended = dict.fromkeys(RESULTS, 0)  # rotations, by how
        self.on_change: Callable[[], None] = lambda: None
        self.on_event: Callable[[str, str, dict[str, str]], None] = lambda what, who, about: None

    # --- what is in force ----------------------------------------------------------------------------------------

    def serving(self, upstream: str, key: UpstreamKey) -> Iterator[Serving]:
        """The values of a key that requests may carry: two in an overlap. The first is there always, usable or not."""
        ring = self.rings.get((upstream, key.name))
        if ring is None:
            yield from as_configured(self._registry, upstream, key)
            return
        share = 0 if ring.overlap is None else self._settings.overlap.share_percent
        yield Serving(ring.current.secret, ring.current.live, key.weight * (WHOLE_PERCENT - share))
        if ring.candidate is not None and share:
            yield Serving(ring.candidate.secret, ring.candidate.live, key.weight * share)

    def in_force(self) -> Iterator[Value]:
        """The values that serve, or would if they were not refused."""
        for ring in self.rings.values():
            overlapping = ring.candidate if ring.overlap is not None else None
            yield from (value for value in (ring.current, overlapping) if value and value.life.state in CHECKED)

    def take(self, settings: Settings, who: str) -> None:
        """These settings are in force now. A value that is new to a known key begins to be rotated in."""
        before, self._settings = self._settings.overlap, settings
        keys = {(name, key.name): key for name, upstream in settings.upstreams.items() for key in upstream.keys}
        for place in self.rings.keys() - keys.keys():
            self._forget(self.rings.pop(place))
        for (upstream, _), key in keys.items():
            ring, fingerprint = self.rings.get((upstream, key.name)), key.value.fingerprint
            if ring is None:
                self._begin(upstream, key)
                continue
            for value in (ring.current, ring.candidate):
                if value is not None:  # its account may be another one now
                    live_of(self._registry, upstream, key, value.secret)
            if fingerprint != ring.configured:
                ring.configured = fingerprint
                self._offer(ring, key, key.value, who, kept=False)
        if settings.overlap != before:
            self._overlap_anew()

    def _overlap_anew(self) -> None:
        """The rule of overlaps is another one: those under way go on, from their beginning, by that."""
        overlapping = [(ring, ring.candidate) for ring in self.rings.values() if ring.overlap and ring.candidate]
        for ring, value in overlapping:
            self._overlap(ring, value, self._clock())

    def restore(self, upstream: str, key: UpstreamKey, secret: Secret) -> None:
        """A value that a command brought before the last restart goes on in force."""
        self._begin(upstream, key)
        ring = self.rings[upstream, key.name]
        if secret.fingerprint not in self.revoked:
            ring.current = self._value(upstream, key, secret, "state", State.ACTIVE)
            ring.current.kept = True

    def _begin(self, upstream: str, key: UpstreamKey) -> None:
        value = self._value(upstream, key, key.value, "configuration", State.ACTIVE)
        self.rings[upstream, key.name] = Ring(upstream, key.name, key.value.fingerprint, value)

    def _value(self, upstream: str, key: UpstreamKey, secret: Secret, who: str, state: State) -> Value:
        live = live_of(self._registry, upstream, key, secret)
        live.resting, live.doubted = "", False
        if secret.fingerprint in self.revoked:
            state, live.resting = State.REVOKED, "revoked"
            self._log.error("key_revoked_is_configured", key=f"{upstream}/{key.name}", fingerprint=live.fingerprint)
        return Value(upstream, secret, live, Life(self._clock(), state), who)

    # --- rotation ------------------------------------------------------------------------------------------------

    def rotate(self, upstream: str, name: str, secret: Secret, who: str, *, kept: bool) -> Ring:
        """A command brings a value. Raises KeyNotFound, or ValueRefused for one that is revoked or in force."""
        ring, key = self._find(upstream, name)
        if secret.fingerprint in self.revoked:
            raise ValueRefused(f"the value {secret.fingerprint} was revoked: rotate to another one")
        if secret.fingerprint == ring.current.secret.fingerprint:
            raise ValueRefused(f"the value {secret.fingerprint} is the one in force: rotate to another one")
        self._offer(ring, key, secret, who, kept=kept)
        return ring

    def _find(self, upstream: str, name: str) -> tuple[Ring, UpstreamKey]:
        ring = self.rings.get((upstream, name))
        if ring is None:
            there = ", ".join(f"{ring.upstream}/{ring.name}" for ring in self.rings.values()) or "none"
            raise KeyNotFound(f"there is no key {upstream}/{name}; there are: {there}")
        return ring, next(key for key in self._settings.upstreams[upstream].keys if key.name == name)

    def _offer(self, ring: Ring, key: UpstreamKey, secret: Secret, who: str, *, kept: bool) -> None:
        if ring.candidate is not None:
            self._end(ring, "withdrawn", "another value came")
        if secret.fingerprint in self.revoked:
            self._log.error("key_revoked_is_configured", key=_label(ring), fingerprint=secret.fingerprint)
            ring.last = Rotation("refused", secret.fingerprint, "it was revoked", who)
            self.ended["refused"] += 1
            return
        if secret.fingerprint == ring.current.secret.fingerprint:
            ring.current.kept = kept
            return
        # What still holds this value from before is counted by itself.
        self._registry.upstream(ring.upstream).keys.pop((ring.name, secret.fingerprint), None)
        ring.candidate = self._value(ring.upstream, key, secret, who, State.PENDING)
        ring.candidate.kept = kept
        ring.last = Rotation("validating", secret.fingerprint, "", who)
        self._say(ring, "key_rotation_began", ring.candidate)

    def to_validate(self) -> Iterator[tuple[Ring, Value]]:
        """The values that are to be asked about now; each is taken for asked."""
        now_s = self._clock()
        for ring in self.rings.values():
            value = ring.candidate
            if value is not None and value.life.state is State.PENDING and now_s >= value.due_s:
                value.life.on(Event.PROBE_BEGAN, now_s)
                yield ring, value

    def validated(self, ring: Ring, value: Value, status: int | None, said: str) -> None:
        """What an upstream said of a value that is to be rotated in; a status of None: nothing."""
        if value is not ring.candidate:
            return
        now_s, verdict = self._clock(), probe_verdict(status)
        state = value.life.on(verdict, now_s)
        if state is State.QUARANTINED:
            self._end(ring, "refused", said)
        elif state is State.PENDING:
            value.unclear += 1
            value.due_s = now_s + retry_in_s(value.unclear, self._dice)
            ring.last = Rotation("validating", value.secret.fingerprint, f"{said}: asked again", value.who)
            self._log.warning("key_probe_unclear", key=_label(ring), reason=said)
        else:
            if needs_warning(status):
                self._log.warning("key_probe_has_no_path", key=_label(ring), reason=said, mend="set health.path")
            self._overlap(ring, value, now_s)

    def _overlap(self, ring: Ring, value: Value, now_s: float) -> None:
        rule = self._settings.overlap
        if not rule.share_percent or ring.current.life.state is not State.ACTIVE:
            self._promote(ring, value, now_s)
            return
        ring.last = Rotation("overlapping", value.secret.fingerprint, "", value.who)
        ring.overlap = Overlap(rule.requests, now_s, rule.at_most_s)
        ring.before = _drawn(ring.current.live)
        self._say(ring, "key_overlap_began", value)
        self.on_change()

    def tick(self) -> None:
        """Compare those that overlap, and be done with those that nobody holds."""
        now_s = self._clock()
        for ring in self.rings.values():
            if ring.overlap is not None and ring.candidate is not None:
                self._compare(ring, ring.candidate, ring.overlap, now_s)
            for value in ring.leaving[:]:
                if value.live.inflight == 0:
                    self._retire(ring, value, now_s)

    def _compare(self, ring: Ring, value: Value, overlap: Overlap, now_s: float) -> None:
        assert ring.before is not None  # noqa: S101 - set where the overlap began
        overlap.count(_drawn(value.live), _drawn(ring.current.live), ring.before)
        verdict = overlap.verdict(now_s)
        if value.life.state is State.QUARANTINED or verdict is Verdict.GO_BACK:
            self._end(ring, "went_back", overlap.explain())
        elif ring.current.life.state is State.QUARANTINED or verdict is Verdict.PROMOTE:
            self._promote(ring, value, now_s)

    def _promote(self, ring: Ring, value: Value, now_s: float) -> None:
        said = "" if ring.overlap is None else ring.overlap.explain()
        old, ring.current, ring.candidate, ring.overlap = ring.current, value, None, None
        if old.life.state is not State.REVOKED:
            old.life.on(Event.REPLACED, now_s)
        ring.leaving.append(old)
        _serves_alone(value)
        ring.last = Rotation("rotated", value.secret.fingerprint, said, value.who)
        self.ended["rotated"] += 1
        self._say(ring, "key_rotated", value, replaced=old.secret.fingerprint)
        self.on_change()

    def _end(self, ring: Ring, result: str, said: str) -> None:
        """The candidate is given up; the value in force stays."""
        value, ring.candidate, ring.overlap = ring.candidate, None, None
        assert value is not None  # noqa: S101 - its callers looked
        if value.life.state is not State.REVOKED:
            value.life.on(Event.WITHDRAWN, self._clock())
        ring.leaving.append(value)
        _serves_alone(ring.current)
        ring.last = Rotation(result, value.secret.fingerprint, said, value.who)
        self.ended[result] += 1
        self._log.warning("key_rotation_failed", key=_label(ring), result=result, reason=said)
        self._say(ring, f"key_rotation_{result}", value, reason=said)
        self.on_change()

    def _retire(self, ring: Ring, value: Value, now_s: float) -> None:
        if value.life.state is State.DRAINING:
            value.life.on(Event.EMPTIED, now_s, leases=value.live.inflight)
        ring.leaving.remove(value)
        value.live.resting = value.live.resting or "retired"
        self._drop(ring, value)
        self._say(ring, "key_retired", value)

    # --- the end of a value by hand ------------------------------------------------------------------------------

    def revoke(self, upstream: str, name: str, who: str, fingerprint: str = "") -> list[KeyLive]:
        """No request begins with the value any more, now and for ever: the one in force, if none is named.

        Returns what is known of it live, for who holds it. Raises KeyNotFound.
        """
        ring, _ = self._find(upstream, name)
        fingerprint = fingerprint or ring.current.secret.fingerprint
        self.revoked.add(fingerprint)
        hit = [live for each in self.rings.values() for live in self._revoke(each, fingerprint, who)]
        self.on_change()
        return hit

    def _revoke(self, ring: Ring, fingerprint: str, who: str) -> Iterator[KeyLive]:
        """Wherever it is: a secret may stand under several names."""
        values = [value for value in (ring.current, ring.candidate, *ring.leaving) if value is not None]
        hit = [value for value in values if value.secret.fingerprint == fingerprint]
        for value in hit:
            value.life.on(Event.REVOKED, self._clock())
            value.live.resting = "revoked"
            self._say(ring, "key_revoked", value, by=who)
            yield value.live
        if ring.candidate in hit:
            self._end(ring, "withdrawn", "it was revoked")
        elif ring.current in hit and ring.overlap is not None and ring.candidate is not None:
            self._promote(ring, ring.candidate, self._clock())

    def _forget(self, ring: Ring) -> None:
        """No configuration names the key any more."""
        for value in (ring.current, ring.candidate, *ring.leaving):
            if value is not None:
                self._drop(ring, value)
        ring.candidate = ring.overlap = None

    def _drop(self, ring: Ring, value: Value) -> None:
        """Nothing is to be known of it any more. The same secret may have come back meanwhile."""
        known = self._registry.upstream(ring.upstream).keys
        if known.get((ring.name, value.live.fingerprint)) is value.live:
            del known[ring.name, value.live.fingerprint]

    def _say(self, ring: Ring, what: str, value: Value, **more: str) -> None:
        about = {"key": _label(ring), "fingerprint": value.secret.fingerprint, **more}
        self._log.info(what, **about, who=value.who)
        self.on_event(what, more.get("by", value.who), about)


def _serves_alone(value: Value) -> None:
    """If it rests for a 401 that no check has confirmed: that was because another was there, which is so no more."""
    if value.life.state is State.ACTIVE and value.live.resting:
        value.live.resting, value.live.doubted = "", True


def _drawn(live: KeyLive) -> Drawn:
    return Drawn(live.answers, dict(live.refusals))


def _label(ring: Ring) -> str:
    return f"{ring.upstream}/{ring.name}"
