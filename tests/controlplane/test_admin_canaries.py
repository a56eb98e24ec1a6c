"""Canaries by the admin API and by the command: shown, steered, audited; and the log of what was decided, followed."""

import asyncio
import json
import re

import httpx2
import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.controlplane import admin_canaries, audit, decisions
from proxy.controlplane.state_file import StateUnwritable
from proxy.policy.canary import State
from tests.dataplane.test_arms import asked, config
from tests.support.running import RunningProxy
from tests.support.scripted import answering, whole

STEPS = "steps: [{set_weight: 25}, {pause: {}}, {set_weight: 50}, {set_weight: 100}]"


@pytest.fixture
def start(scripted, proxy):
    async def start(spec: str = STEPS, **options: object) -> RunningProxy:
        old, new = await scripted(answering(whole(b"{}"))), await scripted(answering(whole(b"{}")))
        running = await proxy(config(old.url, new.url, spec, **options))
        running.pass_time(5)
        return running

    return start


def rollout(running: RunningProxy):
    return running.serinus.canaries.rollouts["trial"]


async def call(running: RunningProxy, method: str, path: str, body: object = None, **options: object):
    async with httpx2.AsyncClient(base_url=running.admin_url, trust_env=False, timeout=20) as client:
        return await client.request(method, path, json=body, **options)


async def command(running: RunningProxy, *arguments: str) -> Result:
    environ = {"SERINUS_ADMIN": running.admin_url, "COLUMNS": "120"}
    return await asyncio.to_thread(CliRunner().invoke, main, ["canary", *arguments], None, environ)


async def audited(running: RunningProxy) -> list[audit.Entry]:
    await running.until(lambda: not running.serinus.recorder._tasks)
    path = running.serinus.recorder.audit.path.absolute()
    assert audit.verify(path).first_broken is None
    return audit.read(path, 100)


# --- commands --------------------------------------------------------------------------------------------------------


async def test_an_operator_takes_it_through_its_steps(start):
    running = await start()
    seen = []
    for arguments in (
        ("promote", "trial"),
        ("pause", "trial", "--reason", "lunch"),
        ("resume", "trial"),
        ("weight", "trial", "60"),
        ("promote", "trial", "--full", "--reason", "we know it"),
    ):
        result = await command(running, *arguments)
        assert result.exit_code == 0, result.output
        seen.append(result.output.splitlines()[0].partition(";")[0])
    assert seen == [
        "trial stepped: from 25 % to 50 %",
        "trial paused: lunch",
        "trial resumed: by hand",
        "trial weight_set: from 50 % to 60 %",
        "trial promoted: by hand, in full: we know it",
    ]
    running.pass_time(5)
    assert rollout(running).state is State.SUCCEEDED
    assert await asked(running, 10) == {b"canary": 10}


async def test_each_command_is_audited_with_who_and_from_where_and_what_it_does_itself_too(start):
    running = await start(more="admin: {listen: 127.0.0.1:0, tokens: [{name: ops, value: t0ken}]}")
    bearer = {"authorization": "Bearer t0ken"}
    assert (await call(running, "POST", "/canaries/trial/abort", {})).status_code == 401
    answer = await call(running, "POST", "/canaries/trial/abort", {"reason": "too dear"}, headers=bearer)
    assert (answer.status_code, answer.json()) == (
        200,
        {"name": "trial", "state": "aborted", "weight": 0.0, "said": ["aborted: too dear"], "not_kept": ""},
    )
    began, aborted = await audited(running)
    assert (began.what, began.who, began.origin) == ("canary_began", "serinus", "")
    assert began.about == {"canary": "trial", "said": "began: from 0 % to 25 %; no warm-up"}
    assert (aborted.what, aborted.who, aborted.origin) == ("canary_abort", "ops", "127.0.0.1")
    assert aborted.about == {"canary": "trial", "said": "aborted: too dear", "reason": "too dear"}


