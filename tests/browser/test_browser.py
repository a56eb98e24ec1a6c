"""A real browser as the caller: what a page may send, read and keep open through the proxy."""

import asyncio
import json
import random
from typing import Any

import pytest
import uvloop
from aiohttp.test_utils import TestServer

from proxy.simulation import Behaviour, SimulatedUpstream
from tests.browser.chromium import browse
from tests.browser.servers import LISTED, STRANGER, Pages, realtime
from tests.support.running import start_proxy

CONFIG = """
cors: {{origins: ["{origin}"]}}
clients: [{{name: tester, key: client-key}}]
upstreams:
  simulated: {{base_url: "{simulated}/v1", keys: [{{name: main, value: upstream-key}}]}}
  realtime: {{base_url: "{realtime}/v1/realtime", keys: [{{name: main, value: upstream-key}}]}}
pools: {{chat: {{members: [{{upstream: simulated}}]}}, realtime: {{members: [{{upstream: realtime}}]}}}}
routes: [{{prefix: /v1/realtime, pool: realtime}}, {{prefix: /v1, pool: chat}}]
"""
TOKENS = 5


@pytest.fixture(scope="module")
def findings() -> dict[str, dict[str, Any]]:
    """What the page found out at either origin."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(found())


async def found() -> dict[str, dict[str, Any]]:
    pages = Pages()
    behaviour = Behaviour(tokens=TOKENS, api_key="upstream-key")
    async with (
        TestServer(pages.app()) as site,
        TestServer(realtime()) as sockets,
        SimulatedUpstream(behaviour, random.Random(1)) as simulated,
    ):
        origin = f"http://{LISTED}:{site.port}"
        upstreams = {"simulated": simulated.url, "realtime": f"http://127.0.0.1:{sockets.port}"}
        proxy = await start_proxy(CONFIG.format(origin=origin, **upstreams))
        try:
            said = await browse(f"{origin}/page.html?{proxy.url}", pages.over)
        finally:
            await proxy.stop()
        if pages.over.cancelled():
            pytest.fail(f"the page did not come to its end: {pages.findings}\n{said[-2000:]}")
        proxy.assert_nothing_left()
    return pages.findings


@pytest.fixture
def listed(findings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return findings[LISTED]


@pytest.fixture
def stranger(findings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return findings[STRANGER]


def test_page_of_a_listed_origin_reads_an_answer_and_where_it_came_from(listed):
    answer = listed["completion"]
    assert (answer["status"], answer["upstream"]) == (200, "simulated")
    assert answer["requestId"]
    assert answer["body"]["choices"][0]["message"]["content"]


def test_page_of_a_listed_origin_reads_a_stream_to_its_end(listed):
    *chunks, done = listed["stream"]["text"].removesuffix("\n\n").split("\n\n")
    deltas = [json.loads(chunk.removeprefix("data: "))["choices"][0]["delta"] for chunk in chunks]
    assert sum(bool(delta.get("content")) for delta in deltas) == TOKENS
    assert done == "data: [DONE]"


@pytest.mark.parametrize("attempt", ["refusal", "refusalWithoutPreflight"])
def test_page_of_a_listed_origin_reads_why_the_proxy_refused(listed, attempt):
    answer = listed[attempt]
    assert (answer["status"], answer["body"]["error"]["code"]) == (401, "invalid_api_key")
    assert answer["requestId"]


def test_upstream_that_allows_another_origin_does_not_stand_in_the_way(listed):
    answer = listed["upstreamForAnotherOrigin"]
    assert (answer["status"], answer["upstream"]) == (200, "realtime")


@pytest.mark.parametrize(
    "attempt", ["completion", "stream", "refusal", "refusalWithoutPreflight", "upstreamForAnotherOrigin"]
)
def test_page_of_another_origin_reaches_the_proxy_and_reads_nothing(stranger, attempt):
    assert stranger["withoutReading"] == "opaque"
    assert stranger[attempt] == {"error": "TypeError"}


def test_page_speaks_websocket_until_the_upstream_says_why_it_ends(listed):
    ended = {"code": 4001, "reason": "session over", "wasClean": True}
    assert listed["socket"] == {"protocol": "realtime", "heard": ["hello"], **ended}
