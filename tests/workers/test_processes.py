"""Several processes that serve, as one: `workers: 2`, over real sockets."""

import asyncio
import json
import os
import signal
import ssl
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.authority import Authority, shown, written
from tests.support.collector import collecting
from tests.support.patience import PATIENCE_S
from tests.support.process import SerinusProcess
from tests.support.raw import RawCaller, ask, get, post
from tests.support.running import config_for
from tests.support.scripted import Held, answering, whole

TWO = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nstate_dir: state\npre_drain: 0s\nworkers: 2\n"
OK = answering(whole(b"{}"))


class Process(SerinusProcess):
    """With what only several have."""

    async def begin(self, config, *options, top=TWO):
        """Serve. Returns the port."""
        await self.start(top + config, *options)
        self.workers = {}
        for _ in range(2):
            await self.meet()
        serving = await self.until("serving")
        self.admin = f"http://127.0.0.1:{serving['admin'][1]}"
        return serving["listen"][0][1]

    async def meet(self):
        """The next worker that is ready."""
        ready = await self.until("worker_ready")
        self.workers[ready["worker"]] = ready["pid"]
        return ready

    async def samples(self, name):
        """Of a metric: by its labels' values, in the order of their names."""
        async with aiohttp.request("GET", f"{self.admin}/metrics") as answer:
            text = await answer.text()
        families = text_string_to_metric_families(text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return {tuple(sample.labels[name] for name in sorted(sample.labels)): sample.value for sample in samples}

    async def change(self, method, path, **body):
        async with aiohttp.request(method, f"{self.admin}{path}", json=body) as answer:
            return answer.status, await answer.json()

    async def served_by(self):
        """The worker of the next line in the access log."""
        return (await self.until("request"))["worker"]


@pytest.fixture
async def serinus(tmp_path):
    process = Process(tmp_path)
    yield process
    await process.kill()


async def connected(port, count):
    return [await RawCaller.connect(port) for _ in range(count)]


async def streaming(port, count):
    """So many, each in the middle of a stream."""
    callers = await connected(port, count)
    for caller in callers:
        await caller.send(get())
        await caller.read_until(Held.FIRST)
    return callers


async def called(callers, request=None):
    """Each sends a request. Returns their answers."""
    answers = []
    for caller in callers:
        await caller.send(request or post())
        answers.append(await caller.answer())
    return answers


async def all_say(callers, what):
    return [each.payload for each in await called(callers)] == [what] * len(callers)


async def eventually(condition):
    """Until it is so, which something else brings about."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - it is another process that changes
            await asyncio.sleep(0)


async def rest_of(caller):
    """The end of its stream; nothing if it was cut."""
    try:
        return await caller.read_until(Held.LAST)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- one proxy to callers ------------------------------------------------------------------------------------------


async def test_few_connections_are_spread_evenly_and_counted_as_one(serinus, scripted):
    port = await serinus.begin(config_for((await scripted(OK)).url))
    callers = await connected(port, 8)
    assert [each.status for each in await called(callers)] == [200] * 8
    by = [await serinus.served_by() for _ in range(8)]
    assert (by.count(0), by.count(1)) == (4, 4)
    assert await serinus.samples("serinus_requests_total") == {("", "200", "chat", "/v1", "up0"): 8.0}
    assert await serinus.samples("serinus_workers") == {(): 2.0}
    async with aiohttp.request("GET", f"{serinus.admin}/status") as status:
        assert (await status.json())["workers"] == 2
    assert await serinus.samples("serinus_client_connections") == {(): 8.0}
    assert (await serinus.samples("serinus_upstream_outcomes_total"))["ok", "up0"] == 8.0
    for caller in callers:
        caller.close()


async def test_what_is_under_way_is_seen_from_above(serinus, scripted):
    held = Held()
    port = await serinus.begin(config_for((await scripted(held)).url))
    callers = await streaming(port, 4)
    assert await serinus.samples("serinus_upstream_inflight") == {("up0",): 4.0}
    held.may_end.set()
    for caller in callers:
        await caller.read_until(Held.LAST)
        caller.close()

    async def none_is_left():
        return await serinus.samples("serinus_upstream_inflight") == {("up0",): 0.0}

    await eventually(none_is_left)


async def test_limits_hold_over_all_workers(serinus, scripted):
    limits = "clients: [{name: few, key: client-key, limits: {requests_per_minute: 40}}]\n"
    port = await serinus.begin(config_for((await scripted(OK)).url, clients=False, top=limits))
    callers = await connected(port, 4)
    statuses = [each.status for _ in range(25) for each in await called(callers)]
    assert statuses[:40] == [200] * 40
    assert statuses.count(200) <= 40 + 40  # a minute's worth may flow in while a slow machine asks
    assert statuses.count(429) == 100 - statuses.count(200)
    for caller in callers:
        caller.close()


async def test_concurrent_requests_are_counted_over_all_workers_and_a_dead_ones_are_not(serinus, scripted):
    limits = "clients: [{name: few, key: client-key, limits: {concurrent: 3}}]\n"
    port = await serinus.begin(config_for((await scripted(Held())).url, clients=False, top=limits))
    holding = await streaming(port, 3)
    assert (await ask(port, get())).status == 429
    os.kill(serinus.workers[0], signal.SIGKILL)
    await serinus.meet()
    (again,) = await streaming(port, 1)
    for caller in (*holding, again):
        caller.close()


async def test_what_a_worker_finds_out_the_others_know(serinus, scripted):
    """A key that drew a 401 rests everywhere, and it is asked about by the process above alone."""

    async def script(talk):
        while True:
            request = await talk.request()
            refused = request.field(b"authorization") == b"Bearer bad"
            await talk.send(whole(b"{}", status=b"401 Unauthorized") if refused else whole(b"{}"))

    upstream = await scripted(script)
    keys = "keys: [{name: main, value: bad}, {name: spare, value: good}]"
    config = config_for(upstream.url, keys=False, upstream=keys, pool="balance: smooth_rr, retry: {attempts: 2}")
    port = await serinus.begin(config)
    caller = await RawCaller.connect(port)
    await called([caller, caller])

    async def both_know():
        states = await serinus.samples("serinus_key_state")
        return states.get(("main", "resting", "up0")) == 1.0

    await eventually(both_know)
    upstream.requests.clear()
    others = await connected(port, 4)
    assert [each.status for each in await called(others)] == [200] * 4
    used = [request.field(b"authorization") for request in upstream.requests if request.line.startswith(b"POST")]
    assert used == [b"Bearer good"] * 4
    for each in (caller, *others):
        each.close()


async def test_what_was_made_by_way_of_one_worker_is_found_by_the_others(serinus, scripted):
    first = await scripted(answering(whole(b'{"id":"resp_1","object":"response"}')))
    second = await scripted(answering(whole(b'{"id":"resp_2","object":"response"}')))
    port = await serinus.begin(config_for(first.url, second.url))
    one, other = await connected(port, 2)
    made = [json.loads(each.payload)["id"] for each in await called([one, one], post(target=b"/v1/responses"))]
    assert made == ["resp_1", "resp_2"]

    async def leads_back():  # an id that is not known goes to the first
        (answer,) = await called([other], get(b"/v1/responses/resp_2"))
        return b"resp_2" in answer.payload

    await eventually(leads_back)
    for caller in (one, other):
        caller.close()


async def test_handshakes_are_the_workers_and_show_renewed_certificates(serinus, scripted, tmp_path):
    (cert, key), upstream = Authority(tmp_path / "old").issue("localhost"), await scripted(OK)
    listen = f"listen: [{{address: 127.0.0.1:0, tls: {{cert: {cert}, key: {key}}}}}]"
    await serinus.start(TWO.replace("listen: 127.0.0.1:0", listen, 1) + config_for(upstream.url))
    port = await serinus.serving()
    trusting = ssl.create_default_context(cafile=tmp_path / "old/ca.pem")
    trusting.check_hostname = False
    callers = [await RawCaller.connect(port, ssl=trusting) for _ in range(2)]
    assert [each.status for each in await called(callers)] == [200] * 2
    for caller in callers:
        caller.close()
    for new, old in zip(Authority(tmp_path / "new").issue("localhost"), (cert, key), strict=True):
        new.rename(old)
    for _ in range(3):  # the process above has it too, for /status
        await serinus.until("certificate_renewed")
    assert [await shown(port) for _ in range(2)] == [written(cert)] * 2


# --- what is decided above -------------------------------------------------------------------------------------------


async def test_a_reload_is_in_force_everywhere_when_it_is_told(serinus, scripted):
    old, new = await scripted(answering(whole(b"old"))), await scripted(answering(whole(b"new")))
    port = await serinus.begin(config_for(old.url), "--no-watch")
    callers = await connected(port, 4)
    assert [each.payload for each in await called(callers)] == [b"old"] * 4
    serinus.file.write_text(TWO + config_for(new.url))
    status, said = await serinus.change("POST", "/reload")
    assert (status, said["result"], said["generation"]) == (200, "applied", 2)
    assert [each.payload for each in await called(callers)] == [b"new"] * 4
    serinus.file.write_text("routes: [")
    assert (await serinus.change("POST", "/reload"))[0] == 422
    assert [each.payload for each in await called(callers)] == [b"new"] * 4
    for caller in callers:
        caller.close()


async def test_listener_that_others_reach_is_never_left_without_clients(serinus):
    """It stays open until a restart, whatever the file says meanwhile."""
    config = config_for("http://127.0.0.1:1/v1")
    top = TWO.replace("listen: 127.0.0.1:0", "listen: 0.0.0.0:0", 1)
    await serinus.begin(config, "--no-watch", top=top)
    serinus.file.write_text(TWO + config_for("http://127.0.0.1:1/v1", clients=False))
    status, said = await serinus.change("POST", "/reload")
    assert (status, said["result"]) == (422, "rejected")
    assert "clients: none are listed, and 0.0.0.0:0, which others can reach" in said["problems"][0]
    serinus.file.write_text(TWO + config)
    status, said = await serinus.change("POST", "/reload")
    assert (status, said["need_restart"]) == (200, ["listen"])


async def test_changed_file_is_put_in_force_everywhere_and_listeners_wait_for_a_restart(serinus, scripted):
    old, new = await scripted(answering(whole(b"old"))), await scripted(answering(whole(b"new")))
    port = await serinus.begin(config_for(old.url))
    callers = await connected(port, 4)
    top = TWO.replace("listen: 127.0.0.1:0", "listen: [127.0.0.1:0, 127.0.0.2:0]", 1)
    serinus.file.write_text(top + config_for(new.url))
    assert (await serinus.until("config_applied"))["need_restart"] == ["listen"]
    assert (await serinus.change("GET", "/status"))[1]["generation"] == 2
    await eventually(lambda: all_say(callers, b"new"))
    for caller in callers:
        caller.close()


async def test_a_revoked_client_is_out_everywhere_and_its_streams_are_cut(serinus, scripted):
    port = await serinus.begin(config_for((await scripted(Held())).url))
    callers = await streaming(port, 2)
    status, said = await serinus.change("POST", "/clients/tester/revoke", now=True)
    assert (status, said["cut"]) == (200, 2)
    for caller in callers:
        assert await caller.read_rest() == b""
        caller.close()
    assert [(await ask(port, get())).status for _ in range(4)] == [401] * 4


async def test_a_canary_is_drawn_and_aborted_alike_everywhere(serinus, scripted):
    stable, next_ = await scripted(OK), await scripted(OK)
    config = config_for(stable.url, route="canary: trial").replace(
        "  - {prefix: /anthropic, pool: chat, canary: trial}\n", ""
    )
    config = config.replace("pools: {", "pools: {next: {members: [{upstream: up9}]}, ")
    config = config.replace("upstreams:\n", f"upstreams:\n  up9: {{base_url: '{next_.url}'}}\n")
    config += "canaries: {trial: {baseline: chat, canary: next, weight: 50, analysis: {method: none}}}\n"
    port = await serinus.begin(config)
    callers = await connected(port, 4)
    arms = [each.field(b"x-serinus-arm") for _ in range(50) for each in await called(callers)]
    assert 60 < arms.count(b"canary") < 140  # of 200 at 50 %: beyond it less than once in 10^7
    assert arms.count(b"canary") == len(next_.requests)
    assert (await serinus.change("POST", "/canaries/trial/abort", reason="enough"))[0] == 200
    next_.requests.clear()
    arms = [each.field(b"x-serinus-arm") for _ in range(5) for each in await called(callers)]
    assert (arms, next_.requests) == ([b"baseline"] * 20, [])
    for caller in callers:
        caller.close()


# --- ends and beginnings -------------------------------------------------------------------------------------------


async def test_only_a_dead_workers_own_requests_fail(serinus, scripted):
    held = Held()
    port = await serinus.begin(config_for((await scripted(held)).url))
    callers = await streaming(port, 4)
    os.kill(serinus.workers[0], signal.SIGKILL)
    assert (await serinus.meet())["worker"] == 0
    held.may_end.set()
    ends = [await rest_of(caller) for caller in callers]
    assert sorted(ends) == [b"", b"", Held.LAST, Held.LAST]
    assert (await ask(port, get())).status == 200
    for caller in callers:
        caller.close()


async def test_a_rolling_restart_breaks_nothing(serinus, scripted):
    held = Held()
    upstream = await scripted(held)
    port = await serinus.begin(config_for(upstream.url))
    before, above = dict(serinus.workers), serinus.number
    streams = await streaming(port, 4)
    serinus.send(signal.SIGUSR2)
    for _ in range(2):
        await serinus.meet()
    await serinus.until("serving")
    assert serinus.number == above
    assert not set(before.values()) & set(serinus.workers.values())
    upstream.script = OK
    assert [(await ask(port, get())).status for _ in range(4)] == [200] * 4
    held.may_end.set()
    for caller in streams:
        assert await caller.read_until(Held.LAST) == Held.LAST
        caller.close()

    async def old_ones_are_gone():
        return not any(map(is_alive, before.values()))

    await eventually(old_ones_are_gone)
    serinus.send(signal.SIGTERM)
    assert await serinus.ended() == 0


async def test_a_restart_that_would_fail_is_refused(serinus, scripted):
    port = await serinus.begin(config_for((await scripted(OK)).url))
    serinus.file.write_text("routes: [")
    serinus.send(signal.SIGUSR2)
    assert "not valid YAML" in (await serinus.until("restart_refused"))["reason"]
    assert (await ask(port, post())).status == 200
    assert all(map(is_alive, serinus.workers.values()))


async def test_who_is_ending_does_not_begin_anew(serinus, scripted):
    held = Held()
    port = await serinus.begin(config_for((await scripted(held)).url))
    (caller,) = await streaming(port, 1)
    serinus.send(signal.SIGTERM)
    await serinus.until("draining")
    serinus.send(signal.SIGUSR2)
    assert "ending" in (await serinus.until("restart_refused"))["reason"]
    held.may_end.set()
    assert await caller.read_rest() == Held.LAST
    caller.close()
    assert await serinus.ended() == 0


async def test_workers_end_when_the_process_above_is_gone(serinus, scripted):
    held = Held()
    port = await serinus.begin(config_for((await scripted(held)).url))
    (caller,) = await streaming(port, 1)
    serinus.send(signal.SIGKILL)
    held.may_end.set()
    assert await caller.read_rest() == Held.LAST
    caller.close()

    async def all_are_gone():
        return not any(map(is_alive, serinus.workers.values()))

    await eventually(all_are_gone)
    assert await serinus.ended() == -signal.SIGKILL


async def test_open_streams_end_whole_before_the_process_does(serinus, scripted):
    held = Held()
    port = await serinus.begin(config_for((await scripted(held)).url))
    callers = await streaming(port, 4)
    serinus.send(signal.SIGTERM)
    assert (await serinus.until("draining"))["open_requests"] == 4
    held.may_end.set()
    for caller in callers:
        assert await caller.read_rest() == Held.LAST
        caller.close()
    assert await serinus.ended() == 0
    assert json.loads(serinus.said[-1])["cut_requests"] == 0


async def test_drain_has_an_end(serinus, scripted):
    port = await serinus.begin("drain_timeout: 0s\n" + config_for((await scripted(Held())).url))
    (caller,) = await streaming(port, 1)
    serinus.send(signal.SIGTERM)
    assert await serinus.ended() == 0
    assert json.loads(serinus.said[-1])["cut_requests"] == 1
    assert await caller.read_rest() == b""
    caller.close()


async def test_a_second_signal_ends_it_at_once(serinus, scripted):
    port = await serinus.begin(config_for((await scripted(Held())).url))
    (caller,) = await streaming(port, 1)
    serinus.send(signal.SIGINT)
    await serinus.until("draining")
    serinus.send(signal.SIGINT)
    assert await serinus.ended() == 0
    assert await caller.read_rest() == b""
    caller.close()


async def test_each_worker_sends_its_own_traces_and_none_is_left_behind(serinus, scripted):
    upstream = await scripted(OK)
    async with collecting() as collector:
        port = await serinus.begin(config_for(upstream.url, top=f"tracing: {{endpoint: '{collector.url}'}}"))
        callers = await connected(port, 8)
        for caller in callers:
            await caller.send(post())
            assert (await caller.answer()).status == 200
            caller.writer.close()
        served_by = {await serinus.served_by() for _ in callers}
        assert len(served_by) == 2
        serinus.send(signal.SIGTERM)
        await serinus.until("stopped")
        assert len(collector.of_kind("server")) == len(collector.of_kind("client")) == 8
        assert len({span.parent_id for span in collector.of_kind("client")}) == 8
