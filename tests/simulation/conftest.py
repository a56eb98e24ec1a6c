import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from proxy.simulation import Behaviour, SimulatedUpstream


class Naps:
    """Sleeps that take no time and are remembered."""

    def __init__(self) -> None:
        self.taken_s: list[float] = []
        self.now_s = 0.0

    async def __call__(self, seconds: float) -> None:
        self.taken_s.append(seconds)
        self.now_s += seconds

    def clock(self) -> float:
        return self.now_s


@pytest.fixture
def naps() -> Naps:
    return Naps()


@pytest.fixture
async def upstream(naps: Naps) -> AsyncIterator[SimulatedUpstream]:
    behaviour = Behaviour(name="east", tokens=5)
    async with SimulatedUpstream(behaviour, random.Random(1), sleep=naps, clock=naps.clock) as running:
        yield running


@pytest.fixture
def behave(upstream: SimulatedUpstream) -> Callable[..., None]:
    def change(**changes: Any) -> None:
        upstream.behaviour = replace(upstream.behaviour, **changes)

    return change


@pytest.fixture
async def openai(upstream: SimulatedUpstream) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="sk-test", max_retries=0) as client:
        yield client


@pytest.fixture
async def anthropic(upstream: SimulatedUpstream) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=upstream.url, api_key="sk-ant-test", max_retries=0) as client:
        yield client


@pytest.fixture
def valid() -> Callable[[Any], Any]:
    """The SDKs take any JSON as it comes. This holds an answer against its type, as pydantic has it, and returns it."""

    def check(answer: Any) -> Any:
        type(answer).model_validate(answer.to_dict(mode="python"))
        return answer

    return check
