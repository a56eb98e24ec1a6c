"""What is kept of canaries: written seldom, small, and when it cannot be read nothing is served."""

import json
import signal

import httpx2
import msgspec
import pytest

from proxy.controlplane.state_file import StateUnreadable
from proxy.model.outcome import Outcome
from proxy.policy.canary import Arm, Stratum
from tests.controlplane.test_admin_canaries import command
from tests.dataplane.test_arms import asked, config
from tests.support.process import SerinusProcess
from tests.support.scripted import answering, whole

UP = "http://127.0.0.1:1/v1"
LADDER = "steps: [{set_weight: 25}, {set_weight: 100}]"
MOST_BYTES = 2**20


@pytest.fixture
def state(tmp_path):
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture
def start(proxy, state):
    async def start(spec: str = LADDER, url: str = UP):
        return await proxy(config(url, url, spec, more=f"state_dir: {state}"))

    return start


def changed(state, change):
    file = state / "canaries.json"
    content = json.loads(file.read_text())
    change(content["state"]["rollouts"]["trial"])
    file.write_text(json.dumps(content))


async def kept(running) -> None:
    await running.until(lambda: not running.serinus.recorder._tasks)


# --- what cannot be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version":1,"name":"keys.json","state":{}}'])
async def test_a_file_that_cannot_be_read_refuses_the_start_and_says_what_to_do(start, state, content):
    (state / "canaries.json").write_bytes(content)
    with pytest.raises(StateUnreadable, match=r"canaries\.json .*put a good copy in its place and restart, or move it"):
        await start()
    assert (state / "canaries.json").read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        lambda rollout: rollout.update(version=99),
        lambda rollout: rollout.update(salt="no hex"),
        lambda rollout: rollout.pop("epoch"),
        lambda rollout: rollout["progress"].update(state="sleeping"),
        lambda rollout: rollout["progress"].update(judge=None),
        lambda rollout: rollout.update(progress=[]),
        lambda rollout: rollout.clear(),
    ],
    ids=["version", "salt", "epoch", "state", "judge", "progress", "all"],
)
async def test_a_rollout_that_cannot_be_taken_up_refuses_the_start(start, state, change):
    running = await start()
    running.pass_time(6)
    await running.stop()
    changed(state, change)
    before = (state / "canaries.json").read_bytes()
    with pytest.raises(StateUnreadable, match=r"what it holds of trial cannot be taken up .*: put a good copy in its"):
        await start()
    assert (state / "canaries.json").read_bytes() == before


async def test_a_canary_that_is_not_in_the_configuration_any_more_is_forgotten(start, state, proxy):
    running = await start()
    await running.stop()
    other = await proxy(config(UP, UP, LADDER, more=f"state_dir: {state}").replace("trial", "other"))
    await other.stop()
    content = json.loads((state / "canaries.json").read_text())
    assert list(content["state"]["rollouts"]) == ["other"]


async def test_a_kill_after_a_command_does_not_undo_it(tmp_path):
    process = SerinusProcess(tmp_path)
    text = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nstate_dir: state\n" + config(UP, UP, "weight: 20")

    async def serving() -> str:
        await process.start(text)
        return f"http://127.0.0.1:{(await process.until('serving'))['admin'][1]}"

    async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
        url = await serving()
        answer = await client.post(f"{url}/canaries/trial/abort", json={})
        assert (answer.status_code, answer.json()["not_kept"]) == (200, "")
        process.send(signal.SIGKILL)
        await process.ended()
        url = await serving()
        assert (await client.get(f"{url}/canaries/trial")).json()["state"] == "aborted"
    await process.kill()


# --- what is written -------------------------------------------------------------------------------------------------


async def test_it_is_written_once_a_look_and_not_at_all_between(start, scripted, monkeypatch):
    upstream = await scripted(answering(whole(b"{}")))
    running = await start(f"{LADDER}, analysis: {{interval: 10m}}", upstream.url)
    written = []
    save = running.serinus.recorder.canaries.save
    monkeypatch.setattr(running.serinus.recorder.canaries, "save", lambda kept: written.append(kept) or save(kept))
    for looks in range(1, 4):
        running.pass_time(601)
        await kept(running)
        assert len(written) == looks
        await asked(running, 20)
        for _ in range(5):
            running.serinus.data_plane.watch.look()
        await kept(running)
        assert len(written) == looks


async def test_what_is_over_is_kept_and_then_not_written_any_more(start, state, monkeypatch):
    running = await start()
    running.pass_time(6)
    await command(running, "promote", "trial", "--full", "--reason", "x")
    running.pass_time(6)
    await kept(running)
    content = json.loads((state / "canaries.json").read_text())
    assert content["state"]["rollouts"]["trial"]["progress"]["state"] == "succeeded"
    written = []
    monkeypatch.setattr(running.serinus.recorder.canaries, "save", written.append)
    for _ in range(3):
        running.pass_time(60)
    await kept(running)
    assert not written


async def test_it_stays_small_whatever_callers_ask_for(start):
    running = await start()
    running.pass_time(6)
    rollout, now_s = running.serinus.canaries.rollouts["trial"], running.clock()
    for n in range(60_000):
        stratum = Stratum((100, 900, 3000, 9000)[n % 4], n % 2 == 0, f"model-{n % 5000}")
        rollout.started(n, (Arm.BASELINE, Arm.CANARY)[n % 3 == 0], stratum, now_s)
        rollout.first_byte(n, now_s + 0.1 + n % 7)
        rollout.finished(n, Outcome.OK, now_s + 9, chunks=20)
        if n % 2000 == 0:
            now_s += 30
            rollout.tick(now_s)
    assert len(msgspec.json.encode(rollout.dump(now_s))) < MOST_BYTES
