"""Asking upstreams how they are: those with `health` set, every so often, and those of whose keys one was refused.

A key that drew a 401 rests until an upstream accepts it again, for a 401 may be the upstream's mistake, and a key that
works again must come back by itself.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace

import aiohttp

from proxy.controlplane import asking
from proxy.controlplane.build import Addresses, upstream_tls
from proxy.controlplane.keyring import CHECKED, Keyring, Ring, Value
from proxy.model.reasons import reason
from proxy.model.secret import Secret
from proxy.model.settings import Settings, Upstream
from proxy.obs.log import Log
from proxy.policy.keys import Event
from proxy.state.live import KeyLive, Registry, UpstreamLive

LOOK_S = 0.5
KEY_CHECK_TIMEOUT_S = 10.0
KEY_CHECKED_FIRST_S, KEY_CHECKED_LAST_S = 1.0, 60.0  # between the first two checks of a key that rests, and at most
KEY_DOUBTED_EVERY_S = 10.0  # callers can bring a key into doubt, and each check is a call to its provider
REFUSED = (401, 403)


class Checks:
    """`look` begins what is due; somebody calls it every LOOK_S."""

    def __init__(
        self, settings: Settings, registry: Registry, keyring: Keyring, clock: Callable[[], float], log: Log
    ) -> None:
        self.settings = settings  # those in force
        self._addresses: Addresses = {}
        self._registry, self._keyring, self._clock, self._log = registry, keyring, clock, log
        self._due_s: dict[str, float] = {}  # by upstream, or upstream and key
        self._rests_s: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:
            try:
                while True:
                    try:
                        self.look(session)
                    except Exception as error:  # noqa: BLE001 - the next look may do better, and there is nobody else to look
                        self._log.exception("checks_failed", exc_info=error)
                    await asyncio.sleep(LOOK_S)
            finally:
                for task in self._running.values():
                    task.cancel()

    def use(self, settings: Settings, addresses: Addresses) -> None:
        """In force from now on. What was known of targets that are gone is forgotten."""
        self.settings, self._addresses = settings, addresses
        targets = {f"{name}@{address}" for name, all_of_it in addresses.items() for address in all_of_it}
        self._due_s = {what: due_s for what, due_s in self._due_s.items() if "@" not in what or what in targets}

    def look(self, session: aiohttp.ClientSession) -> None:
        now_s = self._clock()
        self._keyring.tick()
        for ring, value in self._keyring.to_validate():
            upstream = self.settings.upstreams[ring.upstream]
            what = f"{ring.upstream}/{ring.name}/{id(value)}"  # the same secret may be brought a second time
            self._begin(what, self._validate(session, upstream, ring, value))
        for name, upstream in self.settings.upstreams.items():
            live = self._registry.upstream(name)
            for target in self._addresses.get(name, ("",)):
                self._look_at(session, upstream, self._registry.target(name, target) if target else live, target)
        for value in self._keyring.in_force():
            what = f"{value.upstream}/{value.live.name}"
            if self._is_due(f"{what}/{value.live.fingerprint}", value.live, now_s):
                upstream = self.settings.upstreams[value.upstream]
                self._begin(f"{what}/{value.live.fingerprint}", self._check_key(session, what, upstream, value))

    def _look_at(self, session: aiohttp.ClientSession, upstream: Upstream, live: UpstreamLive, target: str) -> None:
        now_s = self._clock()
        if upstream.health is None:
            live.health.reset()
        elif now_s >= self._due_s.get(live.name, 0.0):
            self._due_s[live.name] = now_s + upstream.health.interval_s
            self._begin(live.name, self._check(session, upstream, live, target))

    def _is_due(self, key: str, live: KeyLive, now_s: float) -> bool:
        """Is it time to ask whether this key is accepted? One that rests is asked for soon, then ever more seldom."""
        due_s = self._due_s.get(key, 0.0)
        if not (live.resting or live.doubted) or now_s < due_s:
            return False
        if live.resting:
            lately = now_s < due_s + KEY_CHECKED_LAST_S
            rest_s = min(2 * self._rests_s.get(key, 0.0), KEY_CHECKED_LAST_S) if lately else 0.0
            self._rests_s[key] = rest_s = rest_s or KEY_CHECKED_FIRST_S
        else:
            rest_s = KEY_DOUBTED_EVERY_S
        self._due_s[key] = now_s + rest_s
        return True

    def _begin(self, what: str, work: Coroutine[None, None, None]) -> None:
        """Unless it is still under way since the last time."""
        if what in self._running:
            work.close()
            return
        task = self._running[what] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda _: self._running.pop(what))

    async def _check(self, session: aiohttp.ClientSession, upstream: Upstream, live: UpstreamLive, target: str) -> None:
        health, state = upstream.health, live.health
        assert health is not None  # noqa: S101 - it is asked for
        state.unhealthy_after, state.healthy_after = health.unhealthy_after, health.healthy_after
        key = next(iter(self._keyring.serving(live.upstream, upstream.keys[0]))).secret if upstream.keys else None
        in_logs = {"upstream": live.upstream, "target": target} if target else {"upstream": live.upstream}
        base_url = replace(upstream.base_url, host=target) if target else upstream.base_url
        status, said = await self._ask(session, upstream, key, f"{base_url}{health.path}", health.timeout_s)
        if status is not None and status < 500:  # it is there; whether it likes the key is another question
            if state.passed():
                self._log.info("upstream_healthy", **in_logs)
        elif state.failed(said):
            self._log.warning("upstream_unhealthy", **in_logs, reason=said)

    async def _validate(self, session: aiohttp.ClientSession, upstream: Upstream, ring: Ring, value: Value) -> None:
        health = upstream.health
        url = asking.url(upstream, "/models") if health is None else f"{upstream.base_url}{health.path}"
        status, said = await self._ask(session, upstream, value.secret, url, self.settings.probe_timeout_s)
        self._keyring.validated(ring, value, status, said)

    async def _check_key(self, session: aiohttp.ClientSession, what: str, upstream: Upstream, value: Value) -> None:
        live = value.live
        status, said = await self._ask(
            session, upstream, value.secret, asking.url(upstream, "/models"), KEY_CHECK_TIMEOUT_S
        )
        doubted, live.doubted = live.doubted, False
        if value.life.state not in CHECKED:  # it was replaced or revoked meanwhile
            return
        if not live.resting:
            if doubted and status == 401:
                live.resting = said
                value.life.on(Event.PROBE_REFUSED, self._clock())
                self._log.warning("key_refused", key=what, reason=said)
        elif status is None or status in REFUSED or status >= 500:
            if status == 401:
                value.life.on(Event.PROBE_REFUSED, self._clock())
            self._log.info("key_still_refused", key=what, reason=said)
        else:
            live.resting = ""
            value.life.on(Event.PROBE_PASSED, self._clock())
            if status < 300:  # others say nothing of the key, and must not be asked without end
                self._rests_s.pop(f"{what}/{live.fingerprint}", None)
            self._log.info("key_accepted", key=what)

    @staticmethod
    async def _ask(
        session: aiohttp.ClientSession,
        upstream: Upstream,
        key: Secret | None,
        url: str,
        timeout_s: float,
    ) -> tuple[int | None, str]:
        """The status of a GET and what it was, or None and why there was no answer. The URL may be a target's."""
        try:
            async with session.get(
                url,
                params=upstream.query,
                headers={"host": upstream.base_url.authority, **asking.headers(upstream, key)},
                ssl=upstream_tls(upstream) or True,
                server_hostname=upstream.tls.server_name or upstream.base_url.host,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as answer:
                return answer.status, f"status {answer.status}"
        except TimeoutError:
            return None, "no answer in time"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return None, reason(error)
