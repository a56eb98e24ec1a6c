import pytest


@pytest.fixture(params=[True, False], ids=["fast lane", "aiohttp lane"])
def fast_lane(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(autouse=True)
def no_caller_stays_open(callers_leave: None) -> None:
    """Whatever a test does, its callers leave in the end."""
