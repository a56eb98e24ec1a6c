"""Webhooks: who is told of what, signed how, again when, and what is said of those who cannot be told."""

import asyncio
import hmac
import json
from base64 import b64decode, b64encode
from hashlib import sha256

import pytest

from proxy.controlplane import webhooks
from proxy.controlplane.webhooks import AGAIN_S, Hook, signature
from tests.controlplane.test_admin_canaries import call, command
from tests.dataplane.test_arms import config
from tests.support.running import RunningProxy
from tests.support.scripted import Conversation, Received, answering, whole

KEY = bytes(range(32))
SECRET = f"whsec_{b64encode(KEY).decode()}"


class Receiver:
    """Answers with these statuses in turn, then with the last of them."""

    def __init__(self, *statuses: bytes) -> None:
        self.statuses = list(statuses)

    async def __call__(self, talk: Conversation) -> None:
        while True:
            await talk.request()
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            await talk.send(whole(b"", status=status))


@pytest.fixture
def start(scripted, proxy):
    async def start(*statuses: bytes, hook: str = "", path: str = "/hook/t0ken?q"):
        upstream = await scripted(answering(whole(b"{}")))
        receiver = await scripted(Receiver(*statuses or (b"200 OK",)))
        url = receiver.url.replace("/v1", path)
        spec = f"weight: 25, webhooks: [{{url: '{url}'{hook}}}]"
        return await proxy(config(upstream.url, upstream.url, spec)), receiver

    return start


def hook(running: RunningProxy) -> Hook:
    (found,) = running.serinus.webhooks._hooks.values()
    return found


async def tried(running: RunningProxy) -> None:
    """Let what is due be sent, and wait for what comes of it."""
    running.pass_time(0.2)
    await running.until(lambda: hook(running).sending is None and not running.serinus.webhooks._tasks)


def read(received: Received) -> dict[str, object]:
    return json.loads(received.body)


async def test_a_message_is_as_standard_webhooks_has_it(start):
    running, receiver = await start(hook=f", secret: {SECRET}")
    running.pass_time(6)
    await tried(running)
    (received,) = receiver.requests
    assert received.line == b"POST /hook/t0ken?q HTTP/1.1"
    assert received.field(b"content-type") == b"application/json"
    content = read(received)
    assert (content["type"], content["data"]["canary"]) == ("canary.began", "trial")
    assert content["data"]["text"] == "began: from 0 % to 25 %; no warm-up"
    assert content["data"]["numbers"] == {"weight": 25.0}
    assert content["timestamp"].endswith("Z")
    number, moment = received.field(b"webhook-id"), received.field(b"webhook-timestamp")
    assert number.startswith(b"msg_")
    assert abs(int(moment) - running.clock.wall()) < 60
    expected = hmac.new(KEY, b"%b.%b.%b" % (number, moment, received.body), sha256).digest()
    version, _, signed = received.field(b"webhook-signature").partition(b",")
    assert (version, b64decode(signed)) == (b"v1", expected)
    assert hook(running).status().delivered == 1


def test_the_signature_is_that_of_the_specification():
    # The example of https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    key = b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


async def test_without_a_secret_nothing_is_signed(start):
    running, receiver = await start()
    running.pass_time(6)
    await tried(running)
    assert receiver.requests[0].field(b"webhook-signature") is None


async def test_only_what_was_asked_for_is_told(start):
    running, receiver = await start(hook=", events: [paused, aborted]")
    running.pass_time(6)
    for what in ("pause", "resume", "abort"):
        await call(running, "POST", f"/canaries/trial/{what}", {})
        await tried(running)
    assert [read(received)["type"] for received in receiver.requests] == ["canary.paused", "canary.aborted"]


async def test_what_fails_is_tried_again_later_and_later_and_given_up_in_the_end(start):
    running, receiver = await start(b"500 Oh")
    running.pass_time(6)
    await tried(running)
    for tries, again_s in enumerate(AGAIN_S, 1):
        assert len(receiver.requests) == tries
        running.pass_time(again_s - 1)
        await tried(running)
        assert len(receiver.requests) == tries
        running.pass_time(1)
        await tried(running)
    assert len(receiver.requests) == len(AGAIN_S) + 1
    assert len({received.field(b"webhook-id") for received in receiver.requests}) == 1
    assert len({received.body for received in receiver.requests}) == 1
    running.pass_time(3600)
    await tried(running)
    assert len(receiver.requests) == len(AGAIN_S) + 1
    status = hook(running).status()
    assert (status.delivered, status.given_up, status.waiting, status.last) == (0, 1, 0, "status 500")
    assert len(running.events.named("webhook_failed")) == len(AGAIN_S)
    (given_up,) = running.events.named("webhook_given_up")
    assert (given_up["canary"], given_up["tries"], given_up["said"]) == ("trial", 6, "status 500")
    (shown,) = (await call(running, "GET", "/canaries/trial")).json()["webhooks"]
    assert (shown["given_up"], shown["last"]) == (1, "status 500")
    assert "0 delivered, 0 waiting, 1 given up; last: status 500" in (await command(running, "show", "trial")).output


