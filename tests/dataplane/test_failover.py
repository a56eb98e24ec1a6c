"""Who is asked when members fail, are left out or full: others of the pool, then the pools that it falls back on."""

import pytest

from tests.support.raw import RawCaller, ask, post
from tests.support.running import RunningProxy, config_for
from tests.support.scripted import Conversation, ScriptedUpstream, answering, whole

IN_TURN = "balance: smooth_rr, slow_start: 0s"
BUSY = whole(b"busy", status=b"503 Busy")


async def silent(talk: Conversation) -> None:
    await talk.request()
    await talk.gone()


def pools_config(pools: str, *upstreams: ScriptedUpstream, more: str = "") -> str:
    """A route to `chat`. `more`: of each upstream."""
    lines = [f"  up{number}: {{base_url: '{one.url}'{more}}}" for number, one in enumerate(upstreams)]
    return "\n".join(["upstreams:", *lines, f"pools: {pools}", "routes: [{prefix: /v1, pool: chat}]\n"])


def one_pool(members: str, *upstreams: ScriptedUpstream, pool: str = "", more: str = "") -> str:
    return pools_config(f"{{chat: {{members: [{members}], {IN_TURN}, {pool}}}}}", *upstreams, more=more)


def ejected(running: RunningProxy, pool: str = "chat") -> list[str]:
    members = running.serinus.registry.pools[pool].members
    return [name.partition("/")[0] for name, live in members.items() if live.outlier.is_out(running.clock())]


def eject(running: RunningProxy, *upstreams: str) -> None:
    for pool in running.serinus.registry.pools.values():
        for name, live in pool.members.items():
            if name.partition("/")[0] in upstreams:
                live.outlier.out_until_s = running.clock() + 30


# --- who is left out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [b"400 A", b"401 A", b"403 A", b"404 A", b"413 A", b"422 A", b"429 A"])
async def test_callers_own_mistakes_eject_and_rest_nobody(status, scripted, proxy):
    upstreams = [await scripted(answering(whole(b"own", status=status))) for _ in range(2)]
    running = await proxy(config_for(*(one.url for one in upstreams), pool=IN_TURN, keys=False))
    for _ in range(12):
        await ask(running.port, post())
    assert ejected(running) == []
    assert [len(one.requests) for one in upstreams] == ([12, 12] if status == b"429 A" else [6, 6])


async def test_callers_that_leave_eject_nobody(scripted, proxy):
    upstreams = [await scripted(silent) for _ in range(2)]
    running = await proxy(config_for(*(one.url for one in upstreams), pool=IN_TURN))
    for count in range(1, 13):
        caller = await RawCaller.connect(running.port)
        await caller.send(post())
        await running.until(lambda: running.inflight() == 1)
        caller.writer.transport.abort()
        await running.until_logged(count)
    assert ejected(running) == []


async def test_member_that_keeps_failing_is_left_out_and_comes_back(scripted, proxy):
    bad, good = await scripted(answering(BUSY)), await scripted(answering(whole(b"{}")))
    running = await proxy(one_pool("{upstream: up0}, {upstream: up1}", bad, good))
    for _ in range(30):
        assert (await ask(running.port, post())).status == 200
    assert (len(bad.requests), ejected(running)) == (5, ["up0"])
    running.pass_time(31)
    for _ in range(4):
        assert (await ask(running.port, post())).status == 200
    assert (len(bad.requests), ejected(running)) == (6, ["up0"])  # on probation


async def test_good_answer_between_failures_begins_the_count_anew(scripted, proxy):
    async def script(talk: Conversation) -> None:
        while True:
            await talk.request()
            await talk.send(whole(b"{}") if len(talk.upstream.requests) % 5 == 0 else BUSY)

    flaky, good = await scripted(script), await scripted(answering(whole(b"{}")))
    running = await proxy(one_pool("{upstream: up0}, {upstream: up1}", flaky, good))
    await members_asked(running, [flaky, good], 40)
    assert (ejected(running), len(flaky.requests) >= 20) == ([], True)


async def members_asked(running: RunningProxy, upstreams: list[ScriptedUpstream], count: int = 6) -> list[int]:
    before = [len(one.requests) for one in upstreams]
    for _ in range(count):
        await ask(running.port, post())
    return [len(one.requests) - old for one, old in zip(upstreams, before, strict=True)]


