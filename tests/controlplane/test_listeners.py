"""Listeners that a reload opens, changes and closes. Who is being served is served to the end."""

import asyncio
import socket
import ssl

import pytest

from proxy.controlplane.reload import Applied, Rejected
from tests.support.authority import Authority
from tests.support.raw import CLIENT, RawCaller, ask, get
from tests.support.running import config_for
from tests.support.scripted import Held, answering, whole

ADMIN = "admin: {listen: 127.0.0.1:0}\n"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "serinus.yaml"


@pytest.fixture
async def start(proxy, file, scripted):
    """Starts a proxy; then `listen(addresses)` has it reload with others."""
    upstream = await scripted(answering(whole(b"{}")))

    def config(addresses, top="", **options):
        return f"listen: [{', '.join(addresses)}]\n{ADMIN}{top}" + config_for(upstream.url, **options)

    async def start(*addresses, url=None, **options):
        text = config(addresses, **options)
        running = await proxy(text if url is None else text.replace(upstream.url, url), path=file)

        async def listen(*addresses, **options):
            file.write_text(config(addresses, **options))
            return await running.serinus.reloader.reload()

        return running, listen

    return start


def ports(running):
    return [port for _, port in running.serinus.data_plane.addresses]


async def end(caller):
    """All that still comes, up to its end."""
    rest = await caller.read_rest()
    caller.close()
    return rest


async def is_open(port, host="127.0.0.1"):
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return False
    writer.write(get(b"/livez"))
    answered = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answered.startswith(b"HTTP/1.1 200")


