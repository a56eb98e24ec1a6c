"""The status page's files, and what it asks the admin API for: status that is followed, a canary's past."""

import asyncio
import json
import re
from itertools import pairwise

import aiohttp
import pytest

from proxy.controlplane import canary_history, status_feed
from proxy.policy.canary import CanaryEvent
from tests.controlplane.test_admin import TOKENS
from tests.dataplane.test_arms import asked, config
from tests.support.patience import PATIENCE_S
from tests.support.running import config_for
from tests.support.scripted import answering, whole

UP = "http://127.0.0.1:1/v1"
AS_EVENTS = {"accept": "text/event-stream"}
OPS = {"authorization": "Bearer ops-token"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Status comes more often than each second."""
    monkeypatch.setattr(status_feed, "EVERY_S", 0.01)


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE_S)) as session:
        yield session


async def events(answer):
    """Each as its name and what it says."""
    while block := await answer.content.readuntil(b"\n\n"):
        fields = dict(line.split(": ", 1) for line in block.decode().strip().splitlines())
        yield fields["event"], json.loads(fields["data"])


async def next_event(found, name):
    async for kind, content in found:
        if kind == name:
            return content
    pytest.fail(f"no {name} came")


# --- the files -------------------------------------------------------------------------------------------------------


async def test_the_page_needs_no_token_and_may_load_nothing_from_elsewhere(proxy, session):
    running = await proxy(TOKENS + config_for(UP))
    async with session.get(running.admin_url) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        policy = dict(each.strip().split(" ", 1) for each in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert {policy[kind] for kind in ("script-src", "style-src", "connect-src")} == {"'self'"}
        assert {policy[kind] for kind in ("frame-ancestors", "base-uri", "form-action")} == {"'none'"}
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        page = await answer.text()
    assert "http://" not in page
    assert "https://" not in page
    async with session.get(f"{running.admin_url}/status") as answer:
        assert answer.status == 401


async def test_each_file_that_the_page_names_is_there_with_its_type(proxy, session):
    running = await proxy(config_for(UP))
    left, seen = ["/"], set()
    while left:
        path = left.pop()
        seen.add(path)
        async with session.get(running.admin_url + path) as answer:
            assert answer.status == 200, path
            text = await answer.text()
            kinds = {"/": "text/html", "css": "text/css", ".js": "text/javascript", "svg": "image/svg+xml"}
            assert answer.content_type == kinds[path[-3:]]
        named = re.findall(r'(?:src|href)="(/page/[^"]+)"', text)
        named += [f"/page/{name}" for name in re.findall(r'from "\./([^"]+)"', text)]
        left += [name for name in named if name not in seen]
    assert {"/page/main.js", "/page/plot.js", "/page/page.css", "/page/icon.svg"} <= seen


async def test_a_file_that_the_browser_has_is_not_sent_again(proxy, session):
    running = await proxy(config_for(UP))
    async with session.get(f"{running.admin_url}/page/main.js") as answer:
        tag = answer.headers["etag"]
    async with session.get(f"{running.admin_url}/page/main.js", headers={"if-none-match": tag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
    async with session.get(f"{running.admin_url}/page/main.js", headers={"if-none-match": '"another"'}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", ["/page/none.js", "/page/", "/page/..%2fadmin.py", "/page/%2e%2e/admin.py"])
async def test_nothing_but_the_page_is_served_as_a_file(proxy, session, path):
    running = await proxy(config_for(UP))
    url = aiohttp.client.URL(running.admin_url + path, encoded=True)
    async with session.get(url) as answer:
        assert answer.status == 404


# --- status, followed ------------------------------------------------------------------------------------------------


async def test_status_is_followed_with_a_token_only(proxy, session):
    running = await proxy(TOKENS + config_for(UP))
    url = f"{running.admin_url}/status"
    async with session.get(url, headers=AS_EVENTS) as answer:
        assert answer.status == 401
    async with session.get(url, headers=AS_EVENTS | OPS) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        found = events(answer)
        seen = [await next_event(found, "status") for _ in range(3)]
    assert {status["generation"] for status in seen} == {1}


async def test_a_window_that_is_none_is_refused_before_anything_is_followed(proxy, session):
    running = await proxy(config_for(UP))
    async with session.get(f"{running.admin_url}/status?window=long", headers=AS_EVENTS) as answer:
        assert answer.status == 400
        assert "window" in (await answer.json())["error"]


async def test_followed_status_is_what_is_asked_for_once(proxy, session):
    running = await proxy(config_for(UP))
    async with session.get(f"{running.admin_url}/status?window=7s") as answer:
        once = await answer.json()
    async with session.get(f"{running.admin_url}/status?window=7s", headers=AS_EVENTS) as answer:
        assert await next_event(events(answer), "status") == once


async def test_many_who_look_on_cost_as_much_as_one(proxy, session, monkeypatch):
    running = await proxy(config_for(UP))
    feed, turns, asked_for = running.serinus.admin._feed, [], []
    status, canaries = feed._status, feed._canaries
    monkeypatch.setattr(feed, "_canaries", lambda: turns.append(1) or canaries())
    monkeypatch.setattr(feed, "_status", lambda window_s: asked_for.append(1) or status(window_s))
    answers = [await session.get(f"{running.admin_url}/status", headers=AS_EVENTS) for _ in range(8)]
    found = [events(answer) for answer in answers]
    for _ in range(3):
        for each in found:
            await next_event(each, "status")
    assert len(asked_for) <= len(turns)
    for answer in answers:
        answer.close()


async def test_nothing_is_worked_out_when_nobody_looks_any_more(proxy, session):
    running = await proxy(config_for(UP))
    feed = running.serinus.admin._feed
    for _ in range(2):  # and who comes later begins anew
        async with session.get(f"{running.admin_url}/status", headers=AS_EVENTS) as answer:
            await next_event(events(answer), "status")
            answer.close()
        async with asyncio.timeout(PATIENCE_S):
            while feed._tasks or feed._followers:  # noqa: ASYNC110 - it is its own state that is waited for
                await asyncio.sleep(0)


async def test_the_end_of_the_proxy_ends_what_follows_it(proxy, session):
    running = await proxy(config_for(UP))
    async with session.get(f"{running.admin_url}/status", headers=AS_EVENTS) as answer:
        await next_event(events(answer), "status")
        await running.serinus.admin.close()
        rest = await answer.content.read()
    assert rest == b"" or rest.endswith(b"\n\n")  # a proper end, in the middle of no event


# --- canaries --------------------------------------------------------------------------------------------------------


@pytest.fixture
def start(scripted, proxy):
    async def start(spec):
        old, new = await scripted(answering(whole(b"{}"))), await scripted(answering(whole(b"{}")))
        running = await proxy(config(old.url, new.url, spec))
        running.pass_time(5)
        return running

    return start


async def shown(session, running):
    async with session.get(f"{running.admin_url}/canaries/trial") as answer:
        return await answer.json()


LADDER = "steps: [{set_weight: 25}, {pause: {}}, {set_weight: 50}, {set_weight: 100}]"


async def test_a_canary_is_told_when_there_is_news_and_each_decision_once(start, session):
    running = await start(LADDER)
    async with session.get(f"{running.admin_url}/status", headers=AS_EVENTS) as answer:
        found = events(answer)
        assert (await next_event(found, "canary"))["weight"] == 25
        running.serinus.canaries.command("trial", "promote", "ops", reason="we know it")
        heard = []
        async for kind, content in found:
            heard.append((kind, content))
            if kind == "decision" and content["type"] == "canary.stepped":
                break
    (news,) = [content for kind, content in heard if kind == "canary"]
    assert news["weight"] == 50
    numbers = [content["number"] for kind, content in heard if kind == "decision"]
    assert numbers == sorted(set(numbers))


async def test_the_past_of_a_rollout_is_there_at_once(start, session):
    running = await start(LADDER)
    await asked(running, 8)
    running.pass_time(5)
    running.serinus.canaries.command("trial", "promote", "ops")
    running.pass_time(5)
    history = (await shown(session, running))["history"]
    assert [point["weight"] for point in history][-2:] == [50, 50]
    assert history[0]["weight"] == 25
    ages = [point["ago_s"] for point in history]
    assert ages == sorted(ages, reverse=True)
    assert {"evidence", "threshold", "proofs", "baseline_ms", "canary_ms"} <= history[-1].keys()


async def test_the_past_survives_a_reload_as_the_rollout_does_and_ends_with_it(scripted, proxy, session, tmp_path):
    old, new = await scripted(answering(whole(b"{}"))), await scripted(answering(whole(b"{}")))
    path = tmp_path / "serinus.yaml"
    running = await proxy(config(old.url, new.url, LADDER), path=path)
    running.pass_time(5)
    before = (await shown(session, running))["history"]
    path.write_text(path.read_text() + "\n# changed\n")
    await running.serinus.reloader.reload()
    assert (await shown(session, running))["history"][: len(before)] == before
    path.write_text(path.read_text().replace("set_weight: 25", "set_weight: 30"))
    await running.serinus.reloader.reload()
    assert (await shown(session, running))["history"] == []


def explained(weight):
    return {"weight": weight, "analysis": {"evidence": 1.0, "threshold": 400.0}}


def test_what_decided_is_in_the_past_at_the_weight_of_then():
    history = canary_history.History("one")
    history.add(0.0, explained(0.1))
    numbers = {"evidence": 512.0, "threshold": 400.0, "proofs": {"ttft": 3.0}}
    history.add(5.0, {"weight": 0.0, "analysis": {}}, [CanaryEvent("rolled_back", 5.0, "rolled back", numbers)])
    told = [(point["weight"], point["evidence"], point["proofs"]) for point in history.told(5.0)]
    assert told == [(10.0, 1.0, {}), (10.0, 512.0, {"ttft": 3.0}), (0.0, None, {})]


def test_where_means_are_compared_they_are_the_latencies_of_the_past():
    history = canary_history.History("one")
    means = {"means": {"baseline_mean_s": 0.25, "canary_mean_s": None}}
    history.add(0.0, {"weight": 0.5, "analysis": means})
    (point,) = history.told(1.0)
    assert (point["baseline_ms"], point["canary_ms"], point["evidence"]) == ((250.0, None), (None, None), None)


def test_a_past_of_any_length_is_kept_in_so_many_points_from_its_begin_to_now():
    history = canary_history.History("one")
    for at_s in range(20_000):
        history.add(float(at_s), explained(0.1))
        assert len(history._points) <= canary_history.MOST
    told = history.told(20_000.0)
    assert len(told) > canary_history.MOST / 3
    assert told[0]["ago_s"] > 19_000
    assert told[-1]["ago_s"] == 1.0
    gaps = [a["ago_s"] - b["ago_s"] for a, b in pairwise(told[:-1])]
    assert max(gaps) <= 2.5 * min(gap for gap in gaps if gap > 0)
