"""A key's value is followed by another one, and no caller notices; over real sockets."""

from collections import Counter

import pytest

from proxy.controlplane.keyring import KeyNotFound, Ring, ValueRefused
from proxy.model.secret import Secret
from proxy.policy.keys import State
from tests.support.raw import RawCaller, ask, post
from tests.support.running import RunningProxy
from tests.support.scripted import Conversation, Held, ScriptedUpstream, whole


class Vendor:
    """Accepts the keys that it knows. `said`: other answers, by key."""

    def __init__(self, *known: str, **said: bytes) -> None:
        self.known, self.said = set(known), said
        self.probes: list[str] = []
        self.models: dict[str, bytes] = {}  # what a key draws that asks for the models

    async def __call__(self, talk: Conversation) -> None:
        while True:
            request = await talk.request()
            key = request.field(b"authorization").removeprefix(b"Bearer ").decode()
            answer = whole(b"{}") if key in self.known else whole(b"who?", status=b"401 Unknown")
            if request.line.startswith(b"GET"):
                self.probes.append(key)
                await talk.send(self.models.get(key) or answer)
            else:
                await talk.send(self.said.get(key) or answer)


def config(url: str, value: str = "old", more: str = "", overlap: str = "share: 50%, requests: 10") -> str:
    return f"""
upstreams: {{up: {{base_url: '{url}', keys: [{{name: main, value: {value}}}{more}]}}}}
pools: {{chat: {{members: [{{upstream: up}}], balance: smooth_rr, slow_start: 0s}}}}
routes: [{{prefix: /v1, pool: chat}}]
overlap: {{{overlap}}}
"""


@pytest.fixture
def rotating(scripted, proxy, tmp_path):
    """A proxy whose key `main` is `old`, and is to become `new`."""

    async def start(vendor: Vendor, more: str = "", **options: str) -> tuple[RunningProxy, ScriptedUpstream]:
        upstream = await scripted(vendor)
        running = await proxy(config(upstream.url, more=more, **options), path=tmp_path / "serinus.yaml")
        running.serinus.keyring.rotate("up", "main", Secret("new"), "tester", kept=False)
        return running, upstream

    return start


def ring(running: RunningProxy) -> Ring:
    return running.serinus.keyring.rings["up", "main"]


async def used(running: RunningProxy, upstream: ScriptedUpstream, count: int = 10) -> Counter[str]:
    """Which values so many calls go with, all of which are answered."""
    upstream.requests.clear()
    for _ in range(count):
        assert (await ask(running.port, post())).status == 200
    fields = [request.field(b"authorization") for request in upstream.requests]
    return Counter(field.removeprefix(b"Bearer ").decode() for field in fields)


# --- a rotation ------------------------------------------------------------------------------------------------------


async def test_new_value_is_asked_about_then_shares_then_takes_over(rotating):
    running, upstream = await rotating(vendor := Vendor("old", "new"))
    assert await used(running, upstream) == {"old": 10}
    await running.look()
    assert vendor.probes == ["new"]
    assert (ring(running).last.result, await used(running, upstream)) == ("overlapping", {"old": 5, "new": 5})
    await running.look()
    assert (ring(running).last.result, await used(running, upstream)) == ("overlapping", {"old": 5, "new": 5})
    await running.look()
    assert (ring(running).last.result, await used(running, upstream)) == ("rotated", {"new": 10})
    assert ring(running).last.said == "the new key was refused in 0 of 10 answers, the old one in 0 of 10"
    await running.look()
    assert (ring(running).leaving, len(running.events.named("key_retired"))) == ([], 1)
    assert [name for name, _ in running.serinus.registry.upstreams["up"].keys] == ["main"]
    assert not any("old" in str(event.values()) for event in running.events.named("key_rotated"))


async def test_stream_ends_with_the_value_that_it_began_with(scripted, proxy):
    upstream = await scripted(held := Held())
    running = await proxy(config(upstream.url, overlap="share: 0%"))
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    await caller.read_until(Held.FIRST)
    old = ring(running).current
    running.serinus.keyring.rotate("up", "main", Secret("new"), "tester", kept=False)
    running.serinus.keyring.validated(*next(running.serinus.keyring.to_validate()), 200, "")
    for _ in range(3):
        running.serinus.keyring.tick()
    assert (old.life.state, old.live.inflight, ring(running).leaving) == (State.DRAINING, 1, [old])
    held.may_end.set()
    await caller.read_until(Held.LAST)
    await running.until_logged()
    running.serinus.keyring.tick()
    assert (old.life.state, ring(running).leaving) == (State.RETIRED, [])
    caller.writer.close()