@pytest.fixture
def taken():
    """A port that another has."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


async def test_new_listener_opens_beside_the_one_before(start):
    running, listen = await start("127.0.0.1:0")
    assert await listen("127.0.0.1:0", "127.0.0.2:0") == Applied(2, running.serinus.reloader.last.warnings, ())
    assert ports(running)[0] == running.port
    assert await is_open(running.port)
    assert await is_open(ports(running)[1], "127.0.0.2")
    assert running.events.named("listening")[0]["listen"] == running.serinus.data_plane.addresses


async def test_listener_that_goes_lets_streams_run_to_their_end(start, scripted):
    held = Held()
    running, listen = await start("127.0.0.1:0", url=(await scripted(held)).url)
    idle, streaming = await RawCaller.connect(running.port), await RawCaller.connect(running.port)
    await streaming.send(get())
    await streaming.read_until(Held.FIRST)
    await listen("127.0.0.2:0")
    assert await end(idle) == b""
    assert not await is_open(running.port)
    held.may_end.set()
    assert await end(streaming) == Held.LAST
    assert await is_open(ports(running)[0], "127.0.0.2")


async def test_answer_after_its_listener_is_gone_is_its_connections_last(start):
    running, listen = await start("127.0.0.1:0")
    caller = await RawCaller.connect(running.port)
    await caller.send(get()[:20])
    await running.until(lambda: running.serinus.data_plane.busy == 1)
    await listen("127.0.0.2:0")
    await caller.send(get()[20:])
    assert (await caller.answer()).payload == b"{}"
    assert await end(caller) == b""


async def test_address_that_cannot_be_had_rejects_all_of_it(start, taken, held_port):
    running, listen = await start("127.0.0.1:0")
    result = await listen(f"127.0.0.1:{held_port}", f"127.0.0.1:{taken}")
    assert isinstance(result, Rejected)
    said = f"listen: cannot listen on 127.0.0.1:{taken}: address already in use: end what serves there, or write"
    assert said in result.problems[0]
    assert ports(running) == [running.port]
    assert await is_open(running.port)
    assert not await is_open(held_port)
    assert isinstance(await listen(f"127.0.0.1:{held_port}"), Applied)
    assert await is_open(held_port)


async def test_nothing_is_opened_where_something_else_is_wrong(start, held_port, file):
    running, _ = await start("127.0.0.1:0")
    (file.parent / "ca").write_text("no authority")
    wrong = {"clients": False, "upstream": "tls: {ca: ca}"}
    file.write_text(
        f"listen: [127.0.0.1:{held_port}]\n{ADMIN}" + config_for("https://a.test/v1", **wrong).replace("up0", "new")
    )
    assert isinstance(await running.serinus.reloader.reload(), Rejected)
    assert not await is_open(held_port)
    assert await is_open(running.port)


async def test_address_may_take_the_place_of_one_that_it_contains(start, held_port):
    _, listen = await start(f"127.0.0.1:{held_port}")
    for address in (f"0.0.0.0:{held_port}", f"127.0.0.1:{held_port}"):
        assert isinstance(await listen(address), Applied)
        assert await is_open(held_port)


async def test_place_is_given_back_where_the_other_cannot_be_had(start, held_port, taken):
    _, listen = await start(f"127.0.0.1:{held_port}")
    result = await listen(f"0.0.0.0:{held_port}", f"127.0.0.1:{taken}")
    assert isinstance(result, Rejected)
    assert await is_open(held_port)
    assert isinstance(await listen(f"0.0.0.0:{held_port}"), Applied)


async def test_listener_may_begin_and_cease_to_speak_tls(start, tmp_path):
    cert, key = (authority := Authority(tmp_path)).issue("localhost", "127.0.0.1")
    running, listen = await start("127.0.0.1:0")
    plain = await RawCaller.connect(running.port)
    await listen(f"{{address: 127.0.0.1:0, tls: {{cert: '{cert}', key: '{key}'}}}}")
    assert await end(plain) == b""
    assert ports(running) == [running.port]
    caller = await RawCaller.connect(running.port, ssl=authority.trusting())
    await caller.send(get())
    assert (await caller.answer()).payload == b"{}"
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await ask(running.port, get())
    await listen("127.0.0.1:0")
    assert (await ask(running.port, get())).payload == b"{}"
    with pytest.raises(ssl.SSLError):
        await RawCaller.connect(running.port, ssl=authority.trusting())
    await end(caller)
    await running.until(lambda: not running.serinus.data_plane.callers.open)


async def test_certificate_of_a_new_listener_is_watched_and_told(start, tmp_path):
    cert, key = Authority(tmp_path).issue("localhost")
    running, listen = await start("127.0.0.1:0")
    await listen("127.0.0.1:0", f"{{address: 127.0.0.2:0, tls: {{cert: '{cert}', key: '{key}'}}}}")
    certificates = running.serinus.certificates
    assert certificates.files == {cert, key}
    assert set(certificates.status()) == {"127.0.0.2:0"}
    await listen("127.0.0.1:0")
    assert not certificates.files


async def test_listener_that_others_reach_is_not_opened_to_anyone(start):
    running, listen = await start("127.0.0.1:0", clients=False)
    result = await listen("127.0.0.1:0", "0.0.0.0:0", clients=False)
    assert isinstance(result, Rejected)
    assert "0.0.0.0:0 is reachable by others and no clients are listed" in result.problems[0]
    assert ports(running) == [running.port]


async def test_who_came_by_a_listener_that_others_reach_is_not_let_in_without_a_key(start):
    running, listen = await start("0.0.0.0:0")
    caller = await RawCaller.connect(running.port)
    await caller.send(get()[:20])
    await running.until(lambda: running.serinus.data_plane.busy == 1)
    assert (await ask(running.port, get().replace(CLIENT, b""))).status == 401
    assert isinstance(await listen("127.0.0.1:0", clients=False), Applied)
    assert await end(caller) == b""
    assert not await is_open(running.port)
    assert (await ask(ports(running)[0], get())).status == 200


async def test_nothing_is_opened_by_who_is_about_to_stop(start, held_port):
    running, listen = await start("127.0.0.1:0")
    running.serinus.data_plane.stop_listening()
    assert isinstance(await listen(f"127.0.0.1:{held_port}", "127.0.0.1:0"), Applied)
    assert ports(running) == []
    assert not await is_open(held_port)
