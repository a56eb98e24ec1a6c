"""Errors arrive as the SDK's own exceptions: the upstream's as without a proxy, ours as if the vendor had made them."""

import asyncio

import anthropic as anthropic_sdk
import httpx2
import openai as openai_sdk
import pytest

from tests.sdk.conftest import vendors_config
from tests.support.scripted import answering, answering_then_closing

MESSAGES = [{"role": "user", "content": "What do you hear?"}]
SDKS = {"openai": openai_sdk, "anthropic": anthropic_sdk}
PATHS = {"openai": "/v1", "anthropic": "/anthropic"}
GARBAGE = {
    "no http": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "nothing": b"",
}


def ask(vendor, client, model="simulated", **more):
    if vendor == "openai":
        return client.chat.completions.create(model=model, messages=MESSAGES, **more)
    return client.messages.create(model=model, messages=MESSAGES, max_tokens=9, **more)


async def caught_from(asking, error=Exception):
    with pytest.raises(error) as caught:
        await asking
    return caught.value


@pytest.fixture(params=["openai", "anthropic"])
def vendor(request):
    return request.param


@pytest.fixture
def through(connect, vendor):
    """Makes this vendor's client of a running proxy."""
    return lambda running, api_key="client-key", **options: connect(
        vendor, running.url + PATHS[vendor], api_key, **options
    )


@pytest.fixture
def error_of(vendor):
    return lambda name: getattr(SDKS[vendor], name)


# --- the upstream's own ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 429, 500, 502, 503, 529])
async def test_upstreams_error_is_the_same_with_and_without_us(vendor, connect, through, running, twin, status, stream):
    direct = connect(vendor, twin.url + ("/v1" if vendor == "openai" else ""), "upstream-key")
    ours, theirs = [
        await caught_from(ask(vendor, client, f"status-{status}", stream=stream))
        for client in (through(running), direct)
    ]
    assert type(ours) is type(theirs)
    assert (ours.status_code, ours.body, str(ours)) == (status, theirs.body, str(theirs))
    assert ours.request_id == theirs.request_id
    assert ours.response.headers.get("retry-after") == ("1" if status == 429 else None)


async def test_upstreams_refusal_of_our_key_is_no_fault_of_the_callers(vendor, through, running, upstream, error_of):
    error = await caught_from(ask(vendor, through(running), "status-401"), error_of("InternalServerError"))
    assert error.status_code == 502
    assert "did not accept the proxy's key" in str(error)


# --- the proxy's own ---------------------------------------------------------------------------------------------


async def test_wrong_key_is_an_authentication_error(vendor, through, running, upstream, error_of):
    error = await caught_from(ask(vendor, through(running, "wrong-key")), error_of("AuthenticationError"))
    assert error.type == "authentication_error"
    assert "Incorrect API key provided" in str(error)
    assert "wrong-key" not in str(error)
    assert upstream.requests == 0


async def test_model_outside_the_clients_list_is_denied(vendor, through, proxy, upstream, error_of):
    running = await proxy(vendors_config(upstream.url, client="models: ['gpt-*', simulated]"))
    await ask(vendor, through(running))
    error = await caught_from(ask(vendor, through(running), "claude-9"), error_of("PermissionDeniedError"))
    assert error.type == "permission_error"
    assert upstream.requests == 1


async def test_model_that_no_route_has_is_not_found(vendor, through, proxy, upstream, error_of):
    running = await proxy(vendors_config(upstream.url, route="model: 'gpt-*'"))
    error = await caught_from(ask(vendor, through(running), "claude-9"), error_of("NotFoundError"))
    assert "gpt-*" in str(error)
    if vendor == "openai":
        assert (error.code, error.param) == ("model_not_found", "model")


async def test_unknown_path_is_not_found(vendor, connect, running, error_of):
    client = connect(vendor, f"{running.url}/elsewhere")
    error = await caught_from(ask(vendor, client), error_of("NotFoundError"))
    assert "/anthropic, /v1" in str(error)
    assert error.type == ("invalid_request_error" if vendor == "openai" else "not_found_error")


async def test_body_that_hides_its_model_is_a_bad_request(vendor, through, proxy, upstream, error_of):
    running = await proxy(vendors_config(upstream.url, client="models: ['gpt-*']"))
    error = await caught_from(ask(vendor, through(running), 5), error_of("BadRequestError"))
    assert error.type == "invalid_request_error"
    assert upstream.requests == 0


async def test_body_beyond_the_limit_is_refused(vendor, through, proxy, upstream):
    running = await proxy(vendors_config(upstream.url, route="max_body: 1KiB"))
    error = await caught_from(ask(vendor, through(running), "m" * 2000))
    assert error.status_code == 413
    assert upstream.requests == 0


async def test_upstream_that_is_down_is_an_error_of_ours(vendor, through, running, upstream, error_of):
    await upstream.stop()
    error = await caught_from(ask(vendor, through(running)), error_of("InternalServerError"))
    assert (error.status_code, "No connection to upstream" in str(error)) == (503, True)
    assert error.type == "overloaded_error"


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
async def test_upstream_that_answers_garbage_is_an_error_of_ours(vendor, through, proxy, scripted, answer, error_of):
    upstream = await scripted(answering_then_closing(answer))
    running = await proxy(vendors_config(f"http://127.0.0.1:{upstream.port}"))
    error = await caught_from(ask(vendor, through(running)), error_of("InternalServerError"))
    assert error.status_code == 502
    assert "SSH" not in str(error)


async def test_upstream_that_is_silent_for_too_long_is_an_error_of_ours(vendor, through, running, upstream):
    async def wait_for_it():
        await upstream.until(lambda: upstream.inflight == 1)
        running.pass_time(601)
        await upstream.until(lambda: upstream.cancelled == 1)

    error, _ = await asyncio.gather(caught_from(ask(vendor, through(running), "hang")), wait_for_it())
    assert (error.status_code, error.type) == (504, "timeout_error")


async def test_caller_that_loses_patience_ends_the_request_upstream(vendor, through, running, upstream, error_of):
    client = through(running, timeout=httpx2.Timeout(30, read=0.2))
    await caught_from(ask(vendor, client, "hang"), error_of("APITimeoutError"))
    await upstream.until(lambda: upstream.cancelled == 1)
    await running.until(lambda: running.inflight() == 0)


async def test_proxy_that_is_full_says_so(vendor, through, proxy, upstream):
    running = await proxy(vendors_config(upstream.url, top="downstream: {max_connections: 1}"))
    first, second = through(running), through(running)
    await ask(vendor, first)
    error = await caught_from(ask(vendor, second))
    assert (error.status_code, error.response.headers["retry-after"]) == (503, "1")
    await ask(vendor, first)


async def test_unusual_answer_passes_as_it_is(vendor, through, proxy, scripted):
    upstream = await scripted(answering(b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 5\r\nX-Brew: tea\r\n\r\nshort"))
    running = await proxy(vendors_config(f"http://127.0.0.1:{upstream.port}"))
    error = await caught_from(ask(vendor, through(running)))
    assert (error.status_code, error.response.text, error.response.headers["x-brew"]) == (418, "short", "tea")