async def test_it_is_told_once_the_receiver_is_back(start):
    running, receiver = await start(b"503 Busy", b"302 Found", b"204 No Content")
    running.pass_time(6)
    await tried(running)
    for again_s in AGAIN_S[:2]:
        running.pass_time(again_s)
        await tried(running)
    assert (len(receiver.requests), hook(running).status().delivered) == (3, 1)


async def test_one_that_waits_does_not_hold_up_the_next(start):
    running, receiver = await start(b"500 Oh", b"200 OK")
    running.pass_time(6)
    await tried(running)
    await call(running, "POST", "/canaries/trial/pause", {})
    await tried(running)
    assert [read(received)["type"] for received in receiver.requests] == ["canary.began", "canary.paused"]
    assert (hook(running).delivered, len(hook(running).waiting)) == (1, 1)


async def test_a_receiver_that_is_gone_is_not_called_any_more(start):
    running, receiver = await start(b"410 Gone")
    running.pass_time(6)
    await tried(running)
    await call(running, "POST", "/canaries/trial/pause", {})
    await tried(running)
    assert len(receiver.requests) == 1
    assert (hook(running).status().gone, hook(running).status().waiting) == (True, 0)
    assert running.events.named("webhook_gone")
    assert "is gone (410)" in (await command(running, "show", "trial")).output


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (b"zebra\r\n\r\n", "no valid answer"),
        (b"", "Server disconnected"),
    ],
)
async def test_what_is_no_answer_is_a_failure_and_shows_no_url(start, script, said):
    async def breaking(talk: Conversation) -> None:
        await talk.request()
        await talk.send(script)
        talk.close()

    running, receiver = await start()
    receiver.script = breaking
    running.pass_time(6)
    await tried(running)
    assert hook(running).last == said
    assert "t0ken" not in str(running.events)


async def test_nobody_there_is_a_failure(start):
    running, receiver = await start()
    await receiver.stop()
    running.pass_time(6)
    await tried(running)
    assert hook(running).last == "connection refused"


async def test_a_receiver_that_does_not_answer_holds_up_nobody(start, monkeypatch):
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 0.01)
    running, receiver = await start()
    never = asyncio.Event()

    async def silent(talk: Conversation) -> None:
        await talk.request()
        await never.wait()

    receiver.script = silent
    running.pass_time(6)
    await tried(running)
    assert hook(running).last.startswith("no answer within")


async def test_too_many_that_wait_are_given_up_the_oldest_first(start, monkeypatch):
    monkeypatch.setattr(webhooks, "WAITING", 2)
    running, _ = await start(b"500 Oh")
    running.pass_time(6)
    await tried(running)
    for what in ("pause", "resume", "abort"):
        await call(running, "POST", f"/canaries/trial/{what}", {})
        await tried(running)
    waiting = sorted(message.type for message in hook(running).waiting.values())
    assert (waiting, hook(running).given_up) == (["canary.aborted", "canary.resumed"], 2)


async def test_a_reload_keeps_what_waits_unless_the_receiver_is_another(scripted, proxy, tmp_path):
    upstream = await scripted(answering(whole(b"{}")))
    receiver = await scripted(Receiver(b"500 Oh", b"200 OK"))
    path = tmp_path / "serinus.yaml"
    spec = f"weight: 25, webhooks: [{{url: '{receiver.url}'}}]"
    running = await proxy(config(upstream.url, upstream.url, spec), path=path)
    running.pass_time(6)
    await tried(running)
    path.write_text(path.read_text() + "\nx-note: another\n")
    await running.serinus.reloader.reload()
    assert len(hook(running).waiting) == 1
    path.write_text(path.read_text().replace(receiver.url, f"{receiver.url}/other"))
    await running.serinus.reloader.reload()
    assert not hook(running).waiting


async def test_a_stop_does_not_wait_for_receivers(start):
    running, receiver = await start()
    never = asyncio.Event()

    async def silent(talk: Conversation) -> None:
        await talk.request()
        await never.wait()

    receiver.script = silent
    running.pass_time(6)
    running.pass_time(0.2)
    await receiver.until(lambda: receiver.requests)
    await running.stop()
