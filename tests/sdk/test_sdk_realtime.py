"""Realtime sessions through the proxy: OpenAI's own client, and what a browser sends, which sets no header fields."""

import json

import pytest
from openai.types import realtime as types
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from tests.sdk.realtime import REFUSAL, WORDS, RealtimeUpstream
from tests.support.running import config_for

TARGET = "/v1/realtime?model=gpt-realtime"
BROWSERS = ["realtime", "openai-insecure-api-key.client-key", "openai-beta.realtime-v1"]


@pytest.fixture
async def upstream():
    async with RealtimeUpstream() as running:
        yield running


@pytest.fixture
async def running(proxy, upstream):
    return await proxy(config_for(upstream.url))


@pytest.fixture
def session(connect, running):
    """Opens a session with the SDK: `async with session() as connection`."""

    def open_session(api_key="client-key", **options):
        client = connect("openai", f"{running.url}/v1", api_key)
        options = {"max_size": None, "proxy": None, **options}
        return client.realtime.connect(model="gpt-realtime", websocket_connection_options=options)

    return open_session


@pytest.fixture
def browser(running):
    """Opens a session as a page would: the key is among the subprotocols."""

    def open_session(subprotocols=BROWSERS, **options):
        url = f"ws://127.0.0.1:{running.port}{TARGET}"
        return connect_websocket(url, subprotocols=subprotocols, origin="https://page.example", proxy=None, **options)

    return open_session


async def refusal_of(opening):
    """The answer that stands in for a session."""
    with pytest.raises(InvalidStatus) as caught:
        async with opening:
            pytest.fail("the session was opened")
    return caught.value.response


def message(text):
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


# --- sessions --------------------------------------------------------------------------------------------------------


async def test_events_pass_both_ways(session, upstream):
    async with session() as connection:
        created = await connection.recv()
        await connection.response.create(response={"instructions": "Say what you hear."})
        deltas = [await connection.recv() for _ in WORDS]
        done = await connection.recv()
    assert isinstance(created, types.SessionCreatedEvent)
    assert all(isinstance(delta, types.ResponseTextDeltaEvent) for delta in deltas)
    assert [delta.delta for delta in deltas] == list(WORDS)
    assert (type(done), done.response.status) == (types.ResponseDoneEvent, "completed")
    assert upstream.received == [{"type": "response.create", "response": {"instructions": "Say what you hear."}}]


async def test_upstream_sees_the_target_and_its_own_key(session, upstream):
    async with session() as connection:
        await connection.recv()
    request = upstream.requests[0]
    assert request.path == TARGET
    assert request.headers.get_all("Authorization") == ["Bearer upstream-key-0"]
    assert "client-key" not in str(request.headers)


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_large_event_passes_both_ways(session, compression):
    text = "What do you hear? " * 200_000
    async with session(compression=compression) as connection:
        await connection.recv()
        await connection.conversation.item.create(item=message(text))
        event = await connection.recv()
    assert isinstance(event, types.ConversationItemCreatedEvent)
    assert event.item.content[0].text == text


async def test_compression_is_agreed_end_to_end(browser, upstream):
    async with browser(compression="deflate") as websocket:
        await websocket.recv()
        agreed = [extension.name for extension in websocket.protocol.extensions]
        assert agreed == ["permessage-deflate"]
        assert agreed == [extension.name for extension in upstream.sessions[0].protocol.extensions]


async def test_sessions_are_apart(session, upstream):
    async with session() as first, session() as second:
        for connection, text in ((first, "one"), (second, "two")):
            await connection.recv()
            await connection.conversation.item.create(item=message(text))
        assert [(await connection.recv()).item.content[0].text for connection in (first, second)] == ["one", "two"]
    assert len(upstream.sessions) == 2


# --- how they end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(1001, ""), (1011, "internal error"), (4008, "session expirée")])
async def test_upstreams_close_reaches_the_client_unchanged(session, upstream, code, reason):
    async with session() as connection:
        await connection.recv()
        await upstream.sessions[0].close(code, reason)
        with pytest.raises(ConnectionClosed) as caught:
            await connection.recv()
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (code, reason)


async def test_session_that_ends_well_ends_the_iteration(session, upstream):
    async with session() as connection:
        await connection.recv()
        await upstream.sessions[0].close()
        assert [event async for event in connection] == []


async def test_clients_close_reaches_the_upstream_unchanged(session, upstream, running):
    async with session() as connection:
        await connection.recv()
        await connection.close(code=4001, reason="heard enough")
    await upstream.sessions[0].wait_closed()
    assert (upstream.sessions[0].close_code, upstream.sessions[0].close_reason) == (4001, "heard enough")
    await running.until(lambda: running.inflight() == 0)


async def test_client_that_leaves_ends_the_upstreams_connection(browser, upstream, running):
    async with browser() as websocket:
        await websocket.recv()
        websocket.transport.abort()
        await upstream.sessions[0].wait_closed()
    assert upstream.sessions[0].protocol.close_rcvd is None
    await running.until(lambda: running.inflight() == 0)


async def test_upstream_that_leaves_ends_the_clients_connection(session, upstream):
    async with session() as connection:
        await connection.recv()
        upstream.sessions[0].transport.abort()
        with pytest.raises(ConnectionClosedError) as caught:
            await connection.recv()
    assert caught.value.rcvd is None


# --- sessions that are refused ---------------------------------------------------------------------------------------


async def test_wrong_key_is_refused(session, upstream):
    answer = await refusal_of(session("wrong-key"))
    assert answer.status_code == 401
    assert json.loads(answer.body)["error"]["type"] == "authentication_error"
    assert b"wrong-key" not in answer.body
    assert upstream.requests == []


async def test_upstreams_refusal_reaches_the_client(session, upstream):
    upstream.refuses = True
    answer = await refusal_of(session())
    assert (answer.status_code, answer.headers["Content-Type"]) == (403, "application/json")
    assert json.loads(answer.body) == REFUSAL


# --- browsers --------------------------------------------------------------------------------------------------------


async def test_browser_is_known_by_the_key_among_its_subprotocols(browser, upstream, running):
    async with browser() as websocket:
        await websocket.recv()
    await running.until_logged()
    assert running.requests_logged[0]["client"] == "tester"
    assert upstream.requests[0].headers["Authorization"] == "Bearer upstream-key-0"


async def test_browsers_key_stays_here_and_its_subprotocol_is_agreed(browser, upstream):
    async with browser() as websocket:
        await websocket.recv()
        assert websocket.subprotocol == upstream.sessions[0].subprotocol == "realtime"
    headers = upstream.requests[0].headers
    offered = [item.strip() for field in headers.get_all("Sec-WebSocket-Protocol") for item in field.split(",")]
    assert offered == ["realtime", "openai-beta.realtime-v1"]
    assert "client-key" not in str(headers)
    assert headers["Origin"] == "https://page.example"


@pytest.mark.parametrize("key", [[], ["openai-insecure-api-key.wrong-key"]], ids=["none", "wrong"])
async def test_browser_without_a_good_key_is_refused(browser, upstream, key):
    answer = await refusal_of(browser(["realtime", *key]))
    assert answer.status_code == 401
    assert upstream.requests == []
