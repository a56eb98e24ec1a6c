"""A new configuration while requests run: in force whole, or not at all, and never under those that have begun."""

import asyncio

import httpx2
import pytest

from proxy.controlplane.reload import Applied, Rejected
from tests.support.raw import CLIENT, RawCaller, ask, get, post
from tests.support.running import config_for
from tests.support.scripted import Held, answering, whole

ADMIN = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\n"


def open_config(url):
    """A configuration without secrets, and so without warnings."""
    return config_for(url, keys=False, clients=False)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "serinus.yaml"


@pytest.fixture
def start(proxy, file):
    """Starts a proxy; then `reload(config)` writes another configuration to its file, and has it read."""

    async def start(config, environ=None):
        environ = environ if environ is not None else {}
        running = await proxy(ADMIN + config, path=file)
        running.serinus.reloader._environ = lambda: environ

        async def reload(config):
            file.write_text(ADMIN + config)
            return await running.serinus.reloader.reload()

        return running, reload

    return start


async def served_by(running, **request):
    """Which upstream answers."""
    answer = await ask(running.port, get(**request))
    return answer.status, answer.payload


async def named(scripted, name):
    return await scripted(answering(whole(name)))


# --- what is applied ---------------------------------------------------------------------------------------------


async def test_requests_from_now_on_go_by_the_new_configuration(start, scripted):
    old, new = await named(scripted, b"old"), await named(scripted, b"new")
    running, reload = await start(open_config(old.url))
    assert await served_by(running) == (200, b"old")
    assert await reload(open_config(new.url)) == Applied(2, (), ())
    assert await served_by(running) == (200, b"new")


async def test_everything_changes_at_once(start, scripted):
    upstream = await named(scripted, b"{}")
    running, reload = await start(config_for(upstream.url, route="model: 'gpt-*'"))
    assert (await ask(running.port, post(b'{"model":"claude"}'))).status == 404
    keys = "clients: [{name: other, key: other-key}]"
    await reload(config_for(upstream.url, clients=False, top=keys, upstream="headers: {x-new: '1'}"))
    assert (await ask(running.port, post(b'{"model":"claude"}'))).status == 401
    answer = await ask(running.port, post(b'{"model":"claude"}').replace(CLIENT, b"x-api-key: other-key\r\n"))
    assert answer.status == 200
    assert upstream.requests[-1].field(b"x-new") == b"1"


async def test_generation_counts_what_was_applied(start):
    running, reload = await start(config_for("http://127.0.0.1:1/v1"))
    metrics = running.serinus.metrics
    for _ in range(2):
        await reload(config_for("http://127.0.0.1:2/v1"))
    await reload("nonsense")
    assert (running.serinus.reloader.generation, metrics.generation) == (3, 3)
    assert metrics.reloads == {"applied": 2, "rejected": 1}


async def test_reloads_at_once_are_applied_one_after_the_other(start):
    running, _ = await start(config_for("http://127.0.0.1:1/v1"))
    results = await asyncio.gather(*(running.serinus.reloader.reload() for _ in range(5)))
    assert [result.generation for result in results] == [2, 3, 4, 5, 6]


async def test_callers_connections_stay(start, scripted):
    old, new = await named(scripted, b"old"), await named(scripted, b"new")
    running, reload = await start(config_for(old.url))
    caller = await RawCaller.connect(running.port)
    await caller.send(get())
    assert (await caller.answer()).payload == b"old"
    await reload(config_for(new.url))
    await caller.send(get())
    assert (await caller.answer()).payload == b"new"
    caller.close()


async def test_connections_to_upstreams_that_stay_are_kept(start, scripted):
    upstream = await named(scripted, b"{}")
    running, reload = await start(config_for(upstream.url))
    for _ in range(3):
        await served_by(running)
        await reload(config_for(upstream.url, upstream="timeouts: {first_byte: 1m}"))
    assert upstream.connections == 1


async def test_idle_connections_to_a_removed_upstream_close(start, scripted):
    old, new = await named(scripted, b"old"), await named(scripted, b"new")
    running, reload = await start(config_for(old.url))
    await served_by(running)
    assert old.open == 1
    await reload(config_for(new.url))
    await old.until(lambda: old.open == 0)


async def test_removed_upstream_is_forgotten_when_nothing_holds_it(start, scripted):
    old, new = await scripted(Held()), await named(scripted, b"new")
    running, reload = await start(config_for(old.url).replace("up0", "old"))
    caller = await begun(running)
    await reload(config_for(new.url).replace("up0", "new"))
    assert set(running.serinus.registry.upstreams) == {"old", "new"}
    caller.close()
    await running.until_logged()
    await reload(config_for(new.url).replace("up0", "new"))
    assert set(running.serinus.registry.upstreams) == {"new"}


