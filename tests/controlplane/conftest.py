import pytest

from tests.support.replicas import naming


@pytest.fixture
async def machines(scripted, name):
    """Starts upstreams of one port, by address with a script or `naming`; `localhost` then means these addresses."""

    async def start(scripts, *addresses):
        started, port = [], 0
        for address in addresses:
            started.append(await scripted(scripts.get(address, naming(address)), address, port))
            port = started[0].port
        name(*addresses)
        return started

    return start
