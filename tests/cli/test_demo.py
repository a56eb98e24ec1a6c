"""The demo needs nothing, shows itself at work, and ends clean."""

import asyncio
import os
import pty
import random
import re
import signal
import sys
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from openai import AsyncOpenAI
from rich.console import Console

from proxy.benchmark.sample import Failure, Sample
from proxy.cli.demo.scene import PROVIDERS, config
from proxy.cli.demo.traffic import Traffic
from proxy.cli.demo.view import LastRequests, View, callers_line
from proxy.controlplane.load import parse

DEMO = (sys.executable, "-m", "proxy", "demo", "--port", "0", "--admin-port", "0")


def test_its_configuration_is_valid_without_warnings():
    urls = {behaviour.name: "http://127.0.0.1:9001" for behaviour, _ in PROVIDERS}
    loaded = parse(config(urls, 8080, 9090, Path("state")), {})
    assert not loaded.warnings
    assert [str(listener.address) for listener in loaded.settings.listen] == ["127.0.0.1:8080"]


# --- as a process ------------------------------------------------------------------------------------------------


@pytest.fixture
async def demo(tmp_path):
    """Starts demos: `process = await demo("--plain")`."""
    started = []

    async def start(*options, term="xterm", **streams):
        streams = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE, **streams}
        environ = os.environ | {"TERM": term, "COLUMNS": "100", "LINES": "40"}
        environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        process = await asyncio.create_subprocess_exec(*DEMO, *options, env=environ, cwd=tmp_path, **streams)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_it_starts_prints_the_lines_to_try_and_ends(demo):
    process = await demo("--seconds", "0")
    said, wrong = (stream.decode() for stream in await process.communicate())
    assert (process.returncode, wrong) == (0, "")
    assert re.search(r"curl -N http://127\.0\.0\.1:\d+/v1/chat/completions", said)
    assert re.search(r'OpenAI\(base_url="http://127\.0\.0\.1:\d+/v1"', said)
    assert all(behaviour.name in said for behaviour, _ in PROVIDERS)
    assert said.endswith("Serinus has stopped.\n")
    assert "\x1b" not in said


async def test_its_callers_are_answered_and_so_is_an_sdk(demo):
    process = await demo("--plain", "--rate", "50")
    lines = []
    while not re.search(r"[1-9]\d*\.\d calls/s, .* first token after", "".join(lines)):
        lines.append((await process.stdout.readline()).decode())
        assert lines[-1], "it ended"
        if found := re.search(r'OpenAI\(base_url="([^"]+)"', lines[-1]):
            async with AsyncOpenAI(base_url=found[1], api_key="none") as client:
                answer = await client.chat.completions.create(
                    model="gpt-4.1", max_tokens=2, messages=[{"role": "user", "content": "Sing!"}]
                )
                assert answer.choices[0].message.content
    process.send_signal(signal.SIGINT)
    said, wrong = (stream.decode() for stream in await process.communicate())
    assert (process.returncode, wrong) == (0, "")
    assert said.endswith("Serinus has stopped.\n")


async def test_on_a_terminal_it_draws_a_screen_and_gives_the_terminal_back(demo):
    ours, its = pty.openpty()
    process = await demo(stdout=its, stderr=its, stdin=its)
    os.close(its)
    drawn = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        while b"requests as they end" not in drawn:
            drawn += await asyncio.to_thread(terminal.read, 65536)
        process.send_signal(signal.SIGINT)
        while b"Serinus has stopped." not in drawn:
            drawn += await asyncio.to_thread(terminal.read, 65536)
        assert await process.wait() == 0
    assert drawn.index(b"\x1b[?1049h") < drawn.index(b"requests as they end") < drawn.index(b"\x1b[?1049l")
    assert drawn.rindex(b"\x1b[?25h") > drawn.rindex(b"\x1b[?25l")  # the cursor is back


async def test_a_dumb_terminal_is_printed_to(demo):
    ours, its = pty.openpty()
    process = await demo("--seconds", "0", term="dumb", stdout=its, stderr=its, stdin=its)
    os.close(its)
    printed = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        while b"Serinus has stopped." not in printed:
            printed += await asyncio.to_thread(terminal.read, 65536)
        assert await process.wait() == 0
    assert b"\x1b[?1049h" not in printed


async def test_the_picture_is_of_the_last_view(demo, tmp_path):
    path = tmp_path / "demo.svg"
    process = await demo("--seconds", "0", "--picture", str(path))
    await process.communicate()
    assert process.returncode == 0
    picture = path.read_text()
    assert picture.startswith("<svg")
    assert all(word in picture for word in ("swift", "steady", "shaky", "weight", "ready"))
    assert "not&#160;ready" not in picture


async def test_a_port_that_is_taken_is_named(demo, held_port):
    async with await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", held_port):
        process = await demo("--plain", "--admin-port", str(held_port))
        _, wrong = await process.communicate()
    assert process.returncode == 1
    said = (
        f"cannot listen on 127.0.0.1:{held_port}: address already in use (choose others with --port and --admin-port)"
    )
    assert said in wrong.decode()


# --- its parts ---------------------------------------------------------------------------------------------------


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


def answered(ended_s, first_token_wait_s=0.2, tokens=10):
    sample = Sample(ended_s - 1, ended_s - 1, first_token_s=ended_s - 1 + first_token_wait_s, ended_s=ended_s)
    sample.tokens = tokens
    return sample


def failed(ended_s):
    sample = Sample(ended_s - 1, ended_s - 1, ended_s=ended_s)
    sample.fail(Failure.TIMEOUT)
    return sample


def test_callers_see_what_ended_lately():
    assert callers_line(10.0, []) == "no answers yet"
    line = callers_line(10.0, [answered(99, 0.2), answered(98, 0.4), failed(97)])
    assert line == "0.3 calls/s, 1 failed in 10 s, first token after 300 ms (p95 390), 2 tokens/s"
    assert callers_line(2.0, [failed(97)]) == "0.5 calls/s, 1 failed in 2 s, 0 tokens/s"


def test_calls_that_ended_long_ago_are_forgotten():
    clock = Clock()
    traffic = Traffic("http://127.0.0.1:1", 5.0, random.Random(1), clock)
    clock.now_s = 104
    traffic._ended += [answered(101), answered(103)]
    assert traffic.recent() == (4, list(traffic._ended))
    clock.now_s = 112
    assert traffic.recent() == (10, [traffic._ended[1]])


@pytest.mark.parametrize("path", ["/v1/[red]x", "/v1/[/red]", "/v1/[link=http://x]"])
def test_a_callers_path_is_no_markup(path):
    requests = LastRequests(lambda: datetime(2026, 1, 1, 12, 30, tzinfo=UTC))
    requests(path=path, upstream=None, status=404, ttfb_ms=None, duration_ms=0.2)
    console = Console(width=100, record=True, file=StringIO())
    console.print(View(None, requests, "")._requests())
    assert console.export_text().split() == ["12:30:00", path, "answered", "here", "404", "whole", "0", "ms"]