async def test_what_cannot_be_kept_is_said(start, monkeypatch):
    running = await start()

    def save(kept: object) -> None:
        raise StateUnwritable("canaries.json cannot be written (no space left on device)")

    monkeypatch.setattr(running.serinus.recorder.canaries, "save", save)
    result = await command(running, "abort", "trial")
    assert (result.exit_code, "until the next restart only: canaries.json cannot be written" in result.output) == (
        1,
        True,
    )
    assert rollout(running).state is State.ABORTED


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/canaries/trail", None, 404, "no canary is called 'trail'; there are: trial"),
        ("POST", "/canaries/trail/abort", {}, 404, "there are: trial"),
        ("POST", "/canaries/trial/halt", {}, 404, "POST one of promote, abort, pause, resume, retry; or PUT weight"),
        ("POST", "/canaries/trial/weight", {"weight": 7}, 404, "PUT weight"),
        ("PUT", "/canaries/trial/weight", {}, 400, "send one JSON object with: weight, in percent, and reason"),
        ("PUT", "/canaries/trial/weight", {"weight": 101}, 400, "write percent above 0 and below 100"),
        ("PUT", "/canaries/trial/weight", {"weight": "7"}, 400, "weight, in percent"),
        ("POST", "/canaries/trial/abort", {"why": "x"}, 400, "send one JSON object with: reason"),
        ("POST", "/canaries/trial/abort", {"full": True}, 400, "full is for promote"),
        ("POST", "/canaries/trial/abort", {"reason": "a\nb"}, 400, "reason: write one line"),
        ("POST", "/canaries/trial/promote", {"full": True}, 400, "say why, with a reason"),
        (
            "POST",
            "/canaries/trial/retry",
            {},
            409,
            "it is progressing, no time for retry. Possible now: promote, abort",
        ),
        ("GET", "/events?last=x", None, 400, "last: write a number up to"),
    ],
)
async def test_what_makes_no_sense_is_told_and_changes_nothing(start, method, path, body, status, said):
    running = await start()
    answer = await call(running, method, path, body)
    assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text
    assert (rollout(running).state, rollout(running).weight) == (State.PROGRESSING, 0.25)


async def test_nothing_comes_after_the_last_weight(start):
    running = await start("weight: 30")
    answer = await call(running, "POST", "/canaries/trial/promote", {})
    assert (answer.status_code, "promote in full, or set a weight" in answer.json()["error"]) == (409, True)


# --- looking ---------------------------------------------------------------------------------------------------------


async def test_one_screen_says_why_it_has_its_weight(start):
    running = await start(f"{STEPS}, slo: {{error_rate: 0.02}}")
    await asked(running, 60)
    running.pass_time(30)
    shown = await command(running, "show", "trial")
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 120
    for words in (
        "trial · progressing", "next has 25 % of all requests beside chat", "by evidence",
        "steps: [25 %] → pause → 50 % → 100 %", "waits for: 30 s < 300 s", "canary samples < 50",
        "commands: promote, abort, pause, weight", "p50  p75  p90", "rolls back at", "errors", "broken SLO",
        "began: from 0 % to 25 %",
    ):  # fmt: skip
        assert words in shown.output, shown.output
    listed = (await command(running, "list")).output.splitlines()[2].split()
    assert listed[:4] == ["trial", "progressing", "25", "%"]
    assert json.loads((await command(running, "list", "--json")).output)["trial"]["state"] == "progressing"
    found = json.loads((await command(running, "show", "trial", "--json")).output)
    assert (found["weight"], found["arms"]["canary"]["failed"]) == (25, 0)


async def test_bands_and_fixed_shares_are_shown_too(start):
    running = await start("analysis: {method: bands, interval: 1m, bands: [{below: 1s, change: 10}]}")
    await asked(running, 30)
    running.pass_time(61)
    shown = (await command(running, "show", "trial")).output
    for words in ("by bands", "ttft over 5 min", "looks again in", "evaluated:"):
        assert words in shown, shown
    page = (await call(running, "GET", "/metrics")).text
    assert 'serinus_canary_rolling_latency_seconds{arm="canary",canary="trial"}' in page


async def test_a_fixed_share_is_shown(start):
    shown = (await command(await start("weight: 30"), "show", "trial")).output
    assert "nothing comes after this weight" in shown


async def test_after_the_promotion_the_change_to_make_is_printed(start):
    running = await start()
    await command(running, "promote", "trial", "--full", "--reason", "sure")
    running.pass_time(5)
    shown = (await command(running, "show", "trial")).output
    for line in ("-   - {prefix: /v1, pool: chat, canary: trial}", "+   - {prefix: /v1, pool: next}", "-   trial: …"):
        assert line in shown, shown


async def test_no_canaries_is_said(scripted, proxy):
    upstream = await scripted(answering(whole(b"{}")))
    text = config(upstream.url, upstream.url)
    running = await proxy("\n".join(line for line in text.splitlines() if not line.startswith("canaries:")))
    assert (await command(running, "list")).output == "The configuration has no canaries.\n"


async def test_status_and_metrics_have_it(start):
    running = await start()
    await asked(running, 40)
    running.pass_time(30)
    status = (await call(running, "GET", "/status")).json()["canaries"]["trial"]
    assert (status["state"], status["weight"], status["baseline"], status["canary"]) == (
        "progressing", 25, "chat", "next",
    )  # fmt: skip
    shown = await asyncio.to_thread(
        CliRunner().invoke, main, ["status"], None, {"SERINUS_ADMIN": running.admin_url, "COLUMNS": "120"}
    )
    assert re.search(r"^trial +progressing +25 %", shown.output, re.MULTILINE), shown.output
    await command(running, "abort", "trial")
    page = (await call(running, "GET", "/metrics")).text
    for line in (
        'serinus_canary_weight{canary="trial"} 0.0',
        'serinus_canary_state{canary="trial",state="aborted"} 1.0',
        'serinus_canary_transitions_total{canary="trial",to="began"} 1.0',
        'serinus_canary_transitions_total{canary="trial",to="aborted"} 1.0',
    ):
        assert line in page


