"""What comes of a LiteLLM configuration serves the callers that LiteLLM had: real sockets, the vendors' SDKs."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import anthropic
import openai
import pytest

from proxy.importing.litellm import convert
from proxy.simulation import Behaviour, SimulatedUpstream
from tests.support.running import RunningProxy

CONFIG = """\
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o-2024, api_base: "{east}/v1", api_key: os.environ/EAST_KEY, weight: 3}}
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o-west, api_base: "{west}/v1", api_key: sk-west, weight: 1}}
  - model_name: fragile
    litellm_params: {{model: openai/any, api_base: "{failing}/v1", api_key: os.environ/EAST_KEY}}
  - model_name: claude
    litellm_params: {{model: anthropic/claude-haiku-4-5, api_base: "{west}", api_key: sk-west}}
router_settings:
  routing_strategy: simple-shuffle
  fallbacks: [{{fragile: [gpt-4o]}}]
  model_group_alias: {{gpt-4: gpt-4o}}
general_settings: {{master_key: os.environ/LITELLM_MASTER_KEY}}
"""
ENVIRON = {"EAST_KEY": "sk-east", "UPSTREAM_API_KEY": "sk-west"}
ENVIRON["LITELLM_MASTER_KEY"] = "sk-1234"
MESSAGES = [{"role": "user", "content": "Sing!"}]


@pytest.fixture
async def running(proxy: Callable[..., Awaitable[RunningProxy]]) -> AsyncIterator[RunningProxy]:
    async with AsyncExitStack() as stack:
        dice = random.Random(1)
        behaviours = {
            "east": Behaviour(name="east", tokens=3, models=("gpt-4o-2024",), strict_models=True, api_key="sk-east"),
            "west": Behaviour(
                name="west", tokens=3, models=("gpt-4o-west", "claude-haiku-4-5"), strict_models=True, api_key="sk-west"
            ),
            "failing": Behaviour(name="failing", error_rate=1.0, error_status=503),
        }
        urls = {
            name: (await stack.enter_async_context(SimulatedUpstream(behaviour, dice))).url
            for name, behaviour in behaviours.items()
        }
        imported = convert(CONFIG.format(**urls), "config.yaml", ENVIRON)
        yield await proxy(f"listen: 127.0.0.1:0\n{imported.text}", environ=ENVIRON)


@pytest.fixture
async def client(running: RunningProxy) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="sk-1234", max_retries=0) as client:
        yield client


async def test_deployments_share_by_weight_and_each_gets_its_own_model_and_key(
    client: openai.AsyncOpenAI,
) -> None:
    served = []
    for _ in range(8):
        raw = await client.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES)
        served.append(raw.headers["x-simulated-upstream"])
    assert (served.count("east"), served.count("west")) == (6, 2)


async def test_alias_streams(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="gpt-4", messages=MESSAGES, stream=True)
    assert len([chunk async for chunk in stream if chunk.choices and chunk.choices[0].delta.content]) == 3


async def test_fallback_is_asked_for_its_own_model(client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="fragile", messages=MESSAGES)
    assert raw.headers["x-simulated-upstream"] in ("east", "west")


async def test_claude_is_served_in_anthropics_own_words(running: RunningProxy) -> None:
    async with anthropic.AsyncAnthropic(base_url=running.url, api_key="sk-1234", max_retries=0) as client:
        answer = await client.messages.create(model="claude", max_tokens=8, messages=MESSAGES)
    assert answer.model == "claude-haiku-4-5"


async def test_who_lacks_the_master_key_is_refused(running: RunningProxy) -> None:
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="sk-other", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
