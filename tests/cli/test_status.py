"""`serinus status` and `serinus top`, as a shell sees them, before a running proxy."""

import asyncio
import json
import os
import pty
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.cli.status_sections import upstreams
from proxy.cli.status_view import Trends, certificate_lines, headline, reload_line
from proxy.controlplane.certificates import CertificateStatus
from proxy.controlplane.status import Quantiles, Status, TargetStatus, Traffic, UpstreamStatus
from tests.support.patience import PATIENCE_S
from tests.support.raw import ask, get
from tests.support.running import config_for
from tests.support.scripted import answering, whole

QUIET = Traffic(0.0, 0.0, None, None)


async def call(*arguments: str, **environ: str) -> Result:
    """The command in a thread: it blocks, and the proxy that it asks is in this one."""
    environ = {"COLUMNS": "100", "SERINUS_ADMIN": "", "SERINUS_ADMIN_TOKEN": "", **environ}
    return await asyncio.to_thread(CliRunner(env=environ).invoke, main, arguments)


@pytest.fixture
async def busy(proxy, scripted):
    """A proxy that had four requests, half of them failed."""
    good = await scripted(answering(whole(b"{}")))
    bad = await scripted(answering(whole(b"{}", status=b"500 Oh")))
    running = await proxy(config_for(good.url, bad.url))
    for _ in range(4):
        await ask(running.port, get())
    running.pass_time(8)
    return running


async def test_status_shows_upstreams_and_pools(busy):
    shown = await call("status", "--admin", busy.admin_url)
    assert shown.exit_code == 0, shown.output
    lines = {line.split()[0]: line.split() for line in shown.output.splitlines() if line.strip()}
    assert "ready" in lines["Serinus"]
    assert lines["chat"][1:5] == ["0", "0.5", "50.0", "%"]
    assert lines["up0"][1:4] == ["1", "50", "/"]  # of the pools' table, which comes last
    (up1,) = [line for line in shown.output.splitlines() if line.startswith("up1 ")]
    assert "failing" in up1
    assert "100.0 %" in up1
    assert lines["up1/main"][1] == "active"


async def test_status_shows_which_keys_rest_and_for_how_long(busy):
    busy.key("up0", "main").resting = "401"
    busy.key("up1", "main").account.cool("gpt-[4.1]", busy.clock() + 90, busy.clock())
    shown = await call("status", "--admin", busy.admin_url)
    lines = {line.split()[0]: line.split() for line in shown.output.splitlines() if line.strip()}
    assert lines["up0/main"][1:3] == ["resting", "401"]
    assert (lines["up1/main"][1], *lines["up1/main"][-3:]) == ("cooling", "gpt-[4.1]", "90", "s")


async def test_json_is_what_the_admin_api_says(busy):
    shown = await call("status", "--json", "--window", "10s", "--admin", busy.admin_url)
    found = json.loads(shown.output)
    assert found["upstreams"]["up0"]["outcomes"] == {"ok": 2}
    assert found["pools"]["chat"]["members"][1]["upstream"] == "up1"


async def test_top_looks_again_and_again(busy):
    shown = await call("top", "--count", "3", "--interval", "1ms", "--admin", busy.admin_url)
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("chat ") == 3
    assert "\x1b" not in shown.output


async def test_top_in_a_terminal_listens_to_keys_and_leaves_what_it_saw_last(busy):
    ours, its = pty.openpty()
    environ = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = (sys.executable, "-m", "proxy", "top", "--interval", "50ms", "--admin", busy.admin_url)
    process = await asyncio.create_subprocess_exec(*command, env=environ, stdin=its, stdout=its, stderr=its)
    drawn = b""
    with os.fdopen(ours, "r+b", buffering=0) as terminal:

        async def until(words: bytes) -> None:
            nonlocal drawn
            async with asyncio.timeout(PATIENCE_S):
                while words not in drawn:
                    drawn += await asyncio.to_thread(terminal.read, 65536)

        try:
            await until(b"s sorts: config")
            os.write(ours, b"s")
            await until(b"s sorts: rate")
            os.write(ours, b"\t")
            await until(b"Tab shows: upstreams")
            await busy.serinus.admin.close()
            await until(b"does not answer")
            os.write(ours, b"q")
            await until(b"\x1b[?1049l")
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            os.close(its)


async def test_only_the_parts_that_are_asked_for_are_shown(busy):
    shown = await call("status", "--only", "keys,pools", "--sort", "failed", "--admin", busy.admin_url)
    firsts = [line.split()[0] for line in shown.output.splitlines() if line.strip()]
    assert "upstream" not in firsts
    assert firsts.index("up1") < firsts.index("up0") < firsts.index("key")
    wrong = await call("status", "--only", "kees", "--admin", busy.admin_url)
    assert (wrong.exit_code, "'kees' is none of upstreams, pools, canaries, keys, clients" in wrong.output) == (2, True)


