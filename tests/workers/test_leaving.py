"""A worker that is told to end, alone, by somebody else than the process above."""

import asyncio
import os
import signal

import pytest

from tests.support.patience import PATIENCE_S
from tests.support.process import SerinusProcess
from tests.support.raw import ask, post
from tests.support.running import config_for
from tests.support.scripted import answering, whole

TWO = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nstate_dir: state\npre_drain: 1h\nworkers: 2\n"
ENOUGH = 6  # connections: were both handed some, the one that leaves would have half of them


@pytest.fixture
async def serinus(tmp_path):
    process = SerinusProcess(tmp_path)
    yield process
    await process.kill()


async def test_it_is_handed_no_more_connections(serinus, scripted):
    """With ever fewer of them it would be handed all that come, and cut what ran when its time is up."""
    upstream = await scripted(answering(whole(b"{}")))
    await serinus.start(TWO + config_for(upstream.url))
    pids = {}
    for _ in range(2):
        ready = await serinus.until("worker_ready")
        pids[ready["worker"]] = ready["pid"]
    port = await serinus.serving()
    os.kill(pids[0], signal.SIGTERM)
    served_by: list[int] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while served_by[-ENOUGH:] != [1] * ENOUGH:
                assert (await ask(port, post())).status == 200
                served_by.append((await serinus.until("request"))["worker"])
    finally:
        for pid in (serinus.number, *pids.values()):  # who is left alone takes its time
            os.kill(pid, signal.SIGKILL)
        await serinus.ended()
