"""A real Serinus with what a pod would have: it serves, and follows what the kubelet writes."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from proxy.simulation import Behaviour, SimulatedUpstream
from tests.chart.podlike import mount_config, mount_secret
from tests.chart.rendering import objects, parsed, template
from tests.support.process import SerinusProcess

SECRET = {"admin-token": "admin", "client-key": "client", "openai-key": "first"}


@pytest.fixture
async def serinus(tmp_path: Path) -> AsyncIterator[SerinusProcess]:
    process = SerinusProcess(tmp_path)
    yield process
    await process.kill()


@pytest.fixture
async def upstream() -> AsyncIterator[SimulatedUpstream]:
    async with SimulatedUpstream(Behaviour(tokens=5, api_key="first"), random.Random(1)) as running:
        yield running


async def streamed(port: int, prefix: str) -> list[str]:
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{port}{prefix}",
        api_key="client",
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
    ) as client:
        messages = [{"role": "user", "content": "Sing!"}]
        stream = await client.chat.completions.create(model="gpt-4.1", stream=True, messages=messages)
        return [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]


async def test_it_serves_and_follows_the_config_map_and_the_secret(
    serinus: SerinusProcess, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    first = objects("minimal")
    mount_secret(tmp_path, first, "llm", SECRET)
    file = mount_config(tmp_path, first, f"{upstream.url}/v1")
    await serinus.start("", "--config", str(file))
    port = await serinus.serving()
    assert len("".join(await streamed(port, "/v1"))) > 0

    changed = parsed(template("--set", "config.routes[0].prefix=/v2", "--set", "config.overlap.share=0%"))
    mount_config(tmp_path, changed, f"{upstream.url}/v1")
    assert (await serinus.until("config_applied"))["need_restart"] == []
    assert len("".join(await streamed(port, "/v2"))) > 0
    with pytest.raises(openai.NotFoundError):
        await streamed(port, "/v1")

    upstream.behaviour = Behaviour(tokens=5, api_key="second")
    mount_secret(tmp_path, changed, "llm", SECRET | {"openai-key": "second"})
    await serinus.until("key_rotated")
    assert len("".join(await streamed(port, "/v2"))) > 0


async def test_helm_test_finds_out_whether_it_serves(
    serinus: SerinusProcess, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    rendered = objects("minimal")
    mount_secret(tmp_path, rendered, "llm", SECRET)
    await serinus.start("", "--config", str(mount_config(tmp_path, rendered, f"{upstream.url}/v1")))
    port = await serinus.serving()
    (container,) = rendered["Pod", "llm-serinus-test"]["spec"]["containers"]
    script = container["args"][0].replace('"llm-serinus", 8080', f'"127.0.0.1", {port}')
    for expected in (0, 1):
        process = await asyncio.create_subprocess_exec(
            sys.executable, *container["command"][1:], script, stderr=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == expected
        await serinus.kill()


async def test_what_serinus_does_not_take_leaves_what_is_in_force(
    serinus: SerinusProcess, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    """The schema of the values knows names and forms; that a pool exists, only Serinus does."""
    mount_secret(tmp_path, objects("minimal"), "llm", SECRET)
    file = mount_config(tmp_path, objects("minimal"), f"{upstream.url}/v1")
    await serinus.start("", "--config", str(file))
    port = await serinus.serving()
    mount_config(tmp_path, parsed(template("--set", "config.routes[0].pool=chta")), f"{upstream.url}/v1")
    rejected = await serinus.until("config_rejected")
    assert "did you mean 'chat'?" in str(rejected)
    assert len("".join(await streamed(port, "/v1"))) > 0
