import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.raw import RawCaller


@pytest.fixture(params=[True, False], ids=["fast lane", "aiohttp lane"])
def fast_lane(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(autouse=True)
async def no_caller_stays_open(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Whatever a test does, its callers leave in the end."""
    connect, opened = RawCaller.connect, []

    async def remembering(*args: object, **options: object) -> RawCaller:
        opened.append(caller := await connect(*args, **options))
        return caller

    monkeypatch.setattr(RawCaller, "connect", remembering)
    yield
    for caller in opened:
        caller.writer.transport.abort()
    await asyncio.sleep(0)
