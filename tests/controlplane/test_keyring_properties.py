"""Two keys of one upstream through whatever reloads, commands, probes, answers and checks may do to them, in any order.

The machine keeps its own book of what it did and asks after each step what must be true whatever came before: a value
that nobody may use carries nothing, a value that somebody holds is not gone, and a rotation that began ends once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from random import Random

from hypothesis import settings as how
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.controlplane.build import build, unchanged
from proxy.controlplane.keyring import CHECKED, Keyring, Ring, Value, ValueRefused
from proxy.controlplane.load import parse
from proxy.model.outcome import Outcome
from proxy.model.secret import Secret
from proxy.model.settings import Settings
from proxy.obs.metrics import Metrics
from proxy.policy.keys import Event, State
from proxy.state.lease import Lease
from proxy.state.live import Registry
from proxy.state.snapshot import Snapshot, Way
from tests.support.running import Events, recording_log

VALUES = ("one", "two", "three", "four")  # few, so that old ones come back
NAMES = ("main", "second")
STATUSES = (200, 401, 403, 404, 429, 500, None)
METRICS = Metrics()
_ENDS = {401: Outcome.KEY_REFUSED, 429: Outcome.RATE_LIMITED}

values, names = st.sampled_from(VALUES), st.sampled_from(NAMES)
which = st.integers(0, 7)  # of those that there are
seldom = st.integers(0, 3).map(lambda drawn: drawn == 3)  # or most rotations would be withdrawn, and all values revoked


@lru_cache
def configured(main: str, second: str | None, share: int) -> Settings:
    more = "" if second is None else f", {{name: second, value: {second}}}"
    config = f"""