OUT = {"nobody": (), "one": ("up0",), "all that weigh": ("up0", "up1"), "all": ("up0", "up1", "up2")}


@pytest.mark.parametrize("balance", ["smooth_rr", "least_work", "least_request", "peak_ewma", "prefix_hash"])
@pytest.mark.parametrize("out", OUT)
async def test_member_without_weight_is_never_picked_and_if_all_are_out_one_is(out, balance, scripted, proxy):
    upstreams = [await scripted(answering(whole(b"{}"))) for _ in range(3)]
    members = "{upstream: up0}, {upstream: up1}, {upstream: up2, weight: 0}"
    running = await proxy(one_pool(members, *upstreams).replace("smooth_rr", balance))
    eject(running, *OUT[out])
    asked = await members_asked(running, upstreams)
    assert (sum(asked), asked[2]) == (6, 0)
    if balance == "smooth_rr":
        assert asked == ([0, 6, 0] if out == "one" else [3, 3, 0])
    assert asked[0] == 0 or out != "one"
    assert running.serinus.registry.pools["chat"].panics == (6 if out.startswith("all") else 0)


async def test_member_without_weight_is_no_second_choice_either(scripted, proxy):
    bad, idle = await scripted(answering(BUSY)), await scripted(answering(whole(b"{}")))
    running = await proxy(one_pool("{upstream: up0}, {upstream: up1, weight: 0}", bad, idle))
    assert (await ask(running.port, post())).payload == b"busy"


@pytest.mark.parametrize("found", [(0,), (1,), (0, 1)])
async def test_member_that_a_check_found_unhealthy_is_passed_over(found, scripted, proxy):
    upstreams = [await scripted(answering(whole(b"{}"))) for _ in range(2)]
    running = await proxy(one_pool("{upstream: up0}, {upstream: up1}", *upstreams))
    for number in found:
        for _ in range(3):
            running.serinus.registry.upstreams[f"up{number}"].health.failed("says a check")
    asked = await members_asked(running, upstreams)
    assert asked == ([3, 3] if len(found) == 2 else [6 * (number not in found) for number in range(2)])


# --- room, and fallbacks ---------------------------------------------------------------------------------------------


async def test_full_upstream_is_passed_over_and_if_all_are_the_caller_is_told(scripted, proxy):
    upstreams = [await scripted(silent) for _ in range(2)]
    running = await proxy(one_pool("{upstream: up0}, {upstream: up1}", *upstreams, more=", max_connections: 2"))
    for _ in range(4):
        await (await RawCaller.connect(running.port)).send(post())
    for one in upstreams:
        await one.until(lambda one=one: len(one.requests) == 2)
    answer = await ask(running.port, post())
    assert (answer.status, b"upstream_unavailable" in answer.payload) == (503, True)
    assert answer.field(b"retry-after") is not None


async def test_no_more_than_so_many_wait_for_a_connection(scripted, proxy):
    async def never_shakes_hands(talk: Conversation) -> None:
        await talk.gone()

    dead, good = await scripted(never_shakes_hands), await scripted(answering(whole(b"{}")))
    dead_url = dead.url.replace("http:", "https:")
    config = one_pool("{upstream: up0, weight: 1000}, {upstream: up1}", dead, good, more=", max_pending: 2")
    running = await proxy(config.replace(dead.url, dead_url))
    waiting = [await RawCaller.connect(running.port) for _ in range(2)]
    for caller in waiting:
        await caller.send(post())
    up0 = running.serinus.registry.upstreams["up0"]
    await running.until(lambda: up0.pending == 2)
    for _ in range(5):
        assert (await ask(running.port, post())).field(b"x-serinus-upstream") == b"up1"
    for caller in waiting:
        caller.writer.transport.abort()
    await running.until_logged(7)
    assert up0.pending == 2  # who has left does not end the attempt: its connection may serve the next


CHAIN = (
    "{chat: {members: [{upstream: up0}, {upstream: up1}], balance: smooth_rr, slow_start: 0s, fallback: second},"
    " second: {members: [{upstream: up2}], fallback: third}, third: {members: [{upstream: up3}]}}"
)