async def test_evidence_of_each_family_is_a_metric(start):
    running = await start()
    page = (await call(running, "GET", "/metrics")).text
    assert 'serinus_canary_evidence{canary="trial",family="errors"} 1.0' in page


async def test_copies_of_a_shadow_are_counted_and_shown(start):
    running = await start("mode: shadow, weight: 50")
    await asked(running, 40)
    live = running.serinus.registry.canaries["trial"]
    await running.until(lambda: live.copies == 0)
    page = (await call(running, "GET", "/metrics")).text
    assert f'serinus_canary_copies_total{{canary="trial",result="sent"}} {live.copies_sent:.1f}' in page
    assert f"copies: {live.copies_sent} sent, 0 failed" in (await command(running, "show", "trial")).output


# --- the log of decisions --------------------------------------------------------------------------------------------


async def test_events_are_there_the_newest_last(start):
    running = await start()
    await call(running, "POST", "/canaries/trial/pause", {})
    found = (await call(running, "GET", "/events")).json()["events"]
    assert [(event["type"], event["who"], event["data"]["canary"]) for event in found] == [
        ("canary.began", "serinus", "trial"),
        ("canary.paused", "anyone", "trial"),
    ]
    assert (await call(running, "GET", "/events?last=1")).json()["events"] == found[-1:]
    assert (await call(running, "GET", "/events?last=0")).json()["events"] == []


class Stream:
    """Follows the log."""

    def __init__(self, lines) -> None:
        self._lines = lines

    async def event(self) -> dict[str, object]:
        async for line in self._lines:
            if line.startswith("data: "):
                return json.loads(line.removeprefix("data: "))
        raise EOFError

    async def comment(self) -> str:
        async for line in self._lines:
            if line.startswith(":"):
                return line
        raise EOFError


@pytest.fixture
async def follow():
    closing = []

    async def follow(running: RunningProxy, path: str = "/events", **fields: str) -> Stream:
        client = httpx2.AsyncClient(base_url=running.admin_url, trust_env=False, timeout=40)
        headers = {"accept": "text/event-stream"} | {name.replace("_", "-"): value for name, value in fields.items()}
        context = client.stream("GET", path, headers=headers)
        answer = await context.__aenter__()
        closing.append((context, client))
        assert answer.headers["content-type"] == "text/event-stream"
        return Stream(answer.aiter_lines())

    yield follow
    for context, client in closing:
        await context.__aexit__(None, None, None)
        await client.aclose()


async def test_events_are_followed_as_they_come(start, follow):
    running = await start()
    stream = await follow(running)
    assert (await stream.event())["type"] == "canary.began"
    for name in ("pause", "resume", "abort"):
        await call(running, "POST", f"/canaries/trial/{name}", {})
    assert [(await stream.event())["type"] for _ in range(3)] == ["canary.paused", "canary.resumed", "canary.aborted"]


async def test_who_comes_back_is_told_what_it_missed(start, follow):
    running = await start()
    for name in ("pause", "resume"):
        await call(running, "POST", f"/canaries/trial/{name}", {})
    stream = await follow(running, last_event_id="1")
    assert [(await stream.event())["number"] for _ in range(2)] == [2, 3]
    assert (await (await follow(running, last_event_id="999")).event())["number"] == 1  # of another process


async def test_a_silent_log_says_that_it_is_there(start, follow, monkeypatch):
    monkeypatch.setattr(admin_canaries, "KEEP_ALIVE_S", 0.001)
    stream = await follow(await start(), "/events?last=0")
    assert await stream.comment() == ": nothing yet"
    assert await stream.comment() == ": still here"


async def test_followers_are_let_go_when_it_stops(start, follow):
    running = await start()
    stream = await follow(running)
    await stream.event()
    await running.stop()
    with pytest.raises(EOFError):
        await stream.event()


def test_who_reads_too_slowly_is_let_go():
    log = decisions.Decisions(wall_clock=lambda: 0.0)
    with log.followed() as slow:
        for _ in range(decisions.QUEUED + 10):
            log.add("canary.paused", "ops", {})
        told = [slow._queue.get_nowait() for _ in range(slow._queue.qsize())]
    assert (len(told), told[-1]) == (decisions.QUEUED + 1, None)
    assert not log._followers


def test_the_log_has_an_end():
    log = decisions.Decisions(wall_clock=lambda: 0.0)
    for _ in range(decisions.KEPT + 10):
        log.add("canary.paused", "ops", {})
    assert (len(log.last(10**6)), log.last(1)[0].number) == (decisions.KEPT, decisions.KEPT + 10)
    assert log.last(1)[0].timestamp == "1970-01-01T00:00:00.000Z"
