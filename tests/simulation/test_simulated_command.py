import asyncio
import signal
import sys

import pytest
from click.testing import CliRunner
from openai import AsyncOpenAI

from proxy.simulation.__main__ import Duration, main


async def test_the_command_prints_its_base_url_and_serves_until_told_to_stop():
    arguments = ["--port", "0", "--tokens", "3", "--name", "west", "--ttft", "1ms", "--api-key", "sk-right"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy.simulation", *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    base_url = (await process.stdout.readline()).decode().strip().removeprefix("base_url=")
    async with AsyncOpenAI(base_url=base_url, api_key="sk-right", max_retries=0) as client:
        answer = await client.chat.completions.create(model="any", messages=[{"role": "user", "content": "Hi"}])
    process.send_signal(signal.SIGTERM)

    assert await process.wait() == 0
    assert answer.system_fingerprint == "fp_west"
    assert answer.usage.completion_tokens == 3
    assert answer.created > 1_700_000_000


@pytest.mark.parametrize(("text", "seconds"), [("200ms", 0.2), ("1.5s", 1.5), ("2m", 120), ("10us", 1e-5)])
def test_durations_have_units(text, seconds):
    assert Duration().convert(text, None, None) == pytest.approx(seconds)


def test_a_duration_without_a_unit_is_refused():
    result = CliRunner().invoke(main, ["--ttft", "200"])
    assert result.exit_code == 2
    assert "is not a duration" in result.output