# --- what has begun ----------------------------------------------------------------------------------------------


async def begun(running):
    """A caller in the middle of a stream."""
    caller = await RawCaller.connect(running.port)
    await caller.send(get())
    await caller.read_until(Held.FIRST)
    return caller


async def test_open_stream_ends_whole_on_its_old_upstream(start, scripted):
    held = Held()
    old, new = await scripted(held), await named(scripted, b"new")
    running, reload = await start(config_for(old.url))
    caller = await begun(running)
    await reload(config_for(new.url))
    assert await served_by(running) == (200, b"new")
    held.may_end.set()
    assert await caller.read_until(b"0\r\n\r\n") == Held.LAST
    await running.until_logged(2)
    assert [line["generation"] for line in running.requests_logged] == [2, 1]
    await old.until(lambda: old.open == 0)  # its connection was for the removed upstream: it is not kept
    await caller.send(get())
    assert (await caller.answer()).payload == b"new"
    caller.close()


async def test_upload_that_has_begun_keeps_its_limits_and_its_key(start, scripted):
    upstream = await named(scripted, b"{}")
    running, reload = await start(config_for(upstream.url, route="buffer: 1KiB"))
    caller = await RawCaller.connect(running.port)
    body = b"x" * 4000
    request = post(body, target=b"/v1/files")
    await caller.send(request[:-2000])
    await running.until(lambda: running.inflight() == 1)
    tight = config_for(upstream.url, route="max_body: 1KiB").replace("upstream-key-0", "upstream-key-1")
    assert isinstance(await reload(tight), Applied)
    await caller.send(request[-2000:])
    assert (await caller.answer()).status == 200
    assert upstream.requests[0].field(b"authorization") == b"Bearer upstream-key-0"
    await caller.send(request)
    assert (await caller.answer()).status == 413
    caller.close()


# --- what is rejected --------------------------------------------------------------------------------------------


async def test_old_configuration_serves_while_the_new_one_is_wrong(start, scripted):
    old = await named(scripted, b"old")
    running, reload = await start(config_for(old.url))
    result = await reload("upstreams: {up: {base_url: nonsense}}\npools: {}\nroutes: [{prefix: v1, pool: chat}]\n")
    assert isinstance(result, Rejected)
    assert result.generation == 1
    assert await served_by(running) == (200, b"old")
    assert running.events.named("config_rejected")[0]["generation_in_force"] == 1


@pytest.mark.parametrize(
    "config",
    ["", "[", "routes: 1", "\x00", "upstreams: {up: {base_url: 'https://a.test', tls: {ca: serinus.yaml}}}\n"],
)
async def test_whatever_the_file_holds_nothing_changes(start, scripted, config):
    old = await named(scripted, b"old")
    running, reload = await start(config_for(old.url))
    assert isinstance(await reload(config), Rejected)
    assert await served_by(running) == (200, b"old")
    assert set(running.serinus.registry.upstreams) == {"up0"}


async def test_authorities_that_are_none_reject_all_of_it(start, scripted, tmp_path):
    (tmp_path / "ca").write_text("no authority")
    old = await named(scripted, b"old")
    running, reload = await start(config_for(old.url))
    result = await reload(config_for("https://a.test/v1", upstream="tls: {ca: ca}").replace("up0", "new"))
    assert [problem.partition(": ")[2] for problem in result.problems] == [
        f"upstreams.new.tls.ca: {tmp_path / 'ca'} holds no PEM certificates of authorities"
    ]
    assert await served_by(running) == (200, b"old")
    assert set(running.serinus.registry.upstreams) == {"up0"}


async def test_file_that_is_gone_is_a_problem(start, file):
    running, _ = await start(config_for("http://127.0.0.1:1/v1"))
    file.unlink()
    result = await running.serinus.reloader.reload()
    assert result == Rejected(1, (f"{file}: no such file or directory",))


async def test_all_problems_are_answered_over_the_admin_api(start, file):
    running, _ = await start(config_for("http://127.0.0.1:1/v1"))
    wrong = ADMIN + "upstreams: {up: {base_url: nonsense}}\npools: {chat: {members: []}}\nroutes: [{prefix: v1}]\n"
    file.write_text(wrong)
    async with httpx2.AsyncClient(base_url=running.admin_url, trust_env=False) as client:
        answer = await client.post("/reload", json={})
    assert answer.status_code == 422
    told = answer.json()
    assert (told["result"], told["generation"]) == ("rejected", 1)
    places = [problem.split(": ")[1] for problem in told["problems"]]
    assert places == ["upstreams.up.base_url", "pools.chat.members", "routes[0]", "routes[0].prefix"]
    assert all(problem.startswith(f"{file}:") for problem in told["problems"])


