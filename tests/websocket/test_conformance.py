"""A tunnel changes nothing that a WebSocket client sees: Autobahn's cases, without the proxy and through it."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.support.running import config_for
from tests.websocket.echo import echo_server

ROOT = Path(__file__).parents[2]
PATH = "/v1/realtime?model=gpt-realtime"
SECTIONS = {
    "framing": ["1.*", "2.*", "3.*", "4.*", "5.*", "10.*"],
    "utf-8": ["6.*"],
    "closing": ["7.*"],
    "large messages": ["9.*"],
    "compression": ["12.*"],
    "compression parameters": ["13.*"],
}


async def verdicts(address, sections):
    """What each case says of the server at this address."""
    command = (sys.executable, "-m", "tests.websocket.cases", f"ws://{address}{PATH}", *sections)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(45):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        pytest.fail(f"{address} left a case waiting")
    assert process.returncode == 0
    return json.loads(output)


def listed(cases):
    return "\n".join(f"case {case}: {said}" for case, said in cases.items())


@pytest.mark.parametrize("sections", SECTIONS.values(), ids=SECTIONS)
async def test_every_case_has_the_same_verdict_through_the_proxy(proxy, sections):
    async with echo_server() as server:
        running = await proxy(config_for(f"http://{server}/v1", clients=False))
        straight = await verdicts(server, sections)
        through = await verdicts(f"127.0.0.1:{running.port}", sections)
        await running.until(lambda: running.inflight() == 0)
    failed = {case: said for case, said in straight.items() if not said["passed"]}
    assert straight
    assert not failed, f"without the proxy:\n{listed(failed)}"
    changed = {case: said for case, said in through.items() if said != straight[case]}
    assert straight.keys() == through.keys()
    assert not changed, f"through the proxy:\n{listed(changed)}"
