"""Whose key reaches the upstream: ours, the caller's own, and never the one that names a caller to us."""

import random
from dataclasses import replace

import anthropic as anthropic_sdk
import openai as openai_sdk
import pytest

from proxy.simulation import Behaviour, SimulatedUpstream
from tests.support.running import config_for

MESSAGES = [{"role": "user", "content": "What do you hear?"}]


def ask(vendor, client):
    if vendor == "openai":
        return client.chat.completions.create(model="simulated", messages=MESSAGES)
    return client.messages.create(model="simulated", messages=MESSAGES, max_tokens=9)


@pytest.fixture
async def upstream():
    async with SimulatedUpstream(Behaviour(api_key="sk-own"), random.Random(1)) as running:
        yield running


@pytest.fixture(params=["openai", "anthropic"])
def vendor(request):
    return request.param


@pytest.fixture
def base_of(vendor):
    return lambda server: server.url + ("/v1" if vendor == "openai" else "")


async def test_callers_own_key_passes_where_we_hold_none(proxy, upstream, connect, vendor, base_of):
    running = await proxy(config_for(f"{upstream.url}/v1", keys=False, clients=False))
    await ask(vendor, connect(vendor, base_of(running), "sk-own"))
    await ask(vendor, connect(vendor, base_of(upstream), "sk-own"))
    ours, theirs = ([seen.headers.get(name) for name in ("authorization", "x-api-key")] for seen in upstream.seen)
    assert ours == theirs


async def test_upstream_refuses_a_callers_own_key_in_its_own_words(proxy, upstream, connect, vendor, base_of):
    running = await proxy(config_for(f"{upstream.url}/v1", keys=False, clients=False))
    error = {"openai": openai_sdk, "anthropic": anthropic_sdk}[vendor].AuthenticationError
    with pytest.raises(error, match="Incorrect API key provided") as caught:
        await ask(vendor, connect(vendor, base_of(running), "sk-other"))
    assert "no client of this proxy" not in str(caught.value)
    assert upstream.requests == 1


async def test_a_client_may_bring_its_own_key_beside_ours(proxy, upstream, connect, vendor, base_of):
    running = await proxy(config_for(f"{upstream.url}/v1", keys=False))
    headers = {"x-serinus-key": "client-key"}
    await ask(vendor, connect(vendor, base_of(running), "sk-own", default_headers=headers))
    assert "client-key" not in str(upstream.last_headers)
    assert running.requests_logged[0]["client"] == "tester"


async def test_our_key_replaces_the_callers(proxy, upstream, connect, vendor, base_of):
    upstream.behaviour = replace(upstream.behaviour, api_key="upstream-key-0")
    running = await proxy(config_for(f"{upstream.url}/v1"))
    await ask(vendor, connect(vendor, base_of(running)))
    assert "client-key" not in str(upstream.last_headers)
    assert upstream.last_headers["authorization"] == "Bearer upstream-key-0"