# --- what callers are held to, and the log --------------------------------------------------------------------------


async def test_limits_of_callers_hold_from_now_on(start, scripted):
    upstream = await named(scripted, b"{}")
    running, reload = await start(open_config(upstream.url))
    waiting = await RawCaller.connect(running.port)
    await reload("downstream: {head_timeout: 1s, max_connections: 1}\n" + open_config(upstream.url))
    assert (await ask(running.port, get())).status == 503
    await waiting.send(get()[:10])
    await running.until(lambda: running.serinus.data_plane.busy == 1)
    running.pass_time(2)
    assert (await waiting.answer()).status == 408
    waiting.close()


async def test_drain_takes_as_long_as_the_configuration_in_force_says(start, scripted):
    held = await scripted(Held())
    running, reload = await start("pre_drain: 1h\n" + config_for(held.url))
    caller = await begun(running)
    await reload("pre_drain: 0s\ndrain_timeout: 0s\n" + config_for(held.url))
    await running.serinus.drain()
    assert running.serinus.data_plane.busy == 1
    caller.close()


@pytest.mark.parametrize("log", ["access: false", "level: warning"])
async def test_access_log_goes_off_and_on(start, scripted, log):
    upstream = await named(scripted, b"{}")
    running, reload = await start(open_config(upstream.url))
    for change, lines in (("", 1), (f"log: {{{log}}}\n", 1), ("", 2)):
        await reload(change + open_config(upstream.url))
        assert await served_by(running) == (200, b"{}")
        assert len(running.requests_logged) == lines


# --- what needs a restart ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ("listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:2}", "admin.listen"),
        ("listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0, tokens: [{name: a, value: env:A}]}", "admin.tokens"),
        (ADMIN + "state_dir: elsewhere", "state_dir"),
        (ADMIN + "log: {format: console}", "log.format"),
    ],
)
async def test_what_is_read_once_is_named(start, file, changed, named):
    config = open_config("http://127.0.0.1:1/v1")
    running, _ = await start(config, {"A": "token"})
    file.write_text(f"{changed}\n{config}")
    assert await running.serinus.reloader.reload() == Applied(2, (), (named,))
    assert running.events.named("config_applied")[0]["need_restart"] == (named,)


async def test_what_needs_a_restart_is_named_until_it_comes(start, scripted):
    upstream = await named(scripted, b"{}")
    running, reload = await start(open_config(upstream.url))
    for generation in (2, 3):
        result = await reload("state_dir: elsewhere\n" + open_config(upstream.url))
        assert result == Applied(generation, (), ("state_dir",))
    assert await served_by(running) == (200, b"{}")
    assert await reload(open_config(upstream.url)) == Applied(4, (), ())


# --- secrets -----------------------------------------------------------------------------------------------------


async def test_secrets_are_read_anew(start, scripted, tmp_path):
    upstream = await named(scripted, b"{}")
    secret, environ = tmp_path / "key", {"KEY": "from-env-0"}
    secret.touch(0o600)
    config = config_for(upstream.url).replace("value: upstream-key-0", "value: env:KEY}, {name: file, value: file:key")
    running, reload = await start(config_for(upstream.url), environ)
    for number in (1, 2):
        secret.write_text(f"from-file-{number}")
        environ["KEY"] = f"from-env-{number}"
        assert isinstance(await reload(config + "overlap: {share: 0%}\n"), Applied)
        await running.look()  # are they valid?
        upstream.requests.clear()
        await served_by(running)
        await served_by(running)
        seen = {request.field(b"authorization").decode() for request in upstream.requests}
        assert seen == {f"Bearer from-env-{number}", f"Bearer from-file-{number}"}


async def test_secret_that_cannot_be_read_any_more_keeps_the_old_one(start, scripted, tmp_path):
    upstream = await named(scripted, b"{}")
    environ = {"KEY": "from-env"}
    config = config_for(upstream.url).replace("value: upstream-key-0", "value: env:KEY")
    running, reload = await start(config_for(upstream.url), environ)
    await reload(config + "overlap: {share: 0%}\n")
    await running.look()
    upstream.requests.clear()
    del environ["KEY"]
    result = await reload(config)
    assert isinstance(result, Rejected)
    assert "KEY is not set" in result.problems[0]
    await served_by(running)
    assert upstream.requests[0].field(b"authorization") == b"Bearer from-env"
