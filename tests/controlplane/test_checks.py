"""Asking upstreams how they are, and whether they accept a key again; by a clock that the test turns."""

import asyncio
import random
from collections.abc import AsyncIterator
from itertools import pairwise

import aiohttp
import pytest

from proxy.controlplane.build import build, unchanged
from proxy.controlplane.checks import KEY_CHECKED_LAST_S, Checks
from proxy.controlplane.keyring import Keyring
from proxy.controlplane.load import parse
from proxy.model.settings import Settings
from proxy.obs.metrics import Metrics
from proxy.state.live import KeyLive, Registry, UpstreamLive
from tests.support.faults import FaultProxy
from tests.support.running import Events, recording_log
from tests.support.scripted import Conversation, ScriptedUpstream, whole

TWO_KEYS = "keys: [{name: a, value: key-a}, {name: b, value: key-b}]"
HEALTH = "health: {path: /ok, interval: 10s, timeout: 5s, unhealthy_after: 3, healthy_after: 2}"


def settings_of(url: str, more: str) -> Settings:
    text = f"upstreams: {{up: {{base_url: '{url}', {more}}}}}\n"
    return parse(text + "pools: {chat: {members: [{upstream: up}]}}\nroutes: [{prefix: /, pool: chat}]\n", {}).settings


class Asked:
    """Checks of one upstream, which answers with `status`."""

    def __init__(self, upstream: ScriptedUpstream | None, url: str, more: str, session: aiohttp.ClientSession) -> None:
        self.now_s, self.events, self.status = 1000.0, Events(), b"200 OK"
        self.upstream, self._session = upstream, session
        registry = Registry(lambda: self.now_s)
        settings = settings_of(url, more)
        log = recording_log(self.events)
        self.keyring = Keyring(settings, registry, lambda: self.now_s, random.Random(1).random, log)
        self.keyring.take(settings, "start")
        self._built = build(
            settings, registry, Metrics(), 1, in_force=unchanged(settings, registry)._replace(keys=self.keyring.serving)
        )
        self.live: UpstreamLive = registry.upstreams["up"]
        self.checks = Checks(settings, registry, self.keyring, lambda: self.now_s, log)

    @property
    def key(self) -> KeyLive:
        return self.keyring.rings["up", "a"].current.live

    async def __call__(self, talk: Conversation) -> None:
        while True:
            await talk.request()
            await talk.send(whole(b"{}", status=self.status))

    async def look(self, after_s: float = 0.0, status: bytes | None = None) -> int:
        """Let time pass, look, and let all that it begins end. How many questions were there?"""
        self.now_s += after_s
        self.status = status or self.status
        before = len(self.upstream.requests) if self.upstream is not None else 0
        self.checks.look(self._session)
        while self.checks._running:
            await asyncio.wait(self.checks._running.values())
            await asyncio.sleep(0)
        return len(self.upstream.requests) - before if self.upstream is not None else 0

    async def seen(self, seconds: int) -> list[int]:
        """After which of so many seconds, each looked at twice, there was a question."""
        return [second // 2 for second in range(2 * seconds) if await self.look(0.5)]

    def named(self, name: str) -> int:
        return len(self.events.named(name))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session


@pytest.fixture
def asked(scripted, session):
    async def make(more: str = "") -> Asked:
        upstream = await scripted(lambda talk: made(talk))
        made = Asked(upstream, upstream.url, more, session)
        return made

    return make


# --- health ----------------------------------------------------------------------------------------------------------


async def test_without_health_nobody_asks_and_what_was_known_is_forgotten(asked):
    one = await asked(HEALTH)
    for _ in range(3):
        await one.look(10, b"500 Down")
    assert not one.live.health.healthy
    one.checks.settings = settings_of(one.upstream.url, "")
    assert await one.look(100) == 0
    assert (one.live.health.healthy, one.live.health.checked) == (True, False)


async def test_question_is_a_get_below_the_base_url_with_the_first_key(asked):
    one = await asked(f"{HEALTH}, {TWO_KEYS}, headers: {{x-team: search}}, query: {{api-version: '1 2'}}")
    await one.look()
    (request,) = one.upstream.requests
    assert request.line == b"GET /v1/ok?api-version=1+2 HTTP/1.1"
    assert (request.field(b"authorization"), request.field(b"x-team")) == (b"Bearer key-a", b"search")
    assert request.field(b"accept-encoding") == b"identity"


async def test_it_is_asked_once_in_each_interval_and_not_again_while_a_question_is_open(asked):
    one = await asked(HEALTH)
    assert [await one.look(5) for _ in range(6)] == [1, 0, 1, 0, 1, 0]
    one.now_s += 10
    one.checks.look(one._session)
    one.now_s += 10
    one.checks.look(one._session)
    assert len(one.checks._running) == 1
    await one.look()
    assert len(one.upstream.requests) == 4


STATUSES = {
    b"200 OK": True, b"301 Moved": True, b"404 None": True, b"405 Not So": True, b"429 Slow": True,
    b"401 Who": True, b"403 No": True, b"500 Down": False, b"502 Down": False, b"503 Busy": False,
}  # fmt: skip


@pytest.mark.parametrize("keys", ["", f", {TWO_KEYS}"], ids=["no key", "keys"])
@pytest.mark.parametrize("status", STATUSES, ids=lambda status: status[:3].decode())
async def test_all_but_no_answer_and_5xx_is_health(status, keys, asked):
    one = await asked(HEALTH + keys)
    for _ in range(4):
        await one.look(10, status)
    assert one.live.health.healthy == STATUSES[status]
    assert one.named("upstream_unhealthy") == (not STATUSES[status])
    for _ in range(2):
        await one.look(10, b"200 OK")
    assert one.live.health.healthy
    for _ in range(3):
        await one.look(10, b"500 Down")
    for _ in range(2):
        await one.look(10, status)
    assert one.live.health.healthy == STATUSES[status]


async def test_upstream_that_cannot_be_reached_is_unhealthy_and_why_is_told(session):
    nobody = FaultProxy(0)
    one = Asked(None, nobody.url, HEALTH, session)
    for _ in range(3):
        await one.look(10)
    await nobody.close()
    assert not one.live.health.healthy
    (event,) = one.events.named("upstream_unhealthy")
    assert (event["upstream"], event["level"]) == ("up", "warning")


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Le", b"", b"HTTP/1.1 2000 O\r\n\r\n"]
)
async def test_no_answer_that_can_be_read_is_no_health(said, scripted, session):
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(said)

    upstream = await scripted(script)
    one = Asked(upstream, upstream.url, HEALTH, session)
    for _ in range(3):
        await one.look(10)
    assert not one.live.health.healthy