async def test_value_that_nobody_uses_takes_over_in_time(rotating):
    running, upstream = await rotating(Vendor("old", "new"), overlap="share: 5%, at_most: 10m")
    await running.look()
    await running.look(599)
    assert ring(running).last.result == "overlapping"
    await running.look(2)
    assert (ring(running).last.result, await used(running, upstream)) == ("rotated", {"new": 10})


async def test_reload_rotates(scripted, proxy, tmp_path):
    path, upstream = tmp_path / "serinus.yaml", await scripted(Vendor("old", "new"))
    running = await proxy(config(upstream.url), path=path)
    path.write_text(path.read_text().replace("value: old", "value: new").replace("50%", "0%"))
    await running.serinus.reloader.reload()
    assert await used(running, upstream) == {"old": 10}
    await running.look()
    assert await used(running, upstream) == {"new": 10}
    await running.serinus.reloader.reload()  # the same again
    assert ring(running).candidate is None


async def test_reload_back_to_the_old_value_ends_the_rotation(scripted, proxy, tmp_path):
    path, upstream = tmp_path / "serinus.yaml", await scripted(Vendor("old", "new"))
    running = await proxy(config(upstream.url), path=path)
    before = path.read_text()
    path.write_text(before.replace("value: old", "value: new"))
    await running.serinus.reloader.reload()
    await running.look()
    assert await used(running, upstream) == {"old": 5, "new": 5}
    path.write_text(before)
    await running.serinus.reloader.reload()
    assert (ring(running).last.result, await used(running, upstream)) == ("withdrawn", {"old": 10})


# --- a value that is no good -----------------------------------------------------------------------------------------


async def test_value_that_is_refused_carries_nothing(rotating):
    running, upstream = await rotating(Vendor("old"))
    await running.look()
    assert (ring(running).last.result, await used(running, upstream)) == ("refused", {"old": 10})
    (event,) = running.events.named("key_rotation_failed")
    assert (event["key"], event["result"], event["reason"]) == ("up/main", "refused", "status 401")
    assert running.serinus.keyring.ended["refused"] == 1


@pytest.mark.parametrize("status", [b"429 Slow", b"500 Down", b"503 Busy", b"418 Teapot"])
async def test_unclear_answer_is_asked_for_again_and_the_old_one_serves(status, rotating):
    running, upstream = await rotating(vendor := Vendor("old", "new"), overlap="share: 0%")
    vendor.models["new"] = whole(b"", status=status)
    for _ in range(3):
        await running.look(61)
        assert await used(running, upstream) == {"old": 10}
    assert (len(vendor.probes), ring(running).last.result) == (3, "validating")
    await running.look()
    assert len(vendor.probes) == 3  # not again at once
    del vendor.models["new"]
    await running.look(61)
    assert await used(running, upstream) == {"new": 10}


async def test_upstream_without_such_a_path_is_warned_of(rotating):
    running, upstream = await rotating(vendor := Vendor("old", "new"), overlap="share: 0%")
    vendor.models["new"] = whole(b"", status=b"404 None")
    await running.look()
    assert (await used(running, upstream), len(running.events.named("key_probe_has_no_path"))) == ({"new": 10}, 1)


async def test_value_that_draws_401s_goes_back_by_itself_and_no_caller_sees_one(rotating):
    running, upstream = await rotating(Vendor("old", "new", new=whole(b"who?", status=b"401 Unknown")))
    for _ in range(8):
        await running.look(2)
        await used(running, upstream, 4)
    assert ring(running).last.result == "went_back"
    assert "the new key drew 401 in" in ring(running).last.said
    assert await used(running, upstream) == {"old": 10}


async def test_value_that_is_refused_later_goes_back(rotating):
    running, upstream = await rotating(vendor := Vendor("old", "new"))
    await running.look()
    vendor.known.remove("new")
    await used(running, upstream, 2)
    await running.look(2)
    await running.look()
    assert (ring(running).last.result, await used(running, upstream)) == ("went_back", {"old": 10})


