"""Keys without quota cool down, keys that are not accepted rest, and others are used meanwhile."""

from collections import Counter

import pytest

from tests.support.lanes import the_connection
from tests.support.raw import Answer, RawCaller, ask, post
from tests.support.running import RunningProxy
from tests.support.scripted import Conversation, ScriptedUpstream, whole

PLAIN = b"Content-Type: application/json\r\n"


class Vendor:
    """Answers each key as `said` has it, or with 200; the body's model counts where the key alone does not."""

    def __init__(self, **said: bytes) -> None:
        self.said = said

    async def __call__(self, talk: Conversation) -> None:
        while True:
            request = await talk.request()
            key = used_by(request)
            model = request.body.partition(b'"model":"')[2].partition(b'"')[0].decode()
            await talk.send(self.said.get(f"{key}_{model}") or self.said.get(key) or whole(b"{}"))


def used_by(request) -> str:
    return request.field(b"authorization").removeprefix(b"Bearer key-").decode()


def slow(*fields: bytes) -> bytes:
    return whole(b"slow", status=b"429 Slow", fields=b"".join(field + b"\r\n" for field in fields))


LATER = slow(b"retry-after: 30")
BUSY = whole(b"busy", status=b"503 Busy")
UNKNOWN = whole(b"who?", status=b"401 Unknown")


def config(url: str, *keys: str, pool: str = "", member: str = "{upstream: up}", more: str = "") -> str:
    """`keys`: their names, and after a slash their accounts."""
    listed = []
    for key in keys:
        name, _, account = key.partition("/")
        listed.append(f"{{name: {name}, value: key-{name}{f', account: {account}' if account else ''}}}")
    return f"""
upstreams: {{up: {{base_url: '{url}', keys: [{", ".join(listed)}]{more}}}}}
pools: {{chat: {{members: [{member}], balance: smooth_rr, slow_start: 0s, {pool}}}}}
routes: [{{prefix: /v1, pool: chat}}]
"""


def of(model: str) -> bytes:
    return post(b'{"model":"%b"}' % model.encode(), fields=PLAIN)


async def asked(running: RunningProxy, upstream: ScriptedUpstream, count: int = 4, model: str = "m") -> Counter[str]:
    """Which keys the upstream sees in so many requests, all of which it answers."""
    before = len(upstream.requests)
    for _ in range(count):
        assert (await ask(running.port, of(model))).status == 200
    return Counter(map(used_by, upstream.requests[before:]))


def code(answer: Answer) -> tuple[int, bytes]:
    return answer.status, answer.payload.partition(b'"code":"')[2].partition(b'"')[0]


# --- no quota --------------------------------------------------------------------------------------------------------


async def test_refused_key_cools_while_another_is_used_and_comes_back(scripted, proxy):
    upstream = await scripted(vendor := Vendor(a=LATER))
    running = await proxy(config(upstream.url, "a", "b"))
    assert await asked(running, upstream) == {"a": 1, "b": 4}
    vendor.said.clear()
    running.pass_time(29)
    assert await asked(running, upstream) == {"b": 4}
    running.pass_time(2)
    assert await asked(running, upstream) == {"a": 2, "b": 2}
    assert upstream.connections == 1


async def test_key_cools_for_one_model_alone_and_goes_on_with_its_share_of_the_others(scripted, proxy):
    upstream = await scripted(Vendor(a_big=LATER))
    running = await proxy(config(upstream.url, "a", "b"))
    assert await asked(running, upstream, model="big") == {"a": 1, "b": 4}
    assert await asked(running, upstream, model="small") == {"a": 2, "b": 2}
    running.pass_time(31)  # nobody asks for the big one any more
    assert await asked(running, upstream, model="small") == {"a": 2, "b": 2}


async def test_member_whose_key_cools_for_one_model_keeps_its_share_of_the_others(scripted, proxy):
    upstream = await scripted(Vendor(a_big=LATER))
    member = "{upstream: up, key: a}, {upstream: up, key: b}"
    running = await proxy(config(upstream.url, "a", "b", member=member))
    assert await asked(running, upstream, model="big") == {"a": 1, "b": 4}
    assert await asked(running, upstream, model="small") == {"a": 2, "b": 2}


async def test_keys_of_one_account_cool_together(scripted, proxy):
    upstream = await scripted(Vendor(a=LATER))
    running = await proxy(config(upstream.url, "a/one", "b/one", "c/two"))
    assert await asked(running, upstream) == {"a": 1, "c": 4}


async def test_when_all_cool_the_caller_is_told_for_how_long(scripted, proxy):
    upstream = await scripted(Vendor(a=LATER, b=slow(b"retry-after: 20")))
    running = await proxy(config(upstream.url, "a", "b"))
    passed = await ask(running.port, of("m"))
    assert (passed.payload, passed.field(b"retry-after")) == (b"slow", b"20")  # the upstream's own last word
    running.pass_time(5)
    own = await ask(running.port, of("m"))
    assert (*code(own), own.field(b"retry-after")) == (429, b"rate_limit_exceeded", b"15")
    assert len(upstream.requests) == 2
    running.pass_time(10)
    assert (await ask(running.port, of("m"))).field(b"retry-after") == b"5"
    assert (await ask(running.port, of("other"))).payload == b"slow"


async def test_pinned_key_that_cools_is_told_of_though_another_is_free(scripted, proxy):
    upstream = await scripted(Vendor(a=LATER))
    running = await proxy(config(upstream.url, "a", "b", member="{upstream: up, key: a}"))
    assert (await ask(running.port, of("m"))).payload == b"slow"
    assert code(await ask(running.port, of("m"))) == (429, b"rate_limit_exceeded")
    assert Counter(map(used_by, upstream.requests)) == {"a": 1}