async def test_redirect_is_not_followed_with_our_key(asked, scripted):
    other = await scripted(lambda talk: talk.request())
    one = await asked(f"{HEALTH}, {TWO_KEYS}")
    one.status = b"302 Found\r\nLocation: %b/models" % other.url.encode()
    await one.look()
    assert (len(one.upstream.requests), other.requests) == (1, [])


# --- keys ------------------------------------------------------------------------------------------------------------


async def test_key_in_use_is_not_asked_about(asked):
    one = await asked(TWO_KEYS)
    assert sum([await one.look(10) for _ in range(10)]) == 0


async def test_resting_key_is_asked_about_soon_and_then_ever_more_seldom(asked):
    one = await asked(TWO_KEYS)
    one.status, one.key.resting = b"401 Who", "401"
    seen = await one.seen(300)
    waits = [later - earlier for earlier, later in pairwise(seen)]
    assert seen[0] <= 2
    assert waits == sorted(waits)
    assert waits[:3] == [1, 2, 4] or waits[:3] == [2, 4, 8]
    assert max(waits) <= KEY_CHECKED_LAST_S
    assert {request.line for request in one.upstream.requests} == {b"GET /v1/models HTTP/1.1"}
    assert {request.field(b"authorization") for request in one.upstream.requests} == {b"Bearer key-a"}
    assert one.key.resting


@pytest.mark.parametrize(
    ("status", "accepted"),
    [(b"200 OK", True), (b"404 None", True), (b"429 Slow", True)]
    + [(status, False) for status in (b"401 Who", b"403 No", b"500 Down", b"503 Busy")],
)
async def test_key_is_back_as_soon_as_it_is_accepted(status, accepted, asked):
    one = await asked(TWO_KEYS)
    one.status, one.key.resting = status, "401"
    await one.seen(4)
    assert (one.key.resting == "") == accepted
    assert one.named("key_accepted") == accepted
    assert bool(one.named("key_still_refused")) == (not accepted)
    assert not any("key-a" in str(event) for event in one.events)


async def test_key_that_rests_once_more_much_later_is_asked_about_soon(asked):
    one = await asked(TWO_KEYS)
    one.status, one.key.resting = b"401 Who", "401"
    await one.seen(100)
    one.status = b"200 OK"
    await one.seen(70)
    assert one.key.resting == ""
    one.now_s += 1000
    one.key.resting = "401"
    assert (await one.seen(4))[0] <= 2


async def test_key_that_callers_bring_into_disrepute_is_soon_back_each_time(asked):
    one = await asked(TWO_KEYS)
    for _ in range(20):
        one.key.resting = "401"
        await one.seen(2)
        assert one.key.resting == ""


@pytest.mark.parametrize(
    ("status", "rests"), [(b"200 OK", False), (b"403 No", False), (b"500 Down", False), (b"401 Who", True)]
)
async def test_key_in_doubt_goes_on_until_it_is_refused(status, rests, asked):
    one = await asked(TWO_KEYS)
    one.status, one.key.doubted = status, True
    assert await one.seen(3) == [0]
    assert bool(one.key.resting) == rests
    assert not one.key.doubted
    assert one.named("key_refused") == rests


async def test_two_keys_are_asked_about_each_by_itself(asked):
    one = await asked(TWO_KEYS)
    one.status = b"401 Who"
    for key in one.live.keys.values():
        key.resting = "401"
    await one.seen(3)
    seen = [request.field(b"authorization") for request in one.upstream.requests]
    assert seen.count(b"Bearer key-a") == seen.count(b"Bearer key-b") >= 1


async def test_key_that_no_configuration_names_any_more_is_not_asked_about(asked):
    one = await asked(TWO_KEYS)
    one.key.resting = "401"
    one.checks.settings = settings_of(one.upstream.url, "keys: [{name: b, value: key-b}]")
    one.keyring.take(one.checks.settings, "reload")
    assert await one.seen(5) == []


async def test_checks_that_are_cancelled_leave_no_question_open(scripted, session):
    async def silent(talk: Conversation) -> None:
        await talk.request()
        await talk.gone()

    upstream = await scripted(silent)
    one = Asked(upstream, upstream.url, HEALTH, session)
    running = asyncio.get_running_loop().create_task(one.checks.run())
    await upstream.until(lambda: len(upstream.requests) == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await upstream.until(lambda: upstream.open == 0)