async def test_old_value_that_is_dead_is_not_gone_back_to(rotating):
    running, upstream = await rotating(vendor := Vendor("old", "new"))
    await running.look()
    vendor.known.remove("old")
    await used(running, upstream, 2)
    await running.look(2)
    await running.look()
    assert (ring(running).last.result, await used(running, upstream)) == ("rotated", {"new": 10})


async def test_callers_who_ask_for_what_is_forbidden_send_no_value_back(rotating):
    forbidden = whole(b"not this model", status=b"403 Forbidden")
    running, _ = await rotating(Vendor("old", "new", old=forbidden, new=forbidden))
    await running.look()
    for _ in range(20):
        assert (await ask(running.port, post())).status == 403
    await running.look()
    assert ring(running).last.result == "rotated"


async def test_rule_of_overlaps_may_change_in_one(scripted, proxy, tmp_path):
    path, upstream = tmp_path / "serinus.yaml", await scripted(Vendor("old", "new"))
    running = await proxy(config(upstream.url), path=path)
    running.serinus.keyring.rotate("up", "main", Secret("new"), "tester", kept=False)
    await running.look()
    text = path.read_text()
    path.write_text(text.replace("share: 50%", "share: 10%"))
    await running.serinus.reloader.reload()
    assert await used(running, upstream) == {"old": 9, "new": 1}
    path.write_text(text.replace("share: 50%", "share: 0%"))
    await running.serinus.reloader.reload()
    assert (await used(running, upstream), ring(running).last.result) == ({"new": 10}, "rotated")


async def test_another_value_takes_the_candidates_place(rotating):
    running, upstream = await rotating(Vendor("old", "new", "newer"))
    await running.look()
    running.serinus.keyring.rotate("up", "main", Secret("newer"), "tester", kept=False)
    assert await used(running, upstream) == {"old": 10}
    await running.look()
    assert await used(running, upstream) == {"old": 5, "newer": 5}
    assert running.serinus.keyring.ended["withdrawn"] == 1


async def test_key_with_a_neighbour_keeps_its_part(rotating):
    running, upstream = await rotating(
        Vendor("old", "new", "other"), more=", {name: second, value: other, weight: 3}", overlap="share: 50%"
    )
    await running.look()
    assert await used(running, upstream, 80) == {"other": 60, "old": 10, "new": 10}


# --- what is asked of it wrongly, and revocation ---------------------------------------------------------------------


async def test_commands_that_make_no_sense(rotating):
    running, _ = await rotating(Vendor("old", "new"))
    keyring = running.serinus.keyring
    with pytest.raises(KeyNotFound, match="there is no key up/other; there are: up/main"):
        keyring.rotate("up", "other", Secret("x"), "tester", kept=False)
    with pytest.raises(ValueRefused, match="is the one in force"):
        keyring.rotate("up", "main", Secret("old"), "tester", kept=False)
    keyring.revoke("up", "main", "tester", Secret("x").fingerprint)
    with pytest.raises(ValueRefused, match="was revoked"):
        keyring.rotate("up", "main", Secret("x"), "tester", kept=False)


async def test_revoked_value_carries_nothing_any_more_and_never_comes_back(scripted, proxy, tmp_path):
    path, upstream = tmp_path / "serinus.yaml", await scripted(Vendor("old", "other"))
    text = config(upstream.url, more=", {name: second, value: other}")
    running = await proxy(text, path=path)
    assert await used(running, upstream) == {"old": 5, "other": 5}
    running.serinus.keyring.revoke("up", "main", "tester")
    assert await used(running, upstream) == {"other": 10}
    path.write_text(path.read_text().replace("value: old", "value: interim"))
    await running.serinus.reloader.reload()
    path.write_text(path.read_text().replace("value: interim", "value: old"))
    await running.serinus.reloader.reload()
    for _ in range(3):
        await running.look(61)
    assert await used(running, upstream) == {"other": 10}
    assert running.events.named("key_revoked_is_configured")


async def test_revoked_value_is_dead_under_every_name(scripted, proxy):
    upstream = await scripted(Vendor("old", "other"))
    more = ", {name: same, value: old}, {name: second, value: other}"
    running = await proxy(config(upstream.url, more=more))
    assert (await used(running, upstream, 9))["old"] == 6
    running.serinus.keyring.revoke("up", "main", "tester")
    assert await used(running, upstream) == {"other": 10}