upstreams: {{up: {{base_url: 'http://127.0.0.1:9', keys: [{{name: main, value: {main}}}{more}]}}}}
pools: {{chat: {{members: [{{upstream: up}}], balance: smooth_rr, slow_start: 0s}}}}
routes: [{{prefix: /v1, pool: chat}}]
overlap: {{share: {share}%, requests: 4, at_most: 1m}}
"""
    return parse(config, {}).settings


class AnyKeys(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.registry = Registry(lambda: self.now_s, Random(1))
        self.settings = configured("one", "two", 50)
        self.keyring = Keyring(self.settings, self.registry, lambda: self.now_s, lambda: 0.5, recording_log(Events()))
        self.keyring.take(self.settings, "start")
        self.asked: list[tuple[Ring, Value]] = []  # their probes are under way
        self.leases: list[tuple[Lease, Way]] = []
        self.revoked: set[str] = set()
        self.began = self.refused_at_once = 0
        self.ended = dict(self.keyring.ended)
        self.keyring.on_change = self.renew
        self.keyring.on_event = self.note
        self.snapshot: Snapshot
        self.renew()

    def renew(self) -> None:
        self.snapshot = build(
            self.settings,
            self.registry,
            METRICS,
            generation=1,
            in_force=unchanged(self.settings, self.registry)._replace(keys=self.keyring.serving),
        )

    def note(self, what: str, who: str, about: dict[str, str]) -> None:
        self.began += what == "key_rotation_began"

    def known(self) -> Iterator[Value]:
        for ring in self.keyring.rings.values():
            yield from (value for value in (ring.current, ring.candidate, *ring.leaving) if value is not None)

    def usable_ways(self) -> list[Way]:
        ways = self.snapshot.pools[0].ways[0]
        return [way for way in ways if way.key is not None and way.key.live.is_usable(None, self.now_s)]

    @contextmanager
    def somebody_stays(self) -> Iterator[None]:
        """Where a request found a key, it finds one afterwards."""
        found = bool(self.usable_ways())
        yield
        assert bool(self.usable_ways()) >= found

    @initialize(value=st.sampled_from(VALUES[2:]), held=st.booleans(), calls=st.integers(0, 4))
    def amid_an_overlap(self, value: str, held: bool, calls: int) -> None:
        """Or too few runs would get that far."""
        self.keyring.rotate("up", "main", Secret(value), "tester", kept=False)
        self.accepted_at_once()
        if held:
            self.leases += [(Lease(way, 10), way) for way in self.usable_ways()]
        self.some_calls(times=calls, refused=set(), status=401)

    # --- what operators do -------------------------------------------------------------------------------------

    @rule(main=values, second=st.none() | values, share=st.sampled_from((0, 50)), now=seldom)
    def reload(self, main: str, second: str | None, share: int, now: bool) -> None:
        """As `Reloader.reload` does: the snapshot first, then the keyring."""
        if not now:
            return
        self.settings = configured(main, second, share)
        self.renew()
        self._taking(lambda: self.keyring.take(self.settings, "reload"))

    def _taking(self, take) -> None:
        """A revoked value that a reload offers is refused at once: its rotation ends, and never began."""
        before, began = sum(self.keyring.ended.values()), self.began
        candidates = sum(ring.candidate is not None for ring in self.keyring.rings.values())
        take()
        left = sum(ring.candidate is not None for ring in self.keyring.rings.values())
        ended, began = sum(self.keyring.ended.values()) - before, self.began - began
        self.refused_at_once += max(0, ended - (candidates + began - left))

    @rule(name=names, value=values, now=seldom)
    def rotate(self, name: str, value: str, now: bool) -> None:
        ring, secret = self.keyring.rings.get(("up", name)), Secret(value)
        if ring is None or (ring.candidate is not None and not now):
            return
        refused = secret.fingerprint in self.revoked or secret == ring.current.secret
        try:
            with self.somebody_stays():
                self.keyring.rotate("up", name, secret, "tester", kept=False)
        except ValueRefused:
            assert refused
        else:
            assert not refused
            assert ring.candidate is not None
            assert ring.candidate.secret == secret

    @rule(name=names, value=st.none() | values, now=seldom)
    def revoke(self, name: str, value: str | None, now: bool) -> None:
        ring = self.keyring.rings.get(("up", name))
        if ring is None or not now:
            return
        fingerprint = ring.current.secret.fingerprint if value is None else Secret(value).fingerprint
        self.revoked.add(fingerprint)
        hit = self.keyring.revoke("up", name, "tester", "" if value is None else fingerprint)
        known = {id(live) for live in hit}
        held = [way.key.live for _, way in self.leases if way.key is not None]
        in_place = {id(value.live) for value in self.known()}
        assert all(id(live) in known for live in held if live.fingerprint == fingerprint and id(live) in in_place)

    # --- what upstreams say ------------------------------------------------------------------------------------

    @rule()
    def ask(self) -> None:
        self.asked += self.keyring.to_validate()

    @precondition(lambda self: self.asked)
    @rule(which=which, status=st.sampled_from((*STATUSES, 200, 200)))
    def validated(self, which: int, status: int | None) -> None:
        with self.somebody_stays():
            self.keyring.validated(*self.asked.pop(which % len(self.asked)), status, f"status {status}")

    @rule()
    def accepted_at_once(self) -> None:
        for ring, value in self.keyring.to_validate():
            self.keyring.validated(ring, value, 200, "status 200")

    @rule(times=st.integers(1, 4), refused=st.sets(values), status=st.sampled_from((401, 403, 429)))
    def some_calls(self, times: int, refused: set[str], status: int) -> None:
        """With each of the values that may carry them, one after the other; to some the upstream says no."""
        no = {Secret(value).fingerprint for value in refused}
        for way in self.usable_ways() * times:
            assert way.key is not None
            if way.key.live.resting:
                continue
            self.leases.append((Lease(way, 10), way))
            if way.key.live.fingerprint in no:
                self.refused(which=len(self.leases) - 1, status=status, left=Outcome.CLIENT_GONE)
            else:
                self.leases.pop()[0].finish(Outcome.OK, self.now_s)

    @precondition(lambda self: self.usable_ways())
    @rule()
    def lease(self) -> None:
        way = self.snapshot.pools[0].way(0, self.usable_ways())
        self.leases.append((Lease(way, 10), way))

    @precondition(lambda self: self.leases)
    @rule(which=which, status=st.sampled_from((401, 403, 429)), left=st.sampled_from((Outcome.OK, Outcome.CLIENT_GONE)))
    def refused(self, which: int, status: int, left: Outcome) -> None:
        """As an exchange counts it when the head comes: a 403 is an answer when it has ended, which may never be."""
        lease, way = self.leases.pop(which % len(self.leases))
        assert way.key is not None
        live = way.key.live
        live.refusals[status] += 1
        live.answers += status != 403
        live.doubted |= status == 403
        if status == 401:
            way.member.refused(way.key)
        lease.finish(left if status == 403 else _ENDS[status], self.now_s)

    @precondition(lambda self: self.leases)
    @rule(which=which, outcome=st.sampled_from((Outcome.OK, Outcome.OK, Outcome.CLIENT_GONE, Outcome.STALLED)))
    def ends(self, which: int, outcome: Outcome) -> None:
        self.leases.pop(which % len(self.leases))[0].finish(outcome, self.now_s)

    @rule(which=which, passed=st.booleans())
    def checked(self, which: int, passed: bool) -> None:
        """As `Checks._check_key` does with a 200 or a 401, for a value that it began to ask about."""
        asked = [value for value in self.keyring.in_force() if value.live.resting or value.live.doubted]
        if not asked:
            return
        value = asked[which % len(asked)]
        value.live.doubted = False
        if not passed:
            value.live.resting = value.live.resting or "status 401"
            value.life.on(Event.PROBE_REFUSED, self.now_s)
        elif value.live.resting:
            value.live.resting = ""
            value.life.on(Event.PROBE_PASSED, self.now_s)

    @rule(passes_s=st.sampled_from((0.5, 5.0, 70.0)))
    def tick(self, passes_s: float) -> None:
        self.now_s += passes_s
        left = [(ring, value) for ring in self.keyring.rings.values() for value in ring.leaving]
        with self.somebody_stays():
            self.keyring.tick()
        for ring, value in left:
            if not value.live.inflight:
                assert value not in ring.leaving
                assert self.registry.upstream("up").keys.get((ring.name, value.live.fingerprint)) is not value.live
                assert value.live.resting

    # --- what is true at any time ------------------------------------------------------------------------------

    @invariant()
    def what_is_held_is_not_retired(self) -> None:
        assert not [value for value in self.known() if value.life.state is State.RETIRED and value.live.inflight]

    @invariant()
    def what_is_usable_is_active(self) -> None:
        in_place = {id(value.live): value for value in self.known()}
        for way in self.usable_ways():
            assert way.key is not None
            value = in_place[id(way.key.live)]
            assert value.life.state is State.ACTIVE, value.life.state
            assert b"Bearer %b\r\n" % value.secret.reveal().encode() in way.key.line

    @invariant()
    def what_was_revoked_is_never_usable(self) -> None:
        assert self.revoked == self.keyring.revoked
        assert not [way for way in self.usable_ways() if way.key and way.key.live.fingerprint in self.revoked]
        for value in self.known():
            assert (value.secret.fingerprint in self.revoked) == (value.life.state is State.REVOKED)
        assert all(
            live.resting for live in self.registry.upstream("up").keys.values() if live.fingerprint in self.revoked
        )

    @invariant()
    def each_key_has_a_value(self) -> None:
        offered = [key.live for key in self.snapshot.upstreams["up"].keys]
        wanted = {key.name for key in self.settings.upstreams["up"].keys}
        assert {name for _, name in self.keyring.rings} == wanted == {live.name for live in offered}
        for ring in self.keyring.rings.values():
            assert ring.current.live in offered
            assert ring.current.life.state in (*CHECKED, State.REVOKED)
            assert ring.overlap is not None or ring.candidate is None or ring.candidate.live not in offered

    @invariant()
    def what_is_known_live_is_one_values(self) -> None:
        """Nothing is forgotten that serves, and nothing is kept for which there is no use."""
        kept = {id(live) for live in self.registry.upstream("up").keys.values()}
        serving = [value for ring in self.keyring.rings.values() for value in (ring.current, ring.candidate) if value]
        assert {id(value.live) for value in serving} <= kept <= {id(value.live) for value in self.known()}

    @invariant()
    def what_began_ends_once(self) -> None:
        ended = self.keyring.ended
        assert all(ended[how] >= before for how, before in self.ended.items())
        self.ended = dict(ended)
        assert sum(ended.values()) <= self.began + self.refused_at_once
        for ring in self.keyring.rings.values():
            goes_on = ring.last is not None and ring.last.result in ("validating", "overlapping")
            assert goes_on == (ring.candidate is not None)


TestAnyKeys = AnyKeys.TestCase
TestAnyKeys.settings = how(max_examples=60, stateful_step_count=30, deadline=None)
