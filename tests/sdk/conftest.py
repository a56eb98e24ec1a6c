"""The vendors' own SDKs, through a proxy to a simulated upstream, and straight to its twin."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import anthropic as anthropic_sdk
import openai as openai_sdk
import pytest

from proxy.simulation import Behaviour, SimulatedUpstream
from tests.sdk.threaded import Threaded
from tests.support.running import IN_TURN_AND_ONCE, RunningProxy

BEHAVIOUR = Behaviour(name="east", tokens=5, models=("simulated", "mine/simulated"), api_key="upstream-key")
VENDORS: dict[str, tuple[Any, str]] = {"openai": (openai_sdk, "OpenAI"), "anthropic": (anthropic_sdk, "Anthropic")}
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # each client would read the system's authorities anew


async def never(_seconds: float) -> None:
    await asyncio.get_running_loop().create_future()


def vendors_config(url: str, *, client: str = "", upstream: str = "", route: str = "", top: str = "") -> str:
    """OpenAI's API at /v1, Anthropic's at /anthropic, both of them the simulated upstream at `url`."""
    keys = f"keys: [{{name: main, value: upstream-key}}], {upstream}"
    return f"""{top}
clients: [{{name: tester, key: client-key, {client}}}]
upstreams:
  openai: {{base_url: '{url}/v1', {keys}}}
  claude: {{base_url: '{url}', auth: x-api-key, {keys}}}
pools:
  chat: {{members: [{{upstream: openai}}], {IN_TURN_AND_ONCE}}}
  claude: {{members: [{{upstream: claude}}], {IN_TURN_AND_ONCE}}}
routes: [{{prefix: /v1, pool: chat, {route}}}, {{prefix: /anthropic, pool: claude, {route}}}]
"""


@pytest.fixture(params=[True, False], ids=["fast lane", "aiohttp lane"])
def fast_lane(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
async def upstream() -> AsyncIterator[SimulatedUpstream]:
    async with SimulatedUpstream(BEHAVIOUR, random.Random(1)) as running:
        yield running


@pytest.fixture
async def slow() -> AsyncIterator[SimulatedUpstream]:
    """An upstream that never comes to its second token."""
    behaviour = Behaviour(per_token_s=1.0, api_key="upstream-key")
    async with SimulatedUpstream(behaviour, random.Random(1), sleep=never) as running:
        yield running


@pytest.fixture
async def twin() -> AsyncIterator[SimulatedUpstream]:
    """An upstream that answers as the other one does, down to the ids."""
    async with SimulatedUpstream(BEHAVIOUR, random.Random(1)) as running:
        yield running


@pytest.fixture
def route() -> str:
    """More fields of both routes; a file of tests may have its own."""
    return ""


@pytest.fixture
async def running(upstream: SimulatedUpstream, proxy: Callable[..., Any], route: str) -> RunningProxy:
    return await proxy(vendors_config(upstream.url, route=route))


@pytest.fixture(params=["async", "sync"])
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def stack(proxy: object) -> AsyncIterator[AsyncExitStack]:
    """What is to be closed before the proxy is."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def connect(mode: str, stack: AsyncExitStack) -> Callable[..., Any]:
    """Makes clients: `connect("openai", base_url, api_key)`. None of them tries again by itself."""

    def connect(vendor: str, base_url: str, api_key: str = "client-key", **options: Any) -> Any:
        sdk, name = VENDORS[vendor]
        kind = "Async" if mode == "async" else ""
        transport = getattr(sdk, f"Default{kind}HttpxClient")(verify=_NO_TLS, trust_env=False)
        options = {"max_retries": 0, "timeout": 30, "http_client": transport, **options}
        client = getattr(sdk, f"{kind}{name}")(base_url=base_url, api_key=api_key, **options)
        if mode == "async":
            stack.push_async_callback(client.close)
            return client
        stack.callback(client.close)
        return Threaded(client)

    return connect


@pytest.fixture
def openai(connect: Callable[..., Any], running: RunningProxy) -> Any:
    return connect("openai", f"{running.url}/v1")


@pytest.fixture
def anthropic(connect: Callable[..., Any], running: RunningProxy) -> Any:
    return connect("anthropic", f"{running.url}/anthropic")
