"""OpenAI's SDK and what its upstream keeps, with two upstreams that do not know each other's things."""

import random
from contextlib import AsyncExitStack

import pytest

from proxy.simulation import Behaviour, SimulatedUpstream
from proxy.state.makers import Makers

TIMES = 6  # an even number: each upstream has its turn, and a call that goes by turns goes wrong sooner or later
RESPONSE = {"model": "simulated", "input": "What do you hear?"}
MODELS = {"east": ("east-1", "org/both"), "west": ("west-1", "org/both")}


@pytest.fixture
async def upstreams():
    """By name."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(
                SimulatedUpstream(
                    Behaviour(name=name, tokens=3, models=models, api_key=f"{name}-key"), random.Random(1)
                )
            )
            for name, models in MODELS.items()
        }


def config(upstreams, routes="[{prefix: /v1, pool: both}]", client=""):
    lines = "\n".join(
        f"  {name}: {{base_url: '{upstream.url}/v1', keys: [{{name: main, value: {name}-key}}]}}"
        for name, upstream in upstreams.items()
    )
    return f"""
clients: [{{name: tester, key: client-key, {client}}}]
upstreams:
{lines}
pools:
  both: {{members: [{{upstream: east}}, {{upstream: west}}]}}
  east: {{members: [{{upstream: east}}]}}
  west: {{members: [{{upstream: west}}]}}
routes: {routes}
"""


@pytest.fixture
async def running(upstreams, proxy):
    return await proxy(config(upstreams))


async def whole_response(openai):
    return await openai.responses.create(**RESPONSE)


async def streamed_response(openai):
    async with openai.responses.stream(**RESPONSE) as stream:
        return await stream.get_final_response()


async def streamed_events(openai):
    created = None
    async for event in await openai.responses.create(**RESPONSE, stream=True):
        created = event.response if event.type == "response.created" else created
    return created


CREATES = {"whole": whole_response, "streamed": streamed_response, "events": streamed_events}


async def use_responses(openai, create):
    """Make some; then do to each what can be done to it, in an order that is not the one of their making."""
    made = [await create(openai) for _ in range(TIMES)]
    for one in reversed(made):
        assert (await openai.responses.retrieve(one.id)).id == one.id
        assert (await openai.responses.create(**RESPONSE, previous_response_id=one.id)).id != one.id
    for one in made:
        await openai.responses.delete(one.id)


async def use_files(openai):
    contents = [b"file %d\n" % number for number in range(TIMES)]
    made = [await openai.files.create(file=("a.txt", content), purpose="user_data") for content in contents]
    for one, content in reversed([*zip(made, contents, strict=True)]):
        assert (await openai.files.retrieve(one.id)).filename == "a.txt"
        assert (await openai.files.content(one.id)).content == content
    for one in made:
        assert (await openai.files.delete(one.id)).deleted


async def converse(openai):
    """A conversation of several turns beside others."""
    last = [await whole_response(openai) for _ in range(3)]
    for _ in range(TIMES):
        last = [await openai.responses.create(**RESPONSE, previous_response_id=one.id) for one in last]


@pytest.mark.parametrize("create", CREATES.values(), ids=CREATES)
async def test_responses_are_found_where_they_were_made(openai, upstreams, create):
    await use_responses(openai, create)
    assert all(upstream.requests > TIMES for upstream in upstreams.values())


async def test_files_are_found_where_they_were_made(openai, upstreams):
    await use_files(openai)
    assert all(upstream.requests > TIMES for upstream in upstreams.values())


async def test_conversations_go_on_where_they_began(openai, upstreams):
    await converse(openai)
    assert all(upstream.requests > TIMES for upstream in upstreams.values())


@pytest.mark.parametrize("use", [lambda openai: use_responses(openai, whole_response), use_files, converse])
async def test_they_would_not_be_without_a_memory(openai, use, monkeypatch):
    monkeypatch.setattr(Makers, "remember", lambda *_: None)
    with pytest.raises(Exception, match=r"[Nn]ot found|No such File"):
        await use(openai)


async def test_unknown_ids_are_unknown_to_the_sdk_too(openai):
    with pytest.raises(Exception, match="404"):
        await openai.responses.retrieve("resp_unknown")


# --- models -----------------------------------------------------------------------------------------------------------

BY_MODEL = "[{prefix: /v1, model: 'west-*', pool: west}, {prefix: /v1, pool: east}]"
LISTS = {
    "of all routes": (BY_MODEL, "", ["west-1", "east-1", "org/both"]),
    "of a client that is held": (BY_MODEL, "models: ['*-1']", ["west-1", "east-1"]),
    "of one route": ("[{prefix: /v1, pool: west}]", "", ["west-1", "org/both"]),
    "of one route and a client that is held": ("[{prefix: /v1, pool: west}]", "models: ['org/*']", ["org/both"]),
}


@pytest.mark.parametrize("case", LISTS)
async def test_models_that_are_listed_can_be_retrieved_and_used(case, upstreams, proxy, connect):
    routes, client, names = LISTS[case]
    running = await proxy(config(upstreams, routes, client))
    openai = connect("openai", f"{running.url}/v1")
    assert [model.id async for model in openai.models.list()] == names
    for name in names:
        assert (await openai.models.retrieve(name)).id == name
        assert (await openai.responses.create(model=name, input="Hello")).model == name


async def test_anthropics_sdk_reads_a_merged_list(upstreams, proxy, connect):
    running = await proxy(config(upstreams, BY_MODEL.replace("/v1", "/anthropic/v1")))
    anthropic = connect("anthropic", f"{running.url}/anthropic")
    models = [model async for model in anthropic.models.list(limit=1)]
    assert [model.id for model in models] == ["west-1", "east-1", "org/both"]
    assert {model.type for model in models} == {"model"}


async def test_model_that_is_not_for_this_client_is_refused(upstreams, proxy, connect):
    running = await proxy(config(upstreams, BY_MODEL, "models: ['west-*']"))
    openai = connect("openai", f"{running.url}/v1")
    for call in (openai.models.retrieve("east-1"), openai.responses.create(model="east-1", input="Hello")):
        with pytest.raises(Exception, match="403"):
            await call
    assert upstreams["east"].requests == 0