async def test_no_column_is_left_out_where_the_output_is_no_terminal(busy, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    shown = await asyncio.to_thread(CliRunner().invoke, main, ["status", "--admin", busy.admin_url])
    assert "ejected" in shown.output
    assert "200: 2" in shown.output
    assert "\x1b" not in shown.output


async def test_the_address_comes_from_the_environment_too(busy):
    assert (await call("status", SERINUS_ADMIN=busy.admin_url.removeprefix("http://"))).exit_code == 0


@pytest.mark.parametrize("command", [["status"], ["top", "--count", "1"]])
async def test_nobody_there_is_said_at_once(command, held_port):
    shown = await call(*command, "--admin", f"http://127.0.0.1:{held_port}")
    assert shown.exit_code == 1
    assert "connection refused. Is it the address of the admin API?" in shown.output


async def test_somebody_else_there_is_told_from_serinus(busy):
    shown = await call("status", "--admin", busy.url)
    assert shown.exit_code == 1
    assert "it does not seem to be the admin API of a Serinus, which is http://127.0.0.1:9090" in shown.output


@pytest.mark.parametrize("address", ["ftp://localhost", "http://", "http://localhost:9090/status", "http://h:port"])
async def test_what_is_no_address_is_refused(address):
    shown = await call("status", "--admin", address)
    assert (shown.exit_code, "is no address of an admin API" in shown.output) == (2, True)


async def test_a_token_is_sent_and_never_shown(proxy):
    config = (
        config_for("http://127.0.0.1:1/v1") + "admin: {listen: 127.0.0.1:0, tokens: [{name: ops, value: s3cret}]}\n"
    )
    running = await proxy(config)
    refused = await call("status", "--admin", running.admin_url)
    assert (refused.exit_code, "answers 401: send a token of admin.tokens" in refused.output) == (1, True)
    for shown in (
        await call("status", "--admin", running.admin_url, SERINUS_ADMIN_TOKEN="s3cret"),
        await call("status", "--admin", running.admin_url, "--token", "env:OPS", OPS="s3cret"),
    ):
        assert shown.exit_code == 0, shown.output
        assert "s3cret" not in shown.output
    unset = await call("status", "--admin", running.admin_url, "--token", "env:SERINUS_NO_SUCH_TOKEN")
    assert (unset.exit_code, "--token: " in unset.output) == (2, True)


async def test_window_that_is_none_is_refused(busy):
    shown = await call("status", "--window", "10", "--admin", busy.admin_url)
    assert (shown.exit_code, "write 10s" in shown.output) == (2, True)


# --- what is drawn -----------------------------------------------------------------------------------------------


def status(**fields) -> Status:
    usual = {
        "version": "1.2.3",
        "ready": True,
        "generation": 7,
        "uptime_s": 600.0,
        "window_s": 60.0,
        "connections": 5,
        "traffic": QUIET,
        "answered_here_per_s": 0.0,
        "upstreams": {},
        "pools": {},
    }
    return Status(**usual | fields)


def of_rate(rate: float) -> Status:
    traffic = Traffic(rate, 0.0, Quantiles(1.5, 20.0, 300.0), None)
    return status(upstreams={"up0": UpstreamStatus("http://x", "ok", 0, traffic, {}, {})})


def test_certificates_that_want_looking_after_are_named():
    certificates = {"a:1": CertificateStatus("2027-01-01T00:00:00Z", ""), "b:2": CertificateStatus("", "expires: …")}
    lines = certificate_lines(status(certificates=certificates))
    assert [line.plain for line in lines] == ["certificate of b:2: expires: …"]


def test_targets_of_an_upstream_stand_below_it():
    targets = {"10.0.0.7": TargetStatus(3, "up"), "fd00::8": TargetStatus(0, "ejected")}
    seen = status(upstreams={"up0": UpstreamStatus("http://x", "ok", 3, QUIET, {}, {}, targets)})
    lines = [line.plain.split()[:3] for line in upstreams(seen, Trends()).lines(80)[2:]]
    assert lines == [["up0", "ok", "3"], ["10.0.0.7", "up", "3"], ["fd00::8", "ejected", "0"]]


def test_headline_says_that_it_drains():
    assert str(headline(status(ready=False))) == (
        "Serinus 1.2.3 · not ready · up 10 min · configuration 7 · 5 callers · last 60 s: 0.0 req/s"
    )


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (None, "None"),
        ({"result": "applied", "need_restart": []}, "last reload: applied"),
        ({"result": "applied", "need_restart": ["listen"]}, "last reload: applied; needs a restart: listen"),
        ({"result": "rejected", "problems": ["routes: none"]}, "last reload: rejected: routes: none"),
    ],
)
def test_the_last_reload_is_told(last, said):
    assert str(reload_line(status(last_reload=last))) == said


def test_trends_are_bars_of_the_highest_rate():
    trends = Trends()
    for rate in (0.0, 4.0, 8.0):
        trends.look(of_rate(rate))
    assert trends.line("up0").lstrip() == "▄█"
    assert trends.line("unknown").strip() == ""


def test_waits_have_a_digit_after_the_point_only_where_it_matters():
    assert "1.5 / 20 / 300" in upstreams(of_rate(1.0), Trends()).lines(80)[-1].plain