async def test_last_key_revoked(scripted, proxy):
    upstream = await scripted(Vendor("old"))
    running = await proxy(config(upstream.url))
    running.serinus.keyring.revoke("up", "main", "tester")
    answer = await ask(running.port, post())
    assert (answer.status, b"upstream_credentials_exhausted" in answer.payload) == (502, True)
    assert upstream.requests == []
    await running.look(100)
    assert upstream.requests == []  # nor is it asked about


async def test_revoking_the_old_one_in_an_overlap_leaves_the_new_one(rotating):
    running, upstream = await rotating(Vendor("old", "new"))
    await running.look()
    running.serinus.keyring.revoke("up", "main", "tester")
    assert await used(running, upstream) == {"new": 10}
    assert ring(running).last.result == "rotated"


async def test_revoking_the_new_one_in_an_overlap_leaves_the_old_one(rotating):
    running, upstream = await rotating(Vendor("old", "new"))
    await running.look()
    running.serinus.keyring.revoke("up", "main", "tester", Secret("new").fingerprint)
    assert (await used(running, upstream), ring(running).last.result) == ({"old": 10}, "withdrawn")


async def test_revoked_value_is_found_by_who_cuts_what_holds_it_also_when_another_has_followed(scripted, proxy):
    upstream = await scripted(held := Held())
    running = await proxy(config(upstream.url, overlap="share: 0%"))
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    await caller.read_until(Held.FIRST)
    keyring = running.serinus.keyring
    (live,) = keyring.revoke("up", "main", "tester")
    keyring.rotate("up", "main", Secret("new"), "tester", kept=False)
    keyring.validated(*next(keyring.to_validate()), 200, "")
    keyring.tick()
    assert keyring.revoke("up", "main", "tester", Secret("old").fingerprint) == [live]
    held.may_end.set()
    await caller.read_until(Held.LAST)
    await running.until_logged()
    keyring.tick()
    assert (ring(running).leaving, len(running.serinus.registry.upstreams["up"].keys)) == ([], 1)
    caller.writer.close()


async def test_value_that_stays_alone_serves_though_it_drew_a_401_while_another_was_there(rotating):
    running, upstream = await rotating(Vendor("old", "new"))
    await running.look()
    ring(running).current.live.resting = "401"  # one caller's doing
    running.serinus.keyring.revoke("up", "main", "tester", Secret("new").fingerprint)
    assert await used(running, upstream) == {"old": 10}


async def test_value_that_comes_a_second_time_is_asked_about_a_second_time(rotating):
    running, upstream = await rotating(Vendor("old", "new"), overlap="share: 0%")
    keyring = running.serinus.keyring
    first = next(keyring.to_validate())
    keyring.rotate("up", "main", Secret("other"), "tester", kept=False)
    keyring.rotate("up", "main", Secret("new"), "tester", kept=False)
    keyring.validated(*first, 401, "an answer to what was withdrawn")
    assert ring(running).last.result == "validating"
    await running.look()
    assert await used(running, upstream) == {"new": 10}


async def test_checks_go_on_when_one_of_them_fails(rotating):
    running, upstream = await rotating(Vendor("old", "new"), overlap="share: 0%")
    checks, keyring = running.serinus.checks, running.serinus.keyring
    tick, keyring.tick = keyring.tick, lambda: 1 / 0
    running.serinus._tasks.spawn(checks.run())
    await running.until(lambda: bool(running.events.named("checks_failed")))
    keyring.tick = tick
    await running.until(lambda: ring(running).last.result == "rotated")
    assert await used(running, upstream) == {"new": 10}
    running.events.clear()


async def test_request_that_waits_for_its_body_takes_the_value_that_serves_by_then(rotating):
    running, _ = await rotating(vendor := Vendor("old", "new"), overlap="share: 0%")
    caller = await RawCaller.connect(running.port)
    request = post(b'{"model": "m"}')
    await caller.send(request[:-5])
    await running.until(lambda: bool(running.serinus.data_plane.callers.open))
    await running.look()
    await running.look()
    assert (ring(running).leaving, len(running.events.named("key_retired"))) == ([], 1)
    vendor.known.remove("old")
    await caller.send(request[-5:])
    assert (await caller.answer()).status == 200
    caller.writer.close()