@pytest.mark.parametrize("failing", range(5))
async def test_pool_after_pool_is_asked_each_with_its_own_attempts(failing, scripted, proxy):
    upstreams = [await scripted(answering(BUSY if number < failing else whole(b"%d" % number))) for number in range(4)]
    running = await proxy(pools_config(CHAIN, *upstreams))
    answer = await ask(running.port, post())
    last = min(failing, 3)
    assert (answer.status, answer.payload) == ((200, b"%d" % failing) if failing < 4 else (503, b"busy"))
    assert answer.field(b"x-serinus-upstream") == b"up%d" % last
    assert [len(one.requests) for one in upstreams] == [1] * (last + 1) + [0] * (3 - last)


async def test_each_pool_has_attempts_of_its_own(scripted, proxy):
    upstreams = [
        await scripted(answering(BUSY)),
        await scripted(answering(BUSY)),
        await scripted(answering(whole(b"{}"))),
    ]
    second = f"second: {{members: [{{upstream: up1}}, {{upstream: up2}}], {IN_TURN}}}"
    running = await proxy(
        pools_config(f"{{chat: {{members: [{{upstream: up0}}], fallback: second}}, {second}}}", *upstreams)
    )
    assert (await ask(running.port, post())).status == 200
    assert [len(one.requests) for one in upstreams] == [1, 1, 1]


async def test_member_without_weight_is_not_asked_though_the_others_are_full(scripted, proxy):
    full, idle = await scripted(silent), await scripted(answering(whole(b"{}")))
    members = "{upstream: up0}, {upstream: up1, weight: 0}"
    running = await proxy(one_pool(members, full, idle, more=", max_connections: 1"))
    await (await RawCaller.connect(running.port)).send(post())
    await full.until(lambda: len(full.requests) == 1)
    assert ((await ask(running.port, post())).status, idle.requests) == (503, [])


async def test_fallback_is_asked_first_while_all_of_a_pool_are_out(scripted, proxy):
    upstreams = [await scripted(answering(whole(b"{}"))) for _ in range(4)]
    running = await proxy(pools_config(CHAIN, *upstreams))
    eject(running, "up0", "up1")
    assert await members_asked(running, upstreams, 4) == [0, 0, 4, 0]
    eject(running, "up2")
    assert await members_asked(running, upstreams, 4) == [0, 0, 0, 4]


async def test_member_that_fails_before_a_fallback_is_left_out_like_any_other(scripted, proxy):
    bad = [await scripted(answering(BUSY)) for _ in range(2)]
    upstreams = [*bad, await scripted(answering(whole(b"{}"))), await scripted(silent)]
    running = await proxy(pools_config(CHAIN, *upstreams))
    assert (await members_asked(running, upstreams, 5)) == [5, 5, 5, 0]
    assert len(ejected(running)) == 1
    for pool in ("second", "third"):
        assert ejected(running, pool) == []


async def test_pool_that_is_out_is_asked_where_its_fallback_has_no_room(scripted, proxy):
    good, full = await scripted(answering(whole(b"{}"))), await scripted(silent)
    pools = "{chat: {members: [{upstream: up0}], fallback: second}, second: {members: [{upstream: up1}]}}"
    running = await proxy(pools_config(pools, good, full, more=", max_connections: 1"))
    eject(running, "up0")
    caller = await RawCaller.connect(running.port)
    await caller.send(post())
    await full.until(lambda: len(full.requests) == 1)
    assert (await ask(running.port, post())).status == 200


async def test_all_out_share_what_comes_though_there_is_a_fallback(scripted, proxy):
    upstreams = [await scripted(answering(whole(b"{}"))) for _ in range(4)]
    running = await proxy(pools_config(CHAIN, *upstreams))
    eject(running, "up0", "up1", "up2", "up3")
    assert await members_asked(running, upstreams) == [3, 3, 0, 0]


async def test_what_a_fallback_made_is_asked_for_there(scripted, proxy):
    bad, good = await scripted(answering(BUSY)), await scripted(answering(whole(b'{"id":"resp_1"}')))
    pools = "{chat: {members: [{upstream: up0}], fallback: second}, second: {members: [{upstream: up1}]}}"
    running = await proxy(pools_config(pools, bad, good))
    assert (await ask(running.port, post(target=b"/v1/responses"))).status == 200
    assert (await ask(running.port, post(target=b"/v1/responses/resp_1/cancel"))).status == 200
    assert (await ask(running.port, post(b'{"previous_response_id":"resp_1"}'))).status == 200
    assert len(bad.requests) == 1
