import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.support.running import RunningProxy, start_proxy
from tests.support.scripted import Script, ScriptedUpstream


def pytest_asyncio_loop_factories(config: pytest.Config) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that the proxy runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def scripted() -> AsyncIterator[Callable[[Script], "asyncio.Future[ScriptedUpstream]"]]:
    """Starts scripted upstreams: `upstream = await scripted(script)`."""
    started: list[ScriptedUpstream] = []

    async def start(script: Script) -> ScriptedUpstream:
        upstream = ScriptedUpstream(script)
        await upstream.start()
        started.append(upstream)
        return upstream

    yield start
    for upstream in started:
        await upstream.stop()


@pytest.fixture
def fast_lane() -> bool:
    """Whether the proxies of a test have their fast lane; where it matters, a test runs both ways."""
    return True


@pytest.fixture
async def proxy(
    fast_lane: bool, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., "asyncio.Future[RunningProxy]"]]:
    """Starts proxies: `running = await proxy(config_text)`. Each must end with no lease, task or exchange left."""
    started: list[RunningProxy] = []

    async def start(config: str, **options: object) -> RunningProxy:
        monkeypatch.chdir(tmp_path_factory.mktemp("state"))  # each has a state_dir of its own
        running = await start_proxy(config, fast_lane=fast_lane, **options)
        started.append(running)
        return running

    yield start
    for running in started:
        await running.stop()
        running.assert_nothing_left()
