"""A probe makes the call an application would, and says what came of it."""

import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from proxy.controlplane.load import parse
from proxy.controlplane.probe import Probed, probe_all
from proxy.simulation import Behaviour, SimulatedUpstream
from tests.support.scripted import answering_then_closing, whole

CONFIG = """
upstreams:
  simulated: {{base_url: '{url}', keys: [{{name: good, value: good-key}}, {{name: bad, value: bad-key}}]{more}}}
pools: {{chat: {{members: [{{upstream: simulated{member}}}]}}}}
routes: [{{prefix: /v1, pool: chat}}]
"""


@pytest.fixture
async def upstream() -> AsyncIterator[SimulatedUpstream]:
    async with SimulatedUpstream(Behaviour(api_key="good-key", tokens=3), random.Random(1)) as running:
        yield running


async def probed(url: str, *, member: str = "", more: str = "") -> list[Probed]:
    settings = parse(CONFIG.format(url=url, member=member, more=more), {}).settings
    return await probe_all(settings, lambda: 0.0)


async def test_each_key_is_tried_and_what_came_back_is_said(upstream):
    good, bad = await probed(f"{upstream.url}/v1")
    assert (good.upstream, good.key, good.ok, good.first_byte_s) == ("simulated", "good", True, 0.0)
    assert good.said.startswith("200 from ")
    assert good.said.endswith("it streams")
    assert (bad.key, bad.ok, bad.first_byte_s) == ("bad", False, None)
    assert bad.said.startswith("401 ")
    assert "bad-key" not in bad.said


async def test_the_configured_model_is_asked_for(upstream):
    good, _ = await probed(f"{upstream.url}/v1", member=", model: my-own")
    assert good.said == "200 from my-own: it streams"
    assert [seen.path_qs for seen in upstream.seen] == ["/v1/chat/completions"] * 2


async def test_an_anthropic_upstream_is_asked_in_its_own_words(upstream):
    good, _ = await probed(upstream.url, more=", auth: x-api-key")
    assert good.ok
    assert [seen.path_qs for seen in upstream.seen][:2] == ["/v1/models", "/v1/messages"]


async def test_an_upstream_that_refuses_says_why(upstream):
    good, _ = await probed(f"{upstream.url}/v1", member=", model: status-429")
    assert not good.ok
    assert good.said.startswith("429 from status-429: ")


async def test_an_upstream_without_a_list_wants_a_model(upstream):
    upstream.behaviour = replace(upstream.behaviour, models=())
    good, _ = await probed(f"{upstream.url}/v1")
    assert (good.ok, good.said) == (False, "it lists no model: name one with `model:` in a pool's member")


async def test_no_connection_is_said_in_the_systems_words(upstream):
    url = upstream.url
    await upstream.stop()
    for result in await probed(f"{url}/v1"):
        assert (result.ok, result.said) == (False, "no connection: connection refused")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (b'{"error":{"message":"no\xff"}}', "its body is no error that is known"),
        (b'{"error":' + 3000 * b"[", "its body is no error that is known"),
        (b'{"error":{"message":"no \\u001b[2Jmoney"}}', "no [2Jmoney"),
    ],
)
async def test_what_an_upstream_says_harms_nobody_who_reads_it(scripted, error, said):
    refusing = await scripted(answering_then_closing(whole(error, status=b"402 Payment Required")))
    good, _ = await probed(f"{refusing.url}/v1", member=", model: m")
    assert good.said == f"402 from m: {said}"