async def test_key_of_a_full_upstream_is_exchanged_in_its_place(scripted, proxy):
    upstream = await scripted(Vendor(a=LATER))
    running = await proxy(config(upstream.url, "a", "b", more=", max_connections: 1"))
    assert await asked(running, upstream, 1) == {"a": 1, "b": 1}


async def test_refusals_that_do_not_say_for_how_long_cool_for_a_while(scripted, proxy):
    upstream = await scripted(Vendor(a=slow()))
    running = await proxy(config(upstream.url, "a", "b"))
    assert (await ask(running.port, of("m"))).status == 200
    account = running.key("up", "a").account
    assert 0 <= account.cool_until_s["m"] - running.clock() <= 1
    running.pass_time(60)
    upstream.script.said.clear()
    for _ in range(2):
        await ask(running.port, of("m"))
    assert account.refusals == {}


async def test_longest_word_on_how_long_to_wait_counts(scripted, proxy):
    running = await proxy(config((await scripted(Vendor())).url, "a"))
    account, now_s = running.key("up", "a").account, running.clock()
    for wait_s in (10.0, 30.0, 1.0, None):
        account.refused("m", wait_s, now_s, lambda: 0.5)
    assert (account.is_cooling("m", now_s + 29), account.is_cooling("m", now_s + 31)) == (True, False)


async def test_upstream_that_is_busy_is_not_asked_with_its_other_key(scripted, proxy):
    busy, good = await scripted(Vendor(a=BUSY, b=BUSY)), await scripted(Vendor())
    both = config(
        busy.url, "a", "b", pool="retry: {attempts: 3}", member="{upstream: up, weight: 9}, {upstream: other}"
    )
    running = await proxy(
        both.replace("{up:", f"{{other: {{base_url: '{good.url}', keys: [{{name: c, value: key-c}}]}}, up:")
    )
    assert await asked(running, good, 1) == {"c": 1}
    assert len(busy.requests) == 1


# --- not accepted ----------------------------------------------------------------------------------------------------


async def test_key_that_is_not_accepted_rests_and_another_is_used(scripted, proxy):
    upstream = await scripted(Vendor(a=UNKNOWN))
    running = await proxy(config(upstream.url, "a", "b"))
    assert await asked(running, upstream) == {"a": 1, "b": 4}
    assert running.key("up", "a").resting == "401"
    running.key("up", "a").resting = ""  # says a check
    upstream.script.said.clear()
    assert await asked(running, upstream) == {"a": 2, "b": 2}


@pytest.mark.parametrize("keys", [["a"], ["a", "b"], ["a", "b", "c"]])
@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_refusal_of_our_keys_is_never_passed_on(keys, attempts, scripted, proxy):
    upstream = await scripted(Vendor(**dict.fromkeys(keys, UNKNOWN)))
    running = await proxy(config(upstream.url, *keys, pool=f"retry: {{attempts: {attempts}}}"))
    answer = await ask(running.port, of("m"))
    assert code(answer) == (502, b"upstream_credentials_exhausted")
    assert b"who?" not in answer.payload
    assert Counter(map(used_by, upstream.requests)) == dict.fromkeys(keys[:attempts], 1)
    (line,) = running.requests_logged
    assert len(line["tried"] or ()) == min(attempts, len(keys)) - 1
    assert running.serinus.registry.pools["chat"].members["up///1"].outlier.failures == 0


@pytest.mark.parametrize(
    ("keys", "member"), [("a", "{upstream: up}"), ("ab", "{upstream: up, key: a}")], ids=["alone", "pinned"]
)
async def test_one_caller_cannot_rest_the_only_key(keys, member, scripted, proxy):
    async def script(talk: Conversation) -> None:
        while True:
            wrong = (await talk.request()).field(b"openai-organization")
            await talk.send(UNKNOWN if wrong else whole(b"{}"))

    upstream = await scripted(script)
    running = await proxy(config(upstream.url, *keys, member=member))
    wrong = post(fields=b"OpenAI-Organization: not-ours\r\n")
    for _ in range(3):
        assert (await ask(running.port, wrong)).status == 502
        assert (await ask(running.port, of("m"))).status == 200


async def test_nobody_is_asked_while_all_keys_rest(scripted, proxy):
    upstream = await scripted(Vendor())
    running = await proxy(config(upstream.url, "a", "b"))
    for key in running.serinus.registry.upstreams["up"].keys.values():
        key.resting = "says a check"
    assert code(await ask(running.port, of("m"))) == (502, b"upstream_credentials_exhausted")
    assert upstream.requests == []


async def test_upload_is_not_sent_again_with_another_key(scripted, proxy):
    upstream = await scripted(Vendor(a=UNKNOWN, b=UNKNOWN))
    running = await proxy(
        config(upstream.url, "a", "b").replace("pool: chat}]", "pool: chat, buffer: 1KiB}]"),
    )
    assert code(await ask(running.port, post(b"x" * 2**22))) == (502, b"upstream_credentials_exhausted")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("field", [b"retry-after: 1", b"retry-after-ms: 900"])
async def test_only_key_is_waited_for_and_others_wait_no_turn(field, scripted, proxy):
    upstream = await scripted(vendor := Vendor(a=slow(field)))
    running = await proxy(config(upstream.url, "a"))
    caller = await RawCaller.connect(running.port)
    await caller.send(of("m"))
    await running.until(lambda: (exchange := the_connection(running).exchange) is not None and exchange._waiting)
    assert code(await ask(running.port, of("m"))) == (429, b"rate_limit_exceeded")
    vendor.said.clear()
    running.pass_time(1)
    assert (await caller.answer()).status == 200
