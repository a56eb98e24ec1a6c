"""A rollout that is over, as its operator finds it a minute later: how old it is, and what it ended with."""

import json

from tests.controlplane.test_admin_canaries import call, command
from tests.dataplane.test_arms import asked, config
from tests.support.scripted import answering, whole


async def test_it_grows_older_and_still_shows_what_it_ended_with(scripted, proxy):
    old, new = await scripted(answering(whole(b"{}"))), await scripted(answering(whole(b"{}")))
    running = await proxy(config(old.url, new.url, "steps: [{set_weight: 25}, {set_weight: 100}]"))
    running.pass_time(5)
    arms = await asked(running, 40)
    running.pass_time(30)
    assert (await command(running, "abort", "trial")).exit_code == 0
    running.pass_time(60)
    await asked(running, 10)
    running.pass_time(60)
    shown = (await command(running, "show", "trial")).output
    assert "trial · aborted for 2 min" in shown
    assert "at its last weight" in shown
    found = json.loads((await command(running, "show", "trial", "--json")).output)
    assert [found["arms"][arm]["started"] for arm in ("baseline", "canary")] == [arms[b"baseline"], arms[b"canary"]]
    assert found["events"][-1]["ago_s"] == found["since_s"] >= 120
    status = (await call(running, "GET", "/status")).json()["canaries"]["trial"]
    listed = (await call(running, "GET", "/canaries")).json()["canaries"]["trial"]
    assert status["since_s"] >= 120
    assert listed["since_s"] >= status["since_s"]
